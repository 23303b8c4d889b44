//! `mount`, `umount` and `write`: the swarm's files as a disk, and a part of one without it.

use super::count;
use crate::cli::args::{MountArgs, UmountArgs, WriteArgs};
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text::{self, shown_bytes, shown_path};
use crate::wire::control::{Code, Failure, Mount, MountInfo, PathText, Umount, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

pub(in crate::cli) async fn mount(
    ui: &Ui,
    client: &Client,
    args: &MountArgs,
) -> Result<(), CommandError> {
    let mount = Mount {
        point: absolute(&args.dir)?,
        path: target::path(&args.path)?,
        read_only: args.read_only,
        allow_other: args.allow_other,
    };
    let info = client.mount(mount).await?;
    if ui.json {
        return ui.object(&info);
    }
    ui.say(format_args!("mounted: {}", line(&info)));
    Ok(())
}

pub(in crate::cli) async fn umount(
    ui: &Ui,
    client: &Client,
    args: &UmountArgs,
) -> Result<(), CommandError> {
    let umount = Umount { point: absolute(&args.dir)?, force: args.force };
    let info = client.umount(umount).await?;
    if ui.json {
        return ui.object(&info);
    }
    ui.say(format_args!("unmounted: {}", shown_path(&args.dir)));
    if info.edited > 0 {
        let (files, bytes) = (count(info.edited, "file"), text::size(info.edited_bytes));
        ui.say(format_args!("{files} ({bytes}) are here and not at the others yet; that goes on"));
    }
    Ok(())
}

pub(in crate::cli) async fn write(
    ui: &Ui,
    client: &Client,
    args: &WriteArgs,
) -> Result<(), CommandError> {
    let path = target::path(&args.path)?;
    let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(|err| {
        Failure::new(Code::Failed, format!("standard input cannot be read: {err}"))
    })?;
    let written = client.write_fd(input, Write { path, offset: args.offset }).await?;
    if ui.json {
        return ui.object(&written);
    }
    ui.data(written.hash)?;
    let (path, bytes) = (shown_bytes(&written.path.0), text::size(written.written));
    ui.say(format_args!("wrote {bytes} to {path}, which has {} now", text::size(written.size)));
    Ok(())
}

/// A mount in a line: `/mnt/swarm (/team, read-only)`.
pub(super) fn line(info: &MountInfo) -> String {
    let Mount { point, path, read_only, allow_other } = &info.mount;
    let mut notes = vec![shown_bytes(&path.0)];
    notes.extend(read_only.then(|| "read-only".to_owned()));
    notes.extend(allow_other.then(|| "for all users".to_owned()));
    format!("{} ({})", shown_bytes(&point.0), notes.join(", "))
}

/// The path as the daemon, which is somewhere else, understands it.
fn absolute(dir: &Path) -> Result<PathText, Failure> {
    let path = std::path::absolute(dir).map_err(|err| {
        let why = text::reason(&err);
        Failure::new(Code::Usage, format!("{} is not a path: {why}", shown_path(dir)))
    })?;
    Ok(PathText(path.into_os_string().into_vec()))
}
