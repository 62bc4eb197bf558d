//! The images before those that live, under a policy that is put in force.

use std::{collections, io, os::fd::OwnedFd};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use procid_common::{
    image::{ImageId, ImageRecord, flags},
    policy::{Lineage, SubjectKey},
};
use zerocopy::FromBytes;

use super::{AttachError, iterate, iterators::iterator, policy::raw, policy::refused, take_map};
use crate::policy::{
    lineage::{Before, Family, Lineages, Member},
    tables::Tables,
};

const IMAGE: usize = size_of::<ImageId>();
const RECORD: usize = size_of::<ImageRecord>();
const KEY: usize = size_of::<SubjectKey>();
const LINEAGE: usize = size_of::<Lineage>();

/// Rounds in which images that are born meanwhile are awaited.
const ROUNDS_MAX: usize = 8;
/// `BPF_EXIST`: <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h#L1373>
const BPF_EXIST: u64 = 2;

/// The map `LINEAGES`, and who fills it.
#[derive(Debug)]
pub(super) struct Table {
    lineages: Map,
    images: HashMap<MapData, [u8; IMAGE], [u8; RECORD]>,
    /// `iterate_lineages`.
    program: OwnedFd,
}

impl Table {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        let program = iterator(ebpf, "iterate_lineages")
            .and_then(|fd| fd.try_clone_to_owned())
            .map_err(|error| AttachError(format!("the iterator of lineages: {error}")))?;
        Ok(Self {
            lineages: take_map(ebpf, "LINEAGES")?,
            images: take_map(ebpf, "IMAGES")?,
            program,
        })
    }

    /// Says of every live image what those before it satisfy under the policy of
    /// a slot, whose head is set. From then on the programs keep it.
    pub(super) fn fill(
        &mut self,
        slot: u32,
        generation: u64,
        tables: &Tables,
        family: &Family,
        kept: &Known,
    ) -> io::Result<()> {
        let mut family = family.clone();
        for round in 0..ROUNDS_MAX {
            iterate::rows(std::os::fd::AsFd::as_fd(&self.program), iterate::Over::All)?;
            let live = self.of_slot(slot)?;
            if round > 0 && live.values().all(|it| it.generation == generation) {
                break;
            }
            for id in live.keys() {
                self.adopt(*id, &mut family);
            }
            let mut lineages = Lineages::new(tables, &family, &live, kept);
            for image in live.keys() {
                let lineage = Lineage {
                    generation,
                    ..lineages.of(image)
                };
                let key = SubjectKey {
                    image: *image,
                    slot: slot.into(),
                };
                // One that has ended meanwhile is not there any more.
                let _ended = self.lineages.insert(raw(&key)?, raw(&lineage)?, BPF_EXIST);
            }
        }
        Ok(())
    }

    fn of_slot(&self, slot: u32) -> io::Result<Known> {
        of_slot(&self.lineages, slot)
    }

    /// Takes an image that was born since the family was asked about into it.
    fn adopt(&self, id: ImageId, family: &mut Family) {
        let mut next = Some(id);
        while let Some(id) = next
            && !family.contains_key(&id)
        {
            let Some(record) = raw(&id)
                .ok()
                .and_then(|key| self.images.get(&key, 0).ok())
                .and_then(|bytes| whole::<ImageRecord>(&bytes).ok())
            else {
                return;
            };
            let before = if record.flags & flags::KTHREAD != 0 {
                Before::Nothing
            } else if record.parent.is_known() && record.flags & flags::PARENT_UNSURE == 0 {
                Before::Forker(record.parent)
            } else {
                Before::Unknown
            };
            let has_exe = record.flags & flags::NO_EXE == 0;
            family.insert(
                id,
                Member {
                    found: false,
                    before,
                    exe: has_exe.then_some(record.exe),
                    sha256: None,
                    path: None,
                },
            );
            next = match before {
                Before::Forker(forker) => Some(forker),
                _ => None,
            };
        }
    }
}

/// Lineages by image.
pub(super) type Known = collections::HashMap<ImageId, Lineage>;

/// A map `LINEAGES`.
pub(super) type Map = HashMap<MapData, [u8; KEY], [u8; LINEAGE]>;

/// Those of one slot.
pub(super) fn of_slot(map: &Map, slot: u32) -> io::Result<Known> {
    let mut found = Known::new();
    for entry in map.iter() {
        let (key, lineage) = entry.map_err(refused)?;
        let key: SubjectKey = whole(&key)?;
        if key.slot == u64::from(slot) {
            found.insert(key.image, whole(&lineage)?);
        }
    }
    Ok(found)
}

fn whole<T: FromBytes>(bytes: &[u8]) -> io::Result<T> {
    T::read_from_bytes(bytes).map_err(|_| io::Error::other("a map entry of another size"))
}
