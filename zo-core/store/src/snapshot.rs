//! A consistent view of the store.

use crate::{
    Read, Scan, Table, fail,
    reads::{Visit, walk},
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableError};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};
use zo_traits::Result;

const OP: &str = "store.read";

type Raw = ReadOnlyTable<&'static [u8], &'static [u8]>;
type Opened = Option<Arc<Raw>>;

/// A consistent view of the store as it was when the snapshot was taken. Clones are one view.
///
/// Pages that it can see are not reused, so a snapshot that is kept makes the file grow. It does not keep the store open:
/// after the last [`Store`](crate::Store) was dropped, reads that need the file fail with
/// [`ErrorKind::Unavailable`](zo_traits::ErrorKind::Unavailable).
#[derive(Clone)]
pub struct Snapshot(Arc<Inner>);

struct Inner {
    /// Opening a table is a search of its own; a reader that makes many small reads pays for it once. Declared before the
    /// transaction that they belong to.
    tables: RwLock<Vec<(&'static str, Opened)>>,
    txn: ReadTransaction,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    pub(crate) fn new(txn: ReadTransaction) -> Self {
        Self(Arc::new(Inner { tables: RwLock::default(), txn }))
    }

    pub(crate) fn transaction(&self) -> &ReadTransaction {
        &self.0.txn
    }

    fn open(&self, table: Table) -> Result<Opened> {
        let tables = self.0.tables.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, opened)) = tables.iter().find(|(name, _)| *name == table.0) {
            return Ok(opened.clone());
        }
        drop(tables);
        let opened = fail::guarded(OP, || match self.0.txn.open_table(table.definition()) {
            Ok(raw) => Ok(Some(Arc::new(raw))),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(fail::table(OP, e)),
        })?;
        let mut tables = self.0.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.push((table.0, opened.clone()));
        Ok(opened)
    }
}

impl Read for Snapshot {
    fn look(&self, table: Table, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let Some(raw) = self.open(table)? else { return Ok(false) };
        match fail::guarded(OP, || raw.get(key).map_err(|e| fail::storage(OP, e)))? {
            Some(value) => look(fail::guarded(OP, || Ok(value.value()))?).map(|()| true),
            None => Ok(false),
        }
    }

    fn visit(&self, table: Table, scan: &Scan<'_>, visit: &mut Visit<'_>) -> Result<()> {
        let Some(raw) = self.open(table)? else { return Ok(()) };
        let Some(bounds) = scan.bounds() else { return Ok(()) };
        let mut range = fail::guarded(OP, || raw.range::<&[u8]>(bounds).map_err(|e| fail::storage(OP, e)))?;
        walk(OP, &mut range, scan, visit)
    }

    fn len(&self, table: Table) -> Result<u64> {
        let Some(raw) = self.open(table)? else { return Ok(0) };
        fail::guarded(OP, || raw.len().map_err(|e| fail::storage(OP, e)))
    }
}

#[allow(clippy::len_without_is_empty)]
mod inherent {
    use crate::{Scan, Snapshot, Table};
    use std::ops::ControlFlow;
    use zo_traits::Result;

    crate::reads::inherent_reads!(impl Snapshot);
}
