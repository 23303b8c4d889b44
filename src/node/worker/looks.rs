//! How far looks at superseded versions have come. One look is bounded, so what a swarm has
//! superseded may take several of them. Owns where the next one begins; what is done with what it
//! finds is `release`'s.
//!
//! Invariant: what is passed over for good was seen by a look that began with the oldest of what
//! was left, at a time when everybody's turn had come.

use crate::core::tree::Ended;

/// The looks at what ended before a moving horizon.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Up to here nobody needs to look again.
    passed: Option<Ended>,
    /// Where a look ended that had found enough.
    left_off: Option<Ended>,
}

/// One look.
#[derive(Debug)]
pub(super) struct Look {
    /// Behind which it goes on.
    pub(super) after: Option<Ended>,
    from_oldest: bool,
}

impl Looks {
    /// Begins a look where the last one left off, or with the oldest of what is left.
    pub(super) fn begin(&mut self) -> Look {
        let left_off = self.left_off.take();
        Look { after: left_off.or(self.passed), from_oldest: left_off.is_none() }
    }

    /// Begins a look with the oldest of what is left that changes nothing for the others.
    pub(super) const fn aside(&self) -> Look {
        Look { after: self.passed, from_oldest: false }
    }

    /// Notes that something was looked at; `settled`: everybody's turn had come long before.
    pub(super) fn looked_at(&mut self, look: &Look, ended: Ended, settled: bool) {
        if look.from_oldest && settled {
            self.passed = Some(ended);
        }
    }

    /// Ends a look that had found enough; the next one goes on behind it.
    pub(super) fn leave_off(&mut self, look: Look) {
        self.left_off = look.after;
    }

    /// Whether a look found more than it could take.
    pub(super) const fn is_behind(&self) -> bool {
        self.left_off.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::catalogue::browse::ChangeAt;
    use crate::id::{InodeId, RecordId};

    fn ended(at: u64) -> Ended {
        let change = ChangeAt { clock: at, id: RecordId([0; 32]), change: 0 };
        Ended { ended: at, at: change, inode: InodeId([at as u8; 16]) }
    }

    /// A look at `0..all` that takes at most `most`, when everything below `settled` is; what it
    /// saw.
    fn look(looks: &mut Looks, all: u64, most: u64, settled: u64) -> Vec<u64> {
        let mut look = looks.begin();
        let from = look.after.map_or(0, |ended| ended.ended + 1);
        let seen: Vec<u64> = (from..all).take(most as usize).collect();
        for at in &seen {
            looks.looked_at(&look, ended(*at), *at < settled);
            look.after = Some(ended(*at));
        }
        if seen.len() as u64 == most {
            looks.leave_off(look);
        }
        seen
    }

    #[test]
    fn however_much_there_is_all_of_it_is_looked_at() {
        let mut looks = Looks::default();
        assert_eq!(look(&mut looks, 10, 4, 0), [0, 1, 2, 3]);
        assert_eq!(look(&mut looks, 10, 4, 0), [4, 5, 6, 7]);
        assert!(looks.is_behind());
        // Meanwhile turns have come: what was seen before that is seen once more.
        assert_eq!(look(&mut looks, 10, 4, 9), [8, 9]);
        assert!(!looks.is_behind());
        assert_eq!(look(&mut looks, 10, 4, 3), [0, 1, 2, 3]);
        assert_eq!(look(&mut looks, 10, 9, 9), [4, 5, 6, 7, 8, 9]);
        // What was settled when it was seen from the oldest on is not looked at again.
        assert_eq!(look(&mut looks, 10, 9, 9), [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(look(&mut looks, 12, 9, 12), [9, 10, 11]);
        assert!(look(&mut looks, 12, 9, 12).is_empty());
    }
}
