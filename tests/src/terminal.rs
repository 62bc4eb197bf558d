//! A program in a terminal of its own.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
};

use crate::agent::LIMIT;

/// A program that has been given a terminal of 80 columns and 24 lines.
#[derive(Debug)]
pub struct InTerminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    /// As the terminal was before.
    modes: Vec<u8>,
    /// All that came out of it so far.
    pub output: Vec<u8>,
}

impl InTerminal {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// When there is no terminal to give.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: two numbers to write, a size to read, and nothing else.
        let done = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                (&raw const size).cast_mut(),
            )
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        // SAFETY: openpty(3) has just made both, and nobody else has them.
        let (master, slave) =
            unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let end = || slave.try_clone().expect("a descriptor");
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm-256color");
        // SAFETY: two system calls, which may follow a fork.
        let command = unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            })
        };
        let modes = modes(&slave);
        Self {
            child: command.spawn().expect("it can be started"),
            master: master.into(),
            slave,
            modes,
            output: Vec::new(),
        }
    }

    pub fn press(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("a terminal takes keys");
    }

    /// Makes it another size, as a window does.
    ///
    /// # Panics
    ///
    /// When it cannot be.
    pub fn resize(&mut self, columns: u16, lines: u16) {
        let size = libc::winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the kernel reads one winsize.
        let done =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    /// Reads until its output holds this text behind `from`; where the text ends.
    ///
    /// # Panics
    ///
    /// When it never does.
    pub fn until(&mut self, from: usize, text: &str) -> usize {
        let start = Instant::now();
        loop {
            let behind = self.output.get(from..).unwrap_or_default();
            let mut places = behind.windows(text.len());
            if let Some(at) = places.position(|place| place == text.as_bytes()) {
                return from + at + text.len();
            }
            assert!(
                start.elapsed() < LIMIT,
                "{text:?} is not in {}",
                String::from_utf8_lossy(&self.output).escape_debug()
            );
            self.read();
        }
    }

    /// Takes what there is, or waits for some a moment.
    fn read(&mut self) {
        let mut wait = [PollFd::new(&self.master, PollFlags::IN)];
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        if poll(&mut wait, Some(&moment)).expect("poll") == 0 {
            return;
        }
        let mut bytes = [0; 4096];
        // EIO: nobody has the other end any more.
        let length = self.master.read(&mut bytes).unwrap_or(0);
        self.output.extend_from_slice(&bytes[..length]);
    }

    /// # Panics
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            self.read();
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.read();
                return status;
            }
            assert!(start.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the terminal is as it was before, and shows what it showed.
    pub fn is_restored(&self) -> bool {
        let left = b"\x1b[?1049l";
        let has_left = self.output.windows(left.len()).any(|bytes| bytes == left);
        let shown = b"\x1b[?25h";
        let has_cursor = self.output.windows(shown.len()).any(|bytes| bytes == shown);
        has_left && has_cursor && modes(&self.slave) == self.modes
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        // Not an error where it has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// termios(3), as it prints.
fn modes(terminal: &OwnedFd) -> Vec<u8> {
    // SAFETY: all of it is numbers, and the kernel writes them.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: one termios to write.
    let done = unsafe { libc::tcgetattr(terminal.as_fd().as_raw_fd(), &raw mut modes) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    let flags = [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag];
    let mut bytes: Vec<u8> = flags.iter().flat_map(|flag| flag.to_ne_bytes()).collect();
    bytes.extend(modes.c_cc);
    bytes
}
