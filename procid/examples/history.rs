//! What history costs: synthetic connections are written, then asked for.
//!
//! `cargo run --release -p procid --example history -- [RECORDS [DIRECTORY]]`,
//! on a quiet machine. A connection is two records, `connect` and `close`.

use std::{
    env,
    error::Error,
    fs,
    net::Ipv4Addr,
    num::NonZero,
    path::Path,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use procid::{
    agent::recall::join,
    connections::{Connection, Key, Outcome},
    flow::{End, Query},
    history::{
        Fact, Feed, Limits, Reader,
        fact::{FlowFact, ImageFact, Run, Told},
        feed::QUEUE_MAX,
        file::FILE,
        writer,
    },
    identity::{
        context::{Context, Within},
        entity::EntityId,
        hash::{FileHash, Grade, settle::Offset},
        image::{Image, Provenance},
    },
    records::{Agent, Host, Record},
};
use procid_common::{
    image::{Credentials, FileState, ImageId},
    process::Actor,
    socket::{Address, Hook},
};
use rustix::time::{ClockId, clock_gettime};

const PROGRAMS: u64 = 300;
/// Connections that one image makes.
const OF_ONE_IMAGE: u64 = 50;
/// From one connection to the next.
const STEP_NS: u64 = 100_000;
const OFFSET: i64 = 1_700_000_000_000_000_000;
const BOOT: [u8; 16] = [7; 16];
/// Facts handed over at once.
const ROUND: u64 = 256;
const QUESTIONS: u64 = 25;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let records: u64 = arguments.next().as_deref().unwrap_or("1000000").parse()?;
    let scratch;
    let directory = match arguments.next() {
        Some(directory) => directory.into(),
        None => {
            scratch = tempfile::tempdir()?;
            scratch.path().to_owned()
        }
    };
    let connections = records / 2;
    write(&directory, connections)?;
    ask(&directory, connections)
}

fn write(directory: &Path, connections: u64) -> Result<(), Box<dyn Error>> {
    let limits = Limits {
        size: 1 << 40,
        age: Duration::from_secs(u64::from(u32::MAX)),
    };
    let (mut feed, writer) = writer::start(directory.to_owned(), run(), limits)?;
    let began = (cpu(ClockId::ProcessCPUTime), cpu(ClockId::ThreadCPUTime));
    let mut records: u64 = 0;
    for number in 0..connections {
        if number % OF_ONE_IMAGE == 0 {
            feed.put(image(number));
            records += 1;
        }
        let key = Key {
            cookie: 1 + number,
            flow: 1,
        };
        for told in [Told::New, Told::Again] {
            feed.put(Fact::Flow(Box::new(FlowFact {
                key,
                told,
                connection: connection(number, told == Told::Again),
                within: within(),
                ruling: None,
            })));
            records += 1;
        }
        if number % ROUND == 0 {
            hand_over(&mut feed);
        }
    }
    feed.hand_over();
    let own = cpu(ClockId::ThreadCPUTime) - began.1;
    let missed = feed.state().missed;
    drop(feed);
    writer.finish();
    let all = cpu(ClockId::ProcessCPUTime) - began.0;
    let size = fs::metadata(directory.join(FILE))?.len();
    let per = |total: f64| total / records as f64;
    println!("{records} records of {connections} connections, {missed} missed");
    println!(
        "writer: {:.2} µs CPU a record; made and handed over: {:.2} µs",
        per((all - own).as_secs_f64() * 1e6),
        per(own.as_secs_f64() * 1e6)
    );
    println!(
        "{:.1} bytes a record, {:.1} a connection, {size} bytes",
        per(size as f64),
        size as f64 / connections as f64
    );
    Ok(())
}

/// Never more than the queue takes.
fn hand_over(feed: &mut Feed) {
    while feed.queued() > QUEUE_MAX / 2 {
        thread::sleep(Duration::from_micros(200));
    }
    feed.hand_over();
}

fn ask(directory: &Path, connections: u64) -> Result<(), Box<dyn Error>> {
    let at = |number: u64| OFFSET.saturating_add_unsigned(number * STEP_NS + 10_000);
    let flow = |number: u64| {
        let connection = connection(number, true);
        Query {
            source: Some(end(connection.source, connection.source_port)),
            destination: Some(end(connection.destination, connection.destination_port)),
            ..Query::default()
        }
    };
    let port = |number: u64| Query {
        either: Some(End {
            address: None,
            port: Some(connection(number, true).source_port),
        }),
        since: Some(at(number) - 60_000_000_000),
        until: Some(at(number) + 60_000_000_000),
        ..Query::default()
    };
    let hash = |number: u64| Query {
        sha256: Some("ff".repeat(4)),
        at: Some(at(number)),
        ..Query::default()
    };
    let time = |number: u64| Query {
        at: Some(at(number)),
        ..Query::default()
    };
    let asked: [(&str, &dyn Fn(u64) -> Query); 4] = [
        ("flow", &flow),
        ("port and two minutes", &port),
        ("rare hash and time", &hash),
        ("time", &time),
    ];
    for (name, query) in asked {
        let mut times = Vec::new();
        let mut found = 0;
        for question in 0..QUESTIONS {
            let number = connections * (2 * question + 1) / (2 * QUESTIONS);
            let query = query(number);
            let began = Instant::now();
            let answer: Vec<Record> = join::alone(&Reader::open(directory)?, &query)?;
            times.push(began.elapsed());
            found += answer.len() - 1;
        }
        times.sort_unstable();
        println!(
            "who by {name}: median {:.2} ms, longest {:.2} ms, {:.1} found",
            times[times.len() / 2].as_secs_f64() * 1e3,
            times[times.len() - 1].as_secs_f64() * 1e3,
            found as f64 / QUESTIONS as f64
        );
    }
    Ok(())
}

