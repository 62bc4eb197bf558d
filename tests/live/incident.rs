//! What an incident responder asks afterwards, answered from history.
//!
//! `cargo xtask incident --write` writes what was asked and answered to
//! docs/INCIDENT.md.

use std::{fs, path::Path, process::Output, sync::Arc, thread};

use procid_tests::{
    agent::{Agent, Home},
    cgroup::TestCgroup,
    gate::on_own_file_system,
    incident::{Incident, STOLEN_LEN},
    listener,
    page::Page,
    program::Program,
    records::text,
    scratch::Scratch,
};
use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

/// Where it happens: a file system that the test's mount namespace alone has.
const PLACE: &str = "/srv";
/// Five connections a second for an hour, of four programs.
const OTHERS: [&str; 4] = ["backup", "mailer", "metrics", "sync"];
const EACH: u64 = 4_500;
/// What was in force: a file that is known to be bad.
const POLICY: &str = r#"mode = "enforce"
unknown_hash = "allow"
default = "allow"

[[rule]]
name = "known to be bad"
action = "deny"
process = { sha256 = "feedfacefeedfacefeedfacefeedfacefeedfacefeedfacefeedfacefeedface" }
"#;

/// What is to be in force from today on.
fn today(incident: &Incident) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"allow\"\n\n[[rule]]\n\
         name = \"only the backup leaves the office\"\naction = \"allow\"\n\
         process = {{ executable = \"{PLACE}/bin/backup\", sha256 = \"{}\" }}\n\n[[rule]]\n\
         name = \"nothing else does\"\naction = \"deny\"\n\
         destination = {{ cidr = \"{}\" }}\n",
        "00".repeat(32),
        incident.collector.ip()
    )
}

/// Questions to an agent, written down with their answers.
struct Responder<'a> {
    agent: &'a Agent,
    page: Page,
}

impl Responder<'_> {
    /// Asks, and writes it down.
    fn ask(&mut self, question: &str, arguments: &[&str]) -> String {
        let output = self.agent.ask(arguments);
        let said = said(&output);
        self.page.asked(question, arguments, &said);
        said
    }

    /// The records of an answer.
    fn records(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments = [arguments, &["--json"]].concat();
        let said = said(&self.agent.ask(&arguments));
        let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut records: Vec<Value> = lines.collect();
        let coverage = records.pop().unwrap();
        assert_eq!(
            coverage.pointer("/procid/coverage/lost").unwrap(),
            &json!({}),
            "{coverage}"
        );
        records
    }
}

fn said(output: &Output) -> String {
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    said
}

fn others(cgroup: &TestCgroup, place: &Path, port: u16) {
    thread::scope(|scope| {
        for name in OTHERS {
            scope.spawn(move || {
                let (port, count) = (port.to_string(), EACH.to_string());
                let program = place.join("bin").join(name);
                let arguments = [
                    "load", "--sum", "--rate", "1000", "--port", &port, "--count", &count,
                ];
                let summary = Program::run(cgroup, &program, arguments).summary.unwrap();
                assert_eq!((summary.attempts, summary.failures), (EACH, 0));
            });
        }
    });
}

/// Looks at the others while it goes on.
fn look_on(page: &mut Page, cgroup: &TestCgroup, agent: &mut Agent, place: &Path) {
    let to = listener::Tcp::on("127.0.0.1:0");
    let address = to.address().to_string();
    let mut open = OTHERS.map(|name| {
        let program = place.join("bin").join(name);
        Program::start(cgroup, &program, ["connect", "--hold", "--to", &address])
    });
    let acts = open.each_mut().map(Program::act);
    page.watch(agent, OTHERS[3]);
    for program in open {
        program.finish();
    }
    agent.settle(&acts);
}

#[test]
fn a_theft_is_told_of_after_a_restart() {
    on_own_file_system(|_| happens(Path::new(PLACE)));
}

