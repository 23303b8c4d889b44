//! What is asked about files: get, ls, stat. Owns the way from what a person typed to a file
//! record.

use super::history::Former;
use super::{Error, Outcome};
use crate::core::catalogue::{self, Node as TreeNode, entry_tag};
use crate::core::limits;
use crate::core::tree::{Entry, Found, Made, Share, Tree, TreeError, Walk, share_spot};
use crate::crypto::EpochKeys;
use crate::id::{FileHash, InodeId};
use crate::node::from::Whom;
use crate::node::get::{GetError, OpenFile, Reading};
use crate::node::records::{FoundRecord, Snapshot, records_of};
use crate::node::{NotReady, OnProgress, Shared};
use crate::sys::Sink;
use crate::wire::control::{
    Candidate, Fetched, FileInfo, FileKind, FileStat, Get, PathText, PeerState, Range, Target,
};
use crate::wire::link::Link;
use crate::wire::message::Find;
use std::sync::Arc;
use std::time::Duration;

/// How long a command waits for a node that is just reading its swarm's catalogue.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// Entries of a list that are read at once.
const LIST_PAGE: usize = 1024;

/// What is found by a target: its hash, and its entry when the tree has it.
type FoundFile = Option<(FileHash, Option<Entry>)>;
/// The same of a former version, and the name that it had.
type FoundFormer = (FoundFile, Option<PathText>);

/// A file that a person meant.
struct Meant {
    hash: FileHash,
    /// The name of a former version.
    former: Option<PathText>,
    entry: Option<Entry>,
    /// What it is at somebody who serves it in place.
    share: Option<Share>,
    records: Vec<FoundRecord>,
}

impl Meant {
    /// The permission bits of the file.
    fn mode(&self) -> Option<u32> {
        let named = self.entry.as_ref().map(|entry| &entry.version.attributes);
        let attributes = named.or(self.share.as_ref().map(|share| &share.attributes));
        attributes.map(|attributes| attributes.mode)
    }
}

/// What is not known here of something that was meant.
enum Unknown {
    /// A name in a directory.
    Name(InodeId, Vec<u8>),
    /// What a file is made of.
    Content(FileHash),
}

fn lookups(keys: &[&EpochKeys], hash: &FileHash) -> Vec<Find> {
    keys.iter().map(|keys| Find::Lookup(keys.lookup(hash))).collect()
}

impl Shared {
    /// The keys that seal new data. A node that has just started gets a moment to read them.
    pub(in crate::node) async fn wait_for_keys(&self) -> Result<Arc<EpochKeys>, NotReady> {
        let mut changes = self.records_changed.subscribe();
        let deadline = tokio::time::sleep(READY_PATIENCE);
        tokio::pin!(deadline);
        loop {
            match self.keys() {
                Err(NotReady::NoEpoch) => {}
                ready => return ready,
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() {
                    return Err(NotReady::NoEpoch);
                },
                () = &mut deadline => return Err(NotReady::NoEpoch),
            }
        }
    }

    pub(super) async fn get(
        self: &Arc<Self>,
        get: Get,
        sink: Arc<dyn Sink>,
        progress: OnProgress,
    ) -> Outcome<Fetched> {
        let began = self.sys.clock.now();
        self.wait_for_keys().await?;
        let whom = match &get.from {
            Some(peer) => self.peer_meant(peer)?,
            None => Whom::Anybody,
        };
        let mut meant = self.meant(&get.target).await?;
        let mode = meant.mode();
        let mut file = self.open_file_of(meant.hash, &mut meant.records, whom).await?;
        let mut reading = Reading::of(span(get.range, file.manifest.length));
        while let Err(err) = self.read_range(&file, &mut reading, &sink, &progress).await {
            // Another author's record may name other chunks: every manifest is proved against the
            // same hash, so what has come already is what it would have given.
            let next = match err {
                GetError::Corrupt(_) | GetError::Unavailable(_) | GetError::NotFrom(_) => {
                    self.open_file_of(meant.hash, &mut meant.records, whom).await.ok()
                }
                _ => None,
            };
            let Some(next) = next else { return Err(self.counted(err, &file).await.into()) };
            let range = span(get.range, next.manifest.length);
            if range.start != reading.range.start {
                return Err(err.into());
            }
            (file, reading.range) = (next, range);
        }
        let Reading { range, origins, .. } = reading;
        let (size, bytes) = (file.manifest.length, range.end - range.start);
        self.job(move || sink.finish(bytes)).await?.map_err(GetError::Write)?;
        let view = self.view();
        Ok(Fetched {
            hash: meant.hash,
            bytes,
            size,
            remote_bytes: origins.remote_bytes,
            from: origins.from.iter().map(|id| view.name(id)).collect(),
            mode,
            took_ms: millis(self.sys.clock.now().since(began)),
        })
    }

