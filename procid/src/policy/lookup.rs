//! What compiled tables decide, found as the programs find it: for
//! `policy explain`, and to test the tables.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    io, iter,
    net::IpAddr,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use procid_common::policy::{
    ALL_RULES, Bits, CGROUPS, CONTAINERS, Dimension, Epoch, FILES, Head, NAME_PIECE, NO_RULES,
    Node, UNITS, Uses,
    container::{ID_LEN, PREFIX_MIN, id_in},
    decide::{Case, Decision, Progress, decide},
    flags, kind, role, transport,
};

use super::{
    ExeFacts, Facts, ImageFacts, InRoot, Role, Socket, Transport,
    bits::{both, either, union},
    compile::{
        names::{self, cgroup_names, file_system, pieces},
        prefixes::{aligned, first},
    },
    places::{Place, Places},
    tables::Tables,
};
use crate::identity::hash::settle::Offset;

/// Tables, ready to be looked things up in.
#[derive(Debug)]
pub struct Lookup<'a> {
    head: &'a Head,
    facts: [Prefixes<'a>; Dimension::COUNT],
    names: HashMap<(u32, [u8; NAME_PIECE]), &'a Node>,
    hashes: HashMap<[u8; 32], &'a Uses>,
    inodes: HashMap<(u32, u64), &'a Uses>,
    epochs: &'a [Epoch],
    clock: Offset,
}

/// One dimension.
#[derive(Debug, Default)]
struct Prefixes<'a> {
    bits: HashMap<(u32, u128), &'a Bits>,
    lens: BTreeSet<u32>,
}

/// What one executable satisfies, by what is asked of it.
struct Satisfied {
    path: Uses,
    inode: Uses,
    /// `None`: it is not known.
    hash: Option<Uses>,
}

impl Tables {
    /// `clock` must be the one that the policy was compiled with.
    pub fn lookup(&self, clock: Offset) -> Lookup<'_> {
        let mut facts: [Prefixes<'_>; Dimension::COUNT] = Default::default();
        for (len, fact, bits) in &self.facts {
            let prefixes = &mut facts[usize::from(fact.dimension)];
            let value = u128::from_be_bytes(fact.value);
            prefixes.bits.insert((*len, value), bits);
            prefixes.lens.insert(*len);
        }
        let names = self.names.iter();
        let hashes = self.hashes.iter();
        let inodes = self.inodes.iter();
        Lookup {
            head: &self.head,
            facts,
            names: names
                .map(|(name, node)| ((name.parent, name.piece), node))
                .collect(),
            hashes: hashes.map(|(key, uses)| (key.sha256, uses)).collect(),
            inodes: inodes
                .map(|(key, uses)| ((key.dev, key.ino), uses))
                .collect(),
            epochs: &self.epochs,
            clock,
        }
    }
}

