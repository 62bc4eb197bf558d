//! The table of paths: each a run of the test program, and what the agent may
//! say that it does not cover of it.

use std::fmt;

/// Names in the agent's `procid.uncovered` under which a path may fall.
mod uncovered {
    pub(super) const PACKET: &[&str] = &["AF_PACKET sockets"];
    pub(super) const SCTP: &[&str] = &["SCTP"];
    pub(super) const DCCP: &[&str] = &["DCCP"];
    pub(super) const RXRPC: &[&str] = &["AF_RXRPC"];
    pub(super) const SMC: &[&str] = &["SMC"];
    pub(super) const XDP: &[&str] = &["AF_XDP"];
    pub(super) const VSOCK: &[&str] = &["vsock"];
    pub(super) const FAST_OPEN: &[&str] =
        &["Fast Open connections accepted before their handshake is over"];
    pub(super) const WIRE: &[&str] = &["source routing"];
    pub(super) const SPEAKERS: &[&str] = &["speakers"];
    pub(super) const DENY_PACKET: &[&str] = &["denials on AF_PACKET sockets"];
    pub(super) const DENY_SPEAKERS: &[&str] = &["denials of speakers on TCP connections"];
    pub(super) const DENY_SPLICE: &[&str] = &[
        "denials of speakers on TCP connections",
        "denials of sendfile and splice",
    ];
    pub(super) const DENY_ACCEPTORS: &[&str] = &["denials on accepted sockets"];
    pub(super) const URING_ACCEPTORS: &[&str] = &["sockets accepted through io_uring"];
}

/// A part of the conformance table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Ways,
    Bytes,
    Custody,
    Hiding,
}

impl Section {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ways => "Ways out",
            Self::Bytes => "Bytes",
            Self::Custody => "Custody",
            Self::Hiding => "Images that hide",
        }
    }

    /// Of the part where the same paths are denied.
    pub(crate) fn denied(self) -> &'static str {
        match self {
            Self::Ways => "Ways out, denied",
            Self::Bytes => "Bytes, denied",
            Self::Custody => "Custody, denied",
            Self::Hiding => "Images that hide, denied",
        }
    }

    /// The test program's subcommand.
    fn subcommand(self) -> &'static str {
        match self {
            Self::Ways | Self::Bytes => "way",
            Self::Custody => "hand",
            Self::Hiding => "hide",
        }
    }
}

/// Which of a path's images are denied, where the path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Every,
    /// Copies of the program: those that a socket is given to.
    Takers,
    Speakers,
    /// Whoever sends on a socket that was accepted.
    Acceptors,
}

impl Subject {
    pub(crate) const ALL: [Self; 4] = [Self::Every, Self::Takers, Self::Speakers, Self::Acceptors];
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) section: Section,
    /// The test program's name for it.
    program: &'static str,
    /// What it is, for readers of the table.
    pub(crate) what: &'static str,
    /// The test program receives what it is told to move.
    download: bool,
    /// An entry of `procid.uncovered` with one of these names says why records
    /// of this path may be missing.
    pub(crate) uncovered: &'static [&'static str],
    /// Each opener's line is of an image of its own, whatever its pid.
    pub(crate) distinct_images: bool,
    /// The socket carries more than the program's payload.
    pub(crate) uncounted: bool,
    /// Who is denied, where the path is.
    pub(crate) denied: Subject,
    /// An entry of `procid.uncovered` with one of these names says why nothing
    /// may be denied on this path.
    pub(crate) undeniable: &'static [&'static str],
    /// A packet that is denied may be dropped without a word to its sender.
    pub(crate) is_dropped: bool,
}

impl Path {
    const fn new(section: Section, program: &'static str, what: &'static str) -> Self {
        Self {
            section,
            program,
            what,
            download: false,
            uncovered: &[],
            distinct_images: false,
            uncounted: false,
            denied: Subject::Every,
            undeniable: &[],
            is_dropped: false,
        }
    }

    const fn denied(mut self, denied: Subject) -> Self {
        self.denied = denied;
        self
    }

