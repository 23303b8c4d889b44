//! `generate`: the manual pages and the shell completions, from the same definition as the help.
//! Needs no daemon and no home directory.
//!
//! The completions are the registration scripts of `clap_complete`'s dynamic engine, with `p2pfs`
//! from the PATH and not a machine's own path in them: the installed executable answers each
//! completion, so that flags are never stale and hashes, names and peers come from the daemon.

use crate::cli::args::{Cli, Generate, GenerateArgs};
use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::text::{reason, shown};
use crate::wire::control::{Code, Failure};
use clap::CommandFactory;
use clap_complete::env::Shells;
use std::io;
use std::path::Path;

/// The variable by which a registration script asks; `CompleteEnv` listens to it.
const VARIABLE: &str = "COMPLETE";
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
        let dir = dir.to_string_lossy();
        Failure::new(Code::Failed, format!("cannot write into {}: {why}", shown(&dir)))
    })?;
    ui.say(format_args!("written to {}", shown(&dir.to_string_lossy())));
    Ok(())
}

fn man(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, dir)
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
