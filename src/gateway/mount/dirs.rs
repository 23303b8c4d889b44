//! Open directories. A directory is read in pages of names; owns where each page begins, so that
//! what is made or removed meanwhile neither hides nor repeats anything else.
//!
//! Invariant: a place stands for the same name as long as the system may not have used what it was
//! given there. It asks again for what a program had no room for, which may be several pages.

use crate::node::{Stat, Work, WorkError};
use std::collections::VecDeque;

/// Names that are read at a time; what nobody else knows of comes on top.
const PAGE: usize = 1024;
/// `.` and `..` come before all names.
const DOTS: u64 = 2;

/// A name in a directory and what it leads to.
type Name = (Vec<u8>, Stat);

/// An open directory.
#[derive(Default)]
pub(super) struct Listing {
    /// Where each page begins, as far as the directory was read.
    starts: Vec<Start>,
    /// Pages that the system may still ask for, with their numbers, ascending.
    pages: VecDeque<(usize, Vec<Name>)>,
}

/// Where a page begins.
#[derive(Default)]
struct Start {
    /// How many names were before it.
    first: u64,
    /// Behind which name; none: it is the first page.
    after: Option<Vec<u8>>,
}

impl Listing {
    /// The system asks for what is at this place: it has used, or given up, all that is before.
    pub(super) fn asked(&mut self, place: u64) {
        let number = self.page_of(place.saturating_sub(DOTS));
        while self.pages.front().is_some_and(|(first, _)| *first < number) {
            self.pages.pop_front();
        }
    }

    /// The entry at a place, or the next one behind it, and its place; none: there are no more.
    pub(super) fn at(
        &mut self,
        work: &Work,
        dir: u64,
        place: u64,
    ) -> Result<Option<(u64, Name)>, WorkError> {
        let index = match place {
            0 => {
                // Whoever begins again wants to see what is there now.
                *self = Self::default();
                return Ok(Some((place, (b".".to_vec(), work.stat(dir)?))));
            }
            1 => return Ok(Some((place, (b"..".to_vec(), work.stat(work.parent(dir)?)?)))),
            _ => place - DOTS,
        };
        if self.starts.is_empty() {
            self.starts.push(Start::default());
        }
        let mut number = self.page_of(index);
        while number < self.starts.len() {
            let first = self.starts[number].first;
            // Names that were removed before the page was read once more leave places empty.
            let within = index.saturating_sub(first);
            if let Some(found) = self.page(work, dir, number)?.get(within as usize) {
                return Ok(Some((first + within + DOTS, found.clone())));
            }
            number += 1;
        }
        Ok(None)
    }

    /// The page in which so many names are before one.
    fn page_of(&self, index: u64) -> usize {
        self.starts.partition_point(|start| start.first <= index).saturating_sub(1)
    }

    fn page(&mut self, work: &Work, dir: u64, number: usize) -> Result<&[Name], WorkError> {
        let at = self.pages.partition_point(|(known, _)| *known < number);
        if self.pages.get(at).is_none_or(|(known, _)| *known != number) {
            let page = self.read(work, dir, number)?;
            self.pages.insert(at, (number, page));
        }
        Ok(&self.pages[at].1)
    }

    /// Reads a page of which the begin is known.
    fn read(&mut self, work: &Work, dir: u64, number: usize) -> Result<Vec<Name>, WorkError> {
        let Start { first, after } = &self.starts[number];
        let mut page = work.list(dir, after.as_deref(), PAGE)?;
        match (self.starts.get(number + 1), page.next) {
            // What has moved up since is in the next page, and what was made has no place.
            (Some(next), _) => {
                page.entries.retain(|(name, _)| next.after.as_ref().is_some_and(|end| name <= end));
                page.entries.truncate((next.first - first) as usize);
            }
            (None, Some(after)) => {
                let first = first + page.entries.len() as u64;
                self.starts.push(Start { first, after: Some(after) });
            }
            (None, None) => {}
        }
        Ok(page.entries)
    }
}
