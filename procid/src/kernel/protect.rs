//! `protect = true`: other processes, root's too, are kept from ending a running
//! agent and from what it holds.
//!
//! The programs are loaded with the others, while the agent may, and attached
//! when a policy asks for them; none of their links is pinned, so that they end
//! with the agent. What they guard is read from the agent itself: its
//! descriptors, its pins, and the directories that lead there.
//!
//! The way out is [`UNPROTECT`], and a reboot.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use aya::{
    Btf, Ebpf,
    maps::{Array, HashMap, MapData},
    programs::{Lsm, links::FdLink},
};
use procid_common::protect::{Guarded, Process, Protected, guarded};
use rustix::fs::{AtFlags, CWD, StatxFlags, fstatfs, statx};

use super::{
    AttachError, Kernel, hooks, iterate,
    iterators::iterator,
    pins::{self, Pins},
    policy::{raw, refused},
    take_map,
};
use crate::{decode::Event, policy::UNPROTECT};

/// Programs and their hooks, in the order of attaching: first those that keep
/// others from the links of the rest.
const PROGRAMS: [(&str, &str); 12] = [
    ("protect_links", "bpf"),
    ("protect_maps", "bpf_map"),
    ("protect_programs", "bpf_prog"),
    ("protect_pins", "inode_permission"),
    ("protect_names", "inode_rename"),
    ("protect_trace", "ptrace_access_check"),
    ("protect_kill", "task_kill"),
    ("protect_sigio", "file_send_sigiotask"),
    ("protect_limits", "task_setrlimit"),
    ("protect_mount", "sb_mount"),
    ("protect_move", "move_mount"),
    ("protect_umount", "sb_umount"),
];

const OBJECT_BYTES: usize = size_of::<Guarded>();
const PROTECTED_BYTES: usize = size_of::<Protected>();

/// The programs, and what they are told.
pub(super) struct Protection {
    protected: Array<MapData, [u8; PROTECTED_BYTES]>,
    guarded: HashMap<MapData, [u8; OBJECT_BYTES], u32>,
    /// Empty: nothing is protected.
    links: Vec<FdLink>,
}

/// Loads the programs; says why nothing can be protected here.
///
/// # Errors
///
/// One clause.
pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), String> {
    if is_off().map_err(|error| format!("/proc/cmdline cannot be read: {error}"))? {
        return Err(format!("the kernel was booted with {UNPROTECT}"));
    }
    for (program, hook) in PROGRAMS {
        let lacking = |why: &dyn std::fmt::Display| {
            format!("it needs BPF LSM, and lsm/{hook} was refused here ({why})")
        };
        let program = lsm(ebpf, program).map_err(|error| lacking(&error))?;
        program
            .load(hook, btf)
            .map_err(|error| lacking(&hooks::one_line(&error.into())))?;
    }
    Ok(())
}

/// Attaches them all for a moment, with nothing to guard.
///
/// # Errors
///
/// One clause.
pub(super) fn try_out(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), String> {
    load(ebpf, btf)?;
    attach(ebpf).map(drop).map_err(|error| error.to_string())
}

fn lsm<'a>(ebpf: &'a mut Ebpf, name: &str) -> io::Result<&'a mut Lsm> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| io::Error::other(format!("the eBPF object has no program {name}")))
}

fn attach(ebpf: &mut Ebpf) -> io::Result<Vec<FdLink>> {
    let attach = |(program, hook): (&str, &str)| {
        let attach = |program: &mut Lsm| {
            let id = program.attach()?;
            program.take_link(id)
        };
        let link = attach(lsm(ebpf, program)?)
            .map_err(|error| io::Error::other(format!("lsm/{hook}: {error}")))?;
        Ok(link.into())
    };
    PROGRAMS.into_iter().map(attach).collect()
}

impl Kernel {
    /// From now on, and as long as this process runs, others are kept from it,
    /// from its child `watchdog` and from what it has pinned.
    ///
    /// # Errors
    ///
    /// Why they are not, a clause.
    pub fn protect(&mut self, watchdog: Option<u32>) -> io::Result<()> {
        if let Some(why) = &self.report.unprotectable {
            return Err(io::Error::other(why.clone()));
        }
        if self.is_protected() {
            return Ok(());
        }
        let processes = iterate::rows(iterator(&self.ebpf, "iterate_tasks")?, iterate::Over::All)?;
        let process = |pid: u32| {
            let mut images = processes.iter().filter_map(|event| match event {
                Event::TaskRow(facts) => Some(facts.event.image.id),
                _ => None,
            });
            let id = images.find(|id| id.tgid == pid)?;
            Some(Process {
                start_boottime: id.start_boottime,
                tgid: id.tgid,
                reserved: 0,
            })
        };
        let agent = process(std::process::id())
            .ok_or_else(|| io::Error::other("the agent does not find itself"))?;
        let watchdog = watchdog.and_then(process);
        let pins = self.pins.as_ref();
        self.protection.begin(&mut self.ebpf, agent, watchdog, pins)
    }

    pub fn is_protected(&self) -> bool {
        !self.protection.links.is_empty()
    }
}

