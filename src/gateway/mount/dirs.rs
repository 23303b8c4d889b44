//! Open directories. A directory is read in pages of names; owns where the next page begins, so
//! that what is made or removed meanwhile neither hides nor repeats anything else.

use crate::node::{Stat, Work, WorkError};

/// Names that are read at a time.
const PAGE: usize = 1024;
/// `.` and `..` come before all names.
const DOTS: u64 = 2;

/// An open directory.
#[derive(Default)]
pub(super) struct Listing {
    page: Vec<(Vec<u8>, Stat)>,
    /// The place of the first name of the page.
    first: u64,
    /// Behind which name the next page begins; none: this is the last one.
    next: Option<Vec<u8>>,
    begun: bool,
}

impl Listing {
    /// The entry at a place; none: there are no more.
    pub(super) fn at(
        &mut self,
        work: &Work,
        dir: u64,
        place: u64,
    ) -> Result<Option<(Vec<u8>, Stat)>, WorkError> {
        match place {
            0 => {
                // Whoever begins again wants to see what is there now.
                *self = Self::default();
                return Ok(Some((b".".to_vec(), work.stat(dir)?)));
            }
            1 => return Ok(Some((b"..".to_vec(), work.stat(work.parent(dir)?)?))),
            _ => {}
        }
        let index = place - DOTS;
        if !self.begun || index < self.first {
            *self = Self::default();
            self.read(work, dir, None)?;
        }
        while index >= self.first + self.page.len() as u64 {
            let Some(next) = self.next.take() else { return Ok(None) };
            self.first += self.page.len() as u64;
            self.read(work, dir, Some(&next))?;
        }
        Ok(self.page.get((index - self.first) as usize).cloned())
    }

    fn read(&mut self, work: &Work, dir: u64, after: Option<&[u8]>) -> Result<(), WorkError> {
        let page = work.list(dir, after, PAGE)?;
        (self.page, self.next, self.begun) = (page.entries, page.next, true);
        Ok(())
    }
}
