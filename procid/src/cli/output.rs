//! Text for people: times, durations, hostile bytes.

use std::{borrow::Cow, time::Duration};

use jiff::{Timestamp, tz::TimeZone};

use crate::{records::escape::is_printable, time};

/// Text that a terminal shows and does not obey.
///
/// Records hold escaped text already; this also covers what came over a socket
/// from an agent that one has not checked. Backslashes stay as they are.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .map(|c| {
            if is_printable(c) {
                c.to_string()
            } else {
                format!("\\u{{{:x}}}", u32::from(c))
            }
        })
        .collect::<String>()
        .into()
}

/// A record's time in the local zone, with its offset; what is no time, as it is.
pub fn local(rfc3339: &str) -> String {
    let ns = rfc3339
        .parse::<Timestamp>()
        .ok()
        .and_then(|timestamp| i64::try_from(timestamp.as_nanosecond()).ok());
    match ns {
        Some(ns) => time::with_offset(ns, &TimeZone::system()),
        None => printable(rfc3339).into_owned(),
    }
}

/// A duration in its largest fitting unit.
pub fn duration(ns: u64) -> String {
    let duration = Duration::from_nanos(ns);
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{duration:.1?}"),
        1..60 => format!("{duration:.3?}"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `1 record`, `2 records`.
pub fn count(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Causes and numbers in one line, those that are 0 left out; `none` at all.
pub fn losses(lost: &std::collections::BTreeMap<String, u64>) -> String {
    let parts: Vec<_> = lost
        .iter()
        .filter(|&(_, n)| *n > 0)
        .map(|(cause, n)| format!("{n} {}", printable(cause)))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_steered() {
        assert_eq!(printable("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("line\nline"), "line\\u{a}line");
        assert_eq!(printable("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert!(matches!(printable("/usr/bin/\\x1b ü"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_duration_has_one_unit_to_think_in() {
        assert_eq!(duration(1_500), "1.5µs");
        assert_eq!(duration(12_340_000), "12.3ms");
        assert_eq!(duration(3_200_000_000), "3.200s");
        assert_eq!(duration(90_000_000_000), "1 min 30 s");
        assert_eq!(duration(7_260_000_000_000), "2 h 1 min");
    }

    #[test]
    fn only_what_was_lost_is_said() {
        let lost = [("ring".to_owned(), 0), ("map".to_owned(), 2)].into();
        assert_eq!(losses(&lost), "2 map");
        assert_eq!(losses(&[("ring".to_owned(), 0)].into()), "none");
    }
}
