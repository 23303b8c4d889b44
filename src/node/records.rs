//! The catalogue in the shell: keeps records on disk and in the tables, takes those of others and
//! passes on what is new; `publish` has them keep this node's own. What a record means is
//! `core::catalogue`'s.
//!
//! Invariant: a record is passed on only after it is on this node's disk, and only once.

use super::PublishError;
use super::worker::mend::DamagedRecords;
use super::{NotReady, Shared, joined, lock};
use crate::core::access::{Grant, OpenStatement, Roles};
use crate::core::catalogue::{
    Applied, Authority, CaughtUp, Checked, Context, FileRecord, GrantFacts, Keyring, Kind, Opened,
    OpenedRecords, Source, View as Records, ViewMut, catch_up, seal_tree,
};
use crate::core::hlc::Hlc;
use crate::core::tree::{Planner, Tree, TreeError};
use crate::core::{catalogue, limits};
use crate::crypto::{ContentSecret, EpochKeys};
use crate::id::{FileHash, InodeId, NodeId, RecordId, made_at};
use crate::store::{Follow, FollowTables, Op, Outcome, ReadError, Store, WriteError};
use crate::sys::{Table, TableRead};
use crate::wire::codec::Decode;
use crate::wire::message::Push;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use tokio::sync::Semaphore;

/// Records that wait for a grant or an epoch are applied in turns of so many.
const CATCH_UP: usize = 256;
/// Pushes from peers that are worked on at once; further ones wait.
const PUSHES_AT_ONCE: usize = 64;

/// What the catalogue needs besides the store.
pub(super) struct Catalogue {
    keyring: RwLock<Keyring>,
    newest: RwLock<Option<Arc<EpochKeys>>>,
    /// The secrets of the epochs, to be sealed to further readers.
    secrets: RwLock<Vec<(ContentSecret, u64)>>,
    authority: OnceLock<[u8; 32]>,
    pub(super) clock: Mutex<Hlc>,
    /// Records that were opened for earlier questions.
    pub(super) opened: Mutex<OpenedRecords>,
    /// By how much the clock of a record that other nodes took led the monotonic clock then, in
    /// milliseconds, at most; none: they took none since the start.
    pub(super) agreed: Mutex<Option<i64>>,
    pushes: Arc<Semaphore>,
    /// Bytes of records that came without being asked for and may still wait.
    pushed_on: Arc<Semaphore>,
    /// Plans of the tree are made one after the other, so that each sees what the last one did.
    pub(super) planning: Arc<tokio::sync::Mutex<()>>,
}

/// Whom the catalogue believes.
struct SwarmAuthority<'a> {
    public: &'a [u8; 32],
}

impl Authority for SwarmAuthority<'_> {
    fn grant(&self, body: &[u8]) -> Option<GrantFacts> {
        let grant = Grant::from_bytes(body).ok()?;
        let at = grant.terms.not_before;
        let roles = grant.verify(self.public, &grant.terms.node, at).ok()?;
        Some(GrantFacts {
            node: grant.terms.node,
            may_write: roles.contains(Roles::WRITE),
            from_ms: grant.terms.not_before,
            until_ms: grant.terms.not_after,
        })
    }

    fn open_statement(&self, body: &[u8]) -> Option<bool> {
        let roles = OpenStatement::from_bytes(body).ok()?.verify(self.public).ok()?;
        Some(roles.contains(Roles::WRITE))
    }

    fn swarm_public(&self) -> &[u8; 32] {
        self.public
    }
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            keyring: RwLock::default(),
            newest: RwLock::default(),
            secrets: RwLock::default(),
            authority: OnceLock::new(),
            clock: Mutex::default(),
            opened: Mutex::new(OpenedRecords::new(limits::OPENED_BYTES)),
            agreed: Mutex::default(),
            pushes: Arc::new(Semaphore::new(PUSHES_AT_ONCE)),
            pushed_on: Arc::new(Semaphore::new(limits::PUSH_BYTES)),
            planning: Arc::default(),
        }
    }
}

impl Catalogue {
    /// The swarm whose records these are; said once, before the first record.
    pub(super) fn set_swarm(&self, public: [u8; 32]) {
        // A second call names the same swarm: a data directory belongs to one.
        self.authority.set(public).ok();
    }

