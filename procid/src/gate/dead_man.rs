//! What ends a watchdog that stands still.
//!
//! Stopped by a signal, held by a debugger or frozen with its cgroup, a process
//! runs nothing, and leaves every signal but one to later: so no alarm of its
//! own helps, and every execution of the host would wait for it. SIGKILL ends
//! it all the same
//! ([`complete_signal`](https://github.com/torvalds/linux/blob/v6.12/kernel/signal.c)),
//! and a timer of the kernel's sends that to a process that has not put it off
//! in time. (The freezer of cgroup v1 lets no signal through, and a system call
//! that waits for what cannot be killed is waited for.)

use std::{io, mem::MaybeUninit, ptr, time::Duration};

/// A timer that kills this process when it fires.
#[derive(Debug)]
pub(super) struct DeadMan(libc::timer_t);

impl DeadMan {
    /// One that is not set yet.
    ///
    /// # Errors
    ///
    /// Of timer_create(2).
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: all bytes 0 are a `struct sigevent`.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer = MaybeUninit::uninit();
        // SAFETY: both live through the call, which writes the second one.
        let made = unsafe {
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, timer.as_mut_ptr())
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has written it.
        Ok(Self(unsafe { timer.assume_init() }))
    }

    /// Kills this process so much later, unless this is called again before.
    ///
    /// # Errors
    ///
    /// Of timer_settime(2).
    pub(super) fn put_off(&self, by: Duration) -> io::Result<()> {
        self.set(libc::timespec {
            tv_sec: by.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: by.subsec_nanos().into(),
        })
    }

    /// Lets this process stand still.
    ///
    /// # Errors
    ///
    /// Of timer_settime(2).
    pub(super) fn rest(&self) -> io::Result<()> {
        self.set(libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        })
    }

    fn set(&self, value: libc::timespec) -> io::Result<()> {
        let setting = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        // SAFETY: the timer lives as long as the process; `setting` is read.
        let set = unsafe { libc::timer_settime(self.0, 0, &raw const setting, ptr::null_mut()) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
