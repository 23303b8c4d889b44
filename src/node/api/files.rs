//! What is asked about files: put, get, ls, stat. Owns the way from what a person typed to a file
//! record, and the order of records that makes a file visible.

use super::{Error, Outcome};
use crate::core::catalogue::{
    Attributes, Content as RecordContent, FileCandidate, FileRecord, FileVersion, Keyring,
    Node as TreeNode, UNLISTED, View as _, entry_tag, files_by_lookup, id_of, is_committed,
    is_released,
};
use crate::core::limits;
use crate::core::tree::{Entry, Found, NewFile, Tree, TreeError, Walk};
use crate::crypto::EpochKeys;
use crate::id::{ClaimId, FileHash, InodeId, RecordId};
use crate::node::again::Holders;
use crate::node::get::{GetError, OpenFile, Reading};
use crate::node::put::{Content, Upload, Whereabouts};
use crate::node::records::{Snapshot, records_of};
use crate::node::replicate::{Promise, Tally};
use crate::node::{NotReady, OnProgress, PublishError, PutError, Shared};
use crate::store::Claim;
use crate::sys::{Sink, Source, SourceChanged};
use crate::wire::control::{
    Candidate, Event, Fetched, FileInfo, FileKind, FileStat, Get, HolderInfo, PathText, PeerState,
    Put, Range, Stored, Target, Wait,
};
use crate::wire::message::Find;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a command waits for a node that is just reading its swarm's catalogue.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How often a put that waits for repair looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The same, when it takes long.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Entries of a list that are read at once.
const LIST_PAGE: usize = 1024;

/// A file that a person meant.
struct Meant {
    hash: FileHash,
    entry: Option<Entry>,
    records: Vec<(FileRecord, Arc<EpochKeys>)>,
}

impl Shared {
    pub(super) async fn put(
        self: &Arc<Self>,
        put: Put,
        source: Box<dyn Source>,
        progress: OnProgress,
    ) -> Outcome<Stored> {
        let began = self.sys.clock.now();
        let keys = self.wait_for_keys().await?;
        let replicas = put.replicas.unwrap_or(self.config.replicas).clamp(1, limits::REPLICAS_MAX);
        let claim = Claim {
            id: self.whole(|| self.claim_for(put.path.as_ref())).await?,
            replicas,
            renewed_ms: self.sys.clock.wall_ms(),
        };
        let again = self.put_again(source, &keys, claim).await.map_err(PutError::Read)?;
        let content = match again {
            (_, Some(content)) => content,
            (source, None) => {
                let progress = progress.clone();
                let upload = Upload::new(self, keys.clone(), claim, put.compress, progress);
                upload.run(source).await?
            }
        };
        if put.len.is_some_and(|len| len != content.length) {
            // It was longer or shorter when the command opened it.
            return Err(PutError::from(SourceChanged).into());
        }
        let needed = Promise::now(&self.view(), replicas).nodes;
        self.write_down(&put, &keys, claim, &content, needed).await?;
        let wait_met = self.wait_for_copies(&put, claim, &content, &progress).await;
        let wanted = wanted(put.wait, replicas).filter(|_| wait_met);
        let mut stored = self.stored(put.path, &content, replicas, wait_met, began);
        if wanted.is_some_and(|wanted| stored.copies < wanted) {
            // The copies that were waited for are repair's: it has noted them, the tally has not.
            self.count_again(&mut stored).await?;
        } else {
            self.note_copies_later(claim, content.tally.clone());
        }
        Ok(stored)
    }

    /// Asks who has the file now.
    async fn count_again(self: &Arc<Self>, stored: &mut Stored) -> Outcome<()> {
        let stat = self.stat(&Target::Hash(stored.hash)).await?;
        let whole = stat.holders.iter().filter(|h| h.chunks + stat.zero_chunks == stat.chunks);
        let whole: Vec<&HolderInfo> = whole.collect();
        let machines = self.view().machines(whole.iter().map(|holder| &holder.id));
        stored.copies = stat.info.copies.unwrap_or(stored.copies);
        stored.machines = u8::try_from(machines).unwrap_or(u8::MAX).max(1);
        stored.holders = whole.into_iter().map(|holder| holder.name.clone()).collect();
        Ok(())
    }

