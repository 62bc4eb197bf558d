//! Sockets that come from accept(2).

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::Result;
use io_uring::{opcode, types};
use procid_tests::{truth::print_line, way::Flow};
use rustix::net::{SocketFlags, accept_with, acceptfrom_with};

use super::{
    child::forked,
    flow::{Used, accepted, add, tell, unsupported},
    means::{Means, done, greeted, ring},
    peer::Peer,
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    AcceptWithAddress,
    AcceptNull,
    Uring,
}

/// Takes the greeting and answers.
pub(crate) fn answer(connection: impl AsFd, flow: &mut Flow) -> Result<()> {
    add(flow, 0, greeted(&connection)?);
    add(flow, Means::Send.send(connection)?, 0);
    Ok(())
}

fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn accept_one(listener: impl AsFd) -> Result<OwnedFd> {
    Ok(acceptfrom_with(listener, SocketFlags::CLOEXEC)?.0)
}

pub(crate) fn accept(by: By) -> Result<()> {
    let (listener, address) = listen()?;
    let mut ring = match by {
        By::Uring => match ring()? {
            Some(ring) => Some(ring),
            None => return unsupported("no io_uring (ENOSYS)"),
        },
        By::AcceptWithAddress | By::AcceptNull => None,
    };
    let peer = Peer::client(address)?;
    let connection = match (by, &mut ring) {
        (By::AcceptNull, _) => accept_with(&listener, SocketFlags::CLOEXEC)?,
        (By::Uring, Some(ring)) => {
            let null = std::ptr::null_mut();
            let fd = types::Fd(listener.as_raw_fd());
            let entry = opcode::Accept::new(fd, null, null.cast()).build();
            let fd = done(ring, &entry)?;
            // SAFETY: the kernel has just made it, for nobody else.
            unsafe { OwnedFd::from_raw_fd(fd) }
        }
        _ => accept_one(&listener)?,
    };
    let mut flow = accepted(&connection)?;
    answer(&connection, &mut flow)?;
    drop(connection);
    peer.agrees_with(&tell(flow, &[])?)
}

/// The child is a speaker, to whom the acceptor is the opener.
pub(crate) fn then_fork() -> Result<()> {
    let (listener, address) = listen()?;
    let peer = Peer::client(address)?;
    let connection = accept_one(&listener)?;
    let mut flow = accepted(&connection)?;
    add(&mut flow, 0, greeted(&connection)?);
    let child = forked(|| Ok(print_line(&Used::now(Means::Send.send(&connection)?, 0)?)?))?;
    let user = child.only_line()?;
    drop(connection);
    peer.agrees_with(&tell(flow, &[user])?)
}

/// The child is the acceptor; the maker of the listener is nobody.
pub(crate) fn prefork() -> Result<()> {
    let (listener, address) = listen()?;
    let child = forked(|| {
        let connection = accept_one(&listener)?;
        let mut flow = accepted(&connection)?;
        answer(&connection, &mut flow)?;
        Ok(print_line(&flow)?)
    })?;
    drop(listener);
    let peer = Peer::client(address)?;
    let flow = child.only_line()?;
    peer.agrees_with(&tell(flow, &[])?)
}
