//! What an image is known by: files, hashes, and the groups it runs in.

use std::path::PathBuf;

use toml::de::DeValue;

use super::{
    diagnostic::Wrong,
    words::{quoted, text},
};
use crate::policy::{Files, Inode};

/// Hexadecimal digits of a container's id, at least and at most.
const CONTAINER_MIN: usize = 12;
const CONTAINER_MAX: usize = 64;

/// Bits of the kernel's device numbers
/// (<https://github.com/torvalds/linux/blob/v6.12/include/linux/kdev_t.h#L7>).
const MINOR_BITS: u32 = 20;
const MAJOR_BITS: u32 = 32 - MINOR_BITS;

/// Suffixes of the units that run processes.
const UNIT_SUFFIXES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];
/// systemd's own limit.
const UNIT_MAX: usize = 255;

/// An absolute path without anything that the kernel would resolve away.
fn normal(path: &str) -> Result<(), Wrong> {
    let wrong = |message: String| Err(Wrong::new(message, format!("write {}", tidy(path))));
    if path.contains('\0') {
        return Err(Wrong::new("holds a NUL, which no path can", "remove it"));
    }
    let Some(relative) = path.strip_prefix('/') else {
        return Err(Wrong::new(
            format!("{} is not an absolute path", quoted(path)),
            "begin it with `/`",
        ));
    };
    if relative.is_empty() {
        return Ok(());
    }
    for part in relative.split('/') {
        match part {
            "" if path.ends_with('/') && !path.contains("//") => {
                return wrong(format!("{} ends with `/`", quoted(path)));
            }
            "" => return wrong(format!("{} holds `//`", quoted(path))),
            "." | ".." => return wrong(format!("{} holds `{part}`", quoted(path))),
            _ => (),
        }
    }
    Ok(())
}

/// The same path as the kernel would write it, links left aside.
fn tidy(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => (),
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    quoted(&format!("/{}", parts.join("/")))
}

/// `/path/to/file` or `/dir/**`.
pub(super) fn files(value: &DeValue<'_>) -> Result<Files, Wrong> {
    let whole = text(value)?;
    let (path, below) = match whole.strip_suffix("/**") {
        Some("") => ("/", true),
        Some(directory) => (directory, true),
        None => (whole, false),
    };
    if path.contains('*') {
        return Err(Wrong::new(
            format!("{} holds a `*` that is not a final `/**`", quoted(whole)),
            "name the file, or write \"/dir/**\" for all below a directory",
        ));
    }
    normal(path)?;
    if below {
        return Ok(Files::Below(path.into()));
    }
    if path == "/" {
        return Err(Wrong::new("`/` is no file", "write \"/**\" for every file"));
    }
    Ok(Files::Exact(path.into()))
}

pub(super) fn sha256(value: &DeValue<'_>) -> Result<[u8; 32], Wrong> {
    let hex = text(value)?;
    let wrong =
        |why: String| Wrong::new(why, "write the 64 hexadecimal digits that sha256sum prints");
    if let Some(other) = hex.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(wrong(format!("{other:?} is no hexadecimal digit")));
    }
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
        return Err(wrong(format!("has {} digits instead of 64", hex.len())));
    };
    let bytes: Vec<_> = pairs
        .iter()
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect();
    bytes
        .try_into()
        .map_err(|_| wrong(format!("has {} digits instead of 64", hex.len())))
}

/// The value of a hexadecimal digit.
const fn digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// `major:minor:inode`.
pub(super) fn inode(value: &DeValue<'_>) -> Result<Inode, Wrong> {
    let form =
        "write it as \"major:minor:inode\", the numbers that `stat -c %Hd:%Ld:%i FILE` prints";
    let DeValue::String(text) = value else {
        return Err(Wrong::kind("a string", value, form));
    };
    let mut parts = text.split(':').map(|part| {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u64>().ok().filter(|_| digits)
    });
    let mut below = |limit: u64| parts.next()?.filter(|number| *number < limit);
    let (major, minor) = (below(1 << MAJOR_BITS), below(1 << MINOR_BITS));
    let ino = below(u64::MAX).filter(|ino| *ino > 0);
    let device = major
        .and_then(|major| u32::try_from(major).ok())
        .zip(minor.and_then(|minor| u32::try_from(minor).ok()));
    match (device, ino, parts.next()) {
        (Some((major, minor)), Some(ino), None) => Ok(Inode { major, minor, ino }),
        _ => Err(Wrong::new(
            format!("{} is not an inode", quoted(text)),
            form,
        )),
    }
}

/// A path in the cgroup v2 hierarchy.
pub(super) fn cgroup(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let path = text(value)?;
    if let Some(inside) = path.strip_prefix("/sys/fs/cgroup")
        && (inside.is_empty() || inside.starts_with('/'))
    {
        return Err(Wrong::new(
            format!("{} counts from the root of the host", quoted(path)),
            format!("count from the hierarchy's root: {}", tidy(inside)),
        ));
    }
    if path.contains('*') {
        return Err(Wrong::new(
            format!("{} holds a `*`", quoted(path)),
            "leave it out: a cgroup stands for all below it",
        ));
    }
    normal(path)?;
    Ok(path.into())
}

pub(super) fn unit(value: &DeValue<'_>) -> Result<String, Wrong> {
    let unit = text(value)?;
    let stem = UNIT_SUFFIXES
        .iter()
        .find_map(|suffix| unit.strip_suffix(suffix));
    let is_name = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    match stem {
        Some(stem) if !stem.is_empty() && unit.len() <= UNIT_MAX && unit.chars().all(is_name) => {
            Ok(unit.to_owned())
        }
        _ => Err(Wrong::new(
            format!(
                "{} is not the name of a systemd unit with processes",
                quoted(unit)
            ),
            "write it with its suffix, as in \"sshd.service\"",
        )),
    }
}

/// The beginning of a container's id.
pub(super) fn container(value: &DeValue<'_>) -> Result<String, Wrong> {
    let id = text(value)?;
    let help = "write 12 to 64 hexadecimal digits, as `docker ps` and `podman ps` print them";
    if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Wrong::new(
            format!("{} is not the id of a container", quoted(id)),
            help,
        ));
    }
    if !(CONTAINER_MIN..=CONTAINER_MAX).contains(&id.len()) {
        return Err(Wrong::new(
            format!(
                "{} has {} digits, and {CONTAINER_MIN} to {CONTAINER_MAX} are asked for",
                quoted(id),
                id.len()
            ),
            help,
        ));
    }
    Ok(id.to_ascii_lowercase())
}
