//! What a new policy means for what runs and is open already: connections that
//! it denies, those of who applies it, and images without a hash.

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    process::{Command, Output},
};

use procid_tests::{
    listener,
    program::Program,
    scratch::{Image, procid},
    stage::Stage,
};

const EPERM: i32 = 1;

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A connection that stays open.
fn hold(stage: &Stage, image: &Image, to: &listener::Tcp) -> Program {
    let to = to.address().to_string();
    let mut program = stage.start_file(&image.path, ["connect", "--hold", "--to", &to]);
    assert_eq!(program.act().error, None);
    program
}

/// A policy under which `allowed` alone may reach a port.
fn only(allowed: &Path, port: u16) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"allow\"\n\n\
         [[rule]]\nname = \"the one\"\naction = \"allow\"\n\
         process = {{ executable = \"{}\" }}\ndestination = {{ port = {port} }}\n\n\
         [[rule]]\nname = \"no other\"\naction = \"deny\"\n\
         process = {{ uid = 0 }}\ndestination = {{ port = {port} }}\n",
        allowed.display()
    )
}

fn write(stage: &Stage, policy: &str) -> String {
    let file = stage.scratch.path().join("policy.toml");
    fs::write(&file, policy).unwrap();
    file.display().to_string()
}

/// Connections to a port that the kernel has now.
fn open_to(port: u16) -> usize {
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace());
    fields
        .filter(|fields| {
            let mut fields = fields.clone().skip(2);
            let to = fields.next().is_some_and(|to| to.ends_with(&port));
            to && fields.next() == Some("01")
        })
        .count()
}

#[test]
fn what_the_policy_denies_is_closed_and_nothing_else() {
    let tcp = listener::Tcp::on("127.0.0.1:0");
    let port = tcp.address().port();
    let stage = Stage::new();
    let other = stage.scratch.program("other");
    let kept = hold(&stage, &stage.app, &tcp);
    let denied = [hold(&stage, &other, &tcp), hold(&stage, &other, &tcp)];
    assert_eq!(open_to(port), 3);
    let file = write(&stage, &only(&stage.app.path, port));

    let dry = stage
        .agent
        .ask(&["policy", "apply", &file, "--cut", "--dry-run"]);
    assert!(dry.status.success(), "{}", said(&dry));
    assert!(
        said(&dry).contains("2 connections would be closed"),
        "{}",
        said(&dry)
    );
    assert_eq!(open_to(port), 3);

    let audit = write(
        &stage,
        &only(&stage.app.path, port).replace("\"enforce\"", "\"audit\""),
    );
    let output = stage.agent.ask(&["policy", "apply", &audit, "--cut"]);
    assert!(
        said(&output).contains("0 connections closed"),
        "{}",
        said(&output)
    );

    let file = write(&stage, &only(&stage.app.path, port));
    let output = stage.agent.ask(&["policy", "apply", &file, "--cut"]);
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("2 connections closed; 0 left open"), "{text}");
    for program in &denied {
        assert!(
            text.contains(&format!("of process {}", program.pid())),
            "{text}"
        );
    }
    assert!(text.contains("rule \"no other\""), "{text}");
    assert_eq!(open_to(port), 1);
    assert_eq!(kept.finish().acts.len(), 0);
}

#[test]
fn what_another_process_may_still_use_is_left_open() {
    let tcp = listener::Tcp::on("127.0.0.1:0");
    let port = tcp.address().port();
    let stage = Stage::new();
    let allowed = Command::new("bash");
    let denied = only(&stage.app.path, port);
    // One connection, that bash opens and the test program inherits.
    let mut command = allowed;
    let app = stage.app.path.display().to_string();
    command.args([
        "-c",
        &format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; '{app}' udp --hold --to 127.0.0.1:4000; exit 0"
        ),
    ]);
    let mut program = Program::spawn(&stage.cgroup, command);
    assert_eq!(program.act().error, None);
    let file = write(&stage, &denied);
    let output = stage.agent.ask(&["policy", "apply", &file, "--cut"]);
    let text = said(&output);
    assert!(text.contains("0 connections closed; 1 left open"), "{text}");
    assert_eq!(open_to(port), 1);
    drop(program);
}

