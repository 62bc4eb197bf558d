//! The journal's own protocol: fields of their own names, of any length
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! It is written here because the libraries for it (libsystemd, the loggers)
//! send to one fixed socket, and wait for it.

use std::{borrow::Cow, fs::File, io::Write as _, os::fd::AsFd as _, path::PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::{
    UNREADABLE,
    datagram::{Datagrams, Failure},
    queue::{Line, Tally},
    severity,
    spec::Receiver,
    worker::{Sink, Trouble},
};
use crate::records::{Record, line::message};

/// A field of the journal: its name, and its value for a record.
type Field = (&'static str, fn(&Record) -> Option<Cow<'_, str>>);

/// What of a record can be searched for by `journalctl NAME=VALUE`, beside
/// `MESSAGE`, `PRIORITY` and the names of the program.
const FIELDS: [Field; 30] = [
    ("PROCID_SEQUENCE", |r| number(r.event.as_ref()?.sequence?)),
    ("PROCID_ACTION", |r| text(&r.event.as_ref()?.action)),
    ("PROCID_OUTCOME", |r| {
        text(r.event.as_ref()?.outcome.as_ref()?)
    }),
    ("PROCID_ERROR", |r| text(&r.error.as_ref()?.code)),
    ("PROCID_ROLE", |r| text(r.procid.as_ref()?.role.as_ref()?)),
    ("PROCID_VERDICT", |r| {
        text(r.procid.as_ref()?.verdict.as_ref()?)
    }),
    ("PROCID_RULE", |r| text(r.rule.as_ref()?.name.as_ref()?)),
    ("PROCID_FLOW_ID", |r| {
        text(r.procid.as_ref()?.flow_id.as_ref()?)
    }),
    ("PROCID_COMMUNITY_ID", |r| {
        text(r.network.as_ref()?.community_id.as_ref()?)
    }),
    ("PROCID_TRANSPORT", |r| {
        text(r.network.as_ref()?.transport.as_ref()?)
    }),
    ("PROCID_DIRECTION", |r| {
        text(r.network.as_ref()?.direction.as_ref()?)
    }),
    ("PROCID_SOURCE_IP", |r| number(r.source.as_ref()?.ip?)),
    ("PROCID_SOURCE_PORT", |r| number(r.source.as_ref()?.port?)),
    ("PROCID_DESTINATION_IP", |r| {
        number(r.destination.as_ref()?.ip?)
    }),
    ("PROCID_DESTINATION_PORT", |r| {
        number(r.destination.as_ref()?.port?)
    }),
    ("PROCID_PID", |r| number(r.process.as_ref()?.pid?)),
    ("PROCID_ENTITY_ID", |r| {
        text(r.process.as_ref()?.entity_id.as_ref()?)
    }),
    ("PROCID_EXECUTABLE", |r| {
        text(r.process.as_ref()?.executable.as_ref()?)
    }),
    ("PROCID_COMMAND_LINE", |r| {
        text(r.process.as_ref()?.command_line.as_ref()?)
    }),
    ("PROCID_SHA256", |r| {
        text(&r.process.as_ref()?.hash.as_ref()?.sha256)
    }),
    ("PROCID_HASH_GRADE", |r| {
        text(&r.procid.as_ref()?.hash.as_ref()?.grade)
    }),
    ("PROCID_PARENT_ENTITY_ID", |r| {
        text(r.process.as_ref()?.parent.as_ref()?.entity_id.as_ref()?)
    }),
    ("PROCID_USER_ID", |r| text(&r.user.as_ref()?.id)),
    ("PROCID_LOGINUID", |r| number(r.procid.as_ref()?.loginuid?)),
    ("PROCID_USER_NAME", |r| {
        text(r.user.as_ref()?.name.as_ref()?)
    }),
    ("PROCID_CONTAINER_ID", |r| text(&r.container.as_ref()?.id)),
    ("PROCID_POD_UID", |r| {
        text(&r.orchestrator.as_ref()?.resource.id)
    }),
    ("PROCID_POD_NAMESPACE", |r| {
        text(r.orchestrator.as_ref()?.namespace.as_ref()?)
    }),
    ("PROCID_POD_NAME", |r| {
        text(r.orchestrator.as_ref()?.resource.name.as_ref()?)
    }),
    ("PROCID_UNIT", |r| text(r.procid.as_ref()?.unit.as_ref()?)),
];

#[expect(
    clippy::unnecessary_wraps,
    reason = "every arm of the table has one type"
)]
fn text(text: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(text))
}

fn number(value: impl std::fmt::Display) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(value.to_string()))
}

/// See the [module](self).
#[derive(Debug)]
pub struct Journal(Datagrams);

impl Journal {
    pub const fn at(socket: PathBuf) -> Self {
        Self(Datagrams::to(Receiver::Unix(socket)))
    }

    fn send(&mut self, entry: &[u8]) -> Result<(), Failure> {
        match self.0.send(entry) {
            Err(Failure::TooLong) => {
                let file = sealed(entry).map_err(|source| Trouble {
                    what: "keep an entry in",
                    place: "memory".to_owned(),
                    source: source.into(),
                })?;
                self.0.send_file(file.as_fd())
            }
            done => done,
        }
    }
}

impl Sink for Journal {
    fn write(&mut self, lines: &[Line], tally: &mut Tally) -> Result<(), Trouble> {
        for line in lines {
            let Ok(record) = serde_json::from_slice(line) else {
                tally.lose(UNREADABLE, 1);
                continue;
            };
            match self.send(&entry(&record, line)) {
                Ok(()) => tally.written += 1,
                Err(Failure::TooLong) => tally.lose(super::TOO_LONG, 1),
                Err(Failure::Refused(trouble) | Failure::Trouble(trouble)) => return Err(trouble),
            }
        }
        Ok(())
    }
}

