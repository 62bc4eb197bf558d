//! What the agent itself takes: CPU a record, and memory.

use std::{
    io::{BufRead as _, BufReader, ErrorKind},
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    net::Shutdown,
    process::{Resource, getrlimit},
};
use serde_json::Value;

use super::{
    Args, Programs,
    agent::{Agent, Status},
    cgroup::Cgroup,
    proc::{self, Bpf, Memory},
};
use crate::process;

/// Pending connections: a full backlog would make connects wait a second.
const BACKLOG: i32 = 4096;

/// Descriptors that a holder needs beyond those of its connections, two each;
/// the test program asks for as many.
const SPARE: u64 = 64;

/// An agent under a steady load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// As the agent told it before.
    pub(crate) status: Status,
    /// Connections made.
    pub(crate) connections: u64,
    /// From the first to the last.
    pub(crate) elapsed: Duration,
    /// Records emitted of it.
    pub(crate) records: u64,
    pub(crate) lost: u64,
    /// The agent's CPU time, user and system.
    pub(crate) cpu: Duration,
    /// The agent's memory before.
    pub(crate) idle: Memory,
    /// And after.
    pub(crate) after: Memory,
    /// Kernel memory of its maps, bytes.
    pub(crate) maps: u64,
}

impl Load {
    /// Connections a second that were reached.
    pub(crate) fn rate(&self) -> f64 {
        self.connections as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds.
    pub(crate) fn cpu_a_record(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.records as f64
    }
}

/// An agent beside many connections that stay open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    /// Open connections, as the agent counts them.
    pub(crate) connections: u64,
    pub(crate) memory: Memory,
}

/// Makes `args.rate` connections a second for `args.seconds`, and lets the
/// agent catch up.
///
/// # Errors
///
/// Of the programs.
pub(crate) fn load(programs: &Programs, cgroup: &Cgroup, args: &Args) -> Result<Load> {
    let (rate, seconds) = (u64::from(args.rate), u64::from(args.seconds));
    eprintln!("{rate} connections a second for {seconds} s");
    let listener = Listener::start()?;
    let agent = Agent::start(&programs.procid, cgroup)?;
    let status = agent.settled()?;
    let idle = Memory::of(agent.pid())?;
    let cpu = proc::cpu_time(agent.pid())?;

    let mut command = Command::new(&programs.testprog);
    command.args(["load", "--sum", "--port", &listener.port.to_string()]);
    command.args(["--rate", &rate.to_string()]);
    command.args(["--count", &(rate * seconds).to_string()]);
    cgroup.holds(&mut command)?;
    let limit = Duration::from_secs(60 + 10 * seconds);
    let sum = Sum::parse(&process::capture_within(limit, &mut command)?)?;

    let settled = agent.settled()?;
    let load = Load {
        connections: sum.connections,
        elapsed: sum.elapsed,
        records: settled.emitted.saturating_sub(status.emitted),
        lost: settled.lost.saturating_sub(status.lost),
        cpu: proc::cpu_time(agent.pid())?.saturating_sub(cpu),
        idle,
        after: Memory::of(agent.pid())?,
        maps: Bpf::of(agent.pid())?.maps,
        status,
    };
    agent.stop()?;
    ensure!(load.records > 0, "procid recorded nothing of the load");
    Ok(load)
}

/// Opens `count` connections beside a new agent, and keeps them. A process holds
/// as many as the limit of its descriptors allows, which not every root may
/// raise.
///
/// # Errors
///
/// Of the programs.
pub(crate) fn live(programs: &Programs, cgroup: &Cgroup, count: u32) -> Result<Live> {
    eprintln!("{count} live connections");
    let agent = Agent::start(&programs.procid, cgroup)?;
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // Both ends of each are here, and are two to the agent.
    let holders: Vec<_> = shares(count / 2, descriptors.saturating_sub(SPARE) / 2)
        .map(|share| {
            let mut command = Command::new(&programs.testprog);
            command.args(["hold", "--count", &share.to_string()]);
            cgroup.holds(&mut command)?;
            Holder::start(&mut command)
        })
        .collect::<Result<_>>()?;
    let settled = agent.settled()?;
    let live = Live {
        connections: settled.connections,
        memory: Memory::of(agent.pid())?,
    };
    holders.into_iter().try_for_each(Holder::end)?;
    agent.stop()?;
    Ok(live)
}

