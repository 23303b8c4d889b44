//! The executable: everything happens in the library.
//!
//! Rust starts a process with SIGPIPE ignored, so a reader that leaves early (`p2pfs ls | head`)
//! shows up as an error of a write; `cli::main` ends such a command without a word.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A shell that wants candidates for completion asks by an environment variable; the answer
    // ends the process.
    p2pfs::cli::complete();
    p2pfs::cli::main()
}
