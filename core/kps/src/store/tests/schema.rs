use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::store::{file::Kind, outbox::OUTBOX, schema::STORE};

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
