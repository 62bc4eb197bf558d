//! Moments in journalctl's grammar
//! (<https://www.freedesktop.org/software/systemd/man/latest/systemd.time.html>).
//!
//! | form | example |
//! | --- | --- |
//! | date and time, date alone, time alone | `2026-11-22 15:04:05.123`, `2026-11-22`, `15:04` |
//! | RFC 3339 | `2026-11-22T15:04:05.123Z`, `2026-11-22 15:04:05+01:00` |
//! | with a time zone | `2026-11-22 15:04 UTC`, `15:04 Europe/Berlin` |
//! | words | `now`, `today`, `yesterday`, `tomorrow` |
//! | relative to now | `-5min`, `+1h30m`, `5 min ago`, `5 min left` |
//! | seconds since the epoch | `@1795359845.123` |
//!
//! Times are local unless a zone or an offset is given.

use jiff::{
    SignedDuration, Timestamp, Zoned,
    civil::{Date, Time},
    tz::{Offset, TimeZone},
};

use super::span::{SpanError, span};

/// Why text is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    #[error(
        "`{0}` is not a time; write it as \"2026-11-22 15:04:05\", 15:04, today, -5min or @SECONDS"
    )]
    Form(String),
    #[error("`{text}` is not a time: {reason}")]
    Span { text: String, reason: SpanError },
    #[error("the time `{0}` is out of range; use one between the years 1678 and 2261")]
    Range(String),
}

/// Parses a moment, nanoseconds since the epoch, in the local time zone.
///
/// # Errors
///
/// Text that is not in the grammar, or a time that does not fit.
pub fn moment(text: &str) -> Result<i64, MomentError> {
    moment_at(text, &Zoned::now())
}

/// [`moment()`], where `now` gives the present moment and the local time zone.
///
/// # Errors
///
/// Text that is not in the grammar, or a time that does not fit.
pub fn moment_at(text: &str, now: &Zoned) -> Result<i64, MomentError> {
    let text = text.trim();
    let timestamp = if let Some(day) = word(text, now) {
        day.ok_or_else(|| MomentError::Range(text.to_owned()))?
    } else if let Some(seconds) = text.strip_prefix('@') {
        return epoch(seconds, text);
    } else if let Some((length, forward)) = relative(text) {
        let length = span(length).map_err(|reason| MomentError::Span {
            text: text.to_owned(),
            reason,
        })?;
        // A span holds at most u64::MAX nanoseconds: 585 years.
        let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        let length = if forward { length } else { -length };
        now.timestamp()
            .checked_add(length)
            .map_err(|_| MomentError::Range(text.to_owned()))?
    } else {
        absolute(text, now).ok_or_else(|| MomentError::Form(text.to_owned()))?
    };
    i64::try_from(timestamp.as_nanosecond()).map_err(|_| MomentError::Range(text.to_owned()))
}

/// `now`, `today`, `yesterday`, `tomorrow`; the inner `None` is a day that the
/// calendar does not reach.
fn word(text: &str, now: &Zoned) -> Option<Option<Timestamp>> {
    let today = now.date();
    let date = match text {
        "now" => return Some(Some(now.timestamp())),
        "today" => Ok(today),
        "yesterday" => today.yesterday(),
        "tomorrow" => today.tomorrow(),
        _ => return None,
    };
    let start = date.and_then(|date| date.to_zoned(now.time_zone().clone()));
    Some(start.ok().map(|start| start.timestamp()))
}

/// `@SECONDS[.FRACTION]`, negative before the epoch.
fn epoch(seconds: &str, text: &str) -> Result<i64, MomentError> {
    let form = || MomentError::Form(text.to_owned());
    let range = || MomentError::Range(text.to_owned());
    let (negative, digits) = match seconds.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, seconds),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return Err(form());
    }
    let nanos: i128 = format!("{fraction:0<9}").parse().map_err(|_| form())?;
    let whole: i128 = whole.parse().map_err(|_| range())?;
    let ns = whole
        .checked_mul(1_000_000_000)
        .and_then(|ns| ns.checked_add(nanos))
        .ok_or_else(range)?;
    i64::try_from(if negative { -ns } else { ns }).map_err(|_| range())
}

