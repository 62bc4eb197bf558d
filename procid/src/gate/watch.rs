//! The watchdog: a process of its own that alone holds the fanotify group.
//!
//! It reads each event, passes its file to the agent, and answers when the
//! agent does or the limit is over. So no execution waits longer than that
//! for an agent that is stopped or hangs. When either process dies, the group
//! is closed, for nobody else has it, and the kernel lets all go on.
//!
//! It never executes, opens or allocates anything on behalf of an event, and
//! holds a bounded number of them. Should it stand still itself, in opening a
//! file that the kernel opens for it, or because somebody has stopped it, the
//! kernel [ends](super::dead_man) it.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::RecvFlags,
    process::{DumpableBehavior, Resource, Rlimit, setrlimit},
    thread::CapabilitySet,
};

use super::{
    dead_man::DeadMan,
    fanotify::{Event, Group, Waiting},
    link::{self, News, Order, Tally, news, order},
};
use crate::cli::privilege;

/// What it keeps: marking file systems needs both, and the descriptors that
/// the kernel opens for it are not refused for want of room in its file table
/// (`alloc_empty_file` exempts `SYS_ADMIN`).
pub const NEEDS: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::DAC_READ_SEARCH);

/// Most executions that wait for the agent at one time. Their messages fit into
/// the socket's buffer.
const WAITING_MAX: usize = 128;
/// Descriptors: one for each of them, and plenty for the rest.
const DESCRIPTORS: u64 = 4 * WAITING_MAX as u64;
/// As many answers overdue, and the agent is asked nothing more until it has
/// given some: else each execution on the host would wait the limit out.
const OVERDUE_MAX: usize = 4;
/// Events or messages handled before the other side is looked at.
const BATCH: usize = 64;
/// Longest that it may stand still while it stands before anything: so long an
/// execution can wait for it.
const STILL_MAX: Duration = Duration::from_secs(3);
/// Its loop turns at least so often then.
const BEAT: Duration = Duration::from_secs(1);

/// Runs the watchdog, with its socket to the agent as stdin, until the agent
/// is gone.
///
/// # Errors
///
/// Any: the group is closed with this process, and all that wait go on.
pub fn run() -> io::Result<()> {
    stand_apart()?;
    let agent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let socket = rustix::stdio::stdin();
    let Some((start, group)) = link::receive::<Order>(socket, RecvFlags::empty())? else {
        return Ok(());
    };
    let group = group
        .filter(|_| start.kind == order::START)
        .map(Group::received)
        .ok_or_else(|| io::Error::other("no fanotify group was given"))?;
    let dead_man = DeadMan::new()?;
    privilege::reduce(NEEDS)?;
    Watch {
        dead_man,
        stands: false,
        is_leaving: false,
        group,
        socket,
        exempt: [agent, rustix::process::getpid().as_raw_nonzero().get()],
        limit: Duration::from_nanos(start.value),
        waiting: VecDeque::with_capacity(WAITING_MAX),
        overdue: 0,
        number: 0,
        tally: Tally::default(),
        told: Tally::default(),
    }
    .run()
}

/// Leaves what could stop or delay this process: the group and session that a
/// terminal's or a service manager's signals go to, the directory, debuggers.
fn stand_apart() -> io::Result<()> {
    // Fails only for who leads a group already.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let limit = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(DESCRIPTORS),
    };
    setrlimit(Resource::Nofile, limit)?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    Ok(())
}

struct Watch<'a> {
    dead_man: DeadMan,
    /// Something may be marked, or wait that was.
    stands: bool,
    /// Nothing is marked any more.
    is_leaving: bool,
    group: Group,
    socket: BorrowedFd<'a>,
    /// Processes whose executions nobody else could answer.
    exempt: [i32; 2],
    limit: Duration,
    /// In the order of their deadlines.
    waiting: VecDeque<Asked>,
    /// Executions let go on for which the agent has not answered yet.
    overdue: usize,
    /// Of the last execution asked about. Unlike a descriptor, never used
    /// again, so that a late answer is not taken for another's.
    number: u64,
    tally: Tally,
    /// The tally that the agent knows.
    told: Tally,
}

struct Asked {
    number: u64,
    file: OwnedFd,
    deadline: Instant,
}

/// Whether the agent is still there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    There,
    Gone,
}

