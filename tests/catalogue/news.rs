//! News: what a record is said to have changed, also when it comes late, twice, or as one of many.

use crate::world::{Replica, meet, pair};
use p2pfs::core::catalogue::{Applied, Attributes, id_of};
use p2pfs::core::tree::NewsDeed;

/// What a record changed, as a member tells it.
fn news(at: &Replica, record: &[u8]) -> Vec<String> {
    let shown = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
    let told = at.tree().news(&id_of(record)).unwrap();
    let line = |one: p2pfs::core::tree::TreeNews| {
        let path = shown(&one.path);
        match one.deed {
            NewsDeed::Created(_) => format!("created {path}"),
            NewsDeed::Changed(_) => format!("changed {path}"),
            NewsDeed::Moved(_, from) => format!("moved {} {path}", shown(&from.unwrap())),
            NewsDeed::Conflict(_) => {
                format!("conflict {}", path.split(".conflict").next().unwrap())
            }
            NewsDeed::Removed => format!("removed {path}"),
        }
    };
    told.into_iter().map(line).collect()
}

#[test]
fn every_kind_of_change_is_told_by_both_who_made_it_and_who_heard_of_it() {
    let (mut a, mut b) = pair();
    let put = a.put("/d/f", 1).unwrap();
    assert_eq!(news(&a, &put), ["created /d", "created /d/f"]);
    let edit = a.put("/d/f", 2).unwrap();
    assert_eq!(news(&a, &edit), ["changed /d/f"]);
    let rename = a.rename("/d/f", "/g").unwrap();
    assert_eq!(news(&a, &rename), ["moved /d/f /g"]);
    // Told late, what happened before is told of the name that it happened to.
    assert_eq!(news(&a, &edit), ["changed /d/f"]);
    let made = a.mkdir("/e").unwrap();
    assert_eq!(news(&a, &made), ["created /e"]);
    let moved = a.rename("/d", "/e/d").unwrap();
    assert_eq!(news(&a, &moved), ["moved /d /e/d"]);
    let gone = a.remove("/e/d").unwrap();
    assert_eq!(news(&a, &gone), ["removed /e/d"]);
    let gone = a.remove("/g").unwrap();
    assert_eq!(news(&a, &gone), ["removed /g"]);
    let attributes = Attributes { mode: 0o700, ..Attributes::default() };
    let drafts = a.plan(|planner| planner.dir(b"/e", attributes)).unwrap();
    let changed = a.commit(&drafts[0]);
    assert_eq!(news(&a, &changed), ["changed /e"]);
    let gone = a.tree().removed_at(b"/g").unwrap().unwrap();
    let drafts = a.plan(|planner| planner.restore(&gone)).unwrap();
    let restored = a.commit(&drafts[0]);
    assert_eq!(news(&a, &restored), ["created /g"]);
    meet(&mut a, &mut b);
    assert_eq!(news(&b, &changed), ["changed /e"]);
    assert_eq!(news(&b, &restored), ["created /g"]);
}

#[test]
fn what_happened_in_a_directory_is_told_also_when_that_is_gone_by_then() {
    let (mut a, mut b) = pair();
    a.put("/d/f", 1).unwrap();
    a.put("/d/s/x", 2).unwrap();
    meet(&mut a, &mut b);
    let late = a.put("/d/late", 3).unwrap();
    let moved = a.rename("/d/s", "/sx").unwrap();
    let out = a.rename("/d/late", "/out").unwrap();
    let gone = [a.remove("/d/f").unwrap(), a.remove("/d").unwrap()];
    meet(&mut a, &mut b);
    // As after a time without contact: all is known before any of it is told.
    assert_eq!(news(&b, &late), ["created /d/late"]);
    assert_eq!(news(&b, &moved), ["moved /d/s /sx"]);
    assert_eq!(news(&b, &out), ["moved /d/late /out"]);
    assert_eq!(gone.map(|record| news(&b, &record)), [["removed /d/f"], ["removed /d"]]);
}

#[test]
fn a_conflict_is_told_once_by_whichever_change_comes_later() {
    for first_wins in [true, false] {
        let (mut a, mut b) = pair();
        a.put("/f", 1).unwrap();
        meet(&mut a, &mut b);
        let one = a.put("/f", 2).unwrap();
        if first_wins {
            a.now_ms += 10_000;
        } else {
            b.now_ms += 5_000;
        }
        let two = b.put("/f", 3).unwrap();
        let own = if first_wins { a.put("/f", 4).unwrap() } else { one.clone() };
        b.now_ms = b.now_ms.max(a.now_ms);
        meet(&mut a, &mut b);
        // At the second member the first one's changes come later, all at once.
        let told: Vec<String> = [&one, &own].iter().flat_map(|record| news(&b, record)).collect();
        let conflicts = told.iter().filter(|line| *line == "conflict /f").count();
        assert!(conflicts >= 1, "{told:?}");
        let heard = news(&a, &two);
        assert!(heard.contains(&"conflict /f".to_owned()), "{heard:?}");
        // A later edit has seen one of them, and has nothing to say about the copy.
        let later = b.put("/f", 5).unwrap();
        assert_eq!(news(&b, &later), ["changed /f"]);
    }
}

#[test]
fn a_removal_that_lost_against_an_edit_is_no_news() {
    let (mut a, mut b) = pair();
    a.put("/f", 1).unwrap();
    meet(&mut a, &mut b);
    let edit = a.put("/f", 2).unwrap();
    b.now_ms += 5_000;
    let removal = b.remove("/f").unwrap();
    assert_eq!(news(&b, &removal), ["removed /f"]);
    meet(&mut a, &mut b);
    assert!(news(&a, &removal).is_empty());
    assert_eq!(news(&b, &edit), ["changed /f"]);
}

#[test]
fn what_waits_is_told_when_it_is_applied() {
    let mut a = Replica::new(10, 1);
    let record = a.put("/f", 1).unwrap();
    // One that does not know the author's grant, then one that has not got the keys.
    let mut b = Replica::new(11, 1);
    assert_eq!(b.apply(&record), Applied::Waiting);
    assert!(news(&b, &record).is_empty());
    b.apply(&a.grant());
    assert_eq!(b.applied_later(), [id_of(&record)]);
    assert_eq!(news(&b, &record), ["created /f"]);
    let mut c = Replica::new(12, 0);
    c.apply(&a.grant());
    assert_eq!(c.apply(&record), Applied::Sealed);
    assert!(news(&c, &record).is_empty());
    let (made, keys) = crate::world::epoch(1);
    c.keyring.add(made, keys);
    assert_eq!(c.applied_later(), [id_of(&record)]);
    assert_eq!(news(&c, &record), ["created /f"]);
    assert!(c.applied_later().is_empty(), "once");
}
