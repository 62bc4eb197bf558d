//! The config file of `procid run`, and what the flags make of it.
//!
//! TOML with the flags' names as keys; flags win. A key that is not known is
//! refused, so that a typing error is not a setting that silently does nothing.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{SOCKET, failure::Failure, policy};
use crate::{
    agent::settings::{Args, Backend, ExecGate, Settings},
    history::Limits,
    outputs::spec::Spec,
    time,
};

const STATE_DIR: &str = "/var/lib/procid";
const UPDATE_EVERY: Duration = Duration::from_secs(300);
const HISTORY_SIZE: u64 = 1 << 30;
/// Below that, what a batch adds is not small.
const HISTORY_SIZE_MIN: u64 = 1 << 20;
const HISTORY_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// `run`'s settings, each from a flag or from the file.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Records on stdout as NDJSON instead of a table.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    json: Option<bool>,
    /// Where records go beside stdout, as JSON: file:PATH[,size=64M][,keep=5] (put
    /// aside at that size, so many kept), journald, syslog:unix:PATH or
    /// syslog:udp:ADDRESS:PORT (with [,max=8192], the longest message). Several may
    /// be given.
    #[arg(long, value_name = "OUTPUT")]
    #[serde(deserialize_with = "outputs_text")]
    output: Option<Vec<Spec>>,
    /// Where the agent keeps its state, mode 0700 [default: /var/lib/procid].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the agent answers, mode 0660 root:procid [default: /run/procid/procid.sock].
    #[arg(long, value_name = "PATH", env = "PROCID_SOCKET")]
    socket: Option<PathBuf>,
    /// Serve /metrics for Prometheus on this TCP address too, to whoever can
    /// connect, such as 127.0.0.1:9464 [default: on the socket only].
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// The cgroup v2 directory to watch [default: the root, wherever mounted].
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Which hooks may be used [default: auto].
    #[arg(long, value_enum)]
    backend: Option<BackendName>,
    /// Hash programs before they run, while a policy asks for hashes: auto (where
    /// the kernel does not), off, or where the one file system is mounted whose
    /// programs are [default: auto].
    #[arg(long, value_name = "auto|off|MOUNT", value_parser = exec_gate)]
    #[serde(deserialize_with = "exec_gate_text")]
    exec_gate: Option<ExecGate>,
    /// What is kept of command lines, which hold secrets [default: full].
    #[arg(long, value_enum)]
    args: Option<ArgsName>,
    /// How often a live connection's bytes are recorded [default: 5m].
    #[arg(long, value_name = "SPAN", value_parser = update_every)]
    #[serde(deserialize_with = "span_text")]
    update_every: Option<Duration>,
    /// Largest file of the history, such as 500M or 2G; 0: none is kept
    /// [default: 1G].
    #[arg(long, value_name = "SIZE", value_parser = history_size)]
    #[serde(deserialize_with = "size_text")]
    history_size: Option<u64>,
    /// How long what has ended stays in the history [default: 30d].
    #[arg(long, value_name = "SPAN", value_parser = history_age)]
    #[serde(deserialize_with = "age_text")]
    history_age: Option<Duration>,
    /// The policy to put in force, and to read again at SIGHUP [default: the one
    /// last applied].
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Leave the policy in force after a clean stop, as it is after a kill;
    /// 'procid unload' ends it.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    keep: Option<bool>,
}

/// [`Backend`] as flags and files name it.
#[derive(Clone, Copy, Debug, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BackendName {
    /// Everything that loads and attaches.
    Auto,
    /// LSM hooks only.
    Lsm,
    /// Cgroup hooks only.
    Cgroup,
}

/// [`Args`] as flags and files name it.
#[derive(Clone, Copy, Debug, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ArgsName {
    Full,
    None,
}

impl From<BackendName> for Backend {
    fn from(name: BackendName) -> Self {
        match name {
            BackendName::Auto => Self::Auto,
            BackendName::Lsm => Self::Lsm,
            BackendName::Cgroup => Self::Cgroup,
        }
    }
}