    /// The clock goes on from the newest record.
    pub(super) fn set_clock(&self, newest: u64) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Hlc::new(newest);
    }

    fn with_context<T>(&self, work: impl FnOnce(Context<'_>) -> T) -> Option<T> {
        let public = self.authority.get()?;
        let keyring = self.keyring.read().unwrap_or_else(PoisonError::into_inner);
        Some(work(Context { keyring: &keyring, authority: &SwarmAuthority { public } }))
    }

    /// What would become of a record; none before the swarm is known.
    pub(super) fn vet(
        &self,
        tables: &dyn TableRead,
        now_ms: u64,
        checked: &Checked,
    ) -> Option<io::Result<Applied>> {
        self.with_context(|context| catalogue::vet(tables, context.authority, now_ms, checked))
    }

    /// Applies some of what waited for a grant or a secret; nothing before the swarm is known.
    fn catch_up(&self, tables: &mut dyn FollowTables) -> io::Result<CaughtUp> {
        let both: &mut dyn ViewMut = &mut Both(tables);
        let done = self.with_context(|context| catch_up(both, context, CATCH_UP));
        done.unwrap_or_else(|| Ok(CaughtUp::default()))
    }

    /// All secrets that this node has, and when each epoch was made.
    pub(super) fn secrets(&self) -> Vec<(ContentSecret, u64)> {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All keys that this node has.
    pub(super) fn keyring(&self) -> Keyring {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys that seal new data.
    pub(super) fn newest(&self) -> Option<Arc<EpochKeys>> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds the secret of an epoch, if it is new.
    pub(super) fn add(&self, made: u64, content: ContentSecret) {
        let mut keyring = self.keyring.write().unwrap_or_else(PoisonError::into_inner);
        if !keyring.add(made, EpochKeys::new(&content)) {
            return;
        }
        self.secrets.write().unwrap_or_else(PoisonError::into_inner).push((content, made));
        let newest = keyring.newest().cloned().map(Arc::new);
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = newest;
    }
}

/// The store's tables with its records, as the catalogue wants to see them.
struct Both<'a>(&'a mut dyn FollowTables);

impl TableRead for Both<'_> {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.0.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        self.0.range(table, from, to, visit)
    }

    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.0.last(table, from, to)
    }
}

impl crate::sys::TableWrite for Both<'_> {
    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.0.insert(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool> {
        self.0.remove(table, key)
    }
}

impl Records for Both<'_> {
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>> {
        self.0.record(id)
    }
}

impl Follow for Catalogue {
    fn version(&self) -> u32 {
        catalogue::TABLES_VERSION
    }

    fn apply(&self, _: RecordId, record: &[u8], tables: &mut dyn FollowTables) -> io::Result<()> {
        let Ok(checked) = Checked::kept(record.to_vec()) else { return Ok(()) };
        let mut both = Both(tables);
        let applied = self
            .with_context(|context| catalogue::apply(&mut both, context, Source::Disk, &checked));
        applied.transpose().map(drop)
    }

    fn settle(&self, tables: &mut dyn FollowTables) -> io::Result<bool> {
        Ok(self.catch_up(tables)?.more)
    }
}

/// A snapshot of the tables, with the store's records.
pub(super) struct Snapshot<'a> {
    pub(super) tables: &'a dyn TableRead,
    pub(super) store: &'a Store,
    damaged: &'a DamagedRecords,
    opened: &'a Mutex<OpenedRecords>,
}

impl TableRead for Snapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.tables.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        self.tables.range(table, from, to, visit)
    }

    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.tables.last(table, from, to)
    }
}

impl Records for Snapshot<'_> {
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>> {
        match self.store.record(*id) {
            Ok(record) => Ok(record),
            // One damaged record must not hide all others.
            Err(ReadError::Damaged) => {
                self.damaged.note(*id);
                Ok(None)
            }
            Err(ReadError::Io(err)) => Err(err),
        }
    }

    fn opened(&self, id: &RecordId) -> Option<Arc<Opened>> {
        lock(self.opened).get(id)
    }

    fn keep_open(&self, id: &RecordId, opened: &Arc<Opened>) -> bool {
        lock(self.opened).keep(*id, opened.clone());
        true
    }
}

