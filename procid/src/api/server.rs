//! Requests to answers: bounded in number, size and time.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{
        DefaultBodyLimit, Path, Query as UrlQuery, Request, State, rejection::QueryRejection,
    },
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use bytes::Bytes;
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinSet,
};
use tracing::{debug, warn};

use super::{
    access::{self, Peer},
    events, metrics,
    parameters::Parameters,
    percent, policy,
    slots::{self, Place, Slots},
};
use crate::{
    agent::{
        handle::{Handle, Stopped},
        settings::POLICY_BYTES,
    },
    flow::Query,
    records::Record,
};

/// A caller has this long to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// And this long to take its whole answer, unless it reads along.
const CONNECTION_TIME: Duration = Duration::from_secs(120);
/// A reader of the metrics has this long in all.
const METRICS_TIME: Duration = Duration::from_secs(10);
/// Those that are being answered when the agent ends have this long to take it.
const LAST_TIME: Duration = Duration::from_secs(1);
/// Most bytes of a request's head.
const REQUEST_BYTES: usize = 16 * 1024;
/// Most bytes of a request's body: a policy.
const BODY_BYTES: usize = 2 * POLICY_BYTES;

/// Serves until `stop` is ready, then finishes what can be finished at once.
///
/// # Errors
///
/// Of accept(2), other than those of one connection.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let stream = handle.stream().clone();
    tokio::spawn(async move { stream.pump().await });
    let router = router(handle);
    let own_uid = rustix::process::geteuid().as_raw();
    let slots = Slots::default();
    let mut tasks = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accept = async {
            let place = slots.place().await?;
            Ok::<_, io::Error>((place, accept_result(listener.accept().await).await?))
        };
        let (place, stream) = tokio::select! {
            () = &mut stop => break,
            accepted = accept => accepted?,
        };
        while tasks.try_join_next().is_some() {}
        let Some((stream, _)) = stream else { continue };
        let router = router.clone();
        let slots = slots.clone();
        tasks.spawn(async move {
            if let Err(error) = connection(stream, router, own_uid, place, &slots).await {
                debug!("API connection: {error}");
            }
        });
    }
    drop(listener);
    let finished = async { while tasks.join_next().await.is_some() {} };
    let _cut_off = tokio::time::timeout(LAST_TIME, finished).await;
    Ok(())
}

/// Serves nothing but the metrics, to whoever connects, and never returns but
/// with an error of accept(2).
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_metrics(listener: TcpListener, handle: Handle) -> io::Result<Infallible> {
    let router = finish(metrics::router(), handle, "only /metrics is served here");
    let slots = Slots::default();
    loop {
        let place = slots.place().await?;
        let Some((stream, _)) = accept_result(listener.accept().await).await? else {
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let served = http(stream, router);
            if let Err(error) = tokio::time::timeout(METRICS_TIME, served).await {
                debug!("metrics connection: {error}");
            }
            drop(place);
        });
    }
}

/// Tells the errors of one connection, and those that pass, from the socket's.
async fn accept_result<T>(accepted: io::Result<T>) -> io::Result<Option<T>> {
    let error = match accepted {
        Ok(accepted) => return Ok(Some(accepted)),
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

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: UnixStream,
    router: Router,
    own_uid: u32,
    place: Place,
    slots: &Slots,
) -> Result<(), Failed> {
    let peer = stream.peer_cred()?;
    let peer = Peer {
        uid: peer.uid(),
        gid: peer.gid(),
        pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()),
    };
    let Some(stay) = slots.stay(place, peer) else {
        return Ok(slots::say_busy(&stream)?);
    };
    let router = if access::served(peer, own_uid) {
        router
            .layer(Extension(peer))
            .layer(Extension(Arc::clone(&stay)))
    } else {
        warn!("the API refused uid {} gid {}", peer.uid, peer.gid);
        refusing()
    };
    tokio::select! {
        served = http(stream, router) => served,
        () = stay.is_over(CONNECTION_TIME) => Err("its time is over".into()),
    }
}

async fn http<S>(stream: S, router: Router) -> Result<(), Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
        .map_err(Failed::from)
}

