//! What the benches of files share: the files, the copy that they are compared with, what daemons
//! have sent and used, and the table of samples that is printed at the end.

use crate::harness::{Swarm, timed};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

impl Swarm {
    /// A line of `/proc/PID/status` of the largest daemon, in MiB.
    pub(crate) fn memory(&self, line: &str) -> f64 {
        (0..self.daemons.len()).map(|node| self.memory_of(node, line)).fold(0.0, f64::max)
    }

    /// Bytes that node 0 has sent to others, as its connections count them.
    pub(crate) fn sent(&self, node: usize) -> f64 {
        let connections = self.json(node, &["peers", "--connections"]);
        let counts = connections.split("\"sent\":").skip(1);
        counts.filter_map(|c| c.split([',', '}']).next()?.parse::<f64>().ok()).sum()
    }
}

/// All samples of each row, in the order of their first appearance.
#[derive(Default)]
pub(crate) struct Rows {
    order: Vec<String>,
    samples: BTreeMap<String, Vec<f64>>,
}

impl Rows {
    pub(crate) fn add(&mut self, row: &str, sample: f64) {
        if !self.samples.contains_key(row) {
            self.order.push(row.to_owned());
        }
        self.samples.entry(row.to_owned()).or_default().push(sample);
    }

    pub(crate) fn median(&self, row: &str) -> f64 {
        let mut sorted = self.samples[row].clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "{:<58} {:>9} {:>9} {:>9}", "", "median", "min", "max")?;
        for row in &self.order {
            let all = &self.samples[row];
            let min = all.iter().copied().fold(f64::INFINITY, f64::min);
            let max = all.iter().copied().fold(0.0, f64::max);
            writeln!(out, "{row:<58} {:>9.3} {min:>9.3} {max:>9.3}", self.median(row))?;
        }
        Ok(())
    }
}

pub(crate) fn random_file(path: &Path, bytes: usize) {
    let mut source = fs::File::open("/dev/urandom").expect("random bytes").take(bytes as u64);
    let mut file = fs::File::create(path).expect("a file");
    std::io::copy(&mut source, &mut file).expect("random bytes are written");
    file.sync_all().expect("synced");
}

/// One copy, synced: what any storing costs at least.
pub(crate) fn copy_and_sync(from: &Path, to: &Path) -> f64 {
    timed(|| {
        let mut source = fs::File::open(from).expect("the file is there");
        let mut file = fs::File::create(to).expect("a file");
        let mut buf = vec![0; 1 << 20];
        loop {
            let n = source.read(&mut buf).expect("read");
            if n == 0 {
                break;
            }
            file.write_all(&buf[..n]).expect("written");
        }
        file.sync_all().expect("synced");
    })
}
