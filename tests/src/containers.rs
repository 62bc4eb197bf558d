//! Cgroups that runtimes name by the ids of containers, and cgroups that others
//! name so.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    agent::LIMIT,
    listener,
    program::Program,
    records::{Records, text},
    stage::Stage,
    truth::Act,
};

const EPERM: i32 = 1;
const NOBODY: u32 = 65_534;
/// Two containers; what rules ask for is the beginning of each.
const ONE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// A cgroup, and the container that it is in.
struct Place {
    path: PathBuf,
    container: Option<&'static str>,
}

/// Cgroups below the stage's.
fn places(stage: &Stage) -> Vec<Place> {
    let make = |path: &str| {
        let path = stage.cgroup.path().join(path);
        fs::create_dir_all(&path).expect("a cgroup");
        path
    };
    let one = format!("docker-{ONE}.scope");
    let mut places = vec![
        (make("plain"), None),
        (make(&one), Some(ONE)),
        (make(&format!("kubepods/{OTHER}")), Some(OTHER)),
        // As the init of a container makes them.
        (make(&format!("{one}/init.scope")), Some(ONE)),
        // The superuser of a container is still in that one.
        (make(&format!("{one}/libpod-{OTHER}.scope")), Some(ONE)),
        // Outside the container that it watches.
        (make(&format!("libpod-conmon-{ONE}.scope")), None),
        (make(&format!("docker-{}.scope", &ONE[1..])), None),
    ];
    // What an ordinary user was given is his to name.
    let delegated = make("delegated");
    chown(&delegated, Some(NOBODY), None).expect("root gives away");
    let forged = delegated.join(&one);
    let made = Command::new("mkdir").arg(&forged).uid(NOBODY).status();
    assert!(made.expect("mkdir runs").success());
    places.push((forged, None));
    places
        .into_iter()
        .map(|(path, container)| Place { path, container })
        .collect()
}

fn knock(stage: &Stage, cgroup: &Path, to: &listener::Tcp) -> Act {
    let mut command = Command::new(&stage.app.path);
    command.args(["connect", "--to", &to.address().to_string()]);
    let mut acts = Program::spawn_in(cgroup, command).finish().acts;
    assert_eq!(acts.len(), 1);
    acts.remove(0)
}

fn rule(action: &str, prefixes: &str, port: u16) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"allow\"\n\n\
         [[rule]]\nname = \"by container\"\naction = \"{action}\"\n\
         process = {{ container = {prefixes} }}\n\
         destination = {{ port = {port} }}\n\n\
         [[rule]]\nname = \"no other\"\naction = \"deny\"\n\
         destination = {{ port = {port} }}\n"
    )
}

/// Rules by `container` and records name the same ones.
///
/// # Panics
///
/// When they do not.
pub fn a_container_is_a_cgroup_that_root_named_so(mut stage: Stage) {
    let to = listener::Tcp::on("127.0.0.1:0");
    let port = to.address().port();
    let places = places(&stage);
    let mut acts = Vec::new();
    // Those of one container, of a longer beginning of its id, of both, of none.
    for (prefixes, of) in [
        (format!("\"{}\"", &ONE[..12]), vec![ONE]),
        (format!("\"{ONE}\""), vec![ONE]),
        (
            format!("[\"{}\", \"{}\"]", &OTHER[..40], &ONE[..13]),
            vec![ONE, OTHER],
        ),
        (format!("\"{}\"", "f".repeat(12)), vec![]),
    ] {
        stage.apply(&rule("allow", &prefixes, port), &[]);
        for place in &places {
            let act = knock(&stage, &place.path, &to);
            let is_allowed = place.container.is_some_and(|id| of.contains(&id));
            let expected = if is_allowed { None } else { Some(EPERM) };
            assert_eq!(
                act.error,
                expected,
                "{prefixes} in {}",
                place.path.display()
            );
            acts.push((act, place.container));
        }
    }
    who(&stage, &acts);
    stage
        .agent
        .settle(&acts.iter().map(|(act, _)| act.clone()).collect::<Vec<_>>());
    let records = stage.agent.stop();
    for (act, container) in &acts {
        told(&records, act, *container);
    }
    assert_eq!(records.lost(), 0);
}

/// Every record of an act names the container.
fn told(records: &Records, act: &Act, container: Option<&str>) {
    let of_act = records.of_act(act);
    assert!(!of_act.is_empty(), "{act:?}");
    for record in of_act {
        let told = record.pointer("/container/id").and_then(|id| id.as_str());
        assert_eq!(told, container, "{record}");
    }
}

/// `procid who --container` finds those of a container and no others.
fn who(stage: &Stage, acts: &[(Act, Option<&str>)]) {
    let count = |id: &str| {
        acts.iter()
            .filter(|(_, within)| *within == Some(id))
            .count()
    };
    for id in [ONE, OTHER] {
        let deadline = std::time::Instant::now() + LIMIT;
        loop {
            let output = stage
                .agent
                .ask(&["who", "--json", "--container", &id[..12]]);
            let lines = String::from_utf8_lossy(&output.stdout).into_owned();
            let found: Vec<serde_json::Value> = lines
                .lines()
                .map(|line| serde_json::from_str(line).expect("a record"))
                .filter(|record: &serde_json::Value| record.get("container").is_some())
                .collect();
            if found.len() == count(id) {
                for record in &found {
                    assert_eq!(text(record, "/container/id"), id);
                }
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{id}: {lines}");
        }
    }
}
