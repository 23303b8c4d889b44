//! Lets the content of a file through to a terminal as long as it is text. Binary data, and text
//! that could steer the terminal, never get there.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Standard output when it is a terminal.
#[derive(Default)]
pub(in crate::cli) struct TerminalText {
    /// The beginning of a character whose end has not arrived.
    pending: Vec<u8>,
    /// Whether something came that is not text.
    binary: bool,
}

impl TerminalText {
    /// Whether something was held back because it is not text.
    pub(in crate::cli) fn is_binary(&self) -> bool {
        self.binary
    }

    /// What of `bytes` can be shown now.
    fn check(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = std::mem::take(&mut self.pending);
        text.extend_from_slice(bytes);
        let good = match std::str::from_utf8(&text) {
            Ok(all) => all.len(),
            // No error length: the last character goes on in the next piece.
            Err(err) if err.error_len().is_none() => err.valid_up_to(),
            Err(_) => return Err(binary()),
        };
        self.pending = text.split_off(good);
        let steers = |&byte: &u8| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c);
        // C1 controls are two bytes in UTF-8: C2 80 to C2 9F.
        let c1 = text.windows(2).any(|pair| pair[0] == 0xc2 && pair[1] < 0xa0);
        if c1 || text.iter().any(|byte| steers(byte) || *byte == 0x7f) {
            return Err(binary());
        }
        Ok(text)
    }
}

fn binary() -> io::Error {
    io::Error::other("it is binary and does not go to a terminal")
}

impl AsyncWrite for TerminalText {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // A terminal takes what it is given; nothing else runs in this process meanwhile.
        let text = self.check(bytes).inspect_err(|_| self.binary = true)?;
        io::stdout().lock().write_all(&text)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(io::stdout().lock().flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_passes_in_any_pieces() {
        let text = "grün\tund 名前\n".as_bytes();
        for at in 0..text.len() {
            let mut gate = TerminalText::default();
            let mut shown = gate.check(&text[..at]).unwrap();
            shown.extend(gate.check(&text[at..]).unwrap());
            assert_eq!(shown, text);
        }
    }

    #[test]
    fn what_is_binary_or_steers_a_terminal_does_not_pass() {
        for bytes in [&b"a\0b"[..], b"\x1b[2J", b"\xff", "\u{9b}2J".as_bytes(), b"\x7f"] {
            assert!(TerminalText::default().check(bytes).is_err());
        }
    }
}
