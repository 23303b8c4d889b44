//! Which connections there are, which one is used for a peer and lane, and when each closes.
//!
//! Two nodes that dial each other at once get two connections. Each side uses the one it got last,
//! and the node with the lower id closes, in order, the one that it got first; after a second, so
//! that the other side surely knows both. The node with the higher id closes one by itself only
//! when the lower one has had time to do it and has not: then the lower one does not know of it any
//! more. So both keep the same one, and a connection that is dead without either side having been
//! told never stands in the way of a new one.
//!
//! Invariant: `Up` and `Down` of a peer alternate, and follow the connection that is used.

use super::Shared;
use super::connection::Connection;
use super::error::Ended;
use super::handler::{ConnectionStats, LinkEvent};
use crate::id::NodeId;
use crate::wire::hello::Lane;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often connections are looked at.
const TICK: Duration = Duration::from_secs(1);
/// When the node with the lower id closes the older of two connections, and when the higher does.
const SUPERSEDED_LOWER: Duration = Duration::from_secs(1);
const SUPERSEDED_HIGHER: Duration = Duration::from_secs(5);
/// How long a close in order may take.
const LEAVING_MAX: Duration = Duration::from_secs(10);
/// The same while bytes go, as they do slowly at a low limit.
const LEAVING_AT_MOST: Duration = Duration::from_secs(600);
/// An answer is due and nothing came for this long: ask for a sign of life.
const PROBE_AFTER: Duration = Duration::from_secs(10);
/// Nothing came for this long although asked: the peer or the way to it is dead.
const SILENT_MAX: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    /// Held while a change is made and told, so that events are told in the order of the changes.
    order: Mutex<()>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    used: BTreeMap<(NodeId, Lane), Arc<Connection>>,
    all: BTreeMap<u64, Entry>,
    kept: BTreeSet<NodeId>,
}

struct Entry {
    conn: Arc<Connection>,
    superseded: Option<Instant>,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that is used for a peer and lane.
    pub(super) fn get(&self, peer: NodeId, lane: Lane) -> Option<Arc<Connection>> {
        self.state().used.get(&(peer, lane)).cloned()
    }

