//! Rules on hashes of programs that nobody has seen before: the exec gate has
//! hashed them when they run.

use std::{fs, path::Path};

use procid_tests::{
    gate::on_own_file_system,
    listener,
    names::{Name, change_nothing},
    records::text,
    scratch::Image,
    stage::Stage,
    unseen::{denies, judged_at_the_first_connect, run_copy},
};

const EPERM: i32 = 1;

fn gated(place: &Path) -> Stage {
    Stage::with(&["--exec-gate", place.to_str().unwrap()])
}

#[test]
fn the_first_connect_of_a_new_file_is_judged_by_its_hash() {
    on_own_file_system(|place| {
        judged_at_the_first_connect(gated(place), place, 1_000, "gated");
    });
}

#[test]
fn another_name_changes_nothing() {
    on_own_file_system(|place| {
        let names = [Name::Renamed, Name::HardLink, Name::BindMount];
        change_nothing(&gated(place), place, &names);
    });
}

/// No gate reaches a file in memory: it is unknown until it has been hashed,
/// after it started.
#[test]
fn a_copy_in_memory_is_unknown_until_it_is_hashed() {
    const RUNS: usize = 100;
    let to = listener::Tcp::on("127.0.0.1:0");
    let address = to.address().to_string();
    let mut stage = Stage::new();
    let denied = Image::copy_to(&stage.scratch.path().join("denied"));
    stage.apply(&denies(&denied, to.address().port(), "deny"), &[]);
    let copy = ["memfd", "--", "copy", "connect", "--to", &address];
    for _ in 0..RUNS {
        let acts = stage.start_file(&denied.path, copy).finish().acts;
        assert_eq!(acts[0].error, Some(EPERM));
    }
    let knocker = stage.start(["memfd", "--", "copy", "knock", "--to", &address]);
    let pid = knocker.pid();
    let connects = stage.agent.until(|records| {
        let mut connects = records.of_action("connect");
        connects.any(|record| {
            record
                .pointer("/process/pid")
                .and_then(serde_json::Value::as_u64)
                == Some(pid.into())
                && text(record, "/event/outcome") == "success"
        })
    });
    assert!(connects, "its hash is known, and not the one denied");
    assert!(knocker.finish().knocks.unwrap().done > 0);
    let records = stage.agent.stop();
    for record in records.denials() {
        let rule = text(record, "/rule/name");
        assert!(["listed", "unknown_hash"].contains(&&*rule), "{rule}");
    }
}

/// An allow by hash stops letting a file through when one byte of it changes.
#[test]
fn a_byte_that_changes_makes_another_file_of_it() {
    on_own_file_system(|place| {
        let to = listener::Tcp::on("127.0.0.1:0");
        let stage = gated(place);
        let image = Image::copy_to(&place.join("service"));
        let port = to.address().port();
        stage.apply(
            &format!(
                "mode = \"enforce\"\ndefault = \"allow\"\nunknown_hash = \"deny\"\n\n\
                 [[rule]]\nname = \"the one\"\naction = \"allow\"\n\
                 process = {{ sha256 = \"{}\" }}\ndestination = {{ port = {port} }}\n\n\
                 [[rule]]\nname = \"no other\"\naction = \"deny\"\n\
                 destination = {{ port = {port} }}\n",
                image.sha256
            ),
            &[],
        );
        let connect = || {
            let to = to.address().to_string();
            let acts = stage
                .start_file(&image.path, ["connect", "--to", &to])
                .finish()
                .acts;
            acts[0].error
        };
        assert_eq!(connect(), None);
        let mut content = fs::read(&image.path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        fs::write(&image.path, &content).unwrap();
        assert_eq!(connect(), Some(EPERM));
        *content.last_mut().unwrap() ^= 1;
        fs::write(&image.path, &content).unwrap();
        assert_eq!(connect(), None);
    });
}

/// A policy that asks for no hash holds nobody up.
#[test]
fn the_gate_stands_while_a_policy_asks_for_hashes_and_no_longer() {
    on_own_file_system(|place| {
        let to = listener::Tcp::on("127.0.0.1:0");
        let stage = gated(place);
        let app = Image::copy_to(&place.join("app"));
        let status = |field: &str| {
            let output = stage.agent.ask(&["status", "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            status["exec_gate"][field].clone()
        };
        let connect = |copy: &str| run_copy(&stage, &app, &place.join(copy), &to);
        assert_eq!(status("stands"), false);
        assert_eq!(connect("a"), None);
        assert_eq!(status("executions"), 0);
        stage.apply(&denies(&app, to.address().port(), "allow"), &[]);
        assert_eq!(status("stands"), true);
        assert_eq!(connect("b"), Some(EPERM));
        assert_eq!(
            (status("executions"), status("hashed")),
            (1.into(), 1.into())
        );
        stage.apply("mode = \"enforce\"\ndefault = \"allow\"\n", &[]);
        assert_eq!(status("stands"), false);
        assert_eq!(connect("c"), None);
        assert_eq!(status("executions"), 1);
    });
}