    /// The file that was meant, with every record that may lead to its content.
    async fn meant(self: &Arc<Self>, target: &Target) -> Outcome<Meant> {
        if let Target::Link(link) = target {
            self.follow(link).await?;
        }
        let (mut questions, mut asked, mut unreachable) = (Vec::new(), 0, 0);
        loop {
            if let Some(meant) = self.whole(|| self.meant_here(target)).await? {
                return Ok(meant);
            }
            // What has come may lead a name further, or to a content of which no record has come.
            let further = self.questions(target)?;
            if further == questions {
                return Err(Error::NotFound { asked, unreachable });
            }
            (asked, unreachable) = self.ask_all(&further).await;
            questions = further;
        }
    }

    fn meant_here(&self, target: &Target) -> Outcome<Option<Meant>> {
        let keyring = self.catalogue.keyring();
        if let Some(share) = self.meant_in_place(target)? {
            let hash = share.file.version.hash;
            let records = self.read_records(|view| records_of(view, &keyring, &hash))?;
            let (former, entry, share) = (None, None, Some(share));
            let meant = Meant { hash, former, entry, share, records };
            return Ok(Some(meant).filter(|meant| !meant.records.is_empty()));
        }
        let mut found = Ok((None, None));
        self.read_records(|view| {
            let tree = Tree::new(view, &keyring);
            found = match (find_target(&tree, target), target) {
                (Ok(None), Target::Path(path)) => self.find_former(&tree, path),
                (found, _) => found.map(|found| (found, None)),
            };
            Ok(())
        })?;
        let (found, former) = found?;
        let (hash, entry) = match (found, target) {
            (Some(found), _) => found,
            (None, Target::Hash(hash) | Target::Link(Link { hash, .. })) => (*hash, None),
            (None, _) => return Ok(None),
        };
        let mut records = self.read_records(|view| records_of(view, &keyring, &hash))?;
        if records.is_empty()
            && let Some(Entry { version, .. }) = &entry
            && let TreeNode::File(file) = &version.node
        {
            // Its claim was released by somebody who did not know this name: it gets another one.
            records.extend(self.record_of(file)?);
        }
        if records.is_empty() {
            return Ok(None);
        }
        Ok(Some(Meant { hash, former, entry, share: None, records }))
    }

    /// What is meant of the files that are served in place: what its sharer calls so, or what a
    /// hash begins with that no file in the tree has.
    fn meant_in_place(&self, target: &Target) -> Outcome<Option<Share>> {
        let digits = match target {
            Target::Share { peer, path } => {
                let sharer = self.member(peer)?;
                return Ok(self.with_tree(|tree| Ok(tree.share(&sharer, &path.0)?))?);
            }
            Target::Path(_) => return Ok(None),
            Target::Hash(hash) | Target::Link(Link { hash, .. }) => hash.to_string(),
            Target::Prefix(digits) => digits.clone(),
        };
        let (listed, mut shares) =
            self.with_tree(|tree| Ok((tree.find(&digits)?, tree.find_shares(&digits)?)))?;
        let of = |share: &Share| share.file.version.hash;
        shares.retain(|share| listed.iter().all(|found| found.hash != of(share)));
        // Of several who share it the first one's name will do.
        shares.sort_by_key(of);
        shares.dedup_by_key(|share| of(share));
        match shares.len() + listed.len() {
            _ if shares.is_empty() => Ok(None),
            1 => Ok(shares.pop()),
            _ => {
                let mut found: Vec<_> = listed.iter().map(|found| (found.hash, None)).collect();
                found.extend(shares.into_iter().map(|s| (of(&s), Some(PathText(s.file.path)))));
                Err(Error::Ambiguous { found })
            }
        }
    }

