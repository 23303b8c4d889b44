//! The settings of a daemon and where each of them comes from: default < `config.toml` < variable
//! < flag. Owns the list of keys, the reading of `config.toml` and the typed [`Settings`] that a
//! node takes; it starts nothing and creates nothing.
//!
//! Invariant: every value knows its source, and an error about a value names that source.

mod parse;

pub use parse::{
    Balance, HostPort, ParseError, balance, host_port, label, listen_addr, replicas, switch,
};

use crate::wire::control::Setting;
use crate::{paths, text};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Every key, as a flag writes it. `config-dir` cannot be in the file that it leads to.
pub const KEYS: [&str; 18] = [
    "config-dir",
    "data-dir",
    "socket",
    "listen",
    "bootstrap",
    "name",
    "zone",
    "capacity",
    "replicas",
    "balance",
    "repair-delay",
    "repair-rate",
    "limit-up",
    "limit-down",
    "history",
    "gc-grace",
    "open",
    "no-lan-discovery",
];

/// Number of replicas when nobody says otherwise.
pub const REPLICAS: u8 = 3;
/// Most replicas: a chunk has 8 candidates.
pub const REPLICAS_MAX: u8 = 8;
/// Longest file of settings that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// A line of `config.toml`, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => {
                write!(f, "{}:{line}", text::shown_path(path))
            }
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Why settings cannot be used. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("cannot read {}: {why}", text::shown_path(.path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The file is not TOML.
    #[error("{at}: {why}")]
    Syntax {
        /// Where.
        at: Source,
        /// What is wrong.
        why: String,
    },
    /// The file has a key that does not exist.
    #[error(
        "{at}: unknown key `{}`{}",
        text::shown(.key),
        .near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default()
    )]
    UnknownKey {
        /// Where.
        at: Source,
        /// The key.
        key: String,
        /// The most similar key, when one is similar.
        near: Option<&'static str>,
    },
    /// A value does not fit its key.
    #[error("{at}: {key}: {why}")]
    Value {
        /// Where.
        at: Source,
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// No home directory is known and no directory was named.
    #[error("no home directory is known")]
    NoHome,
}

/// What one or more sources say, as text, by key. A later [`Layer::set`] wins.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    values: BTreeMap<&'static str, (Vec<OsString>, Source)>,
}

impl Layer {
    /// Nothing said.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key of [`KEYS`]; several values for a repeatable one.
    pub fn set(&mut self, key: &'static str, values: Vec<OsString>, source: Source) {
        self.values.insert(key, (values, source));
    }

    fn get(&self, key: &str) -> Option<&(Vec<OsString>, Source)> {
        self.values.get(key)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        let (values, _) = self.get(key)?;
        let path = Path::new(values.last()?);
        // A relative path means here and now, also for a daemon that changes its directory later.
        Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }

    /// Takes from `lower` what this layer does not say.
    #[must_use]
    pub fn over(mut self, lower: Self) -> Self {
        for (key, value) in lower.values {
            self.values.entry(key).or_insert(value);
        }
        self
    }

    /// What `config.toml` in `dir` says; nothing when there is none.
    fn file(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(paths::CONFIG_FILE);
        let unreadable = |why: String| ConfigError::Unreadable { path: path.clone(), why };
        let len = match std::fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Self::new()),
            Err(err) => return Err(unreadable(text::reason(&err))),
        };
        if len > FILE_MAX {
            return Err(unreadable(format!("it is larger than {}", text::size(FILE_MAX))));
        }
        let content =
            std::fs::read_to_string(&path).map_err(|err| unreadable(text::reason(&err)))?;
        Self::parse(&path, &content)
    }

    fn parse(path: &Path, content: &str) -> Result<Self, ConfigError> {
        let at = |offset: usize| Source::File {
            path: path.to_owned(),
            line: 1 + content.bytes().take(offset).filter(|&byte| byte == b'\n').count(),
        };
        let table = DeTable::parse(content).map_err(|err| ConfigError::Syntax {
            at: at(err.span().map_or(0, |span| span.start)),
            why: err.message().replace('\n', " "),
        })?;
        let mut layer = Self::new();
        for (name, value) in table.get_ref() {
            let at = at(name.span().start);
            let wanted = name.get_ref().replace('_', "-");
            let key = KEYS.iter().find(|&&key| key == wanted && key != "config-dir");
            let Some(&key) = key else {
                let key = name.get_ref().to_string();
                return Err(ConfigError::UnknownKey { at, near: nearest(&wanted), key });
            };
            let values = texts(value).ok_or_else(|| ConfigError::Value {
                at: at.clone(),
                key,
                why: "a text, a number, true, false or a list of texts is expected".into(),
            })?;
            if layer.values.insert(key, (values, at.clone())).is_some() {
                return Err(ConfigError::Value { at, key, why: "it is there twice".into() });
            }
        }
        Ok(layer)
    }
}

