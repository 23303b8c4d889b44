//! How single values are read from text, the same for a flag, a variable and `config.toml`. Each
//! reader says in one sentence what is wrong and what would be right.

use super::REPLICAS_MAX;
use crate::text::{self, shown};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a text is not the value that was wanted: a sentence for the person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// Which holders are preferred when there is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Both count.
    #[default]
    Auto,
    /// The one with most room.
    LeastStored,
    /// The one that answers fastest.
    LeastLatency,
}

/// A place to dial: a host name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The name or address, an IPv6 address without its brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads `host:port`, an IPv6 address in brackets.
pub fn host_port(text: &str) -> Result<HostPort, ParseError> {
    let text = text.trim();
    let wrong = |why: String| Err(ParseError(why));
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return wrong(format!("`{}`: the bracket is not closed", shown(text)));
        };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return wrong(format!("`{}` is not an IPv6 address", shown(host)));
        }
        (host, rest.strip_prefix(':'))
    } else {
        match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                let right = "write an IPv6 address in brackets, e.g. [::1]:4000";
                return wrong(format!("`{}`: {right}", shown(text)));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let Some(port) = port else {
        return wrong(format!("missing port in `{0}`, e.g. {0}:4000", shown(text)));
    };
    let good = |c: char| c.is_alphanumeric() || "-_.:%".contains(c);
    if host.is_empty() || host.len() > 253 || !host.chars().all(good) {
        return wrong(format!("`{}` is not a host name", shown(host)));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(HostPort { host: host.to_owned(), port }),
        _ => wrong(format!("`{}` is not a port (1 to 65535)", shown(port))),
    }
}

/// Reads an address to listen on: `192.168.1.2:4000`, `[::]:4000`, or `:4000` for all addresses.
/// Port 0 lets the system choose.
pub fn listen_addr(text: &str) -> Result<SocketAddr, ParseError> {
    let text = text.trim();
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let port = text.rsplit_once(':').map(|(_, port)| port);
    Err(ParseError(match port.map(str::parse::<u16>) {
        Some(Ok(port)) if text.starts_with(':') && text.matches(':').count() == 1 => {
            return Ok(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)));
        }
        Some(Ok(_)) => {
            format!("`{}` is not an address to listen on, e.g. [::]:4000", shown(text))
        }
        Some(Err(_)) => {
            format!("`{}` is not a port (0 to 65535)", shown(port.unwrap_or_default()))
        }
        None => format!("missing port in `{0}`, e.g. {0}:4000", shown(text)),
    }))
}

/// Reads a node's name or zone: 1 to 32 letters, digits, `-`, `_` or `.`. A name that could be
/// taken for the prefix of an id is refused.
pub fn label(text: &str) -> Result<String, ParseError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 32 || !text.chars().all(good) {
        let right = "1 to 32 letters, digits, `-`, `_` or `.`";
        return Err(ParseError(format!("`{}` is not a name: {right}", shown(text))));
    }
    if text.len() >= 8 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(ParseError(format!("`{text}` could be taken for the beginning of an id")));
    }
    Ok(text.to_owned())
}

/// Reads a number of replicas.
pub fn replicas(text: &str) -> Result<u8, ParseError> {
    match text.trim().parse::<u8>() {
        Ok(count) if (1..=REPLICAS_MAX).contains(&count) => Ok(count),
        _ => Err(ParseError(format!("`{}` must be 1 to {REPLICAS_MAX}", shown(text)))),
    }
}

/// Reads a preference among holders.
pub fn balance(text: &str) -> Result<Balance, ParseError> {
    match text {
        "auto" => Ok(Balance::Auto),
        "least-stored" => Ok(Balance::LeastStored),
        "least-latency" => Ok(Balance::LeastLatency),
        _ => {
            let right = "`auto`, `least-stored` or `least-latency` is expected";
            Err(ParseError(format!("`{}`: {right}", shown(text))))
        }
    }
}

/// Reads yes or no.
pub fn switch(text: &str) -> Result<bool, ParseError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" | "on" => Ok(true),
        "false" | "no" | "0" | "off" | "" => Ok(false),
        _ => Err(ParseError(format!("`{}`: true or false is expected", shown(text)))),
    }
}

/// Reads the bytes that a node offers.
pub(super) fn capacity(text: &str) -> Result<u64, ParseError> {
    text::parse_size(text).map_err(ParseError)
}

/// Reads a limit in bytes per second; 0: none.
pub(super) fn rate(text: &str) -> Result<u64, ParseError> {
    text::parse_rate(text).map_err(ParseError)
}

/// Reads a span of time.
pub(super) fn duration(text: &str) -> Result<Duration, ParseError> {
    text::parse_duration(text).map_err(ParseError)
}
