use bytes::Bytes;
use serde_json::json;

use super::{
    super::{Durability, Key},
    *,
};

fn at(folder: &Folder) -> StorageOptions {
    StorageOptions::at(folder.path())
}

#[test]
fn a_file_keeps_everything_over_a_restart() {
    let folder = Folder::new();
    for durability in [Durability::Full, Durability::Normal] {
        let path = folder.path().join(format!("{durability:?}.db"));
        let options = || StorageOptions { durability, versions: 1, ..StorageOptions::at(&path) };
        let open = Open::with(options());
        let large = vec![7; 600_000];
        open.save_bytes("large", &large);
        for value in 0..1000 {
            open.call("save", json!({"key": "k", "value": value}));
        }
        open.call("save", json!({"key": "gone", "value": 1, "ttl": 1}));
        let before = open.call("get", json!({"key": "k"}));
        let upload = text(&open.call("upload", json!({"key": "k"})), "upload");
        drop(open);
        let open = Open::with(options());
        open.pass(1000);
        assert_eq!(open.call("get", json!({"key": "k"})), before);
        assert_eq!(open.value("large"), Ok(Bytes::from(large).into()));
        assert_eq!(open.value("gone"), Err("not_found"));
        assert_eq!(list(&open.call("history", json!({"key": "k"})), "versions").len(), 2);
        assert_eq!(open.refused("upload_done", json!({ "upload": upload })).0, "not_found");
        let saved = open.call("save", json!({"key": "k", "value": 999}));
        assert_ne!(text(&saved, "etag"), text(&before, "etag"));
    }
}

#[test]
fn one_storage_has_the_file() {
    let folder = Folder::new();
    let open = Open::at(&folder);
    let error = Storage::open(at(&folder)).unwrap_err();
    assert_eq!(error.code(), "store_failed");
    assert!(error.message().contains("in use"), "{error}");
    drop(open);
    Storage::open(at(&folder)).unwrap();
}

#[test]
fn many_saves_that_wait_are_all_answered() {
    let folder = Folder::new();
    let open = Open::at(&folder);
    let calls: Vec<_> = (0..2000)
        .map(|number| {
            let call = Call {
                id: "1".into(),
                operation: "save".into(),
                payload: of(json!({"key": format!("{number}"), "value": number})),
                caller: Caller::default(),
                cancel: Cancel::default(),
                deadline: None,
                attempt: 1,
                progress: None,
            };
            open.storage.call(call)
        })
        .collect();
    for call in calls {
        wait(call).unwrap();
    }
    assert_eq!(int(&open.call("stat", json!({})), "keys"), 2000);
}

#[test]
fn saves_that_nobody_waits_for_happen_in_their_order() {
    for durability in [Durability::Full, Durability::Normal] {
        let folder = Folder::new();
        let open = Open::with(StorageOptions { durability, ..at(&folder) });
        let save = |value: Value| {
            open.storage.call(Call {
                id: "1".into(),
                operation: "save".into(),
                payload: Value::map([("key", "k".into()), ("value", value)]),
                caller: Caller::default(),
                cancel: Cancel::default(),
                deadline: None,
                attempt: 1,
                progress: None,
            })
        };
        for round in 0..50 {
            // Large ones take another way than small ones.
            let large = save(Bytes::from(vec![1; 100_000]).into());
            let small = save(round.into());
            wait(small).unwrap();
            wait(large).unwrap();
            assert_eq!(open.value("k"), Ok(round.into()));
        }
    }
}