#[test]
fn who_applies_is_warned_of_his_own_connection() {
    let tcp = listener::Tcp::on("127.0.0.1:0");
    let to = tcp.address();
    let stage = Stage::new();
    let policy = "mode = \"enforce\"\ndefault = \"deny\"\n\n\
                  [[rule]]\nname = \"names\"\naction = \"allow\"\ndestination = { port = 53 }\n";
    let file = write(&stage, policy);
    let from_tunnel =
        |further: &str| {
            let mut command = Command::new("bash");
            command.args(["-c", &format!(
            "exec 3<>/dev/tcp/{}/{}; '{}' policy apply {file} {further} --socket '{}'; exit $?",
            to.ip(),
            to.port(),
            procid().display(),
            stage.agent.socket().display()
        )]);
            stage.cgroup.holds(&mut command);
            command.output().unwrap()
        };
    let warning = format!(
        "the default denies its connection to {} port {}",
        to.ip(),
        to.port()
    );
    for further in ["--dry-run", ""] {
        let output = from_tunnel(further);
        assert!(output.status.success(), "{}", said(&output));
        let text = said(&output);
        assert_eq!(text.matches(&warning).count(), 1, "{text}");
        assert!(text.contains("bash"), "{text}");
    }
    // From where no connection is denied, there is nothing to say.
    let output = stage.agent.ask(&["policy", "apply", &file, "--dry-run"]);
    assert!(
        !said(&output).contains("warning: you act from"),
        "{}",
        said(&output)
    );
}

#[test]
fn images_that_run_are_hashed_before_the_policy_is_in_force() {
    let tcp = listener::Tcp::on("127.0.0.1:0");
    let to = tcp.address().to_string();
    let stage = Stage::new();
    // Large enough that its hash takes longer than an apply does.
    let large = stage.scratch.program("large");
    let file = OpenOptions::new().write(true).open(&large.path).unwrap();
    file.set_len(400 << 20).unwrap();
    drop::<File>(file);
    let large = Image::of(&large.path);
    let policy = format!(
        "mode = \"enforce\"\ndefault = \"allow\"\nunknown_hash = \"deny\"\n\n\
         [[rule]]\nname = \"listed\"\naction = \"deny\"\nprocess = {{ sha256 = \"{}\" }}\n",
        "00".repeat(32)
    );
    let file = write(&stage, &policy);
    let mut program = stage.start_file(&large.path, ["connect", "--wait", "--to", &to]);
    let output = stage.agent.ask(&["policy", "apply", &file]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        !said(&output).contains(&format!("{} (", program.pid())),
        "{}",
        said(&output)
    );
    program.go();
    assert_eq!(program.finish().acts[0].error, None);
}

#[test]
fn images_that_cannot_be_hashed_are_listed() {
    let stage = Stage::new();
    let huge = stage.scratch.program("huge");
    let file = OpenOptions::new().write(true).open(&huge.path).unwrap();
    file.set_len(10 << 30).unwrap();
    drop::<File>(file);
    let policy = format!(
        "mode = \"enforce\"\ndefault = \"allow\"\nunknown_hash = \"deny\"\n\n\
         [[rule]]\nname = \"listed\"\naction = \"deny\"\nprocess = {{ sha256 = \"{}\" }}\n",
        "00".repeat(32)
    );
    let file = write(&stage, &policy);
    let mut program = stage.start_file(&huge.path, ["udp", "--wait", "--to", "127.0.0.1:4000"]);
    let output = stage.agent.ask(&["policy", "apply", &file]);
    assert!(output.status.success(), "{}", said(&output));
    let listed = format!("{} ({}, too-large)", program.pid(), huge.path.display());
    assert!(said(&output).contains(&listed), "{}", said(&output));
    program.go();
    assert_eq!(program.finish().acts[0].error, Some(EPERM));
}
