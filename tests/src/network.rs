//! Network namespaces of a test's own, wired and translating; what is outside
//! of them is not changed.

use std::{
    fs::File,
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, gettid, move_into_link_name_space, unshare_unsafe,
};

/// A network namespace, kept by a thread until it is dropped.
#[derive(Debug)]
pub struct Namespace {
    tid: String,
    file: File,
    end: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new one, with nothing in it but `lo`.
    ///
    /// # Panics
    ///
    /// Without the right to make one.
    #[must_use]
    pub fn new() -> Self {
        let (end, ended) = channel::<()>();
        let (tell, told) = channel();
        let keeper = thread::spawn(move || {
            // SAFETY: a network namespace is no part of what Rust's libraries
            // share between threads; descriptors stay as they are.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("unshare(CLONE_NEWNET)");
            let file = File::open("/proc/thread-self/ns/net").expect("a namespace");
            let _told = tell.send((gettid(), file));
            // Until its sender is dropped.
            let _ended = ended.recv();
        });
        let (tid, file) = told.recv().expect("a namespace was made");
        let namespace = Self {
            tid: tid.as_raw_pid().to_string(),
            file,
            end: Some(end),
            keeper: Some(keeper),
        };
        namespace.ip("link set lo up");
        namespace
    }

    /// Does something on a thread in it; what that starts is in it.
    ///
    /// # Panics
    ///
    /// When `act` does.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let done = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.file.as_fd(), network).expect("setns");
                act()
            });
            done.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` in it, with these words.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn ip(&self, words: &str) {
        let mut command = Command::new("ip");
        command.args(words.split(' '));
        self.run(command);
    }

    /// Puts these tables of nftables in force in it.
    ///
    /// # Panics
    ///
    /// When they are refused.
    pub fn nft(&self, tables: &str) {
        let mut command = Command::new("nft");
        command.arg(tables);
        self.run(command);
    }

    /// Lays a wire to another one: here a device of that name and address, there
    /// one too.
    pub fn wire(&self, here: (&str, &str), other: &Self, there: (&str, &str)) {
        let (tid, name, peer) = (&other.tid, here.0, there.0);
        self.ip(&format!(
            "link add {name} type veth peer name {peer} netns {tid}"
        ));
        for (namespace, (device, address)) in [(self, here), (other, there)] {
            namespace.ip(&format!("addr add {address} dev {device}"));
            namespace.ip(&format!("link set {device} up"));
        }
    }

    /// Lets it forward IPv4 packets.
    ///
    /// # Panics
    ///
    /// When that cannot be written.
    pub fn forward(&self) {
        // Is that of the namespace of who opens it.
        self.within(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a sysctl"));
    }

    fn run(&self, mut command: Command) {
        self.within(|| {
            let output = command
                .stdin(Stdio::null())
                .output()
                .unwrap_or_else(|error| panic!("{command:?}: {error}: `cargo xtask setup`"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {said}");
        });
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.end = None;
        if let Some(keeper) = self.keeper.take() {
            let _ended = keeper.join();
        }
    }
}
