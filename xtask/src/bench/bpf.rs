//! What only bpf(2) does: run times, programs' names, and programs of two
//! instructions on hooks.
//!
//! Commands and structures:
//! [include/uapi/linux/bpf.h](https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/bpf.h),
//! [include/uapi/linux/perf_event.h](https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/perf_event.h).

use std::{
    ffi::CStr,
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

/// Length of a program's name, its zero included (`BPF_OBJ_NAME_LEN`).
const NAME_LENGTH: usize = 16;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ENABLE_STATS: libc::c_int = 32;

const BPF_STATS_RUN_TIME: u32 = 0;

/// Types of programs (`enum bpf_prog_type`).
pub(crate) const TRACEPOINT: u32 = 5;
pub(crate) const CGROUP_SKB: u32 = 8;
pub(crate) const CGROUP_SOCK: u32 = 9;
pub(crate) const CGROUP_SOCK_ADDR: u32 = 18;
pub(crate) const TRACING: u32 = 26;
pub(crate) const LSM: u32 = 29;

/// What they are attached to (`enum bpf_attach_type`).
pub(crate) const INET_INGRESS: u32 = 0;
pub(crate) const INET_EGRESS: u32 = 1;
pub(crate) const INET_SOCK_CREATE: u32 = 2;
pub(crate) const INET4_CONNECT: u32 = 10;
pub(crate) const INET6_CONNECT: u32 = 11;
pub(crate) const UDP4_SENDMSG: u32 = 14;
pub(crate) const UDP6_SENDMSG: u32 = 15;
pub(crate) const UDP4_RECVMSG: u32 = 19;
pub(crate) const UDP6_RECVMSG: u32 = 20;
pub(crate) const TRACE_RAW_TP: u32 = 23;
pub(crate) const TRACE_FEXIT: u32 = 25;
pub(crate) const LSM_MAC: u32 = 27;
pub(crate) const INET_SOCK_RELEASE: u32 = 34;
pub(crate) const PERF_EVENT: u32 = 41;

const BPF_F_SLEEPABLE: u32 = 1 << 4;

/// LSM programs ask for a licence that is compatible with the kernel's.
const LICENSE: &CStr = c"GPL";

/// While this is alive the kernel times every run of every BPF program, as
/// `kernel.bpf_stats_enabled` makes it. Unlike with the sysctl, the kernel
/// itself ends that with this process, however the process ends.
#[derive(Debug)]
pub(crate) struct RunTimes {
    _descriptor: OwnedFd,
}

impl RunTimes {
    /// # Errors
    ///
    /// Without `CAP_SYS_ADMIN`, or before Linux 5.8.
    pub(crate) fn enable() -> Result<Self> {
        let mut kind = BPF_STATS_RUN_TIME;
        // SAFETY: `attr.enable_stats` is one u32, and a descriptor is returned.
        let descriptor = unsafe { bpf(BPF_ENABLE_STATS, &mut kind) }
            .context("cannot have the kernel time BPF programs")?;
        Ok(Self {
            _descriptor: descriptor,
        })
    }
}

/// The beginning of `struct bpf_prog_info`, which the kernel fills as far as
/// there is room.
#[repr(C)]
#[derive(Debug, Default)]
struct ProgramInfo {
    /// Type, id, tag, sizes, addresses, load time, owner and maps.
    _before_name: [u64; 8],
    name: [u8; NAME_LENGTH],
}

/// `attr.info`.
#[repr(C)]
#[derive(Debug)]
struct InfoRequest {
    descriptor: u32,
    length: u32,
    address: u64,
}

/// The name of a loaded program, at most 15 bytes of it.
///
/// # Errors
///
/// There is no such program, or `CAP_SYS_ADMIN` is missing.
pub(crate) fn program_name(id: u32) -> Result<String> {
    name_of(id).with_context(|| format!("cannot look at BPF program {id}"))
}

fn name_of(id: u32) -> io::Result<String> {
    // `attr.prog_id`, `next_id`, `open_flags`.
    let mut request = [id, 0, 0];
    // SAFETY: the command reads three u32 and returns a descriptor.
    let program = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut request) }?;
    let mut info = ProgramInfo::default();
    let mut request = InfoRequest {
        descriptor: program.as_raw_fd().unsigned_abs(),
        length: size_of::<ProgramInfo>() as u32,
        address: (&raw mut info) as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes at `address`, both of
    // which are those of `info`; any bytes are a valid `ProgramInfo`. The
    // addresses in it are zero, so nothing is written elsewhere.
    unsafe { call(BPF_OBJ_GET_INFO_BY_FD, &mut request) }?;
    let name = info.name.split(|&byte| byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

/// A program that answers with a number and does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) kind: u32,
    pub(crate) attach_type: u32,
    /// Of the tracepoint or function it is for, in the kernel's BTF; 0: none.
    pub(crate) type_id: u32,
    pub(crate) sleeps: bool,
    pub(crate) answer: u8,
}

impl Program {
    /// `r0 = answer; exit`.
    const fn instructions(&self) -> [[u8; 8]; 2] {
        const MOVE: u8 = 0xb7;
        const EXIT: u8 = 0x95;
        [
            [MOVE, 0, 0, 0, self.answer, 0, 0, 0],
            [EXIT, 0, 0, 0, 0, 0, 0, 0],
        ]
    }
}

/// The beginning of what `BPF_PROG_LOAD` takes.
#[repr(C)]
#[derive(Debug, Default)]
struct LoadRequest {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    _log: [u64; 2],
    _kernel_version: u32,
    flags: u32,
    _name: [u8; NAME_LENGTH],
    _interface: u32,
    attach_type: u32,
    _btf: u32,
    /// Function and line information.
    _information: [u32; 8],
    type_id: u32,
    _attach_to: u32,
    /// Relocations, which there are none of.
    _relocations: u32,
}

/// # Errors
///
/// The kernel's refusal.
pub(crate) fn load(program: &Program) -> io::Result<OwnedFd> {
    let instructions = program.instructions();
    let mut request = LoadRequest {
        kind: program.kind,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        flags: if program.sleeps { BPF_F_SLEEPABLE } else { 0 },
        attach_type: program.attach_type,
        type_id: program.type_id,
        ..LoadRequest::default()
    };
    // SAFETY: both addresses are read only, and are those of what lives until
    // after the call; a descriptor is returned.
    unsafe { bpf(BPF_PROG_LOAD, &mut request) }
}

/// Attaches a program to a cgroup or an event, beside others that are there,
/// until the link is closed.
///
/// # Errors
///
/// The kernel's refusal.
pub(crate) fn link(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut request = [descriptor(program), descriptor(target), attach_type, 0];
    // SAFETY: the command reads four u32 and returns a descriptor.
    unsafe { bpf(BPF_LINK_CREATE, &mut request) }
}

/// Attaches a program to what it was loaded for, until the link is closed.
///
/// # Errors
///
/// The kernel's refusal.
pub(crate) fn attach_typed(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // No name: the program has it.
    let mut request = [0, u64::from(descriptor(program))];
    // SAFETY: the command reads a null address and a u32, and returns a
    // descriptor.
    unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &mut request) }
}

