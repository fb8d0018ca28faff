use std::collections::BTreeMap;

use rusqlite::Connection;

use super::{Folder, Open, query};
use crate::store::{StoreReader, file::Kind, outbox::OUTBOX, schema::STORE};

/// What `SCHEMA.md` says: below a heading "### `table`" a table whose first column names columns.
fn documented(section: &str) -> BTreeMap<String, Vec<String>> {
    let text = include_str!("../SCHEMA.md");
    let (_, section) = text.split_once(&format!("\n## {section}")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut tables = BTreeMap::new();
    for part in section.split("\n### `").skip(1) {
        let (table, rest) = part.split_once('`').unwrap();
        let rows = rest.lines().filter_map(|line| line.strip_prefix("| `"));
        let columns = rows.map(|row| row.split('`').next().unwrap().to_owned()).collect();
        tables.insert(table.to_owned(), columns);
    }
    tables
}

fn real(connection: &Connection) -> BTreeMap<String, Vec<String>> {
    let sql = "SELECT s.name, c.name FROM sqlite_schema AS s JOIN pragma_table_info(s.name) AS c \
               WHERE s.type IN ('table', 'view') ORDER BY s.name, c.cid";
    let mut statement = connection.prepare(sql).unwrap();
    let mut tables = BTreeMap::<String, Vec<String>>::new();
    for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap() {
        let (table, column) = row.unwrap();
        tables.entry(table).or_default().push(column);
    }
    tables
}

fn compare(section: &str, kind: &Kind) {
    assert_eq!(documented(section), real(&kind.in_memory().unwrap()));
    let text = include_str!("../SCHEMA.md");
    let id = format!("`{:#010x}`", kind.application_id);
    assert!(text.contains(&id), "{id} of {}", kind.name);
}

#[test]
fn the_stores_schema_is_documented() {
    compare("The store", &STORE);
}

#[test]
fn the_outboxes_schema_is_documented() {
    compare("A client's outbox", &OUTBOX);
}

#[test]
fn the_schema_of_values_is_documented() {
    compare("Values", &crate::store::values::VALUES);
}

/// The same database as the first version wrote it.
fn downgrade(path: &std::path::Path, kind: &Kind) {
    let new = path.with_extension("new-version");
    std::fs::rename(path, &new).unwrap();
    let marked = crate::store::file::beside(path, "-mark");
    let mark = std::fs::read(&marked).unwrap();
    std::fs::remove_file(&marked).unwrap();
    let first = Kind { migrations: &kind.migrations[..1], ..*kind };
    let old = first.open(path).unwrap();
    old.execute("ATTACH ? AS new", [new.to_str().unwrap()]).unwrap();
    for (table, columns) in real(&first.in_memory().unwrap()) {
        if table == "history" {
            continue;
        }
        let columns = columns.join(", ");
        let sql = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}");
        old.execute(&sql, []).unwrap();
    }
    drop(old);
    std::fs::write(marked, mark).unwrap();
}

#[test]
fn a_store_of_the_first_version_is_brought_up_to_date_with_all_it_has() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |_| {});
    let kept = [open.add("a", "one"), open.add("b", "two")];
    drop(open);
    downgrade(&folder.file(), &STORE);
    let error = StoreReader::open(folder.path()).unwrap_err();
    assert!(error.message().contains("older format"), "{error}");
    let mut open = Open::new(Some(folder.path()), |_| {});
    assert!(open.recovered.retained.is_empty());
    let new = open.add("a", "three");
    let found = open.read(">", kps_proto::history::ReadFrom::After(0)).records;
    assert_eq!(found, [kept[0].clone(), kept[1].clone(), new]);
    drop(open);
    let mut reader = StoreReader::open(folder.path()).unwrap();
    let all = query(">", kps_proto::history::ReadFrom::After(0));
    assert_eq!(reader.read(&all).unwrap().records.len(), 3);
    assert_eq!(crate::store::verify(folder.path()).unwrap().findings, [""; 0]);
}

#[test]
fn an_outbox_of_the_first_version_is_brought_up_to_date_with_all_it_has() {
    use crate::store::outbox::{Destination, Kept, OutboxFile};
    let folder = Folder::new();
    let path = folder.path().join("outbox");
    let kept = Kept {
        place: 1,
        destination: Destination::Topic("t".into()),
        retain: false,
        payload: kps_proto::message::Payload::json("1"),
        extras: None,
        expires_ms: None,
        published_ms: 5,
    };
    let (outbox, _) = OutboxFile::open(&path, |_| {}).unwrap();
    outbox.push(kept.clone());
    outbox.close();
    downgrade(&path, &OUTBOX);
    assert_eq!(OutboxFile::open(&path, |_| {}).unwrap().1, [kept]);
}