    /// The keys that seal new data. A node that has just started gets a moment to read them.
    pub(super) async fn wait_for_keys(&self) -> Result<Arc<EpochKeys>, NotReady> {
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

    /// The claim of the file that is at the path already; a new one otherwise.
    fn claim_for(&self, path: Option<&PathText>) -> Outcome<ClaimId> {
        let keyring = self.catalogue.keyring();
        let Some(path) = path else { return Ok(ClaimId(self.sys.rng.bytes())) };
        let mut target = Ok(None);
        let claim = self.read_records(|view| {
            target = Tree::new(view, &keyring).put_target(&path.0);
            let Ok(Some(entry)) = &target else { return Ok(None) };
            let TreeNode::File(file) = &entry.version.node else { return Ok(None) };
            // A claim that was released is not taken again.
            Ok((!is_released(view, &file.claim)?).then_some(file.claim))
        })?;
        target?;
        Ok(claim.unwrap_or_else(|| ClaimId(self.sys.rng.bytes())))
    }

    /// Makes the file findable and, if it has a path, visible.
    async fn write_down(
        self: &Arc<Self>,
        put: &Put,
        keys: &Arc<EpochKeys>,
        mut claim: Claim,
        content: &Content,
        needed: usize,
    ) -> Outcome<()> {
        let mut file = file_record(put, keys, claim, content);
        // Two plans for one path must see each other, so plan and record are one step.
        let mut planning = self.catalogue.planning.clone().lock_owned().await;
        if !self.may_claim(put.path.as_ref(), claim.id)? {
            drop(planning);
            claim.id = ClaimId(self.sys.rng.bytes());
            file = file_record(put, keys, claim, content);
            self.claim_anew(&file, keys, claim, content).await?;
            planning = self.catalogue.planning.clone().lock_owned().await;
        }
        if let Some(records) = self.written_down(put, content, &file)? {
            drop(planning);
            // Whoever wrote them may have died before others had them.
            return Ok(self.publish_again(records, needed).await?);
        }
        let record = file.sign(&self.key, self.tick(), keys.epoch()).map_err(PublishError::from)?;
        let mut records = vec![record];
        if let Some(path) = &put.path {
            let id = id_of(&records[0]);
            records.push(self.name_it(put, path, keys, claim, content, id)?);
        }
        self.publish(records, vec![claim.id], needed, Some(planning)).await?;
        Ok(())
    }

    /// Whether a claim can still be that of the file at this path: it is, or nobody's yet. Somebody
    /// may have removed the file or let its content go while it was put.
    fn may_claim(&self, path: Option<&PathText>, claim: ClaimId) -> Outcome<bool> {
        let keyring = self.catalogue.keyring();
        let Some(path) = path else { return Ok(true) };
        let mut target = Ok(None);
        let fresh = self.read_records(|view| {
            target = Tree::new(view, &keyring).put_target(&path.0);
            Ok(!is_committed(view, &claim)? && !is_released(view, &claim)?)
        })?;
        let there = target?.is_some_and(
            |entry| matches!(entry.version.node, TreeNode::File(file) if file.claim == claim),
        );
        let released = self.read_records(|view| is_released(view, &claim))?;
        Ok(fresh || there && !released)
    }

    /// Has the holders of what was put keep it for another claim.
    async fn claim_anew(
        self: &Arc<Self>,
        file: &FileRecord,
        keys: &Arc<EpochKeys>,
        claim: Claim,
        content: &Content,
    ) -> Outcome<()> {
        let mut records = vec![(file.clone(), keys.clone())];
        let opened = self.open_file(content.hash, &mut records).await?;
        let needed = Promise::now(&self.view(), claim.replicas).nodes;
        let claimed = self.claim_all(&opened, claim, Holders::Any).await;
        claimed.ok_or(PutError::TooFewCopies { copies: 0, needed })?;
        Ok(())
    }

    /// The records that say what a put would write down, if all of it is said already: that the
    /// file is made of the same chunks and, if the put has a path, that it is there.
    fn written_down(
        &self,
        put: &Put,
        content: &Content,
        file: &FileRecord,
    ) -> Outcome<Option<Vec<Vec<u8>>>> {
        let keyring = self.catalogue.keyring();
        // A file that stands for itself does not go when somebody removes a name of its content.
        let same = |known: &FileCandidate| {
            let FileRecord { replicas, content, flags, .. } = &known.file;
            (*replicas, content) == (file.replicas, &file.content)
                // What stands for itself is its author's, who may let it go.
                && (put.path.is_some() || flags & UNLISTED != 0 && known.author == self.me)
        };
        Ok(self.read_records(|view| {
            let known = files_by_lookup(view, &file.lookup)?;
            let Some(known) = known.into_iter().find(same) else { return Ok(None) };
            let mut ids = vec![known.id];
            if let Some(path) = &put.path {
                let entry = Tree::new(view, &keyring).resolve(&path.0).ok();
                let Some(entry) = entry.filter(|entry| is_version(entry, content)) else {
                    return Ok(None);
                };
                ids.push(entry.version.record);
            }
            let records = ids.iter().map(|id| view.record(id));
            Ok(records.collect::<io::Result<Vec<_>>>()?.into_iter().collect())
        })?)
    }

    /// The tree record that gives the file its path.
    fn name_it(
        &self,
        put: &Put,
        path: &PathText,
        keys: &EpochKeys,
        claim: Claim,
        content: &Content,
        record: RecordId,
    ) -> Outcome<Vec<u8>> {
        let now_ns =
            i64::try_from(self.sys.clock.wall_ms()).unwrap_or(i64::MAX / 1_000_000) * 1_000_000;
        let version = FileVersion {
            hash: content.hash,
            size: content.length,
            claim: claim.id,
            record: Some(record),
        };
        let attributes = Attributes {
            mode: put.mode.unwrap_or(0o644) & 0o7777,
            mtime_ns: put.mtime_ns.unwrap_or(now_ns),
            ..Attributes::default()
        };
        let file = NewFile { version, attributes };
        self.sign_plan(keys, |tree, inode| tree.plan_put(&path.0, file, inode))
    }

    /// Waits for as many copies as were asked for; whether they are there.
    async fn wait_for_copies(
        self: &Arc<Self>,
        put: &Put,
        claim: Claim,
        content: &Content,
        progress: &OnProgress,
    ) -> bool {
        let Some(wanted) = wanted(put.wait, claim.replicas) else { return true };
        let (hash, tally) = (content.hash, &content.tally);
        let reached = async {
            tally.reached(usize::from(wanted)).await;
            let count = tally.count();
            let mut enough = !count.any || count.copies >= usize::from(wanted);
            let mut pause = LOOK_AGAIN;
            if !enough {
                progress(content.length, Some(content.length));
            }
            // What the put itself could not deliver, repair will: when there are nodes for it. What
            // was noted of this claim may be of an earlier version, so the holders are asked.
            while !enough {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_AGAIN_MAX);
                enough = self.fewest_copies(hash).await.is_some_and(|copies| copies >= wanted);
            }
        };
        match put.timeout_ms {
            None => {
                reached.await;
                true
            }
            Some(ms) => tokio::time::timeout(Duration::from_millis(ms), reached).await.is_ok(),
        }
    }