impl Options {
    /// These options, then those of `file`, then the defaults.
    ///
    /// # Errors
    ///
    /// Exit code 2: a file that cannot be read, or that says what procid does
    /// not know.
    pub fn resolve(self, file: Option<&Path>) -> Result<Settings, Failure> {
        let file = file.map(read).transpose()?.unwrap_or_default();
        let policy = self.policy.or(file.policy);
        let policy = policy.as_deref().map(policy::file::read).transpose();
        Ok(Settings {
            json: self.json.or(file.json).unwrap_or(false),
            outputs: self.output.or(file.output).unwrap_or_default(),
            keep: self.keep.or(file.keep).unwrap_or(false),
            state_dir: self
                .state_dir
                .or(file.state_dir)
                .unwrap_or_else(|| STATE_DIR.into()),
            socket: self.socket.or(file.socket).unwrap_or_else(|| SOCKET.into()),
            metrics: self.metrics.or(file.metrics),
            cgroup: self.cgroup.or(file.cgroup),
            backend: self
                .backend
                .or(file.backend)
                .unwrap_or(BackendName::Auto)
                .into(),
            exec_gate: self.exec_gate.or(file.exec_gate).unwrap_or_default(),
            args: match self.args.or(file.args) {
                None | Some(ArgsName::Full) => Args::Full,
                Some(ArgsName::None) => Args::None,
            },
            update_every: self
                .update_every
                .or(file.update_every)
                .unwrap_or(UPDATE_EVERY),
            history: match self.history_size.or(file.history_size) {
                Some(0) => None,
                size => Some(Limits {
                    size: size.unwrap_or(HISTORY_SIZE),
                    age: self.history_age.or(file.history_age).unwrap_or(HISTORY_AGE),
                }),
            },
            policy: policy.map_err(|error| Failure::usage(format!("--policy: {error}")))?,
        })
    }
}

fn read(path: &Path) -> Result<Options, Failure> {
    let at = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("--config {at}: {error}")))?;
    toml::from_str(&text).map_err(|error| {
        let (line, column) = place(&text, error.span().map_or(0, |span| span.start));
        let message: Vec<_> = error.message().split_whitespace().collect();
        Failure::usage(format!("{at}:{line}:{column}: {}", message.join(" ")))
    })
}

/// Line and column of a byte, from 1; columns count characters.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn update_every(text: &str) -> Result<Duration, String> {
    let span = time::span(text).map_err(|error| error.to_string())?;
    if span < Duration::from_secs(1) {
        return Err("give a second or more, such as 30s or 5m".to_owned());
    }
    Ok(span)
}

/// Bytes, or with K, M, G or T (powers of 1024; `iB` or `B` may follow).
fn history_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let shift = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let size = number.parse::<u64>().ok().zip(shift);
    let size = size.and_then(|(number, shift)| number.checked_mul(1 << shift));
    match size {
        Some(size) if size == 0 || size >= HISTORY_SIZE_MIN => Ok(size),
        _ => Err("give 0, or 1M or more, such as 500M or 2G".to_owned()),
    }
}

fn history_age(text: &str) -> Result<Duration, String> {
    let span = time::span(text).map_err(|error| error.to_string())?;
    if span < Duration::from_secs(60) {
        return Err("give a minute or more, such as 12h or 30d".to_owned());
    }
    Ok(span)
}

fn size_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    history_size(&text).map(Some).map_err(D::Error::custom)
}

fn age_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    history_age(&text).map(Some).map_err(D::Error::custom)
}

fn exec_gate(text: &str) -> Result<ExecGate, String> {
    match text {
        "auto" => Ok(ExecGate::Auto),
        "off" => Ok(ExecGate::Off),
        _ if text.starts_with('/') => Ok(ExecGate::On(text.into())),
        _ => Err("give auto, off, or the path of a mount".to_owned()),
    }
}

fn exec_gate_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ExecGate>, D::Error> {
    let text = String::deserialize(deserializer)?;
    exec_gate(&text).map(Some).map_err(D::Error::custom)
}

fn outputs_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Spec>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let outputs = texts.iter().map(|text| text.parse());
    outputs
        .collect::<Result<_, _>>()
        .map(Some)
        .map_err(D::Error::custom)
}

