//! Programs that do nothing, on the hooks that the agent attaches: what the
//! hooks themselves cost, whoever uses them.
//!
//! Which hooks those are, the agent says itself (`procid status`), so that the
//! two never differ, whatever the kernel. Each program is two instructions.

use std::{
    fs::{self, File},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya_obj::btf::{Btf, BtfKind};

use super::{
    agent::Agent,
    bpf::{self, Program},
    cgroup::Cgroup,
    proc::{self, ProgramTime},
};

/// Where the kernel describes its tracepoints.
const TRACEPOINTS: [&str; 2] = [
    "/sys/kernel/tracing/events",
    "/sys/kernel/debug/tracing/events",
];

/// How a program gets to its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The cgroup, by its attach type.
    Cgroup,
    /// What its type says: a BTF tracepoint, a kernel function, an LSM hook.
    Typed,
    /// A tracepoint of tracefs, by its number.
    Tracepoint(u64),
}

/// A hook as `procid status` names it, and what the kernel is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hook {
    name: String,
    program: Program,
    place: Place,
}

/// The hooks of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Hooks(Vec<Hook>);

impl Hooks {
    /// Those that an agent attaches on this kernel.
    ///
    /// # Errors
    ///
    /// It does not start, or names a hook that is not known here.
    pub(crate) fn of_agent(procid: &Path, cgroup: &Cgroup) -> Result<Self> {
        let agent = Agent::start(procid, cgroup)?;
        let status = agent.status()?;
        agent.stop()?;
        let types = Btf::from_sys_fs().context("cannot read the kernel's types")?;
        let hooks = status.hooks.iter().map(|name| {
            Hook::named(name, &types).with_context(|| format!("no empty program for {name}"))
        });
        Ok(Self(hooks.collect::<Result<_>>()?))
    }

    /// # Errors
    ///
    /// The kernel's refusal.
    pub(crate) fn attach(&self, cgroup: &Cgroup) -> Result<Empty> {
        let directory = File::open(cgroup.path())?;
        let attached = self.0.iter().map(|hook| {
            let attached = hook.attach(&directory);
            attached.with_context(|| format!("the empty program on {}", hook.name))
        });
        Ok(Empty(attached.collect::<Result<_>>()?))
    }
}

impl Hook {
    fn named(name: &str, types: &Btf) -> Result<Self> {
        let (family, hook) = name.split_once('/').context("no family in its name")?;
        let id = |prefix: &str, kind| {
            let name = format!("{prefix}{hook}");
            types
                .id_by_type_name_kind(&name, kind)
                .with_context(|| format!("the kernel has no {name}"))
        };
        let (kind, attach_type, answer) = match (family, hook) {
            ("tp_btf", _) => (bpf::TRACING, bpf::TRACE_RAW_TP, 0),
            ("fexit", _) => (bpf::TRACING, bpf::TRACE_FEXIT, 0),
            ("lsm" | "lsm.s", _) => (bpf::LSM, bpf::LSM_MAC, 0),
            ("tracepoint", _) => (bpf::TRACEPOINT, 0, 0),
            ("cgroup", "sock_create") => (bpf::CGROUP_SOCK, bpf::INET_SOCK_CREATE, 1),
            ("cgroup", "sock_release") => (bpf::CGROUP_SOCK, bpf::INET_SOCK_RELEASE, 1),
            ("cgroup", "connect4") => (bpf::CGROUP_SOCK_ADDR, bpf::INET4_CONNECT, 1),
            ("cgroup", "connect6") => (bpf::CGROUP_SOCK_ADDR, bpf::INET6_CONNECT, 1),
            ("cgroup", "sendmsg4") => (bpf::CGROUP_SOCK_ADDR, bpf::UDP4_SENDMSG, 1),
            ("cgroup", "sendmsg6") => (bpf::CGROUP_SOCK_ADDR, bpf::UDP6_SENDMSG, 1),
            ("cgroup", "recvmsg4") => (bpf::CGROUP_SOCK_ADDR, bpf::UDP4_RECVMSG, 1),
            ("cgroup", "recvmsg6") => (bpf::CGROUP_SOCK_ADDR, bpf::UDP6_RECVMSG, 1),
            ("cgroup_skb", "ingress") => (bpf::CGROUP_SKB, bpf::INET_INGRESS, 1),
            ("cgroup_skb", "egress") => (bpf::CGROUP_SKB, bpf::INET_EGRESS, 1),
            _ => bail!("not a hook that is known here"),
        };
        let type_id = match family {
            "tp_btf" => id("btf_trace_", BtfKind::Typedef)?,
            "fexit" => id("", BtfKind::Func)?,
            "lsm" | "lsm.s" => id("bpf_lsm_", BtfKind::Func)?,
            _ => 0,
        };
        let place = match family {
            "tracepoint" => Place::Tracepoint(tracepoint(hook)?),
            "cgroup" | "cgroup_skb" => Place::Cgroup,
            _ => Place::Typed,
        };
        Ok(Self {
            name: name.to_owned(),
            program: Program {
                kind,
                attach_type,
                type_id,
                sleeps: family == "lsm.s",
                answer,
            },
            place,
        })
    }

