//! Requests with descriptors: bytes that go from one into the swarm, or from there into one. Owns
//! that a thread which waits for a descriptor ends with the work that it is for.

use super::Outbox;
use super::answer::value;
use super::failure::{failure, of_work};
use super::source::Confirmed;
use crate::node::{ManyStored, Node, OnProgress, Written};
use crate::sys::{DescriptorSink, DescriptorSource, Source};
use crate::wire::control::{
    Code, Failure, FileTag, Get, ITEMS_MAX, Put, PutFailed, PutItem, PutMany, PutWhat, Share,
    TAGS_MAX, Target, Write, WrittenInfo,
};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is said when all bytes are stored, and more copies are wanted before the end.
const WAITING: &str = "stored; waiting for the other copies:  p2pfs status";

pub(super) async fn put_file(
    node: &Node,
    put: Put,
    fds: Vec<OwnedFd>,
    out: Outbox,
) -> Result<Value, Failure> {
    few_tags(&put.tags)?;
    let fd = fds.into_iter().next().ok_or_else(no_descriptor)?;
    let cancel = Cancel::default();
    let source = DescriptorSource::new(fd, cancel.0.clone()).map_err(|err| unusable(&err))?;
    let total = source.len().or(put.len);
    let source: Box<dyn Source> = match source.len() {
        Some(_) => Box::new(source),
        None => Box::new(Confirmed::new(source, out.clone())),
    };
    let progress: OnProgress = Arc::new(move |done, stored| {
        out.progress(done, total);
        if stored.is_some() {
            out.note(WAITING);
        }
    });
    let target = put.path.clone().map(Target::Path);
    let stored = node.put(put, source, progress).await;
    value(&stored.map_err(|err| failure(&err, target.as_ref()))?)
}

pub(super) async fn put_many(
    node: &Node,
    many: PutMany,
    fds: Vec<OwnedFd>,
    out: Outbox,
) -> Result<Value, Failure> {
    if many.items.len() > ITEMS_MAX {
        return Err(Failure::new(Code::Usage, format!("more than {ITEMS_MAX} items in a request")));
    }
    few_tags(&many.tags)?;
    let cancel = Cancel::default();
    let mut sources: Vec<Box<dyn Source>> = Vec::with_capacity(fds.len());
    for fd in fds {
        let source = DescriptorSource::new(fd, cancel.0.clone()).map_err(|err| unusable(&err))?;
        sources.push(Box::new(source));
    }
    let len = |item: &PutItem| if let PutWhat::File { len } = item.what { len } else { 0 };
    let total = many.items.iter().map(len).fold(0, u64::saturating_add);
    let noted = AtomicBool::new(false);
    let progress: OnProgress = Arc::new(move |done, stored| {
        if stored.is_none() {
            out.progress(done, Some(total));
        } else if !noted.swap(true, Ordering::Relaxed) {
            out.note(WAITING);
        }
    });
    let done = node.put_many(many, sources, progress).await;
    let ManyStored { mut stored, failed } = done.map_err(|err| failure(&err, None))?;
    stored.failed.extend(failed.into_iter().map(|(path, err)| {
        let error = failure(&err, Some(&Target::Path(path.clone())));
        PutFailed { path, error }
    }));
    value(&stored)
}

pub(super) async fn write_file(
    node: &Node,
    write: Write,
    fds: Vec<OwnedFd>,
    out: Outbox,
) -> Result<Value, Failure> {
    let fd = fds.into_iter().next().ok_or_else(no_descriptor)?;
    let cancel = Cancel::default();
    let source = DescriptorSource::new(fd, cancel.0.clone()).map_err(|err| unusable(&err))?;
    let source: Box<dyn Source> = match source.len() {
        Some(_) => Box::new(source),
        None => Box::new(Confirmed::new(source, out)),
    };
    let Write { path, offset } = write;
    let written = node.work().write(&path, offset, source).await;
    let written = written.map_err(|err| of_work(&err, &path))?;
    let Written { hash, size, bytes } = written;
    value(&WrittenInfo { path, hash, size, written: bytes })
}

pub(super) async fn get_file(
    node: &Node,
    get: Get,
    fds: Vec<OwnedFd>,
    out: Outbox,
) -> Result<Value, Failure> {
    let fd = fds.into_iter().next().ok_or_else(no_descriptor)?;
    let cancel = Cancel::default();
    let sink = DescriptorSink::new(fd, get.seekable, cancel.0.clone());
    let sink = Arc::new(sink.map_err(|err| unusable(&err))?);
    let target = get.target.clone();
    let progress: OnProgress = Arc::new(move |done, total| out.progress(done, total));
    let fetched = node.get(get, sink, progress).await;
    value(&fetched.map_err(|err| failure(&err, Some(&target)))?)
}

/// What the command sees at the path tells whether the daemon sees the same there.
pub(super) async fn share_path(
    node: &Node,
    share: Share,
    fds: Vec<OwnedFd>,
    out: Outbox,
) -> Result<Value, Failure> {
    let fd = fds.into_iter().next().ok_or_else(no_descriptor)?;
    let stat = rustix::fs::fstat(&fd).map_err(|err| unusable(&err.into()))?;
    let target = Target::Path(share.path.clone());
    let progress: OnProgress = Arc::new(move |done, total| out.progress(done, total));
    let shared = node.share(share, Some((stat.st_dev, stat.st_ino)), progress).await;
    value(&shared.map_err(|err| failure(&err, Some(&target)))?)
}

/// Ends the thread that waits for a descriptor when the work that it is for is dropped.
#[derive(Default)]
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn few_tags(tags: &[FileTag]) -> Result<(), Failure> {
    match tags.len() {
        0..=TAGS_MAX => Ok(()),
        many => Err(Failure::new(
            Code::Usage,
            format!("{many} tags are too many: a file has at most {TAGS_MAX}"),
        )
        .hint("directories order files as well:  p2pfs help mv")),
    }
}

fn no_descriptor() -> Failure {
    Failure::new(Code::Usage, "the request came without its descriptor")
}

fn unusable(err: &std::io::Error) -> Failure {
    Failure::new(Code::Failed, format!("the descriptor cannot be used: {err}"))
}
