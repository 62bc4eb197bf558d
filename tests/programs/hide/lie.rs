//! What a process can say of itself that is not so.

use std::{
    fs::{self, File, OpenOptions},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use procid_tests::truth::FileId;
use rustix::{
    mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags},
    process::{PrctlMmMap, configure_virtual_memory_map, virtual_memory_map_config_struct_size},
};

use super::{
    image::{self, Lie},
    told as story,
};
use crate::hand::{child::spawned, copies::Copies, flow::unsupported, peer::Peer};

/// Who everyone trusts.
const INNOCENT: &str = "sshd";

/// A copy of this program lies so and connects.
pub(crate) fn told(lie: Lie) -> Result<()> {
    if lie == Lie::MmExe && virtual_memory_map_config_struct_size().is_err() {
        return unsupported("no PR_SET_MM_MAP without CONFIG_CHECKPOINT_RESTORE (EINVAL)");
    }
    let copies = Copies::new()?;
    let program = copies.copy("liar")?;
    let file = FileId::of(&program)?;
    let peer = Peer::server()?;
    let mut liar = image::command(&program, peer.address);
    let lie = lie.to_possible_value().context("a lie without a name")?;
    liar.args(["--lie", lie.get_name()]);
    liar.arg("--other").arg(fs::read_link("/proc/self/exe")?);
    story(spawned(&mut liar)?, &file, peer)
}

pub(crate) fn about_name() -> Result<()> {
    let name = std::ffi::CString::new(INNOCENT)?;
    Ok(rustix::thread::set_name(&name)?)
}

/// As daemons do that want to be found in ps by other words.
pub(crate) fn about_arguments() -> Result<()> {
    let layout = Layout::read()?;
    let length = (layout.arg_end - layout.arg_start).try_into()?;
    let mut words = format!("{INNOCENT}: root@pts/0").into_bytes();
    words.resize(length, 0);
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&words, layout.arg_start)?;
    let seen = fs::read("/proc/self/cmdline")?;
    ensure!(seen == words, "the arguments are as they were");
    Ok(())
}

/// The kernel takes another executable once no mapping of the first is left:
/// so each becomes memory of the same content.
pub(crate) fn about_executable(other: &Path) -> Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let exe = fs::read_link("/proc/self/exe")?;
    let exe = exe.to_str().context("an executable's odd name")?;
    let mappings: Vec<Mapping> = maps
        .lines()
        .filter(|line| line.ends_with(exe))
        .map(|line| Mapping::parse(line).with_context(|| format!("a mapping: {line}")))
        .collect::<Result<_>>()?;
    for mapping in &mappings {
        mapping.make_anonymous()?;
    }
    let layout = Layout::read()?;
    let other = File::open(other)?;
    let map = layout.with_executable(&other);
    // SAFETY: all of the layout is as it was, but for the executable, of which
    // nothing is mapped.
    unsafe { configure_virtual_memory_map(&map) }.context("PR_SET_MM_MAP")?;
    let named = FileId::of(Path::new("/proc/self/exe"))?;
    let meant = FileId::of(format!("/proc/self/fd/{}", other.as_raw_fd()).as_ref())?;
    ensure!(named == meant, "the executable is as it was");
    Ok(())
}

/// Part of an executable in memory.
struct Mapping {
    start: usize,
    length: usize,
    protection: MprotectFlags,
}

impl Mapping {
    /// A line of /proc/self/maps.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let mut protection = MprotectFlags::empty();
        for letter in words.next()?.chars() {
            protection |= match letter {
                'r' => MprotectFlags::READ,
                'w' => MprotectFlags::WRITE,
                'x' => MprotectFlags::EXEC,
                _ => MprotectFlags::empty(),
            };
        }
        Some(Self {
            start,
            length: end.checked_sub(start)?,
            protection,
        })
    }

    /// Puts a copy in its place, in one step, under the feet of this function.
    fn make_anonymous(&self) -> Result<()> {
        let flags = MapFlags::PRIVATE;
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        let place = self.start as *mut std::ffi::c_void;
        // SAFETY: the mapping is this process's own, readable as all of an
        // executable's are, and no other thread writes to it. After the copy
        // nothing is written before the copy is in its place, so that memory
        // holds what it held.
        unsafe {
            let copy =
                rustix::mm::mmap_anonymous(std::ptr::null_mut(), self.length, writable, flags)?;
            copy.copy_from_nonoverlapping(place, self.length);
            rustix::mm::mprotect(copy, self.length, self.protection)?;
            rustix::mm::mremap_fixed(copy, self.length, self.length, MremapFlags::MAYMOVE, place)?;
        }
        Ok(())
    }
}

/// Where the parts of this process's memory are, as the kernel has it.
struct Layout {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
}

impl Layout {
    fn read() -> Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let words: Vec<&str> = after_name.split_ascii_whitespace().collect();
        // Numbered from 1 in proc_pid_stat(5), where the third follows the name.
        let field = |number: usize| -> Result<u64> {
            let word = words.get(number - 3).context("a short stat")?;
            Ok(word.parse()?)
        };
        Ok(Self {
            start_code: field(26)?,
            end_code: field(27)?,
            start_stack: field(28)?,
            start_data: field(45)?,
            end_data: field(46)?,
            start_brk: field(47)?,
            arg_start: field(48)?,
            arg_end: field(49)?,
            env_start: field(50)?,
            env_end: field(51)?,
        })
    }

    fn with_executable(&self, file: &File) -> PrctlMmMap {
        // SAFETY: it moves nothing by nothing.
        let brk = unsafe { libc::sbrk(0) } as u64;
        PrctlMmMap {
            start_code: self.start_code,
            end_code: self.end_code,
            start_data: self.start_data,
            end_data: self.end_data,
            start_brk: self.start_brk,
            brk,
            start_stack: self.start_stack,
            arg_start: self.arg_start,
            arg_end: self.arg_end,
            env_start: self.env_start,
            env_end: self.env_end,
            auxv: std::ptr::null_mut(),
            auxv_size: 0,
            exe_fd: file.as_raw_fd(),
        }
    }
}
