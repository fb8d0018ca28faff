use bytes::Bytes;
use serde_json::json;

use super::*;

fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn part(open: &Open, upload: &str, number: i64, bytes: &[u8]) -> Outcome {
    let payload = Value::map([
        ("upload", upload.into()),
        ("number", number.into()),
        ("bytes", Bytes::copy_from_slice(bytes).into()),
    ]);
    open.call_as("", "upload_part", payload)
}

fn read_parts(open: &Open, key: &str, length: usize) -> Vec<u8> {
    let mut found = Vec::new();
    loop {
        let answer =
            open.call("get_part", json!({"key": key, "offset": found.len(), "length": length}));
        let Some(Value::Bytes(bytes)) = answer.get("bytes") else { panic!("{answer:?}") };
        found.extend_from_slice(bytes);
        if answer.get("done") == Some(&true.into()) {
            return found;
        }
        assert_eq!(bytes.len(), length);
    }
}

/// Rows of chunks, once what is to be removed was removed.
fn chunks(open: &Open) -> i64 {
    open.sweep();
    open.storage.0.values.count_chunks()
}

#[test]
fn large_values_are_kept_in_chunks_and_come_back_whole() {
    for open in [Open::memory(), Open::on_disk()] {
        for length in [0, 1, 262_144, 262_145, 524_288, 524_289, 3_000_000] {
            let bytes = noise(length);
            open.save_bytes("k", &bytes);
            assert_eq!(open.value("k"), Ok(Bytes::from(bytes.clone()).into()), "{length}");
            assert_eq!(read_parts(&open, "k", 100_000), bytes, "{length}");
        }
        assert_eq!(chunks(&open), 6);
        open.call("delete", json!({"key": "k"}));
        assert_eq!(chunks(&open), 0);
    }
}

#[test]
fn an_upload_becomes_the_value_all_at_once() {
    for open in [Open::memory(), Open::on_disk()] {
        let bytes = noise(1_300_000);
        let whole = open.save_bytes("whole", &bytes);
        open.save_bytes("k", b"old");
        let begun = open.call("upload", json!({"key": "k", "content_type": "video/mp4"}));
        let upload = text(&begun, "upload");
        let size = int(&begun, "part_size") as usize;
        for (number, piece) in bytes.chunks(size).enumerate() {
            part(&open, &upload, number as i64, piece).unwrap();
            // Its answer may have been lost.
            part(&open, &upload, number as i64, piece).unwrap();
            assert_eq!(open.value("k"), Ok(Bytes::from_static(b"old").into()));
        }
        assert_eq!(part(&open, &upload, 7, b"x").unwrap_err().code(), "conflict");
        let done = open.call("upload_done", json!({ "upload": upload }));
        assert_eq!(int(&done, "size"), 1_300_000);
        assert_eq!(text(&done, "content_type"), "video/mp4");
        // The same content as if it had been saved.
        assert_eq!(
            text(&done, "etag").split_once('-').unwrap().1,
            text(&whole, "etag").split_once('-').unwrap().1
        );
        assert_eq!(open.value("k"), Ok(Bytes::from(bytes.clone()).into()));
        assert_eq!(read_parts(&open, "k", 1 << 20), bytes);
        assert_eq!(open.refused("upload_done", json!({ "upload": upload })).0, "not_found");
        open.save_bytes("k", b"new");
        open.save_bytes("whole", b"new");
        assert_eq!(chunks(&open), 0);
    }
}

#[test]
fn an_upload_that_is_cancelled_abandoned_or_late_leaves_nothing() {
    let open = Open::memory();
    let etag = text(&open.save_bytes("k", b"old"), "etag");
    let begin = || text(&open.call("upload", json!({"key": "k", "if_match": etag})), "upload");
    let [cancelled, abandoned, late] = [begin(), begin(), begin()];
    for upload in [&cancelled, &abandoned, &late] {
        part(&open, upload, 0, &noise(300_000)).unwrap();
    }
    let foreign = open.call_as("other", "upload_done", of(json!({ "upload": late })));
    assert_eq!(foreign.unwrap_err().code(), "not_found");
    assert_eq!(
        open.call("upload_cancel", json!({ "upload": cancelled })),
        of(json!({"cancelled": true}))
    );
    assert_eq!(part(&open, &cancelled, 1, b"x").unwrap_err().code(), "not_found");
    open.save_bytes("k", b"changed");
    assert_eq!(open.refused("upload_done", json!({ "upload": late })).0, "conflict");
    assert_eq!(chunks(&open), 1);
    open.pass(3_600_000);
    assert_eq!(chunks(&open), 0);
    assert_eq!(part(&open, &abandoned, 1, b"x").unwrap_err().code(), "not_found");
    assert_eq!(open.value("k"), Ok(Bytes::from_static(b"changed").into()));
}

