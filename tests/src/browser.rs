//! Pages, looked at with Chromium.

use std::{io, os::unix::process::CommandExt as _, path::Path, process::Command};

use tempfile::TempDir;

/// The program's name in Debian, and in others.
const NAMES: [&str; 2] = ["chromium", "google-chrome"];

/// A browser that has no network.
#[derive(Debug)]
pub struct Browser {
    program: &'static str,
    profile: TempDir,
}

impl Browser {
    /// # Panics
    ///
    /// Where none is installed.
    #[must_use]
    pub fn new() -> Self {
        let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
        Self {
            program: NAMES
                .into_iter()
                .find(is_there)
                .expect("chromium is installed; 'cargo xtask setup' does it"),
            profile: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// The page as it is when its script has run.
    ///
    /// # Panics
    ///
    /// When the browser fails.
    #[must_use]
    pub fn dom(&self, page: &Path) -> String {
        let output = self.look(page, &["--dump-dom".to_owned()]);
        String::from_utf8(output).expect("a page of text")
    }

    /// A picture of it, so wide and so high.
    ///
    /// # Panics
    ///
    /// When the browser fails.
    pub fn picture(&self, page: &Path, to: &Path, [width, height]: [u32; 2]) {
        let arguments = [
            format!("--screenshot={}", to.display()),
            format!("--window-size={width},{height}"),
            "--hide-scrollbars".to_owned(),
        ];
        self.look(page, &arguments);
        assert!(to.exists(), "no picture");
    }

    fn look(&self, page: &Path, arguments: &[String]) -> Vec<u8> {
        let mut browser = Command::new(self.program);
        browser.args([
            "--headless=new",
            // Root has no sandbox there; the page is procid's own.
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=2000",
        ]);
        browser.arg(format!("--user-data-dir={}", self.profile.path().display()));
        browser.args(arguments);
        browser.arg(format!("file://{}", page.display()));
        // SAFETY: one system call, which may follow a fork.
        unsafe {
            browser.pre_exec(|| match libc::unshare(libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        };
        let output = browser.output().expect("the browser can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        output.stdout
    }
}

impl Default for Browser {
    fn default() -> Self {
        Self::new()
    }
}
