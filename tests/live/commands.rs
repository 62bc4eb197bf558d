//! Bad input: one sentence on stderr, the right exit code, and nothing left.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output},
};

use procid_tests::{
    agent::{self, Agent},
    cgroup::{TestCgroup, v2_root},
    scratch::{Scratch, procid, test_program},
};

/// Asserts the exit code and a single sentence that holds each of `words`.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(output.stdout, b"", "{said}");
    // A log may precede it.
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("procid: "))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(lines[0].contains(word), "{word}: {said}");
    }
}

/// `procid run` with one of its places replaced, where it must end at once.
#[derive(Default)]
struct Run<'a> {
    cgroup: Option<&'a Path>,
    state: Option<&'a Path>,
    socket: Option<&'a Path>,
}

impl Run<'_> {
    fn output(&self) -> Output {
        let cgroup = TestCgroup::new();
        let scratch = Scratch::new();
        let (state, socket) = (scratch.path().join("state"), scratch.path().join("socket"));
        agent::command(
            self.cgroup.unwrap_or(cgroup.path()),
            self.state.unwrap_or(&state),
            self.socket.unwrap_or(&socket),
        )
        .output()
        .unwrap()
    }
}

#[test]
fn not_root() {
    let scratch = Scratch::new();
    // Where every user may run it.
    let binary = scratch.path().join("procid");
    fs::copy(procid(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&binary);
    let output = command.arg("run").uid(65534).gid(65534).output().unwrap();
    assert_refused(&output, 3, &["root"]);
}

#[test]
fn unknown_words() {
    let cases: [(&[&str], &str); 7] = [
        (&["--unknown"], "--unknown"),
        (&["frobnicate"], "frobnicate"),
        (&["run", "--unknown"], "--unknown"),
        (&["run", "--backend", "magic"], "magic"),
        (&["who", "not a flow"], "not a flow"),
        (&["who", ":99999"], "99999"),
        (&["who", "--since", "someday", ":1"], "someday"),
    ];
    for (arguments, word) in cases {
        let output = Command::new(procid()).args(arguments).output().unwrap();
        assert_refused(&output, 2, &[word]);
    }
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    let output = Run {
        state: Some(Path::new("/proc/procid")),
        ..Run::default()
    }
    .output();
    // Whichever the kernel says: there is no such place, or it is read-only.
    let code = output.status.code().unwrap();
    assert!([2, 3].contains(&code), "{output:?}");
    assert_refused(&output, code, &["/proc/procid", "--state-dir"]);
}

#[test]
fn a_second_agent_on_the_same_socket() {
    let cgroup = TestCgroup::new();
    let first = Agent::start(&cgroup);
    let socket = first.socket();
    let output = Run {
        socket: Some(&socket),
        ..Run::default()
    }
    .output();
    assert_refused(&output, 3, &[socket.to_str().unwrap()]);
    // The first is none the worse.
    assert_eq!(first.ask(&["status"]).status.code(), Some(0));
    let _records = first.stop();
}

#[test]
fn a_cgroup_that_is_none() {
    let scratch = Scratch::new();
    for path in [scratch.path().to_owned(), scratch.path().join("missing")] {
        let output = Run {
            cgroup: Some(&path),
            ..Run::default()
        }
        .output();
        let code = output.status.code().unwrap();
        assert!([2, 3].contains(&code), "{output:?}");
        assert_refused(&output, code, &[path.to_str().unwrap()]);
    }
}

/// `procid run` where `arguments` of the test program's `enter` lead.
fn run_in(arguments: &[&str]) -> Output {
    let scratch = Scratch::new();
    Command::new(test_program())
        .arg("enter")
        .args(arguments)
        .arg("--")
        .arg(procid())
        .args(["run", "--json", "--state-dir"])
        .arg(scratch.path().join("state"))
        .arg("--socket")
        .arg(scratch.path().join("socket"))
        .output()
        .unwrap()
}

#[test]
fn no_cgroup_v2() {
    let root = v2_root().unwrap();
    let output = run_in(&["--umount", root.to_str().unwrap()]);
    assert_refused(&output, 3, &["cgroup"]);
}

#[test]
fn no_btf() {
    let empty = Scratch::new();
    let hidden = format!("{}:/sys/kernel/btf", empty.path().display());
    let output = run_in(&["--bind", &hidden]);
    assert_refused(&output, 3, &["BTF"]);
}

/// `procid who | head` has had enough, and that is no failure.
#[test]
fn a_reader_that_goes_away() {
    let script = format!(
        "'{}' who --json :0 | head -c 0; exit ${{PIPESTATUS[0]}}",
        procid().display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let code = output.status.code().unwrap();
    assert!([0, 1].contains(&code), "{output:?}");
    assert_eq!(output.stderr, b"");
}

/// A stopped agent leaves no hook behind that would tell of anything.
#[test]
fn a_stop_leaves_nothing() {
    let cgroup = TestCgroup::new();
    let agent = Agent::start(&cgroup);
    let socket = agent.socket();
    let _records = agent.stop();
    assert!(!socket.exists());
    assert!(v2_root().unwrap().exists());
    for attach_type in ["cgroup_inet4_connect", "cgroup_inet6_connect"] {
        let programs = attached(&cgroup, attach_type);
        assert_eq!(programs, 0, "{attach_type}");
    }
}

/// Programs attached to the cgroup, by BPF_PROG_QUERY.
fn attached(cgroup: &TestCgroup, attach_type: &str) -> u32 {
    use std::os::fd::AsRawFd as _;
    /// `union bpf_attr`, as BPF_PROG_QUERY has it up to `prog_cnt`:
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h#L1668>
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        reserved: u32,
    }
    const BPF_PROG_QUERY: libc::c_int = 16;
    let attach_type = match attach_type {
        "cgroup_inet4_connect" => 10,
        "cgroup_inet6_connect" => 11,
        other => panic!("{other}"),
    };
    let directory = fs::File::open(cgroup.path()).unwrap();
    let mut query = Query {
        target_fd: directory.as_raw_fd() as u32,
        attach_type,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes `size_of::<Query>()` bytes there, and
    // writes no ids, there being no room for any.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of::<Query>(),
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    query.prog_cnt
}
