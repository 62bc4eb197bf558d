//! Temporary rules: who is blocked, to where, until when, and why.

use std::{
    fmt,
    net::IpAddr,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Now,
    ask::{BlockRequest, Refusal},
    hex,
};
use crate::policy::{Action, Destination, Files, Inode, Process, Rule};

/// Longest life of a temporary rule: what is to last is a policy's.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Longest reason, bytes.
const REASON_MAX: usize = 512;

/// Who is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    Sha256([u8; 32]),
    Executable(Files),
    Inode(Inode),
}

/// What is known of the file of an image that is to be blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageFile {
    pub inode: Option<Inode>,
    pub sha256: Option<[u8; 32]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Empty until it is [added](Blocks::add).
    pub name: Arc<str>,
    pub target: Target,
    /// `None`: everywhere.
    pub to: Option<IpNet>,
    /// Nanoseconds since boot.
    pub until_ns: u64,
    pub reason: String,
    /// The image that it was asked for, by its entity id.
    entity: Option<String>,
}

impl Block {
    /// What is asked for, as a rule; `image` finds an entity id's.
    ///
    /// # Errors
    ///
    /// What is wrong with the request.
    pub fn new(
        request: &BlockRequest,
        image: impl FnOnce(&str) -> Option<ImageFile>,
        now: Now,
    ) -> Result<Self, Refusal> {
        let input = |sentence: String| Err(Refusal::Input(sentence));
        let target = match (&request.sha256, &request.exe, &request.entity) {
            (Some(hash), None, None) => sha256(hash).map(Target::Sha256),
            (None, Some(path), None) => files(path).map(Target::Executable),
            (None, None, Some(entity)) => match image(entity) {
                Some(image) => file_of(entity, image),
                None => {
                    return Err(Refusal::State(format!(
                        "no image with the entity id {entity:?} is known; take one from a record \
                         or from 'procid who'"
                    )));
                }
            },
            _ => Err("give exactly one of sha256, exe and entity".to_owned()),
        };
        let target = target.map_err(Refusal::Input)?;
        let to = request.to.as_deref().map(network).transpose();
        let to = to.map_err(Refusal::Input)?;
        if !(1..=LONGEST.as_secs()).contains(&request.for_seconds) {
            return input(format!(
                "a temporary rule cannot last {} s; give a second to {} days",
                request.for_seconds,
                LONGEST.as_secs() / 86_400
            ));
        }
        let reason = request.reason.trim();
        if reason.is_empty() || reason.len() > REASON_MAX {
            return input(format!(
                "a reason of {} bytes is no reason; give 1 to {REASON_MAX} bytes, so that others \
                 know why this is blocked",
                reason.len()
            ));
        }
        let for_ns = request.for_seconds.saturating_mul(1_000_000_000);
        Ok(Self {
            name: "".into(),
            target,
            to,
            until_ns: now.boot_ns.saturating_add(for_ns),
            reason: reason.to_owned(),
            entity: request.entity.clone(),
        })
    }

    /// The rule it is, its end by the clock as it is set now.
    pub(super) fn rule(&self, now: Now) -> Rule {
        let mut process = Process::default();
        match &self.target {
            Target::Sha256(sha256) => process.sha256.push(*sha256),
            Target::Executable(files) => process.executables.push(files.clone()),
            Target::Inode(inode) => process.inodes.push(*inode),
        }
        Rule {
            name: Arc::clone(&self.name),
            action: Action::Deny,
            process,
            destination: Destination {
                networks: self.to.into_iter().collect(),
                ..Destination::default()
            },
            source_ports: Vec::new(),
            ingress: false,
            expires: Some(i128::from(now.clock.to_real(self.until_ns))),
            line: 0,
        }
    }

    /// What it does not do.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(entity) = &self.entity {
            warnings.push(format!(
                "a rule names a file, not one process: all that runs {} is blocked, not {entity} \
                 alone",
                self.target
            ));
        }
        warnings.push(
            match self.target {
                Target::Sha256(_) => "a file with one byte more has another hash and escapes",
                Target::Executable(_) => "a copy of the file under another path escapes",
                Target::Inode(_) => "a copy of the file has another inode and escapes",
            }
            .to_owned(),
        );
        warnings
    }
}

fn file_of(entity: &str, image: ImageFile) -> Result<Target, String> {
    // The inode of a running image is always known to the kernel side; whether
    // its hash is, may take a while.
    match (image.inode, image.sha256) {
        (Some(inode), _) => Ok(Target::Inode(inode)),
        (None, Some(sha256)) => Ok(Target::Sha256(sha256)),
        (None, None) => Err(format!(
            "neither the file nor the hash of {entity} is known, and a rule needs one of them; \
             block it with --exe"
        )),
    }
}

/// The temporary rules there are, the first one asked for first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Number of the last name given: none is given twice.
    last: u64,
    blocks: Vec<Block>,
}

