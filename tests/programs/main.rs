//! Programs that use the network in each way procid has to tell apart.
//!
//! | module | does |
//! | --- | --- |
//! | [`tcp`], [`udp`] | one connection or datagram of each kind |
//! | [`resolve`] | asks for a name, then connects |
//! | [`by`] | which thread or process of a program acts |
//! | [`enter`] | other users, namespaces, roots and mounts, then another program |
//! | [`memfd`] | runs itself from a file that has no name |
//! | [`gate`] | holds executions up until their file is hashed |
//! | [`gate_host`] | the same on every file system of a host of its own |
//! | [`hand`] | sockets that pass from one image to another |
//! | [`hide`] | images that are not what they seem |
//! | [`storm`] | many short-lived processes |
//! | [`launch`] | runs another program |
//! | [`leak`] | sends a file out by the socket of another process |
//! | [`load`] | many connections of one process |
//! | [`knock`] | tries the same thing until it is told to end |
//! | [`shell`] | a remote shell |
//! | [`proxy`] | passes on what it is asked |
//! | [`crowd`] | very many processes, all alive at one time |
//! | [`hold`] | as many, all open at one time |
//! | [`way`] | every way out, with its own other end |
//! | [`bench`] | loops whose cost is measured |
//!
//! What was done goes to stdout, one line a fact (see
//! [`procid_tests::truth`]); what to wait for comes from stdin.

mod bench;
mod by;
mod crowd;
mod enter;
mod gate;
mod gate_host;
mod hand;
mod hide;
mod hold;
mod knock;
mod launch;
mod leak;
mod load;
mod memfd;
mod proxy;
mod resolve;
mod scan;
mod shell;
mod storm;
mod tcp;
mod udp;
mod way;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "procid-testprog", about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// Connect over TCP
    Connect(tcp::Connect),
    /// Send UDP datagrams
    Udp(udp::Udp),
    /// Ask a DNS server for names, then connect over TCP
    Resolve(resolve::Resolve),
    /// Change user, namespaces, root or mounts, then run a program
    Enter(enter::Enter),
    /// Run this program from a memfd
    Memfd(memfd::Memfd),
    /// Hold executions on a file system up until their file is hashed
    Gate(gate::Gate),
    /// The same on every file system of a host of its own
    #[command(hide = true)]
    GateHost(gate_host::GateHost),
    /// The watchdog of `gate`
    #[command(hide = true, name = procid::gate::WATCH)]
    GateWatch,
    /// Pass a socket from one image to another
    Hand(hand::Hand),
    /// The other end of what `hand` and `hide` do
    #[command(hide = true)]
    HandPeer(hand::peer::Other),
    /// Another image that `hand` gives a socket to
    #[command(hide = true)]
    HandUser(hand::user::User),
    /// Connect from an image that is not what it seems
    Hide(hide::Hide),
    /// The image that `hide` hides
    #[command(hide = true)]
    HideImage(hide::image::Image),
    /// The interpreter of a script of `hide`
    #[command(hide = true)]
    HideScript(hide::script::Script),
    /// Start many short-lived processes that connect
    Storm(storm::Storm),
    /// Connect and close, many times
    Load(load::Load),
    /// Run another program
    Launch(launch::Launch),
    /// Send a file out by a passed socket, and leave no program behind
    Leak(leak::Leak),
    /// Who sends it
    #[command(hide = true)]
    LeakSender(leak::Sender),
    /// Try to speak until told to end, and count the answers
    Knock(knock::Knock),
    /// Send datagrams to very many destinations
    Scan(scan::Scan),
    /// Give whoever connects a shell
    Shell(shell::Shell),
    /// Take connections, and make one of its own for each
    Proxy(proxy::Proxy),
    /// Start very many processes, of which some connect
    Crowd(crowd::Crowd),
    /// Open many connections and keep them
    Hold(hold::Hold),
    /// Use the network in one way, with an other end of its own
    Way(way::Way),
    /// The other end of a way
    #[command(hide = true)]
    WayPeer(way::PeerProgram),
    /// Time a loop
    #[command(subcommand)]
    Bench(bench::Bench),
}

/// Whether the network is to be denied to this program, which then has a
/// network namespace to itself, and has nothing to wait for.
fn is_to_be_denied() -> bool {
    std::env::var_os(procid_tests::way::DENIED).is_some()
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().program {
        Program::Connect(connect) => connect.run(),
        Program::Udp(udp) => udp.run(),
        Program::Resolve(resolve) => resolve.run(),
        Program::Enter(enter) => enter.run(),
        Program::Memfd(memfd) => memfd.run(),
        Program::Gate(gate) => gate.run(),
        Program::GateHost(host) => host.run(),
        Program::GateWatch => Ok(procid::gate::watch::run()?),
        Program::Hand(hand) => hand.run(),
        Program::HandPeer(peer) => peer.run(),
        Program::HandUser(user) => user.run(),
        Program::Hide(hide) => hide.run(),
        Program::HideImage(image) => image.run(),
        Program::HideScript(script) => script.run(),
        Program::Storm(storm) => storm.run(),
        Program::Load(load) => load.run(),
        Program::Launch(launch) => launch.run(),
        Program::Leak(leak) => leak.run(),
        Program::LeakSender(sender) => sender.run(),
        Program::Knock(knock) => knock.run(),
        Program::Scan(scan) => scan.run(),
        Program::Shell(shell) => shell.run(),
        Program::Proxy(proxy) => proxy.run(),
        Program::Crowd(crowd) => crowd.run(),
        Program::Hold(hold) => hold.run(),
        Program::Way(way) => way.run(),
        Program::WayPeer(peer) => peer.run(),
        Program::Bench(bench) => bench.run(),
    }
}
