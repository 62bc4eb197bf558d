//! Time spans in systemd's grammar
//! (<https://www.freedesktop.org/software/systemd/man/latest/systemd.time.html>).

use std::time::Duration;

/// Why text is not a time span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    #[error("a time span is empty; write a number and a unit, as in 5min")]
    Empty,
    #[error("`{0}` in a time span is not a number; write a number and a unit, as in 5min or 1h30m")]
    Number(String),
    #[error("`{0}` is not a unit of time; use ns, us, ms, s, min, h, d, w, month or y")]
    Unit(String),
    #[error("the time span `{0}` is too long")]
    TooLong(String),
}

/// Parses a time span: numbers with units, added up, as in `5min`, `1h 30m`,
/// `1.5h`; a number without unit counts seconds.
///
/// # Errors
///
/// The part that is not understood, with the remedy.
pub fn span(text: &str) -> Result<Duration, SpanError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(SpanError::Empty);
    }
    let too_long = || SpanError::TooLong(text.trim().to_owned());
    let mut total = 0_u128;
    while !rest.is_empty() {
        let (number, after) = cut(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = cut(after.trim_start(), char::is_alphabetic);
        if number.is_empty() {
            return Err(SpanError::Number(first_word(rest).to_owned()));
        }
        let unit_ns = unit_ns(unit).ok_or_else(|| SpanError::Unit(unit.to_owned()))?;
        let ns = scale(number, unit_ns).ok_or_else(|| SpanError::Number(number.to_owned()))?;
        total = total
            .checked_add(ns.ok_or_else(too_long)?)
            .ok_or_else(too_long)?;
        rest = after.trim_start();
    }
    u64::try_from(total)
        .map(Duration::from_nanos)
        .map_err(|_| too_long())
}

/// Cuts off the longest prefix of characters that `belongs` accepts.
fn cut(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or(text)
}

/// Nanoseconds of one unit.
fn unit_ns(unit: &str) -> Option<u64> {
    const SECOND: u64 = 1_000_000_000;
    const DAY: u64 = 86_400 * SECOND;
    Some(match unit {
        "ns" | "nsec" => 1,
        "us" | "usec" | "µs" | "μs" => 1_000,
        "ms" | "msec" => 1_000_000,
        "" | "s" | "sec" | "second" | "seconds" => SECOND,
        "m" | "min" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hour" | "hours" => 3_600 * SECOND,
        "d" | "day" | "days" => DAY,
        "w" | "week" | "weeks" => 7 * DAY,
        // systemd's: 30.44 days and 365.25 days.
        "M" | "month" | "months" => 2_629_800 * SECOND,
        "y" | "year" | "years" => 31_557_600 * SECOND,
        _ => return None,
    })
}

/// A decimal number times `unit_ns`, rounded down: `None` when it is not a
/// number, `Some(None)` when the product does not fit.
fn scale(number: &str, unit_ns: u64) -> Option<Option<u128>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let unit_ns = u128::from(unit_ns);
    let Ok(whole) = format!("0{whole}").parse::<u128>() else {
        return Some(None);
    };
    // No unit is longer than 17 digits of nanoseconds: later digits are nothing.
    let fraction = &fraction[..fraction.len().min(18)];
    let parts = fraction.parse().unwrap_or(0_u128);
    let of = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    Some(
        whole
            .checked_mul(unit_ns)
            .and_then(|whole| whole.checked_add(parts * unit_ns / of)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("5m", 300_000)]
    #[case("60s", 60_000)]
    #[case("60", 60_000)]
    #[case("4h", 14_400_000)]
    #[case("1h30m", 5_400_000)]
    #[case("1h 30 min", 5_400_000)]
    #[case(" 2 days ", 172_800_000)]
    #[case("1.5h", 5_400_000)]
    #[case(".5s", 500)]
    #[case("500ms", 500)]
    #[case("1w", 604_800_000)]
    #[case("1M", 2_629_800_000)]
    #[case("1y", 31_557_600_000)]
    #[case("0", 0)]
    fn spans(#[case] text: &str, #[case] ms: u64) {
        assert_eq!(span(text), Ok(Duration::from_millis(ms)));
    }

    #[rstest]
    #[case("", SpanError::Empty)]
    #[case("  ", SpanError::Empty)]
    #[case("-5m", SpanError::Number("-5m".into()))]
    #[case("min", SpanError::Number("min".into()))]
    #[case("1.2.3s", SpanError::Number("1.2.3".into()))]
    #[case(".s", SpanError::Number(".".into()))]
    #[case("5 parsecs", SpanError::Unit("parsecs".into()))]
    #[case("1h5q", SpanError::Unit("q".into()))]
    #[case("9999y", SpanError::TooLong("9999y".into()))]
    #[case("99999999999999999999999999999999999999999s", SpanError::TooLong("99999999999999999999999999999999999999999s".into()))]
    fn bad_spans(#[case] text: &str, #[case] error: SpanError) {
        assert_eq!(span(text), Err(error));
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = span(&text);
        }

        #[test]
        fn never_panics_on_what_looks_like_a_span(text in "([0-9.]{0,22} ?(ns|us|ms|s|m|h|d|w|M|y)? ?){0,4}") {
            let _ = span(&text);
        }

        #[test]
        fn parts_add_up(hours in 0_u64..1000, minutes in 0_u64..1000, nanos in 0_u64..1_000_000_000) {
            let expected = Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_nanos(nanos);
            prop_assert_eq!(span(&format!("{hours}h {minutes}min{nanos}ns")), Ok(expected));
            prop_assert_eq!(span(&format!("{}.{:09}", expected.as_secs(), nanos)), Ok(expected));
        }
    }
}
