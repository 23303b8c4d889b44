//! Which former versions of a file go before the history time is over. Owns the rule; when somebody
//! acts on it, and that nobody does while a member is away, is decided elsewhere.
//!
//! The rule (DESIGN 8): after it was superseded a version is kept for an hour in any case, then for
//! a day as the last of the hour in which it was made, then as the last of its day; and of more
//! than a hundred versions the oldest go. Hours and days are those of UTC, so that all members have
//! the same in mind.
//!
//! A version goes only in favour of one that was made when it was superseded or later. Of versions
//! that were made at once, neither is the other's successor: what is dropped when a conflict ends
//! stays as long as if it had stood there alone.

use super::Version;
use crate::core::catalogue::past::Ended;
use crate::core::hlc;
use crate::id::RecordId;
use std::collections::BTreeSet;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// After how many milliseconds a superseded version may have become one that goes.
pub const AGES_MS: [u64; 2] = [HOUR_MS, DAY_MS];
/// Most versions that are kept of a file, those included that it shows now.
const VERSIONS_MAX: usize = 100;

/// What goes at the clock reading `now` of superseded versions; `heads` are those that are not.
pub(super) fn thinned(past: &[Ended], heads: &[Version], now: u64) -> BTreeSet<(RecordId, u16)> {
    let mut made: Vec<u64> = past.iter().map(|row| row.at.clock).collect();
    made.extend(heads.iter().map(|head| head.clock));
    made.sort_unstable();
    let is_old = |row: &&Ended| age(row, now) >= HOUR_MS;
    let goes = |row: &&Ended| {
        let span = if age(row, now) < DAY_MS { HOUR_MS } else { DAY_MS };
        let next = made.get(made.partition_point(|made| *made < row.ended));
        let last = hlc::ms_of(row.at.clock) / span;
        next.is_some_and(|next| hlc::ms_of(*next) / span == last)
    };
    let name = |row: &Ended| (row.at.id, row.at.change);
    let mut out: BTreeSet<_> = past.iter().filter(is_old).filter(goes).map(name).collect();
    let kept = made.len() - out.len();
    let mut oldest: Vec<&Ended> = past.iter().filter(is_old).collect();
    oldest.retain(|row| !out.contains(&name(row)));
    oldest.sort_unstable_by_key(|row| row.at);
    let over = kept.saturating_sub(VERSIONS_MAX);
    out.extend(oldest.into_iter().take(over).map(name));
    out
}

/// How long ago a version was superseded, in milliseconds.
fn age(row: &Ended, now: u64) -> u64 {
    hlc::ms_of(now).saturating_sub(hlc::ms_of(row.ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::catalogue::browse::ChangeAt;
    use crate::id::InodeId;

    /// Midnight.
    const START: u64 = 1_795_219_200_000;
    const MINUTE: u64 = 60_000;

    /// Versions that follow each other, made at these times; the last one is the newest.
    fn chain(times: &[u64]) -> Vec<Ended> {
        let clock = |ms: u64| hlc::at_ms(START + ms);
        let row = |(number, pair): (usize, &[u64])| {
            let id = RecordId([number as u8; 32]);
            let at = ChangeAt { clock: clock(pair[0]), id, change: 0 };
            Ended { inode: InodeId([0; 16]), at, ended: clock(pair[1]) }
        };
        times.windows(2).enumerate().map(row).collect()
    }

    /// The numbers of those that go.
    fn gone(past: &[Ended], newest: u64, now: u64) -> Vec<u8> {
        let mut last = past[0];
        (last.at.clock, last.at.id, last.ended) =
            (hlc::at_ms(START + newest), RecordId([255; 32]), u64::MAX);
        // The newest is here as one that was superseded long after: heads need whole versions.
        let all: Vec<Ended> = past.iter().copied().chain([last]).collect();
        thinned(&all, &[], hlc::at_ms(START + now)).into_iter().map(|(id, _)| id.0[0]).collect()
    }

    #[test]
    fn everything_is_kept_for_an_hour_then_one_version_an_hour_then_one_a_day() {
        let times = [5, 10, 50, 70, 75, 130].map(|minutes| minutes * MINUTE);
        let past = chain(&times);
        let at = |minutes: u64| gone(&past, 130 * MINUTE, minutes * MINUTE);
        assert!(at(69).is_empty(), "the first ended an hour ago only at 70");
        assert_eq!(at(70), [0]);
        assert_eq!(at(110), [0, 1]);
        // The last of an hour stays.
        assert_eq!(at(200), [0, 1, 3]);
        assert_eq!(at(1_000), [0, 1, 3]);
        // A day after they ended, only the last one of the day is left.
        assert_eq!(at(24 * 60 + 70), [0, 1, 2, 3]);
        assert_eq!(at(24 * 60 + 130), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_stood_there_for_long_stays_although_it_was_superseded_just_now() {
        let past = chain(&[10 * MINUTE, 20 * MINUTE, 3 * DAY_MS]);
        assert_eq!(gone(&past, 3 * DAY_MS, 3 * DAY_MS), [0]);
        assert_eq!(gone(&past, 3 * DAY_MS, 30 * DAY_MS), [0]);
    }

    #[test]
    fn a_version_that_lost_a_conflict_is_no_former_version_of_the_winner() {
        // Both at once; the conflict ended two hours later.
        let mut past = chain(&[5 * MINUTE, 125 * MINUTE]);
        past.extend(chain(&[10 * MINUTE, 125 * MINUTE]));
        past[1].at.id = RecordId([1; 32]);
        assert!(gone(&past, 125 * MINUTE, 20 * 60 * MINUTE).is_empty());
    }

    #[test]
    fn of_more_than_a_hundred_the_oldest_go() {
        let times: Vec<u64> = (0..=150).map(|day| day * DAY_MS).collect();
        let past = chain(&times);
        let newest = 150 * DAY_MS;
        assert_eq!(gone(&past, newest, newest + DAY_MS), (0..51).collect::<Vec<u8>>());
        // What ended within the hour does not count as old, however many there are.
        let times: Vec<u64> = (0..=150).map(|second| second * 1_000).collect();
        let past = chain(&times);
        assert!(gone(&past, 150_000, 200_000).is_empty());
    }
}
