//! The dates of `Expires`, read as clients read them (RFC 6265 §5.1.1): any order, any separators, two-digit years.

/// Seconds since 1970 UTC of the date in `text`; `None` if it is none, which for a cookie means no `Expires` at all.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(|byte| is_delimiter(*byte)).filter(|token| !token.is_empty()) {
        if let (None, Some(found)) = (time, clock(token)) {
            time = Some(found);
        } else if let (None, Some(found)) = (day, number(token, 1, 2)) {
            day = Some(found);
        } else if let (None, Some(found)) = (month, month_of(token)) {
            month = Some(found);
        } else if let (None, Some(found)) = (year, number(token, 2, 4)) {
            year = Some(found);
        }
    }
    let ((hour, minute, second), day, month) = (time?, day?, month?);
    let year = match year? {
        short @ 70..=99 => short + 1900,
        short @ 0..=69 => short + 2000,
        full => full,
    };
    let fits = (1..=31).contains(&day) && year >= 1601 && hour <= 23 && minute <= 59 && second <= 59;
    fits.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e)
}

/// The number of at least `least` and at most `most` digits that `text` begins with; no digit follows it.
fn number(text: &[u8], least: usize, most: usize) -> Option<i64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let fits = (least..=most).contains(&digits);
    let value = |digits: &[u8]| digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    text.get(..digits).filter(|_| fits).map(value)
}

/// `hh:mm:ss`, whatever follows.
fn clock(text: &[u8]) -> Option<(i64, i64, i64)> {
    let mut parts = text.split(|byte| *byte == b':');
    let mut next = |last: bool| {
        let part = parts.next()?;
        number(part, 1, 2).filter(|_| last || part.len() <= 2)
    };
    Some((next(false)?, next(false)?, next(true)?))
}

fn month_of(text: &[u8]) -> Option<i64> {
    const NAMES: &[u8] = b"janfebmaraprmayjunjulaugsepoctnovdec";
    let start = text.first_chunk::<3>()?;
    let at = NAMES.chunks_exact(3).position(|name| name.eq_ignore_ascii_case(start))?;
    i64::try_from(at + 1).ok()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; years are counted from March, so that leap days end them.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_as_servers_write_them() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sun, 6-nov-1994 8:49:37 gmt",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
        assert_eq!(parse(b"Thu, 01-Jan-1970 00:00:10 GMT"), Some(10));
        assert_eq!(parse(b"Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(parse(b"Fri, 31 Dec 9999 23:59:59 GMT"), Some(253_402_300_799));
        for text in
            ["", "0", "-1", "Thu, 01 Jan 1970", "00:00:00 1 Jan", "Thu, 32 Jan 1970 00:00:00", "24:00:00 1 jan 1970"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&text);
        }

        #[test]
        fn days_run_on(days_on in 0i64..100_000) {
            // One day after another by the calendar's own rules.
            let (mut year, mut month, mut day) = (1970, 1, 1);
            let mut on = days_on % 3000;
            while on > 0 {
                let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
                let length = match month { 2 if leap => 29, 2 => 28, 4 | 6 | 9 | 11 => 30, _ => 31 };
                day += 1;
                if day > length { (month, day) = (month + 1, 1); }
                if month > 12 { (year, month) = (year + 1, 1); }
                on -= 1;
            }
            prop_assert_eq!(days(year, month, day), days_on % 3000);
        }
    }
}
