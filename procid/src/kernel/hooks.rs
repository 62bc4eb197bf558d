//! Every hook procid can use, in one table.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Btf, BtfError, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock,
        CgroupSockAddr, FExit, Lsm, ProgramError, TracePoint,
    },
};

use crate::agent::settings::Backend;

/// How a program is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attach {
    /// BTF-typed tracepoint.
    Tracepoint(&'static str),
    /// Return of a system call, through tracefs.
    SyscallExit(&'static str),
    CgroupSockAddr,
    CgroupSock,
    CgroupSkb(CgroupSkbAttachType),
    Lsm(&'static str),
    /// Return of a kernel function.
    Return(&'static str),
}

/// What a hook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Process identity and TCP states: needed whatever the backend.
    Core,
    /// Connection records of the cgroup backend.
    Cgroup,
    /// Connection records of the LSM backend: of all sockets where there is no
    /// cgroup backend, else of those that pass none of its hooks.
    LsmRecords,
    /// What the LSM backend adds to the cgroup backend.
    LsmExtra,
    /// Stand-ins for `sock_send_length` and `sock_recv_length`.
    StandIn,
}

/// One hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// The program's name in the eBPF object.
    pub(crate) program: &'static str,
    /// What records and `procid status` call it.
    pub(crate) name: &'static str,
    pub(crate) attach: Attach,
    pub(crate) role: Role,
    /// procid does not start without it (in a backend that uses it).
    pub(crate) required: bool,
    pub(crate) gives: &'static str,
    pub(crate) without: &'static str,
    /// The first mainline kernel that has it.
    pub(crate) since: &'static str,
}

/// What tells the bytes, errors and users of sends and receives.
pub(crate) const LENGTHS: [&str; 2] = ["tp_btf/sock_send_length", "tp_btf/sock_recv_length"];

const fn stand_in(program: &'static str, name: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        name,
        attach: Attach::Return(function),
        role: Role::StandIn,
        required: false,
        gives: "what sock_send_length and sock_recv_length tell on newer kernels",
        without: "speakers, the outcome of failed datagrams and the bytes of datagrams are not seen",
        since: "5.5",
    }
}