    const fn undeniable(mut self, names: &'static [&'static str]) -> Self {
        self.undeniable = names;
        self
    }

    const fn uncounted(mut self) -> Self {
        self.uncounted = true;
        self
    }

    const fn unless(mut self, uncovered: &'static [&'static str]) -> Self {
        self.uncovered = uncovered;
        self
    }

    /// Whether it is that row of the table.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.section == other.section && self.to_string() == other.to_string()
    }

    /// Arguments of the test program, to move `bytes`.
    pub(crate) fn arguments(&self, bytes: Option<u64>) -> Vec<String> {
        let mut arguments = vec![
            self.section.subcommand().to_owned(),
            self.program.to_owned(),
        ];
        if let Some(bytes) = bytes {
            arguments.extend(["--bytes".to_owned(), bytes.to_string()]);
        }
        if self.download {
            arguments.push("--download".to_owned());
        }
        arguments
    }

    /// Whether it is run once for each size.
    pub(crate) fn has_sizes(&self) -> bool {
        self.section == Section::Bytes
    }
}

/// The row's name.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.download { " --download" } else { "" };
        write!(f, "{}{direction}", self.program)
    }
}

/// Every path, in the order of the table.
pub(crate) fn all() -> Vec<Path> {
    let mut all = WAYS.to_vec();
    for &mover in MOVERS {
        all.push(mover);
        all.push(Path {
            download: true,
            ..mover
        });
    }
    all.extend_from_slice(UPLOADS);
    all.extend_from_slice(HANDS);
    all.extend_from_slice(HIDES);
    all
}

const fn way(program: &'static str, what: &'static str) -> Path {
    Path::new(Section::Ways, program, what)
}

const fn mover(program: &'static str, what: &'static str) -> Path {
    Path::new(Section::Bytes, program, what)
}

const fn hand(program: &'static str, what: &'static str) -> Path {
    let path = Path::new(Section::Custody, program, what)
        .unless(uncovered::SPEAKERS)
        .undeniable(uncovered::DENY_SPEAKERS);
    Path {
        // TCP data of a speaker, on the cgroup backend.
        is_dropped: true,
        ..path
    }
}

const fn hide(program: &'static str, what: &'static str) -> Path {
    Path::new(Section::Hiding, program, what)
}

