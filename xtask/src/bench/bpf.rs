//! The two things that only bpf(2) tells: run times, and programs' names.
//!
//! Commands and structures:
//! [include/uapi/linux/bpf.h](https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/bpf.h).

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

/// Length of a program's name, its zero included (`BPF_OBJ_NAME_LEN`).
const NAME_LENGTH: usize = 16;

const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_ENABLE_STATS: libc::c_int = 32;

const BPF_STATS_RUN_TIME: u32 = 0;

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
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        program_name(u32::MAX).unwrap_err();
    }
}
