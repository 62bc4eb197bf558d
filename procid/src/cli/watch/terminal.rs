//! The loop, and the terminal given back as it was.

use std::{
    io::{self, Stdout, stdout},
    sync::Once,
    time::{Duration, Instant},
};

use crossterm::{
    cursor,
    event::{Event, EventStream},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use ratatui::{Terminal, backend::CrosstermBackend};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    draw::{Look, draw},
    feed::Feed,
    input,
    model::Model,
    ui::Ui,
    view::{Row, rows},
};
use crate::cli::failure::{Code, Failure};

/// What has come is drawn this often, so that a slow line is not flooded.
const FRAME: Duration = Duration::from_millis(200);
/// Ages grow this often where nothing comes.
const IDLE_FRAMES: u32 = 5;

/// Shows what the feed tells until `q`, or a signal.
pub(super) async fn run(feed: Feed) -> Result<Code, Failure> {
    let failed = |error: io::Error| Failure::refused(format!("cannot wait for signals: {error}"));
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut screen = Screen::open().map_err(|error| Failure::of_stdout(&error))?;
    let mut news = feed.start();
    let mut events = EventStream::new();
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut model = Model::default();
    let mut ui = Ui::default();
    let mut page = 0;
    let mut idle = 0;
    let mut has_changed = true;
    loop {
        tokio::select! {
            // Who pauses takes nothing: see the feed.
            item = news.recv(), if !ui.is_paused => match item {
                Some(item) => {
                    model.news(item, Instant::now());
                    has_changed = true;
                    continue;
                }
                None => return Ok(Code::Done),
            },
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) => {
                    let rows = rows(&model, &ui);
                    let keys: Vec<&str> = rows.iter().map(Row::key).collect();
                    input::key(&mut ui, key, &keys, page);
                    if ui.has_ended {
                        return Ok(Code::Done);
                    }
                }
                Some(Ok(_)) => {}
                // The terminal is gone.
                Some(Err(_)) | None => return Ok(Code::Done),
            },
            _ = frames.tick() => {
                idle += 1;
                if !has_changed && (idle < IDLE_FRAMES || ui.is_paused) {
                    continue;
                }
                if !ui.is_paused {
                    model.sweep(Instant::now());
                }
            }
            _ = hangup.recv() => return Ok(Code::Done),
            _ = interrupt.recv() => return Ok(Code::Done),
            _ = terminate.recv() => return Ok(Code::Done),
        }
        has_changed = false;
        idle = 0;
        page = screen
            .draw(&model, &mut ui)
            .map_err(|error| Failure::of_stdout(&error))?;
    }
}

/// The terminal as a screen; it is a terminal again when this is dropped, and
/// before a panic is told.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    colour: bool,
}

impl Screen {
    fn open() -> io::Result<Self> {
        restore_before_panics();
        // Dropped, whatever fails from here on.
        let restored = Restored;
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, cursor::Hide)?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        std::mem::forget(restored);
        Ok(Self {
            terminal,
            // https://no-color.org: set and not empty.
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        })
    }

    fn draw(&mut self, model: &Model, ui: &mut Ui) -> io::Result<usize> {
        let now = Timestamp::now().as_nanosecond();
        let look = Look {
            now_ns: i64::try_from(now).unwrap_or(i64::MAX),
            colour: self.colour,
        };
        let mut page = 0;
        self.terminal
            .draw(|frame| page = draw(frame, model, ui, look))?;
        Ok(page)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal when it is dropped.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // Where the terminal is gone there is nothing to restore.
    let _gone = disable_raw_mode();
    let _gone = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
}

fn restore_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            told(panic);
        }));
    });
}
