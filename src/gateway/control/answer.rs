//! Requests whose answer is at hand: one value, or a list that is read page by page. Each becomes
//! one call of `node::api`.

use super::Outbox;
use super::failure::failure;
use crate::node::{Error, Node};
use crate::wire::control::{Code, Failure, Request, Target};
use serde_json::Value;
use tokio::sync::mpsc;

/// Items of a list that go together from the thread that reads it to its client.
const PAGE: usize = 64;
/// Pages that wait for a slow client.
const PAGES_QUEUED: usize = 4;

/// Requests whose answer is at hand, or one value.
pub(super) async fn answer(node: &Node, request: Request, out: &Outbox) -> Result<Value, Failure> {
    match request {
        Request::Rm(rm) => {
            let target = rm.target.clone();
            value(&node.rm(rm).await.map_err(|err| failure(&err, Some(&target)))?)
        }
        Request::Search(search) => {
            let found = node.search(search).await;
            let (found, searched) = found.map_err(|err| failure(&err, None))?;
            items(&found, out).await?;
            value(&searched)
        }
        Request::Mkdir { path, parents } => {
            let made = node.mkdir(&path, parents).await;
            value(&made.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::Mv { from, to } => {
            let moved = node.mv(&from, &to).await;
            value(&moved.map_err(|err| failure(&err.why, Some(&Target::Path(err.about))))?)
        }
        Request::Restore { path, recursive } => {
            let restored = node.restore(&path, recursive).await;
            value(&restored.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::History { path } => {
            let history = node.history(&path).await;
            items(&history.map_err(|err| failure(&err, Some(&Target::Path(path))))?, out).await
        }
        Request::Resolve { path, keep } => {
            let resolved = node.resolve(&path, keep.as_ref()).await;
            value(&resolved.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::Stat { target } => {
            value(&node.stat(&target).await.map_err(|err| failure(&err, Some(&target)))?)
        }
        Request::Link { target, ttl_ms } => {
            let linked = node.link(&target, ttl_ms).await;
            value(&linked.map_err(|err| failure(&err, Some(&target)))?)
        }
        Request::Scrub => value(&node.scrub().map_err(|err| failure(&err, None))?),
        Request::ScrubNow => {
            let scrubbed = node.scrub_now(|done, total| out.progress(done, Some(total))).await;
            value(&scrubbed.map_err(|err| failure(&err, None))?)
        }
        Request::Pin { path, wait } => {
            let pinned = node.pin(&path, wait, |done| out.progress(done, None)).await;
            value(&pinned.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::Unpin { path } => {
            let pinned = node.unpin(&path).await;
            value(&pinned.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::Unshare { what, path } => {
            let unshared = node.unshare(&what, path.as_ref()).await;
            value(&unshared.map_err(|err| failure(&err, Some(&Target::Path(what))))?)
        }
        Request::Pins => items(&node.pins(), out).await,
        Request::Chunks { target } => chunks(node, &target, out).await,
        request => answer_of_node(node, request, out).await,
    }
}

/// The same about the node itself and its peers.
async fn answer_of_node(node: &Node, request: Request, out: &Outbox) -> Result<Value, Failure> {
    match request {
        Request::Id => value(&node.identity()),
        Request::Connect { peer } => {
            value(&node.connect(&peer).await.map_err(|err| failure(&err, None))?)
        }
        Request::Approve { code } => {
            value(&node.approve(&code).await.map_err(|err| failure(&err, None))?)
        }
        Request::Deny { peer } => {
            value(&node.deny(&peer).await.map_err(|err| failure(&err, None))?)
        }
        Request::Limit(limit) => value(&node.limit(&limit).map_err(|err| failure(&err, None))?),
        Request::Drain { on } => value(&node.drain(on).await.map_err(|err| failure(&err, None))?),
        Request::Peers => items(&node.peers(), out).await,
        Request::Connections => items(&node.connections(), out).await,
        Request::Workers => items(&node.workers(), out).await,
        Request::Config => items(&node.settings(), out).await,
        _ => Err(Failure::new(Code::Usage, "not a request that this daemon knows")),
    }
}

pub(super) async fn items<T: serde::Serialize>(list: &[T], out: &Outbox) -> Result<Value, Failure> {
    for item in list {
        if out.item(item).await.is_err() {
            break;
        }
    }
    Ok(Value::Null)
}

/// The tree is read by a job of its own, so that a slow reader of a long list stops nobody else.
pub(super) async fn list<T: serde::Serialize + Send + 'static>(
    read: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<(), Error> + Send + 'static,
    target: Target,
    out: Outbox,
) -> Result<Value, Failure> {
    let (send, mut pages) = mpsc::channel::<Vec<T>>(PAGES_QUEUED);
    let reading = tokio::task::spawn_blocking(move || {
        let mut page = Vec::new();
        read(&mut |item| {
            page.push(item);
            page.len() < PAGE || send.blocking_send(std::mem::take(&mut page)).is_ok()
        })?;
        // Whoever has gone does not miss it.
        send.blocking_send(page).ok();
        Ok(())
    });
    'reading: while let Some(page) = pages.recv().await {
        for item in &page {
            if out.item(item).await.is_err() {
                break 'reading;
            }
        }
    }
    drop(pages);
    match reading.await {
        Ok(read) => read.map(|()| Value::Null).map_err(|err| failure(&err, Some(&target))),
        Err(_) => Err(Failure::new(Code::Failed, "the list could not be read")),
    }
}

async fn chunks(node: &Node, target: &Target, out: &Outbox) -> Result<Value, Failure> {
    let mut from = 0;
    loop {
        let page = node.chunks(target, from).await.map_err(|err| failure(&err, Some(target)))?;
        let Some(last) = page.last() else { return Ok(Value::Null) };
        from = last.index + 1;
        items(&page, out).await?;
    }
}

pub(super) fn value<T: serde::Serialize>(reply: &T) -> Result<Value, Failure> {
    Ok(serde_json::to_value(reply).expect("replies have text keys only"))
}
