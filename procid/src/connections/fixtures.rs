//! Events of connections, as the kernel side would write them.

use std::collections::HashMap;

use procid_common::{
    event::{Header, kind},
    image::{Credentials, ImageId},
    process::Actor,
    socket::{
        Address, Attempt, Close, Counts, DestinationKey, DestinationState, Hook, Outcome,
        SocketKind, SocketRow, V4_MAPPED, flags,
    },
};

use super::Accounts;

pub(crate) const MS: u64 = 1_000_000;

pub(crate) fn image(tgid: u32) -> ImageId {
    ImageId {
        start_boottime: u64::from(tgid) * MS,
        self_exec_id: 1,
        tgid,
        reserved: 0,
    }
}

pub(crate) fn actor(tgid: u32) -> Actor {
    let mut comm = [0; 16];
    comm[..5].copy_from_slice(b"co\nmm");
    Actor {
        creds: Credentials {
            uid: 1000,
            gid: 1000,
            euid: 1001,
            egid: 1002,
            loginuid: 1000,
            sessionid: u32::MAX,
        },
        tid: tgid + 1,
        vpid: 7,
        cgroup: 42,
        netns: 100,
        mntns: 200,
        comm,
    }
}

pub(crate) fn header<T>(kind: u32, boot_ns: u64) -> Header {
    Header {
        kind,
        len: u32::try_from(size_of::<T>()).unwrap(),
        boot_ns,
    }
}

pub(crate) fn ipv4(last: u8) -> Address {
    let mut address = [0; 16];
    address[..12].copy_from_slice(&V4_MAPPED);
    address[12..].copy_from_slice(&[10, 0, 0, last]);
    address
}

/// A TCP connect of process 10 to 10.0.0.7:443, not bound yet.
pub(crate) fn attempt(cookie: u64, flow: u32, boot_ns: u64) -> Attempt {
    Attempt {
        header: header::<Attempt>(kind::ATTEMPT, boot_ns),
        image: image(10),
        creator: image(10),
        actor: actor(10),
        cookie,
        socket: SocketKind {
            family: 2,
            sock_type: 1,
            protocol: 6,
            reserved: 0,
        },
        destination: ipv4(7),
        source: [0; 16],
        destination_port: 443,
        source_port: 0,
        flow,
        flags: 0,
        hook: Hook::Connect4 as u32,
        generation: 0,
        verdict: 0,
        rule: 0,
        audit: 0,
        unknown: 0,
        netns: 100,
    }
}

/// Of IPv4 on the loopback device.
pub(crate) fn loopback(last: u8) -> Address {
    let mut address = ipv4(last);
    address[12..].copy_from_slice(&[127, 0, 0, last]);
    address
}

/// A connect of process 10 from 127.0.0.1 to 127.0.0.1:8080.
pub(crate) fn local_attempt(cookie: u64, source_port: u16, boot_ns: u64) -> Attempt {
    Attempt {
        destination: loopback(1),
        destination_port: 8080,
        source: loopback(1),
        source_port: source_port.into(),
        ..attempt(cookie, 1, boot_ns)
    }
}

/// The outcome of [`local_attempt`].
pub(crate) fn local_outcome(cookie: u64, source_port: u16, boot_ns: u64, error: i32) -> Outcome {
    Outcome {
        source: loopback(1),
        source_port: source_port.into(),
        ..outcome(cookie, 1, boot_ns, error)
    }
}

/// Process 20 accepts what [`local_attempt`] opened.
pub(crate) fn local_accept(cookie: u64, source_port: u16, boot_ns: u64) -> Attempt {
    Attempt {
        header: header::<Attempt>(kind::ACCEPT, boot_ns),
        image: image(20),
        creator: ImageId::UNKNOWN,
        actor: actor(20),
        // As the socket itself has it: its own end is the source.
        destination: loopback(1),
        destination_port: source_port.into(),
        source: loopback(1),
        source_port: 8080,
        flags: flags::ACCEPTED | flags::CREATOR_UNSEEN,
        hook: Hook::SysExitAccept as u32,
        ..attempt(cookie, 1, boot_ns)
    }
}

/// A datagram of process 10 to 10.0.0.7:443.
pub(crate) fn datagram(cookie: u64, flow: u32, boot_ns: u64) -> Attempt {
    let mut attempt = attempt(cookie, flow, boot_ns);
    attempt.flags = flags::SEND;
    attempt.hook = Hook::Sendmsg4 as u32;
    attempt.socket.sock_type = 2;
    attempt.socket.protocol = 17;
    attempt
}

/// From 10.0.0.5:50000.
pub(crate) fn outcome(cookie: u64, flow: u32, boot_ns: u64, error: i32) -> Outcome {
    Outcome {
        header: header::<Outcome>(kind::OUTCOME, boot_ns),
        cookie,
        source: ipv4(5),
        source_port: 50_000,
        flow,
        error,
        hook: Hook::SetState as u32,
    }
}

pub(crate) fn close(cookie: u64, flow: u32, boot_ns: u64) -> Close {
    Close {
        header: header::<Close>(kind::CLOSE, boot_ns),
        cookie,
        flow,
        hook: Hook::SetState as u32,
        counts: Counts {
            sent: 100,
            received: 200,
            flow,
            flags: 0,
        },
    }
}

/// Accounts of datagram destinations, by key.
#[derive(Debug, Default)]
pub(crate) struct Ledger(pub(crate) HashMap<DestinationKey, DestinationState>);

impl Accounts for Ledger {
    fn counts(&self) -> bool {
        true
    }

    fn look(&self, key: &DestinationKey) -> Option<DestinationState> {
        self.0.get(key).copied()
    }

    fn forget(&mut self, key: &DestinationKey) {
        self.0.remove(key);
    }
}

/// An established TCP socket, held by a process.
pub(crate) fn row(cookie: u64, tgid: u32, boot_ns: u64) -> SocketRow {
    SocketRow {
        header: header::<SocketRow>(kind::SOCKET_ROW, boot_ns),
        image: image(tgid),
        cookie,
        socket: attempt(cookie, 0, 0).socket,
        destination: ipv4(7),
        source: ipv4(5),
        destination_port: 443,
        source_port: 50_000,
        state: 1,
        netns: 100,
        inode: 5000 + cookie,
        fd: 3,
        reserved: 0,
    }
}
