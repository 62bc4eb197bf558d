//! A program that has no name in any file system.

use std::{
    ffi::{CString, OsString},
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStringExt as _},
};

use anyhow::{Context as _, Result};
use rustix::fs::{MemfdFlags, memfd_create};

#[derive(Debug, clap::Args)]
pub(crate) struct Memfd {
    /// Arguments of the copy, its name included
    #[arg(last = true, required = true)]
    arguments: Vec<OsString>,
}

impl Memfd {
    pub(crate) fn run(self) -> Result<()> {
        let mut copy = File::from(memfd_create("procid-test", MemfdFlags::CLOEXEC)?);
        io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
        fexecve(&copy, self.arguments)
    }
}

/// Runs a file that needs no name; returns only to fail.
pub(crate) fn fexecve(program: &File, arguments: Vec<OsString>) -> Result<()> {
    let arguments: Vec<CString> = arguments
        .into_iter()
        .map(|argument| CString::new(argument.into_vec()))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment = [std::ptr::null()];
    // SAFETY: both arrays end with a null pointer, and what they point to
    // lives until the call returns, which it does only to fail.
    unsafe { libc::fexecve(program.as_raw_fd(), pointers.as_ptr(), environment.as_ptr()) };
    Err(io::Error::last_os_error()).context("fexecve")
}
