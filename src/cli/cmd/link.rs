//! `link`: one word that leads a member to a file.

use crate::cli::args::LinkArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text::{shown, utc};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &LinkArgs,
) -> Result<(), CommandError> {
    let target = target::parse(&args.target)?;
    let ttl_ms = args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let linked = client.link(target.clone(), ttl_ms).await;
    let linked = linked.map_err(|failure| target::explain(&target, failure))?;
    if ui.json {
        return ui.object(&linked);
    }
    let holders = match linked.holders.is_empty() {
        true => "nobody".to_owned(),
        false => shown(&linked.holders.join(", ")).into_owned(),
    };
    let ends = linked.expires_ms.map(|ms| format!(" until {}", utc(ms))).unwrap_or_default();
    ui.say(format_args!("members of this swarm can get it{ends}; asked first: {holders}"));
    ui.data(&linked.link)
}
