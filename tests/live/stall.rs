//! What an exec gate that stands still does to the programs before it: nothing
//! for long.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use procid_tests::{
    cgroup::TestCgroup,
    gate::{Gate, line_of_file, on_own_file_system, program, run, small_queue, watchdog_of},
    listener,
    scratch::Image,
    stage::Stage,
    unseen::denies,
};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(20);
/// Of a gate whose agent is waited for that long: nothing here waits for it.
const FOREVER: Duration = Duration::from_secs(60);
/// Longer than a watchdog may stand still.
const LONG: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs a program on another thread; it says when the program has ended.
fn run_aside(path: PathBuf) -> Receiver<()> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        run(&path);
        // Who waited may have failed.
        let _gone = sender.send(());
    });
    receiver
}

fn has_run(program: &Receiver<()>) -> bool {
    program.recv_timeout(LIMIT).is_ok()
}

/// What stands still is ended, so that what waits for it goes on, and what
/// comes after does not wait.
fn goes_on_without(gate: &mut Gate, place: &Path) {
    // All are written before one is started: what waits to be executed has
    // inherited what was open for writing then.
    let paths: Vec<_> = (0..4)
        .map(|number| program(place, &format!("waits-{number}")))
        .collect();
    let after = program(place, "after");
    let waits: Vec<_> = paths.into_iter().map(run_aside).collect();
    assert!(waits.iter().all(has_run), "held up for good");
    assert!(has_run(&run_aside(after)));
    gate.signal(Signal::CONT);
    let begun = Instant::now();
    while gate.count("open") == "true" {
        assert!(begun.elapsed() < LIMIT, "it is not missed");
    }
    assert_eq!(gate.count("hashed"), "1", "only what came before");
}

#[test]
fn a_stopped_watchdog_holds_nothing_up_for_good() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        run(&program(place, "before"));
        kill_process(gate.watchdog(), Signal::STOP).unwrap();
        goes_on_without(&mut gate, place);
    });
}

#[test]
fn nor_does_one_whose_agent_is_stopped_too() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        run(&program(place, "before"));
        gate.signal(Signal::STOP);
        kill_process(gate.watchdog(), Signal::STOP).unwrap();
        goes_on_without(&mut gate, place);
    });
}

/// `systemctl freeze` of the agent's service.
#[test]
fn nor_does_one_that_is_frozen_with_its_cgroup() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        run(&program(place, "before"));
        let cgroup = TestCgroup::new();
        let watchdog = gate.watchdog().as_raw_nonzero().to_string();
        fs::write(cgroup.path().join("cgroup.procs"), watchdog).unwrap();
        fs::write(cgroup.path().join("cgroup.freeze"), "1").unwrap();
        goes_on_without(&mut gate, place);
    });
}

#[test]
fn a_watchdog_that_has_nothing_to_do_stays() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        thread::sleep(LONG);
        let path = program(place, "app");
        run(&path);
        assert!(gate.said(&line_of_file(&path)));
        assert_eq!(gate.count("open"), "true");
    });
}

/// The kernel asks about as many as its queue holds, and lets the others go on
/// at once.
#[test]
fn a_full_queue_holds_nothing_up_and_is_counted() {
    const QUEUE: usize = 4;
    const PROGRAMS: usize = 12;
    on_own_file_system(|place| {
        let mut gate = small_queue(QUEUE, || Gate::on(place, FOREVER));
        let paths: Vec<_> = (0..PROGRAMS)
            .map(|number| program(place, &format!("app-{number}")))
            .collect();
        let watchdog: Pid = gate.watchdog();
        kill_process(watchdog, Signal::STOP).unwrap();
        let mut waiting: Vec<_> = paths.iter().cloned().map(run_aside).collect();
        let begun = Instant::now();
        while waiting.len() > QUEUE && begun.elapsed() < LIMIT {
            waiting.retain(|program| program.try_recv().is_err());
            thread::sleep(LOOK_EVERY);
        }
        assert_eq!(waiting.len(), QUEUE, "of {PROGRAMS}");
        kill_process(watchdog, Signal::CONT).unwrap();
        assert!(waiting.iter().all(has_run));
        assert_eq!(gate.count("overflows"), "1");
        assert_eq!(gate.count("events"), QUEUE.to_string());
        assert_eq!(gate.count("hashed"), QUEUE.to_string());
        let hashed = paths.iter().filter(|path| gate.said(&line_of_file(path)));
        assert_eq!(hashed.count(), QUEUE);
        // It asks again.
        run(&program(place, "later"));
        assert_eq!(gate.count("hashed"), (QUEUE + 1).to_string());
        assert_eq!(gate.count("overflows"), "1");
    });
}

/// What went on unasked while nobody could hash it is for `unknown_hash`; what
/// was asked about is judged by its hash.
#[test]
fn what_a_full_queue_lets_through_is_unknown() {
    const QUEUE: usize = 4;
    // Few, for they are to end before the watchdog does.
    const PROGRAMS: usize = 8;
    const EXEC: &str = "exec \"$0\" \"$@\"";
    on_own_file_system(|place| {
        let to = listener::Tcp::on("127.0.0.1:0");
        let arguments = ["--exec-gate", place.to_str().unwrap()];
        let mut stage = small_queue(QUEUE, || Stage::with(&arguments));
        let denied = Image::copy_to(&stage.scratch.path().join("denied"));
        stage.apply(&denies(&denied, to.address().port(), "deny"), &[]);
        let copies: Vec<_> = (0..PROGRAMS)
            .map(|number| Image::copy_to(&place.join(format!("app-{number}"))).path)
            .collect();
        let both = [stage.agent.pid(), watchdog_of(stage.agent.pid()).unwrap()];
        let signal = |signal| both.map(|pid| kill_process(pid, signal).unwrap());
        let address = to.address().to_string();
        signal(Signal::STOP);
        let (unasked, asked): (Vec<_>, Vec<_>) = thread::scope(|scope| {
            let (sender, connected) = channel();
            for copy in &copies {
                let (sender, stage, address) = (sender.clone(), &stage, &address);
                scope.spawn(move || {
                    // Started by a shell: what waits to be executed holds what it
                    // has inherited, the pipes of the others' starts too.
                    let copy = copy.to_str().unwrap();
                    let connect = ["-c", EXEC, copy, "connect", "--reset", "--to", address];
                    let acts = stage
                        .start_file(Path::new("/bin/sh"), connect)
                        .finish()
                        .acts;
                    sender.send(acts[0].error).unwrap();
                });
            }
            let next = || connected.recv_timeout(LIMIT);
            let unasked = (QUEUE..PROGRAMS).map(|_| next()).collect();
            signal(Signal::CONT);
            (unasked, (0..QUEUE).map(|_| next()).collect())
        });
        assert_eq!(unasked, [Ok(Some(libc::EPERM)); PROGRAMS - QUEUE]);
        assert_eq!(asked, [Ok(None); QUEUE]);
        let counts = ["executions", "hashed", "overflows", "timed_out", "passed"];
        let counts = counts.map(|count| stage.gate(count).as_u64().unwrap());
        assert_eq!(counts, [QUEUE as u64, QUEUE as u64, 1, 0, 0]);
        let told = stage
            .agent
            .until(|records| records.denials().count() == PROGRAMS - QUEUE);
        assert!(told, "{}", stage.agent.records().denials().count());
        let _records = stage.agent.stop();
    });
}
