//! What a new set of programs takes over from those that an ended agent left:
//! who made and used each socket, the hashes of live images, since when a policy
//! is in force. Theirs stay attached until the new set enforces.

use std::{io, os::fd::AsFd as _};

use aya::{
    Btf, Ebpf,
    maps::{Array, HashMap, Map},
};
use procid_common::{
    image::ImageId,
    policy::{Head, SLOTS, active},
};
use zerocopy::FromBytes as _;

use super::{
    carry::carry,
    iterate,
    iterators::{CARRY_TAGS, iterator},
    lineage,
    pins::{self, Left},
    policy::{Earlier, Since},
};

const IMAGE: usize = size_of::<ImageId>();

/// Takes over from every agent that watched this cgroup and has ended. What
/// cannot be taken over is unknown to the new set, as everything is that
/// happened before it.
pub(super) fn take_over(ebpf: &mut Ebpf, btf: &Btf, cgroup: u64) -> Earlier {
    let mut earlier = Earlier::default();
    let found = pins::find(Some(cgroup)).unwrap_or_else(|error| {
        let root = pins::ROOT;
        tracing::warn!("what earlier agents left in {root} cannot be read: {error}");
        pins::Found::default()
    });
    let alike: Vec<&Left> = found.left.iter().filter(|left| left.is_alike()).collect();
    if alike.is_empty() {
        return earlier;
    }
    let by_iterator = CARRY_TAGS.load(ebpf, btf).is_ok();
    for left in alike {
        let taken = tags(ebpf, left, by_iterator)
            .and_then(|()| hashes(ebpf, left))
            .and_then(|()| policies(left, &mut earlier));
        if let Err(error) = taken {
            tracing::warn!("not all that an earlier agent left can be taken over: {error}");
        }
    }
    earlier
}

fn tags(ebpf: &mut Ebpf, left: &Left, by_iterator: bool) -> io::Result<()> {
    let tags = left.map("TAGS")?;
    if !by_iterator {
        return carry(ebpf, tags);
    }
    let over = iterate::Over::Map(tags.fd().as_fd());
    iterate::rows(iterator(ebpf, CARRY_TAGS.program)?, over).map(drop)
}

fn hashes(ebpf: &mut Ebpf, left: &Left) -> io::Result<()> {
    let old =
        HashMap::<_, [u8; IMAGE], [u8; 32]>::try_from(Map::HashMap(left.map("IMAGE_HASHES")?))
            .map_err(io::Error::other)?;
    let new = ebpf
        .map_mut("IMAGE_HASHES")
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut new = HashMap::<_, [u8; IMAGE], [u8; 32]>::try_from(new).map_err(io::Error::other)?;
    for entry in old.iter() {
        let (image, sha256) = entry.map_err(io::Error::other)?;
        new.insert(image, sha256, 0).map_err(io::Error::other)?;
    }
    Ok(())
}

fn policies(left: &Left, earlier: &mut Earlier) -> io::Result<()> {
    let word = left.active()?;
    earlier.generation = earlier.generation.max(active::generation(word));
    let heads = Array::<_, [u8; size_of::<Head>()]>::try_from(Map::Array(left.map("HEADS")?))
        .map_err(io::Error::other)?;
    let kept = lineage::Map::try_from(Map::HashMap(left.map("LINEAGES")?));
    let kept = kept.map_err(io::Error::other)?;
    for slot in 0..SLOTS {
        let bytes = heads.get(&slot, 0).map_err(io::Error::other)?;
        let head = Head::read_from_bytes(&bytes)
            .map_err(|_| io::Error::other("a policy's head of another size"))?;
        if head.generation != 0 {
            let mut lineages = lineage::of_slot(&kept, slot)?;
            lineages.retain(|_, it| it.generation == head.generation);
            earlier.policies.push(Since { head, lineages });
        }
    }
    Ok(())
}