fn happens(place: &Path) {
    fs::create_dir_all(place).unwrap();
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).unwrap();
    let (home, bin) = (place.join("home"), place.join("bin"));
    for directory in [&home, &bin] {
        fs::create_dir(directory).unwrap();
    }
    for name in OTHERS {
        let _image = procid_tests::scratch::Image::copy_to(&bin.join(name));
    }
    let cgroup = TestCgroup::new();
    let store = Scratch::new();
    let mut incident = Incident::log_in(&home, store.path(), &cgroup);
    let all = listener::Tcp::on("0.0.0.0:0");
    let directory: Home = Arc::new(tempfile::tempdir().unwrap());
    let gate = ["--exec-gate", PLACE];
    let mut agent = Agent::start_at(&cgroup, Arc::clone(&directory), &gate);
    let policy = store.path().join("policy.toml");
    fs::write(&policy, POLICY).unwrap();
    let applied = agent.ask(&["policy", "apply", policy.to_str().unwrap()]);
    assert!(applied.status.success(), "{applied:?}");
    let bytes = thread::scope(|scope| {
        scope.spawn(|| others(&cgroup, place, all.address().port()));
        incident.happen()
    });
    assert_eq!(bytes, STOLEN_LEN);
    let mut page = Page::new();
    look_on(&mut page, &cgroup, &mut agent, place);
    // It writes its last records and ends; another one starts.
    assert_eq!(agent.stop().lost(), 0);
    let agent = Agent::start_at(&cgroup, directory, &gate);

    let mut responder = Responder {
        agent: &agent,
        page,
    };
    let to = incident.collector.to_string();
    let flow = ["who", &to, "--since", "-1h"];
    let who = responder.ask(
        "The firewall's log names an address and a port. Who was it?",
        &flow,
    );
    for told in [
        ".fetch",
        ".send",
        "update.sh",
        "session.sh",
        &incident.sender.sha256,
    ] {
        assert!(who.contains(told), "{told}\n{who}");
    }
    let records = responder.records(&flow);
    let role = |role| {
        let mut of_role = records.iter().filter(|it| text(it, "/procid/role") == role);
        let record = of_role.next().unwrap().clone();
        assert!(of_role.next().is_none(), "{records:?}");
        record
    };
    let [opener, speaker] = ["opener", "speaker"].map(role);
    for (record, image, name) in [
        (&opener, &incident.opener, ".fetch"),
        (&speaker, &incident.sender, ".send"),
    ] {
        let path = home.join(name);
        assert_eq!(text(record, "/process/executable"), path.to_str().unwrap());
        assert_eq!(text(record, "/process/hash/sha256"), image.sha256);
        assert_eq!(text(record, "/procid/hash/grade"), "gated");
        assert_eq!(text(record, "/process/user/id"), "1000");
        if let Some((uid, session)) = incident.login() {
            assert_eq!(text(record, "/procid/loginuid"), uid);
            assert_eq!(text(record, "/procid/sessionid"), session);
        }
    }
    // Whose child.
    assert_eq!(text(&opener, "/process/parent/name"), "bash");
    assert_eq!(text(&speaker, "/process/parent/name"), ".fetch");
    assert_eq!(
        text(&speaker, "/process/parent/entity_id"),
        text(&opener, "/process/entity_id")
    );
    assert_eq!(text(&opener, "/source/bytes"), STOLEN_LEN.to_string());

    let sha256 = &incident.sender.sha256[..16];
    let same = ["who", "--sha256", sha256, "--since", "-1h"];
    responder.ask("Was the program that sent it seen elsewhere?", &same);
    assert!(
        responder
            .records(&same)
            .iter()
            .all(|record| { text(record, "/procid/flow_id") == text(&opener, "/procid/flow_id") })
    );

    let session = ["who", "--user", "1000", "--since", "-1h"];
    let said = responder.ask("What else did that user's session do?", &session);
    // The script and both programs were downloaded.
    assert!(said.matches("/curl").count() >= 3, "{said}");
    let flows = responder.records(&session);
    let by_curl = flows
        .iter()
        .filter(|it| text(it, "/process/name") == "curl");
    assert_eq!(by_curl.count(), 3);

    fs::write(&policy, today(&incident)).unwrap();
    responder.page.file("policy.toml", &today(&incident));
    let replay = [
        "policy",
        "replay",
        "--since",
        "-1h",
        policy.to_str().unwrap(),
    ];
    let said = responder.ask("Would today's policy have stopped it?", &replay);
    assert!(
        said.contains("nothing else does") && said.contains(".fetch"),
        "{said}"
    );

    let report = store.path().join("report.html");
    let arguments = [
        "report",
        "--since",
        "-1h",
        "--user",
        "1000",
        "-o",
        report.to_str().unwrap(),
    ];
    responder.ask("A page for the case file", &arguments);
    let html = fs::read_to_string(&report).unwrap();
    for told in [".fetch", ".send", &incident.sender.sha256, &to] {
        assert!(html.contains(told), "{told}");
    }
    responder.page.report(&report);
    responder.page.write();
    assert_eq!(agent.stop().lost(), 0);
}
