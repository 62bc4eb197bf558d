//! The only room that speaks to the kernel's BPF side: loads, attaches, reads.
//!
//! | module | holds |
//! | --- | --- |
//! | [`hooks`] | every hook procid can use, in one table |
//! | [`btf`] | offsets of kernel fields |
//! | [`carry`] | the tags of an ended agent, where no iterator has them |
//! | [`cgroups`] | cgroups by their ids |
//! | [`heap`] | memory that was needed to begin |
//! | [`iterators`] | what each iterator is for |
//! | [`iterate`] | the snapshot, and the inode behind a descriptor |
//! | [`asked`] | decisions asked for without an act |
//! | [`known`] | files whose hash is known |
//! | [`losses`] | what the kernel side lost |
//! | [`accounts`] | the programs' accounts of datagram destinations |
//! | [`uncovered`] | ways out that nothing attached here sees |
//! | [`lineage`] | which rules the images before others satisfy |
//! | [`policy`] | the policy's tables, and what the programs know of hashes |
//! | [`protect`] | what keeps others from a protected agent |
//! | [`pins`] | what keeps a policy enforced when the agent is killed |
//! | [`takeover`] | what is taken over from an agent that was killed |
//! | [`ring`] | the reading ends of the ring buffers |
//! | [`probe`] | what `procid doctor` tries |

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::links::FdLink,
    util::KernelVersion,
};
use aya_log::EbpfLogger;
use procid_common::image::{ImageId, flags};
use rustix::time::{ClockId, clock_gettime};
use zerocopy::IntoBytes as _;

use crate::{
    agent::{
        handle::HookStatus,
        settings::{Args, Backend},
    },
    connections::Accounts,
    decode::Event,
    identity::{
        containers::{Cgroups, hierarchy},
        hash::Inspect,
    },
    records::Uncovered,
};
use btf::KernelTypes;
use cgroups::{HostCgroups, NoCgroups};
use hooks::{HOOKS, Hook, LENGTHS, LSM_SENDS, Role, WITHHOLD};
use iterators::{COUNTS, ITERATORS, iterator};
use losses::Losses;
use pins::Pins;
use policy::{Earlier, ImageHashes};
use protect::Protection;
use uncovered::Sight;

mod accounts;
mod asked;
pub mod btf;
mod carry;
mod cgroups;
pub mod heap;
mod hooks;
mod iterate;
mod iterators;
mod known;
mod lineage;
mod losses;
mod pins;
mod policy;
mod probe;
mod protect;
mod ring;
mod takeover;
mod uncovered;

pub use known::KnownFiles;
pub use pins::{Unloaded, unload};
pub use policy::Policies;
pub use probe::{Probe, probe};
pub use ring::Ring;

/// The eBPF object, built from `procid-ebpf` by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/procid-ebpf"));

/// Bits of the programs' `SETTINGS`.
const SETTING_ARGS: u32 = 1 << 0;
const SETTING_SYS_EXIT: u32 = 1 << 1;
const SETTING_LSM_RECORDS: u32 = 1 << 2;

/// What to attach.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cgroup v2 directory to attach to; `None`: the root.
    pub cgroup: Option<PathBuf>,
    pub backend: Backend,
    pub args: Args,
}

