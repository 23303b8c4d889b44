//! What stood at a name: which versions a history has, what they are called, and what `NAME@TIME`
//! means.

use crate::world::{Replica, hash_of, meet, new_file, pair};
use p2pfs::core::catalogue::{Applied, Checked, Node, Release, Scope};
use p2pfs::core::hlc::ms_of;
use p2pfs::core::tree::{Deed, History, Step, TreeError, VersionError, Which};
use p2pfs::id::ClaimId;

fn history(at: &Replica, path: &str) -> History {
    at.tree().history(path.as_bytes()).unwrap()
}

fn content(step: &Step) -> u64 {
    match step.made.as_ref().map(|made| &made.version.node) {
        Some(Node::File(file)) => file.size,
        _ => 0,
    }
}

/// Number, content and what happened, newest first.
fn lines(at: &Replica, path: &str) -> Vec<String> {
    let line = |step: &Step| {
        let deed = match &step.deed {
            Deed::MovedFrom(from) => format!("from {}", shown(from.as_deref())),
            Deed::MovedTo(to) => format!("to {}", shown(to.as_deref())),
            deed => format!("{deed:?}").to_lowercase(),
        };
        match &step.made {
            Some(made) => {
                let now = if made.current { " now" } else { "" };
                format!("{}: {} {deed}{now}", made.number, content(step))
            }
            None => deed,
        }
    };
    history(at, path).steps.iter().map(line).collect()
}

fn shown(path: Option<&[u8]>) -> String {
    path.map_or_else(|| "?".into(), |path| String::from_utf8(path.to_vec()).unwrap())
}

fn put(by: &mut Replica, path: &str, content: u64) -> u64 {
    by.now_ms += 10;
    let record = by.put(path, content).unwrap();
    ms_of(Checked::new(record).unwrap().record().header.clock)
}

/// What is meant by a version: its content.
fn find(at: &Replica, path: &str, which: &Which) -> Result<u64, VersionError> {
    let history = history(at, path);
    let made = history.find(which)?.clone();
    let step = history.steps.iter().find(|step| step.made.as_ref() == Some(&made));
    Ok(content(step.unwrap()))
}

fn at(ms: u64) -> Which {
    Which::Moment(ms)
}

#[test]
fn versions_have_numbers_that_grow_and_are_found_by_hash_and_time() {
    let mut a = Replica::new(10, 1);
    let times = [1, 2, 3].map(|content| put(&mut a, "/f", content));
    assert_eq!(lines(&a, "/f"), ["3: 3 edited now", "2: 2 edited", "1: 1 created"]);
    for number in 1..=3 {
        assert_eq!(find(&a, "/f", &Which::Number(number)), Ok(number));
        let hash = hash_of(number).to_string();
        assert_eq!(find(&a, "/f", &Which::Hash(hash[..8].into())), Ok(number));
    }
    assert_eq!(find(&a, "/f", &Which::Number(4)), Err(VersionError::Absent));
    assert_eq!(find(&a, "/f", &Which::Number(0)), Err(VersionError::Absent));
    let other = Which::Hash(hash_of(4).to_string());
    assert_eq!(find(&a, "/f", &other), Err(VersionError::Absent));
    assert_eq!(find(&a, "/f", &at(times[0] - 1)), Err(VersionError::Nothing));
    assert_eq!(find(&a, "/f", &at(times[0])), Ok(1));
    assert_eq!(find(&a, "/f", &at(times[1] - 1)), Ok(1));
    assert_eq!(find(&a, "/f", &at(times[1])), Ok(2));
    assert_eq!(find(&a, "/f", &at(u64::MAX)), Ok(3));
    // The same content again is one version as far as its hash goes.
    put(&mut a, "/f", 1);
    assert_eq!(find(&a, "/f", &Which::Hash(hash_of(1).to_string())), Ok(1));
}

#[test]
fn a_name_remembers_what_stood_there_before_it_was_removed() {
    let mut a = Replica::new(10, 1);
    let first = put(&mut a, "/d/f", 1);
    a.now_ms += 10;
    a.remove("/d/f").unwrap();
    let gap = a.now_ms;
    assert_eq!(lines(&a, "/d/f"), ["removed", "1: 1 created"]);
    assert_eq!(find(&a, "/d/f", &at(gap)), Err(VersionError::Nothing));
    let again = put(&mut a, "/d/f", 2);
    assert_eq!(lines(&a, "/d/f"), ["2: 2 created now", "removed", "1: 1 created"]);
    for (ms, found) in [(first, Ok(1)), (gap, Err(VersionError::Nothing)), (again, Ok(2))] {
        assert_eq!(find(&a, "/d/f", &at(ms)), found);
    }
    // Also where the directory is gone.
    a.remove("/d/f").unwrap();
    a.remove("/d").unwrap();
    assert_eq!(lines(&a, "/d/f").len(), 4);
    let gone = a.tree().removed_at(b"/d/f").unwrap().unwrap();
    let restored = a.plan(|planner| planner.restore(&gone)).unwrap();
    a.commit(&restored[0]);
    assert_eq!(lines(&a, "/d/f")[0], "restored");
    assert!(lines(&a, "/d/f")[2].ends_with("created now"));
}