impl Lookup<'_> {
    /// Decides. Modes, `loopback` and `established` are not its business.
    ///
    /// # Errors
    ///
    /// An executable's path cannot be looked up.
    pub fn decide(&self, facts: &Facts, places: &dyn Places) -> io::Result<Decision> {
        let head = self.head;
        let (yes, maybe) = self.image(&facts.process, places)?;
        let destination = match facts.destination {
            Some(address) => self.value(Dimension::Destination, address_bits(address)),
            None => &head.unasked[Dimension::Destination as usize],
        };
        let number = |dimension: Dimension, value: u32| {
            self.value(dimension, aligned(value, dimension.width()))
        };
        let role = match facts.role {
            Some(Role::Opener) => role::OPENER,
            Some(Role::Speaker) => role::SPEAKER,
            Some(Role::Acceptor) => role::ACCEPTOR,
            None => role::KERNEL,
        };
        let only_rules_judge = matches!(role, role::ACCEPTOR | role::KERNEL);
        let transport = facts.transport.map_or(transport::OTHER, Transport::index);
        let kind = facts.socket.map_or(kind::OTHER, Socket::index);
        let asked = [
            destination,
            number(Dimension::Port, facts.port.into()),
            number(Dimension::SourcePort, facts.source_port.into()),
            number(Dimension::Uid, facts.euid),
            number(Dimension::Gid, facts.egid),
            &self.cgroup(&facts.cgroup),
            &head.transport[transport],
            &head.kind[kind],
            &head.role[role],
        ];
        let live = *self.live(facts.now);
        let case = Case {
            head,
            default_deny: head.flags & flags::DEFAULT_DENY != 0 && !only_rules_judge,
            around: &asked.into_iter().fold(live, |all, rules| both(&all, rules)),
            yes: &yes,
            maybe: &maybe,
        };
        Ok(decide(&case, &mut { Progress::START }))
    }

    /// The rules in force at a time, nanoseconds since the Unix epoch.
    fn live(&self, now: i128) -> &Bits {
        let real = i64::try_from(now).unwrap_or(if now < 0 { i64::MIN } else { i64::MAX });
        let now = self.clock.to_boot(real);
        let epoch = self.epochs.iter().find(|epoch| now < epoch.until_ns);
        epoch.map_or(&NO_RULES, |epoch| &epoch.live)
    }

    /// What the longest prefix of a value has.
    fn value(&self, dimension: Dimension, value: u128) -> &Bits {
        let prefixes = &self.facts[dimension as usize];
        let mut lens = prefixes.lens.iter().rev();
        lens.find_map(|len| prefixes.bits.get(&(*len, first(value, *len))).copied())
            .unwrap_or(&self.head.unasked[dimension as usize])
    }

    fn cgroup(&self, path: &Path) -> Bits {
        let mut cgroup = self.head.no_cgroup;
        let nodes = self.nodes(CGROUPS, cgroup_names(path).flat_map(pieces));
        if let Some(node) = nodes.last() {
            union(&mut cgroup, &node.below.own);
        }
        let mut unit = self.head.no_unit;
        for name in cgroup_names(path) {
            let pieces: Vec<_> = pieces(name).collect();
            let nodes: Vec<_> = self.nodes(UNITS, pieces.iter().copied()).collect();
            if let Some(node) = nodes.get(pieces.len() - 1) {
                union(&mut unit, &node.below.own);
            }
        }
        both(&both(&cgroup, &unit), &self.container(path))
    }

    fn container(&self, path: &Path) -> Bits {
        let mut container = self.head.no_container;
        let names = cgroup_names(path).map(OsStr::as_bytes);
        let Some(id) = names.filter_map(id_in).next() else {
            return container;
        };
        for len in PREFIX_MIN..=ID_LEN {
            let piece = names::container(&id[..len]);
            if let Some(node) = self.names.get(&(CONTAINERS, piece)) {
                union(&mut container, &node.below.own);
            }
        }
        container
    }

    /// The rules whose every question about the image is certainly, and perhaps,
    /// answered with yes.
    fn image(&self, image: &ImageFacts, places: &dyn Places) -> io::Result<(Bits, Bits)> {
        let head = self.head;
        let own = self.executable(&image.exe, places)?;
        let path = either(&head.no_path, &own.path.own);
        let (path, maybe_path) = match &image.in_root {
            InRoot::No => (path, path),
            InRoot::Unknown => (path, either(&path, &head.in_root)),
            InRoot::At(file) => {
                let path = either(&path, &self.at(&names::in_root(file)).own);
                (path, path)
            }
        };
        let inode = either(&head.no_inode, &own.inode.own);
        let (file, maybe_file) = (both(&path, &inode), both(&maybe_path, &inode));
        let (hash, maybe_hash) = match &own.hash {
            Some(hash) => {
                let hash = either(&head.no_hash, &hash.own);
                (hash, hash)
            }
            None => (head.no_hash, ALL_RULES),
        };
        let (mut ancestor, mut parent) = (head.no_ancestor, head.no_parent);
        let (mut maybe_ancestor, mut maybe_parent) = (ancestor, parent);
        for exe in &image.ancestors {
            let exe = self.executable(exe, places)?;
            let (yes, maybe) = exe.any(|uses| &uses.ancestor, &head.ancestor_by_hash);
            union(&mut ancestor, &yes);
            union(&mut maybe_ancestor, &maybe);
        }
        if let Some(exe) = &image.parent {
            let exe = self.executable(exe, places)?;
            let (yes, maybe) = exe.any(|uses| &uses.parent, &head.parent_by_hash);
            union(&mut parent, &yes);
            union(&mut maybe_parent, &maybe);
        }
        let yes = both(&both(&file, &hash), &both(&ancestor, &parent));
        let maybe = both(
            &both(&maybe_file, &maybe_hash),
            &both(&maybe_ancestor, &maybe_parent),
        );
        Ok((yes, maybe))
    }

    fn executable(&self, exe: &ExeFacts, places: &dyn Places) -> io::Result<Satisfied> {
        let path = match &exe.path {
            Some(path) => self.at(&places.place(path)?),
            None => Uses::NONE,
        };
        let inode = exe.inode.and_then(|inode| {
            let dev = inode.dev()?;
            self.inodes.get(&(dev, inode.ino)).copied().copied()
        });
        let hash = exe
            .sha256
            .map(|sha256| self.hashes.get(&sha256).copied().copied());
        Ok(Satisfied {
            path,
            inode: inode.unwrap_or(Uses::NONE),
            hash: hash.map(|uses| uses.unwrap_or(Uses::NONE)),
        })
    }

    fn at(&self, place: &Place) -> Uses {
        let names = place.names.iter().map(OsStr::new).flat_map(pieces);
        let pieces: Vec<_> = iter::once(file_system(place.dev)).chain(names).collect();
        let mut uses = Uses::NONE;
        for (nth, node) in self.nodes(FILES, pieces.iter().copied()).enumerate() {
            let here = if nth + 1 == pieces.len() {
                &node.exact
            } else {
                &node.below
            };
            union(&mut uses.own, &here.own);
            union(&mut uses.ancestor, &here.ancestor);
            union(&mut uses.parent, &here.parent);
        }
        uses
    }

    /// The nodes that a path of pieces leads through, as far as there are any.
    fn nodes(
        &self,
        root: u32,
        mut pieces: impl Iterator<Item = [u8; NAME_PIECE]>,
    ) -> impl Iterator<Item = &Node> {
        let mut parent = root;
        iter::from_fn(move || {
            let node = *self.names.get(&(parent, pieces.next()?))?;
            parent = node.id;
            Some(node)
        })
    }
}

impl Satisfied {
    /// The rules that ask for any of path, hash and inode, and certainly, and
    /// perhaps, find it here.
    fn any(&self, of: impl Fn(&Uses) -> &Bits, by_hash: &Bits) -> (Bits, Bits) {
        let file = either(of(&self.path), of(&self.inode));
        match &self.hash {
            Some(hash) => {
                let yes = either(&file, of(hash));
                (yes, yes)
            }
            None => (file, either(&file, by_hash)),
        }
    }
}

/// An address as the programs look it up: IPv4 is v4-mapped.
fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