/// The span of a relative time, and whether it lies ahead.
fn relative(text: &str) -> Option<(&str, bool)> {
    if let Some(span) = text.strip_prefix('+') {
        Some((span, true))
    } else if let Some(span) = text.strip_prefix('-') {
        Some((span, false))
    } else if let Some(span) = text.strip_suffix(" ago") {
        Some((span, false))
    } else {
        text.strip_suffix(" left").map(|span| (span, true))
    }
}

/// A date and time, a date, or a time of today, with or without a zone.
fn absolute(text: &str, now: &Zoned) -> Option<Timestamp> {
    let (clock, zone) = split_zone(text)?;
    let zone = zone.unwrap_or_else(|| now.time_zone().clone());
    let (date, time) = match clock.split_once([' ', 'T']) {
        Some((date, time)) => (parse_date(date)?, parse_time(time.trim_start())?),
        None => match parse_date(clock) {
            Some(date) => (date, Time::midnight()),
            None => (now.with_time_zone(zone.clone()).date(), parse_time(clock)?),
        },
    };
    let zoned = date.to_datetime(time).to_zoned(zone).ok()?;
    Some(zoned.timestamp())
}

/// Cuts ` UTC`, ` Area/City`, `Z` or `+HH:MM` off the end; `None` when what
/// stands there names no zone.
fn split_zone(text: &str) -> Option<(&str, Option<TimeZone>)> {
    if let Some((clock, name)) = text.rsplit_once(' ')
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        let zone = TimeZone::get(name).ok()?;
        return Some((clock.trim_end(), Some(zone)));
    }
    // An offset follows a time of day: the hyphens of a date are no signs.
    if !text.contains(':') {
        return Some((text, None));
    }
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, Some(TimeZone::UTC)));
    }
    let colon = text.find(':').unwrap_or(0);
    let Some(sign) = text[colon..].find(['+', '-']).map(|at| at + colon) else {
        return Some((text, None));
    };
    let offset = parse_offset(&text[sign..])?;
    Some((text[..sign].trim_end(), Some(TimeZone::fixed(offset))))
}