impl Blocks {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter()
    }

    /// Adds one and names it.
    pub(super) fn add(&mut self, block: Block) -> Arc<str> {
        self.last += 1;
        let name: Arc<str> = format!("block-{}", self.last).into();
        self.blocks.push(Block {
            name: Arc::clone(&name),
            ..block
        });
        name
    }

    /// Whether there was one of that name.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let before = self.blocks.len();
        self.blocks.retain(|block| &*block.name != name);
        self.blocks.len() < before
    }

    /// Takes out those whose time has come (nanoseconds since boot).
    pub(super) fn expire(&mut self, now_ns: u64) -> Vec<Block> {
        self.blocks
            .extract_if(.., |block| block.until_ns <= now_ns)
            .collect()
    }
}

/// [`Blocks`] as they are kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    last: u64,
    blocks: Vec<SavedBlock>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedBlock {
    name: String,
    target: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<IpNet>,
    /// RFC 3339: boots come and go.
    expires: String,
    reason: String,
}

impl Blocks {
    pub(super) fn to_json(&self, now: Now) -> serde_json::Result<Vec<u8>> {
        let saved = Saved {
            last: self.last,
            blocks: self
                .blocks
                .iter()
                .map(|block| SavedBlock {
                    name: block.name.to_string(),
                    target: block.target.clone(),
                    to: block.to,
                    expires: now.rfc3339(block.until_ns),
                    reason: block.reason.clone(),
                })
                .collect(),
        };
        let mut json = serde_json::to_vec_pretty(&saved)?;
        json.push(b'\n');
        Ok(json)
    }

    /// # Errors
    ///
    /// Where it is not what [`Self::to_json`] wrote.
    pub(super) fn of_json(json: &[u8], now: Now) -> Result<Self, String> {
        let saved: Saved = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let blocks = saved.blocks.into_iter().map(|block| {
            let expires: Timestamp = block
                .expires
                .parse()
                .map_err(|error| format!("{:?} is no time: {error}", block.expires))?;
            let real_ns = i64::try_from(expires.as_nanosecond()).unwrap_or(i64::MAX);
            Ok(Block {
                name: block.name.into(),
                target: block.target,
                to: block.to,
                until_ns: now.clock.to_boot(real_ns),
                reason: block.reason,
                entity: None,
            })
        });
        Ok(Self {
            last: saved.last,
            blocks: blocks.collect::<Result<_, String>>()?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(sha256) => write!(out, "sha256:{}", hex(sha256)),
            Self::Executable(Files::Exact(path)) => write!(out, "exe:{}", path.display()),
            Self::Executable(Files::Below(path)) => {
                write!(out, "exe:{}", path.join("**").display())
            }
            Self::Inode(inode) => {
                write!(out, "inode:{}:{}:{}", inode.major, inode.minor, inode.ino)
            }
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sha256", text)) => sha256(text).map(Self::Sha256),
            Some(("exe", text)) => files(text).map(Self::Executable),
            Some(("inode", text)) => inode(text).map(Self::Inode),
            _ => Err(format!("{text:?} is not sha256:…, exe:… or inode:…")),
        }
    }
}

fn sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || format!("{text:?} is not a SHA-256; give 64 hexadecimal digits");
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(2 * at..2 * at + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

fn files(text: &str) -> Result<Files, String> {
    let (path, is_tree) = match text.strip_suffix("/**") {
        Some("") => ("/", true),
        Some(directory) => (directory, true),
        None => (text, false),
    };
    let mut components = Path::new(path).components();
    let is_plain = components.next() == Some(Component::RootDir)
        && components.all(|part| matches!(part, Component::Normal(_)))
        && !path.contains(['*', '\0'])
        && (is_tree || path.len() > 1);
    if !is_plain {
        return Err(format!(
            "{text:?} does not name an executable; give an absolute path without '..', or /dir/**"
        ));
    }
    // Without what `components` passes over: doubled and trailing slashes, dots.
    let path: PathBuf = Path::new(path).components().collect();
    Ok(if is_tree {
        Files::Below(path)
    } else {
        Files::Exact(path)
    })
}

fn inode(text: &str) -> Result<Inode, String> {
    let parse = || {
        let mut parts = text.split(':');
        let inode = Inode {
            major: parts.next()?.parse().ok()?,
            minor: parts.next()?.parse().ok()?,
            ino: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(inode)
    };
    parse().ok_or_else(|| format!("{text:?} is not major:minor:inode"))
}

/// An address or a network; v4-mapped ones are IPv4.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            format!("{text:?} is not a network; give an address or a CIDR, as in 10.0.0.0/8")
        })?;
    let network = network.trunc();
    if let IpNet::V6(v6) = network
        && let Some(v4) = v6.network().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, length)
    {
        return Ok(IpNet::V4(v4));
    }
    Ok(network)
}

#[cfg(test)]
mod tests;
