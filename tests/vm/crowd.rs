//! Many processes at once: a kernel that lets tracepoints be preempted skips
//! programs, of which none may be missed.

use std::{
    process::{Command, Stdio},
    thread,
};

use procid_tests::{
    records::{Records, text},
    stage::Stage,
};

const RUNNERS: usize = 8;
const RUNS: usize = 30;

#[test]
fn each_birth_and_end_in_a_crowd_is_told() {
    let mut stage = Stage::new();
    let path = stage.app.path.to_str().unwrap().to_owned();
    thread::scope(|scope| {
        for _ in 0..RUNNERS {
            scope.spawn(|| {
                for _ in 0..RUNS {
                    let mut program = Command::new(&path);
                    program.arg("--help").stdout(Stdio::null());
                    assert!(program.status().unwrap().success());
                }
            });
        }
    });
    let count = |records: &Records, action| {
        let mut all = records.of_action(action);
        all.by_ref()
            .filter(|record| text(record, "/process/executable") == path)
            .count()
    };
    assert!(
        stage
            .agent
            .until(|records| count(records, "exit") >= RUNNERS * RUNS)
    );
    let records = stage.agent.stop();
    assert_eq!(count(&records, "exec"), RUNNERS * RUNS);
    assert_eq!(count(&records, "exit"), RUNNERS * RUNS);
    assert_eq!(records.lost(), 0);
}