/// The order is the order of attaching: identity first, so that no connection
/// is seen before its process can be; socket creation before connect.
pub(crate) const HOOKS: &[Hook] = &[
    Hook {
        program: "process_fork",
        name: "tp_btf/sched_process_fork",
        attach: Attach::Tracepoint("sched_process_fork"),
        role: Role::Core,
        required: true,
        gives: "the birth of each process and who forked it",
        without: "no ancestry, and forked images are mistaken for their parents",
        since: "5.5",
    },
    Hook {
        program: "process_exec",
        name: "tp_btf/sched_process_exec",
        attach: Attach::Tracepoint("sched_process_exec"),
        role: Role::Core,
        required: true,
        gives: "the executable that was mapped, its inode state, path and arguments",
        without: "no executable is known",
        since: "5.5",
    },
    Hook {
        program: "process_exit",
        name: "tp_btf/sched_process_exit",
        attach: Attach::Tracepoint("sched_process_exit"),
        role: Role::Core,
        required: true,
        gives: "the end of each process",
        without: "ended images are never forgotten",
        since: "5.5",
    },
    Hook {
        program: "set_state",
        name: "tp_btf/inet_sock_set_state",
        attach: Attach::Tracepoint("inet_sock_set_state"),
        role: Role::Core,
        required: true,
        gives: "TCP outcome, source port, error and end",
        without: "no outcome and no end of TCP connections",
        since: "5.5",
    },
    Hook {
        program: "retransmit",
        name: "tp_btf/tcp_retransmit_skb",
        attach: Attach::Tracepoint("tcp_retransmit_skb"),
        role: Role::Core,
        required: false,
        gives: "the source port of TCP attempts that nobody answers",
        without: "records of unanswered TCP attempts have no source",
        since: "5.5",
    },
    Hook {
        program: "send_length",
        name: LENGTHS[0],
        attach: Attach::Tracepoint("sock_send_length"),
        role: Role::Core,
        required: false,
        gives: "each send: its bytes, its error, its user; packet sockets",
        without: "stand-ins are used",
        since: "6.3",
    },
    Hook {
        program: "receive_length",
        name: LENGTHS[1],
        attach: Attach::Tracepoint("sock_recv_length"),
        role: Role::Core,
        required: false,
        gives: "the bytes of each receive",
        without: "stand-ins are used",
        since: "6.3",
    },
    stand_in("returned_sendmsg", "fexit/inet_sendmsg", "inet_sendmsg"),
    stand_in("returned_sendmsg6", "fexit/inet6_sendmsg", "inet6_sendmsg"),
    stand_in("returned_sendpage", "fexit/inet_sendpage", "inet_sendpage"),
    stand_in("returned_recvmsg", "fexit/inet_recvmsg", "inet_recvmsg"),
    stand_in("returned_recvmsg6", "fexit/inet6_recvmsg", "inet6_recvmsg"),
    stand_in(
        "returned_recvmsg_common",
        "fexit/sock_common_recvmsg",
        "sock_common_recvmsg",
    ),
    stand_in(
        "returned_sendmsg_packet",
        "fexit/packet_sendmsg",
        "packet_sendmsg",
    ),
    stand_in(
        "returned_recvmsg_packet",
        "fexit/packet_recvmsg",
        "packet_recvmsg",
    ),
    Hook {
        program: "sys_exit_connect",
        name: "tracepoint/sys_exit_connect",
        attach: Attach::SyscallExit("sys_exit_connect"),
        role: Role::Core,
        required: false,
        gives: "errors of connects that never became a TCP state, source of connected UDP",
        without: "ENETUNREACH and the like have no error code; connected UDP waits for its first send",
        since: "4.7",
    },
    Hook {
        program: "sys_exit_accept",
        name: "tracepoint/sys_exit_accept",
        attach: Attach::SyscallExit("sys_exit_accept"),
        role: Role::Core,
        required: false,
        gives: "who accepts a connection",
        without: "who accepts a connection is not seen",
        since: "4.7",
    },
    Hook {
        program: "sys_exit_accept4",
        name: "tracepoint/sys_exit_accept4",
        attach: Attach::SyscallExit("sys_exit_accept4"),
        role: Role::Core,
        required: false,
        gives: "who accepts a connection",
        without: "who accepts a connection is not seen",
        since: "4.7",
    },
    Hook {
        program: "sys_exit_socket",
        name: "tracepoint/sys_exit_socket",
        attach: Attach::SyscallExit("sys_exit_socket"),
        role: Role::Core,
        required: false,
        gives: "who makes a packet socket",
        without: "the opener of a packet socket is not known",
        since: "4.7",
    },
    Hook {
        program: "sock_create",
        name: "cgroup/sock_create",
        attach: Attach::CgroupSock,
        role: Role::Cgroup,
        required: true,
        gives: "the creator of each socket, before its owner can touch it",
        without: "no creator, and an owner can starve the socket of storage",
        since: "5.10",
    },
    Hook {
        program: "sock_release",
        name: "cgroup/sock_release",
        attach: Attach::CgroupSock,
        role: Role::Cgroup,
        required: false,
        gives: "the end of datagram flows",
        without: "datagram flows have no close record",
        since: "5.9",
    },
    Hook {
        program: "egress",
        name: "cgroup_skb/egress",
        attach: Attach::CgroupSkb(CgroupSkbAttachType::Egress),
        role: Role::Cgroup,
        required: false,
        gives: "raw and ping packets, the source of unconnected datagrams, source routes",
        without: "raw and ping packets, and source routes, are not seen",
        since: "4.10",
    },
    Hook {
        program: "ingress",
        name: "cgroup_skb/ingress",
        attach: Attach::CgroupSkb(CgroupSkbAttachType::Ingress),
        role: Role::Cgroup,
        required: false,
        gives: "whether an unconnected socket hears of one peer or of several",
        without: "what recv(2) takes from an unconnected socket is counted for no peer",
        since: "4.10",
    },
    Hook {
        program: "connect4",
        name: "cgroup/connect4",
        attach: Attach::CgroupSockAddr,
        role: Role::Cgroup,
        required: true,
        gives: "IPv4 connects of every form, Fast Open and io_uring included",
        without: "no IPv4 connection is seen",
        since: "4.17",
    },
    Hook {
        program: "connect6",
        name: "cgroup/connect6",
        attach: Attach::CgroupSockAddr,
        role: Role::Cgroup,
        required: true,
        gives: "IPv6 connects, v4-mapped ones included",
        without: "no IPv6 connection is seen",
        since: "4.17",
    },
    Hook {
        program: "sendmsg4",
        name: "cgroup/sendmsg4",
        attach: Attach::CgroupSockAddr,
        role: Role::Cgroup,
        required: true,
        gives: "unconnected IPv4 datagrams",
        without: "no unconnected IPv4 datagram is seen",
        since: "4.18",
    },
    Hook {
        program: "sendmsg6",
        name: "cgroup/sendmsg6",
        attach: Attach::CgroupSockAddr,
        role: Role::Cgroup,
        required: true,
        gives: "unconnected IPv6 datagrams",
        without: "no unconnected IPv6 datagram is seen",
        since: "4.18",
    },
    Hook {
        program: "recvmsg4",
        name: "cgroup/recvmsg4",
        attach: Attach::CgroupSockAddr,
        role: Role::Cgroup,
        required: false,
        gives: "from whom an IPv4 datagram came",
        without: "bytes from several IPv4 peers are not told apart",
        since: "5.2",
    },
    Hook {
        program: "recvmsg6",
        name: "cgroup/recvmsg6",
        attach: Attach::CgroupSockAddr,
        role: Role::Cgroup,
        required: false,
        gives: "from whom an IPv6 datagram came",
        without: "bytes from several IPv6 peers are not told apart",
        since: "5.2",
    },
    Hook {
        program: "measure",
        name: "lsm.s/bprm_committed_creds",
        attach: Attach::Lsm("bprm_committed_creds"),
        role: Role::LsmExtra,
        required: false,
        gives: "the kernel's own SHA-256 of each executable (grade kernel)",
        without: "hashes are read by the agent (grade verified)",
        since: "5.18",
    },
    Hook {
        program: "lsm_graft",
        name: "lsm/sock_graft",
        attach: Attach::Lsm("sock_graft"),
        role: Role::LsmExtra,
        required: false,
        gives: "who accepts a connection, through io_uring too",
        without: "an accept through io_uring is not seen",
        since: "5.7",
    },
    Hook {
        program: "look_at_script",
        name: "lsm/bprm_check_security",
        attach: Attach::Lsm("bprm_check_security"),
        role: Role::LsmExtra,
        required: false,
        gives: "the inode of each script that is run (grade verified)",
        without: "scripts are found by their path (grade named)",
        since: "5.7",
    },
    Hook {
        program: "lsm_post_create",
        name: "lsm/socket_post_create",
        attach: Attach::Lsm("socket_post_create"),
        role: Role::LsmRecords,
        required: true,
        gives: "the creator of each socket, packet sockets included",
        without: "no hook but system calls tells who made a socket",
        since: "5.7",
    },
    Hook {
        program: "lsm_connect",
        name: "lsm/socket_connect",
        attach: Attach::Lsm("socket_connect"),
        role: Role::LsmRecords,
        required: true,
        gives: "connects of every protocol",
        without: "connects of raw sockets, UDP-Lite, SCTP and DCCP are not seen, or at their first packet",
        since: "5.7",
    },
    Hook {
        program: "lsm_sendmsg",
        name: "lsm/socket_sendmsg",
        attach: Attach::Lsm("socket_sendmsg"),
        role: Role::LsmRecords,
        required: true,
        gives: "addressed datagrams of every protocol, Fast Open",
        without: "failed raw sends, and datagrams of SCTP, are not seen",
        since: "5.7",
    },
    Hook {
        program: "lsm_free",
        name: "lsm/sk_free_security",
        attach: Attach::Lsm("sk_free_security"),
        role: Role::LsmRecords,
        required: false,
        gives: "the end of datagram and packet sockets",
        without: "the end of a packet socket is seen up to two seconds late",
        since: "5.7",
    },
];

