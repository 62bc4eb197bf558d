//! `procid cut`: close a live connection.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
};

use super::{
    failure::{Code, Failure},
    who::printer::{Format, Printer},
};
use crate::{
    flow::Query,
    snapshot::{self, destroy::destroy, rows, sockets::SocketFacts},
};

/// TCP's `TIME_WAIT`: nobody holds it, and nothing is left to close.
const TIME_WAIT: u32 = 6;

/// Close live connections: their programs' calls fail at once, and a TCP
/// connection's other end is reset. Prints each, as `procid who` does.
///
/// The kernel closes them (`SOCK_DESTROY`, as `ss -K`), with or without an
/// agent, TCP and connected UDP in every network namespace. Exit code 1 when
/// nothing matched, 3 when the kernel refuses.
#[derive(Debug, clap::Args)]
pub struct Cut {
    /// `:port`, `ip`, `ip:port`, `[v6]:port` (either end; a CIDR for an address
    /// is fine), two of them (`SRC DST`, as `ss` prints them), or a Community ID.
    #[arg(value_name = "FLOW", num_args = 1..=2, required = true)]
    flow: Vec<String>,
    /// Only print what would be closed.
    #[arg(long)]
    dry_run: bool,
    /// Records as NDJSON, the last line saying what was looked at.
    #[arg(long)]
    json: bool,
}

impl Cut {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let query = Query::from_words(&self.flow)
            .map_err(|error| Failure::usage(format!("FLOW: {error}")))?;
        let snapshot = snapshot::take().map_err(|error| {
            Failure::refused(format!("the kernel's socket table cannot be read: {error}"))
        })?;
        let format = if self.json {
            Format::Json
        } else {
            Format::Text
        };
        let mut printer = Printer::new(format, io::stdout().lock());
        printer.begin()?;
        // A socket comes once for each process that holds it.
        let mut seen = HashMap::new();
        for (row, record) in rows::matching(&query, &snapshot) {
            let socket = &row.socket;
            let is_closed = match seen.entry((socket.netns, socket.cookie)) {
                Entry::Occupied(seen) => *seen.get(),
                Entry::Vacant(new) => {
                    *new.insert(socket.state != TIME_WAIT && (self.dry_run || close(socket)?))
                }
            };
            if is_closed {
                printer.record(&record)?;
            }
        }
        printer.end(Some(&rows::coverage(&snapshot)))
    }
}

/// Closes a connection; false: it has ended meanwhile.
fn close(socket: &SocketFacts) -> Result<bool, Failure> {
    let Err(error) = destroy(socket) else {
        return Ok(true);
    };
    let ((from, from_port), (to, to_port)) = (socket.source, socket.destination);
    let remedy = match error.raw_os_error() {
        Some(libc::ENOENT) => return Ok(false),
        Some(libc::EPERM) => "; run it as root (CAP_NET_ADMIN)",
        Some(libc::EOPNOTSUPP) => {
            "; this kernel is built without CONFIG_INET_DIAG_DESTROY: end the process instead"
        }
        _ => "",
    };
    Err(Failure::refused(format!(
        "the kernel does not close {from} port {from_port} to {to} port {to_port}: {error}{remedy}"
    )))
}
