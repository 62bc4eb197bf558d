//! The picture of when each image spoke: a line for each, a bar for each of its
//! connections.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    case::{Case, Node},
    words::{anchor, lasted, name, start, verdict},
};
use crate::{
    cli::{output::local, who::text::endpoint as end},
    records::Record,
    time::rfc3339_ns,
};

/// Lines of the picture: further images are in the tables.
const LINES_MAX: usize = 80;
/// Letters of a line's name.
const NAME_MAX: usize = 34;

// Pixels.
const NAMES: f64 = 260.0;
const WIDTH: f64 = 900.0;
const LINE: f64 = 18.0;
const TOP: f64 = 24.0;
/// The least a bar is wide, so that one is seen.
const BAR_MIN: f64 = 2.0;
/// Times written above the picture.
const MARKS: i64 = 3;

/// From the first start to the last end, nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    from: i64,
    to: i64,
}

impl Span {
    fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Option<Self> {
        records
            .filter_map(times)
            .map(|(from, to)| Self { from, to })
            .reduce(|a, b| Self {
                from: a.from.min(b.from),
                to: a.to.max(b.to),
            })
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "pixels need no more than f64 holds"
    )]
    fn place(self, at: i64) -> f64 {
        let whole = self.to.saturating_sub(self.from).max(1) as f64;
        let part = at.saturating_sub(self.from) as f64;
        (part / whole).clamp(0.0, 1.0) * WIDTH
    }
}

pub fn picture(case: &Case) -> Markup {
    let Some(span) = Span::of(case.connections.iter()) else {
        return html! { p { "There is nothing to show." } };
    };
    let mut lines: Vec<(&str, &Node)> = case
        .tree
        .in_order()
        .into_iter()
        .filter(|(_, node)| !node.connections.is_empty())
        .collect();
    lines.sort_by_key(|(_, node)| node.connections.first());
    let over = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    let height = lines.iter().fold(TOP, |height, _| height + LINE);
    html! {
        svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="when each image spoke"
            viewBox={ "0 0 " (NAMES + WIDTH) " " (height) } {
            @for mark in 0..=MARKS {
                @let at = span.from + span.to.saturating_sub(span.from) / MARKS * mark;
                @let x = NAMES + span.place(at);
                line .mark x1=(x) x2=(x) y1=(TOP - 4.0) y2=(height) {}
                text .time x=(x) y="12" text-anchor=(anchor_of(mark)) { (short(at)) }
            }
            @for (at, (entity, node)) in lines.iter().enumerate() {
                @let y = (0..at).fold(TOP, |y, _| y + LINE);
                a href={ "#" (anchor(entity)) } {
                    text x="0" y=(y + 13.0) { (name(node.process.as_ref()).chars().take(NAME_MAX).collect::<String>()) }
                }
                @for record in node.connections.iter().filter_map(|at| case.connections.get(*at)) {
                    (bar(span, y, record))
                }
            }
        }
        @if over > 0 {
            p { "and " (over) " more images: see the tables" }
        }
    }
}

fn bar(span: Span, y: f64, record: &Record) -> Markup {
    let Some((from, to)) = times(record) else {
        return html! {};
    };
    let x = span.place(from).min(WIDTH - BAR_MIN);
    let width = (span.place(to) - x).max(BAR_MIN);
    html! {
        rect class={ "bar " (verdict(record)) } x=(NAMES + x) y=(y + 3.0) width=(width) height=(LINE - 6.0) {
            title {
                (local(start(record))) ", " (lasted(record)) ", "
                (end(record.source.as_ref())) " → " (end(record.destination.as_ref()))
            }
        }
    }
}

/// Start and end; what has none, or was open, is shown by its start.
fn times(record: &Record) -> Option<(i64, i64)> {
    let ns = |text: &str| {
        let time: Timestamp = text.parse().ok()?;
        i64::try_from(time.as_nanosecond()).ok()
    };
    let from = ns(start(record))?;
    let event = record.event.as_ref();
    let to = event.and_then(|event| ns(event.end.as_deref()?));
    Some((from, to.unwrap_or(from).max(from)))
}

const fn anchor_of(mark: i64) -> &'static str {
    match mark {
        0 => "start",
        MARKS => "end",
        _ => "middle",
    }
}

/// A local time without the parts that are too small to be seen.
fn short(ns: i64) -> String {
    local(&rfc3339_ns(ns)).chars().take(23).collect()
}
