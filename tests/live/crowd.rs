//! Decisions in a crowd of live processes, up to more than the programs can
//! hold in mind.

use std::{fs, process::Command};

use procid_tests::{
    listener,
    program::Program,
    records::{has_flag, text},
    scratch::Image,
    stage::Stage,
    truth::Knocks,
};
use serde_json::Value;

const PID_MAX: &str = "/proc/sys/kernel/pid_max";
/// The images that the programs have room for.
const IMAGES: usize = 65_536;

/// Room for more processes than hosts have by default, for a while.
struct PidMax(String);

impl PidMax {
    fn raised_to(processes: usize) -> Self {
        let before = fs::read_to_string(PID_MAX).unwrap();
        if before.trim().parse::<usize>().unwrap() < processes {
            fs::write(PID_MAX, processes.to_string()).unwrap();
        }
        Self(before)
    }
}

impl Drop for PidMax {
    fn drop(&mut self) {
        fs::write(PID_MAX, &self.0).unwrap();
    }
}

/// Nothing but that file may connect.
fn only(image: &Image) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"deny\"\nunknown_hash = \"deny\"\n\n\
         [[rule]]\nname = \"it\"\naction = \"allow\"\nprocess = {{ executable = \"{}\" }}\n",
        image.path.display()
    )
}

/// Nothing but what it is and launches may connect, and what is not known falls
/// on these sides.
fn sides(image: &Image, process: &str, unknown_hash: &str, on_overflow: &str) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"deny\"\nunknown_hash = \"{unknown_hash}\"\n\
         on_overflow = \"{on_overflow}\"\n\n[[rule]]\nname = \"it\"\naction = \"allow\"\n\
         process = {}\n",
        process.replace("IT", &image.path.display().to_string())
    )
}

/// Starts them, and waits until all live.
fn crowd(stage: &Stage, image: &Image, [count, every, rounds]: [usize; 3], to: &str) -> Program {
    let [count, every, rounds] = [count, every, rounds].map(|it| it.to_string());
    let arguments = [
        "crowd", "--count", &count, "--every", &every, "--rounds", &rounds, "--to", to,
    ];
    let mut crowd = stage.start_file(&image.path, arguments);
    crowd.knocks();
    crowd
}

fn answers(crowd: &mut Program) -> Knocks {
    crowd.go();
    crowd.knocks()
}

/// Counts of a cause in a record of losses.
fn lost(record: &Value, cause: &str) -> u64 {
    let pointer = format!("/procid/lost/{cause}");
    record
        .pointer(&pointer)
        .and_then(Value::as_u64)
        .unwrap_or(0)
}

#[test]
fn fifty_thousand_live_processes_are_told_apart() {
    const EACH: usize = 25_000;
    let _room = PidMax::raised_to(3 * EACH);
    let to = listener::Tcp::on("127.0.0.1:0");
    let address = to.address().to_string();
    let stage = Stage::new();
    let other = stage.scratch.program("other");
    stage.apply(&only(&stage.app), &[]);
    let mut crowds = [&stage.app, &other].map(|it| crowd(&stage, it, [EACH, 50, 1], &address));
    let [allowed, denied] = crowds.each_mut().map(answers);
    assert_eq!((allowed.done, allowed.denied, allowed.failed), (500, 0, 0));
    assert_eq!((denied.done, denied.denied, denied.failed), (0, 500, 0));
    for crowd in crowds {
        crowd.finish();
    }
    let (mut denials, mut full, mut untold) = (0, 0, 0);
    stage.agent.stop_and_look(|record| {
        full += lost(record, "images-full");
        untold += lost(record, "ring-full-denial");
        if text(record, "/procid/verdict") == "deny" {
            denials += 1;
        }
    });
    assert_eq!((denials + untold, full), (500, 0));
}

/// An image that there is no room for is not known, whatever its process says
/// of itself, and is not what `unknown_hash` is for.
#[test]
fn an_image_too_many_falls_on_the_side_of_on_overflow() {
    const ALL: usize = IMAGES + 4_464;
    const ACTS: u64 = 1_000;
    let _room = PidMax::raised_to(2 * ALL);
    let to = listener::Tcp::on("127.0.0.1:0");
    let address = to.address().to_string();
    let stage = Stage::new();
    let by_itself = "{ executable = \"IT\" }";
    stage.apply(&sides(&stage.app, by_itself, "allow", "deny"), &[]);
    let every = ALL / usize::try_from(ACTS).unwrap();
    let mut crowd = crowd(&stage, &stage.app, [ALL, every, 3], &address);
    let held = answers(&mut crowd);
    assert_eq!(
        (held.done + held.denied, held.failed),
        (ACTS, 0),
        "{held:?}"
    );
    assert!(held.denied > 0 && held.done > ACTS / 2, "{held:?}");
    let liar = stage.scratch.program("liar");
    let mut command = Command::new(&liar.path);
    // Where nobody listens.
    command.args(["hide-image", "--to", "127.0.0.1:9", "--lie", "mm-exe"]);
    command.arg("--other").arg(&stage.app.path);
    stage.cgroup.holds(&mut command);
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(said.contains("Operation not permitted"), "{said}");
    for process in [by_itself, "{ ancestor = { executable = \"IT\" } }"] {
        stage.apply(&sides(&stage.app, process, "deny", "allow"), &[]);
        let let_go = answers(&mut crowd);
        let counts = (let_go.done, let_go.denied, let_go.failed);
        assert_eq!(counts, (ACTS, 0, 0), "{process}");
    }
    crowd.finish();
    let (mut full, mut untold, mut overflows, mut denials) = (0, 0, 0, 0);
    stage.agent.stop_and_look(|record| {
        full += lost(record, "images-full");
        untold += lost(record, "ring-full-denial");
        overflows += lost(record, "policy-overflow");
        if text(record, "/procid/verdict") == "deny" {
            assert_eq!(text(record, "/rule/name"), "it");
            assert!(has_flag(record, "table-full"), "{record}");
            denials += 1;
        }
    });
    println!("{held:?}, {denials} denials told, {overflows} overflows, {full} images too many");
    assert!(full > 0);
    // The liar is one more.
    assert!(denials + untold > held.denied);
    // As many in the second round. What is before an image the agent knows.
    assert!(overflows > 2 * held.denied, "{overflows}");
}
