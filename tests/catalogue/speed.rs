//! Work stays in proportion: the cost of a record does not grow with what is there. What is checked
//! is the number of table operations; times are printed (`RECORDS=100000`, `--nocapture`).

#![allow(clippy::print_stdout, reason = "figures for who asks for them")]

use crate::maptables::MapTables;
use crate::world::{Replica, Rules, START_MS, new_file};
use p2pfs::core::catalogue::{
    Applied, Change, Checked, Context, Draft, Name, Node, Source, Target, View, apply, seal_tree,
};
use p2pfs::core::hlc::at_ms;
use p2pfs::core::tree::{Tree, Walk};
use p2pfs::id::{InodeId, RecordId};
use p2pfs::sys::{Table, TableRead, TableWrite};
use std::cell::Cell;
use std::io;
use std::time::Instant;

/// Counts operations and rows.
struct Counting {
    inner: MapTables,
    operations: Cell<u64>,
}

impl Counting {
    fn count(&self) {
        self.operations.set(self.operations.get() + 1);
    }
}

impl TableRead for Counting {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.count();
        self.inner.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        self.count();
        self.inner.range(table, from, to, &mut |key, value| {
            self.count();
            visit(key, value)
        })
    }

    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.count();
        self.inner.last(table, from, to)
    }
}

impl TableWrite for Counting {
    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.count();
        self.inner.insert(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool> {
        self.count();
        self.inner.remove(table, key)
    }
}

impl View for Counting {
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>> {
        self.count();
        self.inner.record(id)
    }
}

/// The record of a new file in the root.
pub(crate) fn new_file_record(author: &Replica, number: u64, made_ms: u64) -> Vec<u8> {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    let (inode, file) = (InodeId(id), new_file(number));
    let name = Name::new(format!("file-{number:07}").as_bytes()).unwrap();
    let changes = vec![
        Change::Inode { inode, node: Node::File(file.version), attributes: file.attributes },
        Change::Entry { parent: InodeId::ROOT, name, target: Target::Linked(inode) },
    ];
    let draft = Draft { changes, ..Draft::default() };
    let keys = author.keyring.newest().unwrap();
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    seal_tree(&author.key, keys, at_ms(made_ms) + number * 4096, &nonce, &draft).unwrap()
}

#[test]
fn a_record_costs_the_same_among_many() {
    let count: u64 = std::env::var("RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000);
    let author = Replica::new(10, 1);
    let mut store = Counting { inner: author.store.clone(), operations: Cell::new(0) };
    let rules = Rules::of_swarm();
    let context = Context { keyring: &author.keyring, authority: &rules };
    let (mut most, mut spent, mut part) = (0, std::time::Duration::ZERO, Vec::new());
    for number in 0..count {
        let checked = Checked::new(new_file_record(&author, number, START_MS)).unwrap();
        let (before, begun) = (store.operations.get(), Instant::now());
        let applied = apply(&mut store, context, Source::Disk, &checked).unwrap();
        spent += begun.elapsed();
        assert_eq!(applied, Applied::New);
        most = most.max(store.operations.get() - before);
        store.inner.records.insert(checked.record().id, checked.record().bytes().to_vec());
        if (number + 1) % (count / 4) == 0 {
            part.push(spent * 4 / count as u32);
            spent = std::time::Duration::ZERO;
        }
    }
    println!(
        "apply of a new file, {count} records in quarters: {part:?}, at most {most} operations"
    );
    assert!(most <= 64, "{most} table operations for one record");
    list(&author, &store.inner);
}

fn list(author: &Replica, store: &MapTables) {
    let begun = Instant::now();
    let tree = Tree::new(store, &author.keyring);
    let page = tree.list(&InodeId::ROOT, None, 1000).unwrap();
    println!("1,000 entries of the directory: {:?}", begun.elapsed());
    assert_eq!(page.entries.len(), 1000);
    let (begun, mut seen) = (Instant::now(), 0);
    tree.walk(&mut Walk::new(InodeId::ROOT, b"/", true), &mut |_, _| {
        seen += 1;
        true
    })
    .unwrap();
    println!("walk of all {seen}: {:?}", begun.elapsed());
    let begun = Instant::now();
    let last = tree.resolve(format!("/file-{:07}", seen - 1).as_bytes()).unwrap();
    println!("resolve: {:?}", begun.elapsed());
    assert_eq!(last.name, format!("file-{:07}", seen - 1).as_bytes());
}