/// A TOML value as the texts that a flag would have had.
fn texts(value: &Spanned<DeValue<'_>>) -> Option<Vec<OsString>> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(OsString::from(&**text)),
        DeValue::Integer(number) => Some(number.to_string().into()),
        DeValue::Boolean(yes) => Some(yes.to_string().into()),
        _ => None,
    };
    match value.get_ref() {
        DeValue::Array(values) => values.iter().map(|value| one(value.get_ref())).collect(),
        value => one(value).map(|text| vec![text]),
    }
}

/// The key that was probably meant.
fn nearest(word: &str) -> Option<&'static str> {
    let best = KEYS.iter().map(|&key| (distance(word, key), key)).min()?;
    (best.0 <= 1 + best.1.len() / 4).then_some(best.1)
}

/// Levenshtein's edit distance in bytes, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The directories and the socket, which every command needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `config.toml`, swarm key, owner key.
    pub config_dir: PathBuf,
    /// Node key, segments, tables.
    pub data_dir: PathBuf,
    /// Where the daemon listens for commands.
    pub socket: PathBuf,
}

impl Places {
    /// Finds the places. `given` is what flags and variables say; `config.toml` is read only when
    /// they do not name the socket.
    pub fn resolve(given: &Layer) -> Result<Self, ConfigError> {
        let config_dir = given.path("config-dir").or_else(paths::config_dir);
        let file = match &config_dir {
            Some(dir) if given.get("socket").is_none() && given.get("data-dir").is_none() => {
                Layer::file(dir)?
            }
            _ => Layer::new(),
        };
        Self::from_layers(given, &file)
    }

    fn from_layers(given: &Layer, file: &Layer) -> Result<Self, ConfigError> {
        let data_dir = given.path("data-dir").or_else(|| file.path("data-dir"));
        // Who names another data directory means the daemon that works in it: only a flag or a
        // variable for the socket itself counts then.
        let socket = match given.get("data-dir") {
            Some(_) => given.path("socket"),
            None => given.path("socket").or_else(|| file.path("socket")),
        };
        let (data_dir, socket) = match (data_dir.or_else(paths::data_dir), socket) {
            (Some(data_dir), Some(socket)) => (data_dir, socket),
            (Some(data_dir), None) => (data_dir.clone(), paths::socket_in(&data_dir)),
            (None, Some(socket)) => (PathBuf::new(), socket),
            (None, None) => return Err(ConfigError::NoHome),
        };
        let config_dir = given.path("config-dir").or_else(paths::config_dir).unwrap_or_default();
        Ok(Self { config_dir, data_dir, socket })
    }
}

/// All settings of a daemon, typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Directories and socket, all absolute.
    pub places: Places,
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Peers to dial at the start.
    pub bootstrap: Vec<HostPort>,
    /// Name of the node; none: two words from its key.
    pub name: Option<String>,
    /// Zone of the node; none: its machine.
    pub zone: Option<String>,
    /// Bytes that it offers; none: 80 % of the free space, leaving 1 GiB.
    pub capacity: Option<u64>,
    /// Number of replicas of what is put at this daemon.
    pub replicas: u8,
    /// Which holders are preferred.
    pub balance: Balance,
    /// How long a node may be away before its chunks are copied.
    pub repair_delay: Duration,
    /// Bytes per second that making missing copies may take; 0: no limit.
    pub repair_rate: u64,
    /// Bytes per second that may go to others; 0: no limit.
    pub limit_up: u64,
    /// Bytes per second that may come from others; 0: no limit.
    pub limit_down: u64,
    /// How long what was removed or replaced can be restored.
    pub history: Duration,
    /// How long a chunk stays that nothing needs any more.
    pub gc_grace: Duration,
    /// Whether a swarm that this daemon makes lets everybody in.
    pub open: bool,
    /// Whether it neither announces itself on the local network nor looks for its swarm there.
    pub no_lan_discovery: bool,
    /// Each key with its value and its source, in the order of [`KEYS`].
    pub rows: Vec<Setting>,
}

