//! What fits a question about names, and in which order. Owns the rule; it reads nothing: whoever
//! asks gives it one candidate after the other and keeps the best.
//!
//! Rule: every word must be in the name, begin a tag, or be in the name of the owner; letters count
//! alike in upper and lower case. A word costs 0 where it is the whole name, 1 where the name
//! begins with it, 2 where a word of the name does, 3 elsewhere in the name, 4 in a tag, 5 in the
//! owner's name; a pattern costs 3. What costs least comes first, then the shorter name, then the
//! newer version, then by name. Without words the newest comes first.
//!
//! Invariant: memory is that of the results, however many candidates there are.

use crate::wire::control::{FileKind, Search};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Most words of a question.
const WORDS_MAX: usize = 16;
/// Longest word in bytes: no name is longer.
const WORD_MAX: usize = 255;
/// What each place of a word costs.
const WHOLE: u32 = 0;
const BEGINS: u32 = 1;
const BEGINS_WORD: u32 = 2;
const INSIDE: u32 = 3;
const IN_TAG: u32 = 4;
const IN_OWNER: u32 = 5;

/// Why a question cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadQuery {
    /// It says nothing of what is looked for.
    #[error("neither words nor filters")]
    Empty,
    /// It has too many words, or too long ones.
    #[error("too many words, or too long ones")]
    TooLong,
}

/// Bytes by which a candidate names its owner.
pub type Owner = [u8; 8];

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Query {
    words: Vec<Word>,
    kinds: Vec<FileKind>,
    endings: Vec<String>,
    sizes: Option<(u64, u64)>,
    made_ms: (u64, u64),
    owners: Option<Vec<Owner>>,
    tags: Vec<String>,
}

/// A word in lower case.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    /// The characters of a pattern.
    pattern: Option<Vec<char>>,
    /// The owners in whose names it is.
    owners: Vec<Owner>,
}

/// Something that may fit.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// When it was made: milliseconds since 1970.
    pub made_ms: u64,
    /// Who made it.
    pub owner: Owner,
    /// Its name.
    pub name: &'a [u8],
    /// Its tags with commas between.
    pub tags: &'a str,
}

/// How well something fits; the least is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// What its words cost.
    pub cost: u32,
    length: usize,
    made_ms: Reverse<u64>,
}

/// Memory that one question uses for all candidates.
#[derive(Debug, Default)]
pub struct Scratch {
    name: String,
    tags: String,
}

impl Query {
    /// Reads a question that is asked at `now_ms`. `members` are the owners that are known, with
    /// their names; `owners` those that are meant, if some are.
    pub fn parse(
        search: &Search,
        now_ms: u64,
        members: &[(Owner, String)],
        owners: Option<Vec<Owner>>,
    ) -> Result<Self, BadQuery> {
        let words: Vec<&str> = search.words.iter().flat_map(|w| w.split_whitespace()).collect();
        let too_long = |text: &str| text.len() > WORD_MAX;
        let endings = || search.endings.iter().map(String::as_str);
        if words.len().max(search.endings.len()).max(search.kinds.len()) > WORDS_MAX
            || search.tags.len() > WORDS_MAX
            || words.iter().copied().chain(endings()).any(too_long)
        {
            return Err(BadQuery::TooLong);
        }
        let query = Self {
            words: words.into_iter().map(|word| Word::new(word, members)).collect(),
            kinds: search.kinds.clone(),
            endings: endings().map(folded).collect(),
            sizes: (search.min.is_some() || search.max.is_some())
                .then(|| (search.min.unwrap_or(0), search.max.unwrap_or(u64::MAX))),
            made_ms: (
                search.newer_ms.map_or(0, |span| now_ms.saturating_sub(span)),
                search.older_ms.map_or(u64::MAX, |span| now_ms.saturating_sub(span)),
            ),
            owners,
            tags: search.tags.iter().map(|tag| folded(tag.as_str())).collect(),
        };
        if query.is_empty() { Err(BadQuery::Empty) } else { Ok(query) }
    }

    fn is_empty(&self) -> bool {
        self.words.is_empty()
            && self.kinds.is_empty()
            && self.endings.is_empty()
            && self.sizes.is_none()
            && self.made_ms == (0, u64::MAX)
            && self.owners.is_none()
            && self.tags.is_empty()
    }

