//! `procid policy explain` says what the kernel then does.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use procid_tests::{
    agent::LIMIT, program::Program, records::text, scratch::Image, stage::Stage, truth::Act,
};
use serde_json::Value;

use super::decisions::{EPERM, USERS, World, told};

/// So many policies, each explained to so many processes, of so many
/// destinations.
const POLICIES: usize = 20;
const PROCESSES: usize = 3;
const DESTINATIONS: usize = 5;

fn explain(stage: &Stage, pid: u32, to: SocketAddr, transport: &str, further: &[&str]) -> Value {
    let (pid, to) = (pid.to_string(), to.to_string());
    let mut arguments = vec!["policy", "explain", "--json", "--pid", &pid, "--to", &to];
    arguments.extend(["--transport", transport]);
    arguments.extend(further);
    let output = stage.agent.ask(&arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the process, which began as `enter`, runs that file as another
/// program of it.
fn wait_for_exec(program: &Program, image: &Image) {
    let start = Instant::now();
    let of_process = |file: &str| format!("/proc/{}/{file}", program.pid());
    let enters = || {
        let arguments = fs::read(of_process("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).nth(1) == Some(b"enter")
    };
    while enters() || fs::read_link(of_process("exe")).ok().as_deref() != Some(&*image.path) {
        assert!(
            start.elapsed() < LIMIT,
            "no exec of {}",
            image.path.display()
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// A process that waits before it sends to each of a few destinations.
fn process(world: &mut World<'_>) -> (Program, Vec<SocketAddr>, &'static str) {
    let image = world.images[world.random.usize(0..2)];
    let user = USERS[world.random.usize(0..USERS.len())].to_string();
    let path = image.path.display().to_string();
    let (program, transport) = [("udp", "udp"), ("connect", "tcp")][world.random.usize(0..2)];
    let mut arguments = vec!["enter", "--uid", &user, "--", &path, program, "--wait"];
    let to: Vec<_> = (0..DESTINATIONS)
        .map(|_| {
            let (host, port) = (world.random.u8(1..8), world.random.u16(4000..4008));
            SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port))
        })
        .collect();
    let texts: Vec<_> = to.iter().map(SocketAddr::to_string).collect();
    for to in &texts {
        arguments.extend(["--to", to]);
    }
    let program = world.stage.start(arguments);
    wait_for_exec(&program, image);
    (program, to, transport)
}

#[test]
fn what_is_explained_is_what_is_done() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut stage = Stage::new();
    let other = stage.scratch.program("other");
    let app = stage.app.clone();
    for image in [&app, &other] {
        let acts = stage
            .start_file(&image.path, ["udp", "--to", "127.0.0.1:4000"])
            .finish()
            .acts;
        stage.wait_for_hash(acts[0].actor.pid, &image.file);
    }
    let mut decided: Vec<(Act, Value)> = Vec::new();
    for number in 0..POLICIES {
        let mut world = World {
            random: Rng::with_seed(seed.wrapping_add(number as u64)),
            stage: &stage,
            images: [&app, &other],
            container: None,
        };
        let policy = world.policy();
        stage.apply(&policy, &[]);
        // The same, asked of a policy that is not in force.
        let file = stage.scratch.path().join("other.toml");
        fs::write(&file, &policy).unwrap();
        let file = file.display().to_string();
        for _ in 0..PROCESSES {
            let (mut program, to, transport) = process(&mut world);
            let pid = program.pid();
            let said = to
                .iter()
                .map(|to| explain(&stage, pid, *to, transport, &[]))
                .collect::<Vec<_>>();
            let tried = explain(&stage, pid, to[0], transport, &["--file", &file]);
            program.go();
            let acts = program.finish().acts;
            assert_eq!(acts.len(), said.len());
            for field in ["/verdict", "/rule", "/why", "/passed", "/audit", "/process"] {
                assert_eq!(tried.pointer(field), said[0].pointer(field), "{policy}");
            }
            for (act, said) in acts.into_iter().zip(said) {
                assert_eq!(
                    act.error == Some(EPERM),
                    said["verdict"] == "deny",
                    "seed {seed}: {said:#}: {act:?}, {policy}"
                );
                decided.push((act, said));
            }
        }
    }
    let is_denied = |said: &&(Act, Value)| said.1["verdict"] == "deny";
    let denied = decided.iter().filter(is_denied).count();
    // Neither everything nor nothing.
    assert!((20..decided.len() - 20).contains(&denied), "{denied}");
    let enough = |records: &procid_tests::records::Records| records.denials().count() >= denied;
    assert!(stage.agent.until(enough));
    let records = stage.agent.stop();
    for (act, said) in &decided {
        let rule = told(&records, act);
        if said["verdict"] == "deny" {
            assert_eq!(
                rule.as_deref(),
                Some(&*text(said, "/rule/name")),
                "{said:#}"
            );
        } else {
            assert_eq!(rule, None, "{said:#}");
        }
        reasons_hold(said);
    }
}

/// Every rule before the one that decides has a field that kept it from that,
/// and the one that decides has none.
fn reasons_hold(said: &Value) {
    assert_eq!(said["notes"], Value::Array(Vec::new()), "{said:#}");
    let decided = text(said, "/rule/name");
    for passed in said["passed"].as_array().unwrap() {
        assert_ne!(text(passed, "/name"), decided, "{said:#}");
        assert!(text(passed, "/field").contains('.'), "{said:#}");
    }
}

#[test]
fn reasons_are_given_in_words() {
    let stage = Stage::new();
    let mut program = stage.start(["udp", "--wait", "--to", "127.0.0.1:4000"]);
    wait_for_exec(&program, &stage.app);
    let policy = format!(
        "mode = \"enforce\"\ndefault = \"deny\"\nloopback = \"judge\"\n\n\
         [[rule]]\nname = \"other\"\naction = \"allow\"\n\
         process = {{ executable = \"{}/other\" }}\n\n\
         [[rule]]\nname = \"user\"\naction = \"allow\"\nprocess = {{ uid = 7 }}\n\n\
         [[rule]]\nname = \"child\"\naction = \"allow\"\n\
         process = {{ ancestor = {{ executable = \"{}/other\" }} }}\n\n\
         [[rule]]\nname = \"noted\"\naction = \"audit\"\n\n\
         [[rule]]\nname = \"port\"\naction = \"allow\"\n\
         destination = {{ cidr = \"127.0.0.1\", port = 4001 }}\n",
        stage.scratch.path().display(),
        stage.scratch.path().display()
    );
    stage.apply(&policy, &[]);
    let to = "127.0.0.1:4000".parse().unwrap();
    let said = explain(&stage, program.pid(), to, "udp", &[]);
    assert_eq!(said["verdict"], "deny");
    assert_eq!(said.pointer("/rule"), None);
    assert_eq!(said["why"], "no rule matches: default = \"deny\"");
    let passed: Vec<_> = said["passed"].as_array().unwrap().iter().collect();
    let of = |at: usize, field: &str| text(passed[at], field).into_owned();
    assert_eq!(of(0, "/field"), "process.executable");
    assert_eq!(
        of(0, "/reason"),
        format!("it runs {}", stage.app.path.display())
    );
    assert_eq!(
        (of(1, "/name"), of(1, "/reason")),
        ("user".into(), "0".into())
    );
    assert_eq!(of(2, "/field"), "process.ancestor");
    assert_eq!(of(3, "/field"), "destination.port");
    assert_eq!(text(&said, "/audit/0/name"), "noted");
    let as_user = explain(&stage, program.pid(), to, "udp", &["--uid", "7"]);
    assert_eq!(text(&as_user, "/rule/name"), "user");
    let elsewhere = "127.0.0.1:4001".parse().unwrap();
    let said = explain(&stage, program.pid(), elsewhere, "tcp", &[]);
    assert_eq!(said["verdict"], "allow");
    program.go();
    assert_eq!(program.finish().acts[0].error, Some(EPERM));

    let none = stage.agent.ask(&[
        "policy",
        "explain",
        "--pid",
        "4194305",
        "--to",
        "127.0.0.1:1",
    ]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
}