/// `+HH:MM`, `+HHMM` or `+HH`.
fn parse_offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        (_, digits) => (-1, digits),
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None => digits.split_at_checked(2)?,
    };
    let hours: i32 = number(hours, 2)?;
    let minutes: i32 = if minutes.is_empty() && !digits.contains(':') {
        0
    } else {
        number(minutes, 2)?
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// `YYYY-MM-DD`.
fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Date::new(number(year, 4)?, number(month, 2)?, number(day, 2)?).ok()
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.FRACTION` with up to nine digits.
fn parse_time(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let (hour, minute) = (parts.next()?, parts.next()?);
    let (second, fraction) = match parts.next() {
        Some(second) => second.split_once('.').unwrap_or((second, "0")),
        None => ("00", "0"),
    };
    if parts.next().is_some() || fraction.len() > 9 {
        return None;
    }
    let nanos = number(&format!("{fraction:0<9}"), 9).filter(|_| !fraction.is_empty())?;
    Time::new(
        number(hour, 2)?,
        number(minute, 2)?,
        number(second, 2)?,
        nanos,
    )
    .ok()
}

/// A number of exactly `width` ASCII digits.
fn number<T: std::str::FromStr>(text: &str, width: usize) -> Option<T> {
    if text.len() != width || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// 2026-11-22 15:04:05.5 in a zone one hour east of UTC.
    fn now() -> Zoned {
        "2026-11-22T15:04:05.5+01:00[+01:00]".parse().unwrap()
    }

    #[rstest]
    #[case("now", "2026-11-22T14:04:05.5Z")]
    #[case("today", "2026-11-21T23:00:00Z")]
    #[case("yesterday", "2026-11-20T23:00:00Z")]
    #[case("tomorrow", "2026-11-22T23:00:00Z")]
    #[case("2026-11-22 15:04:05", "2026-11-22T14:04:05Z")]
    #[case("2026-11-22 15:04:05.25", "2026-11-22T14:04:05.25Z")]
    #[case("2026-11-22 15:04", "2026-11-22T14:04:00Z")]
    #[case("2026-11-22T15:04:05", "2026-11-22T14:04:05Z")]
    #[case("2026-11-22", "2026-11-21T23:00:00Z")]
    #[case(" 2026-11-22 ", "2026-11-21T23:00:00Z")]
    #[case("08:30", "2026-11-22T07:30:00Z")]
    #[case("08:30:01.000000001", "2026-11-22T07:30:01.000000001Z")]
    #[case("-5min", "2026-11-22T13:59:05.5Z")]
    #[case("- 5 min", "2026-11-22T13:59:05.5Z")]
    #[case("+1h30m", "2026-11-22T15:34:05.5Z")]
    #[case("5 min ago", "2026-11-22T13:59:05.5Z")]
    #[case("1 day 2h ago", "2026-11-21T12:04:05.5Z")]
    #[case("30s left", "2026-11-22T14:04:35.5Z")]
    #[case("@1795359845", "2026-11-22T15:04:05Z")]
    #[case("@1795359845.5", "2026-11-22T15:04:05.5Z")]
    #[case("@-0.5", "1969-12-31T23:59:59.5Z")]
    #[case("2026-11-22T15:04:05Z", "2026-11-22T15:04:05Z")]
    #[case("2026-11-22T15:04:05.123456789Z", "2026-11-22T15:04:05.123456789Z")]
    #[case("2026-11-22T15:04:05-03:30", "2026-11-22T18:34:05Z")]
    #[case("2026-11-22 15:04:05+0530", "2026-11-22T09:34:05Z")]
    #[case("2026-11-22 15:04:05 +02", "2026-11-22T13:04:05Z")]
    #[case("2026-11-22 15:04:05 UTC", "2026-11-22T15:04:05Z")]
    #[case("2026-11-22 UTC", "2026-11-22T00:00:00Z")]
    #[case("23:30 UTC", "2026-11-22T23:30:00Z")]
    fn moments(#[case] text: &str, #[case] expected: &str) {
        let expected: Timestamp = expected.parse().unwrap();
        assert_eq!(
            moment_at(text, &now()).map(i128::from),
            Ok(expected.as_nanosecond())
        );
    }

    #[rstest]
    #[case("")]
    #[case("noon")]
    #[case("2026-13-01")]
    #[case("2026-11-31")]
    #[case("2026-11-22 25:00")]
    #[case("2026-11-22 15:04:05.")]
    #[case("2026-11-22 15:04:05.1234567890")]
    #[case("2026-11-22 15:04:05+25:00")]
    #[case("2026-11-22 15:04:05+1")]
    #[case("2026-11-22 15:04:05 Nowhere/City")]
    #[case("15:04:05:06")]
    #[case("@")]
    #[case("@1e9")]
    #[case("@1.-5")]
    fn bad_moments(#[case] text: &str) {
        assert_eq!(
            moment_at(text, &now()),
            Err(MomentError::Form(text.to_owned()))
        );
    }

    #[test]
    fn errors_name_the_part_and_the_remedy() {
        let text = moment_at("-5 parsecs", &now()).unwrap_err().to_string();
        assert!(text.contains("parsecs") && text.contains("use ns, us"));
        let far = moment_at("9999-01-01", &now()).unwrap_err();
        assert_eq!(far, MomentError::Range("9999-01-01".into()));
        assert!(moment_at("-584y", &now()).is_err());
        assert!(moment_at("@99999999999999999999999999999999999999999", &now()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = moment_at(&text, &now());
        }

        #[test]
        fn never_panics_on_what_looks_like_a_moment(
            text in "(@|-|\\+)?[0-9]{0,4}(-[0-9]{1,2}){0,2}[ T]?([0-9]{1,2}:?){0,4}\\.?[0-9µZ+-]{0,6}( UTC| ago|é)?"
        ) {
            let _ = moment_at(&text, &now());
        }
    }
}