/// Links by the names of their programs.
type Links = Vec<(&'static str, FdLink)>;

/// Attached programs; dropping it detaches them all, but for those that are
/// pinned.
pub struct Kernel {
    ebpf: Ebpf,
    links: Links,
    /// Maps that a later agent reads, by their names.
    kept_maps: Vec<(&'static str, OwnedFd)>,
    /// Id of the cgroup that is watched; 0: the root.
    cgroup: u64,
    pins: Option<Pins>,
    /// What an earlier agent enforced; until the policies are taken.
    earlier: Earlier,
    report: Report,
    args: Args,
    clock: Array<MapData, u64>,
    losses: Losses,
    known_files: KnownFiles,
    inspector: Arc<iterate::Inspector>,
    /// The map of tags, where an iterator goes over it; else one over descriptors
    /// stands in.
    counts_of: Option<OwnedFd>,
    image_hashes: ImageHashes,
    protection: Protection,
    /// What the programs log of their own failures.
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// What was attached.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `cgroup`, `lsm` or `lsm+cgroup`.
    pub backend: String,
    pub hooks: Vec<HookStatus>,
    pub uncovered: Vec<Uncovered>,
    /// The bytes, errors and users of sends and receives are seen.
    pub lengths: bool,
    /// What denied speakers write to TCP connections is dropped.
    pub withholds: bool,
    /// The kernel hashes files inside exec.
    pub hashes: bool,
    /// Why an agent cannot be protected here, a clause; `None`: it can.
    pub unprotectable: Option<String>,
}

/// Why nothing could be attached: one sentence with its remedy.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AttachError(pub String);

impl AttachError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The cgroup backend's place is missing.
const NO_CGROUP2: &str =
    "no cgroup v2 hierarchy is mounted (remedy: mount -t cgroup2 none /sys/fs/cgroup)";

/// Where the kernel describes its types.
const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

impl Kernel {
    /// Loads the programs and attaches every hook that this kernel allows.
    ///
    /// # Errors
    ///
    /// One sentence: no permission, no BTF, no cgroup v2, a missing field, a
    /// required hook that the kernel refuses.
    pub fn attach(options: &Options) -> Result<Self, AttachError> {
        if !rustix::process::geteuid().is_root() {
            return Err(AttachError::new(
                "loading eBPF programs needs root: run it with sudo",
            ));
        }
        let cgroup = open_cgroup(options)?;
        let (mut ebpf, watched) = load(options, cgroup.as_ref())?;
        let btf = Btf::from_sys_fs().map_err(|error| {
            AttachError::new(format!("the kernel's BTF in {BTF_PATH}: {error}"))
        })?;
        // All is loaded before the first hook is attached: what comes between the
        // hooks and the snapshot is held back meanwhile.
        for iterator in &ITERATORS {
            iterator.load(&mut ebpf, &btf).map_err(|error| {
                let name = iterator.program;
                AttachError::new(format!("the {name} iterator was refused: {error:#}"))
            })?;
        }
        let unprotectable = match options.backend {
            Backend::Cgroup => Some("it needs BPF LSM, and the backend is cgroup".to_owned()),
            Backend::Auto | Backend::Lsm => protect::load(&mut ebpf, &btf).err(),
        };
        let (mut report, links) = attach_hooks(&mut ebpf, &btf, options, cgroup.as_ref())?;
        report.unprotectable = unprotectable;
        let [of_tags, of_held] = &COUNTS;
        let counts_tags = of_tags.load(&mut ebpf, &btf).is_ok();
        if !counts_tags {
            of_held.load(&mut ebpf, &btf).map_err(|error| {
                AttachError::new(format!(
                    "both iterators over sockets were refused: {error:#}"
                ))
            })?;
            report.uncovered.extend(uncovered::without_tag_iterator());
        }
        pins::ensure_bpffs();
        let earlier = takeover::take_over(&mut ebpf, &btf, watched);
        let logger = EbpfLogger::init(&mut ebpf)
            .map_err(|error| tracing::warn!(%error, "the programs' own log is not read"))
            .ok();
        let inspector = iterator(&ebpf, "iterate_files")
            .and_then(|fd| fd.try_clone_to_owned())
            .map_err(|error| AttachError::new(format!("the file iterator: {error}")))?;
        let mut kernel = Self {
            kept_maps: kept_maps(&ebpf)?,
            links,
            cgroup: watched,
            pins: None,
            earlier,
            clock: take_map(&mut ebpf, "CLOCK")?,
            losses: Losses::take(&mut ebpf)?,
            known_files: KnownFiles::take(&mut ebpf)?,
            inspector: Arc::new(iterate::Inspector::new(inspector)),
            counts_of: counts_tags.then(|| map_fd(&ebpf, "TAGS")).transpose()?,
            image_hashes: ImageHashes::take(&mut ebpf)?,
            protection: Protection::take(&mut ebpf)?,
            report,
            args: options.args,
            logger,
            ebpf,
        };
        kernel.set_clock();
        Ok(kernel)
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The reading end of the ring of events; can be taken once.
    pub fn take_ring(&mut self) -> Option<Ring> {
        self.ring("EVENTS")
    }

    /// That of the ring of denied acts; can be taken once.
    pub fn take_denials(&mut self) -> Option<Ring> {
        self.ring("DENIALS")
    }

    /// That of the ring of DNS answers; can be taken once.
    pub fn take_answers(&mut self) -> Option<Ring> {
        self.ring("ANSWERS")
    }

    fn ring(&mut self, name: &str) -> Option<Ring> {
        Ring::new(self.ebpf.take_map(name)?).ok()
    }

    /// The policy's tables; can be taken once.
    ///
    /// # Errors
    ///
    /// The eBPF object has no such maps.
    pub fn take_policies(&mut self) -> Result<Policies, AttachError> {
        Policies::take(&mut self.ebpf, std::mem::take(&mut self.earlier))
    }

    /// From now on the programs stay attached when this process is killed.
    ///
    /// # Errors
    ///
    /// The kernel's refusal: they end with this process.
    pub fn pin(&mut self) -> io::Result<()> {
        if self.pins.is_some() {
            return Ok(());
        }
        let mut pins = Pins::make(self.cgroup, &self.kept_maps)?;
        let mut done = Ok(());
        let links = std::mem::take(&mut self.links).into_iter();
        self.links = links
            .filter_map(|(name, link)| match pins.add(name, link) {
                Ok(link) => Some((name, link)),
                Err(error) => {
                    let error = format!("{name} is detached: it cannot be pinned: {error}");
                    done = Err(io::Error::other(error));
                    None
                }
            })
            .collect();
        self.pins = Some(pins);
        done
    }

    /// From now on they do not.
    pub fn unpin(&mut self) {
        if let Some(pins) = self.pins.take() {
            pins.remove();
        }
    }

    /// Removes the programs of earlier agents, which this one's stand in for.
    ///
    /// # Errors
    ///
    /// What cannot be read or removed: they go on enforcing.
    pub fn supersede(&self) -> io::Result<()> {
        let found = pins::find(Some(self.cgroup))?;
        found.left.into_iter().try_for_each(pins::Left::remove)
    }

    /// What is not well with pins, a sentence each: this agent's have changed,
    /// or others enforce beside it.
    pub fn pins_wrong(&self) -> Vec<String> {
        let mut wrong = self.pins.as_ref().map(Pins::wrong).unwrap_or_default();
        match pins::find(Some(self.cgroup)) {
            Ok(found) => {
                wrong.extend(found.left.iter().map(|left| {
                    format!(
                        "an agent that has ended still enforces its policy ({left}); 'procid \
                         unload' ends that, and a policy of this agent's does"
                    )
                }));
                wrong.extend(
                    found
                        .strange
                        .iter()
                        .map(|path| format!("{} is not of procid's making", path.display())),
                );
            }
            Err(error) => wrong.push(format!("{} cannot be read: {error}", pins::ROOT)),
        }
        wrong
    }

    /// Tells the programs the hash of the file that a live image was run from.
    pub fn is_hashed(&mut self, image: &ImageId, sha256: [u8; 32]) {
        self.image_hashes.insert(image, sha256);
    }

    /// An image has ended: the programs may have been told of it after that.
    pub fn has_ended(&mut self, image: &ImageId) {
        self.image_hashes.remove(image);
    }

    /// Processes and sockets that exist now: `TaskRow` and `SocketRow` events.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn snapshot(&self) -> io::Result<Vec<Event>> {
        let mut events = iterate::rows(iterator(&self.ebpf, "iterate_tasks")?, iterate::Over::All)?;
        if self.args == Args::Full {
            for event in &mut events {
                add_args(event);
            }
        }
        events.extend(iterate::rows(
            iterator(&self.ebpf, "iterate_sockets")?,
            iterate::Over::All,
        )?);
        Ok(events)
    }

    /// What every tagged socket has sent and received so far: `CountsRow` events,
    /// where an iterator over descriptors stands in several of one socket.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn counts(&self) -> io::Result<Vec<Event>> {
        let [of_tags, of_held] = &COUNTS;
        let (which, over) = match &self.counts_of {
            Some(tags) => (of_tags, iterate::Over::Map(tags.as_fd())),
            None => (of_held, iterate::Over::All),
        };
        iterate::rows(iterator(&self.ebpf, which.program)?, over)
    }

    /// The programs' accounts of datagram destinations; can be taken once.
    ///
    /// # Errors
    ///
    /// The eBPF object has no such maps.
    pub fn take_accounts(&mut self) -> Result<Box<dyn Accounts>, AttachError> {
        Ok(Box::new(accounts::Maps {
            destinations: take_map(&mut self.ebpf, "DESTINATIONS")?,
            scans: take_map(&mut self.ebpf, "SCANS")?,
            counts: self.report.lengths,
        }))
    }

    /// Events lost by the kernel side so far, by cause.
    pub fn losses(&self) -> BTreeMap<&'static str, u64> {
        self.losses.so_far(&self.ebpf)
    }

    /// Tells the programs how far the wall clock is from boot time, and passes
    /// on what they logged; to be called every second or so.
    pub fn tend(&mut self) {
        self.set_clock();
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Files whose hash the programs are told.
    pub fn known_files(&self) -> &KnownFiles {
        &self.known_files
    }

    fn set_clock(&mut self) {
        let nanoseconds = |clock| {
            let time = clock_gettime(clock);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        let offset = nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Boottime);
        if let Err(error) = self.clock.set(0, u64::try_from(offset).unwrap_or(0), 0) {
            tracing::warn!(%error, "the programs' clock could not be set");
        }
    }

    /// The host's cgroups.
    pub fn cgroups() -> Box<dyn Cgroups> {
        match HostCgroups::open() {
            Ok(cgroups) => Box::new(cgroups),
            Err(error) => {
                tracing::debug!(%error, "cgroups cannot be looked at");
                Box::new(NoCgroups)
            }
        }
    }

    pub fn inspector(&self) -> Arc<dyn Inspect> {
        Arc::<iterate::Inspector>::clone(&self.inspector)
    }
}

fn open_cgroup(options: &Options) -> Result<Option<File>, AttachError> {
    let path = match (&options.cgroup, options.backend) {
        (_, Backend::Lsm) => return Ok(None),
        (Some(path), _) => path.clone(),
        (None, backend) => match hierarchy() {
            Some(path) => path,
            None if backend == Backend::Cgroup => {
                return Err(AttachError::new(NO_CGROUP2));
            }
            None => return Ok(None),
        },
    };
    let at = path.display();
    let file = File::open(&path)
        .map_err(|error| AttachError::new(format!("the cgroup directory {at}: {error}")))?;
    let kind = rustix::fs::fstatfs(&file)
        .map_err(|error| AttachError::new(format!("the cgroup directory {at}: {error}")))?;
    /// `CGROUP2_SUPER_MAGIC`
    const CGROUP2_MAGIC: u64 = 0x6367_7270;
    if u64::try_from(kind.f_type) != Ok(CGROUP2_MAGIC) {
        return Err(AttachError::new(format!(
            "{at} is not a cgroup v2 directory: give one below the cgroup2 mount in /proc/self/mountinfo"
        )));
    }
    Ok(Some(file))
}

/// The programs and maps, and the id of the cgroup they watch.
fn load(options: &Options, cgroup: Option<&File>) -> Result<(Ebpf, u64), AttachError> {
    let types = std::fs::read(BTF_PATH).map_err(|error| {
        AttachError::new(format!(
            "this kernel describes no types in {BTF_PATH} ({error}): it needs CONFIG_DEBUG_INFO_BTF"
        ))
    })?;
    let offsets = KernelTypes::parse(&types)
        .and_then(|types| types.offsets())
        .map_err(|error| AttachError::new(error.to_string()))?;
    ensure_tracefs();
    let mut settings = 0;
    if options.args == Args::Full {
        settings |= SETTING_ARGS;
    }
    if hooks::tracefs_has("syscalls", "sys_exit_connect") {
        settings |= SETTING_SYS_EXIT;
    }
    if cgroup.is_none() {
        settings |= SETTING_LSM_RECORDS;
    }
    let (watched, level) = match (&options.cgroup, cgroup) {
        (Some(path), Some(cgroup)) => hooks::cgroup_of(path, cgroup)
            .map_err(|error| AttachError::new(format!("{}: {error}", path.display())))?,
        _ => (0, 0),
    };
    let ebpf = EbpfLoader::new()
        .override_global("OFFSETS", offsets.as_bytes(), true)
        .override_global("SETTINGS", &settings, true)
        .override_global("WATCHED_CGROUP", &watched, true)
        .override_global("WATCHED_LEVEL", &level, true)
        .load(OBJECT)
        .map_err(|error| {
            AttachError::new(format!(
                "the kernel refused procid's maps: {:#}",
                anyhow::Error::from(error)
            ))
        })?;
    Ok((ebpf, watched))
}

/// System call tracepoints are found through tracefs, which minimal systems
/// do not mount.
fn ensure_tracefs() {
    let path = Path::new("/sys/kernel/tracing");
    if path.join("events").exists() || !path.exists() {
        return;
    }
    if let Err(error) = rustix::mount::mount(
        "tracefs",
        path,
        "tracefs",
        rustix::mount::MountFlags::empty(),
        None,
    ) {
        tracing::warn!(%error, "tracefs could not be mounted");
    }
}

fn attach_hooks(
    ebpf: &mut Ebpf,
    btf: &Btf,
    options: &Options,
    cgroup: Option<&File>,
) -> Result<(Report, Links), AttachError> {
    let mut report = Report::default();
    let mut links = Vec::new();
    let mut lsm = false;
    let used: Vec<_> = HOOKS
        .iter()
        .filter(|hook| hook.used_by(options.backend, cgroup.is_some()))
        .collect();
    let is_certain = |hook: &&&Hook| !matches!(hook.role, Role::StandIn | Role::Withhold);
    for hook in used.iter().filter(is_certain) {
        // A refusal is told when it is attached.
        let _refused = hook.load(ebpf, btf);
    }
    for hook in used {
        let is_spare = match hook.role {
            Role::StandIn => attached(&report, &LENGTHS),
            Role::Withhold => attached(&report, &[LSM_SENDS]),
            _ => false,
        };
        if is_spare {
            continue;
        }
        let result = hook.attach(ebpf, btf, cgroup);
        let mut missed = false;
        if let Err(refusal) = &result {
            if hook.is_needed(cgroup.is_some()) {
                let instead = if hook.role == Role::LsmRecords && options.backend == Backend::Auto {
                    format!("{NO_CGROUP2}; and the LSM backend cannot stand in: ")
                } else {
                    String::new()
                };
                return Err(AttachError::new(format!(
                    "{instead}{} was refused ({}): {}",
                    hook.name, refusal.reason, hook.without
                )));
            }
            // Where BPF LSM programs are refused, the cgroup backend is whole
            // without them.
            missed = !refusal.absent && !hook.is_lsm();
            let is_replaced =
                LENGTHS.contains(&hook.name) || matches!(hook.role, Role::StandIn | Role::Withhold);
            if !is_replaced {
                report.uncovered.push(Uncovered {
                    path: hook.name.to_owned(),
                    reason: format!("{} ({})", hook.without, refusal.reason),
                });
            }
        } else if hook.is_lsm() {
            lsm = true;
        }
        let attached = result.is_ok();
        let reason = match result {
            Ok(link) => {
                links.extend(link.map(|link| (hook.program, link)));
                None
            }
            Err(refusal) => Some(refusal.reason),
        };
        report.hooks.push(HookStatus {
            name: hook.name.to_owned(),
            program_type: hook.program_type().to_owned(),
            gives: hook.gives.to_owned(),
            without: hook.without.to_owned(),
            attached,
            reason,
            missed,
        });
    }
    report.backend = match (lsm, cgroup.is_some()) {
        (true, true) => "lsm+cgroup",
        (true, false) => "lsm",
        (false, _) => "cgroup",
    }
    .to_owned();
    report.lengths = attached(&report, &LENGTHS) || attached(&report, &STAND_INS);
    report.withholds = attached(&report, &[WITHHOLD]);
    report.hashes = attached(&report, &["lsm.s/bprm_committed_creds"]);
    let sight = Sight {
        cgroup: cgroup.is_some(),
        is_part: options.cgroup.is_some(),
        lsm,
        lengths: report.lengths,
        withholds: report.withholds,
        splices: KernelVersion::current()
            .is_ok_and(|version| version >= KernelVersion::new(6, 5, 0)),
    };
    report.uncovered.extend(uncovered::paths(sight));
    Ok((report, links))
}

/// The stand-ins without which nothing is known of what was sent.
const STAND_INS: [&str; 5] = [
    "fexit/inet_sendmsg",
    "fexit/inet6_sendmsg",
    "fexit/inet_recvmsg",
    "fexit/inet6_recvmsg",
    "fexit/sock_common_recvmsg",
];

fn attached(report: &Report, names: &[&str]) -> bool {
    names.iter().all(|name| {
        let mut hooks = report.hooks.iter();
        hooks.any(|hook| hook.attached && hook.name == *name)
    })
}

/// A descriptor of a map.
fn map_fd(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, AttachError> {
    let (Some(Map::Array(map)) | Some(Map::HashMap(map)) | Some(Map::SkStorage(map))) =
        ebpf.map(name)
    else {
        return Err(AttachError::new(format!(
            "the eBPF object has no map {name}"
        )));
    };
    map.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| AttachError::new(format!("the map {name}: {error}")))
}

fn kept_maps(ebpf: &Ebpf) -> Result<Vec<(&'static str, OwnedFd)>, AttachError> {
    pins::KEPT_MAPS
        .into_iter()
        .map(|name| Ok((name, map_fd(ebpf, name)?)))
        .collect()
}

fn take_map<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> Result<T, AttachError> {
    ebpf.take_map(name)
        .and_then(|map| T::try_from(map).ok())
        .ok_or_else(|| AttachError::new(format!("the eBPF object has no map {name}")))
}

/// The task iterator cannot read another process's memory: what it claims of
/// its arguments now is read from /proc.
fn add_args(event: &mut Event) {
    let Event::TaskRow(facts) = event else { return };
    if facts.event.image.flags & (flags::KTHREAD | flags::NO_EXE) != 0 {
        return;
    }
    let tgid = facts.event.image.id.tgid;
    facts.args = std::fs::read(format!("/proc/{tgid}/cmdline"))
        .ok()
        .filter(|bytes| !bytes.is_empty())
        .map(|bytes| crate::decode::split_args(&bytes));
}

#[cfg(test)]
mod tests {
    use super::OBJECT;

    fn holds(wanted: &str) -> bool {
        let wanted = wanted.as_bytes();
        OBJECT.windows(wanted.len()).any(|bytes| bytes == wanted)
    }

    /// So that the same sources make the same object wherever they lie.
    #[test]
    fn the_object_names_no_place_of_this_machine() {
        // Its line information is there, by paths inside the workspace.
        assert!(holds("procid-ebpf/src/connect.rs"));
        let root = env!("CARGO_MANIFEST_DIR").trim_end_matches("/procid");
        assert!(!holds(root), "{root}");
        assert!(!holds("/registry/src/"));
        assert!(!holds("/lib/rustlib/src/"));
    }

    #[test]
    fn the_object_holds_no_dwarf() {
        assert!(holds(".BTF.ext\0"));
        assert!(!holds(".debug_info\0"));
    }
}
