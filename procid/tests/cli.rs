//! The built binary: exit codes and the one sentence that goes with them.
//! Nothing here needs privileges, and nothing here is kept from root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::{Command, Output, Stdio},
};

use rstest::rstest;
use tempfile::TempDir;

fn procid(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_procid"));
    command
        .args(arguments)
        .env_remove("PROCID_SOCKET")
        .env_remove("PROCID_LOG")
        .stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    procid(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code, and a stderr that is one line from procid holding `sentence`.
#[track_caller]
fn assert_fails(output: &Output, code: i32, sentence: &str) {
    let stderr = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.starts_with("procid: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(sentence), "{stderr}");
    assert!(output.stdout.is_empty());
}

fn in_directory(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).display().to_string()
}

#[rstest]
#[case::unknown_flag(&["run", "--jsn"], "a similar argument exists: '--json'; see 'procid run --help'")]
#[case::unknown_command(&["frobnicate"], "unrecognized subcommand 'frobnicate'; see 'procid --help'")]
#[case::not_a_flow(&["who", "example.com"], "FLOW: `example.com` is not an address")]
#[case::bare_port(&["who", "443"], "write it as :443")]
#[case::too_many_ends(&["who", "1.1.1.1", "2.2.2.2", "3.3.3.3"], "see 'procid who --help'")]
#[case::both_ends_twice(&["who", "1.1.1.1", ":53", "--dport", "53"], "leave out --dst and --dport")]
#[case::bad_time(&["who", "--since", "teatime"], "--since <TIME>")]
#[case::no_such_user(&["who", "--user", "no:such"], "/etc/passwd has no user 'no:such'")]
#[case::formats(&["who", "--json", "--csv"], "cannot be used with")]
#[case::update_every(&["run", "--update-every", "0s"], "give a second or more")]
#[case::backend(&["run", "--backend", "ebpf"], "[possible values: auto, lsm, cgroup]")]
#[case::no_policy(&["policy", "check", "/nowhere/p.toml"], "/nowhere/p.toml: No such file")]
#[case::no_file(&["policy", "check", "/"], "/ is not a regular file")]
#[case::no_config(&["run", "--config", "/nowhere/procid.toml"], "--config /nowhere/procid.toml: No such file")]
fn bad_usage_is_2_and_one_sentence(#[case] arguments: &[&str], #[case] sentence: &str) {
    assert_fails(&output(arguments), 2, sentence);
}

#[test]
fn a_mistake_in_the_config_file_is_named_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = in_directory(&directory, "procid.toml");
    fs::write(&path, "# agent\njson = true\nbacked = 'lsm'\n").unwrap();
    let done = output(&["run", "--config", &path]);
    assert_fails(&done, 2, &format!("{path}:3:1: unknown field `backed`"));
}

/// Checks a policy on stdin.
fn check(policy: &str, flags: &[&str]) -> Output {
    let mut command = procid(&["policy", "check", "-"]);
    command.args(flags).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(policy.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

const GOOD: &str = "mode = 'enforce'\n";
const ODD: &str = "mode = 'enforce'\ndefault = 'deny'\n";
const BAD: &str = "mode = 'enforce'\ndefault = 'x\u{9b}'\n[[rule]]\n";

#[rstest]
#[case::good(GOOD, &[], 0, 0)]
#[case::good_and_strict(GOOD, &["--strict"], 0, 0)]
#[case::odd(ODD, &[], 0, 1)]
#[case::odd_and_strict(ODD, &["--strict"], 1, 1)]
#[case::bad(BAD, &[], 1, 2)]
fn a_policy_is_checked(
    #[case] policy: &str,
    #[case] flags: &[&str],
    #[case] code: i32,
    #[case] problems: usize,
) {
    let text = check(policy, flags);
    let said = stderr(&text);
    assert_eq!(text.status.code(), Some(code), "{said}");
    assert!(text.stdout.is_empty());
    assert_eq!(said.lines().count(), problems, "{said}");
    assert!(said.lines().all(|line| line.starts_with("<stdin>:")));
    assert!(!said.contains('\u{9b}'), "a terminal is steered");

    let json = check(policy, &[flags, &["--json"]].concat());
    assert_eq!(json.status.code(), Some(code));
    assert!(json.stderr.is_empty());
    let lines = String::from_utf8(json.stdout).unwrap();
    assert_eq!(lines.lines().count(), problems);
    for (line, said) in lines.lines().zip(said.lines()) {
        let problem: serde_json::Value = serde_json::from_str(line).unwrap();
        let place = format!("<stdin>:{}:{}: {}: ", problem["line"], problem["column"], {
            problem["severity"].as_str().unwrap()
        });
        assert!(said.starts_with(&place), "{said} is not at {place}");
    }
}

#[test]
fn a_policy_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = in_directory(&directory, "policy.toml");
    fs::write(&path, "mode = 'audit'\nx = 1\n").unwrap();
    let done = output(&["policy", "check", &path]);
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    assert!(
        said.starts_with(&format!("{path}:2:1: error: `x` is not a key")),
        "{said}"
    );
    fs::write(&path, b"mode = 'audit'\n\xff").unwrap();
    let done = output(&["policy", "check", &path]);
    assert_fails(&done, 2, &format!("{path}:2: not UTF-8"));
}

#[test]
fn help_and_version_are_answers_and_no_command_is_none() {
    let help = output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    for command in ["run", "who", "policy", "status", "doctor"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    let version = output(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("procid {}\n", env!("CARGO_PKG_VERSION"))
    );
    let none = output(&[]);
    assert_eq!(none.status.code(), Some(2));
    assert!(none.stdout.is_empty() && stderr(&none).contains("Usage: procid"));
}

#[rstest]
#[case::status(&["status"])]
#[case::follow(&["who", "--follow"])]
fn no_agent_is_4(#[case] arguments: &[&str], #[values(false, true)] stale: bool) {
    let directory = tempfile::tempdir().unwrap();
    let socket = in_directory(&directory, "procid.sock");
    if stale {
        drop(UnixListener::bind(&socket).unwrap());
    }
    let mut arguments = arguments.to_vec();
    arguments.extend(["--socket", &socket]);
    let sentence = format!("no agent answers on {socket}: ");
    assert_fails(&output(&arguments), 4, &sentence);
}

#[test]
fn the_socket_may_be_named_by_the_environment() {
    let done = procid(&["status"])
        .env("PROCID_SOCKET", "/nowhere/procid.sock")
        .output()
        .unwrap();
    assert_fails(&done, 4, "no agent answers on /nowhere/procid.sock: ");
}

/// Something listens, and it is not an agent.
#[test]
fn an_agent_that_hangs_up_is_no_agent() {
    let directory = tempfile::tempdir().unwrap();
    let socket = in_directory(&directory, "procid.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let hang_up = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let done = output(&["status", "--socket", &socket]);
    assert_fails(&done, 4, "stopped answering");
    hang_up.join().unwrap();
}

#[test]
fn with_no_agent_the_kernel_answers_and_the_answer_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let socket = in_directory(&directory, "procid.sock");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();

    let flow = format!(":{port}");
    let done = output(&["who", &flow, "--json", "--socket", &socket]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let records: Vec<serde_json::Value> = done
        .stdout
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let (last, rows) = records.split_last().unwrap();
    assert_eq!(last["procid"]["coverage"]["provenance"], "snapshot");
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!(row["procid"]["provenance"], "snapshot", "{row}");
        assert_eq!(row["event"]["kind"], "state", "{row}");
    }
    // This process has both ends.
    let own = rows
        .iter()
        .filter(|row| row["process"]["pid"] == std::process::id());
    assert!(own.count() > 0, "{rows:?}");

    // TEST-NET-1 is nobody's: https://www.rfc-editor.org/rfc/rfc5737
    let nothing = output(&["who", "192.0.2.1", "--socket", &socket]);
    assert_fails(
        &nothing,
        1,
        "no connection matched; covered what was open at ",
    );
    let nothing = output(&["who", "192.0.2.1", "--json", "--socket", &socket]);
    assert_eq!(nothing.status.code(), Some(1));
    assert_eq!(nothing.stdout.iter().filter(|&&b| b == b'\n').count(), 1);
}

#[test]
fn a_reader_that_has_had_enough_is_a_success() {
    let mut child = procid(&["--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    let mut pipe = child.stderr.take().unwrap();
    pipe.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert_eq!(said, "");
}

/// Runs `procid run` where it must refuse before it touches the kernel.
fn refused_run(state_dir: &Path, socket: &Path) -> Output {
    procid(&["run"])
        .arg("--state-dir")
        .arg(state_dir)
        .arg("--socket")
        .arg(socket)
        .output()
        .unwrap()
}

#[test]
fn run_refuses_what_it_cannot_use() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("procid.sock");
    let state = directory.path().join("state");
    if !rustix::process::geteuid().is_root() {
        assert_fails(&refused_run(&state, &socket), 3, "start it as root");
        return;
    }
    let refused = refused_run(Path::new("/sys/procid"), &socket);
    assert_fails(&refused, 3, "cannot make --state-dir /sys/procid: ");

    fs::write(&state, "").unwrap();
    let refused = refused_run(&state, &socket);
    assert_fails(&refused, 2, "is not a directory; give another");
    fs::remove_file(&state).unwrap();

    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = refused_run(&state, &socket);
    assert_fails(&refused, 2, "can be written by others (mode 777)");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();

    let other = UnixListener::bind(&socket).unwrap();
    let refused = refused_run(&state, &socket);
    assert_fails(&refused, 3, "another agent answers on ");
    drop(other);

    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "precious").unwrap();
    let refused = refused_run(&state, &socket);
    assert_fails(&refused, 2, "exists and is not a socket");
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
}
