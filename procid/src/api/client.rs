//! The commands' end of the API.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{Method, Request, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{access, events, parameters::Parameters};
use crate::{
    agent::{
        handle::Status,
        policy::{
            ask::{Apply, BlockRequest, Changed, Shown, Unblock},
            explain::{Explain, Explained},
        },
    },
    flow::Query,
    records::Record,
};

/// The agent has this long for each part of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no agent answers on {}: {source}; start one with 'procid run'", .socket.display())]
    NoAgent { socket: PathBuf, source: io::Error },
    #[error(
        "{}: not permitted; ask as root or as a member of the group {}",
        .0.display(),
        access::GROUP
    )]
    Denied(PathBuf),
    /// The agent's own sentence.
    #[error("{0}")]
    Refused(String),
    /// The same of a caller who may not ask for that.
    #[error("{0}")]
    Forbidden(String),
    /// The same where there is nothing to do it to.
    #[error("{0}")]
    Nothing(String),
    /// The same of what the agent's host cannot do.
    #[error("{0}")]
    Unsupported(String),
    #[error("the agent on {} stopped answering: {why}", .socket.display())]
    Broken { socket: PathBuf, why: String },
}

/// Asks one agent; each question is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Records on their way from the agent.
#[derive(Debug)]
pub struct Answer {
    socket: PathBuf,
    body: Incoming,
    /// Bytes that have come and are no whole line yet.
    pending: BytesMut,
    /// Bytes of `pending` known to hold no end of line.
    searched: usize,
    /// How long the agent may take for the next record; `None`: as long as
    /// nothing happens.
    patience: Option<Duration>,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// # Errors
    ///
    /// No agent, no permission, or an answer that broke off.
    pub async fn status(&self) -> Result<Status, ClientError> {
        let response = self.get("/v1/status").await?;
        let body = self.body(response).await?;
        self.parse(&body)
    }

    /// # Errors
    ///
    /// As [`Self::status`], and a query that the agent refuses.
    pub async fn who(&self, query: &Query) -> Result<Answer, ClientError> {
        let parameters = serde_urlencoded::to_string(Parameters::from(query))
            .map_err(|error| self.broken(error))?;
        self.answer(&format!("/v1/who?{parameters}")).await
    }

    /// The images that run now.
    ///
    /// # Errors
    ///
    /// As [`Self::status`].
    pub async fn processes(&self) -> Result<Answer, ClientError> {
        self.answer("/v1/processes").await
    }

    /// Connections that are open and match.
    ///
    /// # Errors
    ///
    /// As [`Self::who`].
    pub async fn connections(&self, query: &Query) -> Result<Answer, ClientError> {
        let parameters = serde_urlencoded::to_string(Parameters::from(query))
            .map_err(|error| self.broken(error))?;
        self.answer(&format!("/v1/connections?{parameters}")).await
    }

    /// Every record from now on, or behind one that was seen, until the agent
    /// ends.
    ///
    /// # Errors
    ///
    /// As [`Self::status`], and a place that the agent refuses.
    pub async fn events(&self, from: &events::Parameters) -> Result<Answer, ClientError> {
        let parameters = serde_urlencoded::to_string(from).map_err(|error| self.broken(error))?;
        let answer = self.answer(&format!("/v1/events?{parameters}")).await?;
        Ok(Answer {
            patience: None,
            ..answer
        })
    }

    async fn answer(&self, target: &str) -> Result<Answer, ClientError> {
        let response = self.get(target).await?;
        Ok(Answer {
            socket: self.socket.clone(),
            body: response.into_body(),
            pending: BytesMut::new(),
            searched: 0,
            patience: Some(PATIENCE),
        })
    }

