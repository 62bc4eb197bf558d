//! The trees of names: executables by file system, cgroups, units, containers.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

use procid_common::policy::{
    CGROUPS, CONTAINER_ROOT, CONTAINERS, FILES, FIRST_NODE, NAME_PIECE, Name, Node, UNITS, Uses,
};

use crate::policy::{bits::union, places::Place};

/// The pieces that a name is matched in.
pub(in crate::policy) fn pieces(name: &OsStr) -> impl Iterator<Item = [u8; NAME_PIECE]> {
    let name = name.as_bytes();
    (0..=name.len() / NAME_PIECE).map(|nth| {
        let start = nth * NAME_PIECE;
        let end = name.len().min(start + NAME_PIECE);
        padded(&name[start..end])
    })
}

/// The name that a file system has among [`FILES`].
pub(in crate::policy) fn file_system(dev: u32) -> [u8; NAME_PIECE] {
    padded(&dev.to_ne_bytes())
}

/// Where the root of a container has a path.
pub(in crate::policy) fn in_root(path: &Path) -> Place {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    });
    Place {
        dev: CONTAINER_ROOT,
        names: names.collect(),
    }
}

/// The name that the beginning of a container's id has among [`CONTAINERS`].
pub(in crate::policy) fn container(prefix: &str) -> [u8; NAME_PIECE] {
    padded(prefix.as_bytes())
}

/// The names of a cgroup's path.
pub(in crate::policy) fn cgroup_names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components()
        .filter(|part| *part != Component::RootDir)
        .map(Component::as_os_str)
}

fn padded(bytes: &[u8]) -> [u8; NAME_PIECE] {
    let mut piece = [0; NAME_PIECE];
    piece[..bytes.len()].copy_from_slice(bytes);
    piece
}

#[derive(Debug, Default)]
pub(super) struct Names {
    nodes: Vec<(Name, Node)>,
    /// Where each name is in `nodes`, by what is above and the piece.
    index: HashMap<(u32, [u8; NAME_PIECE]), usize>,
}

impl Names {
    /// Every node, each with what those above it say of all that is below.
    pub(super) fn into_nodes(mut self) -> Vec<(Name, Node)> {
        for at in 0..self.nodes.len() {
            // What is above was made before.
            let above = self.nodes[at].0.parent.checked_sub(FIRST_NODE);
            if let Some(above) = above.and_then(|above| usize::try_from(above).ok()) {
                let below = self.nodes[above].1.below;
                let own = &mut self.nodes[at].1.below;
                union(&mut own.own, &below.own);
                union(&mut own.ancestor, &below.ancestor);
                union(&mut own.parent, &below.parent);
            }
        }
        self.nodes
    }

    /// The node of a file or directory.
    pub(super) fn file(&mut self, place: &Place) -> &mut Node {
        let mut at = self.piece(FILES, file_system(place.dev));
        for name in &place.names {
            at = self.name(self.nodes[at].1.id, name);
        }
        &mut self.nodes[at].1
    }

    /// The node of a cgroup; `None`: it is the root.
    pub(super) fn cgroup(&mut self, path: &Path) -> Option<&mut Node> {
        let at = cgroup_names(path).fold(None, |above: Option<usize>, name| {
            let parent = above.map_or(CGROUPS, |above| self.nodes[above].1.id);
            Some(self.name(parent, name))
        })?;
        Some(&mut self.nodes[at].1)
    }

    pub(super) fn unit(&mut self, name: &OsStr) -> &mut Node {
        let at = self.name(UNITS, name);
        &mut self.nodes[at].1
    }

    /// `prefix` is at most [`NAME_PIECE`] long, as ids are.
    pub(super) fn container(&mut self, prefix: &str) -> &mut Node {
        let at = self.piece(CONTAINERS, container(prefix));
        &mut self.nodes[at].1
    }

    /// Where the node of the last piece of a name is.
    fn name(&mut self, parent: u32, name: &OsStr) -> usize {
        let mut pieces = pieces(name);
        // There is one at least.
        let first = pieces.next().unwrap_or([0; NAME_PIECE]);
        let mut at = self.piece(parent, first);
        for piece in pieces {
            at = self.piece(self.nodes[at].1.id, piece);
        }
        at
    }

    fn piece(&mut self, parent: u32, piece: [u8; NAME_PIECE]) -> usize {
        *self.index.entry((parent, piece)).or_insert_with(|| {
            let at = self.nodes.len();
            let name = Name {
                slot: 0,
                parent,
                piece,
            };
            let node = Node {
                id: FIRST_NODE + at as u32,
                reserved: 0,
                exact: Uses::NONE,
                below: Uses::NONE,
            };
            self.nodes.push((name, node));
            at
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1, &[1])]
    #[case(63, &[63])]
    #[case(64, &[64, 0])]
    #[case(65, &[64, 1])]
    #[case(128, &[64, 64, 0])]
    #[case(255, &[64, 64, 64, 63])]
    fn a_full_piece_is_followed_by_another(#[case] len: usize, #[case] expected: &[usize]) {
        let name = "x".repeat(len);
        let lens: Vec<_> = pieces(OsStr::new(&name))
            .map(|piece| piece.iter().filter(|byte| **byte != 0).count())
            .collect();
        assert_eq!(lens, expected);
    }

    #[test]
    fn names_that_begin_alike_share_nodes() {
        let mut names = Names::default();
        let place = |path: &str| Place {
            dev: 8 << 20 | 1,
            names: path.split('/').map(Into::into).collect(),
        };
        let long = "x".repeat(100);
        let paths = [
            "usr/bin/a",
            "usr/bin/b",
            "usr/lib",
            &long,
            &format!("{long}y"),
        ];
        let ids: HashSet<_> = paths.map(|path| names.file(&place(path)).id).into();
        assert_eq!(ids.len(), paths.len());
        assert!(ids.contains(&names.file(&place("usr/lib")).id));
        // The file system, usr, bin, a, b, lib, the two halves, another half.
        assert_eq!(names.into_nodes().len(), 9);
    }

    #[test]
    fn the_same_name_is_another_elsewhere() {
        let mut names = Names::default();
        let first = names
            .file(&Place {
                dev: 1,
                names: vec!["a".into()],
            })
            .id;
        let second = names
            .file(&Place {
                dev: 2,
                names: vec!["a".into()],
            })
            .id;
        let cgroup = names.cgroup(Path::new("/a")).unwrap().id;
        let unit = names.unit(OsStr::new("a")).id;
        assert_eq!(HashSet::from([first, second, cgroup, unit]).len(), 4);
        assert!(names.cgroup(Path::new("/")).is_none());
    }
}
