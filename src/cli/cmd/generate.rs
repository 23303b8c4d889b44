//! `generate`: the manual pages and the shell completions, from the same definition as the help.
//! Needs no daemon and no home directory.
//!
//! The completions are the registration scripts of `clap_complete`'s dynamic engine, with `p2pfs`
//! from the PATH and not a machine's own path in them: the installed executable answers each
//! completion, so that flags are never stale and hashes, names and peers come from the daemon.

use crate::cli::args::{Cli, Generate, GenerateArgs};
use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::text::{reason, shown_path};
use crate::wire::control::{Code, Failure};
use clap::CommandFactory;
use clap_complete::env::Shells;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use serde::Serialize;
use std::io;
use std::path::Path;

/// The variable by which a registration script asks; `CompleteEnv` listens to it.
const VARIABLE: &str = "COMPLETE";
/// Where the examples begin in what stands below a command's options.
const EXAMPLES: &str = "Examples:\n";
/// Each shell and the file name under which it looks for a completion.
const FILES: [(&str, &str); 5] = [
    ("bash", "p2pfs.bash"),
    ("elvish", "p2pfs.elv"),
    ("fish", "p2pfs.fish"),
    ("powershell", "p2pfs.ps1"),
    ("zsh", "_p2pfs"),
];

pub(in crate::cli) fn run(ui: &Ui, args: &GenerateArgs) -> Result<(), CommandError> {
    let (dir, written) = match &args.what {
        Generate::Man { dir } => (dir, man(dir)),
        Generate::Completions { dir } => (dir, completions(dir)),
    };
    written.map_err(|err| {
        let why = reason(&err);
        Failure::new(Code::Failed, format!("cannot write into {}: {why}", shown_path(dir)))
    })?;
    if ui.json {
        return ui.object(&Written { dir: &dir.to_string_lossy() });
    }
    ui.say(format_args!("written to {}", shown_path(dir)));
    Ok(())
}

/// What `generate --json` prints.
#[derive(Serialize)]
struct Written<'a> {
    dir: &'a str,
}

fn man(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(command, dir)
}

/// The page of a command, and those of the commands below it.
fn pages(command: clap::Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below.clone(), dir)?;
    }
    let after = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let has_commands = command.has_subcommands();
    let man = Man::new(command);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    let (notes, examples) = after.split_once(EXAMPLES).unwrap_or((&after, ""));
    section(&mut page, "NOTES", notes)?;
    section(&mut page, "EXAMPLES", examples)?;
    man.render_version_section(&mut page)?;
    std::fs::write(dir.join(man.get_filename()), page)
}

/// A section whose lines stay as they are; none without text.
fn section(page: &mut Vec<u8>, name: &str, text: &str) -> io::Result<()> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let mut roff = Roff::new();
    roff.control("SH", [name]).control("nf", []);
    for line in text.trim_matches('\n').lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.to_writer(page)
}

fn completions(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let shells = Shells::builtins();
    for (name, file) in FILES {
        let shell = shells.completer(name).expect("all five are built in");
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "p2pfs", "p2pfs", "p2pfs", &mut script)?;
        std::fs::write(dir.join(file), script)?;
    }
    Ok(())
}
