//! `id` and `stop`: the node of this machine.

use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text::shown;
use serde::Serialize;

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

pub(in crate::cli) async fn stop(ui: &Ui, client: &Client) -> Result<(), CommandError> {
    client.stop().await?;
    if ui.json {
        return ui.object(&Stopped { stopped: true });
    }
    ui.say("the daemon has stopped");
    Ok(())
}
