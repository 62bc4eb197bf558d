//! Hooks: what they are, how they are attached, why they are refused.
//!
//! | module | holds |
//! | --- | --- |
//! | [`table`] | every hook procid can use, in one table |

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use aya::{
    Btf, BtfError, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock,
        CgroupSockAddr, FExit, Lsm, Program, ProgramError, TracePoint,
        links::{FdLink, LinkError},
    },
    util::KernelVersion,
};

use crate::{agent::settings::Backend, identity::containers::hierarchy};

mod table;

pub(crate) use table::{HOOKS, LENGTHS, LSM_SENDS, WITHHOLD};

/// How a program is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attach {
    /// BTF-typed tracepoint.
    Tracepoint(&'static str),
    /// Category and name of a tracepoint, through tracefs.
    Tracefs(&'static str, &'static str),
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
    /// What the cgroup backend does where no LSM hook judges sends.
    Withhold,
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

impl Hook {
    /// Whether a backend uses this hook.
    pub(crate) fn used_by(&self, backend: Backend, cgroup: bool) -> bool {
        match self.role {
            Role::Core => true,
            Role::Cgroup | Role::Withhold => backend != Backend::Lsm && cgroup,
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
            Attach::Tracefs(..) => "BPF_PROG_TYPE_TRACEPOINT",
            Attach::CgroupSockAddr => "BPF_PROG_TYPE_CGROUP_SOCK_ADDR",
            Attach::CgroupSock => "BPF_PROG_TYPE_CGROUP_SOCK",
            Attach::CgroupSkb(_) => "BPF_PROG_TYPE_CGROUP_SKB",
            Attach::Return(_) => "BPF_PROG_TYPE_TRACING",
            Attach::Lsm(_) => "BPF_PROG_TYPE_LSM",
        }
    }

    /// Loads the hook's program, unless it is loaded.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(crate) fn load(&self, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), Refusal> {
        self.try_load(ebpf, btf)
            .map_err(|error| Refusal::new(self, &error))
    }

    /// Attaches the hook's program, and loads it where it is not loaded. `None`:
    /// the program holds its link itself, because this kernel cannot pin it.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(crate) fn attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        cgroup: Option<&File>,
    ) -> Result<Option<FdLink>, Refusal> {
        self.try_load(ebpf, btf)
            .and_then(|()| self.try_attach(ebpf, cgroup))
            .map_err(|error| Refusal::new(self, &error))
    }

    fn program_in<'a>(&self, ebpf: &'a mut Ebpf) -> Result<&'a mut Program, anyhow::Error> {
        ebpf.program_mut(self.program)
            .ok_or_else(|| anyhow::anyhow!("the eBPF object has no program {}", self.program))
    }

    fn try_load(&self, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), anyhow::Error> {
        let program = self.program_in(ebpf)?;
        if program.fd().is_ok() {
            return Ok(());
        }
        match self.attach {
            Attach::Tracepoint(name) => {
                <&mut BtfTracePoint>::try_from(program)?.load(name, btf)?;
            }
            Attach::Tracefs(..) => <&mut TracePoint>::try_from(program)?.load()?,
            Attach::CgroupSockAddr => <&mut CgroupSockAddr>::try_from(program)?.load()?,
            Attach::CgroupSock => <&mut CgroupSock>::try_from(program)?.load()?,
            Attach::CgroupSkb(_) => <&mut CgroupSkb>::try_from(program)?.load()?,
            Attach::Return(function) => <&mut FExit>::try_from(program)?.load(function, btf)?,
            Attach::Lsm(name) => <&mut Lsm>::try_from(program)?.load(name, btf)?,
        }
        Ok(())
    }

    fn try_attach(
        &self,
        ebpf: &mut Ebpf,
        cgroup: Option<&File>,
    ) -> Result<Option<FdLink>, anyhow::Error> {
        let program = self.program_in(ebpf)?;
        let cgroup = || cgroup.ok_or_else(|| anyhow::anyhow!("there is no cgroup v2"));
        let link = match self.attach {
            Attach::Tracepoint(_) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            Attach::Tracefs(category, name) => {
                let program: &mut TracePoint = program.try_into()?;
                let id = program.attach(category, name)?;
                // https://github.com/torvalds/linux/commit/b89fbfbb854c
                if KernelVersion::current()? < KernelVersion::new(5, 15, 0) {
                    return Ok(None);
                }
                owned(program.take_link(id)?)?
            }
            Attach::CgroupSockAddr => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                let id = program.attach(cgroup()?, CgroupAttachMode::Single)?;
                owned(program.take_link(id)?)?
            }
            Attach::CgroupSock => {
                let program: &mut CgroupSock = program.try_into()?;
                let id = program.attach(cgroup()?, CgroupAttachMode::Single)?;
                owned(program.take_link(id)?)?
            }
            Attach::CgroupSkb(direction) => {
                let program: &mut CgroupSkb = program.try_into()?;
                let id = program.attach(cgroup()?, direction, CgroupAttachMode::Single)?;
                owned(program.take_link(id)?)?
            }
            Attach::Return(_) => {
                let program: &mut FExit = program.try_into()?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            Attach::Lsm(_) => {
                let program: &mut Lsm = program.try_into()?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
        };
        Ok(Some(link))
    }
}

fn owned<L>(link: L) -> Result<FdLink, LinkError>
where
    FdLink: TryFrom<L, Error = LinkError>,
{
    FdLink::try_from(link)
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
            Attach::Tracefs(category, name) => !tracefs_has(category, name),
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
pub(crate) fn one_line(error: &anyhow::Error) -> String {
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

/// Id and depth of a cgroup below the root of its hierarchy. On 64-bit systems
/// the id is the number of the directory's inode.
///
/// # Errors
///
/// The directory cannot be looked at, or is not below the cgroup v2 mount.
pub(crate) fn cgroup_of(path: &Path, cgroup: &File) -> io::Result<(u64, u32)> {
    let root = hierarchy().ok_or_else(|| io::Error::other("no cgroup v2 is mounted"))?;
    let path = path.canonicalize()?;
    let below = path
        .strip_prefix(root.canonicalize()?)
        .map_err(io::Error::other)?;
    let level = u32::try_from(below.components().count()).map_err(io::Error::other)?;
    Ok((cgroup.metadata()?.ino(), level))
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
