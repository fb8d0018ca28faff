use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn both() -> [Open; 2] {
    [Open::memory(), Open::on_disk()]
}

fn rows(answer: &Value) -> Value {
    answer.get("rows").unwrap().clone()
}

#[test]
fn values_can_be_queried_as_json() {
    for open in both() {
        open.call(
            "save",
            json!({"key": "a", "value": {"age": 3, "name": "x"}, "content_type": "t"}),
        );
        open.call("save", json!({"key": "b", "value": {"age": 40}}));
        open.save_bytes("c", b"bytes");
        let answer = open.call(
            "query",
            json!({"sql": "SELECT key, json_extract(json, '$.age') AS age FROM entries WHERE age > ? ORDER BY age", "parameters": [1]}),
        );
        assert_eq!(answer.get("columns"), Some(&of(json!(["key", "age"]))));
        assert_eq!(rows(&answer), of(json!([["a", 3], ["b", 40]])));
        assert_eq!(answer.get("truncated"), Some(&false.into()));
        let answer = open.call(
            "query",
            json!({"sql": "WITH big AS (SELECT * FROM entries WHERE size > :least) SELECT count(*), max(modified), max(content_type) FROM big", "parameters": {"least": 1}}),
        );
        assert_eq!(rows(&answer), of(json!([[3, 1000.0, "t"]])));
        let answer = open.call("query", json!({"sql": "SELECT e.etag, j.value FROM entries e, json_each(e.json) j WHERE e.key = 'b'"}));
        let etag = text(&open.call("exists", json!({"key": "b"})), "etag");
        assert_eq!(rows(&answer), of(json!([[etag, 40]])));
        let answer =
            open.call("query", json!({"sql": "SELECT key FROM entries ORDER BY key", "limit": 2}));
        assert_eq!(answer.get("truncated"), Some(&true.into()));
        assert_eq!(rows(&answer), of(json!([["a"], ["b"]])));
    }
}

#[test]
fn a_query_reads_nothing_but_its_own_namespaces_view() {
    for open in both() {
        open.call("save", json!({"key": "mine", "value": 1}));
        open.call_as("other", "save", of(json!({"key": "secret", "value": 1}))).unwrap();
        for sql in [
            "SELECT * FROM main.items",
            "SELECT * FROM items",
            "SELECT * FROM namespaces",
            "SELECT * FROM versions",
            "SELECT sql FROM sqlite_schema",
            "SELECT * FROM temp.sqlite_schema",
            "SELECT * FROM sqlite_temp_master",
            "WITH entries AS (SELECT * FROM main.items) SELECT * FROM entries",
            "WITH scope AS (SELECT * FROM main.items) SELECT * FROM scope",
            "SELECT * FROM (SELECT * FROM main.items) AS entries",
            "SELECT (SELECT key FROM main.items LIMIT 1) FROM entries",
            "SELECT count(*) FROM main.items",
            "SELECT 1 FROM main.items",
            "SELECT * FROM pragma_table_info('items')",
            "SELECT * FROM dbstat",
            "SELECT kps_json(2, 'secret', 1, 0, x'00')",
            "SELECT load_extension('x')",
            "PRAGMA query_only = OFF",
            "ATTACH 'file' AS x",
            "DELETE FROM entries",
            "INSERT INTO items DEFAULT VALUES",
            "UPDATE main.items SET key = 'x'",
            "CREATE TABLE t (c)",
            "CREATE TEMP TABLE t (c)",
            "DROP VIEW entries",
            "BEGIN",
            "VACUUM INTO '/tmp/kps-stolen'",
            "SELECT 1; SELECT 2",
            "SELECT nonsense",
            "SELECT length(zeroblob(20000000))",
            "nonsense",
            "",
            "SELECT ?",
        ] {
            let failure = open.try_call("query", json!({ "sql": sql })).unwrap_err();
            assert_eq!(failure.code(), "invalid_payload", "{sql}: {failure}");
            assert_eq!(failure.field.as_deref(), Some("sql"), "{sql}");
        }
        let answer = open.call("query", json!({"sql": "SELECT key FROM entries"}));
        assert_eq!(rows(&answer), of(json!([["mine"]])));
        // Nothing of it stays behind.
        open.call("save", json!({"key": "after", "value": 1}));
    }
}

#[test]
fn a_query_ends_at_its_deadline_and_when_it_is_cancelled() {
    for open in both() {
        let endless =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let call = |cancelled: bool| {
            let call = Call {
                id: "1".into(),
                operation: "query".into(),
                payload: of(json!({ "sql": endless })),
                caller: Caller::default(),
                cancel: Cancel::default(),
                deadline: Some(Instant::now() + Duration::from_millis(20)),
                attempt: 1,
                progress: None,
            };
            if cancelled {
                call.cancel.cancel();
            }
            wait(open.storage.call(call)).unwrap_err().code()
        };
        assert_eq!(call(false), "timeout");
        assert_eq!(call(true), "cancelled");
        open.call("save", json!({"key": "k", "value": 1}));
    }
}
