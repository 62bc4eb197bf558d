//! What an overlayfs lies on, as its
//! [options](https://docs.kernel.org/filesystems/overlayfs.html) tell.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use crate::identity::hash::handle::unescape;

/// The directories of the options in a line of mountinfo; `None` where one of
/// them is not told, or told by a name that starts in a directory which is not.
pub(super) fn of_overlay(options: &[u8]) -> Option<Vec<PathBuf>> {
    let mut layers = Vec::new();
    // A comma in a path is escaped.
    for option in options.split(|byte| *byte == b',') {
        let Some(equals) = option.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = (&option[..equals], unescape(&option[equals + 1..]));
        match name {
            b"lowerdir" => layers.extend(split(&value)),
            b"lowerdir+" | b"datadir+" | b"upperdir" => layers.push(value),
            _ => {}
        }
    }
    let layers: Vec<PathBuf> = layers
        .into_iter()
        .map(|layer| OsString::from_vec(layer).into())
        .collect();
    let is_told = !layers.is_empty() && layers.iter().all(|layer: &PathBuf| layer.is_absolute());
    is_told.then_some(layers)
}

/// Splits at colons; one in a path has a backslash before it.
fn split(value: &[u8]) -> Vec<Vec<u8>> {
    let mut layers = vec![Vec::new()];
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => layers.push(Vec::new()),
            b'\\' => layers
                .last_mut()
                .into_iter()
                .for_each(|it| it.extend(bytes.next())),
            _ => layers.last_mut().into_iter().for_each(|it| it.push(byte)),
        }
    }
    // Two colons: layers without names of their own follow.
    layers.retain(|layer| !layer.is_empty());
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(options: &str) -> Option<String> {
        let layers = of_overlay(options.as_bytes())?;
        let layers: Vec<_> = layers.iter().map(|layer| layer.to_str().unwrap()).collect();
        Some(layers.join(" "))
    }

    #[test]
    fn directories_are_found_in_options() {
        for (options, layers) in [
            ("rw,lowerdir=/a:/b,upperdir=/u,workdir=/w", "/a /b /u"),
            ("rw,lowerdir=/a::/data", "/a /data"),
            ("ro,lowerdir+=/a:b,datadir+=/c", "/a:b /c"),
            (
                "rw,lowerdir=/with\\134:colon:/and\\054comma",
                "/with:colon /and,comma",
            ),
        ] {
            assert_eq!(told(options).as_deref(), Some(layers), "{options}");
        }
        for options in ["rw", "rw,lowerdir=l/A:/b", "rw,lowerdir=/a,upperdir=u"] {
            assert_eq!(told(options), None, "{options}");
        }
    }
}
