//! A program that edits files in a mount, and what may be there after the daemon has died under
//! it: what it has synced, and of what it did since then the old or the new, for each 16 bytes and
//! each name. Owns that book; who dies, and when, is the test's business.

use crate::machine::{Dice, is_full};
use rustix::fs::FallocateFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes that are sealed together, and torn apart by nothing.
const GRAIN: usize = 16;
/// Longest file, and longest write.
const FILE_MAX: u64 = 4 << 20;
const WRITE_MAX: u64 = 400 << 10;
/// The file that is edited in place, the one that is replaced, the one that is removed and made
/// again, and the one under which a replacement is written.
const EDITED: &str = "edited";
const SAVED: &str = "saved";
const OTHER: &str = "other";
const NEXT: &str = "saved.new";
/// A file that is always there.
pub(crate) const MARK: &str = "mark";

/// What a file is, and what it was since it was synced.
struct Text {
    now: Vec<u8>,
    sizes: BTreeSet<usize>,
    grains: BTreeMap<usize, Vec<Vec<u8>>>,
    synced: bool,
}

fn grain(bytes: &[u8], number: usize) -> &[u8] {
    let from = bytes.len().min(number * GRAIN);
    &bytes[from..bytes.len().min(from + GRAIN)]
}

impl Text {
    const fn new(now: Vec<u8>, synced: bool) -> Self {
        Self { now, sizes: BTreeSet::new(), grains: BTreeMap::new(), synced }
    }

    fn change(&mut self, next: Vec<u8>) {
        self.sizes.insert(self.now.len());
        for number in 0..self.now.len().div_ceil(GRAIN) {
            let old = grain(&self.now, number);
            if old != grain(&next, number) {
                self.grains.entry(number).or_default().push(old.to_vec());
            }
        }
        self.now = next;
    }

    fn sync(&mut self) {
        *self = Self::new(std::mem::take(&mut self.now), true);
    }

    /// Why it cannot be this, if so.
    fn wrong(&self, seen: &[u8]) -> Option<String> {
        if seen.len() != self.now.len() && !self.sizes.contains(&seen.len()) {
            let (len, now, sizes) = (seen.len(), self.now.len(), &self.sizes);
            return Some(format!("{len} bytes, not {now} or one of {sizes:?}"));
        }
        let is_wrong = |number: &usize| {
            let there = grain(seen, *number);
            let was = self.grains.get(number).into_iter().flatten().map(Vec::as_slice);
            let mut may = was.chain([grain(&self.now, *number)]);
            !may.any(|bytes| bytes.starts_with(there))
        };
        let number = (0..seen.len().div_ceil(GRAIN)).find(is_wrong)?;
        let (was, there) = (self.grains.get(&number), grain(seen, number));
        let now = grain(&self.now, number);
        Some(format!("at {} of {}: {there:?}, not {now:?} or {was:?}", number * 16, seen.len()))
    }
}

/// The program, between its lives.
pub(crate) struct Program {
    dir: PathBuf,
    dice: Dice,
    texts: Vec<Text>,
    /// What each name may lead to, the newest last.
    names: BTreeMap<String, Vec<Option<usize>>>,
    /// Its open file.
    open: Option<File>,
    dirs: usize,
    /// Syncs that were acknowledged.
    pub(crate) syncs: usize,
}

impl Program {
    /// One that works in an empty directory.
    pub(crate) fn new(dir: &Path, dice: Dice) -> Self {
        let dir = dir.to_owned();
        let (texts, names) = (Vec::new(), BTreeMap::new());
        Self { dir, dice, texts, names, open: None, dirs: 0, syncs: 0 }
    }

    /// Works until something fails. Nothing counts as acknowledged after `stop`, and nothing may
    /// fail before.
    pub(crate) fn run(&mut self, stop: &AtomicBool) {
        loop {
            if let Err(err) = self.step(stop) {
                assert!(stop.load(Ordering::SeqCst), "an edit failed: {err}");
                break;
            }
        }
        self.open = None;
    }

    fn step(&mut self, stop: &AtomicBool) -> io::Result<()> {
        match self.dice.below(100) {
            0..40 => self.write(EDITED, false),
            40..48 => self.write(EDITED, true),
            48..53 => self.truncate(),
            53..56 => self.punch(),
            56..72 => self.sync(EDITED, stop),
            72..77 => self.reopen(false),
            77..79 => self.reopen(true),
            // In the long form names go from file to file, too.
            79..89 if is_full() => self.save(stop),
            89..92 if is_full() => self.remove_or_make(stop),
            79..92 => self.sync(EDITED, stop),
            92..94 => self.make_dir(stop),
            _ => {
                let pause = [5, 50, 400][self.dice.below(3) as usize];
                std::thread::sleep(Duration::from_millis(self.dice.below(pause)));
                Ok(())
            }
        }
    }