    /// How many copies every chunk of a file has now, as its holders say.
    async fn fewest_copies(self: &Arc<Self>, hash: FileHash) -> Option<u8> {
        let keyring = self.catalogue.keyring();
        let mut records = self.read_records(|view| records_of(view, &keyring, &hash)).ok()?;
        let file = self.open_file(hash, &mut records).await.ok()?;
        self.survey(&file).await.ok()?.fewest
    }

    /// When all copies are there, or the put has given up on some, writes down how many.
    fn note_copies_later(self: &Arc<Self>, claim: Claim, tally: Arc<Tally>) {
        let shared = self.clone();
        tokio::spawn(async move {
            tally.reached(usize::from(claim.replicas)).await;
            let count = tally.count();
            let copies = if count.any {
                u8::try_from(count.copies).unwrap_or(u8::MAX).max(1)
            } else {
                shared.copies_of_records(claim.replicas)
            };
            if let Err(err) = shared.set_copies(claim.id, copies).await {
                tracing::debug!(%err, "the number of copies was not noted");
            }
        });
    }

    fn stored(
        &self,
        path: Option<PathText>,
        content: &Content,
        replicas: u8,
        wait_met: bool,
        began: crate::sys::Time,
    ) -> Stored {
        let view = self.view();
        let mut count = content.tally.count();
        if !count.any {
            // Nothing but records: those are here, and at every member soon.
            (count.copies, count.machines) = (1, 1);
            count.holders = vec![self.me];
        }
        count.holders.sort_by_key(|id| *id != self.me);
        Stored {
            hash: content.hash,
            size: content.length,
            path,
            copies: u8::try_from(count.copies).unwrap_or(u8::MAX),
            replicas,
            machines: u8::try_from(count.machines).unwrap_or(u8::MAX),
            holders: count.holders.iter().map(|id| view.name(id)).collect(),
            new_bytes: count.new_bytes,
            nodes_with_room: u32::try_from(view.with_room()).unwrap_or(u32::MAX),
            took_ms: millis(self.sys.clock.now().since(began)),
            wait_met,
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
        let mut meant = self.meant(&get.target).await?;
        let mode = meant.entry.as_ref().map(|entry| entry.version.attributes.mode);
        let mut file = self.open_file(meant.hash, &mut meant.records).await?;
        let mut reading = Reading::of(span(get.range, file.manifest.length));
        while let Err(err) = self.read_range(&file, &mut reading, &sink, &progress).await {
            // Another author's record may name other chunks: every manifest is proved against the
            // same hash, so what has come already is what it would have given.
            let next = match err {
                GetError::Corrupt(_) | GetError::Unavailable(_) => {
                    self.open_file(meant.hash, &mut meant.records).await.ok()
                }
                _ => None,
            };
            let Some(next) = next else { return Err(err.into()) };
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
        if let Some(meant) = self.whole(|| self.meant_here(target)).await? {
            return Ok(meant);
        }
        let (asked, unreachable) = self.ask_all(&self.questions(target)?).await;
        self.meant_here(target)?.ok_or(Error::NotFound { asked, unreachable })
    }

    fn meant_here(&self, target: &Target) -> Outcome<Option<Meant>> {
        let keyring = self.catalogue.keyring();
        let mut found = Ok(None);
        self.read_records(|view| {
            found = find_target(&Tree::new(view, &keyring), target);
            Ok(())
        })?;
        let (hash, entry) = match (found?, target) {
            (Some(found), _) => found,
            (None, Target::Hash(hash)) => (*hash, None),
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
        Ok(Some(Meant { hash, entry, records }))
    }

    /// What is read from the catalogue, once more if records turned out to be damaged here and had
    /// to be fetched: without them an older version would be taken for the newest.
    async fn whole<T>(self: &Arc<Self>, read: impl Fn() -> Outcome<T>) -> Outcome<T> {
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
            Target::Hash(hash) => keys.iter().map(|k| Find::Lookup(k.lookup(hash))).collect(),
            Target::Prefix(digits) => {
                let first = digits.get(..8).and_then(|d| crate::id::from_hex(d).ok());
                let first = first.ok_or(TreeError::BadPath)?;
                keys.iter().map(|k| Find::Prefix(k.prefix(&first))).collect()
            }
            Target::Path(path) => {
                let (parent, name) = self.deepest_known(path, &keyring)?;
                keys.iter().map(|k| Find::Tag(entry_tag(k, &parent, &name))).collect()
            }
        })
    }

    /// The deepest directory on a path that is known here, and the first name below it.
    fn deepest_known(&self, path: &PathText, keyring: &Keyring) -> Outcome<(InodeId, Vec<u8>)> {
        let mut found = Ok((InodeId::ROOT, Vec::new()));
        self.read_records(|view| {
            let tree = Tree::new(view, keyring);
            let mut at = InodeId::ROOT;
            for name in path.0.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
                match tree.lookup(&at, name)? {
                    Some(entry) if entry.is_dir() => at = entry.inode,
                    _ => {
                        found = Ok((at, name.to_vec()));
                        return Ok(());
                    }
                }
            }
            found = Err(Error::Tree(TreeError::IsADirectory));
            Ok(())
        })?;
        found
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

    fn file_info(&self, view: &Snapshot<'_>, path: PathText, entry: &Entry) -> FileInfo {
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
        };
        match &version.node {
            TreeNode::Dir { .. } => {}
            TreeNode::Link(target) => {
                info.kind = FileKind::Link;
                info.size = target.len() as u64;
            }
            TreeNode::File(file) => {
                info.kind = FileKind::File;
                info.hash = Some(file.hash);
                info.size = file.size;
                let record = file
                    .record
                    .and_then(|id| crate::core::catalogue::file_record(view, &id).ok().flatten());
                info.replicas = record.map_or(self.config.replicas, |record| record.replicas);
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
    fn copies_of_records(&self, replicas: u8) -> u8 {
        let members = 1 + self.view().others().count();
        replicas.min(u8::try_from(members).unwrap_or(u8::MAX))
    }

    pub(super) async fn stat(self: &Arc<Self>, target: &Target) -> Outcome<FileStat> {
        self.wait_for_keys().await?;
        let mut meant = self.meant(target).await?;
        let mut info = self.info_of(&meant)?;
        let listed = meant.entry.is_some();
        let former = listed && self.is_superseded(&info)?;
        let attributes = meant.entry.map(|entry| entry.version.attributes);
        let file = self.open_file(meant.hash, &mut meant.records).await?;
        info.size = file.manifest.length;
        info.replicas = file.record.replicas;
        let survey = self.survey(&file).await?;
        info.copies = survey.fewest.or_else(|| Some(self.copies_of_records(info.replicas)));
        let chunks = crate::chunk::chunk_count(file.manifest.length);
        Ok(FileStat {
            info,
            listed,
            former,
            chunks,
            zero_chunks: survey.zero_chunks,
            stored_bytes: survey.stored_bytes,
            mode: attributes.as_ref().map(|a| a.mode),
            mtime_ns: attributes.as_ref().map(|a| a.mtime_ns),
            holders: self.holder_infos(&survey),
        })
    }

    /// Opens the file that a person meant.
    pub(super) async fn opened(self: &Arc<Self>, target: &Target) -> Outcome<OpenFile> {
        self.wait_for_keys().await?;
        let mut meant = self.meant(target).await?;
        Ok(self.open_file(meant.hash, &mut meant.records).await?)
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
        };
        let Some(entry) = &meant.entry else { return Ok(unlisted) };
        let keyring = self.catalogue.keyring();
        Ok(self.read_records(|view| {
            let paths = Tree::new(view, &keyring).paths_of(&entry.inode, 1)?;
            let path = paths.into_iter().next().unwrap_or_else(|| b"/".to_vec());
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
        let visited = self.ls(&PathText(b"/".to_vec()), true, &mut |info| {
            let word = if by_path {
                // A name that is not text cannot be sent as a word.
                String::from_utf8(info.path.0.clone()).ok()
            } else {
                info.hash.map(|hash| hash.to_string())
            };
            let new = |word: &String| !out.iter().any(|known: &Candidate| known.word == *word);
            if let Some(word) = word.filter(|word| word.starts_with(prefix)).filter(new) {
                let size = crate::text::size(info.size);
                let path = crate::text::shown_bytes(&info.path.0);
                let help = if by_path { size } else { format!("{path} {size}") };
                out.push(Candidate { word, help });
            }
            out.len() < most
        });
        if visited.is_err() { Vec::new() } else { out }
    }

    /// What a record changed, as events, last first.
    pub(super) fn record_events(&self, id: &RecordId) -> Vec<Event> {
        let keyring = self.catalogue.keyring();
        let events = self.read_records(|view| {
            use crate::core::catalogue::{Change, Checked, View};
            let Some(bytes) = view.record(id)? else { return Ok(Vec::new()) };
            let Ok(checked) = Checked::new(bytes) else { return Ok(Vec::new()) };
            let keys = keyring.get(&checked.record().header.epoch);
            let Some(changes) = keys.and_then(|keys| checked.record().open(keys)) else {
                return Ok(Vec::new());
            };
            let tree = Tree::new(view, &keyring);
            let mut out = Vec::new();
            for change in changes {
                let Change::Inode { inode, .. } = change else { continue };
                for path in tree.paths_of(&inode, 16)? {
                    if let Ok(entry) = tree.resolve(&path) {
                        out.push(Event::Changed {
                            file: self.file_info(view, PathText(path), &entry),
                        });
                    }
                }
            }
            out.reverse();
            Ok(out)
        });
        events.unwrap_or_default()
    }
}

/// How many copies are waited for, when that is asked for.
fn wanted(wait: Option<Wait>, replicas: u8) -> Option<u8> {
    Some(match wait? {
        Wait::All => replicas,
        Wait::Copies(copies) => copies.min(replicas),
    })
}

/// What a person meant, as far as the tree knows it.
fn find_target(tree: &Tree<'_>, target: &Target) -> Outcome<Option<(FileHash, Option<Entry>)>> {
    match target {
        Target::Path(path) => match tree.resolve(&path.0) {
            Ok(entry) => match &entry.version.node {
                TreeNode::File(file) => Ok(Some((file.hash, Some(entry)))),
                TreeNode::Dir { .. } => Err(TreeError::IsADirectory.into()),
                TreeNode::Link(_) => Err(TreeError::IsALink.into()),
            },
            Err(TreeError::NotFound) => Ok(None),
            Err(err) => Err(err.into()),
        },
        Target::Hash(hash) => by_digits(tree, &hash.to_string()),
        Target::Prefix(digits) => by_digits(tree, digits),
    }
}

fn by_digits(tree: &Tree<'_>, digits: &str) -> Outcome<Option<(FileHash, Option<Entry>)>> {
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

fn is_version(entry: &Entry, content: &Content) -> bool {
    matches!(&entry.version.node, TreeNode::File(file) if file.hash == content.hash)
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

/// What a put says of the file.
fn file_record(put: &Put, keys: &EpochKeys, claim: Claim, content: &Content) -> FileRecord {
    FileRecord {
        claim: claim.id,
        lookup: keys.lookup(&content.hash),
        content: match &content.manifest {
            Whereabouts::Inline(sealed) => RecordContent::Inline(sealed.clone()),
            Whereabouts::Stored { cid, len } => {
                RecordContent::Stored { manifest: *cid, sealed_len: *len }
            }
        },
        replicas: claim.replicas,
        flags: if put.path.is_some() { 0 } else { UNLISTED },
    }
}
