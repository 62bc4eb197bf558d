//! The iterators: what each is for, and how it is loaded.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Btf, Ebpf,
    programs::{Iter, Program},
};

/// An iterator program of the eBPF object.
pub(super) struct Iterator {
    pub(super) program: &'static str,
    /// What it goes over, as the kernel calls it.
    pub(super) target: &'static str,
    pub(super) gives: &'static str,
}

const fn over(program: &'static str, target: &'static str, gives: &'static str) -> Iterator {
    Iterator {
        program,
        target,
        gives,
    }
}

/// Those without which the agent does not start.
pub(super) const ITERATORS: [Iterator; 6] = [
    over("iterate_tasks", "task", "processes older than the agent"),
    over(
        "iterate_sockets",
        "task_file",
        "sockets older than the agent",
    ),
    over(
        "iterate_files",
        "task_file",
        "inode state for verified hashes",
    ),
    over(
        "iterate_lineages",
        "task",
        "ancestors older than a policy that asks for them",
    ),
    over(
        "iterate_asked",
        "task",
        "which rule decides, to policy explain",
    ),
    over(
        "iterate_open",
        "task_file",
        "open connections that a policy denies",
    ),
];

/// The bytes of connections that live on: the first of these that is allowed.
/// Some kernels refuse every iterator over the values of a map, `EPERM`.
pub(super) const COUNTS: [Iterator; 2] = [
    over(
        "iterate_counts",
        "bpf_sk_storage_map",
        "bytes of connections that live on",
    ),
    over(
        "iterate_held_counts",
        "task_file",
        "the same, of sockets that a process holds",
    ),
];

/// Loaded where an agent was killed; where it is refused, [`super::carry`] does
/// what it can.
pub(super) const CARRY_TAGS: Iterator = over(
    "carry_tags",
    "bpf_sk_storage_map",
    "what an agent that was killed knew of sockets",
);

impl Iterator {
    pub(super) fn load(&self, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), anyhow::Error> {
        let iter: &mut Iter = ebpf
            .program_mut(self.program)
            .ok_or_else(|| anyhow::anyhow!("the eBPF object has no such program"))?
            .try_into()?;
        iter.load(self.target, btf)?;
        Ok(())
    }
}

/// One that is loaded.
pub(super) fn iterator<'a>(ebpf: &'a Ebpf, name: &str) -> io::Result<BorrowedFd<'a>> {
    match ebpf.program(name) {
        Some(Program::Iter(program)) => Ok(program.fd().map_err(io::Error::other)?.as_fd()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}