impl Watch<'_> {
    fn run(mut self) -> io::Result<()> {
        loop {
            let (events, orders) = self.wait()?;
            if self.is_leaving && !events && self.waiting.is_empty() {
                (self.stands, self.is_leaving) = (false, false);
            }
            if orders && self.take_orders()? == Agent::Gone {
                return Ok(());
            }
            if events {
                self.take_events()?;
            }
            self.let_overdue_go()?;
            self.tell_tally();
        }
    }

    /// Waits for events, orders, the next deadline or the next beat.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let beat = match self.stands {
            true => {
                self.dead_man.put_off(STILL_MAX)?;
                Some(BEAT)
            }
            false => {
                self.dead_man.rest()?;
                None
            }
        };
        let deadline = self
            .waiting
            .front()
            .map(|asked| asked.deadline.saturating_duration_since(Instant::now()));
        let timeout = beat.into_iter().chain(deadline).min().map(|left| Timespec {
            tv_sec: left.as_secs().min(30).cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = [
            PollFd::new(&self.group, PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
    }

    fn take_events(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.group.read() {
                Ok(None) => break,
                Ok(Some(Event::Overflow)) => self.tally.overflows += 1,
                Ok(Some(Event::Exec(waiting))) => self.ask(waiting)?,
                // The file could not be opened; the kernel has answered.
                Err(error) if error.raw_os_error().is_some() => {
                    self.tally.events += 1;
                    self.tally.unopened += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn ask(&mut self, event: Waiting) -> io::Result<()> {
        if self.exempt.contains(&event.pid) {
            return self.group.allow(event.file);
        }
        self.tally.events += 1;
        if self.waiting.len() >= WAITING_MAX || self.overdue >= OVERDUE_MAX {
            self.tally.passed += 1;
            return self.group.allow(event.file);
        }
        let number = self.number + 1;
        if self
            .send(news::WAITS, number, Some(event.file.as_fd()))
            .is_err()
        {
            self.tally.passed += 1;
            return self.group.allow(event.file);
        }
        self.number = number;
        self.waiting.push_back(Asked {
            number,
            file: event.file,
            deadline: Instant::now() + self.limit,
        });
        Ok(())
    }

    fn take_orders(&mut self) -> io::Result<Agent> {
        for _ in 0..BATCH {
            let (order, descriptor) = match link::receive::<Order>(self.socket, RecvFlags::DONTWAIT)
            {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(Agent::Gone),
                Err(error) => {
                    return match Errno::from_io_error(&error) {
                        Some(Errno::AGAIN | Errno::INTR) => Ok(Agent::There),
                        Some(Errno::CONNRESET) => Ok(Agent::Gone),
                        _ => Err(error),
                    };
                }
            };
            match (order.kind, descriptor) {
                (order::ALLOW, _) => self.answer(order.value)?,
                (order::MARK, place) => self.mark(place)?,
                (order::UNMARK, _) => {
                    self.is_leaving = true;
                    self.has_marked(self.group.unmark());
                }
                _ => return Err(io::Error::other("an order that is not known")),
            }
        }
        Ok(Agent::There)
    }

    fn answer(&mut self, number: u64) -> io::Result<()> {
        let place = self.waiting.iter().position(|asked| asked.number == number);
        match place.and_then(|place| self.waiting.remove(place)) {
            Some(asked) => self.group.allow(asked.file),
            None => {
                self.overdue = self.overdue.saturating_sub(1);
                Ok(())
            }
        }
    }

    fn mark(&mut self, place: Option<OwnedFd>) -> io::Result<()> {
        self.dead_man.put_off(STILL_MAX)?;
        (self.stands, self.is_leaving) = (true, false);
        let marked = place
            .ok_or(Errno::BADF.into())
            .and_then(|place| self.group.mark(place.as_fd()));
        self.has_marked(marked);
        Ok(())
    }

    fn has_marked(&self, marked: io::Result<()>) {
        let errno = match marked {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        // Without room for it the agent takes the silence for a refusal.
        let _ = self.send(news::MARKED, errno.unsigned_abs().into(), None);
    }

    fn let_overdue_go(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while self
            .waiting
            .front()
            .is_some_and(|asked| asked.deadline <= now)
            && let Some(asked) = self.waiting.pop_front()
        {
            self.overdue += 1;
            self.tally.timed_out += 1;
            self.group.allow(asked.file)?;
        }
        Ok(())
    }

    /// Tells of what went on without the agent.
    fn tell_tally(&mut self) {
        let news = |tally: Tally| Tally { events: 0, ..tally };
        // When there is no room for it, a later one says the same and more.
        if news(self.tally) != news(self.told) && self.send(news::TALLY, 0, None).is_ok() {
            self.told = self.tally;
        }
    }

    fn send(
        &self,
        kind: u64,
        value: u64,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> rustix::io::Result<()> {
        let news = News {
            kind,
            value,
            tally: self.tally,
        };
        link::send(self.socket, &news, descriptor)
    }
}
