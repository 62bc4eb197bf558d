//! The server over its socket.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
};

use super::*;
use crate::{
    agent::{
        handle::{Memory, Question, Status},
        origin::Origin,
        stream::{READERS_MAX, Tap, stream},
    },
    api::{
        client::{Client, ClientError},
        events,
    },
    records::{Coverage, Endpoint, Event, Procid},
};

mod any;

fn record(port: u16) -> Record {
    Record {
        destination: Some(Endpoint {
            port: Some(port),
            ..Endpoint::default()
        }),
        ..Record::default()
    }
}

fn coverage() -> Record {
    Record {
        procid: Some(Box::new(Procid {
            coverage: Some(Coverage::default()),
            ..Procid::default()
        })),
        ..Record::default()
    }
}

/// An agent that knows connections to the ports 1 to 3 and one image.
async fn answer(mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        match question {
            Question::Who(query, sender) => {
                let port = query.destination.and_then(|end| end.port);
                let records = (1..=3)
                    .filter(|p| port.is_none_or(|port| port == *p))
                    .map(record)
                    .collect();
                let _gone = sender.send(Memory {
                    records,
                    ..Memory::default()
                });
            }
            Question::Connections(_, sender) => {
                let _gone = sender.send(vec![record(7), coverage()]);
            }
            Question::Status(sender) => {
                let _gone = sender.send(Status {
                    emitted: 7,
                    ..Status::default()
                });
            }
            Question::Change(..) | Question::Explain(..) | Question::Policy(_) => {}
            Question::Processes(sender) => {
                let _gone = sender.send(vec![record(8), coverage()]);
            }
            Question::Process(id, sender) => {
                let _gone = sender.send((id == "known").then(|| record(9)));
            }
        }
    }
}

struct Running {
    directory: tempfile::TempDir,
    tap: Tap,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let (questions, receiver) = mpsc::channel(8);
        tokio::spawn(answer(receiver));
        let (stop, stopped) = oneshot::channel();
        let (tap, stream) = stream(Origin::default());
        let handle = Handle::new(questions).with_stream(stream);
        let server = tokio::spawn(serve(listener, handle, async {
            let _stop = stopped.await;
        }));
        Self {
            directory,
            tap,
            stop,
            server,
        }
    }

    fn client(&self) -> Client {
        Client::new(self.directory.path().join("s"))
    }

    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.directory.path().join("s"))
            .await
            .unwrap();
        let _reset = stream.write_all(request).await;
        let mut answer = Vec::new();
        // A server that refuses without reading all may reset.
        let _reset = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }
}

