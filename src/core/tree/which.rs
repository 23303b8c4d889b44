//! How a version is called behind a name: `NAME@VERSION`. Owns that form; which version it is, the
//! history tells.
//!
//! ```text
//! VERSION = 1 to 7 decimal digits             the number that the history shows
//!         | 8 to 64 hex digits                how the hash of its content begins
//!         | YYYY-MM-DD, and after T or a blank HH:MM or HH:MM:SS; UTC, with or without Z
//!         | a number and s, min, h, d or w    so long ago
//! ```
//!
//! A time stands for its last moment: a date for the end of that day, so that what was made in the
//! course of it is meant.

/// Which version of a name is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// That of this number.
    Number(u64),
    /// That of which the hash begins with these digits, lower case.
    Hash(String),
    /// What stood there at the end of this millisecond since 1970.
    Moment(u64),
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

impl Which {
    /// Reads what stands behind the `@`; `now_ms` is the wall clock.
    pub fn parse(text: &str, now_ms: u64) -> Option<Self> {
        let decimal = text.bytes().all(|byte| byte.is_ascii_digit());
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text.len() {
            1..=7 if decimal => text.parse().ok().map(Self::Number),
            8..=64 if hex => Some(Self::Hash(text.to_ascii_lowercase())),
            2..=40 => ago(text, now_ms).or_else(|| moment(text)).map(Self::Moment),
            _ => None,
        }
    }
}

/// Divides `NAME@VERSION` at the last `@` of its last name; none: there is none, or nothing on one
/// side of it.
pub fn split(path: &[u8]) -> Option<(&[u8], &str)> {
    let at = path.iter().rposition(|byte| *byte == b'@')?;
    let (name, version) = (&path[..at], std::str::from_utf8(&path[at + 1..]).ok()?);
    let fits = !version.is_empty() && !version.contains('/') && !name.ends_with(b"/");
    (fits && !name.is_empty()).then_some((name, version))
}

/// `2h`: so long ago.
fn ago(text: &str, now_ms: u64) -> Option<u64> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit {
        "s" => SECOND,
        "m" | "min" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return None,
    };
    now_ms.checked_sub(number.parse::<u64>().ok()?.checked_mul(unit)?)
}

/// `2026-11-20` or `2026-11-20T14:00`: the last millisecond of that.
fn moment(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = parts(date, '-')?[..] else { return None };
    let days = days_until(year, month, day)?;
    let (begin, len) = match time.map(|time| parts(time, ':')) {
        None => (0, DAY),
        Some(time) => match time?[..] {
            [hour, minute] if hour < 24 && minute < 60 => (hour * HOUR + minute * MINUTE, MINUTE),
            [hour, minute, second] if hour < 24 && minute < 60 && second < 60 => {
                (hour * HOUR + minute * MINUTE + second * SECOND, SECOND)
            }
            _ => return None,
        },
    };
    Some(days * DAY + begin + len - 1)
}

/// Two digits each, but for the year's four.
fn parts(text: &str, between: char) -> Option<Vec<u64>> {
    let number = |part: &str| {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        if digits && matches!(part.len(), 2 | 4) { part.parse().ok() } else { None }
    };
    text.split(between).map(number).collect()
}

/// Days from 1970 to a date of the Gregorian calendar; none: there is no such day. Source: Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_until(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, in_era) = (year / 400, year % 400);
    let in_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year;
    Some(days - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_262_589_000;

    #[test]
    fn versions_are_read() {
        let hex = "3F9A1C77";
        for (text, which) in [
            ("7", Which::Number(7)),
            ("1234567", Which::Number(1_234_567)),
            ("20261120", Which::Hash("20261120".into())),
            (hex, Which::Hash("3f9a1c77".into())),
            ("2h", Which::Moment(NOW - 7_200_000)),
            ("90s", Which::Moment(NOW - 90_000)),
            ("1w", Which::Moment(NOW - 604_800_000)),
            ("1970-01-01", Which::Moment(86_399_999)),
            ("2026-11-21T12:03", Which::Moment(1_795_262_639_999)),
            ("2026-11-21 12:03:09Z", Which::Moment(1_795_262_589_999)),
            ("2000-02-29T23:59:59", Which::Moment(951_868_799_999)),
        ] {
            assert_eq!(Which::parse(text, NOW), Some(which), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        let long = "a".repeat(65);
        for text in [
            "",
            "x",
            "3f9a",
            "-1",
            "2026-02-29",
            "2026-13-01",
            "2026-11-31",
            "1969-12-31",
            "h",
            "2026-11-21T24:00",
            "2026-11-21T1:00",
            "2026-11-21T",
            "2026-11",
            "2y",
            "99999999999w",
            "yesterday",
            "2026-11-21TT12:00",
            "+2026-11-21",
            &long,
        ] {
            assert_eq!(Which::parse(text, NOW), None, "{text}");
        }
    }

    #[test]
    fn the_last_at_divides() {
        assert_eq!(split(b"/a@b@2"), Some((&b"/a@b"[..], "2")));
        for none in [&b"/a"[..], b"/@2", b"/a@", b"/a@2/b", b"/a@\xff"] {
            assert_eq!(split(none), None, "{none:?}");
        }
    }
}
