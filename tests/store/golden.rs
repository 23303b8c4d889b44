//! The formats on the disk, byte by byte: what is written now is what was written then, and what
//! was written then is read. `P2PFS_BLESS=1` makes the golden files anew.

use crate::model::{Act, Disk, Model, compact, dump};
use crate::simfs::SimFs;
use crate::{marker, segment};
use p2pfs::sys::{Fs, OpenMode};
use std::path::{Path, PathBuf};

/// Compares files with their golden copies, or makes those.
fn is_golden(disk: &Disk, files: &[(&str, PathBuf)]) {
    for (name, path) in files {
        let written = disk.bytes(path);
        if std::env::var_os("P2PFS_BLESS").is_some() {
            std::fs::create_dir_all(golden("")).unwrap();
            std::fs::write(golden(name), &written).unwrap();
        }
        let expected = std::fs::read(golden(name)).unwrap();
        assert!(written == expected, "{name}: the format has changed; that needs a new version");
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/store").join(name)
}

/// A disk with the golden files.
fn from_golden(files: &[(&str, PathBuf)]) -> Disk {
    let disk = Disk::new(SimFs::new(2));
    disk.fs.create_dir_all(Path::new("/data/segments")).unwrap();
    for (name, path) in files {
        let file = disk.fs.open(path, OpenMode::CreateNew).unwrap();
        file.write_at(&[&std::fs::read(golden(name)).unwrap()], 0).unwrap();
    }
    disk
}

#[test]
fn the_golden_directory_is_read_and_written_the_same() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    let put = Act::Put { chunk: 0, claim: Some(1) };
    model.run(&store, vec![put, Act::Put { chunk: 1, claim: None }, Act::Record(2)]);
    model.run(&store, vec![Act::Claim { chunks: vec![0, 1], claim: 2 }, Act::Commit(2)]);
    model.run(&store, vec![Act::Drop(1)]);
    store.close();
    let files = [("segment-v1.seg", segment(1)), ("marker-v1", marker())];
    is_golden(&disk, &files);
    let (store, opened) = from_golden(&files).open().unwrap();
    assert!(opened.rebuilt.is_some() && opened.rot.is_empty() && opened.truncated == 0);
    model.check(&store).unwrap();
}

#[test]
fn golden_ends_and_a_golden_compacted_segment_are_read_and_written_the_same() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    for chunk in 0..4 {
        model.run(&store, vec![Act::Put { chunk, claim: Some(chunk) }]);
    }
    model.run(&store, vec![Act::Claim { chunks: (0..3).collect(), claim: 7 }, Act::Record(1)]);
    model.run(
        &store,
        vec![Act::ReleaseRows { claim: 7, chunks: vec![2], since: 0 }, Act::Commit(0)],
    );
    model.run(&store, vec![Act::Lapse { claim: 1, since: 0 }, Act::Release(2)]);
    model.run(&store, vec![Act::Drop(3)]);
    model.run(&store, vec![Act::Free(2)]);
    store.close();
    let before = [("ends-v1.seg", segment(1)), ("marker-v1", marker())];
    is_golden(&disk, &before);
    let (store, _) = from_golden(&before).open().unwrap();
    model.check(&store).unwrap();
    let (store, _) = disk.open().unwrap();
    // What is left of this one is its name.
    disk.fs.rot(&segment(1), |bytes| {
        let at = bytes.windows(99).position(|part| part == [1; 99]).unwrap();
        bytes[at] ^= 1;
    });
    assert_eq!(compact(&store, 20, || ()), 1);
    let tables = dump(&store).unwrap();
    store.close();
    let compacted = Path::new("/data/segments/00000003-00000001.seg").to_owned();
    let after = [("compacted-v1.seg", compacted), ("next-v1.seg", segment(2)), before[1].clone()];
    is_golden(&disk, &after);
    let (store, opened) = from_golden(&after).open().unwrap();
    assert!(opened.rebuilt.is_some() && opened.rot.is_empty() && opened.truncated == 0);
    assert_eq!(dump(&store).unwrap(), tables);
}
