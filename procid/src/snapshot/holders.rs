//! The processes that hold descriptors of sockets, from /proc.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use crate::{
    identity::{
        containers::{Place, hierarchy},
        context::Context,
    },
    records::Uncovered,
};

/// A process that holds a descriptor of a socket, as /proc tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// In its own pid namespace.
    pub vpid: u32,
    /// Start of the process, clock ticks since boot.
    pub start_ticks: u64,
    /// The leader's name: the process's own claim.
    pub comm: Vec<u8>,
    /// Where `/proc/PID/exe` leads; `None`: a kernel thread, or not permitted.
    /// The kernel adds " (deleted)" where that name is gone.
    pub exe: Option<Vec<u8>>,
    /// The arguments as they are now: the process may have changed them.
    pub args: Option<Vec<Vec<u8>>>,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    /// What its cgroup says of it.
    pub context: Option<Context>,
}

/// The holders of any of `inodes`, each with those of them it holds.
///
/// # Errors
///
/// /proc cannot be listed.
pub(super) fn of(
    inodes: &HashSet<u64>,
    unseen: &mut Vec<Uncovered>,
) -> io::Result<Vec<(Holder, BTreeSet<u64>)>> {
    let mut holders = Vec::new();
    let mut denied = 0_usize;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        match held(pid, inodes) {
            Ok(held) if held.is_empty() => {}
            // What ended meanwhile holds nothing.
            Ok(held) => holders.extend(holder(pid).map(|holder| (holder, held))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied += 1,
            Err(_) => {}
        }
    }
    if denied > 0 {
        unseen.push(Uncovered {
            path: format!("the descriptors of {denied} processes"),
            reason: "not permitted to this user; root sees them".to_owned(),
        });
    }
    Ok(holders)
}

/// Which of these sockets a process holds. A thread with a descriptor table of
/// its own (`unshare(CLONE_FILES)`) is not looked into.
fn held(pid: u32, inodes: &HashSet<u64>) -> io::Result<BTreeSet<u64>> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // Descriptors come and go while they are listed.
        let Ok(target) = entry.and_then(|entry| fs::read_link(entry.path())) else {
            continue;
        };
        let inode = socket_inode(target.as_os_str().as_bytes());
        held.extend(inode.filter(|inode| inodes.contains(inode)));
    }
    Ok(held)
}

/// `socket:[4711]` → 4711.
fn socket_inode(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What /proc says of a process; `None` where it ended, or another took its pid
/// while it was read.
fn holder(pid: u32) -> Option<Holder> {
    let file = |name: &str| format!("/proc/{pid}/{name}");
    let start_ticks = start_ticks(pid)?;
    let status = fs::read(file("status")).ok()?;
    let [uid, euid] = numbers(&status, b"Uid:")?;
    let [gid, egid] = numbers(&status, b"Gid:")?;
    let vpid = field(&status, b"NSpid:")
        .and_then(|value| value.split_ascii_whitespace().next_back())
        .and_then(|number| number.parse().ok())
        .unwrap_or(pid);
    let mut comm = fs::read(file("comm")).ok()?;
    if comm.last() == Some(&b'\n') {
        comm.pop();
    }
    let holder = Holder {
        pid,
        vpid,
        start_ticks,
        comm,
        exe: fs::read_link(file("exe"))
            .ok()
            .map(|path| path.into_os_string().into_vec()),
        args: fs::read(file("cmdline")).ok().map(|bytes| args(&bytes)),
        uid,
        euid,
        gid,
        egid,
        context: context(pid),
    };
    (self::start_ticks(pid)? == start_ticks).then_some(holder)
}

fn context(pid: u32) -> Option<Context> {
    let cgroups = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    let mut lines = cgroups.split(|byte| *byte == b'\n');
    let cgroup = lines.find_map(|line| line.strip_prefix(b"0::"))?;
    let place = Place::of(&hierarchy()?, Path::new(OsStr::from_bytes(cgroup)));
    place.ok().map(|place| Context::of(&place))
}

/// Field 22 of `/proc/PID/stat`.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    parse_start_ticks(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses is the process's own and may hold any byte: the
/// fields are counted from the last closing one.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn field<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a str> {
    // The name line comes first, with its newlines escaped: no line is forged.
    let line = status
        .split(|&b| b == b'\n')
        .find(|line| line.starts_with(name))?;
    std::str::from_utf8(&line[name.len()..]).ok()
}

/// The first two numbers of a line: real and effective.
fn numbers(status: &[u8], name: &[u8]) -> Option<[u32; 2]> {
    let mut numbers = field(status, name)?.split_ascii_whitespace();
    let mut next = || numbers.next()?.parse().ok();
    Some([next()?, next()?])
}

fn args(cmdline: &[u8]) -> Vec<Vec<u8>> {
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Vec::new();
    }
    cmdline.split(|&b| b == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let rest = (3..=30)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        for name in ["a", ") R 1 2 3", "a b) (c\n", "\u{fffd}"] {
            let stat = format!("7 ({name}) {rest}\n");
            assert_eq!(parse_start_ticks(stat.as_bytes()), Some(22), "{name:?}");
        }
        assert_eq!(parse_start_ticks(b"7 (a) R 1"), None);
        assert_eq!(parse_start_ticks(b""), None);
    }

    #[test]
    fn lines_of_status() {
        let status = b"Name:\ta\nUid:\t1\t2\t3\t4\nNSpid:\t70\t7\t1\n";
        assert_eq!(numbers(status, b"Uid:"), Some([1, 2]));
        assert_eq!(numbers(status, b"Gid:"), None);
        assert_eq!(field(status, b"NSpid:"), Some("\t70\t7\t1"));
    }

    #[test]
    fn links_to_sockets() {
        assert_eq!(socket_inode(b"socket:[12]"), Some(12));
        for other in [&b"pipe:[12]"[..], b"socket:[]", b"/tmp/socket:[1]", b""] {
            assert_eq!(socket_inode(other), None);
        }
    }

    #[test]
    fn this_process_is_found_as_it_is() {
        let own = holder(std::process::id()).expect("alive");
        assert_eq!(own.pid, std::process::id());
        assert_eq!(own.euid, rustix::process::geteuid().as_raw());
        let exe = std::env::current_exe().expect("known");
        assert_eq!(own.exe.as_deref(), Some(exe.as_os_str().as_bytes()));
        let args: Vec<_> = std::env::args_os().map(OsStringExt::into_vec).collect();
        assert_eq!(own.args, Some(args));
    }
}
