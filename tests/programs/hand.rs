//! Sockets that pass from one image to another.
//!
//! | module | the socket |
//! | --- | --- |
//! | [`inherit`] | is used by a child or thread of the image that opened it |
//! | [`exec`] | stays open over an exec |
//! | [`pass`] | is handed to another process, or taken by it |
//! | [`accept`] | comes from accept(2) |
//!
//! Each makes the other end of its connections ([`peer`]), a process of its
//! own, and ends with one line for each flow and each of its users
//! ([`procid_tests::way`]). Other images of the program are copies of it
//! ([`copies`]) that take the socket they are to use ([`user`]).

pub(crate) mod accept;
pub(crate) mod child;
pub(crate) mod copies;
pub(crate) mod exec;
pub(crate) mod flow;
pub(crate) mod inherit;
pub(crate) mod means;
pub(crate) mod pass;
pub(crate) mod peer;
pub(crate) mod user;

use anyhow::Result;
use clap::ValueEnum;

use accept::By;
use means::Means;

#[derive(Debug, clap::Args)]
pub(crate) struct Hand {
    /// How the socket passes
    #[arg(value_enum)]
    way: Way,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    /// A forked child sends on its parent's TCP connection
    Fork,
    /// The same by write(2)
    Write,
    /// The same by sendfile(2)
    Sendfile,
    /// The same by splice(2)
    Splice,
    /// A forked child sends where its parent's UDP socket sent
    ForkUdp,
    /// The same on a connected UDP socket
    ForkUdpConnected,
    /// A forked child receives only
    Receive,
    /// Another thread of the same image sends
    Thread,
    /// Three images in turn, and then the first two again
    Relay,
    /// A child of vfork runs another program
    VforkExec,
    /// Sends, runs another program, which sends
    Exec,
    /// Connects, runs another program, which sends
    ExecBetween,
    /// Makes the socket, runs a program that connects and runs one that sends
    ExecBeforeConnect,
    /// A connection, over a Unix socket
    ScmRights,
    /// An unconnected UDP socket, over a Unix socket
    ScmRightsUdp,
    /// A listening socket, over a Unix socket; the taker accepts
    ScmRightsListener,
    /// A socket, over a Unix socket; the taker connects it
    CreatePassConnect,
    /// Stolen by another process
    PidfdGetfd,
    /// Registered in a ring that another process submits to
    UringOfAnother,
    /// accept4, with the other end's address
    Accept,
    /// accept4, without
    AcceptNull,
    /// An accept of io_uring
    AcceptUring,
    /// A forked child answers on the accepted socket
    AcceptFork,
    /// A forked child accepts
    Prefork,
}

impl Hand {
    pub(crate) fn run(self) -> Result<()> {
        match self.way {
            Way::Fork => inherit::fork(Means::Send),
            Way::Write => inherit::fork(Means::Write),
            Way::Sendfile => inherit::fork(Means::Sendfile),
            Way::Splice => inherit::fork(Means::Splice),
            Way::ForkUdp => inherit::fork_udp(inherit::Destination::InEachCall),
            Way::ForkUdpConnected => inherit::fork_udp(inherit::Destination::Connected),
            Way::Receive => inherit::receive(),
            Way::Thread => inherit::thread(),
            Way::VforkExec => inherit::vfork_exec(),
            Way::Exec => exec::exec(),
            Way::ExecBetween => exec::between(),
            Way::ExecBeforeConnect => exec::before_connect(),
            Way::Relay => pass::relay(),
            Way::ScmRights => pass::tcp(),
            Way::ScmRightsUdp => pass::udp(),
            Way::ScmRightsListener => pass::listener(),
            Way::CreatePassConnect => pass::unconnected(),
            Way::PidfdGetfd => pass::theft(),
            Way::UringOfAnother => pass::ring_of_another(),
            Way::Accept => accept::accept(By::AcceptWithAddress),
            Way::AcceptNull => accept::accept(By::AcceptNull),
            Way::AcceptUring => accept::accept(By::Uring),
            Way::AcceptFork => accept::then_fork(),
            Way::Prefork => accept::prefork(),
        }
    }
}
