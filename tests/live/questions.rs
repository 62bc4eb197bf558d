//! Random questions, asked over the API and on the command line.

use fastrand::Rng;
use procid::time::rfc3339_ns;
use procid_tests::{http, listener, stage::Stage, truth::Act};
use serde_json::Value;

const QUESTIONS: usize = 120;
/// From some seconds before the acts to some after them.
const AROUND_NS: i64 = 3_000_000_000;

/// A name and value, as the API takes them and as the command line does.
struct Word {
    parameter: String,
    argument: String,
    value: String,
}

impl Word {
    fn new(name: &str, value: &str) -> Self {
        Self {
            parameter: format!("{name}={}", escaped(value)),
            argument: format!("--{name}"),
            value: value.to_owned(),
        }
    }
}

/// Whatever is not a letter or a digit.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// What there is to ask of.
struct Known {
    acts: Vec<Act>,
    exes: Vec<String>,
    hashes: Vec<String>,
    around: (i64, i64),
}

impl Known {
    fn word(&self, rng: &mut Rng, about: usize) -> Word {
        let act = &self.acts[rng.usize(..self.acts.len())];
        let one = |rng: &mut Rng, of: &[String]| of[rng.usize(..of.len())].clone();
        let end = |rng: &mut Rng| {
            let to = act.destination;
            let of = [
                to.to_string(),
                to.ip().to_string(),
                format!(":{}", to.port()),
                "127.0.0.0/8".to_owned(),
                "::/0".to_owned(),
                "*".to_owned(),
            ];
            one(rng, &of)
        };
        let time = |name: &str, rng: &mut Rng| {
            let at = rng.i64(self.around.0..self.around.1);
            Word {
                parameter: format!("{name}={at}"),
                argument: format!("--{name}"),
                value: rfc3339_ns(at),
            }
        };
        match about {
            0 => Word::new("dst", &end(rng)),
            1 => Word::new("src", &end(rng)),
            2 => Word::new("pid", &act.actor.pid.to_string()),
            3 => Word::new("exe", &one(rng, &self.exes)),
            4 => {
                let hash = one(rng, &self.hashes);
                Word::new("sha256", &hash[..rng.usize(1..=hash.len())])
            }
            5 => Word::new("user", ["0", "1", "4242"][rng.usize(..3)]),
            6 => Word::new("verdict", ["allow", "deny", "audit"][rng.usize(..3)]),
            7 => time("at", rng),
            8 => time("since", rng),
            _ => time("until", rng),
        }
    }
}

/// The records, and those of the coverage but for its time.
fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut lines: Vec<Value> = lines.collect();
    let coverage = lines.last_mut().unwrap();
    let coverage = coverage.pointer_mut("/procid/coverage").unwrap();
    assert!(coverage.as_object_mut().unwrap().remove("to").is_some());
    lines
}

#[test]
fn the_api_and_the_command_line_answer_alike() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let to = ["127.0.0.1:0", "127.0.0.9:0", "[::1]:0"].map(listener::Tcp::on);
    let mut stage = Stage::new();
    let other = stage.scratch.program("another one");
    let denied = to[1].address().port();
    let policy = format!(
        "mode = \"enforce\"\n[[rule]]\nname = \"no\"\naction = \"deny\"\n\
         destination = {{ port = {denied} }}\n"
    );
    let mut acts = Vec::new();
    for (number, image) in [&stage.app, &other, &stage.app].into_iter().enumerate() {
        if number == 2 {
            stage.apply(&policy, &[]);
        }
        for listener in &to {
            let address = listener.address().to_string();
            let program = stage.start_file(&image.path, ["connect", "--to", &address]);
            acts.extend(program.finish().acts);
        }
    }
    stage.agent.settle(&acts);
    let pids: Vec<u32> = acts.iter().map(|act| act.actor.pid).collect();
    // Nothing more is said of any of them.
    assert!(stage.agent.until(|records| {
        let ended = records.of_action("exit");
        ended
            .filter(|it| {
                it["process"]["pid"]
                    .as_u64()
                    .is_some_and(|pid| pids.contains(&(pid as u32)))
            })
            .count()
            >= pids.len()
    }));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let now = i64::try_from(now.as_nanos()).unwrap();
    let known = Known {
        exes: [&stage.app, &other]
            .iter()
            .map(|image| image.path.display().to_string())
            .chain(["app", "another one", "none"].map(str::to_owned))
            .collect(),
        hashes: [&stage.app, &other].map(|it| it.sha256.clone()).to_vec(),
        acts,
        around: (now - 4 * AROUND_NS, now + AROUND_NS),
    };
    let mut answered = 0;
    for _ in 0..QUESTIONS {
        let mut about: Vec<usize> = (0..10).collect();
        rng.shuffle(&mut about);
        about.truncate(rng.usize(1..4));
        let words: Vec<Word> = about.iter().map(|it| known.word(&mut rng, *it)).collect();
        let mut arguments = vec!["who", "--json"];
        for word in &words {
            arguments.extend([word.argument.as_str(), &word.value]);
        }
        let parameters: Vec<_> = words.iter().map(|it| it.parameter.as_str()).collect();
        let target = format!("/v1/who?{}", parameters.join("&"));
        let output = stage.agent.ask(&arguments);
        let answer = http::get(&stage.agent.socket(), &target);
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.code() == Some(2) {
            // Such as `--since` behind `--until`.
            assert_eq!(answer.status, 400, "{arguments:?}: {said}");
            continue;
        }
        assert_eq!(answer.status, 200, "{target}: {said}");
        let told = lines(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(told, lines(&answer.text()), "{arguments:?}");
        let code = if told.len() == 1 { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        answered += usize::from(told.len() > 1);
    }
    println!("{answered} of {QUESTIONS} questions have an answer");
    assert!(answered > QUESTIONS / 10, "{answered}");
    let _records = stage.agent.stop();
}
