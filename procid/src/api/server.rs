//! Requests to answers: bounded in number, size and time.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query as UrlQuery, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};
use tracing::{debug, warn};

use super::{
    access::{self, Peer},
    parameters::Parameters,
    policy,
};
use crate::{
    agent::{
        handle::{Handle, Stopped},
        settings::POLICY_BYTES,
    },
    flow::Query,
    records::Record,
};

/// Connections served at a time; further ones wait in the socket's queue.
const CONNECTIONS: usize = 16;
/// A caller has this long to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// And this long to take its whole answer.
const CONNECTION_TIME: Duration = Duration::from_secs(120);
/// Most bytes of a request's head.
const REQUEST_BYTES: usize = 16 * 1024;
/// Most bytes of a request's body: a policy.
const BODY_BYTES: usize = 2 * POLICY_BYTES;

/// Serves until `stop` is ready, then abandons what is unanswered.
///
/// # Errors
///
/// Of accept(2), other than those of one connection.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = router(handle);
    let own_uid = rustix::process::geteuid().as_raw();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let slot = tokio::select! {
            () = &mut stop => return Ok(()),
            slot = Arc::clone(&slots).acquire_owned() => slot.map_err(io::Error::other)?,
        };
        let stream = tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => accept_result(accepted).await?,
        };
        while tasks.try_join_next().is_some() {}
        let Some(stream) = stream else { continue };
        let router = router.clone();
        tasks.spawn(async move {
            if let Err(error) = connection(stream, router, own_uid).await {
                debug!("API connection: {error}");
            }
            drop(slot);
        });
    }
}

/// Tells the errors of one connection, and those that pass, from the socket's.
async fn accept_result(
    accepted: io::Result<(UnixStream, tokio::net::unix::SocketAddr)>,
) -> io::Result<Option<UnixStream>> {
    let error = match accepted {
        Ok((stream, _)) => return Ok(Some(stream)),
        Err(error) => error,
    };
    match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => Ok(None),
        Some(
            rustix::io::Errno::MFILE
            | rustix::io::Errno::NFILE
            | rustix::io::Errno::NOBUFS
            | rustix::io::Errno::NOMEM,
        ) => {
            warn!("the API cannot accept a connection: {error}; trying again in a second");
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(None)
        }
        _ => Err(error),
    }
}

async fn connection(
    stream: UnixStream,
    router: Router,
    own_uid: u32,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let peer = stream.peer_cred()?;
    let peer = Peer {
        uid: peer.uid(),
        gid: peer.gid(),
        pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()),
    };
    let router = if access::served(peer, own_uid) {
        router.layer(Extension(peer))
    } else {
        warn!("the API refused uid {} gid {}", peer.uid, peer.gid);
        refusing()
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::time::timeout(CONNECTION_TIME, served).await??;
    Ok(())
}

pub(super) fn router(handle: Handle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/who", get(who))
        .route("/v1/processes", get(processes))
        .route("/v1/processes/{entity_id}", get(process))
        .route("/v1/policy", get(policy::show))
        .route("/v1/policy/apply", post(policy::apply))
        .route("/v1/policy/explain", post(policy::explain))
        .route("/v1/policy/confirm", post(policy::confirm))
        .route("/v1/policy/revert", post(policy::revert))
        .route("/v1/block", post(policy::block))
        .route("/v1/unblock", post(policy::unblock))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .fallback(async || {
            Refusal(
                StatusCode::NOT_FOUND,
                "there is no such resource; ask /v1/status, /v1/who, /v1/processes, \
                 /v1/processes/ENTITY_ID or /v1/policy"
                    .to_owned(),
            )
        })
        .method_not_allowed_fallback(async || {
            Refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "this resource takes no such method; use POST for changes, GET for all else"
                    .to_owned(),
            )
        })
        .with_state(handle)
}

/// What a caller gets that is not served, whatever it asks.
fn refusing() -> Router {
    Router::new().fallback(async || {
        Refusal(
            StatusCode::FORBIDDEN,
            format!(
                "only root, the agent's own user and members of the group {} are served",
                access::GROUP
            ),
        )
    })
}

/// An error answer: HTTP status and one sentence.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string())
    }
}

async fn status(State(handle): State<Handle>) -> Result<Response, Refusal> {
    Ok(Json(handle.status().await?).into_response())
}

async fn who(
    State(handle): State<Handle>,
    parameters: Result<UrlQuery<Parameters>, QueryRejection>,
) -> Result<Response, Refusal> {
    let UrlQuery(parameters) =
        parameters.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.body_text()))?;
    let query = Query::try_from(parameters)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(lines(handle.who(query).await?))
}

async fn processes(State(handle): State<Handle>) -> Result<Response, Refusal> {
    Ok(lines(handle.processes().await?))
}

/// A record a line. Each becomes text only when the caller takes it.
fn lines(records: Vec<Record>) -> Response {
    let lines = stream::iter(records.into_iter().map(|record| line(&record)));
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

async fn process(
    State(handle): State<Handle>,
    Path(entity_id): Path<String>,
) -> Result<Response, Refusal> {
    match handle.process(entity_id).await? {
        Some(record) => Ok(Json(record).into_response()),
        None => Err(Refusal(
            StatusCode::NOT_FOUND,
            "no image with this entity id is known".to_owned(),
        )),
    }
}

fn line(record: &Record) -> serde_json::Result<Bytes> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::{mpsc, oneshot},
    };

    use super::*;
    use crate::{
        agent::handle::{Memory, Question, Status},
        api::client::{Client, ClientError},
        records::{Coverage, Endpoint, Procid},
    };

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
            let server = tokio::spawn(serve(listener, Handle::new(questions), async {
                let _stop = stopped.await;
            }));
            Self {
                directory,
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
            stream.write_all(request).await.unwrap();
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
}
