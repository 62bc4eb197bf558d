//! `procid run`: the agent in the foreground.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use rustix::fs::Mode;
use sd_notify::NotifyState;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::{
    config,
    failure::{Code, Failure},
    privilege,
    service::{Service, notify},
    state_dir,
};
use crate::{
    agent::{self, RunError, policy::ask::Refusal, stop::Stop},
    api::socket::{self, BindError},
};

/// Attach, print a record of each connection with the image behind it, and
/// answer questions, until SIGINT or SIGTERM.
///
/// Records go to stdout, logs to stderr (`PROCID_LOG` sets their level, as in
/// `PROCID_LOG=debug`).
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    options: config::Options,
    /// Settings in TOML, named as these flags; flags win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Run {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let settings = self.options.resolve(self.config.as_deref())?;
        log_to_stderr()?;
        permitted()?;
        // Whatever the agent makes is its own until a mode is set on purpose.
        rustix::process::umask(Mode::from_raw_mode(0o077));
        state_dir::prepare(&settings.state_dir)?;
        let mut bound = socket::bind(&settings.socket)?;
        let listener = bound.take().ok_or_else(|| no_loop("its socket is gone"))?;
        let metrics = settings.metrics.map(metrics_listener).transpose()?;
        let (service, ending) = Service::new(listener, metrics).map_err(no_loop)?;

        let policy = settings.policy.as_ref().map(|file| file.path.clone());
        let stop = Arc::new(Stop::default());
        let told = Arc::clone(&stop);
        let done = agent::run(
            &settings,
            io::stdout(),
            give_up,
            |handle| {
                service.start(handle, told, policy)?;
                notify(NotifyState::Ready);
                info!("ready");
                Ok(())
            },
            stop,
        );
        ending.finish();
        drop(bound);
        match done {
            Ok(()) => Ok(Code::Done),
            Err(RunError::Policy(Refusal::Input(error))) => Err(Failure::usage(error)),
            Err(error @ RunError::Outputs(_)) => Err(Failure::usage(error.to_string())),
            Err(error) => Err(Failure::refused(error.to_string())),
        }
    }
}

/// Gives up what attaching needed and running does not; names what is kept.
fn give_up() -> io::Result<Vec<String>> {
    let kept = privilege::reduce(privilege::TO_RUN)
        .map_err(|error| io::Error::other(format!("cannot give up capabilities: {error}")))?;
    let kept = privilege::names(kept);
    info!("attached; capabilities kept: {}", kept.join(" "));
    Ok(kept)
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let permission = matches!(
            &error,
            BindError::Io { source, .. } if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            )
        );
        if permission || matches!(error, BindError::Taken(_)) {
            Self::refused(error.to_string())
        } else {
            Self::usage(error.to_string())
        }
    }
}

/// Listens on the address of `--metrics`.
fn metrics_listener(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| {
            Failure::refused(format!(
                "--metrics {address}: {error}; give an address of this host that is free"
            ))
        })?;
    if !address.ip().is_loopback() {
        warn!("whoever can reach {address} can read the metrics");
    }
    Ok(listener)
}

fn no_loop(error: impl std::fmt::Display) -> Failure {
    Failure::refused(format!("cannot start the API's event loop: {error}"))
}

fn log_to_stderr() -> Result<(), Failure> {
    const VARIABLE: &str = "PROCID_LOG";
    let filter = match std::env::var(VARIABLE) {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| {
            Failure::usage(format!(
                "{VARIABLE}: {error}; give a level, such as info or debug"
            ))
        })?,
        Err(_) => EnvFilter::new("info"),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        // It would tell stderr that stderr is gone, and panic.
        .log_internal_errors(false)
        .finish();
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| Failure::refused(format!("cannot log: {error}")))
}

/// Says at once what would otherwise be a refusal half-way.
fn permitted() -> Result<(), Failure> {
    let missing = privilege::missing(privilege::TO_ATTACH)
        .map_err(|error| Failure::refused(format!("cannot read capabilities: {error}")))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "attaching to the kernel needs {}, which uid {} lacks here; start it as root ('sudo \
         procid run'), outside a container that drops them",
        privilege::names(missing).join(", "),
        rustix::process::geteuid().as_raw()
    )))
}
