//! Debian packages that the tests use.

use std::{
    io::{self, Write as _},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{host, process};

/// A program and the package that has it.
const NEEDED: [(&str, &str); 8] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("modinfo", "kmod"),
    ("xz", "xz-utils"),
    ("curl", "curl"),
    ("chromium", "chromium"),
];

/// Installs what is missing when this is root, or after asking; otherwise says
/// what is missing. Says whether it said or did anything.
///
/// # Errors
///
/// When apt-get fails.
pub(crate) fn ensure() -> Result<bool> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| host::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let list = missing.join(" ");
    if host::find_program("apt-get").is_none() {
        eprintln!("setup: some tests need {list} (names of Debian's packages): please install");
        return Ok(true);
    }
    let may_install = host::is_root() || (host::is_interactive() && agreed(&list)?);
    if !may_install {
        eprintln!("setup: some tests need {list}: as root, `apt-get install {list}`");
        return Ok(true);
    }
    install(&missing).with_context(|| format!("installing {list}"))?;
    eprintln!("setup: installed {list}");
    Ok(true)
}

fn agreed(list: &str) -> Result<bool> {
    eprint!("Some tests need {list}. Install with sudo apt-get? [y/N] ");
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
