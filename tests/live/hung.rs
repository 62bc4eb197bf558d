//! Files of a FUSE file system that does not answer, while the exec gate stands
//! elsewhere: whoever touches one waits, and nobody else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use procid_tests::{
    agent::{Agent, LIMIT},
    cgroup::TestCgroup,
    fuse::{Fuse, Mood},
    gate::on_own_file_system,
    listener,
    program::Program,
    records::text,
    scratch::{Image, Scratch, test_program},
    stage::Stage,
    unseen::{denies, run_copy},
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

const OTHERS: usize = 50;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A file system with a program and a script on it.
fn mounted(place: &Path) -> Fuse {
    let at = place.join("fuse");
    fs::create_dir(&at).unwrap();
    let files = [
        ("app", fs::read(test_program()).unwrap()),
        ("script", b"exit\n".to_vec()),
        ("another", b"exit\n".to_vec()),
    ];
    let files = files.map(|(name, content)| (name.to_owned(), content));
    Fuse::mount(&at, files.into())
}

/// Something that hangs; not waited for, which it would not let anybody.
fn start_aside(stage: &Stage, command: &str) -> Child {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdout(Stdio::null());
    stage.cgroup.holds(&mut shell);
    shell.spawn().unwrap()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// New programs of the gated file system run, hashed, and connect.
fn others_run(stage: &Stage, place: &Path, control: &Image, to: &listener::Tcp, round: &str) {
    let before = stage.gate("hashed").as_u64().unwrap();
    for number in 0..OTHERS {
        let copy = place.join(format!("{round}-{number}"));
        assert_eq!(run_copy(stage, control, &copy, to), None, "{number}");
    }
    let hashed = stage.gate("hashed").as_u64().unwrap() - before;
    assert_eq!(hashed, OTHERS as u64);
    for count in ["timed_out", "passed", "overflows", "unproven"] {
        assert_eq!(stage.gate(count), 0, "{count}");
    }
}

/// A program that waits for a line, run from FUSE, and told of.
fn run_from(stage: &mut Stage, file: &Path, to: &listener::Tcp) -> Program {
    let to = to.address().to_string();
    let program = stage.start_file(file, ["connect", "--wait", "--to", &to]);
    let pid = program.pid();
    let is_told = stage.agent.until(|records| {
        let mut execs = records.execs(pid).into_iter();
        execs.any(|exec| text(exec, "/procid/hash/reason") == "untrusted-fs")
    });
    assert!(is_told, "an image of FUSE is told as one");
    program
}

fn says(stage: &Stage, arguments: &[&str]) -> String {
    let output = stage.agent.ask(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &said
}

/// Every question is answered, and says what runs from the hung file.
fn everything_is_answered(stage: &Stage, running: &Program, file: &Path, to: &listener::Tcp) {
    let file = file.display().to_string();
    let pid = running.pid().to_string();
    let to = to.address().to_string();
    assert!(says(stage, &["ps"]).contains(&file));
    says(stage, &["status"]);
    // Whether there is one or not.
    let found = stage.agent.ask(&["who", "127.0.0.1"]).status.code();
    assert!(matches!(found, Some(0 | 1)), "{found:?}");
    says(stage, &["policy", "show"]);
    says(stage, &["policy", "explain", "--pid", &pid, "--to", &to]);
}

/// Nobody but these processes of the test has asked what got no answer.
fn assert_only(fuse: &Fuse, known: &[u32]) {
    let mut others = fuse.askers();
    others.retain(|asker| !known.contains(asker));
    let names: Vec<_> = others
        .iter()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default())
        .collect();
    assert!(others.is_empty(), "{others:?} {names:?}");
}

fn gated(place: &Path) -> Stage {
    Stage::with(&["--exec-gate", place.to_str().unwrap()])
}

/// Another agent, with the policy applied last, that finds all of it there.
fn start_again(cgroup: &TestCgroup, scratch: &Scratch, place: &Path) -> Agent {
    let policy = scratch.path().join("policy.toml");
    let (place, policy) = (place.to_str().unwrap(), policy.to_str().unwrap());
    Agent::start_with(cgroup, &["--exec-gate", place, "--policy", policy])
}

#[test]
fn a_file_that_is_never_read_holds_up_only_who_runs_it() {
    on_own_file_system(|place| {
        let mut stage = gated(place);
        // Ends before the agent, should that wait for it.
        let fuse = mounted(place);
        let to = listener::Tcp::on("127.0.0.1:0");
        let denied = Image::copy_to(&stage.scratch.path().join("denied"));
        let control = Image::copy_to(&stage.scratch.path().join("control"));
        let policy = denies(&denied, to.address().port(), "deny");
        let app = fuse.path("app");
        let running = run_from(&mut stage, &app, &to);

        fuse.answers(Mood::NoContent);
        // What runs is hashed before: of this one it is known that it cannot.
        let said = stage.apply(&policy, &[]);
        assert!(said.contains(&app.display().to_string()), "{said}");
        let mut hung = start_aside(&stage, &format!("exec {}", app.display()));
        wait_until("nobody reads it", || fuse.unanswered().0 > 0);
        let asked = fuse.unanswered().0;
        let mut script = start_aside(
            &stage,
            &format!("exec sh {}", fuse.path("script").display()),
        );
        wait_until("nobody reads the script", || fuse.unanswered().0 > asked);

        others_run(&stage, place, &control, &to, "new");
        everything_is_answered(&stage, &running, &app, &to);
        stage.apply(&policy, &[]);
        let records = stage.agent.stop();
        for process in [&hung, &script] {
            assert!(!records.execs(process.id()).is_empty());
        }

        let mut arguments = vec!["--exec-gate", place.to_str().unwrap(), "--policy"];
        let file = stage
            .scratch
            .path()
            .join("policy.toml")
            .display()
            .to_string();
        arguments.push(&file);
        stage.agent = Agent::start_with(&stage.cgroup, &arguments);
        others_run(&stage, place, &control, &to, "again");
        everything_is_answered(&stage, &running, &app, &to);
        let records = stage.agent.stop();
        let is_told = |record: &&Value| {
            text(record, "/process/pid") == running.pid().to_string()
                && text(record, "/event/kind") == "state"
                && text(record, "/procid/hash/reason") == "untrusted-fs"
        };
        assert!(records.all().iter().any(|record| is_told(&record)));

        assert_only(&fuse, &[hung.id(), script.id(), running.pid()]);
        assert!(matches!(hung.try_wait(), Ok(None)), "it hangs");
        drop(fuse);
        hung.wait().unwrap();
        script.wait().unwrap();
    });
}

/// Not even the way to its files is answered.
#[test]
fn names_that_lead_to_what_never_answers_hold_nothing_up() {
    on_own_file_system(|place| {
        let mut stage = gated(place);
        // Ends before the agent, should that wait for it.
        let fuse = mounted(place);
        let to = listener::Tcp::on("127.0.0.1:0");
        let control = Image::copy_to(&stage.scratch.path().join("control"));
        let app = fuse.path("app");
        let running = run_from(&mut stage, &app, &to);
        fuse.answers(Mood::Nothing);
        let asks = |command: String| {
            let before = fuse.unanswered().1;
            let child = start_aside(&stage, &command);
            wait_until(&command, || fuse.unanswered().1 > before);
            child
        };
        let script = fuse.path("script").display().to_string();
        let mut hung = [
            asks(format!("exec {}", app.display())),
            asks(format!("exec sh {script}")),
            // One question at a time about a directory: this one waits behind that.
            start_aside(
                &stage,
                &format!("cd {} && exec sh fuse/another", place.display()),
            ),
        ];

        let denied = Image::copy_to(&stage.scratch.path().join("denied"));
        stage.apply(&denies(&denied, to.address().port(), "deny"), &[]);
        others_run(&stage, place, &control, &to, "new");
        everything_is_answered(&stage, &running, &app, &to);
        // Scripts that do answer are found meanwhile.
        let answers = stage.scratch.path().join("answers.sh");
        fs::write(&answers, "sleep 60\n").unwrap();
        thread::sleep(Duration::from_millis(50));
        let mut other = start_aside(&stage, &format!("exec sh {}", answers.display()));
        let pid = other.id();
        let is_told = stage.agent.until(|records| {
            records
                .script(pid)
                .is_some_and(|record| text(record, "/procid/script/hash/grade") == "named")
        });
        assert!(is_told, "the thread of scripts hangs");
        let _records = stage.agent.stop();
        other.kill().unwrap();
        other.wait().unwrap();
        stage.agent = start_again(&stage.cgroup, &stage.scratch, place);
        everything_is_answered(&stage, &running, &app, &to);
        let _records = stage.agent.stop();
        let mut known = vec![running.pid()];
        known.extend(hung.iter().map(Child::id));
        assert_only(&fuse, &known);
        drop(fuse);
        for child in &mut hung {
            child.wait().unwrap();
        }
    });
}

/// A policy that names a file there, for which ended images are looked at too.
/// Mounted where process 1 sees it, whose paths a policy means.
#[test]
fn a_rule_on_a_name_that_leads_there_is_not_waited_for() {
    let scratch = Scratch::new();
    let mut stage = Stage::new();
    let fuse = mounted(scratch.path());
    let app = fuse.path("app");
    let to = listener::Tcp::on("127.0.0.1:0");
    let address = to.address().to_string();
    let connector = stage.scratch.program("connector");
    let path = connector.path.to_str().unwrap();
    // It has an ancestor that has ended: what it was itself before.
    let connect = [
        "launch", "--exec", "--", path, "connect", "--wait", "--to", &address,
    ];
    let mut program = stage.start(connect);
    stage.wait_for_hash(program.pid(), &connector.file);
    fuse.answers(Mood::Nothing);
    let rule = |name: &str, process: &str| {
        format!(
            "\n[[rule]]\nname = \"{name}\"\naction = \"deny\"\nprocess = {{ {process} }}\n\
             destination = {{ port = {} }}\n",
            to.address().port()
        )
    };
    let app = app.display();
    let mut policy = "mode = \"enforce\"\ndefault = \"allow\"\n".to_owned();
    policy += &rule("itself", &format!("executable = \"{app}\""));
    policy += &rule("below", &format!("executable = \"{app}/**\""));
    policy += &rule(
        "before",
        &format!("ancestor = {{ executable = \"{app}\" }}"),
    );
    policy += &rule("parent", &format!("parent = {{ executable = \"{app}\" }}"));
    stage.apply(&policy, &[]);
    program.go();
    assert_eq!(program.act().error, None);
    drop(program);
    let agent = stage.agent.pid().as_raw_nonzero().get().cast_unsigned();
    let _records = stage.agent.stop();
    assert!(!fuse.askers().contains(&agent), "the agent has asked");
}

/// Neither that nor what lies on it: the kernel would open its files for the
/// watchdog, before which every execution waits.
#[test]
fn no_gate_stands_before_what_may_not_answer() {
    let refused = |place: &Path| {
        let output = Command::new(test_program())
            .args(["gate", "--limit", "1000", "--on"])
            .arg(place)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("can be counted on"), "{said}");
    };
    on_own_file_system(|place| {
        let fuse = mounted(place);
        let on = |directory: &str| -> PathBuf {
            let path = place.join(directory);
            fs::create_dir(&path).unwrap();
            path
        };
        let overlay = on("overlay");
        let layers = [on("upper"), on("work")];
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            place.join("fuse").display(),
            layers[0].display(),
            layers[1].display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount(
            "overlay",
            &overlay,
            "overlay",
            MountFlags::empty(),
            Some(&*options),
        )
        .unwrap();
        fuse.answers(Mood::Nothing);
        refused(&place.join("fuse"));
        refused(&overlay);
        unmount(&overlay, UnmountFlags::DETACH).unwrap();
        assert_eq!(fuse.unanswered(), (0, 0));
    });
}