    /// The image of that entity id, where it is known.
    ///
    /// # Errors
    ///
    /// As [`Self::status`].
    pub async fn process(&self, entity_id: &str) -> Result<Option<Record>, ClientError> {
        // Entity ids are words; anything else names no image.
        if entity_id.is_empty()
            || !entity_id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Ok(None);
        }
        let target = format!("/v1/processes/{entity_id}");
        let response = self.send(Method::GET, &target, Bytes::new()).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = self.success(response).await?;
        let body = self.body(response).await?;
        self.parse(&body).map(Some)
    }

    /// The policy in force.
    ///
    /// # Errors
    ///
    /// As [`Self::status`], and none is in force.
    pub async fn policy(&self) -> Result<Shown, ClientError> {
        let response = self.get("/v1/policy").await?;
        let body = self.body(response).await?;
        self.parse(&body)
    }

    /// # Errors
    ///
    /// As [`Self::status`], and a policy that the agent refuses.
    pub async fn apply(&self, apply: &Apply) -> Result<Changed, ClientError> {
        self.change("/v1/policy/apply", apply).await
    }

    /// # Errors
    ///
    /// As [`Self::status`], and a question that the agent refuses.
    pub async fn explain(&self, request: &Explain) -> Result<Explained, ClientError> {
        self.post("/v1/policy/explain", request).await
    }

    /// # Errors
    ///
    /// As [`Self::status`], and no policy waits to be confirmed.
    pub async fn confirm(&self) -> Result<Changed, ClientError> {
        self.change("/v1/policy/confirm", &()).await
    }

    /// # Errors
    ///
    /// As [`Self::confirm`].
    pub async fn revert(&self) -> Result<Changed, ClientError> {
        self.change("/v1/policy/revert", &()).await
    }

    /// # Errors
    ///
    /// As [`Self::status`], and a rule that the agent refuses.
    pub async fn block(&self, request: &BlockRequest) -> Result<Changed, ClientError> {
        self.change("/v1/block", request).await
    }

    /// # Errors
    ///
    /// As [`Self::status`], and no temporary rule has that name.
    pub async fn unblock(&self, request: &Unblock) -> Result<Changed, ClientError> {
        self.change("/v1/unblock", request).await
    }

    async fn change<T: Serialize>(&self, target: &str, what: &T) -> Result<Changed, ClientError> {
        self.post(target, what).await
    }

    async fn post<T: Serialize, A: DeserializeOwned>(
        &self,
        target: &str,
        what: &T,
    ) -> Result<A, ClientError> {
        let body = serde_json::to_vec(what).map_err(|error| self.broken(error))?;
        let response = self.send(Method::POST, target, body.into()).await?;
        let response = self.success(response).await?;
        let body = self.body(response).await?;
        self.parse(&body)
    }

    async fn get(&self, target: &str) -> Result<Response<Incoming>, ClientError> {
        let response = self.send(Method::GET, target, Bytes::new()).await?;
        self.success(response).await
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| connect_error(&self.socket, source))?;
        let exchange = async {
            let (mut sender, connection) =
                http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
            // It ends with the answer; its errors reach the answer's reader.
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(target)
                .header("host", "procid")
                .body(Full::new(body))?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(sender.send_request(request).await?)
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| self.broken(format!("no answer in {} s", PATIENCE.as_secs())))?
            .map_err(|error| self.broken(error))
    }

    async fn success(
        &self,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, ClientError> {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
        }

        match response.status() {
            StatusCode::OK => Ok(response),
            status => {
                let body = self.body(response).await?;
                let sentence = self.parse::<Refusal>(&body)?.error;
                Err(match status {
                    StatusCode::SERVICE_UNAVAILABLE => self.broken(sentence),
                    StatusCode::FORBIDDEN => ClientError::Forbidden(sentence),
                    StatusCode::CONFLICT => ClientError::Nothing(sentence),
                    StatusCode::NOT_IMPLEMENTED => ClientError::Unsupported(sentence),
                    _ => ClientError::Refused(sentence),
                })
            }
        }
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = tokio::time::timeout(PATIENCE, response.into_body().collect())
            .await
            .map_err(|error| self.broken(error))?
            .map_err(|error| self.broken(error))?;
        Ok(body.to_bytes())
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.broken(error))
    }

    fn broken(&self, why: impl fmt::Display) -> ClientError {
        broken(&self.socket, &why)
    }
}

impl Answer {
    /// The next record; `None` at the end.
    ///
    /// # Errors
    ///
    /// The answer broke off, or is not records.
    pub async fn next(&mut self) -> Result<Option<Record>, ClientError> {
        loop {
            let unsearched = self.pending.get(self.searched..).unwrap_or_default();
            if let Some(end) = unsearched.iter().position(|&b| b == b'\n') {
                let line = self.pending.split_to(self.searched + end + 1);
                self.searched = 0;
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| broken(&self.socket, &error));
            }
            self.searched = self.pending.len();
            let frame = match self.patience {
                Some(patience) => tokio::time::timeout(patience, self.body.frame())
                    .await
                    .map_err(|error| broken(&self.socket, &error))?,
                None => self.body.frame().await,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.pending.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(broken(&self.socket, &error)),
                None if self.pending.is_empty() => return Ok(None),
                None => return Err(broken(&self.socket, &"the last line is cut off")),
            }
        }
    }
}

fn connect_error(socket: &Path, source: io::Error) -> ClientError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied(socket.to_owned()),
        _ => ClientError::NoAgent {
            socket: socket.to_owned(),
            source,
        },
    }
}

fn broken(socket: &Path, why: &dyn fmt::Display) -> ClientError {
    ClientError::Broken {
        socket: socket.to_owned(),
        why: why.to_string(),
    }
}