    /// What a name leads to now.
    fn leads(&self, name: &str) -> Option<usize> {
        self.names.get(name).and_then(|all| all.last().copied().flatten())
    }

    fn lead(&mut self, name: &str, to: Option<usize>) {
        self.names.entry(name.to_owned()).or_insert_with(|| vec![None]).push(to);
    }

    /// The edited file, opened, and made if there is none.
    fn edited(&mut self) -> io::Result<&File> {
        if self.open.is_none() {
            self.open = Some(self.make(EDITED)?);
        }
        Ok(self.open.as_ref().unwrap())
    }

    fn make(&mut self, name: &str) -> io::Result<File> {
        if self.leads(name).is_none() {
            self.texts.push(Text::new(Vec::new(), false));
            self.lead(name, Some(self.texts.len() - 1));
        }
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.dir.join(name))
    }

    /// Writes into the edited file, or at the end of another one.
    fn write_to(&mut self, name: &str, file: &File, at: u64, len: u64) -> io::Result<()> {
        let bytes = crate::daemon::noise(self.dice.below(u64::MAX), len as usize);
        let text = &mut self.texts[self.names[name].last().unwrap().unwrap()];
        let mut next = text.now.clone();
        let (from, to) = (at as usize, (at + len) as usize);
        next.resize(next.len().max(to), 0);
        next[from..to].copy_from_slice(&bytes);
        text.change(next);
        file.write_all_at(&bytes, at)
    }

    /// Of any magnitude.
    fn len(&mut self, most: u64) -> u64 {
        let magnitude = self.dice.below(u64::from(u64::BITS - most.leading_zeros()));
        ((1 << magnitude) + self.dice.below(1 << magnitude)).min(most)
    }

    pub(crate) fn write_some(&mut self) {
        self.write(EDITED, false).unwrap();
    }

    fn write(&mut self, name: &str, append: bool) -> io::Result<()> {
        let file = self.edited()?.try_clone()?;
        let size = self.texts[self.leads(name).unwrap()].now.len() as u64;
        let at = if append { size } else { self.dice.below(FILE_MAX - WRITE_MAX) };
        if append && size > FILE_MAX - WRITE_MAX {
            return self.truncate();
        }
        let len = self.len(WRITE_MAX);
        self.write_to(name, &file, at, len)
    }

    fn truncate(&mut self) -> io::Result<()> {
        let file = self.edited()?.try_clone()?;
        let most = [FILE_MAX, 1 << 20, 1][self.dice.below(3) as usize];
        let size = self.dice.below(most);
        let text = &mut self.texts[self.names[EDITED].last().unwrap().unwrap()];
        let mut next = text.now.clone();
        next.resize(size as usize, 0);
        text.change(next);
        file.set_len(size)
    }

    /// Makes a hole, chunks or a part of one.
    fn punch(&mut self) -> io::Result<()> {
        let file = self.edited()?.try_clone()?;
        let (at, len) = (self.dice.below(FILE_MAX), self.len(FILE_MAX / 2));
        let text = &mut self.texts[self.names[EDITED].last().unwrap().unwrap()];
        let mut next = text.now.clone();
        let (from, to) = (at as usize, (at + len) as usize);
        let end = next.len();
        next[from.min(end)..to.min(end)].fill(0);
        text.change(next);
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&file, how, at, len)?)
    }

    fn sync(&mut self, name: &str, stop: &AtomicBool) -> io::Result<()> {
        let file = self.edited()?.try_clone()?;
        self.sync_file(name, &file, stop)
    }

    /// Syncs the edited file; whether that was acknowledged.
    pub(crate) fn sync_edited(&mut self) -> bool {
        self.sync(EDITED, &AtomicBool::new(false)).is_ok()
    }

    /// Closes the edited file.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    fn sync_file(&mut self, name: &str, file: &File, stop: &AtomicBool) -> io::Result<()> {
        let all = self.dice.below(2) == 0;
        if all { file.sync_all() } else { file.sync_data() }?;
        if !stop.load(Ordering::SeqCst) {
            let text = self.leads(name).unwrap();
            self.texts[text].sync();
            self.names.insert(name.to_owned(), vec![Some(text)]);
            self.syncs += 1;
        }
        Ok(())
    }

    /// Syncs the directory: of every name the newest counts.
    fn sync_dir(&mut self, stop: &AtomicBool) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()?;
        if !stop.load(Ordering::SeqCst) {
            let here = self.names.iter_mut().filter(|(name, _)| !name.contains('/'));
            here.for_each(|(_, all)| drop(all.drain(..all.len() - 1)));
            self.syncs += 1;
        }
        Ok(())
    }

    fn reopen(&mut self, empty: bool) -> io::Result<()> {
        self.open = None;
        if empty && let Some(text) = self.leads(EDITED) {
            self.texts[text].change(Vec::new());
            self.open = Some(File::create(self.dir.join(EDITED))?);
        }
        Ok(())
    }

    /// As an editor saves: a new file is written, synced, and takes the place of the old one.
    fn save(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let file = self.make(NEXT)?;
        let mut at = 0;
        for _ in 0..1 + self.dice.below(3) {
            let len = self.len(WRITE_MAX);
            self.write_to(NEXT, &file, at, len)?;
            at += len;
        }
        self.sync_file(NEXT, &file, stop)?;
        if self.dice.below(2) == 0 {
            drop(file);
        }
        let text = self.leads(NEXT);
        self.lead(SAVED, text);
        self.lead(NEXT, None);
        fs::rename(self.dir.join(NEXT), self.dir.join(SAVED))?;
        if self.dice.below(2) == 0 { self.sync_dir(stop) } else { Ok(()) }
    }

    fn remove_or_make(&mut self, stop: &AtomicBool) -> io::Result<()> {
        if self.leads(OTHER).is_some() && self.dice.below(2) == 0 {
            self.lead(OTHER, None);
            fs::remove_file(self.dir.join(OTHER))?;
        } else {
            let file = self.make(OTHER)?;
            let (at, len) = (self.dice.below(1 << 20), self.len(WRITE_MAX));
            self.write_to(OTHER, &file, at, len)?;
            if self.dice.below(2) == 0 {
                self.sync_file(OTHER, &file, stop)?;
            }
        }
        if self.dice.below(4) == 0 { self.sync_dir(stop) } else { Ok(()) }
    }

    /// A new directory with a file that is synced.
    fn make_dir(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let dir = format!("dir-{}", self.dirs);
        self.dirs += 1;
        fs::create_dir(self.dir.join(&dir))?;
        let name = format!("{dir}/file");
        let file = self.make(&name)?;
        let len = self.len(1 << 16);
        self.write_to(&name, &file, 0, len)?;
        self.sync_file(&name, &file, stop)
    }

    /// Looks at what is there, and says what cannot be; from now on that is what is there.
    pub(crate) fn check(&mut self, when: &str) -> BTreeMap<String, Vec<u8>> {
        let seen = everything(&self.dir);
        let mut wrong = Vec::new();
        let mut found: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        let all: BTreeSet<&str> = self.names.keys().chain(seen.keys()).map(|n| &**n).collect();
        for name in all {
            let there = seen.get(name);
            let may = self.names.get(name).map_or(&[None][..], |all| &all[..]);
            let is = |one: &&Option<usize>| match (one, there) {
                (Some(text), Some(bytes)) => self.texts[*text].wrong(bytes).is_none(),
                (one, bytes) => one.is_none() && bytes.is_none(),
            };
            match (may.iter().rev().find(is), there) {
                (Some(Some(text)), _) => found.entry(*text).or_default().push(name),
                (Some(None), _) => {}
                (None, None) => wrong.push(format!("{name} is not there")),
                (None, Some(bytes)) => {
                    let why = may.iter().flatten().filter_map(|t| self.texts[*t].wrong(bytes));
                    wrong.push(format!("{name}: {:?}", why.collect::<Vec<_>>()));
                }
            }
        }
        for (name, text) in self.names.keys().filter_map(|n| Some((n, self.leads(n)?))) {
            match found.get(&text) {
                None if self.texts[text].synced => wrong.push(format!("{name} was synced")),
                Some(names) if names.len() > 1 => wrong.push(format!("one file is {names:?}")),
                _ => {}
            }
        }
        assert!(wrong.is_empty(), "after {when}: {wrong:#?}");
        self.names.clear();
        self.texts.clear();
        for (name, bytes) in &seen {
            self.names.insert(name.clone(), vec![Some(self.texts.len())]);
            self.texts.push(Text::new(bytes.clone(), true));
        }
        seen
    }
}

/// Every file below a directory, but for the mark.
fn everything(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for name in crate::daemon::names(dir).into_iter().filter(|name| name != MARK) {
        let path = dir.join(&name);
        if path.is_dir() {
            let inside = everything(&path).into_iter();
            out.extend(inside.map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            out.insert(name, fs::read(path).unwrap());
        }
    }
    out
}
