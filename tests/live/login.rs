//! Where a login came from. The server is a shell for whoever connects, which
//! begins a session as pam_loginuid does for sshd: by writing its loginuid.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
};

use procid_tests::{listener, records::text, stage::Stage, truth::Act};
use serde_json::Value;

/// A client of the server, and what it is answered.
struct Session {
    client: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Session {
    fn say(&mut self, command: &str) -> String {
        self.client.write_all(command.as_bytes()).unwrap();
        self.client.write_all(b"\n").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer
    }
}

#[test]
fn the_answer_names_the_peer_of_the_connection_that_began_the_session() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let mut server = stage.start(["shell"]);
    let address = server.listens();
    let [mut session, mut other] = [(); 2].map(|()| {
        let client = TcpStream::connect(address).unwrap();
        let answers = BufReader::new(client.try_clone().unwrap());
        Session { client, answers }
    });
    let begun = session.say("echo 4242 > /proc/self/loginuid && echo begun || echo refused");
    assert_eq!(begun, "begun\n");
    // It is in no session of its own.
    assert_eq!(other.say("echo here"), "here\n");
    let connect = format!(
        "{} connect --to {}",
        stage.app.path.display(),
        listener.address()
    );
    let acts = [session.say(&connect), other.say(&connect)];
    let acts = acts.map(|said| serde_json::from_str::<Act>(&said).unwrap());
    stage.agent.settle(&acts);
    let answers = acts.each_ref().map(|act| {
        let (pid, to) = (act.actor.pid.to_string(), act.destination.to_string());
        let output = stage
            .agent
            .ask(&["who", "--json", "--pid", &pid, "--dst", &to]);
        let said = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str::<Value>(said.lines().next().unwrap()).unwrap()
    });
    let login = answers[0].pointer("/procid/login").unwrap();
    let from = session.client.local_addr().unwrap();
    assert_eq!(text(login, "/from/ip"), from.ip().to_string(), "{login}");
    assert_eq!(text(login, "/from/port"), from.port().to_string());
    assert_eq!(text(login, "/grade"), "inferred");
    assert_eq!(text(&answers[0], "/procid/loginuid"), "4242");
    // The session's first image, whose stdout is that connection.
    let own = text(&answers[0], "/process/entity_id");
    assert_eq!(text(login, "/entity_id"), own);
    assert!(
        answers[1].pointer("/procid/login").is_none(),
        "{}",
        answers[1]
    );

    let pid = acts[0].actor.pid.to_string();
    let written = stage.agent.ask(&["who", "--pid", &pid]);
    let written = String::from_utf8(written.stdout).unwrap();
    let line = format!(", from {from} (inferred, by ");
    assert!(written.contains(&line), "{written}");
    drop((session, other));
    server.finish();
    let _records = stage.end(&acts);
}