    fn attach(&self, cgroup: &File) -> Result<Attached> {
        let program = bpf::load(&self.program).context("is not loaded")?;
        let (link, event) = match self.place {
            Place::Cgroup => {
                let attach_type = self.program.attach_type;
                (
                    bpf::link(program.as_fd(), cgroup.as_fd(), attach_type)?,
                    None,
                )
            }
            Place::Typed => (bpf::attach_typed(program.as_fd())?, None),
            Place::Tracepoint(number) => {
                let event = bpf::tracepoint_event(number)?;
                let link = bpf::link(program.as_fd(), event.as_fd(), bpf::PERF_EVENT)?;
                (link, Some(event))
            }
        };
        Ok(Attached {
            hook: self.name.clone(),
            program,
            _link: link,
            _event: event,
        })
    }
}

/// The number of a tracepoint; names are unique over their families.
fn tracepoint(name: &str) -> Result<u64> {
    for family in TRACEPOINTS.iter().flat_map(fs::read_dir).flatten() {
        if let Ok(number) = fs::read_to_string(family?.path().join(name).join("id")) {
            return Ok(number.trim().parse()?);
        }
    }
    bail!("tracefs has no {name}")
}

#[derive(Debug)]
struct Attached {
    hook: String,
    program: OwnedFd,
    _link: OwnedFd,
    _event: Option<OwnedFd>,
}

/// Attached programs that do nothing; detached when dropped.
#[derive(Debug)]
pub(crate) struct Empty(Vec<Attached>);

impl Empty {
    /// Their run times, by hook, while the kernel takes them.
    ///
    /// # Errors
    ///
    /// /proc is not mounted.
    pub(crate) fn times(&self) -> Result<Vec<(String, ProgramTime)>> {
        let time = |one: &Attached| {
            let time = proc::own_program(one.program.as_raw_fd())?;
            Ok((one.hook.clone(), time))
        };
        self.0.iter().map(time).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_s_name_says_what_is_attached_where() {
        let types = Btf::new();
        let hook = Hook::named("cgroup/connect4", &types).unwrap();
        assert_eq!(hook.place, Place::Cgroup);
        assert_eq!(
            (hook.program.kind, hook.program.attach_type),
            (bpf::CGROUP_SOCK_ADDR, bpf::INET4_CONNECT)
        );
        // A cgroup's 0 is a refusal.
        assert_eq!(hook.program.answer, 1);
        for unknown in ["connect4", "cgroup/connect5", "tp_btf/of_no_kernel"] {
            Hook::named(unknown, &types).unwrap_err();
        }
    }
}
