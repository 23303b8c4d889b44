//! `history`: what happened to a name, and the versions that it has had.

use crate::cli::args::HistoryArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::text::{self, shown_bytes};
use crate::wire::control::{Deed, HistoryInfo};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &HistoryArgs,
) -> Result<(), CommandError> {
    let path = target::path(&args.path)?;
    let mut steps = client.history(path).await?;
    let columns = &[
        ("VERSION", Align::Right),
        ("HASH", Align::Left),
        ("SIZE", Align::Right),
        ("WHEN (UTC)", Align::Left),
        ("BY", Align::Left),
        ("WHAT", Align::Left),
    ];
    let mut table = Table::new(ui, columns);
    while let Some(step) = steps.next().await? {
        if ui.json {
            ui.object(&step)?;
            continue;
        }
        table.row(vec![
            step.version.map_or_else(|| "-".into(), |number| number.to_string()),
            step.hash.map_or_else(|| "-".into(), |hash| hash.short()),
            step.kind.map_or_else(|| "-".into(), |_| text::size(step.size)),
            text::utc(step.time_ms),
            step.by.clone(),
            what(&step),
        ])?;
    }
    if !ui.json {
        table.finish()?;
    }
    Ok(())
}

fn what(step: &HistoryInfo) -> String {
    let other = step.other.as_ref().map(|path| shown_bytes(&path.0));
    let mut words = match (step.what, other) {
        (Deed::Created, _) => "created".to_owned(),
        (Deed::Edited, _) => "edited".to_owned(),
        (Deed::Conflict, _) => "edited elsewhere, a conflict copy".to_owned(),
        (Deed::MovedFrom, Some(other)) => format!("moved here from {other}"),
        (Deed::MovedFrom, None) => "moved here".to_owned(),
        (Deed::MovedTo, Some(other)) => format!("moved to {other}"),
        (Deed::MovedTo, None) => "moved away".to_owned(),
        (Deed::Removed, _) => "removed".to_owned(),
        (Deed::Restored, _) => "restored".to_owned(),
    };
    if let Some(target) = &step.target {
        words += &format!(", link to {}", shown_bytes(&target.0));
    }
    if step.current {
        words += ", shown now";
    }
    words
}