/// Every resource: its method, its path, and what answers.
pub(super) fn routes() -> Vec<(Method, &'static str, MethodRouter<Handle>)> {
    // What takes no parameters is given none: a typing error is not to be a
    // question that silently means something else.
    let bare = |resource: MethodRouter<Handle>| resource.layer(from_fn(without_parameters));
    vec![
        (Method::GET, "/v1/status", bare(get(status))),
        (Method::GET, "/v1/who", get(who)),
        (Method::GET, "/v1/connections", get(connections)),
        (Method::GET, "/v1/events", get(events::events)),
        (Method::GET, "/v1/processes", bare(get(processes))),
        (Method::GET, "/v1/processes/{entity_id}", bare(get(process))),
        (Method::GET, "/v1/policy", bare(get(policy::show))),
        (Method::GET, "/metrics", bare(get(metrics::metrics))),
        (Method::POST, "/v1/policy/apply", bare(post(policy::apply))),
        (
            Method::POST,
            "/v1/policy/explain",
            bare(post(policy::explain)),
        ),
        (
            Method::POST,
            "/v1/policy/confirm",
            bare(post(policy::confirm)),
        ),
        (
            Method::POST,
            "/v1/policy/revert",
            bare(post(policy::revert)),
        ),
        (Method::POST, "/v1/block", bare(post(policy::block))),
        (Method::POST, "/v1/unblock", bare(post(policy::unblock))),
    ]
}

pub(super) fn router(handle: Handle) -> Router {
    let router = routes()
        .into_iter()
        .fold(Router::new(), |router, (_, path, resource)| {
            router.route(path, resource)
        });
    let nothing = "there is no such resource; ask /v1/status, /v1/who, /v1/connections, \
                   /v1/events, /v1/processes, /v1/processes/ENTITY_ID, /v1/policy or /metrics";
    finish(router, handle, nothing)
}

/// What holds for every resource.
fn finish(router: Router<Handle>, handle: Handle, nothing: &'static str) -> Router {
    router
        .fallback(async move || Refusal(StatusCode::NOT_FOUND, nothing.to_owned()))
        .method_not_allowed_fallback(async || {
            Refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "this resource takes no such method; use POST for changes, GET for all else"
                    .to_owned(),
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn(well_encoded))
        .with_state(handle)
}

async fn without_parameters(request: Request, next: Next) -> Response {
    match request.uri().query() {
        None | Some("") => next.run(request).await,
        Some(_) => Refusal(
            StatusCode::BAD_REQUEST,
            "this resource takes no parameters; leave out the ? and what follows it".to_owned(),
        )
        .into_response(),
    }
}

/// What cannot be decoded is not guessed at.
async fn well_encoded(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let is_fine = |text: &str| percent::decodes(text.as_bytes());
    if is_fine(uri.path()) && uri.query().is_none_or(is_fine) {
        return next.run(request).await;
    }
    Refusal(
        StatusCode::BAD_REQUEST,
        "the address holds a % that is not followed by two hexadecimal digits, or bytes that \
         are not UTF-8; write a literal % as %25"
            .to_owned(),
    )
    .into_response()
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
    Ok(lines(handle.who(query_of(parameters)?).await?))
}

async fn connections(
    State(handle): State<Handle>,
    parameters: Result<UrlQuery<Parameters>, QueryRejection>,
) -> Result<Response, Refusal> {
    Ok(lines(handle.connections(query_of(parameters)?).await?))
}

fn query_of(parameters: Result<UrlQuery<Parameters>, QueryRejection>) -> Result<Query, Refusal> {
    let UrlQuery(parameters) = parameters.map_err(|error| bad_parameter(&error))?;
    Query::try_from(parameters).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

pub(super) fn bad_parameter(error: &QueryRejection) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, error.body_text())
}

async fn processes(State(handle): State<Handle>) -> Result<Response, Refusal> {
    Ok(lines(handle.processes().await?))
}

/// A record a line. Each becomes text only when the caller takes it.
fn lines(records: Vec<Record>) -> Response {
    let lines = stream::iter(records.into_iter().map(|record| line(&record)));
    ndjson(Body::from_stream(lines))
}

pub(super) fn ndjson(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
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
mod tests;
