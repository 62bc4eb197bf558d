//! `cargo xtask dist`: what a release consists of, in `target/artifacts`.

mod binary;
mod boot;
mod dependencies;
mod object;
mod package;
mod pcap;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{host, process, setup};

/// The version of every package of the workspace, xtask's too.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Makes a static program (x86_64, musl), a Debian package, manual pages, shell completions, a \
CycloneDX list of what it is made of, and SHA256SUMS. The program is held to 15 MB, and to hold \
no path of this machine; dependencies to deny.toml. The Debian package needs no library.")]
pub(crate) struct Args {
    /// Build the eBPF object a second time, elsewhere, and compare the bytes (some minutes more)
    #[arg(long)]
    check: bool,
    /// Boot a Debian with the package in a virtual machine, twice, and look for a first packet
    /// that escapes (some minutes more, as root)
    #[arg(long)]
    boot: bool,
    /// Only boot a Debian with this package, made before
    #[arg(long, value_name = "DEB", conflicts_with_all = ["check", "boot"])]
    boot_only: Option<PathBuf>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if let Some(deb) = &args.boot_only {
        setup::for_boot()?;
        return boot::main(deb);
    }
    setup::for_build()?;
    let musl = setup::for_release()?;
    let dir = host::target_dir().join("artifacts");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;

    dependencies::check()?;
    let built = binary::build(&musl)?;
    if args.check {
        object::check_again(&built.object)?;
    }
    let pages = dir.join("pages");
    package::pages(&pages)?;
    let deb = package::build(&built.program, &pages, &dir)?;
    let program = dir.join(format!("procid-{VERSION}-x86_64-linux-musl"));
    fs::copy(&built.program, &program).with_context(|| program.display().to_string())?;
    dependencies::list(&dir)?;
    sums(&dir)?;
    if args.boot {
        setup::for_boot()?;
        boot::main(&deb)?;
    }
    eprintln!("made {}", dir.display());
    Ok(())
}

/// The time of the last commit, in seconds since 1970: what is made of the same
/// commit says the same time.
fn commit_time() -> Result<String> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"])
        .current_dir(host::root());
    Ok(process::capture(&mut git)?.trim().to_owned())
}

/// Writes SHA256SUMS of the files in `dir`, which `sha256sum -c` reads.
fn sums(dir: &Path) -> Result<()> {
    let mut names: Vec<_> = files(dir)?
        .iter()
        .filter_map(|file| file.file_name().map(ToOwned::to_owned))
        .collect();
    names.sort();
    let mut sha256sum = Command::new("sha256sum");
    let sums = process::capture(sha256sum.arg("--").args(names).current_dir(dir))?;
    fs::write(dir.join("SHA256SUMS"), sums).context("writing SHA256SUMS")
}

/// The plain files in `dir`.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let all: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    Ok(all.into_iter().filter(|path| path.is_file()).collect())
}
