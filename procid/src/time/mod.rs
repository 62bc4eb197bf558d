//! Moments and durations as people write them, and as records print them.
//!
//! A moment is nanoseconds since the epoch in an `i64` (years 1677 to 2262).
//!
//! | function | reads or prints |
//! | --- | --- |
//! | [`moment()`] | `--since`, `--until`, `--at`: journalctl's grammar |
//! | [`span()`] | `5min`, `1h 30m`: systemd's time spans |
//! | [`rfc3339_ns`] | the times in records |
//! | [`with_offset`] | times for people |

use jiff::{Timestamp, tz::TimeZone};

mod moment;
mod span;

pub use moment::{MomentError, moment, moment_at};
pub use span::{SpanError, span};

const NS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Prints a moment in UTC as RFC 3339 with nine digits: what records hold.
///
/// Runs once or more for every record, so that it is written out here:
/// `jiff` does the same through a general formatter (a test compares the two).
pub fn rfc3339_ns(ns_since_epoch: i64) -> String {
    let seconds = ns_since_epoch.div_euclid(NS_PER_SECOND);
    let nanos = ns_since_epoch.rem_euclid(NS_PER_SECOND);
    let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
    let second = seconds.rem_euclid(SECONDS_PER_DAY);

    let mut out = *b"0000-00-00T00:00:00.000000000Z";
    put(&mut out[0..4], year);
    put(&mut out[5..7], month);
    put(&mut out[8..10], day);
    put(&mut out[11..13], second / 3600);
    put(&mut out[14..16], second / 60 % 60);
    put(&mut out[17..19], second % 60);
    put(&mut out[20..29], nanos);
    out.iter().copied().map(char::from).collect()
}

/// Prints a moment in the time zone given, with its offset, so that
/// [`moment()`] reads it back: `2026-11-22 15:04:05.123456789+01:00`.
pub fn with_offset(ns_since_epoch: i64, zone: &TimeZone) -> String {
    timestamp(ns_since_epoch)
        .to_zoned(zone.clone())
        .strftime("%Y-%m-%d %H:%M:%S%.9f%:z")
        .to_string()
}

/// A moment as `jiff` has it.
pub(crate) fn timestamp(ns_since_epoch: i64) -> Timestamp {
    let seconds = ns_since_epoch.div_euclid(NS_PER_SECOND);
    let nanos = ns_since_epoch.rem_euclid(NS_PER_SECOND);
    // `jiff` covers the years -9999 to 9999: every i64 of nanoseconds fits.
    i32::try_from(nanos)
        .ok()
        .and_then(|nanos| Timestamp::new(seconds, nanos).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Year, month and day of a day counted from the epoch.
///
/// Years are counted from March, so that the leap day is a year's last:
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(146_097); // 400 years
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let january_or_february = if month <= 2 { 1 } else { 0 };
    (year_of_era + era * 400 + january_or_february, month, day)
}

/// Fills `digits` with the last digits of a number that is not negative.
fn put(digits: &mut [u8], mut number: i64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_the_contracts_example() {
        assert_eq!(
            rfc3339_ns(1_795_359_845_123_456_789),
            "2026-11-22T15:04:05.123456789Z"
        );
        assert_eq!(rfc3339_ns(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn prints_with_the_offset_of_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(
            with_offset(1_795_359_845_123_456_789, &zone),
            "2026-11-22 12:04:05.123456789-03:00"
        );
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(ns: i64) {
            let jiff = format!("{:.9}", timestamp(ns));
            prop_assert_eq!(rfc3339_ns(ns), jiff);
        }

        #[test]
        fn a_moment_survives_print_and_parse(ns: i64, offset in -12_i8..=14) {
            let zone = TimeZone::fixed(jiff::tz::offset(offset));
            let now = timestamp(0).to_zoned(TimeZone::UTC);
            prop_assert_eq!(moment_at(&with_offset(ns, &zone), &now), Ok(ns));
            prop_assert_eq!(moment_at(&rfc3339_ns(ns), &now), Ok(ns));
        }
    }
}
