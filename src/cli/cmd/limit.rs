//! `limit`: how fast bytes may go to other nodes and come from them, and how fast they do.

use crate::cli::args::LimitArgs;
use crate::cli::error::CommandError;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::text;
use crate::wire::control::{Code, Failure, Limit, RateInfo};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &LimitArgs,
) -> Result<(), CommandError> {
    let LimitArgs { up, down, peer } = args.clone();
    if peer.is_some() && up.is_none() && down.is_none() {
        return Err(Failure::new(Code::Usage, "--peer sets a limit: which one is not said")
            .hint("p2pfs limit --up 1MiB/s --peer PEER")
            .hint("to see all limits:  p2pfs limit")
            .into());
    }
    let limits = client.limit(Limit { peer, up, down }).await?;
    if ui.json {
        return ui.object(&limits);
    }
    let mut table = Table::new(
        ui,
        &[
            ("PEER", Align::Left),
            ("UP", Align::Right),
            ("DOWN", Align::Right),
            ("NOW UP", Align::Right),
            ("NOW DOWN", Align::Right),
        ],
    );
    table.row(row("all", &limits.all))?;
    for peer in &limits.peers {
        table.row(row(&peer.name, &peer.rates))?;
    }
    table.finish()?;
    Ok(())
}

fn row(name: &str, rates: &RateInfo) -> Vec<String> {
    let limit = |rate: Option<u64>| rate.map_or_else(|| "-".into(), per_second);
    let (now_up, now_down) = (per_second(rates.now_up), per_second(rates.now_down));
    vec![name.into(), limit(rates.up), limit(rates.down), now_up, now_down]
}

fn per_second(bytes: u64) -> String {
    format!("{}/s", text::size(bytes))
}