impl Hook {
    /// Whether a backend uses this hook.
    pub(crate) fn used_by(&self, backend: Backend, cgroup: bool) -> bool {
        match self.role {
            Role::Core => true,
            Role::Cgroup => backend != Backend::Lsm && cgroup,
            Role::LsmRecords | Role::LsmExtra => backend != Backend::Cgroup,
            Role::StandIn => true,
        }
    }

    /// Whether procid does not start without it.
    pub(crate) fn is_needed(&self, cgroup: bool) -> bool {
        self.required && (self.role != Role::LsmRecords || !cgroup)
    }

    /// Whether it is part of the LSM backend.
    pub(crate) const fn is_lsm(&self) -> bool {
        matches!(self.attach, Attach::Lsm(_))
    }

    pub(crate) fn program_type(&self) -> &'static str {
        match self.attach {
            Attach::Tracepoint(_) => "BPF_PROG_TYPE_TRACING",
            Attach::SyscallExit(_) => "BPF_PROG_TYPE_TRACEPOINT",
            Attach::CgroupSockAddr => "BPF_PROG_TYPE_CGROUP_SOCK_ADDR",
            Attach::CgroupSock => "BPF_PROG_TYPE_CGROUP_SOCK",
            Attach::CgroupSkb(_) => "BPF_PROG_TYPE_CGROUP_SKB",
            Attach::Return(_) => "BPF_PROG_TYPE_TRACING",
            Attach::Lsm(_) => "BPF_PROG_TYPE_LSM",
        }
    }

    /// Loads and attaches the hook's program.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(crate) fn attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        cgroup: Option<&File>,
    ) -> Result<(), Refusal> {
        self.try_attach(ebpf, btf, cgroup)
            .map_err(|error| Refusal::new(self, &error))
    }

    fn try_attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        cgroup: Option<&File>,
    ) -> Result<(), anyhow::Error> {
        let program = ebpf
            .program_mut(self.program)
            .ok_or_else(|| anyhow::anyhow!("the eBPF object has no program {}", self.program))?;
        let cgroup = || cgroup.ok_or_else(|| anyhow::anyhow!("there is no cgroup v2"));
        match self.attach {
            Attach::Tracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
            Attach::SyscallExit(name) => {
                let program: &mut TracePoint = program.try_into()?;
                program.load()?;
                program.attach("syscalls", name)?;
            }
            Attach::CgroupSockAddr => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                program.load()?;
                program.attach(cgroup()?, CgroupAttachMode::Single)?;
            }
            Attach::CgroupSock => {
                let program: &mut CgroupSock = program.try_into()?;
                program.load()?;
                program.attach(cgroup()?, CgroupAttachMode::Single)?;
            }
            Attach::CgroupSkb(direction) => {
                let program: &mut CgroupSkb = program.try_into()?;
                program.load()?;
                program.attach(cgroup()?, direction, CgroupAttachMode::Single)?;
            }
            Attach::Return(function) => {
                let program: &mut FExit = program.try_into()?;
                program.load(function, btf)?;
                program.attach()?;
            }
            Attach::Lsm(name) => {
                let program: &mut Lsm = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
        }
        Ok(())
    }
}

