//! Layers, sources and the sentences about what is wrong.

use super::*;

fn given(pairs: &[(&'static str, &str)]) -> Layer {
    let mut layer = Layer::new();
    for (key, value) in pairs {
        layer.set(key, vec![value.into()], Source::Flag(format!("--{key}")));
    }
    layer
}

fn file(content: &str) -> Result<Layer, String> {
    Layer::parse(Path::new("/c/config.toml"), content).map_err(|err| err.to_string())
}

#[test]
fn the_higher_layer_wins_and_each_value_knows_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let content = "replicas = 2\nrepair_delay = \"30s\"\nlisten = [\"127.0.0.1:1\", \":2\"]\n";
    std::fs::write(dir.path().join("config.toml"), content).unwrap();
    let mut layer = given(&[("config-dir", dir.path().to_str().unwrap()), ("data-dir", "/d")]);
    layer.set("replicas", vec!["5".into()], Source::Variable("P2PFS_REPLICAS".into()));
    let settings = Settings::resolve(layer).unwrap();
    assert_eq!(settings.replicas, 5);
    assert_eq!(settings.repair_delay, Duration::from_secs(30));
    assert_eq!(settings.listen, ["127.0.0.1:1".parse().unwrap(), "[::]:2".parse().unwrap()]);
    assert_eq!(settings.places.socket, Path::new("/d/p2pfs.sock"));
    let rows: Vec<String> = settings.rows.iter().map(|row| row.source.clone()).collect();
    let place = dir.path().join("config.toml").display().to_string();
    let expected = [
        "--config-dir",
        "--data-dir",
        "default",
        &format!("{place}:3"),
        "default",
        "default",
        "default",
        "default",
        "P2PFS_REPLICAS",
        "default",
        &format!("{place}:2"),
        "default",
        "default",
        "default",
        "default",
        "default",
        "default",
        "default",
    ];
    assert_eq!(rows, expected);
    assert!(rows.len() == KEYS.len() && settings.rows.iter().map(|row| &row.key).eq(KEYS.iter()));
}

#[test]
fn a_file_with_a_mistake_says_where() {
    for (content, expected) in [
        ("replicsa = 3", "/c/config.toml:1: unknown key `replicsa`, did you mean `replicas`?"),
        ("\n\nxyzzy = 3", "/c/config.toml:3: unknown key `xyzzy`"),
        ("config-dir = \"x\"", "/c/config.toml:1: unknown key `config-dir`"),
        ("name = 'a'\nname = 'b'", "/c/config.toml:2: duplicate key"),
        (
            "repair-delay = '1s'\nrepair_delay = '1s'",
            "/c/config.toml:2: repair-delay: it is there twice",
        ),
        (
            "listen = 1.5",
            "/c/config.toml:1: listen: a text, a number, true, false or a list of texts is \
             expected",
        ),
    ] {
        let error = file(content).unwrap_err();
        assert!(error.starts_with(expected), "{content}: {error}");
    }
    assert!(file("a = 'b'\nreplicas = = 3").unwrap_err().starts_with("/c/config.toml:2: "));
}

#[test]
fn a_value_that_does_not_fit_names_its_source() {
    for (key, value, expected) in [
        ("replicas", "0", "--replicas: replicas: `0` must be 1 to 8"),
        ("replicas", "1000", "--replicas: replicas: `1000` must be 1 to 8"),
        ("capacity", "ten", "--capacity: capacity: `ten` is not a size, e.g. 500MB or 10GiB"),
        ("bootstrap", "host", "--bootstrap: bootstrap: missing port in `host`, e.g. host:4000"),
        ("balance", "best", "--balance: balance: `best`: `auto`, `least-stored` or"),
    ] {
        let layer = given(&[("config-dir", "/nowhere"), ("data-dir", "/d"), (key, value)]);
        let error = Settings::resolve(layer).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let layer = given(&[("config-dir", "/nowhere"), ("data-dir", "/d"), ("capacity", "10 GB")]);
    assert_eq!(Settings::resolve(layer).unwrap().capacity, Some(10_000_000_000));
}

#[test]
fn another_data_directory_moves_the_socket_with_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), "socket = '/run/s'\ndata-dir = '/e'").unwrap();
    let config = dir.path().to_str().unwrap();
    let places = |pairs: &[(&'static str, &str)]| Places::resolve(&given(pairs)).unwrap();
    assert_eq!(places(&[("config-dir", config)]).socket, Path::new("/run/s"));
    assert_eq!(places(&[("config-dir", config)]).data_dir, Path::new("/e"));
    let moved = places(&[("config-dir", config), ("data-dir", "/d")]);
    assert_eq!(moved.socket, Path::new("/d/p2pfs.sock"));
}

#[test]
fn addresses_are_read_and_refused_with_a_reason() {
    for (text, shown) in
        [("host:4000", "host:4000"), ("[::1]:1", "[::1]:1"), ("127.0.0.1:65535", "127.0.0.1:65535")]
    {
        assert_eq!(host_port(text).unwrap().to_string(), shown);
    }
    for (text, reason) in [
        ("host", "missing port"),
        ("[::1]", "missing port"),
        ("host:0", "not a port"),
        ("host:65536", "not a port"),
        ("host:abc", "not a port"),
        ("host:", "not a port"),
        ("::1:4000", "in brackets"),
        ("[::1:4000", "not closed"),
        (":4000", "not a host name"),
        ("a b:4000", "not a host name"),
    ] {
        assert!(host_port(text).unwrap_err().0.contains(reason), "{text}");
    }
    assert!(listen_addr("0.0.0.0:0").is_ok() && listen_addr(":4001").is_ok());
    assert!(listen_addr("0.0.0.0").unwrap_err().0.contains("missing port"));
    assert!(listen_addr("0.0.0.0:99999").unwrap_err().0.contains("not a port"));
    assert!(listen_addr("host:4000").unwrap_err().0.contains("not an address"));
}

#[test]
fn a_name_cannot_be_taken_for_an_id() {
    assert!(label("brave-otter").is_ok() && label("deadbee").is_ok());
    assert!(label("deadbeef").is_err() && label("a:b").is_err() && label("").is_err());
}