#[test]
fn a_file_takes_its_versions_to_another_name_and_leaves_those_of_before() {
    let mut a = Replica::new(10, 1);
    let first = put(&mut a, "/a", 1);
    put(&mut a, "/a", 2);
    a.now_ms += 10;
    a.rename("/a", "/b").unwrap();
    put(&mut a, "/b", 3);
    assert_eq!(lines(&a, "/b"), ["3: 3 edited now", "from /a", "2: 2 edited", "1: 1 created"]);
    assert_eq!(lines(&a, "/a"), ["to /b", "2: 2 edited", "1: 1 created"]);
    assert_eq!(find(&a, "/b", &at(first)), Ok(1), "as it was under its former name");
    // Somebody else's file at the old name has nothing to do with it but the name.
    put(&mut a, "/a", 4);
    assert_eq!(lines(&a, "/a")[0], "3: 4 created now");
    assert_eq!(lines(&a, "/b").len(), 4);
}

#[test]
fn concurrent_versions_are_in_the_history_of_all_members() {
    let (mut a, mut b) = pair();
    put(&mut a, "/f", 1);
    meet(&mut a, &mut b);
    put(&mut a, "/f", 2);
    b.now_ms += 1_000;
    put(&mut b, "/f", 3);
    // Two files that came to be under one name at once are no versions of each other.
    put(&mut a, "/new", 4);
    b.now_ms += 1_000;
    put(&mut b, "/new", 5);
    meet(&mut a, &mut b);
    assert_eq!(lines(&a, "/f"), ["3: 3 edited now", "2: 2 conflict", "1: 1 created"]);
    assert_eq!(lines(&a, "/new"), ["2: 5 created now", "1: 4 created"]);
    for path in ["/f", "/new"] {
        assert_eq!(history(&a, path), history(&b, path));
    }
    let entries = a.tree().list_path(b"/", None, 100).unwrap().entries;
    let copy = entries.iter().find(|entry| entry.conflict).unwrap();
    let copy = format!("/{}", String::from_utf8(copy.name.clone()).unwrap());
    assert_eq!(lines(&a, &copy), ["3: 3 edited", "2: 2 conflict now", "1: 1 created"]);
}

#[test]
fn what_was_let_go_is_not_listed_and_takes_nothing_else_with_it() {
    let mut a = Replica::new(10, 1);
    // One record makes both files, as a put of a directory does.
    let files = [(1, "/x"), (2, "/y")].map(|(content, path)| {
        let mut file = new_file(content);
        file.version.claim = ClaimId([content as u8; 16]);
        (path, file)
    });
    let both = a.plan(|planner| {
        files
            .clone()
            .into_iter()
            .try_for_each(|(path, file)| planner.put(path.as_bytes(), file).map(drop))
    });
    let both = both.unwrap();
    assert_eq!(both.len(), 1, "one record");
    a.commit(&both[0]);
    let record = a.tree().resolve(b"/x").unwrap().version.record;
    for (path, file) in &files {
        let mut next = file.clone();
        (next.version.size, next.version.hash) = (9, hash_of(9));
        a.put_file(path, next).unwrap();
    }
    let scope = Scope::Versions { until_ms: 0, versions: vec![record], chunks: Vec::new() };
    let clock = a.tick();
    let release = Release { claim: ClaimId([1; 16]), scope }.sign(&a.key, clock).unwrap();
    assert_eq!(a.apply(&release), Applied::New);
    assert_eq!(lines(&a, "/x"), ["1: 9 edited now"]);
    assert_eq!(lines(&a, "/y"), ["2: 9 edited now", "1: 2 created"]);
    let inode = a.tree().resolve(b"/y").unwrap().inode;
    assert!(a.tree().due(&inode, u64::MAX).unwrap().is_some(), "the other one is due, too");
    let clock = a.tick();
    let release = Release { claim: ClaimId([2; 16]), scope: Scope::All };
    a.remove("/y").unwrap();
    assert_eq!(a.apply(&release.sign(&a.key, clock).unwrap()), Applied::New);
    assert_eq!(lines(&a, "/y"), ["removed"]);
}

#[test]
fn what_never_stood_anywhere_has_no_history_and_neither_has_a_directory() {
    let mut a = Replica::new(10, 1);
    put(&mut a, "/d/f", 1);
    for path in ["/none", "/d/none", "/none/f"] {
        assert!(matches!(a.tree().history(path.as_bytes()), Err(TreeError::NotFound)), "{path}");
    }
    for path in ["/", "/d"] {
        assert!(matches!(a.tree().history(path.as_bytes()), Err(TreeError::IsADirectory)));
    }
    assert!(matches!(a.tree().history(b"f"), Err(TreeError::BadPath)));
    assert!(matches!(a.tree().history(b"/d/f/g"), Err(TreeError::NotADirectory(_))));
}
