//! The thread that has the watchdog mark file systems: it keeps the
//! capabilities for that when the agent has given them up.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{Shutdown, shutdown},
};

use super::{
    Marks, Shared, WATCHDOG_LIMIT,
    link::{self, Order, order},
};

/// Longest that who commands waits. The marker goes on with it.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What to mark from now on, `None` for nothing, and where the answer goes.
type Command = (Option<Marks>, SyncSender<io::Result<()>>);

/// The marker's, for who commands it; its end is the marker's.
pub(super) struct Commands {
    commands: Sender<Command>,
    wake: UnixStream,
}

pub(super) struct Marker {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    woken: UnixStream,
    /// The watchdog's, to each mark.
    answers: Receiver<u64>,
    marks: Option<Watched>,
}

/// What is marked now.
struct Watched {
    marks: Marks,
    /// See [`Marks::changes`].
    changes: Option<File>,
}

pub(super) fn new(shared: Arc<Shared>, answers: Receiver<u64>) -> io::Result<(Commands, Marker)> {
    let (wake, woken) = UnixStream::pair()?;
    let (commands, taken) = channel();
    let marker = Marker {
        shared,
        commands: taken,
        woken,
        answers,
        marks: None,
    };
    Ok((Commands { commands, wake }, marker))
}

impl Commands {
    pub(super) fn command(&self, marks: Option<Marks>) -> io::Result<()> {
        let gone = || io::Error::other("the exec gate cannot mark any more");
        let (answer, answered) = sync_channel(1);
        self.commands.send((marks, answer)).map_err(|_| gone())?;
        (&self.wake).write_all(&[0])?;
        answered.recv_timeout(ANSWER_LIMIT).map_err(|_| gone())?
    }
}

impl Marker {
    /// Until [`Commands`] are dropped.
    pub(super) fn run(mut self) {
        loop {
            match self.wait() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "the exec gate cannot follow new mounts");
                    return;
                }
            }
        }
    }

    /// Waits for a command or a change, and does what it asks for; false: they
    /// are dropped.
    fn wait(&mut self) -> io::Result<bool> {
        let changes = self.marks.as_ref().and_then(|it| it.changes.as_ref());
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        fds.extend(changes.map(|changes| PollFd::new(changes, PollFlags::PRI)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_woken = !fds.first().is_none_or(|fd| fd.revents().is_empty());
        let has_changed = !fds.get(1).is_none_or(|fd| fd.revents().is_empty());
        if is_woken {
            if self.woken.read(&mut [0])? == 0 {
                return Ok(false);
            }
            if let Ok((marks, answer)) = self.commands.try_recv() {
                let done = self.change(marks);
                // Who asked waits for it.
                let _gone = answer.send(done);
            }
        }
        if has_changed && let Some(watched) = &self.marks {
            match self.mark(&watched.marks) {
                Ok(None) => {}
                Ok(Some(error)) => tracing::debug!(%error, "a file system cannot be marked"),
                Err(error) => tracing::warn!(%error, "the exec gate cannot see new mounts"),
            }
        }
        Ok(true)
    }

    fn change(&mut self, marks: Option<Marks>) -> io::Result<()> {
        let Some(marks) = marks else {
            self.marks = None;
            self.shared.unmarked.store(0, Ordering::Relaxed);
            return self.order(order::UNMARK, None);
        };
        // Before the first look at the table, so that no change is missed.
        let changes = marks.changes()?;
        let refused = self.mark(&marks)?;
        match (&changes, refused) {
            (None, Some(error)) => Err(error),
            _ => {
                self.marks = Some(Watched { marks, changes });
                Ok(())
            }
        }
    }

    /// Marks all there are now; those marked already are marked again, for a
    /// device number may have gone to another file system. Returns the last
    /// refusal.
    fn mark(&self, marks: &Marks) -> io::Result<Option<io::Error>> {
        let found = marks.places()?;
        let mut unmarked = found.unmarked;
        let mut refused = None;
        for place in found.places {
            if let Err(error) = self.order(order::MARK, Some(&place)) {
                unmarked += 1;
                refused = Some(error);
            }
        }
        self.shared.unmarked.store(unmarked, Ordering::Relaxed);
        Ok(refused)
    }

    /// Gives the watchdog an order that it answers.
    fn order(&self, kind: u64, place: Option<&OwnedFd>) -> io::Result<()> {
        while self.answers.try_recv().is_ok() {}
        let order = Order { kind, value: 0 };
        let place = place.map(OwnedFd::as_fd);
        link::send(self.shared.socket.as_fd(), &order, place)?;
        let answer = self.answers.recv_timeout(WATCHDOG_LIMIT).map_err(|_| {
            // It is given up: each file system would wait as long again. Fails
            // when it has ended.
            let _ = shutdown(&self.shared.socket, Shutdown::Both);
            io::Error::other("the exec gate's watchdog does not answer")
        });
        match answer? {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(
                i32::try_from(errno).unwrap_or(libc::EIO),
            )),
        }
    }
}
