//! The online copy of a store.

use crate::{
    Snapshot, Store, fail,
    open::{Temp, create_file},
    table::Definition,
};
use redb::{Database, Durability, ReadableTableMetadata, TableHandle, backends::FileBackend};
use std::{fs::File, ops::Bound, path::Path};
use zo_traits::{Error, ErrorKind, Result};

const OP: &str = "store.backup";

/// Bytes that are copied in one step, which bounds the memory that a copy takes.
const STEP: usize = 1 << 20;

/// What a backup copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// Tables.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Size of the new file in bytes.
    pub file_bytes: u64,
}

pub(crate) fn run(store: Store, to: &Path) -> Result<BackupReport> {
    if to.symlink_metadata().is_ok() {
        return Err(Error::new(
            ErrorKind::Conflict,
            OP,
            format_args!("{} exists already; a backup never replaces a file", to.display()),
        ));
    }
    let snapshot = store.snapshot()?;
    // From here on the snapshot is all that is needed, but without the store it would be closed.
    let temp = Temp::beside(to)?;
    let mut report = fail::guarded(OP, || copy(&snapshot, &temp.0))?;
    drop((snapshot, store));
    let file = File::open(&temp.0).map_err(|e| fail::io_error(OP, e))?;
    file.sync_all().map_err(|e| fail::io_error(OP, e))?;
    report.file_bytes = file.metadata().map_err(|e| fail::io_error(OP, e))?.len();
    drop(file);
    temp.publish(to, OP)?;
    Ok(report)
}

fn copy(snapshot: &Snapshot, temp: &Path) -> Result<BackupReport> {
    let backend = FileBackend::new(create_file(temp)?).map_err(|e| fail::database(OP, e))?;
    let db = Database::builder()
        .set_cache_size(2 * STEP)
        .create_with_backend(backend)
        .map_err(|e| fail::database(OP, e))?;
    let mut report = BackupReport::default();
    let tables = snapshot.transaction().list_tables().map_err(|e| fail::storage(OP, e))?;
    for table in tables {
        copy_table(snapshot, table.name(), &db, &mut report)?;
    }
    let mut last = db.begin_write().map_err(|e| fail::transaction(OP, e))?;
    // One durable commit takes the ones before along.
    last.set_durability(Durability::Immediate).map_err(|e| Error::new(ErrorKind::Unavailable, OP, e))?;
    last.commit().map_err(|e| fail::commit(OP, e))?;
    db.close().map_err(|e| fail::database(OP, e))?;
    Ok(report)
}

fn copy_table(snapshot: &Snapshot, name: &str, db: &Database, report: &mut BackupReport) -> Result<()> {
    let source = snapshot.transaction().open_table(Definition::new(name)).map_err(|e| fail::table(OP, e))?;
    let mut copied = 0;
    let mut behind: Option<Vec<u8>> = None;
    loop {
        let mut txn = db.begin_write().map_err(|e| fail::transaction(OP, e))?;
        txn.set_durability(Durability::None).map_err(|e| Error::new(ErrorKind::Unavailable, OP, e))?;
        let mut target = txn.open_table(Definition::new(name)).map_err(|e| fail::table(OP, e))?;
        let start = behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = source.range::<&[u8]>((start, Bound::Unbounded)).map_err(|e| fail::storage(OP, e))?;
        let (mut step, mut last) = (0, None);
        for row in rows {
            let (key, value) = row.map_err(|e| fail::storage(OP, e))?;
            target.insert(key.value(), value.value()).map_err(|e| fail::storage(OP, e))?;
            step += key.value().len() + value.value().len();
            copied += 1;
            if step >= STEP {
                last = Some(key.value().to_vec());
                break;
            }
        }
        drop(target);
        txn.commit().map_err(|e| fail::commit(OP, e))?;
        report.bytes += step as u64;
        if last.is_none() {
            break;
        }
        behind = last;
    }
    let expected = ReadableTableMetadata::len(&source).map_err(|e| fail::storage(OP, e))?;
    if copied != expected {
        return Err(Error::new(
            ErrorKind::Corrupt,
            OP,
            format_args!("table {name:?} should have {expected} rows and has {copied}"),
        ));
    }
    report.tables += 1;
    report.rows += copied;
    Ok(())
}
