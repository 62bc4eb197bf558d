//! The running process, held so that it cannot become another one.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
};

use rustix::fs::{Mode, OFlags, open, openat, readlinkat};

use crate::records::escape::escape;

/// Most bytes of what the kernel says of a process.
const TEXT_MAX: u64 = 64 * 1024 * 1024;

/// A directory of /proc: it is that process's for good, and empty once the
/// process has ended, whoever has its pid then
/// ([proc(5)](https://man7.org/linux/man-pages/man5/proc.5.html)).
#[derive(Debug)]
pub struct Process(OwnedFd);

/// The file that runs.
#[derive(Debug)]
pub struct Exe {
    pub file: File,
    pub inode: u64,
    /// The path that the kernel gives for it, escaped.
    pub link: String,
}

impl Process {
    /// # Errors
    ///
    /// There is none of that pid.
    pub fn open(pid: u32) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(open(format!("/proc/{pid}"), flags, Mode::empty())?))
    }

    /// # Errors
    ///
    /// The process has ended, has no file (a kernel thread), or may not be read.
    pub fn exe(&self) -> io::Result<Exe> {
        // Through the link, which leads to the file itself, whatever has become
        // of its name.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, "exe", flags, Mode::empty())?);
        let link = readlinkat(&self.0, "exe", Vec::new())?;
        Ok(Exe {
            inode: file.metadata()?.ino(),
            link: escape(link.to_bytes()).into_owned(),
            file,
        })
    }

    /// What the kernel says in the file of that name.
    ///
    /// # Errors
    ///
    /// As [`Self::exe`].
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, name, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(TEXT_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_process_is_itself_and_no_other() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Who is told of an exec is told before the kernel knows the arguments;
        // a program that answers has them.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let process = Process::open(child.id()).unwrap();
        let exe = process.exe().unwrap();
        assert!(exe.link.starts_with('/'), "{}", exe.link);
        assert_eq!(process.read("cmdline").unwrap(), b"cat\0");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(process.exe().is_err());
        assert!(process.read("maps").is_err());
    }
}
