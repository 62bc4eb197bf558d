//! Debian packages that the tests and a release use.

use std::{
    io::{self, Write as _},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{host, process};

/// What a program comes with: its name, and the package that has it.
type Needed = (&'static str, &'static str);

/// For the tests.
pub(super) const TESTS: &[Needed] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("modinfo", "kmod"),
    ("xz", "xz-utils"),
    ("curl", "curl"),
    ("chromium", "chromium"),
];

/// For a release.
pub(super) const RELEASE: &[Needed] = &[
    ("musl-gcc", "musl-tools"),
    ("g++", "g++"),
    ("dpkg-deb", "dpkg"),
];

/// To boot a release's package.
pub(super) const BOOT: &[Needed] = &[("mmdebstrap", "mmdebstrap"), ("cpio", "cpio")];

/// Installs what is missing of `needed` when this is root, or after asking;
/// otherwise says what is missing. Says whether it said or did anything.
///
/// # Errors
///
/// When apt-get fails.
pub(crate) fn ensure(needed: &[Needed]) -> Result<bool> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| host::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let list = missing.join(" ");
    if host::find_program("apt-get").is_none() {
        eprintln!("setup: this needs {list} (names of Debian's packages): please install");
        return Ok(true);
    }
    let may_install = host::is_root() || (host::is_interactive() && agreed(&list)?);
    if !may_install {
        eprintln!("setup: this needs {list}: as root, `apt-get install {list}`");
        return Ok(true);
    }
    install(&missing).with_context(|| format!("installing {list}"))?;
    eprintln!("setup: installed {list}");
    Ok(true)
}

fn agreed(list: &str) -> Result<bool> {
    eprint!("This needs {list}. Install with sudo apt-get? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = |words: &[&str]| -> Result<Command> {
        let quiet = [("DEBIAN_FRONTEND", "noninteractive".as_ref())];
        let mut command = host::as_root("apt-get", &quiet)?;
        command
            .args(["-o", "Acquire::Retries=3", "--quiet"])
            .args(words);
        Ok(command)
    };
    // An index that is there is tried first: updating it takes longest.
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    if process::capture(&mut apt(&install)?).is_ok() {
        return Ok(());
    }
    process::retry("apt-get", || {
        process::capture(&mut apt(&["update"])?)?;
        process::capture(&mut apt(&install)?)
    })?;
    Ok(())
}
