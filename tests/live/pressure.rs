//! What is denied stays denied, and is told or counted, whatever else goes on.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use procid_tests::{listener, program::Program, records::text, stage::Stage, truth::Summary};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// A policy that denies a port, by a rule of that name behind so many others.
fn denies(port: u16, name: &str, before: usize) -> String {
    let mut policy = String::from("mode = \"enforce\"\ndefault = \"allow\"\n");
    for number in 0..before {
        policy.push_str(&format!(
            "\n[[rule]]\nname = \"before {number}\"\naction = \"allow\"\n\
             destination = {{ port = {} }}\n",
            number + 1
        ));
    }
    policy.push_str(&format!(
        "\n[[rule]]\nname = \"{name}\"\naction = \"deny\"\ndestination = {{ port = {port} }}\n"
    ));
    policy
}

fn load(stage: &Stage, port: u16, further: &[&str]) -> Program {
    let port = port.to_string();
    stage.start([&["load", "--sum", "--port", &port], further].concat())
}

fn summary(program: Program) -> Summary {
    program.finish().summary.unwrap()
}

/// Denied acts of a process: how many were told, and how many were not but are
/// counted.
#[derive(Debug, Default)]
struct Told {
    denials: u64,
    lost_denials: u64,
    lost: u64,
}

impl Told {
    fn look(&mut self, record: &Value, pid: u32) {
        if text(record, "/event/action") == "loss" {
            let causes = record.pointer("/procid/lost").and_then(Value::as_object);
            for (cause, count) in causes.into_iter().flatten() {
                let count = count.as_u64().unwrap();
                self.lost += count;
                if cause == "ring-full-denial" {
                    self.lost_denials += count;
                }
            }
        }
        if text(record, "/procid/verdict") == "deny"
            && text(record, "/process/pid") == pid.to_string()
        {
            self.denials += 1;
        }
    }
}

