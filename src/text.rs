//! How foreign names and plain quantities are written for people and read from them: the escaping
//! of every string that came from elsewhere, sizes, durations, ages and dates. Pure functions; who
//! prints the result, and where, is the caller's matter.
//!
//! Invariant: what [`shown`] returns contains no character that moves a cursor, reorders text or
//! is invisible, whatever went in.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Whether a character must not reach a terminal, log or page as it is: controls (C0, DEL, C1),
/// line separators, bidirectional controls, zero-width and other invisible characters.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A foreign string, with each unsafe character written as `\u{..}`.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Foreign bytes as text: [`shown`] where they are UTF-8, each other byte as `\xNN`.
pub fn shown_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        out.push_str(&shown(piece.valid()));
        for byte in piece.invalid() {
            write!(out, "\\x{byte:02x}").expect("a String takes all");
        }
    }
    out
}

/// A path or argument of this machine as text, like [`shown_bytes`].
pub fn shown_path(path: impl AsRef<OsStr>) -> String {
    shown_bytes(path.as_ref().as_bytes())
}

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes for people: binary units with one decimal, `1.2 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, rounded to nearest; a value that rounds up to 1024.0 takes the next unit.
    let mut unit = 0;
    let mut divisor = 1024_u128;
    loop {
        let tenths = (u128::from(bytes) * 10 + divisor / 2) / divisor;
        if tenths < 10_240 || unit + 1 == UNITS.len() {
            return format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]);
        }
        unit += 1;
        divisor *= 1024;
    }
}

/// Reads a number of bytes: `4096`, `10M`, `10MiB`, `10 GB`, `1.5g`. `K M G T P` and `KiB …` are
/// powers of 1024, `KB MB …` powers of 1000.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{}` is not a size, e.g. 500MB or 10GiB", shown(text));
    let (number, unit) = split_number(text).ok_or_else(wrong)?;
    let unit = unit.to_ascii_lowercase();
    let (letter, rest) = match unit.split_at_checked(1) {
        Some((letter, rest)) => (letter, rest),
        None => ("", ""),
    };
    let power = match letter {
        "" | "b" if rest.is_empty() => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let base: u64 = match rest {
        "" | "i" | "ib" => 1024,
        "b" => 1000,
        _ => return Err(wrong()),
    };
    scale(number, base.pow(power)).ok_or_else(|| format!("`{}` is too large", shown(text)))
}

/// The least limit of a rate in bytes per second.
const LEAST_RATE: u64 = 64 << 10;

/// Reads a limit in bytes per second: a size, with or without `/s`; `none` and `0` are no limit, 0.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let size = text.trim().strip_suffix("/s").unwrap_or(text).trim();
    if size == "none" || size == "0" {
        return Ok(0);
    }
    let wrong = |_| format!("`{}` is not a rate, e.g. 500KB/s, 5MiB/s or none", shown(text));
    match parse_size(size).map_err(wrong)? {
        rate if rate < LEAST_RATE => {
            let least = self::size(LEAST_RATE);
            Err(format!("`{}` is too slow: {least}/s is the least, or none", shown(text)))
        }
        rate => Ok(rate),
    }
}

/// Reads a span of time: `1500ms`, `30s`, `10min`, `1h`, `2d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{}` is not a duration, e.g. 30s, 10min or 1h", shown(text));
    let (number, unit) = split_number(text).ok_or_else(wrong)?;
    let millis = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" | "sec" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number.chars().all(|c| c == '0') => 0,
        "" => return Err(format!("`{text}` has no unit, e.g. {text}s or {text}min")),
        _ => return Err(wrong()),
    };
    let millis = scale(number, millis).ok_or_else(|| format!("`{}` is too long", shown(text)))?;
    Ok(Duration::from_millis(millis))
}

/// Splits `1.5 GB` into `1.5` and `GB`.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let good = number.starts_with(|c: char| c.is_ascii_digit())
        && number.split_once('.').is_none_or(|(_, part)| !part.contains('.'));
    good.then_some((number, unit.trim_start()))
}

/// `number` (decimal, at most nine places) times `unit`, exactly, rounded down.
fn scale(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if part.is_empty() {
        return Some(whole);
    }
    if part.len() > 9 {
        return None;
    }
    let tenth = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let part = u128::from(part.parse::<u64>().ok()?) * u128::from(unit) / tenth;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// A span of time in its largest fitting unit, for tables: `350 ms`, `12 s`, `3 min`, `5 h`, `3 d`.
pub fn span(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

/// How long a piece of work took: `4 ms`, `0.31 s`, `12.4 s`.
pub fn took(millis: u64) -> String {
    match millis {
        0..100 => format!("{} ms", millis.max(1)),
        100..10_000 => format!("{}.{:02} s", millis / 1_000, millis % 1_000 / 10),
        10_000..120_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => span(millis),
    }
}

/// A round-trip time given in microseconds: `0.4 ms`, `38 ms`.
pub fn rtt(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{} ms", micros / 1_000),
    }
}

/// A moment in UTC, given in milliseconds since 1970: `2026-11-21 12:03`.
pub fn utc(millis: u64) -> String {
    let minutes = millis / 60_000;
    let (year, month, day) = civil(minutes / 1_440);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

/// Days since 1970-01-01 as a date of the Gregorian calendar. Algorithm: Howard Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The system's reason in lower case, without its number: `permission denied`.
pub fn reason(err: &std::io::Error) -> String {
    let text = err.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_lowercase(),
        None => shown(&text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unsafe_passes() {
        for c in (0..=0x10ffff).filter_map(char::from_u32).filter(|&c| is_unsafe(c)) {
            let text = format!("a{c}b");
            let shown = shown(&text);
            assert!(!shown.contains(is_unsafe), "{shown}");
        }
        assert_eq!(shown("tab\there\u{202e}fdp.exe"), "tab\\u{9}here\\u{202e}fdp.exe");
        assert_eq!(shown("grün 名前 🦦"), "grün 名前 🦦");
        assert_eq!(shown_bytes(b"a\xff\x1bz"), "a\\xff\\u{1b}z");
    }

    #[test]
    fn sizes_are_written_and_read() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1_258_291, "1.2 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (text, bytes) in [
            ("7", 7),
            ("10M", 10 << 20),
            ("10MiB", 10 << 20),
            ("10MB", 10_000_000),
            ("10 GB", 10_000_000_000),
            ("10g", 10 << 30),
            (" 1.5 kib ", 1536),
            ("4KiB", 4096),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["ten", "", "-1", "10X", "10MiBs", "1.2.3M", "99999999999999999999", "20E"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_read() {
        for (text, rate) in
            [("none", 0), ("0", 0), ("5MiB/s", 5 << 20), (" 5 MB /s", 5_000_000), ("64KiB", 65_536)]
        {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["0.5", "1KiB/s", "65535"] {
            assert!(parse_rate(text).unwrap_err().contains("64.0 KiB/s is the least"), "{text}");
        }
        assert!(parse_rate("fast").unwrap_err().contains("is not a rate"));
        assert!(parse_rate("5MiB/min").is_err());
    }

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("1500ms", 1_500),
            ("30s", 30_000),
            ("10min", 600_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        assert!(parse_duration("30").unwrap_err().contains("30s"));
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00");
        assert_eq!(utc(1_795_262_589_000), "2026-11-21 12:03");
    }
}
