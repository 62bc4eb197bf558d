//! The tags of an earlier set of programs, carried over by the agent's own hand:
//! for kernels that lend no iterator over socket storage.
//!
//! A map of socket storage can be asked by a descriptor of a socket, which
//! pidfd_getfd(2) gives. What no process's table of descriptors holds is not
//! reached: a socket that only an io_uring keeps, one under way in a message, a
//! TCP connection that was closed and still has something to send.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    os::fd::{OwnedFd, RawFd},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, Map, MapData, MapError, SkStorage},
};
use procid_common::socket::{
    SocketTag,
    flags::{CREATOR_UNSEEN, WITHHELD},
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A tag, as a value of the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Tag(SocketTag);

// SAFETY: `SocketTag` is plain data without padding (zerocopy's derives), and
// every pattern of bytes is one.
unsafe impl Pod for Tag {}

/// Gives every socket that a process holds the tag it has in `earlier`, unless
/// the programs saw its creation themselves. What they have seen of such a socket
/// meanwhile, the earlier set has seen too.
///
/// # Errors
///
/// The maps are not what they should be, or /proc cannot be listed.
pub(super) fn carry(ebpf: &mut Ebpf, earlier: MapData) -> io::Result<()> {
    let earlier: SkStorage<_, Tag> = Map::SkStorage(earlier)
        .try_into()
        .map_err(io::Error::other)?;
    let mut withholds = false;
    {
        let map = ebpf.map_mut("TAGS").ok_or_else(missing)?;
        let mut tags: SkStorage<_, Tag> = map.try_into().map_err(io::Error::other)?;
        for_each_socket(|socket| {
            withholds |= carry_one(&mut tags, &earlier, &socket).unwrap_or(false);
        })?;
    }
    if withholds {
        let map = ebpf.map_mut("WITHHOLDS").ok_or_else(missing)?;
        let mut word: Array<_, u32> = map.try_into().map_err(io::Error::other)?;
        word.set(0, 1, 0).map_err(io::Error::other)?;
    }
    Ok(())
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

/// Whether the tag withholds what a denied speaker wrote.
fn carry_one(
    tags: &mut SkStorage<&mut MapData, Tag>,
    earlier: &SkStorage<MapData, Tag>,
    socket: &OwnedFd,
) -> Result<bool, MapError> {
    let Tag(mut tag) = earlier.get(socket, 0)?;
    let is_ours = |Tag(own): Tag| own.cookie != 0 && own.flags & CREATOR_UNSEEN == 0;
    if tags.get(socket, 0).is_ok_and(is_ours) {
        return Ok(false);
    }
    // A verdict of another set's policy does not stand.
    tag.judged.word = 0;
    tag.sender = 0;
    tag.receiver = 0;
    tags.insert(socket, Tag(tag), 0)?;
    Ok(tag.flags & WITHHELD != 0)
}

/// Each socket once, however many processes hold it. What ends or closes
/// meanwhile is passed over.
fn for_each_socket(mut act: impl FnMut(OwnedFd)) -> io::Result<()> {
    let mut seen = HashSet::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = number(&name).and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let mut process = None;
        for descriptor in descriptors.flatten() {
            let is_new = fs::read_link(descriptor.path()).is_ok_and(|target| {
                let target = target.into_os_string().into_encoded_bytes();
                target.starts_with(b"socket:") && seen.insert(target)
            });
            let Some(fd) = number(&descriptor.file_name()).filter(|_| is_new) else {
                continue;
            };
            if process.is_none() {
                process = pidfd_open(pid, PidfdFlags::empty()).ok();
            }
            let Some(process) = &process else { break };
            act_on(process, fd, &mut act);
        }
    }
    Ok(())
}

fn act_on(process: &OwnedFd, fd: RawFd, act: &mut impl FnMut(OwnedFd)) {
    if let Ok(socket) = pidfd_getfd(process, fd, PidfdGetfdFlags::empty()) {
        act(socket);
    }
}

fn number(name: &OsStr) -> Option<i32> {
    name.to_str()?.parse().ok()
}
