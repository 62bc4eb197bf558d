//! Whatever is asked, bytes that are no question included.

use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::*;

const REQUESTS: usize = 1_500;
/// What the OpenAPI file says that an answer can be (503: this agent does not
/// answer of policies), and what a server says of bytes that are no request.
const STATUSES: [&str; 11] = [
    "200", "400", "403", "404", "405", "408", "409", "413", "414", "431", "503",
];

/// Pieces of targets, good and bad.
const PIECES: [&str; 40] = [
    "/v1/who",
    "/v1/connections",
    "/v1/events",
    "/v1/processes",
    "/v1/status",
    "/v1/policy",
    "/v1/policy/apply",
    "/metrics",
    "/",
    "//",
    "..",
    "?",
    "&",
    "=",
    "%",
    "%2",
    "%00",
    "%ff",
    "%E2%98%83",
    "+",
    "dst",
    "src",
    "either",
    "pid",
    "exe",
    "sha256",
    "user",
    "container",
    "verdict",
    "since",
    "until",
    "at",
    "community_id",
    "domain",
    "after",
    ":443",
    "[::1]",
    "-1",
    "99999999999999999999",
    "nobody",
];

fn target() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(PIECES.to_vec()), 0..12).prop_map(|pieces| pieces.concat().into())
}

/// A request of a head that may be one, and a body; or bytes.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "HEAD", "DELETE", "get", ""]);
    let body = vec(any::<u8>(), 0..64);
    let head = prop::sample::select(vec![
        "",
        "host: x\r\n",
        "content-length: 4\r\n",
        "content-length: x\r\n",
        "a\r\n",
        "transfer-encoding: chunked\r\n",
        "content-type: application/json\r\n",
    ]);
    let whole = (method, target(), head, body).prop_map(|(method, target, head, body)| {
        let target = if target.is_empty() {
            b"/".to_vec()
        } else {
            target
        };
        [
            method.as_bytes(),
            b" ",
            &target,
            b" HTTP/1.1\r\nconnection: close\r\n",
            head.as_bytes(),
            b"\r\n",
            &body,
        ]
        .concat()
    });
    let whole = whole.boxed();
    prop_oneof![
        4 => whole.clone(),
        1 => (whole, any::<prop::sample::Index>()).prop_map(|(mut whole, at)| {
            whole.truncate(at.index(whole.len()));
            whole
        }),
        1 => vec(any::<u8>(), 0..200),
    ]
}

#[tokio::test]
async fn is_answered_or_refused() {
    let running = Running::start();
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut answered = 0;
    for _ in 0..REQUESTS {
        let request = request().new_tree(&mut runner).unwrap().current();
        let mut stream = UnixStream::connect(running.directory.path().join("s"))
            .await
            .unwrap();
        // It may be refused before all of it was sent.
        let _refused = stream.write_all(&request).await;
        let _gone = stream.shutdown().await;
        if request.starts_with(b"GET /v1/events") {
            // It goes on for as long as somebody reads.
            continue;
        }
        let mut answer = Vec::new();
        // Reset, where bytes were left unread.
        let _reset = stream.take(4_096).read_to_end(&mut answer).await;
        let Some(rest) = answer.strip_prefix(b"HTTP/1.1 ") else {
            assert!(answer.is_empty(), "{}", answer.escape_ascii());
            continue;
        };
        let status = String::from_utf8_lossy(&rest[..3]).into_owned();
        let asked = request.escape_ascii();
        assert!(STATUSES.contains(&status.as_str()), "{status}: {asked}");
        answered += 1;
    }
    assert!(answered > REQUESTS / 2, "{answered}");
    assert_eq!(running.client().status().await.unwrap().emitted, 7);
    running.stop.send(()).unwrap();
    running.server.await.unwrap().unwrap();
}
