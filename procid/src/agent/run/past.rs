//! Facts to history.

use std::path::PathBuf;

use crate::{
    agent::{engine::Engine, settings::Settings},
    history::{Fact, Feed, Limits, State, Writer, fact::Run, writer},
    identity::hash::settle::boot_now_ns,
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
