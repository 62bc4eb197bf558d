//! `cargo xtask setup`: gets what is missing, one line for each thing done.
//!
//! Everything lands in the clone's target directory, the Rust toolchain's own
//! directory or the user's cache; only Debian packages change the system, and
//! those are installed when this is root or after asking.

mod bpf_linker;
mod cargo_tools;
mod musl;
mod packages;
mod rust_src;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{process, vm::kernels};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Get the kernels that the virtual machine tests boot, too
    #[arg(long)]
    vms: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let mut did = build_needs()?;
    did |= packages::ensure(packages::TESTS)?;
    if args.vms {
        for kernel in kernels::TESTED {
            did |= kernels::ensure(kernel)?.fetched;
        }
    }
    if !did {
        eprintln!("nothing to do");
    }
    Ok(())
}

/// Gets what a build needs.
///
/// # Errors
///
/// When something can be had in no way; the error names the ways tried.
pub(crate) fn for_build() -> Result<()> {
    build_needs().map(drop)
}

/// Gets what the tests need beyond a build, as far as this caller may.
///
/// # Errors
///
/// When an installation was started and failed.
pub(crate) fn for_tests() -> Result<()> {
    packages::ensure(packages::TESTS).map(drop)
}

/// Gets what a release needs beyond a build, and returns the directory with what
/// a static binary is linked with.
///
/// # Errors
///
/// When something can be had in no way.
pub(crate) fn for_release() -> Result<PathBuf> {
    let rustc = Rustc::find()?;
    packages::ensure(packages::RELEASE)?;
    cargo_tools::ensure()?;
    musl::ensure(&rustc)
}

/// Gets what is needed to boot a release's package in a virtual machine.
///
/// # Errors
///
/// When an installation was started and failed.
pub(crate) fn for_boot() -> Result<()> {
    packages::ensure(packages::TESTS)?;
    packages::ensure(packages::BOOT).map(drop)
}

fn build_needs() -> Result<bool> {
    let rustc = Rustc::find()?;
    let source = rust_src::ensure(&rustc)?;
    let linker = bpf_linker::ensure(&rustc)?;
    Ok(source || linker)
}

/// The compiler that this workspace is built with.
#[derive(Debug)]
struct Rustc {
    /// `1.95.0`
    version: String,
    sysroot: PathBuf,
}

impl Rustc {
    fn find() -> Result<Self> {
        let rustc = |args: &[&str]| process::capture(Command::new("rustc").args(args));
        let verbose = rustc(&["-vV"])?;
        let version = verbose
            .lines()
            .find_map(|line| line.strip_prefix("release: "))
            .context("rustc -vV names no release")?
            .to_owned();
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
        Ok(Self { version, sysroot })
    }

    /// The LLVM that is part of this rustc.
    fn llvm(&self) -> Result<PathBuf> {
        let lib = self.sysroot.join("lib");
        find_file(&lib, |name| name.starts_with("libLLVM.so.")).with_context(|| {
            format!(
                "no libLLVM.so.* in {}: bpf-linker is linked with the LLVM inside rustc, \
                 which toolchains of rust-lang.org have and distributions' packages do not",
                lib.display()
            )
        })
    }
}

/// The file in `dir` whose name passes `wanted`.
fn find_file(dir: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| wanted(&name.to_string_lossy()))
        })
}
