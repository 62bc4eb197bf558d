//! What a test program did, told by itself: what procid's records are held to.
//!
//! A program writes one JSON object a line to its stdout. Ids are read from
//! the procfs that is mounted where it runs, so that they are those of the
//! initial pid namespace also in a namespace of the program's own.

use std::{
    fs,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use serde::{Deserialize, Serialize};

/// Who acts, as the kernel tells the actor itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub pid: u32,
    pub tid: u32,
    /// Process id in the actor's own pid namespace.
    pub vpid: u32,
    /// Inode of the actor's network namespace.
    pub netns: u64,
    pub exe: FileId,
}

impl Actor {
    /// The calling thread.
    ///
    /// # Errors
    ///
    /// procfs is not mounted, or the executable cannot be looked at.
    pub fn current() -> io::Result<Self> {
        // PID/task/TID. Not /proc/self: a process whose leader has ended has
        // no executable there.
        let thread = fs::read_link("/proc/thread-self")?;
        let parts: Vec<u32> = thread
            .iter()
            .filter_map(|part| part.to_str()?.parse().ok())
            .collect();
        let [pid, tid] = parts[..] else {
            return Err(io::Error::other(format!("{}: no ids", thread.display())));
        };
        Ok(Self {
            pid,
            tid,
            vpid: std::process::id(),
            netns: fs::metadata("/proc/thread-self/ns/net")?.ino(),
            exe: FileId::of(Path::new("/proc/thread-self/exe"))?,
        })
    }
}

/// A file, in the words of `procid.exe`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// `major:minor`.
    pub dev: String,
    /// Decimal.
    pub inode: String,
}

impl FileId {
    /// # Errors
    ///
    /// Of stat(2).
    pub fn of(path: &Path) -> io::Result<Self> {
        let there = fs::metadata(path)?;
        let dev = there.dev();
        Ok(Self {
            dev: format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev)),
            inode: there.ino().to_string(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One connection attempt, or the first datagram to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    pub actor: Actor,
    pub transport: Transport,
    /// What getsockname(2) said after the act, or after an explicit bind where
    /// the act failed; the address is unspecified for an unconnected datagram
    /// socket. `None`: there was none.
    pub source: Option<SocketAddr>,
    pub destination: SocketAddr,
    /// Errno of the act.
    pub error: Option<i32>,
}

impl Act {
    /// Writes the act to stdout, in one write(2).
    ///
    /// # Errors
    ///
    /// Of that write.
    pub fn print(&self) -> io::Result<()> {
        print_line(self)
    }
}

/// One connection of many, with its life in nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lived {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Just before connect(2).
    pub began: u64,
    /// Just after it.
    pub connected: u64,
    /// Just before close(2).
    pub closing: u64,
    /// Just after it.
    pub closed: u64,
}

/// What a load did in all; its last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub pid: u32,
    /// Calls of connect(2).
    pub attempts: u64,
    /// Those that failed.
    pub failures: u64,
    /// Nanoseconds from the first to the last.
    pub elapsed: u64,
}

/// How many tries went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knocks {
    pub done: u64,
    /// With `EPERM`.
    pub denied: u64,
    /// With another error.
    pub failed: u64,
}

/// Where a server listens; its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listens {
    pub listens: SocketAddr,
}

/// A line of a program's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    Act(Act),
    Lived(Lived),
    Summary(Summary),
    Knocks(Knocks),
    Listens(Listens),
}

/// Writes one line of a report to stdout, in one write(2), so that lines of
/// several processes do not mix.
///
/// # Errors
///
/// Of that write.
pub fn print_line(line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Nanoseconds since boot, suspend included: the clock of all the times here.
pub fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// An address as records print it: a v4-mapped one as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(address.ip()), address.port())
}

fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The names of the errnos that the tests provoke.
pub fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::EACCES => "EACCES",
        libc::EPERM => "EPERM",
        libc::EINVAL => "EINVAL",
        libc::ECONNRESET => "ECONNRESET",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::EPIPE => "EPIPE",
        _ => "an errno that no test provokes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_knows_itself() {
        let main = Actor::current().unwrap();
        let other = std::thread::spawn(|| Actor::current().unwrap())
            .join()
            .unwrap();
        assert_eq!(main.pid, std::process::id());
        assert_eq!((main.pid, &main.exe), (other.pid, &other.exe));
        assert_ne!(main.tid, other.tid);
    }

    #[test]
    fn a_report_says_which_line_is_which() {
        let lived = Lived {
            source: "127.0.0.1:1".parse().unwrap(),
            destination: "127.0.0.1:2".parse().unwrap(),
            began: 1,
            connected: 2,
            closing: 3,
            closed: 4,
        };
        let act = Act {
            actor: Actor::current().unwrap(),
            transport: Transport::Udp,
            source: None,
            destination: "[::1]:2".parse().unwrap(),
            error: Some(libc::ENETUNREACH),
        };
        for line in [
            Line::Lived(lived),
            Line::Act(act),
            Line::Summary(Summary::default()),
        ] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }
}
