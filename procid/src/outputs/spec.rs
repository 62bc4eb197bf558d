//! What `--output` asks for.
//!
//! | text | output |
//! | --- | --- |
//! | `file:PATH[,size=64M][,keep=5]` | [`super::file`] |
//! | `journald[:PATH]` | [`super::journald`] |
//! | `syslog:unix:PATH[,max=BYTES]`, `syslog:udp:ADDRESS:PORT[,max=BYTES]` | [`super::syslog`] |

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use super::file::Limits;

/// The journal's socket for programs that speak its own protocol
/// (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Bytes at which a file is put aside.
const SIZE: u64 = 64 << 20;
/// The smallest file that is: a record is larger than a kilobyte.
const SIZE_MIN: u64 = 64 << 10;
/// Files that are kept aside.
const KEEP: u32 = 5;
const KEEP_MAX: u32 = 1_000;
/// Longest message to syslog, bytes: what rsyslog takes unless told otherwise
/// (<https://www.rsyslog.com/doc/configuration/global/index.html>).
const MESSAGE: usize = 8 << 10;
/// What each receiver should take
/// ([RFC 5424, section 6.1](https://www.rfc-editor.org/rfc/rfc5424#section-6.1));
/// no record fits into less.
const MESSAGE_MIN: usize = 2 << 10;
/// The longest datagram over IPv4.
const MESSAGE_MAX: usize = 65_507;

/// One output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    File(PathBuf, Limits),
    Journald(PathBuf),
    /// With the longest message, bytes.
    Syslog(Receiver, usize),
}

/// Who takes datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    Unix(PathBuf),
    Udp(SocketAddr),
}

/// A text that names no output.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Mistake(String);

impl Spec {
    /// `file`, `journald` or `syslog`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(..) => "file",
            Self::Journald(_) => "journald",
            Self::Syslog(..) => "syslog",
        }
    }
}

impl FromStr for Spec {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let (target, options) = match text.split_once(',') {
            Some((target, options)) => (target, options.split(',').collect()),
            None => (text, Vec::new()),
        };
        let (kind, place) = match target.split_once(':') {
            Some((kind, place)) => (kind, Some(place)),
            None => (target, None),
        };
        match (kind, place) {
            ("file", Some(path)) => {
                let mut limits = Limits {
                    size: SIZE,
                    keep: KEEP,
                };
                for option in options {
                    match option.split_once('=') {
                        Some(("size", value)) => limits.size = size(value)?,
                        Some(("keep", value)) => limits.keep = keep(value)?,
                        _ => return Err(unknown(option, "size=64M and keep=5")),
                    }
                }
                Ok(Self::File(some_path(path)?, limits))
            }
            ("journald", place) => {
                if let Some(option) = options.first() {
                    return Err(unknown(option, "nothing"));
                }
                Ok(Self::Journald(some_path(place.unwrap_or(JOURNAL))?))
            }
            ("syslog", Some(place)) => {
                let mut max = MESSAGE;
                for option in options {
                    match option.split_once('=') {
                        Some(("max", value)) => max = message(value)?,
                        _ => return Err(unknown(option, "max=8192")),
                    }
                }
                Ok(Self::Syslog(receiver(place)?, max))
            }
            _ => Err(Mistake(
                "give file:PATH, journald, syslog:unix:PATH or syslog:udp:ADDRESS:PORT".to_owned(),
            )),
        }
    }
}

fn unknown(option: &str, known: &str) -> Mistake {
    Mistake(format!("{option:?} is no option of it; it takes {known}"))
}

fn some_path(path: &str) -> Result<PathBuf, Mistake> {
    if path.is_empty() {
        return Err(Mistake("the path is missing".to_owned()));
    }
    Ok(path.into())
}

fn receiver(place: &str) -> Result<Receiver, Mistake> {
    match place.split_once(':') {
        Some(("unix", path)) => Ok(Receiver::Unix(some_path(path)?)),
        Some(("udp", address)) => {
            let address = address.parse().map_err(|_| {
                Mistake(format!(
                    "{address:?} is no address with a port, as in 127.0.0.1:514 or [::1]:514; \
                     names are not looked up"
                ))
            })?;
            Ok(Receiver::Udp(address))
        }
        _ => Err(Mistake(
            "give syslog:unix:/dev/log or syslog:udp:127.0.0.1:514".to_owned(),
        )),
    }
}

