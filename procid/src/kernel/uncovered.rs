//! Ways out that nothing attached here sees, for `ready` and `status`.

use crate::records::Uncovered;

/// What is attached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// The cgroup hooks are.
    pub(super) cgroup: bool,
    /// They are attached to a part of the hierarchy.
    pub(super) is_part: bool,
    /// The LSM hooks are.
    pub(super) lsm: bool,
    /// The returns of sends and receives are seen.
    pub(super) lengths: bool,
    /// What denied speakers write to TCP connections is dropped.
    pub(super) withholds: bool,
    /// sendfile(2) and splice(2) pass the LSM hook of sends, as they do not
    /// where sockets have a way of their own for pages.
    /// <https://github.com/torvalds/linux/blob/v6.4/net/socket.c#L969>
    pub(super) splices: bool,
}

/// Name of a way, whether it is uncovered, and why.
type Way = (&'static str, fn(Sight) -> bool, &'static str);

const NO_CGROUP_HOOK: &str = "its connects and sends pass no cgroup hook";
const NO_LENGTHS: &str = "neither sock_send_length (6.3) nor fexit programs are there";
const NO_PACKETS: &str = "the LSM backend does not see packets";
const NO_RETURN: &str = "no system call returns: the first image that sends is recorded as a speaker of an unknown opener";

const WAYS: &[Way] = &[
    (
        "vsock",
        |_| true,
        "its sockets are not internet sockets, and its connects pass no hook used here",
    ),
    (
        "AF_XDP",
        |_| true,
        "its frames are written to a ring shared with the driver: no call carries them",
    ),
    (
        "AF_RXRPC",
        |_| true,
        "the kernel sends from threads of its own, on a UDP socket that it made",
    ),
    (
        "SMC",
        |_| true,
        "its data bypass TCP: only the TCP connection that they are agreed on is recorded",
    ),
    (
        "ICMP errors, echo replies and resets of the kernel",
        |_| true,
        "they answer packets, and are no process's",
    ),
    (
        "SQPOLL rings of another process",
        |_| true,
        "the kernel shows the ring's owner, not who wrote to it",
    ),
    (
        "the other end of Unix and UDP sockets",
        |_| true,
        "only of a TCP connection between two sockets of one network namespace is it known",
    ),
    (
        "a second MPTCP subflow's outcome",
        |_| true,
        "its TCP socket is the kernel's own: the attempt is recorded with outcome unknown",
    ),
    (
        "NAT in other network namespaces than the agent's, and in conntrack zones",
        |_| true,
        "connections are looked up in the connection tracking of the agent's namespace, zone 0: `source.nat` and `destination.nat` say what is translated there",
    ),
    (
        "names of destinations that no DNS answer gave",
        |sight| sight.cgroup,
        "answers are seen over UDP and TCP port 53: none over HTTPS or TLS, of other ports, from before the hooks, or that a resolver gives over varlink or D-Bus (nss-resolve), where the resolver is who asked",
    ),
    ("names of destinations", |sight| !sight.cgroup, NO_PACKETS),
    ("SCTP", |sight| !sight.lsm, NO_CGROUP_HOOK),
    ("DCCP", |sight| !sight.lsm, NO_CGROUP_HOOK),
    (
        "connect(2) of raw and UDP-Lite sockets",
        |sight| !sight.lsm,
        "it passes no cgroup hook: the first packet is recorded as the connect, and a connect without packets or a failed one is not",
    ),
    (
        "failed sends of raw sockets",
        |sight| !sight.lsm,
        "no packet shows their destination",
    ),
    (
        "Fast Open connections accepted before their handshake is over",
        |sight| !sight.lsm,
        "they have no tag yet: the first image that sends is recorded as a speaker of an unknown opener",
    ),
    (
        "sockets accepted through io_uring",
        |sight| !sight.lsm,
        NO_RETURN,
    ),
    (
        "denials on AF_PACKET sockets",
        |sight| !sight.lsm,
        "their sends pass no cgroup hook",
    ),
    (
        "denials on open TCP connections",
        |sight| !sight.lsm,
        "a policy does not judge again who connected one before it: `procid cut` ends what is open",
    ),
    (
        "denials on accepted sockets",
        |sight| !sight.lsm,
        "no hook of the cgroup backend that can refuse sees who writes to one",
    ),
    (
        "denials of speakers on TCP connections",
        |sight| !sight.lsm && !sight.withholds,
        "before Linux 6.16 no hook of the cgroup backend sees who writes to one before it leaves",
    ),
    (
        "denials of speakers on MPTCP connections",
        |sight| !sight.lsm,
        "no hook of the cgroup backend sees who writes to one before it leaves",
    ),
    (
        "denials of sendfile and splice",
        |sight| sight.lsm && !sight.splices,
        "before Linux 6.5 they pass no hook that can refuse them: the connect is judged, and `procid cut` ends what is open",
    ),
    ("speakers", |sight| !sight.lengths, NO_LENGTHS),
    ("bytes of datagrams", |sight| !sight.lengths, NO_LENGTHS),
    ("AF_PACKET sockets", |sight| !sight.lengths, NO_LENGTHS),
    (
        "sockets of processes outside the cgroup given",
        |sight| sight.is_part,
        "the hooks are attached to that cgroup only",
    ),
    (
        "the source address of unconnected datagrams",
        |sight| !sight.cgroup,
        NO_PACKETS,
    ),
    ("source routing", |sight| !sight.cgroup, NO_PACKETS),
    (
        "from whom a datagram was received",
        |sight| !sight.cgroup,
        "the LSM backend has no hook for it: bytes received on unconnected sockets are not counted",
    ),
    (
        "messages of sendmmsg to one address",
        |sight| !sight.cgroup,
        "the LSM hook is called once for them",
    ),
];

/// What is missed where the kernel lends no iterator over socket storage.
pub(super) fn without_tag_iterator() -> impl Iterator<Item = Uncovered> {
    [
        (
            "sockets that no table of descriptors holds",
            "this kernel refuses iterators over socket storage: one that only an io_uring or a message under way keeps has no updates, and a packet socket is told as closed",
        ),
        (
            "connections closed before an agent takes over from a killed one, and not ended yet",
            "this kernel refuses iterators over socket storage: who opened them is not taken over, and what was withheld of them is not withheld any more",
        ),
    ]
    .into_iter()
    .map(|(path, reason)| Uncovered {
        path: path.to_owned(),
        reason: reason.to_owned(),
    })
}

/// The ways out that are not covered, each with its reason.
pub(super) fn paths(sight: Sight) -> impl Iterator<Item = Uncovered> {
    WAYS.iter()
        .filter(move |(_, is_uncovered, _)| is_uncovered(sight))
        .map(|(path, _, reason)| Uncovered {
            path: (*path).to_owned(),
            reason: (*reason).to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_sees_more_leaves_less_uncovered() {
        let all = Sight {
            cgroup: true,
            is_part: false,
            lsm: true,
            lengths: true,
            withholds: true,
            splices: true,
        };
        let count = |sight| paths(sight).count();
        for less in [
            Sight {
                cgroup: false,
                ..all
            },
            Sight { lsm: false, ..all },
            Sight {
                splices: false,
                ..all
            },
            Sight {
                lengths: false,
                ..all
            },
        ] {
            assert!(count(less) > count(all), "{less:?}");
        }
        let without_lsm = Sight { lsm: false, ..all };
        let neither = Sight {
            withholds: false,
            ..without_lsm
        };
        assert!(count(neither) > count(without_lsm));
    }
}
