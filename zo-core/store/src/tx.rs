//! The transaction that a write closure works in.

use crate::{
    Read, Scan, Table, fail,
    reads::{Visit, walk},
};
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};
use zo_traits::{Error, ErrorKind, Result};

const OP: &str = "store.write";

type Raw<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;
type Shared<'t> = Rc<RefCell<Raw<'t>>>;

/// The transaction that a closure of [`Store::write`](crate::Store::write) works in: it sees every commit so far and what
/// it and the closures before it in the same commit wrote.
pub struct Tx<'t> {
    txn: &'t WriteTransaction,
    /// Tables stay open for all closures of a commit. Reads borrow shared and writes need `&mut Tx`, so no borrow of a
    /// cell can meet another.
    open: RefCell<Vec<(&'static str, Shared<'t>)>>,
    /// Tables that the closures of this commit wrote to.
    written: Vec<Table>,
    /// Did the closure that runs now write?
    dirty: bool,
    /// The engine failed: nothing of this transaction can be committed, whatever the closure makes of the error.
    broken: Cell<Option<Error>>,
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("written", &self.written).finish_non_exhaustive()
    }
}

impl<'t> Tx<'t> {
    pub(crate) fn new(txn: &'t WriteTransaction) -> Self {
        Self { txn, open: RefCell::default(), written: Vec::new(), dirty: false, broken: Cell::new(None) }
    }

    /// Before each closure.
    pub(crate) fn begin(&mut self) {
        self.dirty = false;
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(crate) fn take_broken(&mut self) -> Option<Error> {
        self.broken.take()
    }

    /// Which tables were written to, once the transaction is over.
    pub(crate) fn into_written(self) -> Vec<Table> {
        self.written
    }

    /// Stores `value` under `key`, replacing what was there.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] beyond 3 GiB; those of the disk.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(table, |raw| raw.insert(key, value).map(|_| ((), true)))
    }

    /// Deletes `key`; `false` when there was none.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        self.change(table, |raw| raw.remove(key).map(|old| (old.is_some(), old.is_some())))
    }

    /// Deletes every row of `scan`'s range, whatever its order and limit say; returns how many there were.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn delete_all(&mut self, table: Table, scan: &Scan<'_>) -> Result<u64> {
        let Some(bounds) = scan.bounds() else { return Ok(0) };
        self.change(table, |raw| {
            let mut gone = 0;
            raw.retain_in::<&[u8], _>(bounds, |_, _| {
                gone += 1;
                false
            })?;
            Ok((gone, gone > 0))
        })
    }

    /// `work` says besides its result whether it changed anything: what changed nothing needs no commit.
    fn change<R>(
        &mut self,
        table: Table,
        work: impl FnOnce(&mut Raw<'t>) -> redb::Result<(R, bool)>,
    ) -> Result<R> {
        let raw = self.raw(table)?;
        let done = fail::guarded(OP, || match raw.try_borrow_mut() {
            Ok(mut raw) => work(&mut raw).map_err(|e| fail::storage(OP, e)),
            Err(_) => Err(Error::new(ErrorKind::Conflict, OP, "the table is being read")),
        });
        let (result, changed) = self.noted(done)?;
        if changed {
            self.dirty = true;
            if !self.written.contains(&table) {
                self.written.push(table);
            }
        }
        Ok(result)
    }

    /// Remembers a failure of the engine, so that a closure cannot swallow it.
    fn noted<R>(&self, done: Result<R>) -> Result<R> {
        if let Err(e) = &done
            && e.kind() != ErrorKind::Invalid
        {
            self.broken.set(Some(e.clone()));
        }
        done
    }

    fn raw(&self, table: Table) -> Result<Shared<'t>> {
        if let Some((_, raw)) = self.open.borrow().iter().find(|(name, _)| *name == table.0) {
            return Ok(raw.clone());
        }
        let raw = self.noted(fail::guarded(OP, || {
            self.txn.open_table(table.definition()).map_err(|e| fail::table(OP, e))
        }))?;
        let raw = Rc::new(RefCell::new(raw));
        self.open.borrow_mut().push((table.0, raw.clone()));
        Ok(raw)
    }
}

impl Read for Tx<'_> {
    fn look(&self, table: Table, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let raw = self.raw(table)?;
        let raw = raw.borrow();
        let found = fail::guarded(OP, || raw.get(key).map_err(|e| fail::storage(OP, e)));
        match self.noted(found)? {
            Some(value) => look(fail::guarded(OP, || Ok(value.value()))?).map(|()| true),
            None => Ok(false),
        }
    }

    fn visit(&self, table: Table, scan: &Scan<'_>, visit: &mut Visit<'_>) -> Result<()> {
        let Some(bounds) = scan.bounds() else { return Ok(()) };
        let raw = self.raw(table)?;
        let raw = raw.borrow();
        let range = fail::guarded(OP, || raw.range::<&[u8]>(bounds).map_err(|e| fail::storage(OP, e)));
        walk(OP, &mut self.noted(range)?, scan, visit)
    }

    fn len(&self, table: Table) -> Result<u64> {
        let raw = self.raw(table)?;
        let raw = raw.borrow();
        self.noted(fail::guarded(OP, || raw.len().map_err(|e| fail::storage(OP, e))))
    }
}

#[allow(clippy::len_without_is_empty)]
mod inherent {
    use crate::{Scan, Table, Tx};
    use std::ops::ControlFlow;
    use zo_traits::Result;

    crate::reads::inherent_reads!(impl Tx<'_>);
}