/// Its binary, its state, its log and its records.
#[test]
fn what_the_agent_is_made_of_lies_before_its_gate() {
    on_own_file_system(|place| {
        let to = listener::Tcp::on("127.0.0.1:0");
        let binary = place.join("procid");
        fs::copy(procid_tests::scratch::procid(), &binary).unwrap();
        let home = || std::sync::Arc::new(tempfile::tempdir_in(place).unwrap());
        let arguments = ["--exec-gate", place.to_str().unwrap()];
        let cgroup = TestCgroup::new();
        let scratch = Scratch::new();
        let mut stage = Stage {
            agent: Agent::start_file(&binary, &cgroup, home(), &arguments),
            app: scratch.program("app"),
            cgroup,
            scratch,
        };
        let control = Image::copy_to(&stage.scratch.path().join("control"));
        let denied = Image::copy_to(&stage.scratch.path().join("denied"));
        let policy = denies(&denied, to.address().port(), "deny");
        stage.apply(&policy, &[]);
        others_run(&stage, place, &control, &to, "first");
        // A command of the gated binary asks the agent that it waits for.
        let status = Command::new(&binary)
            .arg("status")
            .arg("--socket")
            .arg(stage.agent.socket())
            .output()
            .unwrap();
        assert!(status.status.success());
        // Killed: the next one starts its watchdog, and stands, from there.
        let state = stage.agent.kill();
        stage.agent = Agent::start_file(&binary, &stage.cgroup, state, &arguments);
        assert_eq!(stage.gate("stands"), true);
        others_run(&stage, place, &control, &to, "second");
        // Another agent and its watchdog are programs as any, and two gates are
        // one behind the other.
        let other = TestCgroup::new();
        let before = stage.gate("executions").as_u64().unwrap();
        let beside = Agent::start_file(&binary, &other, home(), &arguments);
        assert_eq!(stage.gate("executions"), before + 2);
        let file = stage
            .scratch
            .path()
            .join("policy.toml")
            .display()
            .to_string();
        assert!(beside.ask(&["policy", "apply", &file]).status.success());
        others_run(&stage, place, &control, &to, "third");
        let _records = beside.stop();
        others_run(&stage, place, &control, &to, "fourth");
        let _records = stage.agent.stop();
    });
}
