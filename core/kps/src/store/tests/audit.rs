use std::time::Duration;

use rusqlite::Connection;

use super::{Folder, Open};
use crate::store::{
    audit::{AuditLimits, AuditQuery, AuditRow, read_audit},
    verify,
};

fn row(time_ms: u64, event: &str) -> AuditRow {
    AuditRow {
        time_ms,
        event: event.into(),
        client_id: Some("a".into()),
        detail: "{\"client_id\":\"a\"}".into(),
    }
}

fn all() -> AuditQuery {
    AuditQuery { max_count: 1000, ..AuditQuery::default() }
}

fn ids(folder: &Folder, query: &AuditQuery) -> Vec<u64> {
    read_audit(folder.path(), query).unwrap().iter().map(|entry| entry.id).collect()
}

#[test]
fn rows_are_read_back_by_time_and_name() {
    let folder = Folder::new();
    let open = Open::new(Some(folder.path()), |_| {});
    open.store.audit(row(1000, "client_connected"));
    open.store.audit(row(2500, "client_disconnected"));
    open.store.close();
    let entries = read_audit(folder.path(), &all()).unwrap();
    assert_eq!(entries[1].time, "1970-01-01T00:00:02.500Z");
    assert_eq!(entries[0].row, row(1000, "client_connected"));
    assert_eq!(ids(&folder, &AuditQuery { from_ms: 2000, ..all() }), [2]);
    let event = Some("client_connected".into());
    assert_eq!(ids(&folder, &AuditQuery { event, ..all() }), [1]);
    assert!(verify(folder.path()).unwrap().findings.is_empty());
}

#[test]
fn old_and_too_many_rows_go_and_numbers_go_on() {
    let folder = Folder::new();
    // It is 1,000,000 there.
    let limits = AuditLimits { max_count: 3, max_age: Duration::from_millis(900_000) };
    let open = Open::new(Some(folder.path()), |options| options.audit = limits);
    for time in [1, 999_997, 999_998, 999_999, 1_000_000] {
        open.store.audit(row(time, "x"));
    }
    open.store.close();
    assert_eq!(ids(&folder, &all()), [3, 4, 5]);
    let open = Open::new(Some(folder.path()), |options| options.audit = limits);
    open.store.audit(row(1_000_000, "x"));
    open.store.close();
    assert_eq!(ids(&folder, &all()), [4, 5, 6]);
}

#[test]
fn a_changed_or_missing_row_is_found() {
    for damage in ["UPDATE audit SET detail = '{}' WHERE id = 2", "DELETE FROM audit WHERE id = 2"]
    {
        let folder = Folder::new();
        let open = Open::new(Some(folder.path()), |_| {});
        (0..3).for_each(|time| open.store.audit(row(time, "x")));
        open.store.close();
        Connection::open(folder.file()).unwrap().execute(damage, []).unwrap();
        let findings = verify(folder.path()).unwrap().findings;
        assert!(findings.iter().any(|finding| finding.contains("row 2")), "{findings:?}");
    }
}
