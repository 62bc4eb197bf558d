//! Debian kernels to boot: downloaded once, unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{debian::Suite, host};

/// The kernels that `cargo xtask test` boots.
pub(crate) const TESTED: [&str; 3] = ["6.1", "6.12", "7.3"];

/// A kernel that Debian packages.
#[derive(Debug)]
struct Packaged {
    /// Major and minor version: `6.1`.
    version: &'static str,
    /// Suites that have it, in the order asked.
    suites: &'static [&'static str],
    /// Kernel parameters without which procid cannot do its work there.
    append: &'static str,
}

/// The socket storage of BPF programs comes from an allocator that takes no
/// lock, and needs either cmpxchg16b, which the guest's processor lacks (see
/// `guest::CPU`), or caches that are debugged.
const LOCKLESS_SLABS: &str = "slab_debug=F,kmalloc-*";

const PACKAGED: [Packaged; 5] = [
    Packaged {
        version: "5.10",
        suites: &["bullseye"],
        // BPF is not on by default.
        append: "lsm=lockdown,yama,integrity,apparmor,bpf",
    },
    Packaged {
        version: "6.1",
        suites: &["bookworm"],
        append: "",
    },
    Packaged {
        version: "6.12",
        suites: &["trixie", "bookworm-backports"],
        append: "",
    },
    Packaged {
        version: "7.2",
        suites: &["trixie-backports", "sid"],
        append: LOCKLESS_SLABS,
    },
    Packaged {
        version: "7.3",
        suites: &["sid", "trixie-backports"],
        append: LOCKLESS_SLABS,
    },
];

/// A kernel in the cache.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    /// What its packages hold, modules among it.
    pub(crate) dir: PathBuf,
    pub(crate) append: &'static str,
    /// Whether it was downloaded just now.
    pub(crate) fetched: bool,
}

/// The kernel of `version` (`6.1`), downloaded when the cache has none. To have
/// a newer build of it, remove its directory in the cache.
///
/// # Errors
///
/// When Debian has no such kernel, or the mirror does not give it.
pub(crate) fn ensure(version: &str) -> Result<Kernel> {
    let packaged = PACKAGED
        .iter()
        .find(|packaged| packaged.version == version)
        .with_context(|| {
            let known = PACKAGED.map(|packaged| packaged.version).join(", ");
            format!("no kernel {version}: known are {known}")
        })?;
    let dir = host::cache_dir()?.join("kernels").join(version);
    let image = dir.join("vmlinuz");
    let fetched = !image.exists();
    if fetched {
        let package = fetch(packaged, &dir)?;
        eprintln!("setup: kernel {version}: {package}");
    }
    Ok(Kernel {
        image,
        dir,
        append: packaged.append,
        fetched,
    })
}

/// Downloads the newest build of a kernel into `dir`, and names its package.
fn fetch(kernel: &Packaged, dir: &Path) -> Result<String> {
    let (suite, package) = find(kernel)?;
    // Complete or not there at all, also when two builds fetch at once.
    let above = dir.parent().context("the cache has no directory")?;
    fs::create_dir_all(above).with_context(|| above.display().to_string())?;
    let unpacked = tempfile::tempdir_in(above).with_context(|| above.display().to_string())?;
    suite.unpack(&package, unpacked.path())?;
    let image =
        find_image(unpacked.path())?.with_context(|| format!("{package} has no vmlinuz"))?;
    fs::rename(&image, unpacked.path().join("vmlinuz"))?;
    let modules = package.replacen("-binary-", "-modules-", 1);
    if modules != package {
        suite.unpack(&modules, &unpacked.path().join("modules"))?;
    }
    fs::write(unpacked.path().join("package"), format!("{package}\n"))?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    fs::rename(unpacked.keep(), dir).with_context(|| dir.display().to_string())?;
    Ok(package)
}

fn find(kernel: &Packaged) -> Result<(Suite, String)> {
    let version = kernel.version.replace('.', r"\.");
    let pattern = format!(r"^linux-(image|binary)-{version}\.[^ ]*-cloud-amd64$");
    let mut failure = None;
    for name in kernel.suites {
        let found = Suite::fetch(name).and_then(|suite| Ok((suite.packages(&pattern)?, suite)));
        match found {
            Ok((packages, suite)) => {
                if let Some(newest) = packages.into_iter().max_by_key(|name| build(name)) {
                    return Ok((suite, newest));
                }
            }
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let suites = kernel.suites.join(", ");
    bail!("no cloud kernel {} in Debian's {suites}", kernel.version)
}

/// What orders a kernel's packages: the numbers in the name, then whether it is
/// a linux-binary-*, which has the image where linux-image-* is empty (7.x).
fn build(name: &str) -> (Vec<u64>, bool) {
    let numbers = name
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    (numbers, name.starts_with("linux-binary-"))
}

/// The kernel image under `dir`, in /boot or, since 7.2, beside the modules.
fn find_image(dir: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && name.starts_with("vmlinuz") {
            return Ok(Some(path));
        }
        // Modules are many, and no kernel images.
        if path.is_dir()
            && !path.is_symlink()
            && name != "kernel"
            && let Some(image) = find_image(&path)?
        {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_build_is_chosen_by_number() {
        for (older, newer) in [
            (
                "linux-image-6.1.0-9-cloud-amd64",
                "linux-image-6.1.0-50-cloud-amd64",
            ),
            (
                "linux-image-6.12.9+deb13-cloud-amd64",
                "linux-image-6.12.38+deb13-cloud-amd64",
            ),
            (
                "linux-image-7.3.4+deb13-cloud-amd64",
                "linux-binary-7.3.4+deb13-cloud-amd64",
            ),
        ] {
            assert!(build(older) < build(newer), "{older} {newer}");
        }
    }

    #[test]
    fn an_unknown_kernel_is_refused_with_the_known_ones() {
        let error = ensure("4.19").unwrap_err().to_string();
        assert!(error.contains("4.19") && error.contains("6.12"), "{error}");
    }
}