impl Settings {
    /// Puts the layers together. `given` is what flags and variables say.
    pub fn resolve(given: Layer) -> Result<Self, ConfigError> {
        let config_dir = given.path("config-dir").or_else(paths::config_dir);
        let config_dir = config_dir.ok_or(ConfigError::NoHome)?;
        let file = Layer::file(&config_dir)?;
        let mut places = Places::from_layers(&given, &file)?;
        if places.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::NoHome);
        }
        places.config_dir = config_dir;
        let mut reader = Reader { layer: given.over(file), rows: Vec::new() };
        reader.place("config-dir", &places.config_dir);
        reader.place("data-dir", &places.data_dir);
        reader.place("socket", &places.socket);
        let mut settings = Self {
            places,
            listen: reader.list("listen", &["[::]:4000"], listen_addr)?,
            bootstrap: reader.list("bootstrap", &[], host_port)?,
            name: reader.maybe("name", "two words from the node key", label)?,
            zone: reader.maybe("zone", "this machine", label)?,
            capacity: reader.maybe("capacity", "80 % of the free space", parse::capacity)?,
            replicas: reader.one("replicas", &REPLICAS.to_string(), replicas)?,
            balance: reader.one("balance", "auto", balance)?,
            repair_delay: reader.one("repair-delay", "10min", parse::duration)?,
            repair_rate: reader.one("repair-rate", "100MiB", parse::capacity)?,
            limit_up: reader.one("limit-up", "none", parse::rate)?,
            limit_down: reader.one("limit-down", "none", parse::rate)?,
            history: reader.one("history", "30d", parse::duration)?,
            gc_grace: reader.one("gc-grace", "1h", parse::duration)?,
            open: reader.one("open", "false", switch)?,
            no_lan_discovery: reader.one("no-lan-discovery", "false", switch)?,
            rows: Vec::new(),
        };
        settings.rows = reader.rows;
        Ok(settings)
    }
}

/// Turns texts into typed values and notes each of them for `p2pfs config`.
struct Reader {
    layer: Layer,
    rows: Vec<Setting>,
}

impl Reader {
    fn place(&mut self, key: &'static str, value: &Path) {
        let source = self.layer.get(key).map_or(Source::Default, |(_, source)| source.clone());
        self.row(key, text::shown_path(value), &source);
    }

    fn row(&mut self, key: &str, value: String, source: &Source) {
        self.rows.push(Setting { key: key.into(), value, source: source.to_string() });
    }

    fn list<T: fmt::Display>(
        &mut self,
        key: &'static str,
        default: &[&str],
        parse: fn(&str) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ConfigError> {
        let default = || (default.iter().map(OsString::from).collect(), Source::Default);
        let (texts, source) = self.layer.get(key).cloned().unwrap_or_else(default);
        let values = texts.iter().map(|text| read(key, text, &source, parse));
        let values = values.collect::<Result<Vec<T>, _>>()?;
        let shown: Vec<String> = values.iter().map(T::to_string).collect();
        self.row(key, shown.join(", "), &source);
        Ok(values)
    }

    fn one<T>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: fn(&str) -> Result<T, ParseError>,
    ) -> Result<T, ConfigError> {
        let given = self.layer.get(key).cloned();
        let (texts, source) = given.unwrap_or_else(|| (vec![default.into()], Source::Default));
        let [text] = &texts[..] else {
            return Err(ConfigError::Value {
                at: source,
                key,
                why: "one value is expected".into(),
            });
        };
        let value = read(key, text, &source, parse)?;
        self.row(key, text.to_string_lossy().into_owned(), &source);
        Ok(value)
    }

    /// Like [`Reader::one`], where nothing is a value of its own, described by `otherwise`.
    fn maybe<T>(
        &mut self,
        key: &'static str,
        otherwise: &str,
        parse: fn(&str) -> Result<T, ParseError>,
    ) -> Result<Option<T>, ConfigError> {
        if self.layer.get(key).is_some() {
            return self.one(key, "", parse).map(Some);
        }
        self.row(key, otherwise.into(), &Source::Default);
        Ok(None)
    }
}

fn read<T>(
    key: &'static str,
    text: &OsStr,
    source: &Source,
    parse: fn(&str) -> Result<T, ParseError>,
) -> Result<T, ConfigError> {
    let value = |why: String| ConfigError::Value { at: source.clone(), key, why };
    let text = text.to_str().ok_or_else(|| value("it is not UTF-8".into()))?;
    parse(text).map_err(|err| value(err.to_string()))
}

#[cfg(test)]
mod tests;
