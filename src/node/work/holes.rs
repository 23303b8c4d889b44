//! The chunks of an edited file that a program has made holes of: a set of numbers kept as runs.
//! Owns the arithmetic of runs; what a hole means is `body`'s.
//!
//! Invariant: no run is empty, and no two of them touch.

use std::collections::BTreeMap;
use std::ops::Range;

/// The set, as the first number of each run and what follows its last one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Holes(BTreeMap<u64, u64>);

impl Holes {
    /// The end of the run that a number is in.
    pub(super) fn end_of(&self, index: u64) -> Option<u64> {
        let (_, end) = self.0.range(..=index).next_back()?;
        (*end > index).then_some(*end)
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        self.end_of(index).is_some()
    }

    /// The first number from one on that is in the set.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        if self.contains(from) {
            return Some(from);
        }
        self.0.range(from..).next().map(|(first, _)| *first)
    }

    pub(super) fn add(&mut self, run: Range<u64>) {
        let Range { mut start, mut end } = run;
        if start >= end {
            return;
        }
        // What touches it becomes a part of it.
        while let Some((first, last)) = self.0.range(..=end).next_back().map(|(f, l)| (*f, *l))
            && last >= start
        {
            self.0.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.0.insert(start, end);
    }

    pub(super) fn remove(&mut self, run: Range<u64>) {
        while run.start < run.end
            && let Some((first, last)) = self.0.range(..run.end).next_back().map(|(f, l)| (*f, *l))
            && last > run.start
        {
            self.0.remove(&first);
            if last > run.end {
                self.0.insert(run.end, last);
            }
            if first < run.start {
                self.0.insert(first, run.start);
            }
        }
    }

    /// How many numbers below a bound are in the set.
    pub(super) fn count(&self, below: u64) -> u64 {
        self.runs(below).map(|(_, number)| number).sum()
    }

    /// The runs below a bound: the first number of each, and how many there are.
    pub(super) fn runs(&self, below: u64) -> impl Iterator<Item = (u64, u64)> {
        self.0.range(..below).map(move |(first, end)| (*first, (*end).min(below) - first))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_the_set_that_it_stands_for(
            steps in proptest::collection::vec((any::<bool>(), 0..40_u64, 0..12_u64), 0..40),
        ) {
            let (mut holes, mut model) = (Holes::default(), BTreeSet::new());
            for (adds, first, number) in steps {
                let run = first..first + number;
                if adds {
                    holes.add(run.clone());
                    model.extend(run);
                } else {
                    holes.remove(run.clone());
                    model.retain(|index| !run.contains(index));
                }
                let mut before = None;
                for (first, end) in &holes.0 {
                    prop_assert!(first < end && before.is_none_or(|before| before < *first));
                    before = Some(*end);
                }
                for index in 0..60 {
                    prop_assert_eq!(holes.contains(index), model.contains(&index));
                    let next = model.range(index..).next().copied();
                    prop_assert_eq!(holes.next(index), next);
                    let count = model.range(..index).count() as u64;
                    prop_assert_eq!(holes.count(index), count);
                }
            }
        }
    }
}
