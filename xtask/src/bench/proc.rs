//! What /proc says of the agent and of the machine.
//!
//! Formats: [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html),
//! [proc_pid_status(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html),
//! and for BPF descriptors `bpf_prog_show_fdinfo` and `bpf_map_show_fdinfo` in
//! [kernel/bpf/syscall.c](https://elixir.bootlin.com/linux/v6.12/source/kernel/bpf/syscall.c).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Memory of a process, KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Everything resident.
    pub(crate) resident: u64,
    /// Of that, the process' own: heap and stacks.
    pub(crate) anonymous: u64,
    /// Of that, pages of files and of the ring, which is mapped: the kernel
    /// counts both as one.
    pub(crate) file: u64,
}

impl Memory {
    /// # Errors
    ///
    /// The process is gone.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Self::parse(&read(&of_process(pid).join("status"))?)
            .with_context(|| format!("no memory in the status of process {pid}"))
    }

    fn parse(status: &str) -> Option<Self> {
        Some(Self {
            resident: number(status, "VmRSS")?,
            anonymous: number(status, "RssAnon")?,
            file: number(status, "RssFile")?,
        })
    }
}

/// CPU time of a process, its ended threads' included, user and system. The
/// kernel tells it in ticks, mostly of 10 ms.
///
/// # Errors
///
/// The process is gone.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let ticks = parse_ticks(&read(&of_process(pid).join("stat"))?)
        .with_context(|| format!("no CPU time in the stat of process {pid}"))?;
    let a_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}

/// `utime` + `stime`: fields 14 and 15. Field 2 is the name, in parentheses,
/// and may have any character.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// How often a BPF program ran while statistics were on, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgramTime {
    pub(crate) id: u32,
    pub(crate) nanoseconds: u64,
    pub(crate) runs: u64,
}

/// Times of a program of which this process holds descriptor `descriptor`.
///
/// # Errors
///
/// /proc is not mounted, or it is no program.
pub(crate) fn own_program(descriptor: i32) -> Result<ProgramTime> {
    let info = read(Path::new(&format!("/proc/self/fdinfo/{descriptor}")))?;
    parse_program(&info).with_context(|| format!("descriptor {descriptor} is of no program"))
}

/// What a process' BPF descriptors say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bpf {
    pub(crate) programs: Vec<ProgramTime>,
    /// Kernel memory of the maps, bytes.
    pub(crate) maps: u64,
}

impl Bpf {
    /// # Errors
    ///
    /// The process is gone, or belongs to someone else.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let directory = of_process(pid).join("fdinfo");
        let mut infos = Vec::new();
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            match fs::read_to_string(entry?.path()) {
                Ok(info) => infos.push(info),
                // Closed since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self::parse(&infos))
    }

    /// Several descriptors may be of one program or map.
    fn parse<S: AsRef<str>>(infos: &[S]) -> Self {
        let (mut programs, mut maps) = (BTreeMap::new(), BTreeMap::new());
        for info in infos.iter().map(AsRef::as_ref) {
            if let Some(program) = parse_program(info) {
                programs.insert(program.id, program);
            }
            if let (Some(id), Some(bytes)) = (number(info, "map_id"), number(info, "memlock")) {
                maps.insert(id, bytes);
            }
        }
        Self {
            programs: programs.into_values().collect(),
            maps: maps.into_values().sum(),
        }
    }
}

/// A link's descriptor has a `prog_id` too, but no times.
fn parse_program(info: &str) -> Option<ProgramTime> {
    Some(ProgramTime {
        id: number(info, "prog_id")?.try_into().ok()?,
        nanoseconds: number(info, "run_time_ns")?,
        runs: number(info, "run_cnt")?,
    })
}

/// Where cgroup v2 is mounted; hybrid hosts have it beside the controllers of
/// v1.
///
/// # Errors
///
/// It is not mounted.
pub(crate) fn cgroup2_root() -> Result<PathBuf> {
    parse_cgroup2(&read(Path::new("/proc/self/mountinfo"))?)
        .context("cgroup v2 is not mounted here")
}

fn parse_cgroup2(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_v2 = after.split(' ').next() == Some("cgroup2");
        is_v2.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// What figures depend on.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
}

impl Machine {
    /// # Errors
    ///
    /// /proc is not mounted.
    pub(crate) fn this() -> Result<Self> {
        let kernel = read(Path::new("/proc/sys/kernel/osrelease"))?;
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            cpu: parse_cpu(&read(Path::new("/proc/cpuinfo"))?)
                .unwrap_or("CPU of no known name")
                .to_owned(),
            cpus: thread::available_parallelism()?.get(),
        })
    }
}

/// Not every architecture names its CPU.
fn parse_cpu(cpuinfo: &str) -> Option<&str> {
    value(cpuinfo, "model name")
}

/// The value of a `key: value` line, white space around both left out.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// The same as a number; a unit after it is dropped.
fn number(text: &str, key: &str) -> Option<u64> {
    value(text, key)?.split(' ').next()?.parse().ok()
}

fn of_process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 99 0 0 0 120 34 5 6 20 0 9 0 11";
        assert_eq!(parse_ticks(stat), Some(154));
        assert_eq!(parse_ticks("7 (a) S 1 7"), None);
    }

    #[test]
    fn this_process_has_memory_and_spends_time() {
        let pid = std::process::id();
        let memory = Memory::of(pid).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0);
        let before = cpu_time(pid).unwrap();
        while cpu_time(pid).unwrap() == before {}
    }

    #[test]
    fn memory_is_in_kibibytes() {
        let status =
            "Name:\tVmRSS\nVmRSS:\t   12345 kB\nRssAnon:\t    2345 kB\nRssFile:\t   10000 kB\n";
        let memory = Memory::parse(status).unwrap();
        assert_eq!(
            (memory.resident, memory.anonymous, memory.file),
            (12_345, 2_345, 10_000)
        );
        assert_eq!(Memory::parse("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn programs_and_maps_are_told_from_links_and_counted_once() {
        let program = "pos:\t0\nprog_type:\t9\nprog_jited:\t1\nprog_tag:\t0f\nmemlock:\t4096\n\
                       prog_id:\t31\nrun_time_ns:\t5000\nrun_cnt:\t100\nrecursion_misses:\t0\n";
        let link = "link_type:\tcgroup\nlink_id:\t4\nprog_tag:\t0f\nprog_id:\t31\n";
        let map = "map_type:\t27\nmax_entries:\t8\nmemlock:\t8192\nmap_id:\t9\nfrozen:\t0\n";
        let bpf = Bpf::parse(&[program, link, map, program, map, "pos:\t0\nflags:\t02\n"]);
        let times = ProgramTime {
            id: 31,
            nanoseconds: 5_000,
            runs: 100,
        };
        assert_eq!((bpf.programs, bpf.maps), (vec![times], 8_192));
    }

    #[test]
    fn cgroup_v2_is_found_beside_v1() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        let root = PathBuf::from("/sys/fs/cgroup/unified");
        assert_eq!(parse_cgroup2(mounts), Some(root));
        assert_eq!(
            parse_cgroup2("32 31 0:29 / /x rw - cgroup cgroup2 rw\n"),
            None
        );
    }

    #[test]
    fn a_cpu_has_its_name_or_none() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 106\nmodel name\t: CPU @ 2.90GHz\n";
        assert_eq!(parse_cpu(cpuinfo), Some("CPU @ 2.90GHz"));
        assert_eq!(parse_cpu("processor\t: 0\n"), None);
    }
}
