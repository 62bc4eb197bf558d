//! Who writes to a connection that another image opened, denied by the cgroup
//! backend: over TCP it does not leave, and the connection stands still; over
//! UDP the call is refused.

use std::{
    io::{ErrorKind, Read as _},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Command, Output},
    time::Duration,
};

use procid_tests::{
    agent::Agent,
    records::{Records, text},
    stage::Stage,
};

/// How long is waited for what must not come: several retransmissions.
const SILENCE: Duration = Duration::from_secs(2);

fn denying(process: &str, port: u16) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"allow\"\n\n\
         [[rule]]\nname = \"no speaker\"\naction = \"deny\"\n\
         process = {{ {process} }}\ndestination = {{ port = {port} }}\n"
    )
}

/// Runs a script of bash, which opens connections by itself.
fn bash(stage: &Stage, script: &str) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", script]);
    stage.cgroup.holds(&mut command);
    command.output().unwrap()
}

/// What has arrived when nothing more does, or the connection ends.
fn arrived(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => all.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(all).unwrap()
}

fn denials<'r>(records: &'r Records, name: &str) -> Vec<&'r serde_json::Value> {
    records
        .denials()
        .filter(|record| text(record, "/process/name") == name)
        .collect()
}

/// Whether the agent says that it can; a kernel from 6.16 on must let it.
fn withholds(stage: &Stage) -> bool {
    let can = stage.judges_speakers();
    if !can {
        let kernel = rustix::system::uname();
        let release = kernel.release().to_string_lossy().into_owned();
        let mut numbers = release
            .split(['.', '-'])
            .map_while(|part| part.parse().ok());
        let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert!(version < (6, 16), "Linux {release} has tcp_sendmsg_locked");
        eprintln!("skipped: tcp_sendmsg_locked needs Linux 6.16, and this is {release}");
    }
    can
}

#[test]
fn what_a_denied_speaker_writes_to_a_connection_does_not_leave() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Stage::new();
    if !withholds(&stage) {
        return;
    }
    stage.apply(&denying("role = \"speaker\"", port), &[]);
    // The shell opens it and writes first; echo is another image, which is
    // told that it has written; what the shell writes after that stays too.
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; echo first >&3; \
         /bin/echo secret >&3 && /bin/echo secret again >&3 && echo written; echo last >&3"
    );
    let output = bash(&stage, &script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "written\n");
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(arrived(&mut stream), "first\n");
    // No later policy lets it go.
    stage.apply("mode = \"enforce\"\ndefault = \"allow\"\n", &[]);
    assert_eq!(arrived(&mut stream), "");
    drop(stream);
    let records = stage.agent.stop();
    let denied = denials(&records, "echo");
    // One of each call, though both were of one program.
    assert_eq!(denied.len(), 2, "{denied:?}");
    for record in denied {
        assert_eq!(text(record, "/rule/name"), "no speaker");
        assert_eq!(text(record, "/procid/role"), "speaker");
        assert_eq!(text(record, "/procid/hook"), "tp_btf/tcp_sendmsg_locked");
        assert_eq!(text(record, "/procid/opener/name"), "bash");
    }
    let spoke = records
        .of_action("send")
        .filter(|record| text(record, "/procid/verdict") == "allow");
    assert_eq!(spoke.count(), 0, "a denied send was told as one that went");
    assert_eq!(records.lost(), 0);
}

#[test]
fn what_is_withheld_stays_so_when_the_agent_is_killed_and_another_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Stage::new();
    if !withholds(&stage) {
        return;
    }
    stage.apply(&denying("role = \"speaker\"", port), &[]);
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo first >&3; /bin/echo secret >&3");
    assert!(bash(&stage, &script).status.success());
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(arrived(&mut stream), "first\n");
    let home = stage.agent.kill();
    assert_eq!(arrived(&mut stream), "");
    let agent = Agent::start_at(&stage.cgroup, home, &[]);
    assert_eq!(arrived(&mut stream), "");
    drop(stream);
    assert_eq!(agent.stop().lost(), 0);
}

#[test]
fn a_speaker_that_is_not_denied_speaks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Stage::new();
    stage.apply(&denying("role = \"speaker\", uid = 7", port), &[]);
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; echo first >&3; /bin/echo second >&3; echo last >&3"
    );
    assert!(bash(&stage, &script).status.success());
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(arrived(&mut stream), "first\nsecond\nlast\n");
    let records = stage.agent.stop();
    assert_eq!(records.denials().count(), 0);
    assert_eq!(records.lost(), 0);
}

#[test]
fn a_denied_speaker_on_a_connected_udp_socket_is_told_so() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = receiver.local_addr().unwrap().port();
    let stage = Stage::new();
    stage.apply(&denying("role = \"speaker\"", port), &[]);
    let script = format!(
        "exec 3<>/dev/udp/127.0.0.1/{port}; echo first >&3; \
         /bin/echo secret >&3 || echo refused; echo last >&3"
    );
    let output = bash(&stage, &script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "refused\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Operation not permitted"), "{said}");
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    for expected in ["first\n", "last\n"] {
        let mut datagram = [0; 64];
        let length = receiver.recv(&mut datagram).unwrap();
        assert_eq!(String::from_utf8_lossy(&datagram[..length]), expected);
    }
    let records = stage.agent.stop();
    let denied = denials(&records, "echo");
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(text(denied[0], "/rule/name"), "no speaker");
    assert_eq!(records.lost(), 0);
}