impl Shared {
    /// Looks something up in the tree as it is now.
    pub(super) fn with_tree<T>(
        &self,
        work: impl FnOnce(&Tree<'_>) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        let keyring = self.catalogue.keyring();
        let mut out = Err(TreeError::NotFound);
        self.read_records(|view| {
            out = work(&Tree::new(view, &keyring));
            Ok(())
        })?;
        out
    }

    /// Reads the catalogue as it is now.
    pub(super) fn read_records<T>(
        &self,
        work: impl FnOnce(&Snapshot<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let (store, damaged, opened) = (&self.store, &self.damaged, &self.catalogue.opened);
        self.store.read_tables(|tables| work(&Snapshot { tables, store, damaged, opened }))
    }

    /// The keys that seal new data, or why there are none yet.
    pub(super) fn keys(&self) -> Result<Arc<EpochKeys>, NotReady> {
        self.ready()?;
        self.catalogue.newest().ok_or(NotReady::NoEpoch)
    }

    /// An id for an inode that is made now.
    pub(super) fn new_inode(&self) -> InodeId {
        InodeId(made_at(self.sys.clock.wall_ms(), self.sys.rng.bytes()))
    }

    /// Plans a change of the tree, seals and signs it. Whoever publishes it holds the lock of the
    /// plans meanwhile.
    pub(super) fn sign_plan<T, E: From<TreeError> + From<PublishError>>(
        &self,
        keys: &EpochKeys,
        plan: impl FnOnce(&mut Planner<'_, '_>) -> Result<T, E>,
    ) -> Result<(T, Vec<Vec<u8>>), E> {
        let keyring = self.catalogue.keyring();
        let mut planned = None;
        let read = self.read_records(|view| {
            let tree = Tree::new(view, &keyring);
            let mut new_inode = || self.new_inode();
            planned =
                Some(tree.planner(&mut new_inode).map_err(E::from).and_then(|mut planner| {
                    let done = plan(&mut planner)?;
                    Ok((done, planner.finish()))
                }));
            Ok(())
        });
        read.map_err(TreeError::Io)?;
        let (done, drafts) = planned.unwrap_or_else(|| Err(TreeError::NotFound.into()))?;
        let seal = |draft| {
            let nonce = self.sys.rng.bytes();
            seal_tree(&self.key, keys, self.tick(), &nonce, draft).map_err(PublishError::from)
        };
        Ok((done, drafts.iter().map(seal).collect::<Result<_, _>>()?))
    }

    /// Takes records from a peer: keeps what is new and valid, and passes it on. Why one of them is
    /// not kept, if so.
    pub(super) async fn take_records(
        self: &Arc<Self>,
        from: NodeId,
        records: Vec<Vec<u8>>,
    ) -> Result<Option<catalogue::Refusal>, WriteError> {
        let permit = self.catalogue.pushes.clone().acquire_owned().await;
        let shared = self.clone();
        // The sender's connection may end; what is on the disk has to be learned and passed on.
        let work = tokio::spawn(async move {
            let done = shared.keep_records(from, records).await;
            drop(permit);
            done
        });
        joined(work.await).unwrap_or_else(|| Err(stopping()))
    }

    /// Takes records that a peer passed on without being asked. When too many wait already they are
    /// fetched later: the peer has them.
    pub(super) fn take_push(self: &Arc<Self>, from: NodeId, head: &[u8]) {
        let push = match Push::from_bytes(head) {
            Ok(push) => push,
            Err(err) => return tracing::warn!(peer = %from.short(), %err, "malformed push"),
        };
        let len = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let Ok(room) = self.catalogue.pushed_on.clone().try_acquire_many_owned(len) else {
            return self.behind.note(from);
        };
        let shared = self.clone();
        tokio::spawn(async move {
            if let Err(err) = shared.take_records(from, push.records).await {
                tracing::warn!(%err, "records were not kept");
            }
            drop(room);
        });
    }

    async fn keep_records(
        self: &Arc<Self>,
        from: NodeId,
        records: Vec<Vec<u8>>,
    ) -> Result<Option<catalogue::Refusal>, WriteError> {
        let shared = self.clone();
        let vetted = self.job(move || shared.vetted(records, &from)).await;
        let (valid, refused) = vetted.unwrap_or_else(Err).map_err(|err| {
            tracing::warn!(%err, "records could not be checked");
            WriteError::ReadOnly(err.to_string())
        })?;
        if valid.is_empty() {
            return Ok(refused);
        }
        let ops = valid.iter().flat_map(|record| self.record_ops(record)).collect();
        let outcomes = self.write(ops).await?;
        let kept = outcomes.into_iter().filter_map(|outcome| match outcome {
            Outcome::Record { new } => Some(new),
            _ => None,
        });
        let new: Vec<_> =
            valid.into_iter().zip(kept).filter(|(_, new)| *new).map(|(r, _)| r).collect();
        if new.is_empty() {
            return Ok(refused);
        }
        self.learn(&new).await;
        self.pass_on(&Push::batches(new), &BTreeSet::from([from]));
        Ok(refused)
    }

    fn record_ops(&self, record: &[u8]) -> Vec<Op> {
        let mut ops = vec![record_op(record.to_vec())];
        if let Ok(checked) = Checked::kept(record.to_vec())
            && checked.record().header.kind == Kind::File
            && let Ok(file) = FileRecord::from_bytes(checked.record().body())
            && !file.is_shared()
        {
            ops.push(Op::Commit { claim: file.claim });
        }
        ops
    }

    /// Those of a peer's records that may be kept. Records whose author has no grant here are
    /// kept for those who are known as members, and a bounded number of others: whoever is a member
    /// could otherwise fill all disks with records of authors that he makes up. Records that are
    /// known are kept again when their bytes here are damaged. Beside them, why one was refused.
    fn vetted(&self, records: Vec<Vec<u8>>, from: &NodeId) -> io::Result<Vetted> {
        let (view, now_ms) = (self.view(), self.sys.clock.wall_ms());
        let (mut valid, mut again) = (Vec::with_capacity(records.len()), Vec::new());
        let mut refused = None;
        let mut refuse = |why| {
            self.refused(from, why);
            refused = Some(why);
        };
        self.read_records(|tables| {
            let mut waiting = catalogue::waiting(tables)?;
            for record in records {
                let checked = match Checked::new(record) {
                    Ok(checked) => checked,
                    Err(why) => {
                        refuse(why);
                        continue;
                    }
                };
                let vetted = self.catalogue.vet(tables, now_ms, &checked);
                let header = &checked.record().header;
                match vetted.transpose()? {
                    Some(Applied::Refused(why)) => refuse(why),
                    Some(Applied::Waiting) if !view.members.contains_key(&header.author) => {
                        waiting += 1;
                        if waiting > catalogue::WAITING_MAX {
                            refuse(catalogue::Refusal::Author);
                        } else {
                            valid.push(checked);
                        }
                    }
                    Some(Applied::New | Applied::Waiting) => valid.push(checked),
                    Some(Applied::Known) if self.damaged.contains(&checked.record().id) => {
                        again.push(checked.record().bytes().to_vec());
                    }
                    Some(Applied::Known | Applied::Sealed) | None => {}
                }
            }
            Ok(())
        })?;
        let mut clock = self.catalogue.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |checked: Checked| {
            let record = checked.record();
            let near = clock.observe(record.header.clock, now_ms);
            debug_assert!(near.is_ok(), "it was vetted by the same reading of the wall clock");
            record.bytes().to_vec()
        };
        again.extend(valid.into_iter().map(take));
        Ok((again, refused))
    }

    fn refused(&self, from: &NodeId, why: catalogue::Refusal) {
        tracing::warn!(peer = %self.view().name(from).escape_debug(), %why, "refused a record");
    }

    /// What new records of the swarm itself change here: grants let others write, epochs open.
    pub(super) async fn learn(self: &Arc<Self>, records: &[Vec<u8>]) {
        let mut matters = false;
        for record in records {
            let Ok(checked) = Checked::kept(record.clone()) else { continue };
            matters |= !matches!(checked.record().header.kind, Kind::File | Kind::Tree);
        }
        if matters {
            self.learn_epochs().await;
            self.readers_changed.send_modify(|count| *count += 1);
        }
        for record in records {
            self.announce(catalogue::id_of(record));
        }
        self.records_changed();
    }

    fn announce(&self, id: RecordId) {
        // Without a listener the news is not needed.
        self.changes.send(super::api::Changed::Record(id)).ok();
    }

    /// Applies some of what waited; whether there may be more.
    pub(super) async fn catch_up_once(self: &Arc<Self>) -> bool {
        let catalogue = self.catalogue.clone();
        let done = self.change_tables(move |tables| catalogue.catch_up(tables));
        let CaughtUp { more, applied, lost } = done.await.unwrap_or_default();
        lost.into_iter().for_each(|id| self.damaged.note(id));
        // They were announced when they came, and had no news to tell then.
        applied.into_iter().for_each(|id| self.announce(id));
        more
    }
}

/// Records that may be kept, and why another one may not.
type Vetted = (Vec<Vec<u8>>, Option<catalogue::Refusal>);

pub(super) fn record_op(bytes: Vec<u8>) -> Op {
    Op::Record { id: catalogue::id_of(&bytes), bytes: bytes.into() }
}

/// A record that may lead to a content.
#[derive(Clone)]
pub(super) struct FoundRecord {
    /// Who signed it.
    pub(super) author: NodeId,
    /// What it says.
    pub(super) record: FileRecord,
    /// The keys of its epoch.
    pub(super) keys: Arc<EpochKeys>,
}

/// Every record that may lead to the content: those of stored copies before those of files that
/// their authors serve in place, who may be away; then newest epoch first.
pub(super) fn records_of(
    view: &Snapshot<'_>,
    keyring: &Keyring,
    hash: &FileHash,
) -> io::Result<Vec<FoundRecord>> {
    let mut out = Vec::new();
    for keys in keyring.iter() {
        let found = catalogue::files_by_lookup(view, &keys.lookup(hash))?;
        let keys = Arc::new(keys.clone());
        out.extend(found.into_iter().map(|found| FoundRecord {
            author: found.author,
            record: found.file,
            keys: keys.clone(),
        }));
    }
    out.sort_by_key(|found| found.record.is_shared());
    Ok(out)
}

pub(super) fn stopping() -> WriteError {
    WriteError::ReadOnly("this node is stopping".into())
}
