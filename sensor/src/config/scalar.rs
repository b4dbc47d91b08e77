//! Small values: durations, sizes, status sets, dates.
//!
//! Text of one value flows in, a number in the program's own unit flows out, or a diagnostic.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::value::{Datetime, Offset};

use super::reader::{Context, Item, Section};
use crate::diagnostic::quoted;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// `number` directly followed by one of `units`, in the base unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// `"90s"` and the like, within `range`.
pub(super) fn duration(item: &Item, cx: &mut Context, range: RangeInclusive<Duration>) -> Option<Duration> {
    const EXAMPLE: &str = "a number and a unit (ms, s, m, h, d), such as \"90s\", \"15m\", \"12h\" or \"30d\"";
    let text = item.text(cx, EXAMPLE)?;
    let Some(millis) = with_unit(text.value, &DURATION_UNITS) else {
        let message = format!("{} is {}, which is not a duration", item.name(), quoted(text.value));
        cx.error(text.at, message, format!("Write {EXAMPLE}"));
        return None;
    };
    let value = Duration::from_millis(millis);
    if !range.contains(&value) {
        let fix = format!("Write a duration from {:?} to {:?}", range.start(), range.end());
        cx.error(text.at, format!("{} is out of range", item.name()), fix);
        return None;
    }
    Some(value)
}

/// Bytes: a whole number, or `"16MiB"` and the like, within `range`.
pub(super) fn size(item: &Item, cx: &mut Context, range: RangeInclusive<u64>) -> Option<u64> {
    const EXAMPLE: &str = "bytes as a whole number, or with a unit (B, KiB, MiB, GiB) such as \"16MiB\"";
    let Some(text) = item.as_text() else {
        if item.as_integer().is_some() {
            return item.integer(cx, range);
        }
        item.text(cx, EXAMPLE)?;
        return None;
    };
    let Some(bytes) = with_unit(text, &SIZE_UNITS) else {
        let message = format!("{} is {}, which is not a size", item.name(), quoted(text));
        cx.error(item.at, message, format!("Write {EXAMPLE}"));
        return None;
    };
    if !range.contains(&bytes) {
        let fix = format!("Write a size from {} to {} bytes", range.start(), range.end());
        cx.error(item.at, format!("{} is out of range", item.name()), fix);
        return None;
    }
    Some(bytes)
}

/// The duration at `key`, or `default`.
pub(super) fn duration_or(
    section: &mut Section,
    cx: &mut Context,
    key: &'static str,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Duration {
    section.get(cx, key).and_then(|item| duration(&item, cx, range)).unwrap_or(default)
}

/// A set of status codes: `200`, `"2xx"`, `"200-299"`, or an array of these.
pub(super) fn statuses(item: &Item, cx: &mut Context) -> Vec<RangeInclusive<u16>> {
    item.one_or_list().iter().filter_map(|element| status(element, cx)).collect()
}

fn status(item: &Item, cx: &mut Context) -> Option<RangeInclusive<u16>> {
    const CODES: RangeInclusive<u16> = 100..=599;
    let range = match (item.as_text(), item.as_integer()) {
        (Some(text), _) => status_text(text),
        (None, Some(code)) => u16::try_from(code).ok().map(|code| code..=code),
        (None, None) => None,
    };
    let range = range.filter(|range| CODES.contains(range.start()) && CODES.contains(range.end()) && !range.is_empty());
    if range.is_none() {
        let fix = "Write codes from 100 to 599: 200, \"2xx\", \"200-204\", or an array of these";
        cx.error(item.at, format!("{} is not a set of status codes", item.name()), fix);
    }
    range
}

fn status_text(text: &str) -> Option<RangeInclusive<u16>> {
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    if let Some(hundreds) = text.strip_suffix("xx") {
        let first = digits(hundreds)?.checked_mul(100)?;
        return Some(first..=first.checked_add(99)?);
    }
    if let Some((first, last)) = text.split_once('-') {
        return Some(digits(first)?..=digits(last)?);
    }
    digits(text).map(|code| code..=code)
}

/// A TOML date, a date with time and offset, or the same as a string.
pub(super) fn date(item: &Item, cx: &mut Context) -> Option<Datetime> {
    const EXAMPLE: &str = "a date such as 2026-01-31, or a time with offset such as 2026-01-31T09:00:00+09:00";
    let parsed = item.as_datetime().or_else(|| item.as_text()?.parse().ok());
    let usable = parsed.filter(|when| when.date.is_some() && (when.time.is_none() || when.offset.is_some()));
    if usable.is_none() {
        cx.error(item.at, format!("{} is not a date", item.name()), format!("Write {EXAMPLE}"));
    }
    usable
}

/// Seconds since 1970 UTC of a value that [`date`] accepted (a date alone is its midnight UTC); never before 1970.
pub(super) fn unix_seconds(when: &Datetime) -> u64 {
    let days =
        when.date.map_or(0, |date| days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day)));
    let clock = when.time.map_or(0, |time| {
        i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0))
    });
    let offset = match when.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60,
        Some(Offset::Z) | None => 0,
    };
    u64::try_from(days * 86_400 + clock - offset).unwrap_or(0)
}

/// Days from 1970-01-01 in the Gregorian calendar (years from March, so that the leap day is a year's last).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// `YYYY-MM-DD`, in UTC, of seconds since 1970.
pub(crate) fn civil_date(unix: u64) -> String {
    // Days from 0000-03-01 (years from March, as above), in eras of 400 years.
    let days = i64::try_from(unix / 86_400).unwrap_or(0) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(with_unit("90s", &DURATION_UNITS), Some(90_000));
        assert_eq!(with_unit("10ms", &DURATION_UNITS), Some(10));
        assert_eq!(with_unit("30d", &DURATION_UNITS), Some(30 * 86_400_000));
        assert_eq!(with_unit("15 m", &DURATION_UNITS), Some(900_000));
        for bad in
            ["", "s", "-1s", "1.5h", "10", "1w", "99999999999999999999s", "18446744073709551615d", "1h30m", "５s"]
        {
            assert_eq!(with_unit(bad, &DURATION_UNITS), None, "{bad}");
        }
        assert_eq!(with_unit("16MiB", &SIZE_UNITS), Some(16 << 20));
    }

    #[test]
    fn status_sets() {
        assert_eq!(status_text("2xx"), Some(200..=299));
        assert_eq!(status_text("200-204"), Some(200..=204));
        assert_eq!(status_text("404"), Some(404..=404));
        for bad in ["", "xx", "-", "2x", "+2xx", "200-", "700xx"] {
            assert_eq!(status_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn civil_dates_and_back() {
        for day in (0..40_000).chain([2_932_896]) {
            let text = civil_date(day * 86_400 + 86_399);
            assert_eq!(unix_seconds(&text.parse().unwrap()), day * 86_400, "{text}");
        }
        assert_eq!(civil_date(951_782_400), "2000-02-29");
    }

    #[test]
    fn dates_become_unix_seconds() {
        let seconds = |text: &str| unix_seconds(&text.parse().unwrap());
        assert_eq!(seconds("1970-01-01"), 0);
        assert_eq!(seconds("2000-02-29"), 951_782_400);
        assert_eq!(seconds("2025-11-19T00:00:00+09:00"), 1_763_478_000);
        assert_eq!(seconds("2025-11-18T15:00:00Z"), 1_763_478_000);
        assert_eq!(seconds("1969-01-01"), 0);
    }
}
