//! The agent's second thread: serves the API and waits for signals.
//!
//! It is set up before anything is attached, so that neither a signal nor a
//! question that comes meanwhile is lost, and started once the main thread has
//! given up its capabilities.

use std::{
    io,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::thread::CapabilitySet;
use sd_notify::NotifyState;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use tracing::{error, info, warn};

use super::privilege;
use crate::{agent::handle::Handle, api::server};

/// The API and the signals, not started yet.
#[derive(Debug)]
pub struct Service {
    runtime: Runtime,
    listener: tokio::net::UnixListener,
    interrupt: Signal,
    terminate: Signal,
}

impl Service {
    /// From here on SIGINT and SIGTERM no longer end the process.
    ///
    /// # Errors
    ///
    /// Of making the event loop.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let context = runtime.enter();
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        drop(context);
        Ok(Self {
            runtime,
            listener,
            interrupt,
            terminate,
        })
    }

    /// Serves in a thread of its own, without any capability. The first signal
    /// sets `stop`, and answers go on while the agent winds up; a second one
    /// ends the process where it stands (the kernel detaches the hooks).
    ///
    /// # Errors
    ///
    /// Of making the thread.
    pub fn start(self, handle: Handle, stop: Arc<AtomicBool>) -> io::Result<()> {
        thread::Builder::new()
            .name("procid-api".to_owned())
            .spawn(move || {
                if let Err(error) = privilege::reduce(CapabilitySet::empty()) {
                    error!("the API thread keeps its capabilities: {error}");
                }
                self.work(handle, &stop);
            })
            .map(drop)
    }

    fn work(self, handle: Handle, stop: &AtomicBool) {
        let Self {
            runtime,
            listener,
            mut interrupt,
            mut terminate,
        } = self;
        runtime.block_on(async {
            // Never sent: the API serves until the process ends.
            let (_keep, never) = oneshot::channel::<()>();
            let api = tokio::spawn(server::serve(listener, handle, async {
                let _never = never.await;
            }));
            tokio::spawn(async {
                if let Ok(Err(error)) = api.await {
                    error!("the API has stopped: {error}; restart procid to ask it again");
                }
            });
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            info!("{name}: stopping");
            notify(NotifyState::Stopping);
            stop.store(true, Ordering::Release);
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            warn!("a second signal: ending at once");
            std::process::exit(1);
        });
    }
}

/// Tells the service manager, where there is one (`$NOTIFY_SOCKET`).
pub fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        warn!("cannot tell the service manager: {error}");
    }
}