impl Protection {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        Ok(Self {
            protected: take_map(ebpf, "PROTECTED")?,
            guarded: take_map(ebpf, "GUARDED")?,
            links: Vec::new(),
        })
    }

    /// Protects this process, a watchdog and these pins from now on.
    ///
    /// # Errors
    ///
    /// The kernel's refusal: nothing is protected.
    fn begin(
        &mut self,
        ebpf: &mut Ebpf,
        agent: Process,
        watchdog: Option<Process>,
        pins: Option<&Pins>,
    ) -> io::Result<()> {
        let mut protected = Protected {
            agent,
            watchdog: watchdog.unwrap_or_default(),
            bpffs: 0,
            mntns: namespace("/proc/self/ns/mnt")?,
        };
        let mut objects = BTreeSet::new();
        if let Some(pins) = pins {
            protected.bpffs = device(pins.directory())?;
            objects.extend(of_pins(pins, protected.bpffs)?);
            objects.extend(way_to(pins.directory())?);
        }
        self.guard(&objects)?;
        self.tell(&protected)?;
        let held = attach(ebpf).and_then(|links| {
            self.links = links;
            // With the links that have just been made.
            self.guard(&held()?)
        });
        if held.is_err() {
            self.links.clear();
            self.tell(&Protected::default())?;
        }
        held
    }

    fn tell(&mut self, protected: &Protected) -> io::Result<()> {
        let done = self.protected.set(0, raw(protected)?, 0);
        done.map_err(refused)
    }

    fn guard(&mut self, objects: &BTreeSet<Guarded>) -> io::Result<()> {
        for object in objects {
            let done = self.guarded.insert(raw(object)?, 1, 0);
            done.map_err(refused)?;
        }
        Ok(())
    }
}

/// Whether the kernel's command line says so.
fn is_off() -> io::Result<bool> {
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h#L89>
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    let mut file = File::open("/proc/cmdline")?;
    // Not a file that somebody has put in its place.
    if u64::try_from(fstatfs(&file)?.f_type) != Ok(PROC_SUPER_MAGIC) {
        return Ok(false);
    }
    let mut line = String::new();
    file.read_to_string(&mut line)?;
    Ok(says_off(&line))
}

/// What comes behind `--` is for init.
fn says_off(line: &str) -> bool {
    let words = line.split_whitespace();
    words
        .take_while(|word| *word != "--")
        .any(|word| word == UNPROTECT)
}

/// Every BPF object that this process has a descriptor of: the kernel says of
/// each what it is.
///
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c#L3150>
fn held() -> io::Result<BTreeSet<Guarded>> {
    let mut objects = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        match fs::read_to_string(entry?.path()) {
            Ok(facts) => objects.extend(objects_in(&facts)),
            // The one of the directory itself, or another thread's.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(objects)
}

fn objects_in(facts: &str) -> impl Iterator<Item = Guarded> {
    facts.lines().filter_map(|line| {
        let (key, id) = line.split_once(':')?;
        let kind = match key {
            "map_id" => guarded::MAP,
            "prog_id" => guarded::PROGRAM,
            "link_id" => guarded::LINK,
            _ => return None,
        };
        Some(Guarded {
            number: id.trim().parse().ok()?,
            place: 0,
            kind,
        })
    })
}

/// The directories and pins of an agent, and the directory of them all.
fn of_pins(own: &Pins, device: u32) -> io::Result<Vec<Guarded>> {
    let object = |path: &Path, kind| {
        Ok(Guarded {
            number: fs::symlink_metadata(path)?.ino(),
            place: device,
            kind,
        })
    };
    let own = own.paths().into_iter();
    let own = own.map(|path| object(&path, guarded::CLOSED));
    let root = Path::new(pins::ROOT);
    own.chain([object(root, guarded::NAMED)]).collect()
}

/// The directories on the way to one, and the mounts that they are in.
fn way_to(path: &Path) -> io::Result<Vec<Guarded>> {
    let mut way = Vec::new();
    for directory in path.ancestors() {
        let wanted = StatxFlags::MNT_ID | StatxFlags::INO;
        let facts = statx(CWD, directory, AtFlags::empty(), wanted)?;
        if facts.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
            return Err(io::Error::other("this kernel does not number its mounts"));
        }
        way.push(Guarded {
            number: facts.stx_mnt_id,
            place: 0,
            kind: guarded::MOUNT,
        });
        way.push(Guarded {
            number: facts.stx_ino,
            place: u32::try_from(facts.stx_mnt_id).map_err(io::Error::other)?,
            kind: guarded::UNCOVERED,
        });
    }
    Ok(way)
}

fn device(path: &Path) -> io::Result<u32> {
    let facts = statx(CWD, path, AtFlags::empty(), StatxFlags::INO)?;
    Ok(facts.stx_dev_major << 20 | facts.stx_dev_minor)
}

fn namespace(path: &str) -> io::Result<u32> {
    u32::try_from(fs::metadata(path)?.ino()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_command_line_says_it_as_a_word_of_its_own() {
        for (line, is_off) in [
            ("quiet procid.protect=0\n", true),
            ("procid.protect=0", true),
            ("procid.protect=00", false),
            ("procid.protect=1 xprocid.protect=0", false),
            ("root=/dev/vda -- procid.protect=0", false),
            ("", false),
        ] {
            assert_eq!(says_off(line), is_off, "{line:?}");
        }
    }

    #[test]
    fn a_descriptor_says_what_it_is_of() {
        let of = |facts| Vec::from_iter(objects_in(facts));
        let object = |kind, number| Guarded {
            number,
            place: 0,
            kind,
        };
        assert_eq!(
            of("pos:\t0\nlink_type:\tlsm\nlink_id:\t7\nprog_tag:\tab12\nprog_id:\t9\n"),
            [object(guarded::LINK, 7), object(guarded::PROGRAM, 9)]
        );
        assert_eq!(
            of("flags:\t02\nmap_type:\t2\nmap_id:\t3\nowner_prog_id:\t5\n"),
            [object(guarded::MAP, 3)]
        );
        assert_eq!(of("pos:\t0\nprog_id:\tno number\n"), []);
    }
}
