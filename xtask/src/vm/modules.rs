//! Kernel modules that init loads in the guest, so that the protocols which
//! Debian builds as modules are there as on any machine that may load them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// What the tests use; a kernel that has one built in, or not at all, is no
/// error. Ciphers come by name, because nothing in the guest loads what the
/// kernel asks for.
pub(crate) const TESTED: [&str; 12] = [
    "sctp",
    "dccp_ipv4",
    "dccp_ipv6",
    "tls",
    "gcm",
    "ctr",
    "ghash_generic",
    "vsock_loopback",
    "rxrpc",
    "smc",
    "overlay",
    "veth",
];

/// A module's file name in the guest, and its content as the kernel takes it.
pub(crate) type Module = (String, Vec<u8>);

/// The modules of `wanted` and all they depend on, found below `dir`, in the order
/// in which they can be loaded.
///
/// # Errors
///
/// When a file cannot be read, or kmod's modinfo or a decompressor fails.
pub(crate) fn find(dir: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    collect(dir, &mut files)?;
    let mut order = Vec::new();
    for &name in wanted {
        if files.contains_key(name) {
            load(name, &files, &mut order)?;
        }
    }
    order
        .iter()
        .map(|name| Ok((format!("{name}.ko"), content(&files[name])?)))
        .collect()
}

/// Every module file below `dir`, by the module's name.
fn collect(dir: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Puts a module after those that it needs.
fn load(name: &str, files: &HashMap<String, PathBuf>, order: &mut Vec<String>) -> Result<()> {
    if order.iter().any(|loaded| loaded == name) {
        return Ok(());
    }
    let file = files
        .get(name)
        .with_context(|| format!("no module {name}, which another one needs"))?;
    let depends = process::capture(Command::new("modinfo").args(["-F", "depends"]).arg(file))?;
    for needed in depends.trim().split(',').filter(|word| !word.is_empty()) {
        load(&needed.replace('-', "_"), files, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

/// A module, decompressed where it is compressed.
fn content(file: &Path) -> Result<Vec<u8>> {
    let decompressor = match file.extension().and_then(|end| end.to_str()) {
        Some("ko") => return fs::read(file).with_context(|| file.display().to_string()),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{}: compressed in an unknown way", file.display()),
    };
    let output = Command::new(decompressor)
        .arg("-dc")
        .arg(file)
        .output()
        .with_context(|| format!("cannot start {decompressor}"))?;
    if !output.status.success() {
        bail!("{decompressor} -dc {}: {}", file.display(), output.status);
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_the_module_s_name() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("kernel/net");
        fs::create_dir_all(&net).unwrap();
        for file in ["sctp.ko", "ghash-generic.ko.xz", "modules.order"] {
            fs::write(net.join(file), "").unwrap();
        }
        let mut files = HashMap::new();
        collect(dir.path(), &mut files).unwrap();
        let mut names: Vec<_> = files.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["ghash_generic", "sctp"]);
    }

    #[test]
    fn a_kernel_without_modules_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(dir.path(), &TESTED).unwrap().is_empty());
    }
}
