//! kine's SQLite database, as a k3s with one server keeps it.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, params};

/// The table, in kine's words.
const SCHEMA: &str = "\
    CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER, \
    deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, \
    old_value BLOB);
    CREATE INDEX kine_name_index ON kine (name);
    CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);";

/// A row: key, created, deleted, create revision, previous revision, lease, value.
pub type Row<'a> = (&'a str, i64, i64, i64, i64, i64, &'a str);

/// What k3s might have in it: a key that was changed, one that is gone, and two that expire.
pub const ROWS: [Row<'static>; 8] = [
    ("compact_rev_key", 1, 0, 0, 0, 0, ""),
    ("/registry/namespaces/default", 1, 0, 0, 0, 0, "one"),
    ("/registry/gone", 1, 0, 0, 0, 0, "x"),
    ("/registry/namespaces/default", 0, 0, 2, 2, 0, "two"),
    ("/registry/gone", 0, 1, 3, 3, 0, "x"),
    ("gap-6", 0, 1, 0, 0, 0, ""),
    ("/registry/masterleases/127.0.0.1", 1, 0, 0, 0, 2, "soon"),
    ("/registry/events/default/x", 1, 0, 0, 0, 3660, "later"),
];

/// Makes a database with [`ROWS`] in it; it is in use until the connection is closed.
///
/// # Errors
/// When SQLite refuses.
pub fn create(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_row| Ok(()))?;
    connection.execute_batch(SCHEMA)?;
    for row in ROWS {
        insert(&connection, row)?;
    }
    Ok(connection)
}

/// Appends a row.
///
/// # Errors
/// When SQLite refuses.
pub fn insert(connection: &Connection, row: Row<'_>) -> Result<()> {
    let (key, created, deleted, create_revision, prev_revision, lease, value) = row;
    connection.execute(
        "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![
            key,
            created,
            deleted,
            create_revision,
            prev_revision,
            lease,
            value.as_bytes()
        ],
    )?;
    Ok(())
}
