//! A host that denies all that its rules do not allow, and is worked on from
//! afar.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::{agent::LIMIT, listener, program::Program, scratch::procid, stage::Stage};

/// Lines that go to and fro on a session that must live.
const LINES: usize = 1_000;
/// Bytes that the other end sends at a time: more than its buffers hold.
const AT_ONCE: usize = 8 << 20;

/// A session on a remote shell that runs in the stage's cgroup.
struct Session {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    asked: usize,
}

impl Session {
    fn with(shell: SocketAddr) -> Self {
        let stream = TcpStream::connect(shell).expect("a session");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let reader = BufReader::new(stream.try_clone().expect("another descriptor"));
        Self {
            stream,
            reader,
            asked: 0,
        }
    }

    /// What the shell says to a command, and its exit status.
    fn ask(&mut self, command: &str) -> (String, i32) {
        self.asked += 1;
        let end = format!("end {} ", self.asked);
        let lines = format!("{{ {command}; }} 2>&1; echo; echo {end}$?\n");
        self.stream.write_all(lines.as_bytes()).expect("a session");
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let length = self.reader.read_line(&mut line).expect("the session lives");
            assert!(length > 0, "the session has ended: {said}");
            if let Some(status) = line.strip_prefix(&end) {
                return (said, status.trim().parse().expect("a status"));
            }
            said.push_str(&line);
        }
    }
}

/// The other end of the session is on this host too, where an agent may judge
/// every process.
fn deny_all_but_this_client() -> String {
    let client = std::env::current_exe().expect("a path");
    format!(
        "mode = \"enforce\"\ndefault = \"deny\"\n\n\
         [[rule]]\nname = \"client\"\naction = \"allow\"\nprocess = {{ executable = \"{}\" }}\n",
        client.display()
    )
}

/// Whoever applies `default = "deny"` over a connection that he made to the
/// host goes on working there, comes again, and can take it back.
///
/// # Panics
///
/// When it is not so.
pub fn the_session_that_applies_it_lives(stage: &Stage) {
    let to = listener::Tcp::on("127.0.0.1:0");
    let mut shell = stage.start(["shell"]);
    let address = shell.listens();
    let mut session = Session::with(address);
    let app = stage.app.path.display();
    let connect = format!("'{app}' connect --to {} </dev/null", to.address());
    let (said, status) = session.ask(&connect);
    assert!(status == 0 && said.contains("\"error\":null"), "{said}");

    let deny = stage.scratch.path().join("deny.toml");
    fs::write(&deny, deny_all_but_this_client()).expect("a file");
    let procid = |arguments: &str| {
        let (program, socket) = (procid(), stage.agent.socket());
        format!(
            "'{}' {arguments} --socket '{}'",
            program.display(),
            socket.display()
        )
    };
    let apply = |file: &std::path::Path| procid(&format!("policy apply '{}'", file.display()));
    let (said, status) = session.ask(&apply(&deny));
    assert_eq!(status, 0, "{said}");
    assert!(!said.contains("warning: you act from"), "{said}");
    let (said, _) = session.ask(&connect);
    assert!(said.contains("\"error\":1"), "nothing denies: {said}");

    for number in 0..LINES {
        let (said, _) = session.ask(&format!("echo {number}"));
        assert_eq!(said.trim(), number.to_string());
    }
    let (said, _) = session.ask(&format!("head -c {AT_ONCE} /dev/zero | tr '\\0' x"));
    assert_eq!(said.trim().len(), AT_ONCE);
    let (said, status) = session.ask(&procid("status"));
    assert!(status == 0 && said.contains("enforce"), "{said}");

    let mut another = Session::with(address);
    let (said, _) = another.ask("echo again");
    assert_eq!(said.trim(), "again");
    let allow = stage.scratch.path().join("allow.toml");
    fs::write(&allow, "mode = \"enforce\"\ndefault = \"allow\"\n").expect("a file");
    let (said, status) = another.ask(&apply(&allow));
    assert_eq!(status, 0, "{said}");
    let (said, _) = session.ask(&connect);
    assert!(said.contains("\"error\":null"), "{said}");
    drop::<Program>(shell);
}

/// `established` says what becomes of connections that were open before, when
/// another process begins to speak on them, where the backend judges that; it
/// says so where it does not.
///
/// # Panics
///
/// When one that is to be kept is not, or the other is.
pub fn established_says_what_becomes_of_open_connections(stage: &mut Stage, is_lsm: bool) {
    let is_judged = stage.judges_speakers();
    assert!(is_judged || !is_lsm);
    for (established, is_kept) in [("keep", true), ("judge", !is_judged)] {
        stage.apply("mode = \"enforce\"\ndefault = \"allow\"\n", &[]);
        let to = listener::Tcp::on("127.0.0.1:0");
        let address = to.address().to_string();
        let mut knocker = stage.start(["knock", "--speak", "--wait", "--to", &address]);
        to.peers(1);
        let mut policy = "mode = \"enforce\"\ndefault = \"deny\"\n".to_owned();
        writeln!(policy, "established = \"{established}\"").expect("a text");
        let said = stage.apply(&policy, &[]);
        assert_ne!(
            said.contains("open already are not judged"),
            is_lsm,
            "{said}"
        );
        knocker.go();
        // New ones are denied either way.
        let denied = stage.run(["connect", "--to", &address]);
        assert_eq!(denied[0].error, Some(libc::EPERM));
        let later = denied[0].actor.pid;
        let port = to.peers(1)[0].port();
        let of = |record: &serde_json::Value, pointer: &str, number: u64| {
            record.pointer(pointer).and_then(serde_json::Value::as_u64) == Some(number)
        };
        let is_open_one = |record: &serde_json::Value| of(record, "/source/port", port.into());
        let told = stage.agent.until(|records| {
            let later = records
                .denials()
                .any(|it| of(it, "/process/pid", later.into()));
            later && (is_kept || records.denials().any(is_open_one))
        });
        assert!(told, "established = {established}: a denial is missing");
        let knocks = knocker.finish().knocks.expect("a report");
        assert!(
            !is_kept || knocks.denied == 0 && knocks.done > 0,
            "{knocks:?}"
        );
        let is_denied = stage.agent.records().denials().any(is_open_one);
        assert_ne!(is_denied, is_kept, "established = {established}");
    }
}

/// A server's answer over UDP is a send like any other: the rule that allows it
/// names the server's own port.
///
/// # Panics
///
/// When it is denied under that rule, or let through without.
pub fn answers_over_udp_are_allowed_by_their_own_port(stage: &Stage) {
    let client = listener::Udp::on("127.0.0.1:0");
    let to = client.address().to_string();
    let deny = "mode = \"enforce\"\ndefault = \"deny\"\n";
    let allow = "[[rule]]\nname = \"server\"\naction = \"allow\"\n\
                 source = { port = 5353 }\n";
    for (policy, error) in [
        (deny.to_owned(), Some(libc::EPERM)),
        (format!("{deny}{allow}"), None),
    ] {
        stage.apply(&policy, &[]);
        let acts = stage.run(["udp", "--from", "127.0.0.1:5353", "--to", &to]);
        assert_eq!(acts[0].error, error, "{policy}");
    }
}