/// A number of bytes, with `K`, `M` or `G` behind it.
fn size(text: &str) -> Result<u64, Mistake> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= SIZE_MIN => Ok(bytes),
        _ => Err(Mistake(format!(
            "size={text} is no size of 64K or more, such as 64M"
        ))),
    }
}

fn keep(text: &str) -> Result<u32, Mistake> {
    match text.parse() {
        Ok(keep @ 1..=KEEP_MAX) => Ok(keep),
        _ => Err(Mistake(format!(
            "keep={text} is no number of files from 1 to {KEEP_MAX}"
        ))),
    }
}

fn message(text: &str) -> Result<usize, Mistake> {
    match text.parse() {
        Ok(max @ MESSAGE_MIN..=MESSAGE_MAX) => Ok(max),
        _ => Err(Mistake(format!(
            "max={text} is no number of bytes from {MESSAGE_MIN} to {MESSAGE_MAX}"
        ))),
    }
}

/// Where it goes, without options.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, _) => write!(f, "file:{}", path.display()),
            Self::Journald(path) => write!(f, "journald:{}", path.display()),
            Self::Syslog(Receiver::Unix(path), _) => write!(f, "syslog:unix:{}", path.display()),
            Self::Syslog(Receiver::Udp(address), _) => write!(f, "syslog:udp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn file(path: &str, size: u64, keep: u32) -> Spec {
        Spec::File(path.into(), Limits { size, keep })
    }

    #[rstest]
    #[case("file:/var/log/p.ndjson", file("/var/log/p.ndjson", 64 << 20, 5))]
    #[case("file:p:q,keep=1,size=100K", file("p:q", 100 << 10, 1))]
    #[case("file:p,size=2G", file("p", 2 << 30, 5))]
    #[case("file:p,size=65536", file("p", 65_536, 5))]
    #[case("journald", Spec::Journald(JOURNAL.into()))]
    #[case("journald:/run/x", Spec::Journald("/run/x".into()))]
    #[case("syslog:unix:/dev/log", Spec::Syslog(Receiver::Unix("/dev/log".into()), 8192))]
    #[case(
        "syslog:udp:[::1]:514,max=2048",
        Spec::Syslog(Receiver::Udp("[::1]:514".parse().unwrap()), 2048)
    )]
    fn outputs(#[case] text: &str, #[case] spec: Spec) {
        assert_eq!(text.parse::<Spec>().unwrap(), spec);
    }

    #[rstest]
    #[case("", "give file:PATH")]
    #[case("stdout", "give file:PATH")]
    #[case("file", "give file:PATH")]
    #[case("file:", "the path is missing")]
    #[case(
        "file:p,max=3",
        "\"max=3\" is no option of it; it takes size=64M and keep=5"
    )]
    #[case("file:p,size=1", "size=1 is no size of 64K or more")]
    #[case("file:p,size=", "size= is no size")]
    #[case("file:p,size=-1M", "size=-1M is no size")]
    #[case("file:p,size=99999999999G", "is no size")]
    #[case("file:p,keep=0", "keep=0 is no number of files from 1 to 1000")]
    #[case("journald,size=1", "it takes nothing")]
    #[case("syslog:/dev/log", "give syslog:unix:/dev/log")]
    #[case("syslog:tcp:127.0.0.1:1", "give syslog:unix:/dev/log")]
    #[case("syslog:udp:localhost:514", "names are not looked up")]
    #[case("syslog:udp:127.0.0.1", "no address with a port")]
    #[case("syslog:unix:/dev/log,max=100", "from 2048 to 65507")]
    fn mistakes(#[case] text: &str, #[case] words: &str) {
        let said = text.parse::<Spec>().unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }

    proptest! {
        #[test]
        fn any_text_is_an_output_or_a_sentence(text in "(file|journald|syslog|)[:,=a-z0-9\u{e4}.-]{0,20}") {
            if let Err(mistake) = text.parse::<Spec>() {
                prop_assert!(!mistake.to_string().contains('\n'));
            }
        }
    }
}