fn cpu(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

fn run() -> Run {
    Run {
        boot_id: BOOT,
        host: Host::default(),
        agent: Agent {
            agent_type: "procid".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: None,
            ephemeral_id: Some("synthetic".to_owned()),
        },
        keeps_args: true,
        backend: "cgroup".to_owned(),
        uncovered: Vec::new(),
        since_ns: 0,
        first_offset: Offset(OFFSET),
        offset: Offset(OFFSET),
    }
}

fn image_id(number: u64) -> ImageId {
    let of = number / OF_ONE_IMAGE;
    ImageId {
        start_boottime: of * OF_ONE_IMAGE * STEP_NS,
        self_exec_id: 2,
        tgid: 1_000 + u32::try_from(of % 4_000_000).unwrap_or(0),
        reserved: 0,
    }
}

fn actor(number: u64) -> Actor {
    let id = image_id(number);
    Actor {
        creds: Credentials {
            uid: 1000,
            gid: 1000,
            euid: 1000,
            egid: 1000,
            loginuid: 1000,
            sessionid: 3,
        },
        tid: id.tgid,
        vpid: id.tgid,
        cgroup: 4_242,
        netns: 4_026_531_840,
        mntns: 4_026_531_841,
        comm: *b"client\0\0\0\0\0\0\0\0\0\0",
    }
}

fn image(number: u64) -> Fact {
    let id = image_id(number);
    let program = number / OF_ONE_IMAGE % PROGRAMS;
    let byte = u8::try_from(program % 255).unwrap_or(0);
    // One run in a hundred thousand is of the rare program.
    let is_rare = number / OF_ONE_IMAGE % 100_000 == 77;
    let path = format!("/usr/bin/client-{program}");
    Fact::Image(Box::new(ImageFact {
        image: Image {
            id,
            entity: EntityId::new(&BOOT, &id),
            parent: None,
            previous: None,
            root: id,
            exe: Some(FileState {
                ino: 1_000 + program,
                dev: 254 << 20,
                ..FileState::default()
            }),
            fs_magic: 0xef53,
            flags: 0,
            path: Some(path.clone().into_bytes().into()),
            args: Some(Arc::from([
                path.into_bytes(),
                format!("--job={number}").into_bytes(),
            ])),
            actor: actor(number),
            born_ns: number * STEP_NS,
            ended_ns: None,
            provenance: Provenance::Live,
            hash: FileHash::Known {
                sha256: [if is_rare { 255 } else { byte }; 32],
                grade: Grade::Verified,
            },
            script: None,
            sequence: NonZero::new(3 * number + 1),
        },
        within: within(),
        status: None,
    }))
}

/// A service's.
fn within() -> Within {
    static CONTEXT: LazyLock<Arc<Context>> = LazyLock::new(|| {
        Arc::new(Context {
            path: Some("/system.slice/web.service".to_owned()),
            unit: Some("web.service".to_owned()),
            ..Context::default()
        })
    });
    Within {
        context: Some(Arc::clone(&CONTEXT)),
        user: None,
    }
}

/// Mixes the bits of a number: a fixed sequence without a pattern.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}

fn connection(number: u64, has_ended: bool) -> Connection {
    let random = mixed(number);
    let started_ns = number * STEP_NS;
    let low = |bits: u64, of: u64| u16::try_from(bits % of).unwrap_or(0);
    let remote = Ipv4Addr::from(0x0a00_0000 | u32::try_from(random % 60_000).unwrap_or(0));
    Connection {
        image: image_id(number),
        others: Box::default(),
        actor: actor(number),
        speakers: None,
        source: Ipv4Addr::new(10, 9, 0, 5).to_ipv6_mapped().octets(),
        destination: remote.to_ipv6_mapped().octets(),
        wire: None,
        nat: None,
        domain: None,
        sent: has_ended.then_some(random % 5_000),
        received: has_ended.then_some(random % 90_000),
        started_ns,
        // One in a hundred lasts for minutes.
        ended_ns: NonZero::new(match (has_ended, number % 100) {
            (false, _) => 0,
            (true, 0) => started_ns + 180_000_000_000,
            (true, _) => started_ns + 20_000_000 + random % 1_000_000,
        }),
        released_ns: None,
        sequence: NonZero::new(3 * number + 2),
        outcome: Outcome::Success,
        judged: None,
        flags: 0,
        hook: Hook::Connect4 as u32,
        netns: 4_026_531_840,
        source_port: 32_768 + low(random >> 8, 28_000),
        destination_port: [443, 443, 443, 53, 5432, 8080][usize::from(low(random >> 24, 6))],
        protocol: 6,
        sock_type: 1,
        provenance: Provenance::Live,
        state: 0,
        family: 2,
        is_use: false,
    }
}

fn end(address: Address, port: u16) -> End {
    let ip = std::net::Ipv6Addr::from(address).to_canonical();
    End {
        address: Some(ip.into()),
        port: Some(port),
    }
}
