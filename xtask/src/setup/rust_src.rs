//! The standard library's source, from which `core` is built for the eBPF
//! target.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{Rustc, find_file};
use crate::{debian::Suite, host, process};

/// Names a tar file that unpacks to `library/…`, for machines without network.
const LOCAL_COPY: &str = "PROCID_RUST_SRC";

/// Debian suites that carry recent releases of Rust, the likeliest first.
const SUITES: [&str; 2] = ["trixie-backports", "sid"];

/// Brings `library` to the path given, or says why it cannot.
type Way = fn(&Rustc, &Path) -> Result<()>;

/// Gets the source in one of three ways, unless it is there. Says whether it
/// did.
///
/// # Errors
///
/// When no way leads to it: with the reason of each.
pub(super) fn ensure(rustc: &Rustc) -> Result<bool> {
    let place = rustc.sysroot.join("lib/rustlib/src/rust");
    if is_complete(&place) {
        return Ok(false);
    }
    let ways: [(&str, Way); 3] = [
        ("rustup", by_rustup),
        ("Debian's rust-src package", by_debian),
        ("a local copy", by_local_copy),
    ];
    let mut reasons = Vec::new();
    for (name, way) in ways {
        match way(rustc, &place) {
            Ok(()) if is_complete(&place) => {
                eprintln!("setup: rust-src {} by {name}", rustc.version);
                return Ok(true);
            }
            Ok(()) => reasons.push(format!(
                "{name}: no library/core came to {}",
                place.display()
            )),
            Err(error) => reasons.push(format!("{name}: {error:#}")),
        }
    }
    bail!(
        "rust-src {} cannot be had, and the eBPF object needs it:\n  {}",
        rustc.version,
        reasons.join("\n  ")
    )
}

fn is_complete(place: &Path) -> bool {
    place.join("library/core/src/lib.rs").is_file() && place.join("library/Cargo.lock").is_file()
}

fn by_rustup(rustc: &Rustc, _place: &Path) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(90);
    if host::find_program("rustup").is_none() {
        bail!("not installed");
    }
    let toolchain = env::var_os("RUSTUP_TOOLCHAIN").unwrap_or_else(|| (&rustc.version).into());
    let mut rustup = Command::new("rustup");
    rustup
        .args(["component", "add", "rust-src", "--toolchain"])
        .arg(toolchain);
    process::capture_within(LIMIT, &mut rustup).map(drop)
}

fn by_debian(rustc: &Rustc, place: &Path) -> Result<()> {
    let (suite, version) = find_version(&rustc.version)?;
    // Beside its place, so that the last step is one rename.
    let unpacked = staging(place)?;
    suite.unpack(&format!("rust-src={version}"), &unpacked)?;
    let library = unpacked.join(format!("usr/src/rustc-{}/library", rustc.version));
    move_into(&library, place)?;
    fs::remove_dir_all(&unpacked).with_context(|| unpacked.display().to_string())
}

/// The suite whose rust-src is of exactly `release`, and the Debian version.
/// `core` of another release would not compile, or not mean the same.
fn find_version(release: &str) -> Result<(Suite, String)> {
    for name in SUITES {
        let suite = Suite::fetch(name)?;
        let versions = suite.versions("rust-src")?;
        if let Some(version) = versions.into_iter().find(|v| is_release(v, release)) {
            return Ok((suite, version));
        }
    }
    bail!("not of this release in {}", SUITES.join(", "))
}

/// Whether the Debian version (`1.95.0+dfsg1-1~bpo13+1`) packages `release`.
fn is_release(debian: &str, release: &str) -> bool {
    debian
        .strip_prefix(release)
        .is_some_and(|rest| rest.starts_with(['+', '-', '~']))
}

fn by_local_copy(_rustc: &Rustc, place: &Path) -> Result<()> {
    let file = env::var_os(LOCAL_COPY)
        .map(PathBuf::from)
        .with_context(|| format!("{LOCAL_COPY} names no tar file that unpacks to library/"))?;
    let unpacked = staging(place)?;
    fs::create_dir_all(&unpacked).with_context(|| unpacked.display().to_string())?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&file).arg("-C").arg(&unpacked);
    process::capture(&mut tar)?;
    move_into(&unpacked.join("library"), place)?;
    fs::remove_dir_all(&unpacked).with_context(|| unpacked.display().to_string())
}

/// A directory beside `place`, for what is not complete yet.
fn staging(place: &Path) -> Result<PathBuf> {
    let parent = place.parent().context("the sysroot has no parent")?;
    fs::create_dir_all(parent).with_context(|| {
        format!(
            "cannot write to the toolchain: {} (run this once as its owner)",
            parent.display()
        )
    })?;
    let earlier = find_file(parent, |name| name.starts_with(".procid-"));
    if let Some(earlier) = earlier {
        fs::remove_dir_all(&earlier).with_context(|| earlier.display().to_string())?;
    }
    Ok(parent.join(format!(".procid-{}", std::process::id())))
}

/// Makes `library` the toolchain's, in place of an incomplete one.
fn move_into(library: &Path, place: &Path) -> Result<()> {
    let target = place.join("library");
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
    }
    fs::create_dir_all(place).with_context(|| place.display().to_string())?;
    fs::rename(library, &target).with_context(|| format!("no {}", library.display()))
}

#[cfg(test)]
mod tests {
    use super::is_release;

    #[test]
    fn only_the_very_release_will_do() {
        for (debian, same) in [
            ("1.95.0+dfsg1-1~bpo13+1", true),
            ("1.95.0-1", true),
            ("1.95.01-1", false),
            ("1.95.1+dfsg1-1", false),
            ("11.95.0-1", false),
        ] {
            assert_eq!(is_release(debian, "1.95.0"), same, "{debian}");
        }
    }
}
