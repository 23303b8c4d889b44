//! A terminal: a pseudo terminal in which a command believes that somebody looks at it.

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Read;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longest time that a command, or the start of a daemon, may take.
const DEADLINE: Duration = Duration::from_secs(90);

/// A command that runs on a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    said: Receiver<String>,
    text: String,
}

impl Terminal {
    pub(crate) fn run(command: &mut Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let size = Winsize { ws_row: 50, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let open = || {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(&name, flags, Mode::empty()).unwrap()
        };
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        // The command holds copies that this process must not: their end is the end of the text.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let (tell, said) = channel();
        std::thread::spawn(move || {
            let mut ours = File::from(ours);
            let mut buf = [0; 4096];
            // A terminal that nobody uses any more answers with an error.
            while let Ok(n @ 1..) = ours.read(&mut buf) {
                let text = String::from_utf8_lossy(&buf[..n]).replace('\r', "");
                if tell.send(text).is_err() {
                    return;
                }
            }
        });
        Self { child, said, text: String::new() }
    }

    /// What was said up to the line that begins with `last`.
    pub(crate) fn until(&mut self, last: &str) -> String {
        let begun = Instant::now();
        loop {
            let mut end = 0;
            for line in self.text.split_inclusive('\n') {
                end += line.len();
                if line.starts_with(last) && line.ends_with('\n') {
                    return self.text[..end].to_owned();
                }
            }
            let left = DEADLINE.saturating_sub(begun.elapsed());
            match self.said.recv_timeout(left) {
                Ok(more) => self.text.push_str(&more),
                Err(_) => panic!("`{last}` was not said, but: {}", self.text),
            }
        }
    }

    /// Everything that was said, once the command has ended.
    pub(crate) fn finish(mut self) -> String {
        let begun = Instant::now();
        while let Ok(more) = self.said.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
            self.text.push_str(&more);
        }
        std::mem::take(&mut self.text)
    }

    /// Ends the command as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        // One that has ended already cannot be killed, and is waited for all the same.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.kill();
    }
}
