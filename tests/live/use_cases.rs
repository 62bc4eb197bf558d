//! The policies of docs/USE_CASES.md, applied to programs of their kind.

use std::net::SocketAddr;

use procid_tests::{listener, scratch::Image, stage::Stage};

const PAGE: &str = include_str!("../../docs/USE_CASES.md");
const EPERM: i32 = 1;

/// The policy below a heading, with the page's names replaced by a test's.
///
/// # Panics
///
/// When the page has no such policy, or does not mention a name.
fn policy(heading: &str, names: &[(&str, String)]) -> String {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, rest) = section.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    names.iter().fold(text.to_owned(), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "{heading} does not mention {theirs}");
        text.replace(theirs, ours)
    })
}

fn path(image: &Image) -> String {
    image.path.display().to_string()
}

/// A listener on a loopback address, and what the page calls it.
struct Service {
    tcp: listener::Tcp,
    address: SocketAddr,
}

impl Service {
    fn on(ip: &str) -> Self {
        let tcp = listener::Tcp::on(&format!("{ip}:0"));
        let address = tcp.address();
        Self { tcp, address }
    }

    fn cidr(&self) -> String {
        format!("{}/32", self.address.ip())
    }

    fn port(&self) -> String {
        format!("port = {}", self.address.port())
    }
}

/// The error of a connect by the last of a chain of images, each launched by
/// the one before.
fn connect(stage: &Stage, chain: &[&Image], to: &Service) -> Option<i32> {
    let (first, rest) = chain.split_first().unwrap();
    let mut arguments = Vec::new();
    for image in rest {
        arguments.extend(["launch".to_owned(), "--".to_owned(), path(image)]);
    }
    arguments.extend(["connect", "--to", &to.address.to_string()].map(str::to_owned));
    let mut acts = stage.start_file(&first.path, arguments).finish().acts;
    assert_eq!(acts.len(), 1, "{acts:?}");
    acts.remove(0).error
}

#[test]
fn the_token_broker() {
    let mut stage = Stage::new();
    let broker = stage.scratch.program("token-broker");
    let other = stage.scratch.program("service");
    let tokens = Service::on("127.0.2.3");
    // The first run of a file is what its hash is known from.
    let running = stage.start_file(&broker.path, ["launch", "--wait", "--", "true"]);
    stage.wait_for_hash(running.pid(), &broker.file);
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let text = policy(
        "The token broker",
        &[
            ("/usr/bin/token-broker", path(&broker)),
            (hash, broker.sha256.clone()),
            ("10.1.2.3/32", tokens.cidr()),
            ("port = 443", tokens.port()),
        ],
    );
    stage.apply(&text, &[]);
    assert_eq!(connect(&stage, &[&broker], &tokens), None);
    assert_eq!(connect(&stage, &[&other], &tokens), Some(EPERM));
    let copy = stage.scratch.program("token-broker-copy");
    assert_eq!(connect(&stage, &[&copy], &tokens), Some(EPERM));
    assert_eq!(tokens.tcp.peers(1).len(), 1);
}

#[test]
fn the_build_agent() {
    let stage = Stage::new();
    let controller = stage.scratch.program("controller");
    let helper = stage.scratch.program("helper");
    let deploy = Service::on("127.0.2.4");
    let text = policy(
        "The build agent",
        &[
            ("/usr/lib/build/controller", path(&controller)),
            ("10.1.2.4/32", deploy.cidr()),
            ("port = 443", deploy.port()),
        ],
    );
    stage.apply(&text, &[]);
    assert_eq!(connect(&stage, &[&controller], &deploy), None);
    for chain in [
        &[&controller, &helper][..],
        &[&controller, &helper, &helper],
        // The controller's own file, run by a helper, is no controller.
        &[&controller, &helper, &controller],
        &[&helper],
    ] {
        assert_eq!(connect(&stage, chain, &deploy), Some(EPERM), "{chain:?}");
    }
    assert_eq!(deploy.tcp.peers(1).len(), 1);
}

#[test]
fn the_gateways_credential_path() {
    let stage = Stage::new();
    let gateway = stage.scratch.program("gateway");
    let other = stage.scratch.program("other");
    let upstream = Service::on("127.0.2.5");
    let text = policy(
        "The gateway's credential path",
        &[
            ("/usr/sbin/gateway", path(&gateway)),
            ("uid = 990", "uid = 0".to_owned()),
            ("10.1.2.5/32", upstream.cidr()),
            ("port = 8443", upstream.port()),
        ],
    );
    stage.apply(&text, &[]);
    assert_eq!(connect(&stage, &[&gateway], &upstream), None);
    assert_eq!(connect(&stage, &[&other], &upstream), Some(EPERM));
    // A child of the gateway's, of the same user.
    assert_eq!(connect(&stage, &[&gateway, &other], &upstream), Some(EPERM));
    assert_eq!(upstream.tcp.peers(1).len(), 1);
}

#[test]
fn the_ai_agents_tools() {
    let stage = Stage::new();
    let [agent, search, tickets, helper] =
        ["agent", "search", "tickets", "helper"].map(|name| stage.scratch.program(name));
    let (searches, ticketing) = (Service::on("127.0.2.6"), Service::on("127.0.2.7"));
    let text = policy(
        "The AI agent's tools",
        &[
            ("/opt/agent/tools/search", path(&search)),
            ("/opt/agent/tools/tickets", path(&tickets)),
            ("/opt/agent/agent", path(&agent)),
            ("cidr = \"10.1.2.6/32\", port = 443", reach(&searches)),
            ("cidr = \"10.1.2.7/32\", port = 443", reach(&ticketing)),
        ],
    );
    stage.apply(&text, &[]);
    for (chain, to, error) in [
        (&[&agent, &search][..], &searches, None),
        (&[&agent, &search, &helper], &searches, None),
        (&[&agent, &tickets], &ticketing, None),
        (&[&agent], &searches, None),
        (&[&agent, &search], &ticketing, Some(EPERM)),
        (&[&agent, &search, &helper], &ticketing, Some(EPERM)),
        (&[&agent, &tickets], &searches, Some(EPERM)),
        (&[&agent, &tickets, &helper], &ticketing, Some(EPERM)),
        (&[&agent, &helper], &searches, Some(EPERM)),
        (&[&agent, &helper, &agent], &searches, Some(EPERM)),
    ] {
        assert_eq!(connect(&stage, chain, to), error, "{chain:?}");
    }
}

fn reach(service: &Service) -> String {
    format!("cidr = \"{}\", {}", service.cidr(), service.port())
}