    /// Waits until there is one.
    pub(super) async fn wait(&self, peer: NodeId, lane: Lane) -> Arc<Connection> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(conn) = self.get(peer, lane) {
                return conn;
            }
            // The sender lives as long as the pool, which is borrowed here.
            let _always = changed.changed().await;
        }
    }

    /// Waits until there is none at all.
    pub(super) async fn wait_empty(&self) {
        let mut changed = self.changed.subscribe();
        while !self.state().all.is_empty() {
            let _always = changed.changed().await;
        }
    }

    /// Wants the control connection to a peer, or no longer.
    pub(super) fn keep(&self, peer: NodeId, keep: bool) {
        let kept = &mut self.state().kept;
        if keep {
            kept.insert(peer)
        } else {
            kept.remove(&peer)
        };
    }

    /// How many strangers are connected.
    pub(super) fn strangers(&self) -> usize {
        self.state().all.values().filter(|entry| entry.conn.stranger).count()
    }

    /// All connections of one peer, or of all.
    pub(super) fn list(&self, peer: Option<NodeId>) -> Vec<Arc<Connection>> {
        let of = |entry: &&Entry| peer.is_none_or(|peer| entry.conn.peer == peer);
        self.state().all.values().filter(of).map(|entry| Arc::clone(&entry.conn)).collect()
    }

    pub(super) fn stats(&self) -> Vec<ConnectionStats> {
        self.list(None).iter().map(|conn| conn.stats()).collect()
    }

    /// Takes a new connection into use.
    pub(super) fn add(&self, shared: &Arc<Shared>, conn: &Arc<Connection>) {
        let order = self.order();
        let key = (conn.peer, conn.lane);
        let old = {
            let mut state = self.state();
            let entry = Entry { conn: Arc::clone(conn), superseded: None };
            state.all.insert(conn.number, entry);
            let old = state.used.insert(key, Arc::clone(conn));
            if let Some(entry) = old.as_ref().and_then(|old| state.all.get_mut(&old.number)) {
                entry.superseded = Some(Instant::now());
            }
            old
        };
        let restarted = old.as_ref().is_some_and(|old| old.hello.instance != conn.hello.instance);
        // One that was a stranger so far is new as a member.
        let anew = restarted || old.as_ref().is_some_and(|old| old.stranger != conn.stranger);
        if conn.lane == Lane::Control {
            if anew {
                let how = Ended::Lost("the peer comes anew");
                shared.handler.link(LinkEvent::Down { peer: conn.peer, how });
            }
            if anew || old.is_none() {
                shared.handler.link(conn.up());
            }
        }
        drop(order);
        self.changed.send_replace(());
        if let Some(old) = old.filter(|_| restarted) {
            old.end(Ended::Lost("the peer restarted"));
        }
        self.shed_bulk(shared);
    }

    /// Closes a connection in order: it is not used for new requests from here on.
    pub(super) fn leave(&self, shared: &Arc<Shared>, conn: &Arc<Connection>) {
        conn.leave();
        self.retire(shared, conn, &Ended::Closed);
    }

    /// A connection has ended.
    pub(super) fn forget(&self, shared: &Arc<Shared>, conn: &Arc<Connection>, how: &Ended) {
        self.retire(shared, conn, how);
        self.state().all.remove(&conn.number);
        self.changed.send_replace(());
    }

    /// Takes a connection out of use; another open one to the same peer takes its place.
    fn retire(&self, shared: &Arc<Shared>, conn: &Arc<Connection>, how: &Ended) {
        let _order = self.order();
        let key = (conn.peer, conn.lane);
        let gone = {
            let mut state = self.state();
            let in_use = state.used.get(&key).is_some_and(|used| used.number == conn.number);
            if in_use {
                state.used.remove(&key);
                if let Some(next) = state.spare(conn) {
                    state.used.insert(key, next);
                }
            }
            in_use && !state.used.contains_key(&key)
        };
        if gone && conn.lane == Lane::Control {
            shared.handler.link(LinkEvent::Down { peer: conn.peer, how: how.clone() });
        }
    }

    /// Closes the least recently used bulk connections above their limit.
    fn shed_bulk(&self, shared: &Arc<Shared>) {
        let mut bulk = self.list(None);
        bulk.retain(|conn| conn.lane == Lane::Bulk && conn.is_open());
        bulk.sort_by_key(|conn| conn.idle());
        for conn in bulk.iter().skip(shared.limits.bulk) {
            self.leave(shared, conn);
        }
    }

    /// Closes the connection that is missed least, to make room for another; false: all are in use.
    pub(super) fn shed_one(&self, shared: &Arc<Shared>) -> bool {
        let least = {
            let state = self.state();
            let mut spare: Vec<_> = state.all.values().map(|entry| &entry.conn).collect();
            spare.retain(|conn| conn.is_open() && conn.in_flight() == 0 && !state.keeps(conn));
            spare.into_iter().max_by_key(|conn| conn.idle()).map(Arc::clone)
        };
        least.map(|conn| self.leave(shared, &conn)).is_some()
    }

    /// Looks once at every connection.
    fn tick(&self, shared: &Arc<Shared>) {
        let mut leave = Vec::new();
        let mut bulk_in_use = false;
        {
            let state = self.state();
            for entry in state.all.values() {
                let conn = &entry.conn;
                let lower = shared.me < conn.peer;
                let patience = if lower { SUPERSEDED_LOWER } else { SUPERSEDED_HIGHER };
                let old = entry.superseded.is_some_and(|since| since.elapsed() >= patience);
                let idle = conn.idle() >= shared.limits.idle && conn.in_flight() == 0;
                bulk_in_use |= conn.lane == Lane::Bulk && !idle;
                let leaving = conn.leaving_for().unwrap_or_default();
                if leaving >= LEAVING_MAX && is_still(conn) || leaving >= LEAVING_AT_MOST {
                    conn.end(Ended::Lost("the peer did not close in time"));
                } else if conn.silent() >= SILENT_MAX {
                    conn.end(Ended::Silent);
                } else if conn.is_open() && (old || idle && !state.keeps(conn)) {
                    leave.push(Arc::clone(conn));
                } else if conn.silent() >= PROBE_AFTER {
                    conn.probe();
                }
            }
        }
        for conn in &leave {
            self.leave(shared, conn);
        }
        if !bulk_in_use {
            shared.memory.trim();
        }
    }
}

impl State {
    /// Another open connection to the peer of `conn`, the newest; nothing supersedes it now.
    fn spare(&mut self, conn: &Connection) -> Option<Arc<Connection>> {
        let same = |entry: &&mut Entry| {
            let other = &entry.conn;
            (other.peer, other.lane) == (conn.peer, conn.lane)
                && other.number != conn.number
                && other.is_open()
        };
        let entry = self.all.values_mut().rev().find(same)?;
        entry.superseded = None;
        Some(Arc::clone(&entry.conn))
    }

    fn keeps(&self, conn: &Connection) -> bool {
        conn.lane == Lane::Control && self.kept.contains(&conn.peer)
    }
}

/// Whether nothing goes over a connection any more: at a low limit a close in order takes long.
fn is_still(conn: &Connection) -> bool {
    conn.still().is_none_or(|since| since >= LEAVING_MAX)
}

/// Looks at the connections once a second for as long as the transport lives.
pub(super) async fn tend(shared: Weak<Shared>) {
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.pool.tick(&shared);
        let now = Instant::now();
        shared.traffic.look(now - std::mem::replace(&mut looked, now));
    }
}

/// A permit for one more connection; when there is none, room is made or waited for.
pub(super) async fn slot(shared: &Arc<Shared>) -> tokio::sync::OwnedSemaphorePermit {
    let slots = &shared.slots;
    if slots.available_permits() == 0 {
        shared.pool.shed_one(shared);
    }
    Arc::clone(slots).acquire_owned().await.expect("the semaphore of slots is never closed")
}
