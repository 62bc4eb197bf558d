//! Facts to history.

use std::path::PathBuf;

use tokio::sync::oneshot;

use crate::{
    agent::{engine::Engine, handle::Memory, settings::Settings},
    history::{Fact, Feed, Limits, State, Writer, fact::Run, writer},
    identity::hash::settle::boot_now_ns,
    records::Gap,
};

/// The agent's end of history.
pub(super) struct Past {
    state_dir: PathBuf,
    limits: Option<Limits>,
    open: Option<(Feed, Writer)>,
    /// Why there is none.
    trouble: Option<String>,
}

impl Past {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            state_dir: settings.state_dir.clone(),
            limits: settings.history,
            open: None,
            trouble: None,
        }
    }

    /// From here on what happens is written.
    pub(super) fn begin(&mut self, run: Run) {
        let Some(limits) = self.limits else { return };
        match writer::start(self.state_dir.clone(), run, limits) {
            Ok(open) => self.open = Some(open),
            Err(error) => {
                let trouble = format!("the history is not written: no thread for it: {error}");
                tracing::error!("{trouble}");
                self.trouble = Some(trouble);
            }
        }
    }

    /// Hands over what has become known.
    pub(super) fn take(&mut self, engine: &mut Engine) {
        let Some((feed, _)) = &mut self.open else {
            while engine.next_fact().is_some() {}
            return;
        };
        if feed.wants_images() {
            engine.retell_images();
        }
        while let Some(fact) = engine.next_fact() {
            feed.put(fact);
        }
        feed.hand_over();
    }

    /// Says when history has all that is known now, and what it misses.
    pub(super) fn join(&mut self, memory: &mut Memory) {
        let Some((feed, _)) = &mut self.open else {
            return;
        };
        let (sender, written) = oneshot::channel();
        feed.put(Fact::Written(sender));
        feed.hand_over();
        memory.written = Some(written);
        let state = feed.state();
        memory.gap = state.trouble.map(|cause| Gap {
            from: None,
            to: memory.coverage.to.clone(),
            count: Some(state.missed),
            cause,
        });
    }

    /// A clean end; returns when all is written, or cannot be.
    pub(super) fn end(&mut self) {
        if let Some((mut feed, writer)) = self.open.take() {
            feed.put(Fact::End(boot_now_ns()));
            feed.hand_over();
            drop(feed);
            writer.finish();
        }
    }

    pub(super) fn state(&self) -> Option<State> {
        self.limits?;
        let state = self.open.as_ref().map(|(feed, _)| feed.state());
        Some(state.unwrap_or_else(|| State {
            trouble: self.trouble.clone(),
            ..State::default()
        }))
    }
}