/// `POST /v1/policy/apply`; without a process of its own, which would take
/// longer than the swap.
fn apply(socket: &Path, policy: &str) -> u64 {
    let body = json!({ "text": policy, "file": "p" }).to_string();
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(
        stream,
        "POST /v1/policy/apply HTTP/1.1\r\nhost: procid\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let changed: Value = serde_json::from_str(body).unwrap();
    changed["generation"].as_u64().unwrap()
}

const SWAPS: usize = 300;
const SWAP_EVERY: Duration = Duration::from_millis(10);
/// An answer takes longer than that: so many are under way.
const SWAPPERS: usize = 6;

#[test]
fn a_swap_every_ten_milliseconds_opens_no_gap() {
    let denied = listener::Tcp::on("0.0.0.0:0");
    let port = denied.address().port();
    let mut stage = Stage::new();
    // The rule that denies stands at another place in each.
    let policies = [("even", 0), ("odd", 63), ("third", 64)]
        .map(|(name, before)| (name, denies(port, name, before)));
    apply(&stage.agent.socket(), &policies[0].1);
    let load = load(
        &stage,
        port,
        &["--until-told", "--count", "1000000", "--rate", "3000"],
    );
    let pid = load.pid();
    let start = Instant::now();
    let socket = stage.agent.socket();
    let (socket, policies) = (&socket, &policies);
    let names: HashMap<u64, &str> = thread::scope(|scope| {
        let swappers: Vec<_> = (0..SWAPPERS)
            .map(|first| {
                scope.spawn(move || {
                    let mine = (first..SWAPS).step_by(SWAPPERS);
                    mine.map(|number| {
                        let due = SWAP_EVERY * u32::try_from(number).unwrap();
                        thread::sleep(due.saturating_sub(start.elapsed()));
                        let (name, policy) = &policies[number % policies.len()];
                        (apply(socket, policy), *name)
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        swappers
            .into_iter()
            .flat_map(|swapper| swapper.join().unwrap())
            .chain([(1, "even")])
            .collect()
    });
    let took = start.elapsed();
    let summary = summary(load);
    println!(
        "{SWAPS} swaps in {} ms, {} attempts, {} denied",
        took.as_millis(),
        summary.attempts,
        summary.failures
    );
    assert_eq!(names.len(), SWAPS + 1);
    assert_eq!(summary.failures, summary.attempts);
    assert!(summary.attempts > 1_000);
    assert_eq!(denied.peers(0).len(), 0);
    let attempts = usize::try_from(summary.attempts).unwrap();
    let all = stage
        .agent
        .until(|records| records.denials().count() as u64 + records.lost() >= attempts as u64);
    let mut told = Told::default();
    let mut generations = HashMap::<u64, u64>::new();
    let records = stage.agent.stop();
    for record in records.all() {
        told.look(record, pid);
    }
    for record in records.denials() {
        let generation = record
            .pointer("/procid/generation")
            .unwrap()
            .as_u64()
            .unwrap();
        assert_eq!(text(record, "/rule/name"), names[&generation], "{record}");
        *generations.entry(generation).or_default() += 1;
    }
    assert!(all, "{told:?}");
    assert_eq!(told.denials + told.lost_denials, summary.attempts);
    println!("{told:?}, under {} generations", generations.len());
    assert!(generations.len() > SWAPS / 4, "{}", generations.len());
}

#[test]
fn a_hundred_thousand_destinations_do_not_wear_a_rule_out() {
    let udp = listener::Udp::on("127.0.0.9:0");
    let stage = Stage::new();
    stage.apply(&denies(udp.address().port(), "no", 0), &[]);
    let to = udp.address().to_string();
    let scan = stage.start(["scan", "--count", "100000", "--port", "9", "--denied", &to]);
    let pid = scan.pid();
    let summary = summary(scan);
    assert_eq!((summary.attempts, summary.failures), (1_000, 1_000));
    assert!(udp.senders().is_empty());
    let mut told = Told::default();
    stage.agent.stop_and_look(|record| told.look(record, pid));
    println!("{told:?} in {} ms", summary.elapsed / 1_000_000);
    assert_eq!(told.denials + told.lost_denials, summary.attempts);
}

#[test]
fn a_flood_of_what_is_allowed_hides_no_denial() {
    let (allowed, denied) = (
        listener::Tcp::on("0.0.0.0:0"),
        listener::Tcp::on("0.0.0.0:0"),
    );
    let stage = Stage::new();
    stage.apply(&denies(denied.address().port(), "no", 0), &[]);
    let flood = load(
        &stage,
        allowed.address().port(),
        &["--until-told", "--count", "1000000"],
    );
    let few = load(
        &stage,
        denied.address().port(),
        &["--rate", "1000", "--count", "5000"],
    );
    let pid = few.pid();
    let few = summary(few);
    let flood = summary(flood);
    assert_eq!((few.attempts, few.failures), (5_000, 5_000));
    assert!(flood.attempts > 20_000, "{}", flood.attempts);
    assert_eq!(flood.failures, 0);
    assert_eq!(denied.peers(0).len(), 0);
    let mut told = Told::default();
    stage.agent.stop_and_look(|record| told.look(record, pid));
    println!("{} others; {told:?}", flood.attempts);
    assert_eq!(told.denials + told.lost_denials, few.attempts);
    // They have a ring of their own.
    assert_eq!(told.lost_denials, 0);
}

#[test]
fn what_a_stopped_agent_does_not_read_is_denied_all_the_same() {
    let (allowed, denied) = (
        listener::Tcp::on("0.0.0.0:0"),
        listener::Tcp::on("0.0.0.0:0"),
    );
    let stage = Stage::new();
    stage.apply(&denies(denied.address().port(), "no", 0), &[]);
    let agent = stage.agent.pid();
    kill_process(agent, Signal::STOP).unwrap();
    let both = [
        load(&stage, allowed.address().port(), &["--count", "50000"]),
        load(&stage, denied.address().port(), &["--count", "50000"]),
    ];
    let pid = both[1].pid();
    let [through, held] = both.map(summary);
    kill_process(agent, Signal::CONT).unwrap();
    assert_eq!((held.attempts, held.failures), (50_000, 50_000));
    assert_eq!((through.attempts, through.failures), (50_000, 0));
    assert_eq!(denied.peers(0).len(), 0);
    let mut told = Told::default();
    stage.agent.stop_and_look(|record| told.look(record, pid));
    println!("{told:?}");
    assert!(told.lost_denials > 0, "the ring did not overflow: {told:?}");
    assert_eq!(told.denials + told.lost_denials, held.attempts);
}
