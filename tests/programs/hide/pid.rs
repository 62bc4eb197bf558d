//! Process ids that two processes have, one after the other.

use std::{env, fs, io, net::SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use procid_tests::{
    truth::{Actor, print_line},
    way::Flow,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::image;
use crate::hand::{
    child::{forked, forked_by},
    flow::unsupported,
    peer::Peer,
};

const PID_MAX: &str = "/proc/sys/kernel/pid_max";

/// Ids below are not given again (`RESERVED_PIDS`).
const ONCE_ONLY: u32 = 300;

/// Leaves a hundred that are.
const SMALL: &str = "400";

/// Set where changing the kernel's limit harms nobody.
const VIRTUAL_MACHINE: &str = "PROCID_VM";

/// Two processes, of which the second has the first's id because there are few.
pub(crate) fn comes_round() -> Result<()> {
    let peers = [Peer::server()?, Peer::server()?];
    let to = peers.each_ref().map(|peer| peer.address);
    let flows = if limit_is_of_the_namespace()? {
        let before = fs::read_to_string(PID_MAX)?;
        let flows = in_a_namespace(to)?;
        let after = fs::read_to_string(PID_MAX)?;
        ensure!(before == after, "the limit of all is {after} now");
        ensure!(flows[0].actor.vpid == flows[1].actor.vpid, "{flows:?}");
        flows
    } else if env::var_os(VIRTUAL_MACHINE).is_some_and(|set| set == "1") {
        let flows = under_a_limit(to)?;
        ensure!(flows[0].actor.pid == flows[1].actor.pid, "{flows:?}");
        flows
    } else {
        return unsupported("no pid_max of a namespace's own before 6.14 (EPERM)");
    };
    both_told(&flows, peers)
}

fn both_told(flows: &[Flow; 2], peers: [Peer; 2]) -> Result<()> {
    for (flow, peer) in flows.iter().zip(peers) {
        print_line(flow)?;
        peer.agrees_with(flow)?;
    }
    Ok(())
}

/// Since 6.14.
fn limit_is_of_the_namespace() -> Result<bool> {
    let system = rustix::system::uname();
    let release = system.release().to_str()?;
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || -> Result<u32> { Ok(numbers.next().context("no release")?.parse()?) };
    Ok((number()?, number()?) >= (6, 14))
}

fn in_a_namespace(to: [SocketAddr; 2]) -> Result<[Flow; 2]> {
    let mut outside = forked(|| {
        // SAFETY: no descriptor table is unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?;
        let mut first = forked(|| {
            fs::write(PID_MAX, SMALL).context(PID_MAX)?;
            Ok(print_line(&one_id_twice(to)?)?)
        })?;
        print_line(&first.line::<[Flow; 2]>()?)?;
        first.ended()
    })?;
    let flows = outside.line()?;
    outside.ended()?;
    Ok(flows)
}

fn under_a_limit(to: [SocketAddr; 2]) -> Result<[Flow; 2]> {
    let before = fs::read_to_string(PID_MAX)?;
    fs::write(PID_MAX, SMALL).context(PID_MAX)?;
    let flows = one_id_twice(to);
    fs::write(PID_MAX, before.trim())?;
    flows
}

/// Makes processes until an id has come twice, and lets both connect.
fn one_id_twice(to: [SocketAddr; 2]) -> Result<[Flow; 2]> {
    let mut first: Option<Flow> = None;
    for _ in 0..2000 {
        let mut child = forked(|| {
            let id = std::process::id();
            match &first {
                None if id >= ONCE_ONLY => connect(to[0]),
                Some(first) if id == first.actor.vpid => connect(to[1]),
                _ => Ok(()),
            }
        })?;
        let flow: Option<Flow> = child.next()?;
        child.ended()?;
        match (first.take(), flow) {
            (Some(first), Some(second)) => return Ok([first, second]),
            (before, now) => first = before.or(now),
        }
    }
    bail!("no process id came again")
}

fn connect(to: SocketAddr) -> Result<()> {
    Ok(print_line(&image::connects(to, Actor::current()?)?)?)
}

/// Two processes, of which the second is given the first's id on request.
pub(crate) fn chosen() -> Result<()> {
    let peers = [Peer::server()?, Peer::server()?];
    let to = peers.each_ref().map(|peer| peer.address);
    let mut child = forked(|| connect(to[0]))?;
    let id = child.pid()?.as_raw_nonzero().get();
    let first: Flow = child.line()?;
    child.ended()?;
    let second = match forked_by(|| fork_as(id), || connect(to[1])) {
        Ok(child) => child.only_line()?,
        Err(error) => {
            let errno = error.downcast_ref().and_then(io::Error::raw_os_error);
            return match errno {
                Some(libc::ENOSYS) => unsupported("no clone3 (ENOSYS)"),
                Some(libc::E2BIG) => unsupported("no set_tid in clone3 (E2BIG)"),
                _ => Err(error).with_context(|| format!("a second process {id}")),
            };
        }
    };
    let flows = [first, second];
    ensure!(flows[0].actor.pid == flows[1].actor.pid, "{flows:?}");
    both_told(&flows, peers)
}

/// fork(2), but for the id of the child.
fn fork_as(id: i32) -> i32 {
    // SAFETY: zeros ask for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = (&raw const id) as u64;
    arguments.set_tid_size = 1;
    // SAFETY: the arguments and the id live until the call returns. This
    // process has one thread, so that its child may go on as it would.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    pid as i32
}