/// One entry, with the whole record as `PROCID_RECORD`.
fn entry(record: &Record, line: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(2 * line.len() + 1024);
    let event = record.event.as_ref();
    let verdict = record.procid.as_ref().and_then(|it| it.verdict.as_deref());
    let severity = severity::of(
        event.map_or("", |event| &event.action),
        event.and_then(|event| event.outcome.as_deref()),
        verdict,
    );
    put(&mut entry, "MESSAGE", message(record).as_bytes());
    put(&mut entry, "PRIORITY", severity.to_string().as_bytes());
    let facility = severity::AUTHPRIV.to_string();
    put(&mut entry, "SYSLOG_FACILITY", facility.as_bytes());
    put(&mut entry, "SYSLOG_IDENTIFIER", b"procid");
    for (name, value) in FIELDS {
        if let Some(value) = value(record) {
            put(&mut entry, name, value.as_bytes());
        }
    }
    let json = line.strip_suffix(b"\n").unwrap_or(line);
    put(&mut entry, "PROCID_RECORD", json);
    entry
}

/// A value with a line end, which records do not have, gives its length first:
/// no value begins a field of its own.
fn put(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// A file in memory that nobody can change any more, as the journal asks.
fn sealed(entry: &[u8]) -> rustix::io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("procid-journal-entry", flags)?);
    file.write_all(entry).map_err(|error| {
        rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
    })?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{IoSliceMut, Read as _, Seek as _},
        mem::MaybeUninit,
        os::unix::net::UnixDatagram,
    };

    use proptest::prelude::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;
    use crate::records::{Event, Process};

    /// The fields of an entry, read as the protocol says.
    fn fields(mut entry: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut fields = Vec::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|&b| b == b'\n').unwrap();
            let line = &entry[..end];
            entry = &entry[end + 1..];
            let (name, value) = match line.iter().position(|&b| b == b'=') {
                Some(at) => (&line[..at], line[at + 1..].to_vec()),
                None => {
                    let (length, rest) = entry.split_first_chunk().unwrap();
                    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
                    let (value, rest) = rest.split_at(length);
                    entry = rest.strip_prefix(b"\n").unwrap();
                    (line, value.to_vec())
                }
            };
            fields.push((String::from_utf8(name.to_vec()).unwrap(), value));
        }
        fields
    }

    fn record(executable: &str) -> (Record, Line) {
        let record = Record {
            event: Some(Event {
                action: "connect".to_owned(),
                sequence: Some(7),
                ..Event::default()
            }),
            process: Some(Box::new(Process {
                pid: Some(42),
                executable: Some(executable.to_owned()),
                ..Process::default()
            })),
            ..Record::default()
        };
        let mut line = serde_json::to_vec(&record).unwrap();
        line.push(b'\n');
        (record, line.into())
    }

    #[test]
    fn what_one_looks_for_is_a_field() {
        let (record, line) = record("/usr/bin/curl");
        let fields = fields(&entry(&record, &line));
        let value = |name: &str| {
            let found = fields.iter().find(|(field, _)| field == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        assert_eq!(value("PRIORITY").as_deref(), Some("6"));
        assert_eq!(value("SYSLOG_IDENTIFIER").as_deref(), Some("procid"));
        assert_eq!(value("PROCID_ACTION").as_deref(), Some("connect"));
        assert_eq!(value("PROCID_SEQUENCE").as_deref(), Some("7"));
        assert_eq!(value("PROCID_PID").as_deref(), Some("42"));
        assert_eq!(value("PROCID_EXECUTABLE").as_deref(), Some("/usr/bin/curl"));
        assert_eq!(value("PROCID_SHA256"), None);
        let json = value("PROCID_RECORD").unwrap();
        assert_eq!(format!("{json}\n").as_bytes(), &*line);
    }

    /// The journal ignores a field whose name it does not allow.
    #[test]
    fn names_are_the_journals() {
        for (name, _) in FIELDS {
            assert!(name.starts_with("PROCID_") && name.len() <= 64, "{name}");
            let is_allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(is_allowed), "{name}");
        }
    }

    /// What no datagram holds comes as a file that is sealed.
    #[test]
    fn a_large_entry_comes_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let (record, line) = record(&"x".repeat(1 << 20));
        let mut tally = Tally::default();
        let mut journal = Journal::at(path);
        journal
            .write(std::slice::from_ref(&line), &mut tally)
            .unwrap();
        assert_eq!(tally.written, 1);

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 16];
        let got = recvmsg(
            &receiver,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::empty(),
        );
        assert_eq!(got.unwrap().bytes, 0);
        let Some(RecvAncillaryMessage::ScmRights(mut fds)) = ancillary.drain().next() else {
            panic!("no descriptor");
        };
        let mut file = File::from(fds.next().unwrap());
        assert!(file.set_len(0).is_err());
        file.rewind().unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        assert_eq!(text, entry(&record, &line));
    }

    proptest! {
        /// Whatever a value holds, it is one field, and the same.
        #[test]
        fn no_value_begins_a_field(executable in "(.|\n|=|PRIORITY=0\n){0,20}") {
            let (record, line) = record(&executable);
            let fields = fields(&entry(&record, &line));
            let of = |name: &str| fields.iter().filter(|(field, _)| field == name).collect::<Vec<_>>();
            prop_assert_eq!(of("PRIORITY").len(), 1);
            let found = of("PROCID_EXECUTABLE");
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].1[..], executable.as_bytes());
            prop_assert_eq!(of("MESSAGE").len(), 1);
        }
    }
}
