//! Policies that are enforced: who is denied, what he is told, what is recorded.

use std::{fs, path::Path, process::Output};

use procid_tests::{
    listener,
    records::{Records, text},
    scratch::Image,
    stage::Stage,
    truth::Act,
};

const EPERM: i32 = 1;

/// A policy under which `allowed` alone may reach a port, over TCP and UDP.
fn only(allowed: &str, port: u16) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"allow\"\n\n\
         [[rule]]\nname = \"the one\"\naction = \"allow\"\n{allowed}\n\
         destination = {{ cidr = \"127.0.0.0/8\", port = {port} }}\n\n\
         [[rule]]\nname = \"no other\"\naction = \"deny\"\n\
         destination = {{ cidr = \"127.0.0.0/8\", port = {port} }}\n"
    )
}

fn by_path(file: &Path) -> String {
    format!("process = {{ executable = \"{}\" }}", file.display())
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Runs `image` once: a TCP connect and a datagram.
fn knock(stage: &Stage, image: &Image, to: &listener::Tcp, udp: &listener::Udp) -> [Act; 2] {
    let run = |arguments: [&str; 3]| {
        let mut acts = stage.start_file(&image.path, arguments).finish().acts;
        assert_eq!(acts.len(), 1);
        acts.remove(0)
    };
    [
        run(["connect", "--to", &to.address().to_string()]),
        run(["udp", "--to", &udp.address().to_string()]),
    ]
}

/// A TCP and a UDP listener on one port.
fn listeners() -> (listener::Tcp, listener::Udp) {
    let tcp = listener::Tcp::on("127.0.0.1:0");
    let udp = listener::Udp::on(&tcp.address().to_string());
    (tcp, udp)
}

#[test]
fn an_executable_is_allowed_by_its_name_and_a_copy_is_not() {
    let (tcp, udp) = listeners();
    let mut stage = Stage::new();
    let copy = stage.scratch.program("copy");
    stage.apply(&only(&by_path(&stage.app.path), tcp.address().port()), &[]);

    for act in knock(&stage, &stage.app, &tcp, &udp) {
        assert_eq!(act.error, None);
    }
    for act in knock(&stage, &copy, &tcp, &udp) {
        assert_eq!(act.error, Some(EPERM));
    }
    assert!(stage.agent.until(|records| records.denials().count() == 2));
    let records = stage.agent.stop();
    for record in records.denials() {
        assert_eq!(text(record, "/rule/name"), "no other");
        assert_eq!(text(record, "/process/name"), "copy");
        assert_eq!(text(record, "/event/outcome"), "success");
        assert_eq!(record.pointer("/procid/generation"), Some(&1.into()));
    }
    let allowed = records.of_action("connect").find(|record| {
        text(record, "/process/name") == "app" && text(record, "/procid/verdict") == "allow"
    });
    assert_eq!(text(allowed.unwrap(), "/rule/name"), "the one");
    // Nothing of what was denied arrived.
    assert_eq!(tcp.peers(1).len(), 1);
    assert_eq!(udp.senders().len(), 1);
    assert_eq!(records.lost(), 0);
}

#[test]
fn a_hash_is_allowed_under_any_name_until_a_byte_changes() {
    let (tcp, udp) = listeners();
    let mut stage = Stage::new();
    let other = stage.scratch.program("other");
    let changed = stage.scratch.program("changed");
    let mut bytes = fs::read(&changed.path).unwrap();
    bytes.push(0);
    fs::write(&changed.path, bytes).unwrap();
    // Known before they act: what is not known yet is another test's.
    for image in [&other, &changed] {
        let act = knock(&stage, image, &tcp, &udp)[0].clone();
        stage.wait_for_hash(act.actor.pid, &Image::of(&image.path).file);
    }
    let process = format!("process = {{ sha256 = \"{}\" }}", other.sha256);
    stage.apply(&only(&process, tcp.address().port()), &[]);
    for act in knock(&stage, &other, &tcp, &udp) {
        assert_eq!(act.error, None);
    }
    for act in knock(&stage, &changed, &tcp, &udp) {
        assert_eq!(act.error, Some(EPERM));
    }
}

#[test]
fn audit_blocks_nothing_and_says_what_it_would_have_done() {
    let (tcp, udp) = listeners();
    let mut stage = Stage::new();
    let policy = only(&by_path(Path::new("/usr/bin/true")), tcp.address().port());
    stage.apply(&policy.replace("\"enforce\"", "\"audit\""), &[]);
    let acts = knock(&stage, &stage.app, &tcp, &udp);
    assert!(acts.iter().all(|act| act.error.is_none()), "{acts:?}");
    stage.agent.settle(&acts);
    let records = stage.agent.stop();
    for act in &acts {
        let told = records.of_act(act);
        assert_eq!(text(told[0], "/procid/verdict"), "audit");
        assert_eq!(text(told[0], "/rule/name"), "no other");
    }
    assert!(records.denials().next().is_none());
}

#[test]
fn a_policy_that_nobody_confirms_gives_way_to_the_one_before() {
    let (tcp, udp) = listeners();
    let mut stage = Stage::new();
    let port = tcp.address().port();
    stage.apply(&only(&by_path(&stage.app.path), port), &[]);
    let other = only(&by_path(Path::new("/usr/bin/true")), port);
    stage.apply(&other, &["--confirm", "2s"]);
    assert_eq!(knock(&stage, &stage.app, &tcp, &udp)[0].error, Some(EPERM));
    let reverted = |records: &Records| {
        let mut changes = records.of_action("policy");
        changes.any(|record| text(record, "/procid/policy/change") == "revert")
    };
    assert!(stage.agent.until(reverted));
    assert_eq!(knock(&stage, &stage.app, &tcp, &udp)[0].error, None);

    stage.apply(&other, &["--confirm", "600s"]);
    assert!(stage.agent.ask(&["policy", "confirm"]).status.success());
    assert_eq!(knock(&stage, &stage.app, &tcp, &udp)[0].error, Some(EPERM));
}

#[test]
fn a_bad_policy_changes_nothing() {
    let (tcp, udp) = listeners();
    let stage = Stage::new();
    stage.apply(
        &only(&by_path(Path::new("/usr/bin/true")), tcp.address().port()),
        &[],
    );
    let file = stage.scratch.path().join("bad.toml");
    fs::write(&file, "mode = \"enforce\"\ndefault = \"maybe\"\n").unwrap();
    let file = file.display().to_string();
    let output = stage.agent.ask(&["policy", "apply", &file]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("bad.toml:2:11"), "{}", said(&output));
    assert_eq!(knock(&stage, &stage.app, &tcp, &udp)[0].error, Some(EPERM));
}

#[test]
fn a_default_of_deny_lets_through_what_a_rule_allows() {
    let (tcp, udp) = listeners();
    let stage = Stage::new();
    let errors = |rules: &str| {
        let head = "mode = \"enforce\"\ndefault = \"deny\"\n";
        stage.apply(&format!("{head}{rules}"), &[]);
        knock(&stage, &stage.app, &tcp, &udp).map(|act| act.error)
    };
    let allow = |what: &str| format!("[[rule]]\nname = \"x\"\naction = \"allow\"\n{what}\n");
    let port = tcp.address().port();
    assert_eq!(errors(""), [Some(EPERM); 2]);
    assert_eq!(errors("loopback = \"allow\"\n"), [None; 2]);
    assert_eq!(errors(&allow("process = { uid = 0 }")), [None; 2]);
    assert_eq!(errors(&allow("process = { uid = 7 }")), [Some(EPERM); 2]);
    let tcp_only = format!("destination = {{ port = {port}, transport = \"tcp\" }}");
    assert_eq!(errors(&allow(&tcp_only)), [None, Some(EPERM)]);
    let cgroup = |path: &Path| format!("process = {{ cgroup = \"{}\" }}", path.display());
    let name = stage.cgroup.path().file_name().unwrap();
    let path = Path::new("/").join(name);
    assert_eq!(errors(&allow(&cgroup(&path))), [None; 2]);
    let mut beside = path.into_os_string();
    beside.push("x");
    let beside = cgroup(Path::new(&beside));
    assert_eq!(errors(&allow(&beside)), [Some(EPERM); 2]);
}

/// Where there is no BPF LSM, or none is to be used.
#[test]
fn protection_that_cannot_be_is_said_to_be_none() {
    const WHY: &str = "it needs BPF LSM, and the backend is cgroup";
    let stage = Stage::with(&["--backend", "cgroup"]);
    let policy = "mode = \"enforce\"\nprotect = true\n";
    let warnings = stage.apply(policy, &[]);
    let told = format!("`protect` does nothing here: {WHY}");
    assert!(warnings.contains(&told), "{warnings}");
    let status = said(&stage.agent.ask(&["status"]));
    let told = format!("  protected   no: {WHY}\n");
    assert!(status.contains(&told), "{status}");
    let file = stage.scratch.path().join("policy.toml");
    let strict = ["policy", "apply", "--strict", &file.display().to_string()];
    let refused = stage.agent.ask(&strict);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));

    // Nor does it keep anything from being changed, or ended.
    stage.apply("mode = \"enforce\"\n", &[]);
    let status = said(&stage.agent.ask(&["status"]));
    assert!(status.contains("  protected   no\n"), "{status}");
    drop(stage.agent.stop());
}