#[test]
fn values_are_encrypted_and_a_wrong_key_is_told() {
    let passphrase = |words: &str| Some(Key::Passphrase(words.into()));
    for (right, wrong) in [
        (Some(Key::Bytes([7; 32])), vec![None, Some(Key::Bytes([8; 32])), passphrase("words")]),
        (passphrase("words"), vec![None, passphrase("others"), Some(Key::Bytes([7; 32]))]),
    ] {
        let folder = Folder::new();
        let options = |key| StorageOptions { key, ..at(&folder) };
        let open = Open::with(options(right.clone()));
        let secret = "a secret that nobody reads".repeat(20_000);
        for (key, value) in [("k", &secret[..26]), ("large", &secret)] {
            open.call("save", json!({"key": key, "value": value}));
        }
        assert_eq!(open.value("k"), Ok(secret[..26].into()));
        assert_eq!(read_query(&open), of(json!([["\"a secret that nobody reads\""]])));
        drop(open);
        let file = std::fs::read(folder.path().join("values.db")).unwrap();
        let found = |words: &[u8]| file.windows(words.len()).any(|window| window == words);
        assert!(!found(b"secret") && found(b"large"));
        for key in wrong {
            let error = Open::try_with(options(key)).map(|_| ()).unwrap_err();
            assert_eq!(error.code(), "unauthorized");
        }
        let open = Open::with(options(right));
        assert_eq!(open.value("large"), Ok(secret.into()));
    }
}

fn read_query(open: &Open) -> Value {
    let sql = "SELECT json FROM entries WHERE key = 'k'";
    open.call("query", json!({ "sql": sql })).get("rows").unwrap().clone()
}

#[test]
fn a_file_with_values_is_not_encrypted_afterwards() {
    let folder = Folder::new();
    Open::at(&folder).call("save", json!({"key": "k", "value": 1}));
    let options = StorageOptions { key: Some(Key::Bytes([7; 32])), ..at(&folder) };
    let error = Open::try_with(options).map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "unauthorized");
    assert_eq!(Open::at(&folder).value("k"), Ok(1.into()));
}

#[test]
fn compressed_values_take_less_and_are_read_without_the_option() {
    let folder = Folder::new();
    let text = "the same words again and again ".repeat(100_000);
    let open = Open::with(StorageOptions { compress: true, ..at(&folder) });
    let saved = open.call("save", json!({"key": "k", "value": text}));
    assert_eq!(int(&saved, "size"), text.len() as i64);
    drop(open);
    let file = std::fs::metadata(folder.path().join("values.db")).unwrap();
    assert!(file.len() < 300_000, "{}", file.len());
    assert_eq!(Open::at(&folder).value("k"), Ok(text.into()));
}

#[test]
fn damage_is_told_and_never_returned() {
    let folder = Folder::new();
    let open = Open::at(&folder);
    open.call("save", json!({"key": "small", "value": "needle".repeat(10)}));
    open.save_bytes("large", &b"hay".repeat(200_000));
    drop(open);
    let path = folder.path().join("values.db");
    let mut file = std::fs::read(&path).unwrap();
    for words in [b"needle", b"hayhay"] {
        let at = file.windows(6).position(|window| window == words).unwrap();
        file[at + 3] ^= 1;
    }
    std::fs::write(&path, file).unwrap();
    let open = Open::at(&folder);
    assert_eq!(open.value("small"), Err("store_corrupt"));
    assert_eq!(open.value("large"), Err("store_corrupt"));
    let part = |offset| open.try_call("get_part", json!({"key": "large", "offset": offset}));
    let codes = [part(0), part(524_288)].map(|part| part.map_err(|failure| failure.code()).err());
    assert!(codes.contains(&Some("store_corrupt")), "{codes:?}");
}

#[test]
fn a_log_that_lost_its_end_is_no_shorter_file() {
    let folder = Folder::new();
    let path = folder.path().join("values.db");
    let wal = folder.path().join("values.db-wal");
    let open = Open::at(&folder);
    open.call("save", json!({"key": "k", "value": 1}));
    let (early, early_log) = (std::fs::read(&path).unwrap(), std::fs::read(&wal).unwrap());
    open.call("save", json!({"key": "k", "value": 2}));
    drop(open);
    std::fs::write(&path, early).unwrap();
    std::fs::write(&wal, early_log).unwrap();
    let error = Open::try_with(at(&folder)).map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "store_corrupt");
}
