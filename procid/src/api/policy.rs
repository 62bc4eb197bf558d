//! The policy over the API: whoever is served may look, root may change.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::{access::Peer, server::Refusal};
use crate::agent::{
    handle::Handle,
    policy::{
        ask::{self, Caller, Change},
        explain::Explain,
    },
};

type Body = Result<Bytes, BytesRejection>;

pub(super) async fn show(State(handle): State<Handle>) -> Result<Response, Refusal> {
    Ok(Json(handle.policy().await??).into_response())
}

pub(super) async fn apply(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    change(&handle, peer, || Ok(Change::Apply(parse(body)?))).await
}

pub(super) async fn confirm(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Refusal> {
    change(&handle, peer, || Ok(Change::Confirm)).await
}

pub(super) async fn revert(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Refusal> {
    change(&handle, peer, || Ok(Change::Revert)).await
}

pub(super) async fn block(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    change(&handle, peer, || Ok(Change::Block(parse(body)?))).await
}

pub(super) async fn unblock(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    change(&handle, peer, || Ok(Change::Unblock(parse(body)?))).await
}

/// A policy that is not in force goes into the kernel's tables to be asked:
/// root alone may have that done.
pub(super) async fn explain(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    let request: Explain = parse(body)?;
    if request.text.is_some() && !peer.may_change() {
        return Err(Refusal(
            StatusCode::FORBIDDEN,
            format!(
                "only root may have a policy explained that is not in force, and uid {} asks",
                peer.uid
            ),
        ));
    }
    Ok(Json(handle.explain(request).await??).into_response())
}

/// Who may not change anything is told so before what is asked is looked at.
async fn change(
    handle: &Handle,
    peer: Peer,
    what: impl FnOnce() -> Result<Change, Refusal>,
) -> Result<Response, Refusal> {
    if !peer.may_change() {
        warn!("the API refused uid {} a change of the policy", peer.uid);
        return Err(Refusal(
            StatusCode::FORBIDDEN,
            format!("only root may change the policy, and uid {} asks", peer.uid),
        ));
    }
    let caller = Caller::Peer {
        pid: peer.pid,
        uid: peer.uid,
    };
    let changed = handle.change(what()?, caller).await??;
    Ok(Json(changed).into_response())
}

fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let body = body.map_err(|error| Refusal(error.status(), error.body_text()))?;
    let refusal = |error: &dyn std::fmt::Display| {
        let sentence = format!("the body is not what this resource takes: {error}");
        Refusal(StatusCode::BAD_REQUEST, sentence)
    };
    // An array would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(refusal(&"it is no JSON object"));
    }
    serde_json::from_slice(&body).map_err(|error| refusal(&error))
}

impl From<ask::Refusal> for Refusal {
    fn from(refusal: ask::Refusal) -> Self {
        let status = match refusal {
            ask::Refusal::Input(_) => StatusCode::BAD_REQUEST,
            ask::Refusal::State(_) => StatusCode::CONFLICT,
            ask::Refusal::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        };
        Self(status, refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use hyper::server::conn::http1;
    use hyper_util::{rt::TokioIo, service::TowerToHyperService};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc,
    };

    use super::{super::server, *};
    use crate::agent::{
        handle::Question,
        policy::ask::{Apply, Changed, Refusal as Refused, Shown},
    };

    /// An agent that says what it was asked.
    async fn answer(mut questions: mpsc::Receiver<Question>) {
        while let Some(question) = questions.recv().await {
            match question {
                Question::Change(change, caller, sender) => {
                    let refusal = match *change {
                        Change::Confirm => Refused::State("none waits".to_owned()),
                        Change::Revert => Refused::Unsupported("no hook".to_owned()),
                        Change::Apply(Apply { text, .. }) if text == "bad" => {
                            Refused::Input("p:1: bad".to_owned())
                        }
                        change => {
                            let _gone = sender.send(Ok(Changed {
                                warnings: vec![format!("{change:?} {caller:?}")],
                                ..Changed::default()
                            }));
                            continue;
                        }
                    };
                    let _gone = sender.send(Err(refusal));
                }
                Question::Policy(sender) => {
                    let _gone = sender.send(Ok(Shown {
                        default_hits: 7,
                        ..Shown::default()
                    }));
                }
                _ => {}
            }
        }
    }

    async fn ask_as(uid: u32, request: &str, body: &str) -> String {
        let (questions, receiver) = mpsc::channel(8);
        tokio::spawn(answer(receiver));
        let peer = Peer {
            uid,
            gid: 0,
            pid: Some(42),
        };
        let router: Router = server::router(Handle::new(questions)).layer(Extension(peer));
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(
            http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(near), TowerToHyperService::new(router)),
        );
        let head = format!(
            "{request} HTTP/1.1\r\nhost: procid\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        far.write_all(head.as_bytes()).await.unwrap();
        // Who is refused unread may hang up first.
        let _reset = far.write_all(body.as_bytes()).await;
        let mut answer = String::new();
        let _reset = far.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn root_changes_the_policy() {
        let answer = ask_as(0, "POST /v1/policy/apply", r#"{"text":"a","file":"p"}"#).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains("Peer { pid: Some(42), uid: 0 }"),
            "{answer}"
        );
        assert!(answer.contains("confirm_seconds: None"), "{answer}");
        let answer = ask_as(0, "POST /v1/unblock", r#"{"name":"block-1"}"#).await;
        assert!(answer.contains("block-1"), "{answer}");
    }

    #[tokio::test]
    async fn others_look_and_change_nothing() {
        let answer = ask_as(1000, "GET /v1/policy", "").await;
        assert!(answer.contains("\"default_hits\":7"), "{answer}");
        for what in [
            "policy/apply",
            "policy/confirm",
            "policy/revert",
            "block",
            "unblock",
        ] {
            let answer = ask_as(1000, &format!("POST /v1/{what}"), "not even JSON").await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
            assert!(answer.contains("only root may change"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_refusal_has_its_status() {
        for (request, body, status, sentence) in [
            (
                "POST /v1/policy/apply",
                r#"{"text":"bad"}"#,
                "400",
                "p:1: bad",
            ),
            (
                "POST /v1/policy/apply",
                r#"{"txt":""}"#,
                "400",
                "unknown field",
            ),
            ("POST /v1/block", "", "400", "the body is not"),
            ("POST /v1/policy/confirm", "", "409", "none waits"),
            ("POST /v1/policy/revert", "", "501", "no hook"),
            ("GET /v1/policy/apply", "", "405", "POST for changes"),
        ] {
            let answer = ask_as(0, request, body).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
            assert!(answer.contains(sentence), "{answer}");
        }
        let long = "x".repeat(3 * 1024 * 1024);
        let answer = ask_as(0, "POST /v1/policy/apply", &long).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