const WAYS: &[Path] = &[
    way("tcp", "connect over TCP"),
    way("tcp-v6", "connect over TCP, IPv6"),
    way("tcp-mapped", "IPv4 on an IPv6 socket"),
    way("tcp-fastopen-sendto", "Fast Open, MSG_FASTOPEN").unless(uncovered::FAST_OPEN),
    way("tcp-fastopen-connect", "Fast Open, TCP_FASTOPEN_CONNECT").unless(uncovered::FAST_OPEN),
    way("tcp-twice", "connect, AF_UNSPEC, connect elsewhere"),
    way(
        "tcp-after-failure",
        "a refused connect, then another on the same socket",
    ),
    way("tcp-any", "to 0.0.0.0"),
    way("tcp-any-v6", "to ::"),
    way("mptcp", "MPTCP, one connection"),
    way("mptcp-second-subflow", "MPTCP, two subflows"),
    way("udp", "sendto"),
    way("udp-v6", "sendto, IPv6"),
    way("udp-connected", "connect, then send"),
    way("udp-mapped", "IPv4 on an IPv6 socket"),
    way("udp-sendmmsg", "three destinations in one call"),
    way("udp-redial", "connected to one, then to another"),
    way("udp-override", "connected to one, sendto to another"),
    way("udp-unspec", "sendto, family AF_UNSPEC"),
    way("udp-any", "to 0.0.0.0").unless(uncovered::WIRE),
    way("udp-any-v6", "to ::").unless(uncovered::WIRE),
    way(
        "udp-nameless-receive",
        "answers taken without their address",
    ),
    way("udp-scan", "one socket, 2,000 destinations"),
    way("udplite", "UDP-Lite, sendto"),
    way("udplite-connected", "UDP-Lite, connect, then send"),
    way("uring-connect", "io_uring, inline"),
    way("uring-async", "io_uring, in a worker"),
    way("uring-sqpoll", "io_uring, in the poll thread"),
    way("uring-registered", "io_uring, registered descriptor"),
    way("uring-personality", "io_uring, another user's credentials"),
    way("uring-send-udp", "io_uring, a datagram"),
    way("ping", "ping socket"),
    Path {
        // https://github.com/torvalds/linux/blob/v6.12/net/ipv6/ping.c#L190
        is_dropped: true,
        ..way("ping-v6", "ping socket, IPv6")
    },
    way("raw-icmp", "raw socket, ICMP"),
    way("raw-icmp-connected", "raw socket, connected"),
    way("raw-udp", "raw socket, UDP by hand"),
    way("raw-hdrincl", "raw socket, own IP header"),
    way("packet", "AF_PACKET, SOCK_DGRAM")
        .unless(uncovered::PACKET)
        .undeniable(uncovered::DENY_PACKET),
    way("packet-raw", "AF_PACKET, SOCK_RAW")
        .unless(uncovered::PACKET)
        .undeniable(uncovered::DENY_PACKET),
    way("packet-ring", "AF_PACKET, PACKET_TX_RING")
        .unless(uncovered::PACKET)
        .undeniable(uncovered::DENY_PACKET),
    way("sctp", "SCTP, one-to-one")
        .unless(uncovered::SCTP)
        .undeniable(uncovered::SCTP),
    way("sctp-seqpacket", "SCTP, one-to-many")
        .unless(uncovered::SCTP)
        .undeniable(uncovered::SCTP),
    way("dccp", "DCCP")
        .unless(uncovered::DCCP)
        .undeniable(uncovered::DCCP),
    way("int80", "32-bit system call"),
    way("zerocopy", "MSG_ZEROCOPY, TCP"),
    way("zerocopy-udp", "MSG_ZEROCOPY, UDP"),
    way("tls", "TLS in the kernel"),
    way("route-lsrr", "IPv4 loose source route, by socket option").unless(uncovered::WIRE),
    way("route-ssrr", "IPv4 strict source route, by socket option").unless(uncovered::WIRE),
    way("route-lsrr-cmsg", "IPv4 source route, by control message").unless(uncovered::WIRE),
    way("route-rthdr", "IPv6 routing header, by socket option").unless(uncovered::WIRE),
    way(
        "route-rthdr-cmsg",
        "IPv6 routing header, by control message",
    )
    .unless(uncovered::WIRE),
    way("rxrpc", "AF_RXRPC")
        .unless(uncovered::RXRPC)
        .undeniable(uncovered::RXRPC),
    way("smc", "SMC")
        .unless(uncovered::SMC)
        .undeniable(uncovered::SMC)
        .uncounted(),
    way("xdp", "AF_XDP")
        .unless(uncovered::XDP)
        .undeniable(uncovered::XDP),
    way("vsock", "vsock")
        .unless(uncovered::VSOCK)
        .undeniable(uncovered::VSOCK),
];

/// Each has a row for either direction.
const MOVERS: &[Path] = &[
    mover("bytes-write", "write, read"),
    mover("bytes-sendmsg", "sendmsg, recvmsg"),
    mover("bytes-sendmmsg", "sendmmsg, UDP"),
    mover("bytes-recvmmsg", "recvmmsg, UDP"),
    mover("bytes-sendfile", "sendfile"),
    mover("bytes-splice-out", "splice to the socket"),
    mover("bytes-splice-in", "splice from the socket"),
    mover("bytes-uring", "io_uring send, receive"),
    mover("bytes-uring-zc", "io_uring zero-copy send"),
    mover("bytes-udp", "sendto, recvfrom"),
    mover("bytes-udp-sendfile", "sendfile, UDP"),
    mover("bytes-peek", "MSG_PEEK first, UDP"),
];