/// Why a hook is not attached.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// One line.
    pub(crate) reason: String,
    /// This kernel does not have the hook at all.
    pub(crate) absent: bool,
}

impl Refusal {
    fn new(hook: &Hook, error: &anyhow::Error) -> Self {
        let absent = match hook.attach {
            Attach::Tracepoint(_) | Attach::Lsm(_) | Attach::Return(_) => matches!(
                error.downcast_ref::<ProgramError>(),
                Some(ProgramError::Btf(BtfError::UnknownBtfTypeName { .. }))
            ),
            Attach::SyscallExit(name) => !tracefs_has("syscalls", name),
            _ => false,
        };
        Self {
            reason: if absent {
                format!(
                    "this kernel has no such hook; Linux has it since {}",
                    hook.since
                )
            } else {
                one_line(error)
            },
            absent,
        }
    }
}

/// The kernel's answer as one line: the last lines of a verifier log say what
/// it refused.
fn one_line(error: &anyhow::Error) -> String {
    if let Some(ProgramError::LoadError {
        io_error,
        verifier_log,
    }) = error.downcast_ref::<ProgramError>()
    {
        let log = verifier_log.to_string();
        let mut said = log.lines().rev().filter(|line| {
            let figures = ["processed ", "stack depth ", "verification time "];
            !line.trim().is_empty() && !figures.iter().any(|start| line.starts_with(start))
        });
        return match said.next() {
            Some(last) => format!("load: {io_error}: {}", last.trim()),
            None => format!("load: {io_error}"),
        };
    }
    let mut text = format!("{error:#}");
    if let Some(end) = text.find('\n') {
        text.truncate(end);
    }
    text
}

