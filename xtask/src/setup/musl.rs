//! What a static binary is linked with: musl's start files and C library, from
//! Debian's musl-dev, and LLVM's unwinder, from the source beside the standard
//! library's.
//!
//! It is what rustup's `x86_64-unknown-linux-musl` component has, which cannot be
//! had everywhere; rustc looks for the files by these names in each directory of
//! `-L native`. The standard library itself is built by cargo (`-Z build-std`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::Rustc;
use crate::{host, process};

/// Where Debian keeps musl's files.
const MUSL: &str = "/usr/lib/x86_64-linux-musl";

/// The flags of rustc's own build of the unwinder.
const FLAGS: [&str; 7] = [
    "-O2",
    "-fPIC",
    "-funwind-tables",
    "-fvisibility=hidden",
    "-DNDEBUG",
    "-D_LIBUNWIND_IS_NATIVE_ONLY",
    "-c",
];

/// The unwinder's sources, and the flags of their languages.
const SOURCES: [(&str, &[&str]); 5] = [
    (
        "libunwind.cpp",
        &[
            "-xc++",
            "-std=c++17",
            "-nostdinc++",
            "-fno-exceptions",
            "-fno-rtti",
        ],
    ),
    ("UnwindLevel1.c", &["-std=c99", "-fexceptions"]),
    ("UnwindLevel1-gcc-ext.c", &["-std=c99", "-fexceptions"]),
    ("UnwindRegistersRestore.S", &[]),
    ("UnwindRegistersSave.S", &[]),
];

/// Makes the directory, unless it is there.
///
/// # Errors
///
/// When musl or the unwinder's source is missing, or a compiler fails.
pub(super) fn ensure(rustc: &Rustc) -> Result<PathBuf> {
    let place = host::tools_dir().join("musl");
    let unwinder = place.join("libunwind.a");
    if unwinder.exists() {
        return Ok(place);
    }
    fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    for name in ["rcrt1.o", "crti.o", "crtn.o", "libc.a"] {
        copy(&Path::new(MUSL).join(name), &place)
            .context("musl is not installed (Debian's musl-tools)")?;
    }
    for name in ["crtbeginS.o", "crtendS.o"] {
        let mut gcc = Command::new("gcc");
        let file = process::capture(gcc.arg(format!("-print-file-name={name}")))?;
        copy(Path::new(file.trim()), &place)?;
    }
    let source = rustc
        .sysroot
        .join("lib/rustlib/src/rust/src/llvm-project/libunwind");
    if !source.is_dir() {
        bail!(
            "no {}: a static binary needs the rust-src of rustup (`rustup component add rust-src`)",
            source.display()
        );
    }
    build_unwinder(&source, &place, &unwinder)?;
    Ok(place)
}

fn copy(file: &Path, into: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default();
    fs::copy(file, into.join(name)).with_context(|| file.display().to_string())?;
    Ok(())
}

fn build_unwinder(source: &Path, place: &Path, archive: &Path) -> Result<()> {
    let build = tempfile::tempdir_in(place)?;
    let mut ar = Command::new("ar");
    // D: no times, no owners.
    let unfinished = build.path().join("libunwind.a");
    ar.arg("rcsD").arg(&unfinished);
    for (name, flags) in SOURCES {
        let object = build.path().join(name).with_extension("o");
        let mut compiler = Command::new("musl-gcc");
        compiler
            .args(flags)
            .args(FLAGS)
            .arg("-I")
            .arg(source.join("include"))
            .arg(source.join("src").join(name))
            .arg("-o")
            .arg(&object);
        process::capture(&mut compiler)?;
        ar.arg(object);
    }
    process::capture(&mut ar)?;
    fs::rename(&unfinished, archive).with_context(|| archive.display().to_string())
}