    /// A former version of a file, and the name that it had.
    fn find_former(&self, tree: &Tree<'_>, path: &PathText) -> Outcome<FoundFormer> {
        let Some(Former { path, made }) = self.former(tree, path)? else {
            return Ok((None, None));
        };
        match &made.version.node {
            TreeNode::File(file) => {
                let hash = file.hash;
                Ok((Some((hash, Some(entry_of_former(made)))), Some(path)))
            }
            TreeNode::Dir { .. } => Err(TreeError::IsADirectory.into()),
            TreeNode::Link(_) => Err(TreeError::IsALink.into()),
            TreeNode::Special(_) | TreeNode::Shared(_) => Err(TreeError::IsSpecial.into()),
        }
    }

    /// What is read from the catalogue, once more if records turned out to be damaged here and had
    /// to be fetched: without them an older version would be taken for the newest.
    pub(super) async fn whole<T>(self: &Arc<Self>, read: impl Fn() -> Outcome<T>) -> Outcome<T> {
        let first = read();
        if self.damaged.count() == 0 {
            return first;
        }
        drop(first);
        self.mend_records(limits::HEDGE_MAX).await;
        read()
    }

    /// What to ask the other members about something that is unknown here.
    fn questions(&self, target: &Target) -> Outcome<Vec<Find>> {
        let keyring = self.catalogue.keyring();
        let keys: Vec<&EpochKeys> = keyring.iter().collect();
        Ok(match target {
            Target::Hash(hash) | Target::Link(Link { hash, .. }) => lookups(&keys, hash),
            Target::Prefix(digits) => {
                let first = digits.get(..8).and_then(|d| crate::id::from_hex(d).ok());
                let first = first.ok_or(TreeError::BadPath)?;
                keys.iter().map(|k| Find::Prefix(k.prefix(&first))).collect()
            }
            Target::Share { peer, path } => {
                let sharer = self.member(peer)?;
                let said = self.with_tree(|tree| Ok(tree.share(&sharer, &path.0)?))?;
                match (said, share_spot(&sharer, &path.0)) {
                    (Some(share), _) => lookups(&keys, &share.file.version.hash),
                    (None, Some((parent, name))) => {
                        let tag =
                            |k: &&EpochKeys| Find::Tag(entry_tag(k, &parent, name.as_bytes()));
                        keys.iter().map(tag).collect()
                    }
                    (None, None) => return Err(TreeError::BadPath.into()),
                }
            }
            Target::Path(path) => match self.first_unknown(path)? {
                Unknown::Name(parent, name) => {
                    keys.iter().map(|k| Find::Tag(entry_tag(k, &parent, &name))).collect()
                }
                Unknown::Content(hash) => lookups(&keys, &hash),
            },
        })
    }