const UPLOADS: &[Path] = &[mover("bytes-unread", "closed with data unread")];

const HANDS: &[Path] = &[
    hand("fork", "a forked child sends").denied(Subject::Speakers),
    hand("write", "a forked child, by write").denied(Subject::Speakers),
    hand("sendfile", "a forked child, by sendfile")
        .denied(Subject::Speakers)
        .undeniable(uncovered::DENY_SPLICE),
    hand("splice", "a forked child, by splice")
        .denied(Subject::Speakers)
        .undeniable(uncovered::DENY_SPLICE),
    hand(
        "fork-udp",
        "a forked child, to its parent's UDP destination",
    )
    .denied(Subject::Speakers),
    hand("fork-udp-connected", "a forked child, connected UDP").denied(Subject::Speakers),
    hand("receive", "a forked child receives only: no speaker"),
    hand("thread", "another thread: no speaker"),
    hand("relay", "three images in turn, then two again").denied(Subject::Takers),
    hand("vfork-exec", "a child of vfork runs another program").denied(Subject::Takers),
    hand("exec", "another program in the same process").denied(Subject::Takers),
    hand("exec-between", "connect, exec, send").denied(Subject::Takers),
    hand("exec-before-connect", "socket, exec, connect, exec, send").denied(Subject::Takers),
    hand("scm-rights", "a connection passed over a Unix socket").denied(Subject::Takers),
    hand("scm-rights-udp", "a UDP socket passed over a Unix socket").denied(Subject::Takers),
    hand(
        "scm-rights-listener",
        "a listener passed: its taker accepts",
    )
    .denied(Subject::Acceptors)
    .undeniable(uncovered::DENY_ACCEPTORS),
    hand("create-pass-connect", "passed before the connect").denied(Subject::Takers),
    hand("pidfd-getfd", "stolen with pidfd_getfd").denied(Subject::Takers),
    hand(
        "uring-of-another",
        "in a ring that another process submits to",
    )
    .denied(Subject::Speakers),
    hand("accept", "accept, with address")
        .denied(Subject::Acceptors)
        .undeniable(uncovered::DENY_ACCEPTORS),
    hand("accept-null", "accept, without")
        .denied(Subject::Acceptors)
        .undeniable(uncovered::DENY_ACCEPTORS),
    hand("accept-uring", "accept, io_uring")
        .denied(Subject::Acceptors)
        .undeniable(uncovered::DENY_ACCEPTORS)
        .unless(uncovered::URING_ACCEPTORS),
    hand("accept-fork", "a forked child answers")
        .denied(Subject::Acceptors)
        .undeniable(uncovered::DENY_ACCEPTORS),
    hand("prefork", "a forked child accepts")
        .denied(Subject::Acceptors)
        .undeniable(uncovered::DENY_ACCEPTORS),
];

const HIDES: &[Path] = &[
    hide("comm", "PR_SET_NAME"),
    hide("argv", "arguments overwritten"),
    hide("set-mm-exe", "PR_SET_MM exe link changed"),
    hide("memfd", "run from a memfd"),
    hide("fexecve-deleted", "file deleted before fexecve"),
    hide("hard-link", "by another hard link"),
    hide("bind-mount", "over a bind mount"),
    hide("overlay", "from overlayfs"),
    hide("chroot", "in a chroot"),
    hide("exec-chain", "five programs in one process"),
    hide("thread-exec", "exec by a thread that is not the leader"),
    Path {
        distinct_images: true,
        ..hide("pid-reuse", "a pid that comes round again")
    },
    Path {
        distinct_images: true,
        ..hide("pid-chosen", "a pid that is asked for again")
    },
    hide("other-user", "of another user"),
    hide("container", "in namespaces of its own"),
    hide("script-shebang", "a script, run by its first line"),
    hide(
        "script-shebang-bash",
        "a script of bash, run by its first line",
    ),
    hide("script-argument", "a script of bash, run as an argument"),
    hide("script-python", "a script of python, run as an argument"),
    hide("renamed-over", "file replaced by another of the same name"),
];
