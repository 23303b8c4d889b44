//! Versions that there are not, and names that have none.

use crate::daemon::Swarm;
use crate::refused;

#[test]
fn a_version_that_cannot_be_had_says_why() {
    let swarm = Swarm::of(1);
    swarm[0].put("/d/f", b"41092", &[]);
    swarm[0].put("/d/f", b"52490", &[]);
    for command in [&["get", "-o", "out"][..], &["stat"], &["cat"], &["restore"]] {
        for (file, code, sentence) in [
            ("/d/f@9", 3, "no version 9 of /d/f is kept"),
            ("/d/f@0", 3, "no version 0 of /d/f is kept"),
            ("/d/f@0123456789", 3, "no version 0123456789 of /d/f is kept"),
            // Both hashes begin like that.
            ("/d/f@ca89fb24", 3, "several versions of /d/f have a hash that begins with ca89fb24"),
            ("/d/f@2020-01-01", 3, "nothing that is kept stood at /d/f at that time"),
            ("/d/f@3w", 3, "nothing that is kept stood at /d/f at that time (3w)"),
            ("/d/f@2026-02-30", 2, "`2026-02-30` is neither a version of /d/f nor a time"),
            ("/d/f@yesterday", 2, "`yesterday` is neither a version of /d/f nor a time"),
            ("/d/f@3f9a", 2, "`3f9a` is neither"),
            ("/d/f@\x1b[2J", 2, "`\\u{1b}[2J` is neither"),
            ("/d@1", 2, "/d is a directory; only files and links have versions"),
            ("/d/none@1", 3, "/d/none@1 is not found in this swarm"),
            ("/d/@1", 3, "/d/@1 is not found in this swarm"),
            ("/d/f@", 3, "/d/f@ is not found in this swarm"),
        ] {
            refused(&swarm[0].run(&[command, &[file]].concat()), code, sentence);
        }
    }
    assert!(swarm[0].names().is_empty());
    assert_eq!(swarm[0].get("/d/f"), b"52490");
}

#[test]
fn what_has_no_history_says_so() {
    let swarm = Swarm::of(1);
    swarm[0].put("/d/f", b"content", &[]);
    for (name, code, sentence) in [
        ("/none", 3, "/none is not found in this swarm"),
        ("/d/none", 3, "/d/none is not found in this swarm"),
        ("/d", 2, "/d is a directory; only files and links have versions"),
        ("/", 2, "/ is a directory"),
        ("/d/f/g", 11, "is a file, not a directory"),
        ("/d/../f", 2, "a path of the swarm has no `.` or `..`"),
    ] {
        refused(&swarm[0].run(&["history", name]), code, sentence);
    }
}