#[tokio::test]
async fn questions_reach_the_agent_and_answers_come_back() {
    let running = Running::start();
    let client = running.client();
    assert_eq!(client.status().await.unwrap().emitted, 7);
    let query = Query {
        destination: Some(crate::flow::End {
            address: None,
            port: Some(2),
        }),
        ..Query::default()
    };
    let mut answer = client.who(&query).await.unwrap();
    assert_eq!(answer.next().await.unwrap(), Some(record(2)));
    assert_eq!(answer.next().await.unwrap(), Some(coverage()));
    assert_eq!(answer.next().await.unwrap(), None);
    assert_eq!(client.process("known").await.unwrap(), Some(record(9)));
    let mut answer = client.processes().await.unwrap();
    assert_eq!(answer.next().await.unwrap(), Some(record(8)));
    assert_eq!(answer.next().await.unwrap(), Some(coverage()));
    assert_eq!(answer.next().await.unwrap(), None);
    assert_eq!(client.process("a/../b?c").await.unwrap(), None);
    let mut answer = client.connections(&query).await.unwrap();
    assert_eq!(answer.next().await.unwrap(), Some(record(7)));
    assert_eq!(answer.next().await.unwrap(), Some(coverage()));

    running.stop.send(()).unwrap();
    running.server.await.unwrap().unwrap();
    assert!(matches!(
        client.status().await,
        Err(ClientError::NoAgent { .. })
    ));
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_a_sentence() {
    let running = Running::start();
    for (target, code, sentence) in [
        ("GET /v1/nothing", "404", "there is no such resource"),
        (
            "GET /v1/processes/unknown",
            "404",
            "no image with this entity id",
        ),
        ("POST /v1/who", "405", "GET for all else"),
        (
            "GET /v1/who?dst=nowhere",
            "400",
            "`nowhere` is not an address",
        ),
        ("GET /v1/who?dest=:443", "400", "unknown field `dest`"),
        (
            "GET /v1/connections?dest=:443",
            "400",
            "unknown field `dest`",
        ),
        ("GET /v1/who?pid=-1", "400", "pid: invalid digit"),
        ("GET /v1/who?pid=1&pid=2", "400", "duplicate field `pid`"),
        ("GET /v1/who?exe=%zz", "400", "write a literal % as %25"),
        ("GET /v1/who?exe=%ff", "400", "bytes that are not UTF-8"),
        ("GET /v1/processes/%ff", "400", "bytes that are not UTF-8"),
        (
            "GET /v1/processes/%2e%2e%2f",
            "404",
            "no image with this entity id",
        ),
        ("GET /v1/status?verbose", "400", "takes no parameters"),
        ("GET /v1/events?after=x", "400", "after: invalid digit"),
        (
            "GET /v1/events?after=1",
            "400",
            "after=1 lies behind the last record",
        ),
        ("GET //v1/status", "404", "there is no such resource"),
        ("DELETE /metrics", "405", "GET for all else"),
    ] {
        let request = format!("{target} HTTP/1.1\r\nhost: procid\r\n\r\n");
        let answer = running.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
        assert!(answer.contains("{\"error\":\""), "{answer}");
        assert!(answer.contains(sentence), "{answer}");
    }
    let long = format!("GET /v1/who?exe={} HTTP/1.1\r\n", "x".repeat(64 * 1024));
    let answer = running.raw(long.as_bytes()).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_peer_that_is_not_served_gets_403() {
    let (near, mut far) = tokio::io::duplex(4096);
    tokio::spawn(
        http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(near), TowerToHyperService::new(refusing())),
    );
    far.write_all(b"GET /v1/status HTTP/1.1\r\nhost: procid\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    far.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("the group procid are served"), "{answer}");
}

/// Emits a record of that sequence.
fn emit(tap: &mut Tap, sequence: u64) {
    let record = Record {
        event: Some(Event {
            sequence: Some(sequence),
            ..Event::default()
        }),
        ..Record::default()
    };
    let line = serde_json::to_vec(&record).unwrap();
    tap.put(&record, Some(&line)).unwrap();
    tap.flush();
}

fn sequence(record: Option<Record>) -> Option<u64> {
    record.and_then(|record| record.event?.sequence)
}

#[tokio::test]
async fn who_reads_along_gets_each_record_up_to_the_last() {
    let mut running = Running::start();
    let client = running.client();
    let mut all = client.events(&events::Parameters::default()).await.unwrap();
    for at in 1..=3 {
        emit(&mut running.tap, at);
        assert_eq!(sequence(all.next().await.unwrap()), Some(at));
    }
    let behind = events::Parameters {
        after: Some(1),
        ..events::Parameters::default()
    };
    let mut later = client.events(&behind).await.unwrap();
    for at in 2..=3 {
        assert_eq!(sequence(later.next().await.unwrap()), Some(at));
    }
    // The agent ends: its last record, which nothing flushed, and then the end.
    emit(&mut running.tap, 4);
    drop(running.tap);
    running.stop.send(()).unwrap();
    for reader in [&mut all, &mut later] {
        assert_eq!(sequence(reader.next().await.unwrap()), Some(4));
        assert_eq!(reader.next().await.unwrap(), None);
    }
    running.server.await.unwrap().unwrap();
}

/// Who takes nothing keeps a seat, and neither the others nor the agent wait.
#[tokio::test]
async fn readers_are_bounded_and_take_nobody_elses_place() {
    let mut running = Running::start();
    let client = running.client();
    let from = events::Parameters::default();
    let mut readers = Vec::new();
    for _ in 0..READERS_MAX {
        readers.push(client.events(&from).await.unwrap());
    }
    let refused = client.events(&from).await.unwrap_err();
    assert!(refused.to_string().contains("end one of them"), "{refused}");
    assert_eq!(client.status().await.unwrap().emitted, 7);
    emit(&mut running.tap, 1);
    for reader in &mut readers {
        assert_eq!(sequence(reader.next().await.unwrap()), Some(1));
    }
    readers.pop();
    // The seat is free once the server has noticed.
    while client.events(&from).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// Bytes that are no request, and requests that never end.
#[tokio::test(start_paused = true)]
async fn hostile_requests_are_hung_up_on() {
    let running = Running::start();
    let many_headers = format!(
        "GET /v1/status HTTP/1.1\r\n{}\r\n",
        "x: y\r\n".repeat(10_000)
    );
    let long_header = format!("GET /v1/status HTTP/1.1\r\nx: {}", "y".repeat(1 << 20));
    for request in [
        &b"\0\xff\x16\x03\x01"[..],
        b"GET",
        b"GET /v1/status HTTP/1.1\r\nhost: a\r\n",
        b"GET /v1/status\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"GET /v1/st atus HTTP/1.1\r\n\r\n",
        b"GET /v1/status HTTP/1.1\nx\n\n",
        many_headers.as_bytes(),
        long_header.as_bytes(),
        b"POST /v1/policy/apply HTTP/1.1\r\ncontent-length: 99999999999999\r\n\r\n",
        b"POST /v1/policy/apply HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        // Ends by itself, soon by the test's clock.
        let answer = running.raw(request).await;
        assert!(!answer.contains(" 200 "), "{request:?}: {answer}");
    }
    assert_eq!(running.client().status().await.unwrap().emitted, 7);
}

#[tokio::test]
async fn over_tcp_there_are_the_metrics_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (questions, receiver) = mpsc::channel(8);
    tokio::spawn(answer(receiver));
    tokio::spawn(serve_metrics(listener, Handle::new(questions)));
    for (target, status, text) in [
        ("GET /metrics", 200, "procid_build_info{"),
        ("GET /v1/status", 404, "only /metrics is served here"),
        ("GET /v1/events", 404, "only /metrics is served here"),
        (
            "POST /v1/policy/revert",
            404,
            "only /metrics is served here",
        ),
        ("POST /metrics", 405, "no such method"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{target} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(text), "{answer}");
    }
}