/// `count` in parts of at most `most`, which is taken for 1 if it is 0.
fn shares(count: u32, most: u64) -> impl Iterator<Item = u64> {
    let (count, most) = (u64::from(count), most.max(1));
    (0..count.div_ceil(most)).map(move |part| most.min(count - part * most))
}

/// The test program's last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    connections: u64,
    elapsed: Duration,
}

impl Sum {
    fn parse(report: &str) -> Result<Self> {
        let sum: Value = serde_json::from_str(report.trim()).context("the load reports no sum")?;
        let number = |name: &str| sum[name].as_u64().with_context(|| format!("no {name}"));
        let failures = number("failures")?;
        ensure!(failures == 0, "{failures} connects failed");
        Ok(Self {
            connections: number("attempts")?,
            elapsed: Duration::from_nanos(number("elapsed")?),
        })
    }
}

/// A program that holds its connections for as long as its stdin is open;
/// killed when dropped.
#[derive(Debug)]
struct Holder(Child);

impl Holder {
    /// Starts it and waits until all connections are open.
    fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut holder = Self(child);
        let stdout = holder.0.stdout.take().context("a child without stdout")?;
        let mut report = String::new();
        BufReader::new(stdout).read_line(&mut report)?;
        Sum::parse(&report)?;
        Ok(holder)
    }

    /// Lets it close them.
    fn end(mut self) -> Result<()> {
        // Waiting closes stdin first.
        let status = self.0.wait()?;
        ensure!(status.success(), "the test program ended with {status}");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Not an error where it has ended already.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The other end of a load: takes connections and closes them.
#[derive(Debug)]
struct Listener {
    socket: Arc<TcpListener>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start() -> Result<Self> {
        let socket = Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?);
        rustix::net::listen(&socket, BACKLOG)?;
        let port = socket.local_addr()?.port();
        let listening = Arc::clone(&socket);
        // A socket that is shut down, and nothing else, ends accept(2) so.
        let is_shut = |kind| kind == ErrorKind::InvalidInput;
        let thread = thread::spawn(move || {
            while !matches!(listening.accept(), Err(error) if is_shut(error.kind())) {}
        });
        Ok(Self {
            socket,
            port,
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let shut = rustix::net::shutdown(&self.socket, Shutdown::Both);
        if let (Ok(()), Some(thread)) = (shut, self.thread.take()) {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_sum_is_read_and_one_with_failures_is_refused() {
        let sum = Sum::parse("{\"pid\":7,\"attempts\":3,\"failures\":0,\"elapsed\":2000}\n");
        let expected = Sum {
            connections: 3,
            elapsed: Duration::from_micros(2),
        };
        assert_eq!(sum.unwrap(), expected);
        Sum::parse(r#"{"pid":7,"attempts":3,"failures":1,"elapsed":2}"#).unwrap_err();
        Sum::parse("").unwrap_err();
    }

    #[test]
    fn shares_add_up_and_none_is_too_large() {
        for (count, most, parts) in [
            (10, 4, vec![4, 4, 2]),
            (8, 4, vec![4, 4]),
            (3, u64::MAX, vec![3]),
            (2, 0, vec![1, 1]),
        ] {
            assert_eq!(shares(count, most).collect::<Vec<_>>(), parts);
        }
    }

    #[test]
    fn a_listener_takes_connections_and_ends() {
        let listener = Listener::start().unwrap();
        let port = listener.port;
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        drop(listener);
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    }
}
