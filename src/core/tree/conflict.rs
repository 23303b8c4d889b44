//! Names of conflict copies. Owns their form; which versions are conflict copies is `list`'s rule.
//!
//! The form is `name.conflict-<author>-<time>`: the first eight hex digits of the author's id, and
//! the clock of the version as `YYYYMMDD-HHMMSS` in UTC. It depends on the losing change alone, so
//! every member sees the same name. The name before it is cut where the whole would be over 255
//! bytes.

use crate::core::catalogue::NAME_MAX;
use crate::core::hlc;
use crate::id::{NodeId, to_hex};

/// What stands between the name and the author.
pub(super) const MARK: &[u8] = b".conflict-";

/// The name under which a losing version is seen. `tell_apart` is added where two would be equal.
pub fn conflict_name(name: &[u8], author: &NodeId, clock: u64, tell_apart: &str) -> Vec<u8> {
    let mut suffix = MARK.to_vec();
    suffix.extend_from_slice(to_hex(&author.0[..4]).as_bytes());
    suffix.extend_from_slice(format!("-{}", utc(hlc::ms_of(clock))).as_bytes());
    suffix.extend_from_slice(tell_apart.as_bytes());
    let mut out = name[..cut(name, NAME_MAX - suffix.len())].to_vec();
    out.extend_from_slice(&suffix);
    out
}

/// The longest beginning of at most `max` bytes that splits no UTF-8 character.
fn cut(name: &[u8], max: usize) -> usize {
    let is_inside = |at: usize| name.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = name.len().min(max);
    // A name that is no UTF-8 may have any number of such bytes; it is cut anywhere then.
    (end.saturating_sub(3)..=end).rev().find(|at| !is_inside(*at)).unwrap_or(end)
}

/// A time in milliseconds since 1970 as `YYYYMMDD-HHMMSS`. Source of the calendar: Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, in_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, in_era) = (days / 146_097, days % 146_097);
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_right() {
        assert_eq!(utc(0), "19700101-000000");
        assert_eq!(utc(951_782_400_000), "20000229-000000");
        assert_eq!(utc(1_709_251_199_999), "20240229-235959");
        assert_eq!(utc(1_795_252_864_000), "20261121-092104");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let clock = hlc::at_ms(1_795_252_864_000);
        let name = conflict_name(b"a.txt", &NodeId([0xab; 32]), clock, "");
        assert_eq!(name, b"a.txt.conflict-abababab-20261121-092104");
        let long = conflict_name("é".repeat(127).as_bytes(), &NodeId([1; 32]), clock, "-00aa11bb");
        assert!(long.len() <= NAME_MAX);
        assert!(String::from_utf8(long).is_ok());
    }
}
