//! Scripts: what runs is their interpreter.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use procid_tests::truth::{Actor, FileId, print_line};
use rustix::process::Pid;

use super::{image::Image, told};
use crate::hand::{
    child::spawned,
    copies::Copies,
    flow::{add, opened, unsupported},
    means::{GREETING, PAYLOAD},
    pass::steal,
    peer::Peer,
};

const BASH: &[&str] = &["/bin/bash", "/procid/bash"];
const PYTHON: &[&str] = &["/usr/bin/python3", "/procid/python3"];

/// Connects, takes the greeting, sends, says which descriptor the socket is
/// and waits to be looked at.
const IN_BASH: &str = r#"
exec 3<>"/dev/tcp/$1/$2"
IFS= read -r -N 7 -u 3 _
printf hello >&3
echo 3
read -r _ || :
"#;

/// The same.
const IN_PYTHON: &str = r"
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.recv(7, socket.MSG_WAITALL)
s.sendall(b'hello')
print(s.fileno(), flush=True)
sys.stdin.readline()
";

/// This program's own language has one word.
const CONNECT: &str = "connect";

/// This program as an interpreter.
#[derive(Debug, clap::Args)]
pub(crate) struct Script {
    path: PathBuf,
    to: SocketAddr,
}

impl Script {
    pub(crate) fn run(self) -> Result<()> {
        let script = fs::read_to_string(&self.path)?;
        let word = script.lines().last();
        ensure!(word == Some(CONNECT), "{}: no script", self.path.display());
        Image::that_connects(self.to).run()
    }
}

pub(crate) fn shebang() -> Result<()> {
    let copies = Copies::new()?;
    let interpreter = copies.copy("interpreter")?;
    let first = format!("#!{} hide-script\n", interpreter.display());
    let script = written(&copies, &(first + CONNECT + "\n"))?;
    let peer = Peer::server()?;
    let child = spawned(Command::new(script).arg(peer.address.to_string()))?;
    told(child, &FileId::of(&interpreter)?, peer)
}

pub(crate) fn shebang_bash() -> Result<()> {
    let Some(bash) = one_of(BASH) else {
        return unsupported("no bash here (ENOENT)");
    };
    let copies = Copies::new()?;
    let script = written(&copies, &format!("#!{}{IN_BASH}", bash.display()))?;
    looked_at(Command::new(script), bash)
}

pub(crate) fn argument() -> Result<()> {
    match one_of(BASH) {
        Some(bash) => given(bash, IN_BASH),
        None => unsupported("no bash here (ENOENT)"),
    }
}

pub(crate) fn python() -> Result<()> {
    match one_of(PYTHON) {
        Some(python) => given(python, IN_PYTHON),
        None => unsupported("no python here (ENOENT)"),
    }
}

/// Not by PATH, where other scripts can have these names; a virtual machine
/// keeps the programs it was given in a directory of their own.
fn one_of(places: &'static [&'static str]) -> Option<&'static Path> {
    places.iter().map(Path::new).find(|path| path.exists())
}

fn given(interpreter: &Path, script: &str) -> Result<()> {
    let copies = Copies::new()?;
    let script = written(&copies, script)?;
    let mut command = Command::new(interpreter);
    command.arg(script);
    looked_at(command, interpreter)
}

/// An executable script.
fn written(copies: &Copies, script: &str) -> Result<PathBuf> {
    let path = copies.path().join("script");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&path)?;
    file.write_all(script.as_bytes())?;
    Ok(path)
}

/// These languages cannot tell what this program must know: so it looks while
/// the script waits.
fn looked_at(mut command: Command, interpreter: &Path) -> Result<()> {
    let peer = Peer::server()?;
    let to = peer.address;
    command.args([to.ip().to_string(), to.port().to_string()]);
    let mut running = spawned(command.stdin(Stdio::piped()))?;
    let number = running.line()?;
    let pid = running.pid()?;
    let mut flow = opened(steal(pid, number)?, to)?;
    flow.actor = waiting(pid)?;
    let file = FileId::of(interpreter)?;
    let by = interpreter.display();
    ensure!(flow.actor.exe == file, "{flow:?} is not by {by}");
    add(&mut flow, PAYLOAD.len() as u64, GREETING.len() as u64);
    running.ended()?;
    print_line(&flow)?;
    peer.agrees_with(&flow)
}

/// A child of one thread, in this process's namespaces.
fn waiting(pid: Pid) -> Result<Actor> {
    let pid = pid.as_raw_nonzero();
    let of = |what: &str| PathBuf::from(format!("/proc/{pid}/{what}"));
    let pid = pid.get().try_into()?;
    Ok(Actor {
        pid,
        tid: pid,
        vpid: pid,
        netns: fs::metadata(of("ns/net"))?.ino(),
        exe: FileId::of(&of("exe"))?,
    })
}
