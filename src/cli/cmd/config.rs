//! `config`: every setting with its value and its source; those in force when a daemon runs,
//! otherwise those that a daemon started now would have.

use crate::cli::args::Cli;
use crate::cli::error::CommandError;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::config::{Layer, Places, Settings};
use crate::wire::control::{Code, Setting};
use clap::CommandFactory;

pub(in crate::cli) async fn run(ui: &Ui, given: Layer) -> Result<(), CommandError> {
    let socket = Places::resolve(&given)?.socket;
    let settings = match Client::new(socket).settings().await {
        Ok(items) => items.all().await?,
        Err(failure) if failure.code == Code::NoDaemon => {
            let settings = future(given)?;
            ui.say("no daemon runs; one that is started now would have:");
            settings
        }
        Err(failure) => return Err(failure.into()),
    };
    let mut table =
        Table::new(ui, &[("KEY", Align::Left), ("VALUE", Align::Left), ("SOURCE", Align::Left)]);
    for setting in &settings {
        if ui.json {
            ui.object(setting)?;
        } else {
            let Setting { key, value, source } = setting.clone();
            let value = if value.is_empty() { "-".into() } else { value };
            table.row(vec![key, value, source])?;
        }
    }
    if !ui.json {
        table.finish()?;
    }
    Ok(())
}

/// The settings of a daemon without flags, variables included.
fn future(given: Layer) -> Result<Vec<Setting>, CommandError> {
    let daemon = Cli::command().try_get_matches_from(["p2pfs", "daemon"]);
    let variables = match daemon {
        Ok(matches) => crate::cli::given(&matches),
        Err(err) => {
            let message = crate::cli::sentence(&err);
            return Err(crate::wire::control::Failure::new(Code::Usage, message).into());
        }
    };
    Ok(Settings::resolve(given.over(variables))?.rows)
}
