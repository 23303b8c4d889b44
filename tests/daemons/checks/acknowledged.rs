//! I1: a file that was acknowledged can be read as long as at most one machine is lost, and after a
//! loss of power of all of them. Owns the list of what was acknowledged, and what was ever tried.

use p2pfs::id::FileHash;
use p2pfs::wire::control::Stored;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A file that was acknowledged.
pub(crate) struct Acknowledged {
    pub(crate) hash: FileHash,
    pub(crate) content: Arc<Vec<u8>>,
    pub(crate) replicas: u8,
    /// The only machine that had it then, when it was only one.
    only_at: Option<String>,
    /// Whether it was put where nobody removes it, at several machines: what is let go elsewhere
    /// does not end it.
    stays: bool,
    /// That machine's copy was taken away: nothing was promised.
    pub(crate) excused: bool,
}

/// Whether what is put there is put to be removed.
pub(crate) fn is_doomed(path: &str) -> bool {
    path.starts_with("/doomed")
}

/// What was put.
#[derive(Default)]
pub(crate) struct Ledger {
    files: BTreeMap<[u8; 32], Acknowledged>,
    /// Hashes that puts to each path tried, answered or not.
    tried: BTreeMap<String, BTreeSet<FileHash>>,
    /// Whether bytes on some disk were changed.
    pub(crate) rotted: bool,
    /// Machines whose disks are not to be relied on.
    untrusted: BTreeSet<String>,
    /// How often one was lost.
    pub(crate) losses: u64,
    /// Paths of which a put was acknowledged, each with the only machines that had one then; none
    /// stands for several machines. Without any, nothing is promised of the path.
    listed: BTreeMap<String, BTreeSet<Option<String>>>,
}

impl Ledger {
    /// A put begins.
    pub(crate) fn tried(&mut self, path: Option<&String>, content: &[u8]) {
        if let Some(path) = path {
            self.tried.entry(path.clone()).or_default().insert(hash_of(content));
        }
    }

    /// A put was acknowledged, by a machine whose clock is far `ahead` or not: what only that
    /// machine has the others refuse until then. Err: what was answered is not true.
    pub(crate) fn acknowledged(
        &mut self,
        path: Option<&String>,
        content: Arc<Vec<u8>>,
        stored: &Stored,
        ahead: bool,
    ) -> Result<(), String> {
        let hash = hash_of(&content);
        if stored.hash != hash || stored.size != content.len() as u64 {
            return Err(format!("a put was answered with {} for {hash}", stored.hash));
        }
        let only_at = match stored.holders.as_slice() {
            [one] if stored.copies <= 1 => Some(one.clone()),
            // Each chunk is at one machine, and not all at the same.
            [] if stored.copies <= 1 => Some(String::new()),
            _ => None,
        };
        let lies = |name: &String| match name.is_empty() {
            true => !self.untrusted.is_empty(),
            false => self.untrusted.contains(name),
        };
        let alone = |name: &String| ahead || lies(name);
        let stays = only_at.is_none() && !path.is_some_and(|path| is_doomed(path));
        let excused = only_at.as_ref().is_some_and(alone);
        if let Some(path) = path.filter(|_| !excused) {
            self.listed.entry(path.clone()).or_default().insert(only_at.clone());
        }
        let known = self.files.entry(hash.0).or_insert_with(|| Acknowledged {
            hash,
            content,
            replicas: stored.replicas,
            only_at: only_at.clone(),
            stays,
            excused,
        });
        known.stays |= stays;
        known.replicas = known.replicas.max(stored.replicas);
        if only_at.is_none() {
            (known.only_at, known.excused) = (None, false);
        }
        Ok(())
    }

    /// Nothing is promised of a path any more.
    pub(crate) fn unlist(&mut self, path: &str) {
        self.listed.remove(path);
    }

    /// Somebody lets the content go.
    pub(crate) fn let_go(&mut self, hash: &FileHash) {
        let file = self.files.get_mut(&hash.0).into_iter().filter(|file| !file.stays);
        file.for_each(|file| file.excused = true);
    }

    /// Whether the disk of a machine says the truth: it does not lie.
    pub(crate) fn trusts(&self, name: &str) -> bool {
        !self.untrusted.contains(name)
    }

    /// From now on a machine's disk says nothing.
    pub(crate) fn distrust(&mut self, name: &str) {
        self.untrusted.insert(name.to_owned());
    }

    /// A machine's copies are not to be relied on any more.
    pub(crate) fn lost_machine(&mut self, name: &str) {
        self.losses += 1;
        self.gone_machine(name);
    }

    /// A machine goes that was emptied before: what several had they still have.
    pub(crate) fn gone_machine(&mut self, name: &str) {
        for file in self.files.values_mut() {
            file.excused |= file.only_at.as_ref().is_some_and(|at| at.is_empty() || at == name);
        }
        for holders in self.listed.values_mut() {
            holders.remove(&Some(name.to_owned()));
            holders.remove(&Some(String::new()));
        }
    }

    /// Everything that was acknowledged, in order of the hashes.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Acknowledged> {
        self.files.values()
    }

    /// A file by its hash.
    pub(crate) fn file(&self, hash: &FileHash) -> Option<&Acknowledged> {
        self.files.get(&hash.0)
    }

    /// Whether some put to this path tried this content.
    pub(crate) fn was_tried(&self, path: &str, hash: &FileHash) -> bool {
        self.tried.get(path).is_some_and(|hashes| hashes.contains(hash))
    }

    /// Paths that must be listed.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &String> {
        self.listed.iter().filter(|(_, holders)| !holders.is_empty()).map(|(path, _)| path)
    }
}

/// What a file is called.
pub(crate) fn hash_of(content: &[u8]) -> FileHash {
    FileHash(blake3::hash(content).into())
}
