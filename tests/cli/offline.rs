//! Commands without a daemon: usage, places, settings, help. Rows of the bad-input table are named
//! by their numbers.

use super::harness::Place;
use crate::said::Said;

fn fails(args: &[&str], code: i32, sentence: &str) {
    let place = Place::new();
    let said = place.run(args);
    assert_eq!(said.code, code, "{args:?}: {}", said.err);
    assert!(said.err.contains(sentence), "{args:?}: {}", said.err);
    assert_eq!(said.out, "", "{args:?}");
    assert!(said.err.starts_with("error: ") && !said.err.contains("os error"), "{}", said.err);
}

#[test]
fn without_a_daemon_each_command_says_so_and_starts_none() {
    // Row 1.
    for args in [
        &["get", "/x"][..],
        &["ls"],
        &["cat", "/x"],
        &["stat", "/x"],
        &["put", "-r", "."],
        &["get", "-r", "/x"],
        &["mkdir", "/x"],
        &["mv", "/x", "/y"],
        &["rm", "/x"],
        &["search", "x"],
        &["status"],
        &["status", "--check"],
        &["status", "--workers"],
        &["scrub"],
        &["scrub", "--now"],
        &["peers"],
        &["id"],
        &["connect", "host:4000"],
        &["approve", "ABCDEFGH"],
        &["deny", "host:4000"],
        &["stop"],
    ] {
        let place = Place::new();
        let said = place.run(args);
        assert_eq!(said.code, 6, "{args:?}: {}", said.err);
        let socket = place.path("data/p2pfs.sock");
        let expected = format!(
            "error: no daemon answers at {}\n hint: start it:  p2pfs daemon --data-dir {}\n",
            socket.display(),
            place.path("data").display()
        );
        assert_eq!(said.err, expected);
        assert!(place.names().is_empty(), "nothing was made");
    }
}

#[test]
fn a_wrong_hash_says_what_is_wrong() {
    // Rows 2, 3, 4.
    fails(&["get", "xyz"], 2, "`xyz` is not a hash: 64 hex characters expected, got 3");
    fails(&["get", &"a".repeat(65)], 2, "64 hex characters expected, got 65");
    fails(&["cat", &"g".repeat(64)], 2, "`g` at place 1 is not a hex digit");
    fails(&["stat", "abc"], 2, "or at least the first 8, got 3");
}

#[test]
fn a_hash_in_any_usual_form_is_accepted() {
    // Row 5: accepted, so that only the daemon is missing.
    let hash = "A".repeat(64);
    for form in [hash.clone(), format!(" {hash} "), format!("{hash}  file name.txt")] {
        fails(&["get", &form], 6, "no daemon answers");
    }
}

#[test]
fn a_wrong_source_is_noticed_before_the_daemon_is_asked() {
    let place = Place::new();
    std::fs::create_dir(place.path("dir")).unwrap();
    place.write("file", b"x");
    let fifo = place.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    // Rows 15, 16, 19, and 24.
    let name = "n".repeat(256);
    for (args, code, sentence) in [
        (&["put", "none"][..], 3, "error: no such file: none\n"),
        (&["put", "dir"], 2, "error: dir is a directory\n"),
        (&["put", "fifo"], 2, "error: fifo is not a regular file but a pipe\n"),
        (&["put", "/dev/zero"], 2, "error: /dev/zero is not a regular file but a device\n"),
        (&["put", "file", "--as", &name], 2, "error: a name has 256 bytes, 255 are possible\n"),
        (&["put", "file", "--as", "/a/../b"], 2, "a path of the swarm has no `.` or `..`"),
        (&["put", "-", "--as", "/a/"], 2, "a name for the file is missing"),
    ] {
        let said = place.run(args);
        assert!(said.code == code && said.err.contains(sentence), "{args:?}: {}", said.err);
    }
}

#[test]
fn a_wrong_command_line_is_clap_s_business() {
    fails(&["lss"], 2, "unrecognized subcommand 'lss'");
    fails(&["put"], 2, "required arguments were not provided");
    fails(&["ls", "--colour"], 2, "unexpected argument '--colour'");
    fails(&["put", "f", "--wait", "9"], 2, "`9` is not a number from 1 to 8, nor `all`");
    fails(&["cat", "/x", "--range", "5"], 2, "a range is A..B, A.., ..B or -SIZE");
    // Rows 25, 26.
    fails(&["daemon", "--bootstrap", "host"], 2, "missing port in `host`, e.g. host:4000");
    for port in ["0", "65536", "abc"] {
        let peer = format!("host:{port}");
        fails(&["daemon", "--bootstrap", &peer], 2, &format!("`{port}` is not a port"));
        fails(&["connect", &peer], 2, &format!("`{port}` is not a port"));
    }
    fails(&["daemon", "--listen", "1.2.3.4"], 2, "missing port in `1.2.3.4`");
    // Rows 44, 45.
    for replicas in ["0", "1000", "9"] {
        let sentence = format!("`{replicas}` must be 1 to 8");
        fails(&["daemon", "--replicas", replicas], 2, &sentence);
        fails(&["put", "f", "--replicas", replicas], 2, &sentence);
    }
    for limit in ["0", "1001", "many"] {
        let sentence = format!("`{limit}` is not a number from 1 to 1000");
        fails(&["search", "x", "--limit", limit], 2, &sentence);
    }
    for tag in ["", "a b", "a,b", "../x"] {
        fails(&["put", "f", "--tag", tag], 2, &format!("`{tag}` is not a tag: 1 to 32 bytes"));
        fails(&["search", "--tag", tag], 2, &format!("`{tag}` is not a tag: 1 to 32 bytes"));
    }
    fails(&["search", "--newer", "7"], 2, "`7` has no unit, e.g. 7s or 7min");
    fails(&["daemon", "--capacity", "ten"], 2, "`ten` is not a size, e.g. 500MB or 10GiB");
}

