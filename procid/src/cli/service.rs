//! The agent's second thread: serves the API and waits for signals.
//!
//! It is set up before anything is attached, so that neither a signal nor a
//! question that comes meanwhile is lost, and started once the main thread has
//! given up its capabilities.

use std::{
    io,
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustix::thread::CapabilitySet;
use sd_notify::NotifyState;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use tracing::{error, info, warn};

use super::{policy, privilege};
use crate::{
    agent::{
        handle::Handle,
        policy::{
            self as rules,
            ask::{Apply, Caller, Change},
        },
        stop::Stop,
    },
    api::server,
};

/// Longest wait for the last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The API and the signals, not started yet.
#[derive(Debug)]
pub struct Service {
    runtime: Runtime,
    listener: tokio::net::UnixListener,
    metrics: Option<tokio::net::TcpListener>,
    end: oneshot::Receiver<()>,
    done: mpsc::SyncSender<()>,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// The way to end a service.
#[derive(Debug)]
pub struct Ending {
    end: oneshot::Sender<()>,
    done: mpsc::Receiver<()>,
}

impl Ending {
    /// The agent has ended: who reads along or waits for an answer gets what
    /// there is. Returns at once where the service was never started.
    pub fn finish(self) {
        let _never_started = self.end.send(());
        let _too_late = self.done.recv_timeout(LAST_ANSWERS);
    }
}

impl Service {
    /// From here on SIGINT, SIGTERM and SIGHUP no longer end the process.
    ///
    /// # Errors
    ///
    /// Of making the event loop.
    pub fn new(listener: UnixListener, metrics: Option<TcpListener>) -> io::Result<(Self, Ending)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let context = runtime.enter();
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let metrics = metrics.map(tokio::net::TcpListener::from_std).transpose()?;
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        let hangup = signal(SignalKind::hangup())?;
        drop(context);
        let (end, ended) = oneshot::channel();
        let (done, is_done) = mpsc::sync_channel(1);
        let service = Self {
            runtime,
            listener,
            metrics,
            end: ended,
            done,
            interrupt,
            terminate,
            hangup,
        };
        Ok((service, Ending { end, done: is_done }))
    }

    /// Serves in a thread of its own, without any capability. The first signal
    /// tells the agent to stop, which a protected one refuses, and answers go on while the agent winds up; a second one
    /// ends the process where it stands (the kernel detaches the hooks). SIGHUP
    /// puts the file `policy` in force as it is then.
    ///
    /// # Errors
    ///
    /// Of making the thread.
    pub fn start(self, handle: Handle, stop: Arc<Stop>, policy: Option<PathBuf>) -> io::Result<()> {
        thread::Builder::new()
            .name("procid-api".to_owned())
            .spawn(move || {
                if let Err(error) = privilege::reduce(CapabilitySet::empty()) {
                    error!("the API thread keeps its capabilities: {error}");
                }
                self.work(handle, &stop, policy);
            })
            .map(drop)
    }

    fn work(self, handle: Handle, stop: &Stop, policy: Option<PathBuf>) {
        let Self {
            runtime,
            listener,
            metrics,
            end,
            done,
            mut interrupt,
            mut terminate,
            mut hangup,
        } = self;
        runtime.block_on(async {
            let api = tokio::spawn(server::serve(listener, handle.clone(), async {
                let _end = end.await;
            }));
            tokio::spawn(async move {
                if let Ok(Err(error)) = api.await {
                    error!("the API has stopped: {error}; restart procid to ask it again");
                }
                let _nobody_waits = done.try_send(());
            });
            if let Some(metrics) = metrics {
                let handle = handle.clone();
                tokio::spawn(async {
                    let Err(error) = server::serve_metrics(metrics, handle).await;
                    error!("the metrics are no longer served over TCP: {error}");
                });
            }
            tokio::spawn(async move {
                while hangup.recv().await.is_some() {
                    reload(&handle, policy.as_deref()).await;
                }
            });
            loop {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                };
                if stop.want().is_ok() {
                    info!("{name}: stopping");
                    break;
                }
                warn!("{name}: not stopping: {}", rules::is_protected());
            }
            notify(NotifyState::Stopping);
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            warn!("a second signal: ending at once");
            std::process::exit(1);
        });
    }
}

/// Puts the file in force as it is now; a bad one changes nothing.
async fn reload(handle: &Handle, path: Option<&Path>) {
    let Some(path) = path else {
        warn!("SIGHUP: there is no --policy file to read again; 'procid policy apply' one");
        return;
    };
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || policy::file::read(&owned)).await;
    let file = match read {
        Ok(Ok(file)) => file,
        Ok(Err(why)) => {
            error!("SIGHUP: {why}; the policy is as before");
            return;
        }
        Err(why) => {
            error!("SIGHUP: {} was not read: {why}", path.display());
            return;
        }
    };
    let change = Change::Reload(Apply {
        text: file.text,
        file: path.display().to_string(),
        ..Apply::default()
    });
    match handle.change(change, Caller::Signal).await {
        Ok(Ok(changed)) => {
            for warning in &changed.warnings {
                warn!("policy: {warning}");
            }
            info!(
                "SIGHUP: {} is in force, generation {}",
                path.display(),
                changed.generation
            );
        }
        Ok(Err(refusal)) => error!("SIGHUP: {refusal}; the policy is as before"),
        Err(stopped) => warn!("SIGHUP: {stopped}"),
    }
}

/// Tells the service manager, where there is one (`$NOTIFY_SOCKET`).
pub fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        warn!("cannot tell the service manager: {error}");
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::agent::{
        handle::Question,
        policy::ask::{Changed, Refusal},
    };

    #[tokio::test]
    async fn a_hangup_puts_the_file_in_force_as_it_is_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.toml");
        let (questions, mut asked) = mpsc::channel(8);
        let handle = Handle::new(questions);
        // Nothing to read: the agent is not asked.
        reload(&handle, None).await;
        reload(&handle, Some(&path)).await;
        assert!(asked.try_recv().is_err());

        for (text, answer) in [
            ("one", Ok(Changed::default())),
            ("two", Err(Refusal::Input("bad".to_owned()))),
        ] {
            std::fs::write(&path, text).unwrap();
            let agent = async {
                let Some(Question::Change(change, caller, sender)) = asked.recv().await else {
                    panic!("the agent is asked for something else");
                };
                sender.send(answer).unwrap();
                (change, caller)
            };
            let ((), (change, caller)) = tokio::join!(reload(&handle, Some(&path)), agent);
            let expected = Apply {
                text: text.to_owned(),
                file: path.display().to_string(),
                ..Apply::default()
            };
            assert_eq!(*change, Change::Reload(expected));
            assert_eq!(caller, Caller::Signal);
        }
    }
}
