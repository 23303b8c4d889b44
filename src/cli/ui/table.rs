//! A table without borders: a head, columns as wide as their widest cell, numbers to the right.
//! Rows are printed in batches, so that a long list needs little memory; a later batch may be
//! wider than an earlier one.

use super::Ui;
use crate::cli::error::CommandError;
use crate::text::shown;
use unicode_width::UnicodeWidthStr;

/// Rows that are held back to find the widths.
const BATCH: usize = 1_000;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A table that is being printed.
pub(in crate::cli) struct Table<'a> {
    ui: &'a Ui,
    aligns: Vec<Align>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    margin: &'static str,
    any: bool,
}

impl<'a> Table<'a> {
    /// A table with these columns. Nothing is printed for a table without rows.
    pub(in crate::cli) fn new(ui: &'a Ui, columns: &[(&str, Align)]) -> Self {
        let head: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Self {
            ui,
            aligns: columns.iter().map(|(_, align)| *align).collect(),
            widths: head.iter().map(String::len).collect(),
            rows: vec![head],
            margin: "",
            any: false,
        }
    }

    /// The same table, further to the right.
    #[must_use]
    pub(in crate::cli) fn indented(mut self, margin: &'static str) -> Self {
        self.margin = margin;
        self
    }

    /// Adds a row. The cells are escaped.
    pub(in crate::cli) fn row(&mut self, cells: Vec<String>) -> Result<(), CommandError> {
        let cells: Vec<String> = cells.iter().map(|cell| shown(cell).into_owned()).collect();
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.width());
        }
        self.rows.push(cells);
        self.any = true;
        if self.rows.len() > BATCH { self.print() } else { Ok(()) }
    }

    /// Prints what is left; true when there was any row.
    pub(in crate::cli) fn finish(mut self) -> Result<bool, CommandError> {
        if self.any {
            self.print()?;
        }
        Ok(self.any)
    }

    fn print(&mut self) -> Result<(), CommandError> {
        for row in std::mem::take(&mut self.rows) {
            let line = line(&row, &self.aligns, &self.widths);
            self.ui.data(format_args!("{}{line}", self.margin))?;
        }
        Ok(())
    }
}

fn line(cells: &[String], aligns: &[Align], widths: &[usize]) -> String {
    let mut line = String::new();
    for ((cell, align), width) in cells.iter().zip(aligns).zip(widths) {
        let gap = " ".repeat(width.saturating_sub(cell.width()));
        match align {
            Align::Left => line.extend([cell, &*gap]),
            Align::Right => line.extend([&*gap, cell]),
        }
        line.push_str("  ");
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_the_last_one_ends_the_line() {
        let aligns = [Align::Left, Align::Right, Align::Left];
        let cells = |row: [&str; 3]| row.map(str::to_owned);
        assert_eq!(line(&cells(["ab", "7 B", "x"]), &aligns, &[4, 5, 9]), "ab      7 B  x");
        assert_eq!(line(&cells(["名", "70 B", "y"]), &aligns, &[4, 5, 9]), "名     70 B  y");
    }
}