    /// How well a candidate fits; none: it does not.
    pub fn rank(&self, one: &Candidate<'_>, scratch: &mut Scratch) -> Option<Rank> {
        let (newer, older) = self.made_ms;
        let of_size = |(min, max)| one.kind == FileKind::File && (min..=max).contains(&one.size);
        // It is of one of the types: of a kind, or with an ending, which is looked at below.
        let of_kind = self.kinds.contains(&one.kind);
        let of_type = of_kind || self.kinds.is_empty() || !self.endings.is_empty();
        let fits = of_type
            && self.sizes.is_none_or(of_size)
            && (newer..=older).contains(&one.made_ms)
            && self.owners.as_ref().is_none_or(|owners| owners.contains(&one.owner));
        if !fits {
            return None;
        }
        let Scratch { name, tags } = scratch;
        if !self.tags.is_empty() || (!one.tags.is_empty() && !self.words.is_empty()) {
            fold(one.tags.as_bytes(), tags);
        } else {
            tags.clear();
        }
        if !self.tags.iter().all(|tag| tags.split(',').any(|known| known == tag)) {
            return None;
        }
        fold(one.name, name);
        let has = |ending: &String| {
            name.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && end == ending)
        };
        if !of_kind && !self.endings.is_empty() && !self.endings.iter().any(has) {
            return None;
        }
        let mut cost = 0;
        for word in &self.words {
            cost += word.cost(name, tags, &one.owner)?;
        }
        let length = if self.words.is_empty() { 0 } else { one.name.len() };
        Some(Rank { cost, length, made_ms: Reverse(one.made_ms) })
    }
}

impl Word {
    fn new(text: &str, members: &[(Owner, String)]) -> Self {
        let text = folded(text);
        let pattern = text.contains(['*', '?']).then(|| text.chars().collect());
        let mut word = Self { text, pattern, owners: Vec::new() };
        for (owner, name) in members {
            if word.cost_in(&folded(name)).is_some() {
                word.owners.push(*owner);
            }
        }
        word
    }

    fn cost(&self, name: &str, tags: &str, owner: &Owner) -> Option<u32> {
        let in_tag = || {
            let fits = |tag: &str| match &self.pattern {
                Some(pattern) => matches(pattern, tag),
                None => tag.starts_with(&self.text),
            };
            !tags.is_empty() && tags.split(',').any(fits)
        };
        match self.cost_in(name) {
            Some(cost) => Some(cost),
            None if in_tag() => Some(IN_TAG),
            None if self.owners.contains(owner) => Some(IN_OWNER),
            None => None,
        }
    }

    /// What it costs in a name.
    fn cost_in(&self, name: &str) -> Option<u32> {
        if let Some(pattern) = &self.pattern {
            return matches(pattern, name).then_some(INSIDE);
        }
        let mut best = None;
        for at in places(name, &self.text) {
            let before = name[..at].chars().next_back();
            let cost = match before {
                None if name.len() == self.text.len() => return Some(WHOLE),
                None => return Some(BEGINS),
                Some(before) if !before.is_alphanumeric() => return Some(BEGINS_WORD),
                Some(_) => INSIDE,
            };
            best = Some(cost);
        }
        best
    }
}

/// The places of a word in a name. Names are short: looking for the first byte is fast, and needs
/// nothing prepared.
fn places<'a>(name: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let (bytes, first) = (name.as_bytes(), word.as_bytes().first().copied());
    let all = 0..(bytes.len() + 1).saturating_sub(word.len().max(1));
    all.filter(move |at| Some(bytes[*at]) == first && bytes[*at..].starts_with(word.as_bytes()))
}

/// Whether a text as a whole is what a pattern says: `*` stands for anything, `?` for a character.
fn matches(pattern: &[char], text: &str) -> bool {
    let (mut at, mut rest) = (0, text.chars());
    // Where to go on when the last `*` has to take one character more.
    let mut star = None;
    loop {
        let before = rest.clone();
        match (pattern.get(at), rest.next()) {
            (Some('*'), _) => {
                at += 1;
                star = Some((at, before.clone()));
                rest = before;
            }
            (Some(wanted), Some(c)) if *wanted == '?' || *wanted == c => at += 1,
            (None, None) => return true,
            _ => {
                let Some((after, mut taken)) = star.take() else { return false };
                if taken.next().is_none() {
                    return false;
                }
                (at, rest) = (after, taken.clone());
                star = Some((after, taken));
            }
        }
    }
}

/// A text in lower case; what is not text in it stands as one character that no word has.
fn fold(bytes: &[u8], out: &mut String) {
    out.clear();
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => {
            out.push_str(text);
            out.make_ascii_lowercase();
        }
        _ => {
            let text = String::from_utf8_lossy(bytes);
            out.extend(text.chars().flat_map(char::to_lowercase));
        }
    }
}

fn folded(text: &str) -> String {
    let mut out = String::new();
    fold(text.as_bytes(), &mut out);
    out
}

/// The best of many, of which it keeps no more than are wanted.
#[derive(Debug)]
pub struct Top<T> {
    most: usize,
    kept: BinaryHeap<(Rank, T)>,
}

impl<T: Ord> Top<T> {
    /// Keeps at most so many.
    pub fn new(most: usize) -> Self {
        Self { most, kept: BinaryHeap::new() }
    }

    /// Takes one, which `make` makes if it is among the best so far.
    pub fn offer(&mut self, rank: Rank, make: impl FnOnce() -> T) {
        if self.kept.len() < self.most {
            self.kept.push((rank, make()));
        } else if let Some(mut worst) = self.kept.peek_mut()
            && rank <= worst.0
        {
            let next = (rank, make());
            if next < *worst {
                *worst = next;
            }
        }
    }

    /// The best, in their order.
    pub fn into_sorted(self) -> Vec<(Rank, T)> {
        self.kept.into_sorted_vec()
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