/// `struct perf_event_attr`, as far as its first version goes.
#[repr(C)]
#[derive(Debug, Default)]
struct EventRequest {
    kind: u32,
    length: u32,
    config: u64,
    _rest: [u64; 6],
}

/// An event of a tracepoint, to which programs can be linked; they run on every
/// CPU.
///
/// # Errors
///
/// The kernel's refusal.
pub(crate) fn tracepoint_event(number: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    const ANY_PROCESS: libc::c_int = -1;
    const NO_GROUP: libc::c_int = -1;
    let request = EventRequest {
        kind: PERF_TYPE_TRACEPOINT,
        length: size_of::<EventRequest>() as u32,
        config: number,
        ..EventRequest::default()
    };
    // SAFETY: the kernel reads `length` bytes, all of which are `request`'s.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const request,
            ANY_PROCESS,
            0 as libc::c_int,
            NO_GROUP,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    let returned = libc::c_int::try_from(returned).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}

fn descriptor(of: BorrowedFd<'_>) -> u32 {
    of.as_raw_fd().unsigned_abs()
}

/// A command that returns a descriptor.
///
/// # Safety
///
/// As [`call`]'s, and the command does return one.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's.
    let returned = unsafe { call(command, attributes) }?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}

/// bpf(2).
///
/// # Safety
///
/// `attributes` is what the command takes, and every address in it may be
/// written to as the command does.
unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes; the rest is
    // the caller's.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *attributes,
            size_of::<T>() as libc::c_uint,
        )
    };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(returned).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_structures_are_the_kernel_s() {
        assert_eq!(offset_of!(ProgramInfo, name), 64);
        assert_eq!(size_of::<ProgramInfo>(), 80);
        assert_eq!(size_of::<InfoRequest>(), 16);
        assert_eq!(offset_of!(LoadRequest, flags), 44);
        assert_eq!(offset_of!(LoadRequest, attach_type), 68);
        assert_eq!(offset_of!(LoadRequest, type_id), 108);
        assert_eq!(size_of::<EventRequest>(), 64);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        program_name(u32::MAX).unwrap_err();
    }
}
