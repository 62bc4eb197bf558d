//! What every record says of where it comes from.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    identity::entity::{BootId, uuid},
    records::{Agent, ECS_VERSION, Ecs, Host, Id, escape::escape},
};

/// Name of the file in the state directory that holds `agent.id`.
const ID_FILE: &str = "agent-id";

/// Why the agent has no identity.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} holds no UUID; remove it to give this agent a new id", .0.display())]
    NotAnId(PathBuf),
    #[error("the kernel gives no random bytes: {0}")]
    Random(io::Error),
}

/// Host, agent and schema of every record of one run.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub ecs: Ecs,
    pub host: Host,
    pub agent: Agent,
}

impl Origin {
    /// Asks this host; makes `agent.id` where `state_dir` holds none yet.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read or written, or holds something else.
    pub fn of_this_host(boot_id: &BootId, state_dir: &Path) -> Result<Self, OriginError> {
        let name = rustix::system::uname();
        Ok(Self {
            ecs: Ecs {
                version: ECS_VERSION.to_owned(),
            },
            host: Host {
                name: Some(escape(name.nodename().to_bytes()).into_owned()),
                id: machine_id(Path::new("/etc/machine-id")),
                boot: Some(Id { id: uuid(*boot_id) }),
            },
            agent: Agent {
                agent_type: "procid".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                id: Some(agent_id(&state_dir.join(ID_FILE))?),
                ephemeral_id: Some(random_uuid()?),
            },
        })
    }
}

/// `host.id` is the machine id, where this host has one.
fn machine_id(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let id = text.trim_end();
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

fn agent_id(path: &Path) -> Result<String, OriginError> {
    let failed = |what, source| OriginError::File {
        what,
        path: path.to_owned(),
        source,
    };
    match fs::read_to_string(path) {
        Ok(text) => {
            let id = text.trim_end();
            if is_uuid(id) {
                Ok(id.to_owned())
            } else {
                Err(OriginError::NotAnId(path.to_owned()))
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = random_uuid()?;
            write_whole(path, &id).map_err(|error| failed("write", error))?;
            Ok(id)
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(OriginError::NotAnId(path.to_owned()))
        }
        Err(error) => Err(failed("read", error)),
    }
}

/// All of it or nothing: an agent that dies here leaves no half an id.
fn write_whole(path: &Path, id: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// A version 4 UUID (<https://www.rfc-editor.org/rfc/rfc9562#section-5.4>).
fn random_uuid() -> Result<String, OriginError> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(OriginError::Random)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(uuid(bytes))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_agent_keeps_its_id_and_a_run_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = Origin::of_this_host(&[1; 16], dir.path()).unwrap();
        let second = Origin::of_this_host(&[1; 16], dir.path()).unwrap();
        assert_eq!(first.agent.id, second.agent.id);
        assert_ne!(first.agent.ephemeral_id, second.agent.ephemeral_id);
        assert!(is_uuid(&first.agent.id.unwrap()));
        let mode = fs::metadata(dir.path().join(ID_FILE))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(
            first.host.boot.unwrap().id,
            "01010101-0101-0101-0101-010101010101"
        );
    }

    #[test]
    fn a_file_that_holds_something_else_is_named_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ID_FILE);
        for content in [b"important".as_slice(), b"\xff\xfe"] {
            fs::write(&path, content).unwrap();
            let error = agent_id(&path).unwrap_err().to_string();
            assert!(error.contains("agent-id holds no UUID"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        let error = agent_id(&dir.path().join("no/where")).unwrap_err();
        assert!(error.to_string().starts_with("cannot write"), "{error}");
    }

    #[test]
    fn a_machine_id_that_is_none_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine-id");
        assert_eq!(machine_id(&path), None);
        fs::write(&path, "uninitialized\n").unwrap();
        assert_eq!(machine_id(&path), None);
        fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(
            machine_id(&path).as_deref(),
            Some("0123456789abcdef0123456789abcdef")
        );
    }
}