    /// What is not known here of a path that leads to no content.
    fn first_unknown(&self, path: &PathText) -> Outcome<Unknown> {
        Ok(self.with_tree(|tree| {
            let mut at = InodeId::ROOT;
            for name in path.0.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
                let Some(entry) = tree.lookup(&at, name)? else {
                    return Ok(Unknown::Name(at, name.to_vec()));
                };
                match entry.version.node {
                    TreeNode::Dir { .. } => at = entry.inode,
                    TreeNode::File(file) => return Ok(Unknown::Content(file.hash)),
                    TreeNode::Link(_) => return Err(TreeError::IsALink),
                    TreeNode::Special(_) | TreeNode::Shared(_) => {
                        return Err(TreeError::IsSpecial);
                    }
                }
            }
            Err(TreeError::IsADirectory)
        })?)
    }

    /// Asks all live members; how many answered and how many members could not be asked.
    async fn ask_all(self: &Arc<Self>, questions: &[Find]) -> (usize, usize) {
        let view = self.view();
        let mut asking = tokio::task::JoinSet::new();
        for member in view.others() {
            let (shared, id) = (self.clone(), member.record.id);
            let questions = questions.to_vec();
            asking.spawn(async move {
                for find in questions {
                    let push = shared.ask_find(id, &find).await.ok()?;
                    shared.take_records(id, push.records).await.ok()?;
                }
                Some(())
            });
        }
        let (mut asked, mut silent) = (0, 0);
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok(Some(())) => asked += 1,
                _ => silent += 1,
            }
        }
        let dead = view.members.values().filter(|m| m.state == PeerState::Dead).count();
        (asked, silent + dead)
    }

    pub(super) fn ls(
        &self,
        path: &PathText,
        recursive: bool,
        visit: &mut dyn FnMut(FileInfo) -> bool,
    ) -> Outcome<()> {
        // Without keys every name is sealed: an empty list would be a lie.
        self.keys()?;
        let keyring = self.catalogue.keyring();
        let mut walk = None;
        loop {
            let mut page = Ok((Vec::new(), false));
            self.read_records(|view| {
                let tree = Tree::new(view, &keyring);
                page = self.ls_page(view, &tree, path, recursive, &mut walk);
                Ok(())
            })?;
            let (files, more) = page?;
            // The tables are not held meanwhile: whoever reads the list may take hours, and for as
            // long as they are, nothing of them can be used again.
            if !files.into_iter().all(&mut *visit) || !more {
                return Ok(());
            }
        }
    }

    /// What comes next in a list, and whether there may be more.
    fn ls_page(
        &self,
        view: &Snapshot<'_>,
        tree: &Tree<'_>,
        path: &PathText,
        recursive: bool,
        walk: &mut Option<Walk>,
    ) -> Outcome<(Vec<FileInfo>, bool)> {
        if walk.is_none() {
            let top = tree.resolve(&path.0)?;
            if !top.is_dir() {
                return Ok((vec![self.file_info(view, path.clone(), &top)], false));
            }
            *walk = Some(Walk::new(top.inode, &path.0, recursive));
        }
        let mut files = Vec::new();
        let Some(walk) = walk else { return Ok((files, false)) };
        let more = tree.walk(walk, &mut |path, entry| {
            files.push(self.file_info(view, PathText(path.to_vec()), entry));
            files.len() < LIST_PAGE
        })?;
        Ok((files, more))
    }

    pub(super) fn file_info(&self, view: &Snapshot<'_>, path: PathText, entry: &Entry) -> FileInfo {
        let version = &entry.version;
        let mut info = FileInfo {
            path,
            kind: FileKind::Dir,
            hash: None,
            size: 0,
            time_ms: crate::core::hlc::ms_of(version.clock),
            by: self.view().name(&version.author),
            replicas: 0,
            copies: None,
            mode: Some(version.attributes.mode),
            mtime_ns: Some(version.attributes.mtime_ns),
            target: None,
            conflict: entry.conflict,
            tags: version.attributes.tags(),
        };
        match &version.node {
            TreeNode::Dir { .. } => {}
            TreeNode::Special(_) | TreeNode::Shared(_) => info.kind = FileKind::Special,
            TreeNode::Link(target) => {
                info.kind = FileKind::Link;
                info.size = target.len() as u64;
                info.target = Some(PathText(target.clone()));
            }
            TreeNode::File(file) => {
                info.kind = FileKind::File;
                info.hash = Some(file.hash);
                info.size = file.size;
                let replicas = file
                    .record
                    .and_then(|id| catalogue::replicas_of(view, &file.claim, &id).ok().flatten());
                info.replicas = replicas.unwrap_or(self.config.replicas);
                info.copies = if file.size == 0 {
                    Some(self.copies_of_records(info.replicas))
                } else {
                    self.copies_of(&file.claim)
                };
            }
        }
        info
    }

    /// How many copies a file without chunks has: its records are at every member.
    pub(super) fn copies_of_records(&self, replicas: u8) -> u8 {
        let members = 1 + self.view().others().count();
        replicas.min(u8::try_from(members).unwrap_or(u8::MAX))
    }

    pub(super) async fn stat(self: &Arc<Self>, target: &Target) -> Outcome<FileStat> {
        self.wait_for_keys().await?;
        if let Some(stat) = self.whole(|| self.stat_other(target)).await? {
            return Ok(stat);
        }
        let mut meant = self.meant(target).await?;
        let mut info = self.info_of(&meant)?;
        let listed = meant.entry.is_some() || meant.share.is_some();
        let former = meant.entry.is_some() && self.is_superseded(&info)?;
        let file = self.open_file(meant.hash, &mut meant.records).await?;
        info.size = file.manifest.length;
        if !listed {
            info.replicas = file.record.replicas;
        }
        let survey = self.survey(&file).await?;
        info.copies = survey.fewest.or_else(|| Some(self.copies_of_records(info.replicas)));
        if info.replicas == 0 {
            info.copies = None;
        }
        let chunks = crate::chunk::chunk_count(file.manifest.length);
        Ok(FileStat {
            info,
            listed,
            former,
            chunks,
            zero_chunks: survey.zero_chunks,
            stored_bytes: survey.stored_bytes,
            holders: self.holder_infos(&survey),
        })
    }

    /// What is said of a directory or a link.
    fn stat_other(&self, target: &Target) -> Outcome<Option<FileStat>> {
        let Target::Path(path) = target else { return Ok(None) };
        let keyring = self.catalogue.keyring();
        let found = self.read_records(|view| {
            let tree = Tree::new(view, &keyring);
            let entry = match tree.resolve(&path.0) {
                Ok(entry) => Some((path.clone(), entry)),
                // Why there is no such version is said when it is looked for as a file.
                Err(TreeError::NotFound) => self.former(&tree, path).ok().flatten().map(|former| {
                    let Former { path, made } = former;
                    (path, entry_of_former(made))
                }),
                Err(_) => None,
            };
            let other = entry.filter(|(_, entry)| !matches!(entry.version.node, TreeNode::File(_)));
            Ok(other.map(|(at, entry)| (at != *path, self.file_info(view, at, &entry))))
        })?;
        Ok(found.map(|(former, info)| FileStat {
            info,
            listed: true,
            former,
            chunks: 0,
            zero_chunks: 0,
            stored_bytes: 0,
            holders: Vec::new(),
        }))
    }

    /// Opens the file that a person meant.
    pub(super) async fn opened(self: &Arc<Self>, target: &Target) -> Outcome<OpenFile> {
        self.opened_with_hash(target).await.map(|(_, file)| file)
    }

    /// The same, and its hash.
    pub(super) async fn opened_with_hash(
        self: &Arc<Self>,
        target: &Target,
    ) -> Outcome<(FileHash, OpenFile)> {
        self.wait_for_keys().await?;
        let mut meant = self.meant(target).await?;
        Ok((meant.hash, self.open_file(meant.hash, &mut meant.records).await?))
    }

    fn info_of(&self, meant: &Meant) -> Outcome<FileInfo> {
        let unlisted = FileInfo {
            path: PathText(b"/".to_vec()),
            kind: FileKind::File,
            hash: Some(meant.hash),
            size: 0,
            time_ms: 0,
            by: String::new(),
            replicas: 0,
            copies: None,
            mode: None,
            mtime_ns: None,
            target: None,
            conflict: false,
            tags: Vec::new(),
        };
        if let Some(share) = &meant.share {
            return Ok(FileInfo {
                path: PathText(share.file.path.clone()),
                time_ms: u64::try_from(share.attributes.mtime_ns / 1_000_000).unwrap_or(0),
                by: self.view().name(&share.sharer),
                mode: Some(share.attributes.mode),
                mtime_ns: Some(share.attributes.mtime_ns),
                ..unlisted
            });
        }
        let Some(entry) = &meant.entry else { return Ok(unlisted) };
        let keyring = self.catalogue.keyring();
        Ok(self.read_records(|view| {
            let path = match &meant.former {
                Some(path) => Some(path.0.clone()),
                None => Tree::new(view, &keyring).paths_of(&entry.inode, 1)?.into_iter().next(),
            };
            let path = path.unwrap_or_else(|| b"/".to_vec());
            Ok(self.file_info(view, PathText(path), entry))
        })?)
    }

    /// Whether the path shows another content than this one now.
    fn is_superseded(&self, info: &FileInfo) -> Outcome<bool> {
        let keyring = self.catalogue.keyring();
        Ok(self.read_records(|view| {
            let now = Tree::new(view, &keyring).resolve(&info.path.0);
            Ok(match now.map(|entry| entry.version.node) {
                Ok(TreeNode::File(file)) => Some(file.hash) != info.hash,
                _ => true,
            })
        })?)
    }

    pub(super) fn complete_files(&self, prefix: &str, most: usize) -> Vec<Candidate> {
        let mut out = Vec::new();
        let by_path = prefix.starts_with('/');
        // Of names one directory is completed at a time, as by a shell.
        let (dir, _) = prefix.rsplit_once('/').unwrap_or_default();
        let dir = if dir.is_empty() { "/" } else { dir };
        let visited = self.ls(&PathText::from(dir), !by_path, &mut |info| {
            let slash = if info.kind == FileKind::Dir { "/" } else { "" };
            let word = if by_path {
                // A name that is not text cannot be sent as a word.
                String::from_utf8(info.path.0.clone()).ok().map(|path| path + slash)
            } else {
                info.hash.map(|hash| hash.to_string())
            };
            let new = |word: &String| !out.iter().any(|known: &Candidate| known.word == *word);
            if let Some(word) = word.filter(|word| word.starts_with(prefix)).filter(new) {
                let size = match info.kind {
                    FileKind::Dir => "directory".to_owned(),
                    FileKind::File | FileKind::Link | FileKind::Special => {
                        crate::text::size(info.size)
                    }
                };
                let path = crate::text::shown_bytes(&info.path.0);
                let help = if by_path { size } else { format!("{path} {size}") };
                out.push(Candidate { word, help });
            }
            out.len() < most
        });
        if visited.is_err() { Vec::new() } else { out }
    }
}

