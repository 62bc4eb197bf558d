//! The kernel's table of tracked connections, of the network namespace that
//! procid is in.
//!
//! It is asked by tuple (`IPCTNL_MSG_CT_GET`), several at once, and only while
//! it has entries: where nothing is tracked, a look at the count of entries is
//! all it takes, and no module is loaded for it. Its events are not subscribed
//! to: the kernel would make one of each tracked connection, forwarded ones
//! included, and drop those that are not read in time; an entry outlives its
//! connection (a closed TCP connection's by 10 s and more), and can be asked
//! for instead.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{
    Answer, Tuple,
    message::{Reply, put_request, read},
};

/// How many entries there are, in the namespace of who opens it. It is there
/// once conntrack is.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// Questions of one message: the answers to them fit into a socket's buffer.
const AT_ONCE: usize = 32;
/// Room for one answer, which has a few hundred bytes.
const BUFFER: usize = 8 << 10;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Table {
    count: Option<File>,
    socket: Option<Socket>,
    sequence: u32,
    /// Why the last question was not answered.
    trouble: Option<String>,
    /// After that, none is asked until the next [`Self::look`].
    rests: bool,
}

impl Table {
    /// Looks whether conntrack has come to be there; to be called every now and
    /// then.
    pub fn look(&mut self) {
        self.rests = false;
        if self.count.is_none() {
            self.count = File::open(COUNT).ok();
        }
    }

    /// Why nothing can be learnt of what is translated.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// One answer for each question.
    pub fn ask(&mut self, tuples: &[Tuple]) -> Vec<Answer> {
        let mut answers = vec![Answer::Missing; tuples.len()];
        if tuples.is_empty() || self.rests || !self.has_entries() {
            return answers;
        }
        for (tuples, answers) in tuples.chunks(AT_ONCE).zip(answers.chunks_mut(AT_ONCE)) {
            match self.ask_some(tuples, answers) {
                Ok(()) => self.trouble = None,
                Err(error) => {
                    self.trouble = Some(format!(
                        "what NAT makes of connections is not known: {error}"
                    ));
                    self.rests = true;
                    // What may still come answers no later question.
                    self.socket = None;
                    break;
                }
            }
        }
        answers
    }

    fn has_entries(&self) -> bool {
        let mut digits = [0; 1];
        let read = self
            .count
            .as_ref()
            .map(|count| count.read_at(&mut digits, 0));
        matches!(read, Some(Ok(1))) && digits != *b"0"
    }

    fn ask_some(&mut self, tuples: &[Tuple], answers: &mut [Answer]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => channel()?,
        };
        let first = self.sequence;
        let mut bytes = Vec::with_capacity(tuples.len() * 96);
        for tuple in tuples {
            put_request(tuple, self.sequence, &mut bytes);
            self.sequence = self.sequence.wrapping_add(1);
        }
        socket.send(&bytes, 0)?;
        // The kernel has answered all of them before send(2) returns.
        let mut buffer = [0; BUFFER];
        for _ in tuples {
            let len = socket.recv(&mut &mut buffer[..], libc::MSG_DONTWAIT)?;
            let Some((sequence, reply)) = buffer.get(..len).and_then(read) else {
                continue;
            };
            let at = sequence.wrapping_sub(first) as usize;
            let (Some(tuple), Some(answer)) = (tuples.get(at), answers.get_mut(at)) else {
                continue;
            };
            match reply {
                Reply::Entry(entry) => {
                    if let Some(translation) = entry.translation(tuple) {
                        *answer = Answer::Found(translation);
                    }
                }
                Reply::Refused(libc::ENOENT) | Reply::Other => {}
                Reply::Refused(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        self.socket = Some(socket);
        Ok(())
    }
}

fn channel() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::tests::tuple;

    /// Whatever this host tracks, nothing has this tuple.
    #[test]
    fn what_is_not_tracked_is_missing() {
        let mut table = Table::default();
        let tuples = vec![tuple("192.0.2.1:1", "192.0.2.2:1"); 2 * AT_ONCE + 1];
        assert_eq!(table.ask(&[]), []);
        // Before the first look, and after it.
        for _ in 0..2 {
            assert_eq!(table.ask(&tuples), vec![Answer::Missing; tuples.len()]);
            table.look();
        }
    }
}