fn span_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    update_every(&text).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: Options, file: &str) -> Result<Settings, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("procid.toml");
        fs::write(&path, file).unwrap();
        options.resolve(Some(&path)).map_err(|failure| Failure {
            message: failure
                .message
                .replace(&directory.path().display().to_string(), "DIR"),
            ..failure
        })
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = Options {
            backend: Some(BackendName::Lsm),
            ..Options::default()
        };
        let settings = resolve(
            flags,
            "backend = \"cgroup\"\nargs = \"none\"\nupdate-every = \"1min 30s\"\njson = true\n",
        )
        .unwrap();
        assert_eq!(settings.backend, Backend::Lsm);
        assert_eq!(settings.args, Args::None);
        assert_eq!(settings.update_every, Duration::from_secs(90));
        assert!(settings.json);
        assert_eq!(settings.outputs, []);
        assert_eq!(settings.state_dir, Path::new(STATE_DIR));
        let limits = settings.history.unwrap();
        assert_eq!((limits.size, limits.age), (HISTORY_SIZE, HISTORY_AGE));
        let bounded = "history-size = \"20M\"\nhistory-age = \"2d\"\n";
        let limits = resolve(Options::default(), bounded)
            .unwrap()
            .history
            .unwrap();
        assert_eq!(limits.size, 20 << 20);
        assert_eq!(limits.age, Duration::from_secs(2 * 24 * 3600));
        let none = resolve(Options::default(), "history-size = \"0\"\n").unwrap();
        assert_eq!(none.history, None);
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, size) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("64M", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("2g", Some(2 << 30)),
            ("1TB", Some(1 << 40)),
            ("1K", None),
            ("G", None),
            ("-1G", None),
            ("99999999T", None),
            ("5X", None),
        ] {
            assert_eq!(history_size(text).ok(), size, "{text}");
        }
    }

    #[test]
    fn outputs_of_flags_stand_instead_of_those_of_the_file() {
        let file = "output = [\"journald\", \"file:/var/log/p.ndjson,keep=2\"]\n";
        let said = |options| {
            let outputs = resolve(options, file).unwrap().outputs;
            outputs.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            said(Options::default()),
            [
                "journald:/run/systemd/journal/socket",
                "file:/var/log/p.ndjson"
            ]
        );
        let flags = Options {
            output: Some(vec!["syslog:udp:127.0.0.1:514".parse().unwrap()]),
            ..Options::default()
        };
        assert_eq!(said(flags), ["syslog:udp:127.0.0.1:514"]);
    }

    #[test]
    fn a_mistake_in_the_file_is_named_with_its_place() {
        for (file, message) in [
            (
                "json = true\nbackened = \"lsm\"\n",
                "DIR/procid.toml:2:1: unknown field `backened`, expected one of",
            ),
            (
                "backend = \"ebpf\"\n",
                "DIR/procid.toml:1:11: unknown variant `ebpf`, expected one of `auto`",
            ),
            ("json = \n", "DIR/procid.toml:1:"),
            (
                "output = [\"stdout\"]\n",
                "DIR/procid.toml:1:10: give file:PATH, journald,",
            ),
            (
                "update-every = \"0s\"\n",
                "DIR/procid.toml:1:16: give a second or more",
            ),
        ] {
            let failure = resolve(Options::default(), file).unwrap_err();
            assert!(failure.message.starts_with(message), "{failure:?}");
            assert!(!failure.message.contains('\n'));
        }
        let options = Options {
            policy: Some("/nowhere/policy.toml".into()),
            ..Options::default()
        };
        let failure = options.resolve(None).unwrap_err();
        assert_eq!(failure.code, crate::cli::failure::Code::Usage);
        assert!(
            failure
                .message
                .starts_with("--policy: cannot read /nowhere/policy.toml"),
            "{failure:?}"
        );
        let missing = Options::default().resolve(Some(Path::new("/nowhere/procid.toml")));
        assert!(
            missing
                .unwrap_err()
                .message
                .contains("/nowhere/procid.toml")
        );
    }
}
