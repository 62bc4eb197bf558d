//! What is guarded while an agent is protected (`protect = true`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One process on this boot, whatever it executes: the first and third field of
/// an [`ImageId`](crate::image::ImageId). All zero: none.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Process {
    pub start_boottime: u64,
    pub tgid: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Process>() == 16);

/// Whose objects are guarded (map `PROTECTED`). All zero: nobody's.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Protected {
    pub agent: Process,
    /// The exec gate's watchdog.
    pub watchdog: Process,
    /// `super_block.s_dev` of the BPF file system that holds its pins, as in
    /// [`FileState`](crate::image::FileState); 0: there are none.
    pub bpffs: u32,
    /// The mount namespace that has it at its place.
    pub mntns: u32,
}

const _: () = assert!(size_of::<Protected>() == 40);

/// One object that only the agent may use (map `GUARDED`).
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct Guarded {
    /// Its id, or the number of its inode.
    pub number: u64,
    /// What `number` is counted within, by kind; else 0.
    pub place: u32,
    /// One of [`guarded`].
    pub kind: u32,
}

const _: () = assert!(size_of::<Guarded>() == 16);

/// Kinds of guarded objects.
pub mod guarded {
    /// A BPF map, by its id.
    pub const MAP: u32 = 1;
    /// A BPF program, by its id.
    pub const PROGRAM: u32 = 2;
    /// A BPF link, by its id.
    pub const LINK: u32 = 3;
    /// A file or directory that nobody else may enter, read or write, by its
    /// number on the file system `place` (device).
    pub const CLOSED: u32 = 4;
    /// One that keeps its name, as those that are closed do.
    pub const NAMED: u32 = 5;
    /// A mount that stays where it is, by its id.
    pub const MOUNT: u32 = 6;
    /// A directory that nothing is mounted on, by its number within the mount
    /// `place` (id).
    pub const UNCOVERED: u32 = 7;
}

/// Most objects of one agent: maps, programs and links are a few hundred.
pub const GUARDED_MAX: usize = 4_096;