/// Where cgroup v2 is mounted: hybrid hosts have it beside the v1 controllers.
pub(crate) fn cgroup2_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        if back.split(' ').next()? != "cgroup2" {
            return None;
        }
        Some(PathBuf::from(unescape(front.split(' ').nth(4)?)))
    })
}

/// Id and depth of a cgroup below the root of its hierarchy. On 64-bit systems
/// the id is the number of the directory's inode.
///
/// # Errors
///
/// The directory cannot be looked at, or is not below the cgroup v2 mount.
pub(crate) fn cgroup_of(path: &Path, cgroup: &File) -> io::Result<(u64, u32)> {
    let root = cgroup2_root().ok_or_else(|| io::Error::other("no cgroup v2 is mounted"))?;
    let path = path.canonicalize()?;
    let below = path
        .strip_prefix(root.canonicalize()?)
        .map_err(io::Error::other)?;
    let level = u32::try_from(below.components().count()).map_err(io::Error::other)?;
    Ok((cgroup.metadata()?.ino(), level))
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        if byte == b'\\'
            && let Some(code) = rest
                .get(..3)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            out.push(code);
            bytes = &rest[3..];
        } else {
            out.push(byte);
            bytes = rest;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether the LSM list has `bpf`; `None` when securityfs is not mounted.
pub(crate) fn bpf_in_lsm_list() -> Option<bool> {
    let list = fs::read_to_string("/sys/kernel/security/lsm").ok()?;
    Some(list.trim().split(',').any(|name| name == "bpf"))
}

/// tracefs, where system call tracepoints are found.
pub(crate) fn tracefs_has(category: &str, name: &str) -> bool {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|root| {
            Path::new(root)
                .join("events")
                .join(category)
                .join(name)
                .join("id")
                .exists()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
    }

    #[test]
    fn every_backend_has_its_connect_hook() {
        for (backend, cgroup, hook) in [
            (Backend::Auto, true, "cgroup/connect4"),
            (Backend::Auto, false, "lsm/socket_connect"),
            (Backend::Cgroup, true, "cgroup/connect4"),
            (Backend::Lsm, false, "lsm/socket_connect"),
        ] {
            let used: Vec<_> = HOOKS
                .iter()
                .filter(|hook| hook.used_by(backend, cgroup))
                .map(|hook| hook.name)
                .collect();
            assert!(used.contains(&hook), "{backend:?}: {used:?}");
        }
    }
}