#[test]
fn an_upload_over_a_limit_is_refused() {
    let options = StorageOptions { max_value: 1000, quota: Some(900), ..StorageOptions::memory() };
    let open = Open::with(options);
    let upload = text(&open.call("upload", json!({"key": "k"})), "upload");
    assert_eq!(part(&open, &upload, 0, &noise((1 << 20) + 1)).unwrap_err().code(), "too_large");
    assert_eq!(part(&open, &upload, 0, &noise(1001)).unwrap_err().code(), "too_large");
    assert_eq!(part(&open, &upload, 0, &noise(900)).unwrap_err().code(), "quota_exceeded");
    part(&open, &upload, 0, &noise(800)).unwrap();
    assert_eq!(part(&open, &upload, 1, &noise(201)).unwrap_err().code(), "too_large");
    open.call("upload_done", json!({ "upload": upload }));
    assert_eq!(int(&open.call("stat", json!({})), "bytes"), 801);
}

#[test]
fn parts_of_a_value_that_changed_meanwhile_are_refused() {
    let open = Open::memory();
    let etag = text(&open.save_bytes("k", &noise(1000)), "etag");
    open.call("get_part", json!({"key": "k", "length": 10, "etag": etag}));
    open.save_bytes("k", &noise(1000));
    assert_eq!(
        open.refused("get_part", json!({"key": "k", "offset": 10, "etag": etag})).0,
        "conflict"
    );
    assert_eq!(open.refused("get_part", json!({"key": "x"})).0, "not_found");
    assert_eq!(open.refused("get_part", json!({"key": "k", "length": 0})).1, "length");
    let behind = open.call("get_part", json!({"key": "k", "offset": 5000}));
    assert_eq!(behind.get("bytes"), Some(&Bytes::new().into()));
    assert_eq!(behind.get("done"), Some(&true.into()));
}

#[test]
fn a_value_that_is_too_large_for_one_answer_says_how_it_is_read() {
    let open = Open::with(StorageOptions { max_inline: 1000, ..StorageOptions::memory() });
    open.save_bytes("k", &noise(1001));
    let failure = open.try_call("get", json!({"key": "k"})).unwrap_err();
    assert_eq!(failure.code(), "too_large");
    assert!(failure.message.contains("get_part"), "{failure}");
    assert_eq!(read_parts(&open, "k", 300), noise(1001));
    open.call("save", json!({"key": "t", "value": "ö".repeat(600)}));
    let kind = open.call("get_part", json!({"key": "t"}));
    assert_eq!(text(&kind, "kind"), "text");
    let list = vec![1; 2000];
    assert_eq!(
        open.refused("save", json!({"key": "l", "value": list})),
        ("too_large", "value".into())
    );
    open.call("save", json!({"key": "l", "value": [1]}));
    assert_eq!(open.refused("get_part", json!({"key": "l"})).0, "unsupported");
}

#[test]
fn a_crash_in_the_middle_of_an_upload_leaves_the_old_value() {
    let (folder, copy) = (Folder::new(), Folder::new());
    let open = Open::at(&folder);
    open.save_bytes("k", b"old");
    let upload = text(&open.call("upload", json!({"key": "k"})), "upload");
    for number in 0..3 {
        part(&open, &upload, number, &noise(300_000)).unwrap();
    }
    // What is on disk is what a killed process leaves.
    for file in ["values.db", "values.db-wal", "values.db-mark"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let after = Open::at(&copy);
    assert_eq!(after.value("k"), Ok(Bytes::from_static(b"old").into()));
    assert_eq!(chunks(&after), 0);
    open.call("upload_done", json!({ "upload": upload }));
    assert_eq!(int(&open.call("stat", json!({})), "bytes"), 900_001);
}
