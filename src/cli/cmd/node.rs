//! `id`, `drain` and `stop`: the node of this machine.

use super::count;
use crate::cli::args::DrainArgs;
use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text::shown;
use crate::wire::control::{Code, Failure, Progress, Status};
use serde::Serialize;
use std::time::Duration;

/// How often is looked whether the node is empty.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What `stop --json` prints.
#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

pub(in crate::cli) async fn id(ui: &Ui, client: &Client) -> Result<(), CommandError> {
    let identity = client.id().await?;
    if ui.json {
        return ui.object(&identity);
    }
    ui.data(identity.id)?;
    ui.explain(format_args!("{}, p2pfs {}", shown(&identity.name), shown(&identity.version)));
    Ok(())
}

pub(in crate::cli) async fn drain(
    ui: &Ui,
    client: &Client,
    args: &DrainArgs,
) -> Result<(), CommandError> {
    let mut status = client.drain(!args.cancel).await?;
    if !args.cancel && !args.no_wait {
        status = empty(ui, client, status).await?;
        if !status.draining {
            let why = "somebody has stopped the emptying of this node; it takes new data again";
            return Err(Failure::new(Code::Failed, why).hint("p2pfs drain").into());
        }
    }
    if ui.json {
        return ui.object(&status);
    }
    match (args.cancel, status.chunks_here) {
        (true, _) => ui.say("this node takes new data again"),
        (false, 0) => ui.say("this node is empty; it can go:  p2pfs stop"),
        (false, left) => {
            let left = count(left, "chunk");
            ui.say(format_args!("this node is being emptied: {left} left; how far:  p2pfs status"));
        }
    }
    Ok(())
}

/// Waits until the node holds no chunk any more, or somebody has stopped that.
async fn empty(ui: &Ui, client: &Client, mut status: Status) -> Result<Status, CommandError> {
    let meter = ui.meter();
    let total = status.bytes_here;
    if status.chunks_here > 0 {
        ui.say(format_args!("emptying this node of {}", count(status.chunks_here, "chunk")));
    }
    while status.draining && status.chunks_here > 0 {
        let done = total.saturating_sub(status.bytes_here);
        meter.update(Progress { done, total: Some(total) });
        tokio::time::sleep(LOOK_EVERY).await;
        status = client.status().await?;
    }
    meter.clear();
    Ok(status)
}

pub(in crate::cli) async fn stop(ui: &Ui, client: &Client) -> Result<(), CommandError> {
    client.stop().await?;
    if ui.json {
        return ui.object(&Stopped { stopped: true });
    }
    ui.say("the daemon has stopped");
    Ok(())
}