#[test]
fn settings_come_from_file_variable_and_flag() {
    let place = Place::new();
    std::fs::create_dir(place.path("config")).unwrap();
    // Row 45: both forms of a size.
    place
        .write("config/config.toml", b"# mine\nreplicas = 2\ncapacity = \"10 GB\"\nzone = \"x\"\n");
    let mut command = place.command(&["config", "--json"]);
    let said: Said =
        command.env("P2PFS_ZONE", "y").env("P2PFS_LISTEN", ":1,:2").output().unwrap().into();
    assert_eq!(said.code, 0, "{}", said.err);
    let row = |key: &str| -> (String, String) {
        let line = said.out.lines().find(|line| line.contains(&format!("\"{key}\"")));
        let row: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
        assert_eq!(row["v"], 1);
        (row["value"].as_str().unwrap().into(), row["source"].as_str().unwrap().into())
    };
    let file = place.path("config/config.toml").display().to_string();
    assert_eq!(row("replicas"), ("2".into(), format!("{file}:2")));
    assert_eq!(row("capacity"), ("10 GB".into(), format!("{file}:3")));
    assert_eq!(row("zone"), ("y".into(), "P2PFS_ZONE".into()));
    assert_eq!(row("listen"), ("[::]:1, [::]:2".into(), "P2PFS_LISTEN".into()));
    assert_eq!(row("balance"), ("auto".into(), "default".into()));
    assert_eq!(row("data-dir").1, "P2PFS_DATA_DIR");
}

#[test]
fn a_broken_file_of_settings_names_the_line() {
    let place = Place::new();
    std::fs::create_dir(place.path("config")).unwrap();
    // Rows 38, 39.
    for (content, sentence) in [
        ("replicas = 3\nlisten = [", "config.toml:2: "),
        ("a = 1\n", "config.toml:1: unknown key `a`"),
        ("\nreplica = 3\n", "config.toml:2: unknown key `replica`, did you mean `replicas`?"),
        ("replicas = 0", "config.toml:1: replicas: `0` must be 1 to 8"),
        ("capacity = \"ten\"", "config.toml:1: capacity: `ten` is not a size"),
        ("name = \"\u{1b}[2J\"", "config.toml:1: "),
    ] {
        place.write("config/config.toml", content.as_bytes());
        for args in [&["daemon"][..], &["config"]] {
            let said = place.run(args);
            assert!(said.code == 2 && said.err.contains(sentence), "{content}: {}", said.err);
            assert!(!said.err.contains('\u{1b}') && !said.err.contains("os error"), "{}", said.err);
        }
    }
    std::fs::remove_file(place.path("config/config.toml")).unwrap();
    std::fs::create_dir(place.path("config/config.toml")).unwrap();
    let said = place.run(&["config"]);
    assert!(said.code == 2 && said.err.contains("cannot read"), "{}", said.err);
}

#[test]
fn a_socket_path_that_is_too_long_is_one_sentence() {
    let long = format!("/tmp/{}", "x".repeat(120));
    let args = ["--data-dir", &long, "ls"];
    fails(&args, 2, "error: the socket path has 136 bytes, 107 are possible: /tmp/xxx");
}

#[test]
fn an_unusable_data_directory_is_said_at_the_start() {
    // Row 36.
    let place = Place::new();
    place.write("file", b"");
    let said = place.run(&["daemon", "--data-dir", "file/data"]);
    assert!(said.code != 0 && said.err.contains("file/data"), "{}", said.err);
    assert!(said.err.contains(" hint: ") && !said.err.contains("os error"), "{}", said.err);
}

#[test]
fn an_error_is_one_json_line_on_demand() {
    let place = Place::new();
    for (args, code, exit) in [
        (&["--json", "get", "xyz"][..], "usage", 2),
        (&["ls", "--json"], "no_daemon", 6),
        (&["--json", "lss"], "usage", 2),
    ] {
        let said = place.run(args);
        let line: serde_json::Value =
            serde_json::from_str(said.err.lines().last().unwrap()).unwrap();
        assert_eq!(
            (said.code, &line["v"], &line["error"]["code"]),
            (exit, &1.into(), &code.into())
        );
        assert!(line["error"]["exit"] == exit && line["error"]["hints"].is_array());
    }
    let mut command = place.command(&["daemon"]);
    let said: Said = command.env("P2PFS_REPLICAS", "x").output().unwrap().into();
    let hint = " hint: the value is that of the variable P2PFS_REPLICAS\n";
    assert!(said.code == 2 && said.err.ends_with(hint), "{}", said.err);
    let said = place.run(&["--json", "put"]);
    assert!(said.err.contains("not provided: <PATH>\""), "{}", said.err);
}

#[test]
fn help_and_version_need_nothing() {
    let place = Place::new();
    for args in [&["--help"][..], &["-h"], &["help", "put"], &["--version"]] {
        let said = place.run(args);
        assert!(said.code == 0 && said.err.is_empty() && said.out.contains("p2pfs"), "{args:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_hears_nothing() {
    let place = Place::new();
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let said: Said = place.command(&["config"]).stdout(write).output().unwrap().into();
    assert_eq!(said.code, 141);
    assert_eq!(said.err, "no daemon runs; one that is started now would have:\n");
}
