//! A page of screens: text, orders and console blocks; what of it lasts from one run to the next.

use super::player::Player;
use regex::Regex;
use std::fmt;

/// A piece of a page.
enum Piece {
    /// A line that is kept as it is.
    Line(String),
    /// An order to the player, also a line.
    Order(String),
    /// A console block.
    Console(Vec<Step>),
}

impl Piece {
    fn steps(&self) -> Option<&[Step]> {
        if let Self::Console(steps) = self { Some(steps) } else { None }
    }
}

/// A command and what it says.
#[derive(Clone)]
struct Step {
    /// As it stands on the page, with its prompt; empty for what stands before the first command.
    line: String,
    said: Vec<String>,
}

pub(crate) struct Page {
    pieces: Vec<Piece>,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line == "```console" {
                let block = lines.by_ref().take_while(|line| *line != "```");
                pieces.push(Piece::Console(steps(block)));
            } else if line.starts_with("<!-- ") {
                pieces.push(Piece::Order(line.to_owned()));
            } else {
                pieces.push(Piece::Line(line.to_owned()));
            }
        }
        Self { pieces }
    }

    /// Plays everything; afterwards the page says what really came.
    pub(crate) fn play(&mut self, player: &mut Player) {
        for piece in &mut self.pieces {
            match piece {
                Piece::Line(_) => {}
                Piece::Order(order) => {
                    let order = order.trim_start_matches("<!-- ").trim_end_matches(" -->");
                    player.obey(order);
                }
                Piece::Console(steps) => {
                    for step in steps.iter_mut() {
                        let (machine, command) = prompt(&step.line).unwrap();
                        let said = player.type_in(machine, command);
                        step.said = said.lines().map(|line| line.trim_end().to_owned()).collect();
                    }
                }
            }
        }
    }

    /// Takes from `others` what the same commands say there.
    pub(crate) fn follow(&mut self, others: &[Self]) {
        let lines = |steps: &[Step]| -> Vec<String> {
            steps.iter().map(|step| step.line.clone()).collect()
        };
        let played = others.iter().flat_map(|page| &page.pieces).filter_map(Piece::steps);
        let played: Vec<&[Step]> = played.collect();
        for piece in &mut self.pieces {
            let Piece::Console(steps) = piece else { continue };
            if let Some(same) = played.iter().find(|other| lines(other) == lines(steps)) {
                *steps = same.to_vec();
            }
        }
    }

    /// The blocks as they are shown.
    pub(crate) fn consoles(&self) -> Vec<String> {
        let blocks = self.pieces.iter().filter(|piece| matches!(piece, Piece::Console(_)));
        blocks.map(ToString::to_string).collect()
    }
}

fn steps<'a>(block: impl Iterator<Item = &'a str>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block {
        match steps.last_mut() {
            Some(step) if prompt(line).is_none() => step.said.push(line.to_owned()),
            _ => steps.push(Step { line: line.to_owned(), said: Vec::new() }),
        }
    }
    steps
}

/// Machine and command of a line like `laptop$ p2pfs ls`.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (machine, command) = line.split_once("$ ")?;
    let machine_like = machine.chars().all(|c| c.is_ascii_lowercase());
    machine_like.then_some((if machine.is_empty() { "desk" } else { machine }, command))
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| write!(f, "{piece}"))
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) | Self::Order(line) => writeln!(f, "{line}"),
            Self::Console(steps) => {
                writeln!(f, "```console")?;
                for step in steps {
                    writeln!(f, "{}", step.line)?;
                    step.said.iter().try_for_each(|line| writeln!(f, "{line}"))?;
                }
                writeln!(f, "```")
            }
        }
    }
}

/// What is different in each run, and what stands for it: times, sizes, numbers of chunks, codes,
/// the places of a demo, and how far columns are apart.
const PASSING: &[(&str, &str)] = &[
    // What a daemon logs depends on how far it was when it was killed.
    (r"(?m)^\d{4}-\d\d-\d\dT\S+Z +INFO .*\n", ""),
    (r"(?m)^ *(Cached|Repair|Scrub)  .*\n", ""),
    (r"\b\d+(\.\d)? ([KMGTPE]i)?B(/s)?\b", "SIZE"),
    (r"\b\d+(\.\d+)? (ms|s|min|h|d)\b|\bnow\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b|\b\d{8}-\d{6}\b", "DATE"),
    (r"\b\d+ (chunks?|records?|copy made|copies made)\b", "COUNT"),
    // How many copies there are is not known everywhere at once; only the demo keeps two.
    (r"[?12]/2( !)?", "COPIES"),
    (r"\b[0-9A-Z]{4}-[0-9A-Z]{4}\b", "CODE"),
    (r"\bp2pfs1[a-z2-7]{60,}", "LINK"),
    (r"\bpid \d+|\bkill -9 \d+", "PROCESS"),
    (r"/[^ ]*p2pfs-demo-[0-9a-f]+", "PLACE"),
    (r"\b127\.0\.0\.1:[1-9]\d+", "ADDRESS"),
    (r"\b[abc] \([0-9a-f]{10}\)|\bswarm [0-9a-f]{10}", "NODE"),
    (r"\b(busy|throttled|idle|waiting) {2,}", "STATE  "),
    (r" {2,}", "  "),
];

/// The text without all that.
pub(crate) fn lasting(text: &str) -> String {
    PASSING.iter().fold(text.to_owned(), |text, (pattern, name)| {
        Regex::new(pattern).unwrap().replace_all(&text, *name).into_owned()
    })
}
