//! What `procid doctor` tries: each thing by doing it.

use std::{io, path::PathBuf};

use aya::Btf;

use super::{
    BTF_PATH, Options,
    btf::KernelTypes,
    ensure_tracefs,
    hooks::{self, HOOKS, LENGTHS, Role},
    iterators::{CARRY_TAGS, COUNTS, ITERATORS, Iterator},
    kept_maps, load,
    pins::{self, Pins},
    protect,
};
use crate::{agent::settings::Backend, gate, identity::containers::hierarchy, policy::UNPROTECT};

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What was tried.
    pub what: String,
    /// `Ok`: the kernel's answer; `Err`: its refusal.
    pub result: Result<String, String>,
    /// What it gives, or what is lost without it.
    pub means: String,
    /// How to get it, where it was refused.
    pub remedy: Option<String>,
    /// procid cannot run without it.
    pub required: bool,
}

/// Tries what procid needs of this kernel, one thing at a time. Programs are
/// attached for a moment to an empty cgroup made for it.
pub fn probe(options: &Options) -> Vec<Probe> {
    let mut probes = vec![root(), btf()];
    let cgroup = TrialCgroup::new(options);
    probes.push(cgroup.probe());
    ensure_tracefs();
    probes.push(tracefs());
    if probes
        .iter()
        .any(|probe| probe.required && probe.result.is_err())
    {
        return probes;
    }
    let trial = Options {
        cgroup: cgroup.path.clone(),
        backend: Backend::Auto,
        args: options.args,
    };
    let objects = load(&trial, cgroup.file.as_ref())
        .map_err(|error| error.to_string())
        .and_then(|(ebpf, _)| {
            let btf = Btf::from_sys_fs().map_err(|error| error.to_string())?;
            Ok((ebpf, btf))
        });
    let (mut ebpf, btf) = match objects {
        Ok(both) => both,
        Err(reason) => {
            probes.push(Probe {
                what: "create procid's maps".to_owned(),
                result: Err(reason),
                means: "no program can be loaded".to_owned(),
                remedy: Some(
                    "run as root, outside a container that drops CAP_BPF, with kernel lockdown below `confidentiality`"
                        .to_owned(),
                ),
                required: true,
            });
            return probes;
        }
    };
    let mut lengths = 0;
    // Attached until all are.
    let mut links = Vec::new();
    for hook in HOOKS {
        if hook.role == Role::StandIn && lengths == LENGTHS.len() {
            continue; // nothing to stand in for
        }
        let result = hook.attach(&mut ebpf, &btf, cgroup.file.as_ref());
        if result.is_ok() && LENGTHS.contains(&hook.name) {
            lengths += 1;
        }
        let lsm = hook.is_lsm();
        probes.push(Probe {
            what: format!("load and attach {} ({})", hook.name, hook.program_type()),
            remedy: result.as_ref().err().map(|_| remedy(hook, lsm)),
            means: if result.is_ok() {
                hook.gives.to_owned()
            } else {
                format!("without it: {}", hook.without)
            },
            result: result
                .map(|link| {
                    links.push(link);
                    "attached".to_owned()
                })
                .map_err(|refusal| refusal.reason),
            required: hook.required && !lsm,
        });
    }
    let mut load = |iterator: &Iterator, without: Option<&str>| {
        let result = iterator.load(&mut ebpf, &btf);
        Probe {
            what: format!("load iter/{} ({})", iterator.target, iterator.program),
            means: match without {
                Some(without) if result.is_err() => format!("without it: {without}"),
                _ => iterator.gives.to_owned(),
            },
            result: result
                .map(|()| "loaded".to_owned())
                .map_err(|error| error.root_cause().to_string()),
            remedy: None,
            required: without.is_none(),
        }
    };
    probes.extend(ITERATORS.iter().map(|iterator| load(iterator, None)));
    let [of_tags, of_held] = &COUNTS;
    probes.push(load(
        of_tags,
        Some("the sockets that a process holds are looked through instead"),
    ));
    probes.push(load(of_held, None));
    probes.push(load(
        &CARRY_TAGS,
        Some("the tags of sockets that a process holds are taken over one by one"),
    ));
    pins::ensure_bpffs();
    let pinned = kept_maps(&ebpf)
        .map_err(io::Error::other)
        .and_then(|maps| Pins::make(0, &maps))
        .map(|pins| pins.remove());
    probes.push(Probe {
        what: format!("pin to {}", pins::ROOT),
        means: if pinned.is_ok() {
            "a policy outlives an agent that is killed".to_owned()
        } else {
            "without it: a policy ends with its agent".to_owned()
        },
        remedy: pinned
            .is_err()
            .then(|| "mount -t bpf bpf /sys/fs/bpf, writable for root".to_owned()),
        result: pinned
            .map(|()| "pinned".to_owned())
            .map_err(|error| error.to_string()),
        required: false,
    });
    probes.push(exec_gate());
    probes.push(protection(protect::try_out(&mut ebpf, &btf)));
    probes
}

