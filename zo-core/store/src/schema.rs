//! Versions: of the store's own format, and of what each domain keeps in it.

use crate::{Read, Table, Tx, fail};
use redb::{Database, ReadableDatabase, TableError, TableHandle};
use zo_traits::{Error, ErrorKind, Result};

const SCHEMA: Table = Table::new("zo.schema");

/// The version of the store's own conventions. Older programs must not touch a newer file.
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"zo.store";

fn decode(op: &'static str, value: &[u8]) -> Result<u32> {
    value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| Error::new(ErrorKind::Corrupt, op, "a schema version is not of four bytes"))
}

fn newer(op: &'static str, what: &str, found: u32, known: u32) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        op,
        format_args!(
            "{what} is of version {found}, written by a newer program; this one knows version {known}"
        ),
    )
}

pub(crate) fn current(reads: &dyn Read, domain: &str) -> Result<Option<u32>> {
    let mut version = None;
    reads.look(SCHEMA, domain.as_bytes(), &mut |value| {
        version = Some(decode("store.schema", value)?);
        Ok(())
    })?;
    Ok(version)
}

pub(crate) fn require(
    tx: &mut Tx<'_>,
    domain: &str,
    version: u32,
    migrate: &mut dyn FnMut(&mut Tx<'_>, u32) -> Result<()>,
) -> Result<()> {
    match current(tx, domain)? {
        Some(found) if found > version => return Err(newer("store.schema", domain, found, version)),
        Some(found) if found == version => return Ok(()),
        Some(found) => migrate(tx, found)?,
        None => {}
    }
    tx.put(SCHEMA, domain.as_bytes(), &version.to_be_bytes())
}

/// Marks a new database as a store; checks that one with tables is a store that this version can read.
pub(crate) fn adopt(db: &Database) -> Result<()> {
    const OP: &str = "store.open";
    let read = db.begin_read().map_err(|e| fail::transaction(OP, e))?;
    let version = match read.open_table(SCHEMA.definition()) {
        Ok(table) => match table.get(FORMAT_KEY).map_err(|e| fail::storage(OP, e))? {
            Some(value) => Some(decode(OP, value.value())?),
            None => None,
        },
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(e) => return Err(fail::table(OP, e)),
    };
    match version {
        Some(found) if found > FORMAT => return Err(newer(OP, "the file", found, FORMAT)),
        Some(_) => return Ok(()),
        None => {}
    }
    let foreign = read.list_tables().map_err(|e| fail::storage(OP, e))?.next();
    if let Some(table) = foreign {
        return Err(Error::new(
            ErrorKind::Corrupt,
            OP,
            format_args!("not a store: a database of another program (it has a table {:?})", table.name()),
        ));
    }
    drop(read);
    let txn = db.begin_write().map_err(|e| fail::transaction(OP, e))?;
    txn.open_table(SCHEMA.definition())
        .map_err(|e| fail::table(OP, e))?
        .insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())
        .map_err(|e| fail::storage(OP, e))?;
    txn.commit().map_err(|e| fail::commit(OP, e))
}
