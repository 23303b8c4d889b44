//! `mkdir` and `mv`.

use crate::cli::args::{MkdirArgs, MvArgs};
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text::shown_bytes;
use crate::wire::control::{Code, Failure, FileKind, Moved, PathText, Target};

pub(in crate::cli) async fn mkdir(
    ui: &Ui,
    client: &Client,
    args: &MkdirArgs,
) -> Result<(), CommandError> {
    for name in &args.paths {
        let path = target::path(name)?;
        client.mkdir(path.clone(), args.parents).await?;
        if ui.json {
            ui.object(&Moved { path })?;
        }
    }
    Ok(())
}

pub(in crate::cli) async fn mv(
    ui: &Ui,
    client: &Client,
    args: &MvArgs,
) -> Result<(), CommandError> {
    let names = args.names.iter().map(|name| target::path(name));
    let names = names.collect::<Result<Vec<PathText>, _>>()?;
    let Some((to, from)) = names.split_last() else { return Ok(()) };
    if from.len() > 1 && client.stat(Target::Path(to.clone())).await?.info.kind != FileKind::Dir {
        let to = shown_bytes(&to.0);
        return Err(Failure::new(Code::Usage, format!("{to} is not a directory"))
            .hint("several can only be moved into a directory")
            .into());
    }
    for from in from {
        let moved = client.mv(from.clone(), to.clone()).await?;
        if ui.json {
            ui.object(&moved)?;
        } else {
            ui.say(format_args!("{} is {} now", shown_bytes(&from.0), shown_bytes(&moved.path.0)));
        }
    }
    Ok(())
}