fn protection(result: Result<(), String>) -> Probe {
    Probe {
        what: "keep other processes from the agent (protect = true)".to_owned(),
        means: if result.is_ok() {
            "root's too cannot end, trace or unpin a protected agent".to_owned()
        } else {
            "without it: a policy's `protect` does nothing".to_owned()
        },
        remedy: Some(format!(
            "BPF LSM, as above, and a kernel booted without {}",
            UNPROTECT
        )),
        result: result.map(|()| "attached".to_owned()),
        required: false,
    }
}

fn exec_gate() -> Probe {
    let result = gate::probe();
    Probe {
        what: "hold executions up (fanotify, FAN_OPEN_EXEC_PERM)".to_owned(),
        means: if result.is_ok() {
            "where IMA does not hash inside exec: a file's hash is known before it runs"
        } else {
            "without it, and without IMA: a program never seen before is judged by unknown_hash"
        }
        .to_owned(),
        remedy: result.is_err().then(|| {
            "a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS, and CAP_SYS_ADMIN".to_owned()
        }),
        result: result
            .map(|()| "allowed".to_owned())
            .map_err(|error| error.to_string()),
        required: false,
    }
}

fn remedy(hook: &hooks::Hook, lsm: bool) -> String {
    if !lsm {
        return format!("a kernel from {} on", hook.since);
    }
    match hooks::bpf_in_lsm_list() {
        Some(true) => format!(
            "`bpf` is in the LSM list, so it is the load or attach that is refused here: a kernel from {} on with CONFIG_BPF_LSM, IMA and trampolines, outside a restricted sandbox",
            hook.since
        ),
        Some(false) => format!(
            "boot with `lsm=…,bpf` and a kernel from {} on with CONFIG_BPF_LSM",
            hook.since
        ),
        None => "mount securityfs on /sys/kernel/security to see the LSM list, then boot with `lsm=…,bpf`"
            .to_owned(),
    }
}

fn root() -> Probe {
    Probe {
        what: "be root".to_owned(),
        result: if rustix::process::geteuid().is_root() {
            Ok("uid 0".to_owned())
        } else {
            Err(format!("uid {}", rustix::process::geteuid().as_raw()))
        },
        means: "programs can be loaded, and every process can be looked at".to_owned(),
        remedy: Some("run it with sudo".to_owned()),
        required: true,
    }
}

fn btf() -> Probe {
    Probe {
        what: format!("read {BTF_PATH} and find every kernel field procid uses"),
        result: std::fs::read(BTF_PATH)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                KernelTypes::parse(&bytes)
                    .and_then(|types| types.offsets())
                    .map_err(|error| error.to_string())
            })
            .map(|_| "all found".to_owned()),
        means: "the programs know where this kernel keeps what".to_owned(),
        remedy: Some("a kernel built with CONFIG_DEBUG_INFO_BTF".to_owned()),
        required: true,
    }
}

fn tracefs() -> Probe {
    Probe {
        what: "find syscalls/sys_exit_connect in tracefs".to_owned(),
        result: if hooks::tracefs_has("syscalls", "sys_exit_connect") {
            Ok("found".to_owned())
        } else {
            Err("not there".to_owned())
        },
        means: "error codes of connects that fail before a packet is sent".to_owned(),
        remedy: Some(
            "mount -t tracefs tracefs /sys/kernel/tracing; a kernel with CONFIG_FTRACE_SYSCALLS"
                .to_owned(),
        ),
        required: false,
    }
}

/// An empty cgroup below the one asked for, so that trying disturbs nobody.
struct TrialCgroup {
    path: Option<PathBuf>,
    file: Option<std::fs::File>,
    answer: Result<String, String>,
}

impl TrialCgroup {
    fn new(options: &Options) -> Self {
        let Some(root) = options.cgroup.clone().or_else(hierarchy) else {
            return Self {
                path: None,
                file: None,
                answer: Err("no cgroup v2 hierarchy is mounted".to_owned()),
            };
        };
        let path = root.join(format!("procid-doctor-{}", std::process::id()));
        let opened = std::fs::create_dir(&path).and_then(|()| std::fs::File::open(&path));
        match opened {
            Ok(file) => Self {
                path: Some(path),
                file: Some(file),
                answer: Ok(format!("cgroup v2 at {}", root.display())),
            },
            Err(error) => Self {
                path: None,
                file: None,
                answer: Err(format!("{}: {error}", path.display())),
            },
        }
    }

    fn probe(&self) -> Probe {
        Probe {
            what: "find cgroup v2 and make a cgroup in it".to_owned(),
            result: self.answer.clone(),
            means: "the cgroup backend".to_owned(),
            remedy: Some("mount -t cgroup2 none /sys/fs/cgroup/unified".to_owned()),
            required: false,
        }
    }
}

impl Drop for TrialCgroup {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_dir(path);
        }
    }
}
