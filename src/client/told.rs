//! Sums up how far many requests are that together do one thing, and passes their notes on.

use super::{Update, Watch};
use crate::wire::control::{Code, Failure, Progress};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinError;

/// How far all of them are.
pub(super) struct Told {
    watch: Option<Watch>,
    done: AtomicU64,
    total: AtomicU64,
    /// Whether the total is final.
    all: AtomicBool,
    /// What was said last: the same is said once, however many requests have it to say.
    said: Mutex<String>,
}

impl Told {
    pub(super) fn new(watch: Option<Watch>) -> Arc<Self> {
        let (done, total, all, said) = Default::default();
        Arc::new(Self { watch, done, total, all, said })
    }

    /// Counts bytes that will have to be done.
    pub(super) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says that no more will be expected.
    pub(super) fn expect_no_more(&self) {
        self.all.store(true, Ordering::Relaxed);
    }

    fn say(&self, note: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != note
            && let Some(watch) = &self.watch
        {
            note.clone_into(&mut said);
            watch(Update::Note(note));
        }
    }

    /// How far one request is, which has nothing done yet.
    pub(super) fn one(self: &Arc<Self>) -> Arc<One> {
        Arc::new(One { told: self.clone(), done: AtomicU64::new(0) })
    }
}

/// How far one request is.
pub(super) struct One {
    told: Arc<Told>,
    done: AtomicU64,
}

impl One {
    /// Takes what the daemon says of this request.
    pub(super) fn watch(self: &Arc<Self>) -> Watch {
        let one = self.clone();
        Arc::new(move |update| match update {
            Update::Progress(progress) => one.reach(progress.done),
            Update::Note(note) => one.told.say(note),
        })
    }

    /// Notes that so many bytes of this request are done.
    pub(super) fn reach(&self, done: u64) {
        let Told { watch, done: sum, total, all, .. } = &*self.told;
        let step = done.saturating_sub(self.done.fetch_max(done, Ordering::Relaxed));
        let done = sum.fetch_add(step, Ordering::Relaxed) + step;
        let total = all.load(Ordering::Relaxed).then(|| total.load(Ordering::Relaxed));
        if let Some(watch) = watch {
            watch(Update::Progress(Progress { done, total }));
        }
    }
}

/// A task that did not come to its end: only a panic does that.
pub(super) fn broken(err: JoinError) -> Failure {
    Failure::new(Code::Failed, format!("a part of this command broke down: {err}"))
}
