//! Programs that nobody has seen before, judged by their hash.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    listener,
    records::{Records, text},
    scratch::Image,
    stage::Stage,
};

const EPERM: i32 = 1;

/// A policy that denies a port to the file of that hash, under any name.
#[must_use]
pub fn denies(denied: &Image, port: u16, unknown: &str) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"allow\"\nunknown_hash = \"{unknown}\"\n\n\
         [[rule]]\nname = \"listed\"\naction = \"deny\"\nprocess = {{ sha256 = \"{}\" }}\n\
         destination = {{ port = {port} }}\n",
        denied.sha256
    )
}

/// Copies the file, runs the copy at once, and says what its connect returned.
///
/// # Panics
///
/// When the file cannot be copied, or does not act.
pub fn run_copy(stage: &Stage, image: &Image, copy: &Path, to: &listener::Tcp) -> Option<i32> {
    fs::copy(&image.path, copy).expect("a copy");
    let to = to.address().to_string();
    let acts = stage
        .start_file(copy, ["connect", "--reset", "--to", &to])
        .finish()
        .acts;
    fs::remove_file(copy).expect("a file");
    assert_eq!(acts.len(), 1);
    acts[0].error
}

/// A denied program copied to new paths in `place` and run at once is denied
/// each of so many times; another one, copied and run so, connects each time:
/// with either verdict on what is not known, for nothing is not known.
///
/// # Panics
///
/// When it is not so, or the records do not say it with that grade.
pub fn judged_at_the_first_connect(stage: Stage, place: &Path, runs: usize, grade: &str) {
    let to = listener::Tcp::on("127.0.0.1:0");
    let denied = Image::copy_to(&stage.scratch.path().join("denied"));
    let control = Image::copy_to(&stage.scratch.path().join("control"));
    for (unknown, image, expected) in [("allow", &denied, Some(EPERM)), ("deny", &control, None)] {
        stage.apply(&denies(&denied, to.address().port(), unknown), &[]);
        let answers: Vec<_> = (0..runs)
            .map(|number| {
                let copy = place.join(format!("{unknown}-{number}"));
                run_copy(&stage, image, &copy, &to)
            })
            .collect();
        let right = answers.iter().filter(|it| **it == expected).count();
        assert_eq!(right, runs, "unknown_hash = {unknown}");
    }
    let records = stage.agent.stop();
    assert_eq!(records.denials().count(), runs);
    assert_eq!(of_image(&records, &control).count(), runs);
    for record in records.denials() {
        assert_eq!(text(record, "/rule/name"), "listed");
        assert_eq!(text(record, "/process/hash/sha256"), denied.sha256);
        assert_eq!(text(record, "/procid/hash/grade"), grade);
    }
    for record in of_image(&records, &control) {
        assert_eq!(text(record, "/procid/hash/grade"), grade);
    }
}

fn of_image<'a>(records: &'a Records, image: &'a Image) -> impl Iterator<Item = &'a Value> {
    let connects = records.of_action("connect");
    connects.filter(|record| text(record, "/process/hash/sha256") == image.sha256)
}
