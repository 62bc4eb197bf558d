//! The Debian package: the program, its unit, settings, pages and completions.
//!
//! `dpkg-deb` makes it of a tree; what debhelper would generate is written out
//! in `packaging/debian`, because it is little.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::VERSION;
use crate::{cargo, host, process};

/// Writes the manual pages and completions, made from the command line's
/// definition.
///
/// # Errors
///
/// When the build fails.
pub(super) fn pages(to: &Path) -> Result<()> {
    let mut cargo = cargo::cargo();
    cargo
        .args(["run", "--locked", "--quiet", "--package", "procid"])
        .args(["--example", "pages", "--"])
        .arg(to);
    process::capture(&mut cargo).map(drop)
}

/// Makes the package in `dir` and returns its path.
///
/// # Errors
///
/// When a file is missing, or `dpkg-deb` fails.
pub(super) fn build(program: &Path, pages: &Path, dir: &Path) -> Result<PathBuf> {
    let tree = Tree(dir.join("tree"));
    let ours = host::root().join("packaging/debian");
    tree.file(program, "usr/bin/procid", 0o755)?;
    for (file, place) in [
        ("procid.service", "usr/lib/systemd/system/procid.service"),
        ("procid.sysusers", "usr/lib/sysusers.d/procid.conf"),
        ("procid.toml", "etc/procid/procid.toml"),
        ("copyright", "usr/share/doc/procid/copyright"),
        ("conffiles", "DEBIAN/conffiles"),
    ] {
        tree.file(&ours.join(file), place, 0o644)?;
    }
    for script in ["postinst", "prerm", "postrm"] {
        tree.file(&ours.join(script), &format!("DEBIAN/{script}"), 0o755)?;
    }
    tree.packed(
        &host::root().join("CHANGELOG.md"),
        "usr/share/doc/procid/changelog",
    )?;
    for page in super::files(&pages.join("man8"))? {
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        tree.packed(&page, &format!("usr/share/man/man8/{name}"))?;
    }
    for (file, place) in [
        ("procid.bash", "bash-completion/completions/procid"),
        ("_procid", "zsh/vendor-completions/_procid"),
        ("procid.fish", "fish/vendor_completions.d/procid.fish"),
    ] {
        let file = pages.join("completions").join(file);
        tree.file(&file, &format!("usr/share/{place}"), 0o644)?;
    }
    let control = fs::read_to_string(ours.join("control"))?
        .replace("@VERSION@", VERSION)
        .replace("@SIZE@", &size(&tree.0)?.div_ceil(1024).to_string());
    fs::write(tree.0.join("DEBIAN/control"), control)?;

    let deb = dir.join(format!("procid_{VERSION}_amd64.deb"));
    let mut dpkg = Command::new("dpkg-deb");
    // The same tree makes the same package.
    dpkg.args(["--root-owner-group", "-Zxz", "--build"])
        .args([&tree.0, &deb])
        .env("SOURCE_DATE_EPOCH", super::commit_time()?);
    process::capture(&mut dpkg)?;
    fs::remove_dir_all(&tree.0).with_context(|| tree.0.display().to_string())?;
    eprintln!(
        "dist: {} bytes of {}",
        fs::metadata(&deb)?.len(),
        deb.display()
    );
    Ok(deb)
}

/// The package's files, as they will lie on a machine.
struct Tree(PathBuf);

impl Tree {
    fn file(&self, from: &Path, place: &str, mode: u32) -> Result<()> {
        let to = self.0.join(place);
        let mut above = to
            .parent()
            .context("a file without a directory")?
            .to_owned();
        fs::create_dir_all(&above)?;
        // The caller's umask is not the package's.
        while above.starts_with(&self.0) {
            fs::set_permissions(&above, fs::Permissions::from_mode(0o755))?;
            above.pop();
        }
        fs::copy(from, &to).with_context(|| from.display().to_string())?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))
            .with_context(|| to.display().to_string())
    }

    /// As [`Self::file`], compressed, with `.gz` after its name.
    fn packed(&self, from: &Path, place: &str) -> Result<()> {
        self.file(from, place, 0o644)?;
        // No name and no time in it.
        process::capture(Command::new("gzip").arg("-9n").arg(self.0.join(place))).map(drop)
    }
}

/// The bytes of all files below `dir`.
fn size(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            size(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(sum)
}
