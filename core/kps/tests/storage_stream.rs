//! A value larger than the memory it may take goes into a storage and comes out again, in parts.
#![cfg(feature = "store")]

use bytes::Bytes;
use kps::capability::{
    Call, Caller, Cancel, Capability, Value,
    storage::{Storage, StorageOptions},
};

/// MiB of the value; `KPS_STREAM_MIB=1024` is what the manual promises.
const MIB: u64 = 192;

/// MiB that may be taken beyond what is taken before.
const MAX_EXTRA: u64 = 64;

fn part(number: u64, size: usize) -> Bytes {
    let noise = |place: u64| (number ^ place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 13;
    (0..size as u64 / 8).flat_map(|place| noise(place).to_le_bytes()).collect()
}

/// The most memory this process ever had, in MiB; `None` where that is not known.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? >> 10)
}

#[test]
fn a_stream_takes_constant_memory() {
    let mib = std::env::var("KPS_STREAM_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(MIB);
    let folder = std::env::temp_dir().join(format!("kps-stream-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let storage = Storage::open(StorageOptions::at(&folder)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let call = |operation: &str, payload: Value| {
        let call = Call {
            id: "1".into(),
            operation: operation.into(),
            payload,
            caller: Caller::default(),
            cancel: Cancel::default(),
            deadline: None,
            attempt: 1,
            progress: None,
        };
        runtime.block_on(storage.call(call)).unwrap()
    };
    let begun = call("upload", Value::map([("key", "k".into())]));
    let upload = begun.get("upload").unwrap().clone();
    let Some(&Value::Int(size)) = begun.get("part_size") else { panic!("{begun:?}") };
    let parts = (mib << 20) / size as u64;
    let before = peak();
    let start = std::time::Instant::now();
    for number in 0..parts {
        let payload = Value::map([
            ("upload", upload.clone()),
            ("number", number.into()),
            ("bytes", part(number, size as usize).into()),
        ]);
        call("upload_part", payload);
    }
    let done = call("upload_done", Value::map([("upload", upload)]));
    let written = start.elapsed();
    assert_eq!(done.get("size"), Some(&(parts * size as u64).into()));
    for number in 0..parts {
        let payload = Value::map([
            ("key", "k".into()),
            ("offset", (number * size as u64).into()),
            ("length", size.into()),
            ("etag", done.get("etag").unwrap().clone()),
        ]);
        let got = call("get_part", payload);
        assert_eq!(got.get("bytes"), Some(&part(number, size as usize).into()), "part {number}");
        assert_eq!(got.get("done"), Some(&(number + 1 == parts).into()));
    }
    eprintln!(
        "{mib} MiB written in {written:?}, all in {:?}, {before:?} → {:?} MiB",
        start.elapsed(),
        peak()
    );
    if let (Some(before), Some(after)) = (before, peak()) {
        assert!(after - before <= MAX_EXTRA, "{before} MiB became {after} MiB");
    }
    let log = std::fs::metadata(folder.join("values.db-wal")).unwrap().len();
    assert!(log < 64 << 20, "the log has {log} bytes");
    storage.close();
    let _ = std::fs::remove_dir_all(folder);
}