/// What a person meant, as far as the tree knows it.
fn find_target(tree: &Tree<'_>, target: &Target) -> Outcome<FoundFile> {
    match target {
        Target::Path(path) => match tree.resolve(&path.0) {
            Ok(entry) => match &entry.version.node {
                TreeNode::File(file) => Ok(Some((file.hash, Some(entry)))),
                TreeNode::Dir { .. } => Err(TreeError::IsADirectory.into()),
                TreeNode::Link(_) => Err(TreeError::IsALink.into()),
                TreeNode::Special(_) | TreeNode::Shared(_) => Err(TreeError::IsSpecial.into()),
            },
            Err(TreeError::NotFound) => Ok(None),
            Err(err) => Err(err.into()),
        },
        Target::Hash(hash) | Target::Link(Link { hash, .. }) => by_digits(tree, &hash.to_string()),
        Target::Prefix(digits) => by_digits(tree, digits),
        Target::Share { .. } => Ok(None),
    }
}

fn by_digits(tree: &Tree<'_>, digits: &str) -> Outcome<FoundFile> {
    let found = tree.find(digits)?;
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((one.hash, entry_of(tree, one)?))),
        many => {
            let path = |one: &Found| -> Outcome<_> {
                let paths = tree.paths_of(&one.inode, 1)?;
                Ok((one.hash, paths.into_iter().next().map(PathText)))
            };
            Err(Error::Ambiguous { found: many.iter().map(path).collect::<Outcome<_>>()? })
        }
    }
}

fn entry_of(tree: &Tree<'_>, found: &Found) -> Outcome<Option<Entry>> {
    let Some(path) = tree.paths_of(&found.inode, 1)?.into_iter().next() else { return Ok(None) };
    let mut entry = tree.resolve(&path).ok();
    if let Some(entry) = &mut entry {
        entry.version = found.version.clone();
    }
    Ok(entry)
}

/// A former version as what is seen under its name.
fn entry_of_former(made: Made) -> Entry {
    let Made { inode, version, .. } = made;
    Entry { parent: InodeId::ROOT, name: Vec::new(), inode, version, conflict: false }
}

/// The bytes of a file of `size` that a range means.
fn span(range: Option<Range>, size: u64) -> std::ops::Range<u64> {
    match range {
        None => 0..size,
        Some(Range::Last(bytes)) => size.saturating_sub(bytes)..size,
        Some(Range::Span { start, end }) => {
            let end = end.unwrap_or(size).min(size);
            start.min(end)..end
        }
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
