//! The reads that a snapshot and a transaction share.

use crate::Table;
use std::ops::ControlFlow;
use zo_traits::Result;

/// What a scan shows its rows to, key and value: it goes on, breaks, or fails.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>> + 'v;

/// Reads, over a [`Snapshot`](crate::Snapshot) or inside a [`Tx`](crate::Tx): what code that serves both takes, as
/// `&dyn Read` or `&impl Read`. Both types have these as methods of their own too.
///
/// # Errors
/// [`ErrorKind::Corrupt`](zo_traits::ErrorKind::Corrupt) for a damaged file,
/// [`ErrorKind::Unavailable`](zo_traits::ErrorKind::Unavailable) for a failed disk or a closed store.
pub trait Read {
    /// Shows the value of `key` to `look`, without a copy; `false` when there is none.
    ///
    /// # Errors
    /// See [`Read`]; `look`'s own.
    fn look(&self, table: Table, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool>;

    /// Shows the rows of `scan` to `visit`, in order, until it breaks or fails.
    ///
    /// # Errors
    /// See [`Read`]; `visit`'s own.
    fn visit(&self, table: Table, scan: &crate::Scan<'_>, visit: &mut Visit<'_>) -> Result<()>;

    /// Number of rows; 0 for a table that does not exist. Takes constant time.
    ///
    /// # Errors
    /// See [`Read`].
    fn len(&self, table: Table) -> Result<u64>;

    /// The value of `key`.
    ///
    /// # Errors
    /// See [`Read`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.look(table, key, &mut |value| {
            found = Some(value.to_vec());
            Ok(())
        })?;
        Ok(found)
    }
}

/// The inherent reads of a type that is [`Read`], so that nobody needs the trait in scope.
macro_rules! inherent_reads {
    ($($head:tt)*) => {
        $($head)* {
            /// The value of `key`.
            ///
            /// # Errors
            /// See [`Read`](crate::Read).
            pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
                crate::Read::get(self, table, key)
            }

            /// What `look` makes of the value of `key`, without a copy of it.
            ///
            /// # Errors
            /// See [`Read`](crate::Read); `look`'s own.
            pub fn get_with<R>(
                &self,
                table: Table,
                key: &[u8],
                mut look: impl FnMut(&[u8]) -> Result<R>,
            ) -> Result<Option<R>> {
                let mut found = None;
                crate::Read::look(self, table, key, &mut |value| {
                    found = Some(look(value)?);
                    Ok(())
                })?;
                Ok(found)
            }

            /// Is there a row of `key`?
            ///
            /// # Errors
            /// See [`Read`](crate::Read).
            pub fn contains(&self, table: Table, key: &[u8]) -> Result<bool> {
                crate::Read::look(self, table, key, &mut |_| Ok(()))
            }

            /// Shows the rows of `scan` to `visit`, in order, until it returns [`ControlFlow::Break`] or fails.
            ///
            /// # Errors
            /// See [`Read`](crate::Read); `visit`'s own.
            pub fn scan(
                &self,
                table: Table,
                scan: &Scan<'_>,
                mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
            ) -> Result<()> {
                crate::Read::visit(self, table, scan, &mut visit)
            }

            /// The rows of `scan`, in order. All of them in RAM: set a limit where there may be many.
            ///
            /// # Errors
            /// See [`Read`](crate::Read).
            pub fn collect(&self, table: Table, scan: &Scan<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
                let mut rows = Vec::new();
                crate::Read::visit(self, table, scan, &mut |key, value| {
                    rows.push((key.to_vec(), value.to_vec()));
                    Ok(ControlFlow::Continue(()))
                })?;
                Ok(rows)
            }

            /// The first row of `scan`; with [`Scan::reverse`] the last.
            ///
            /// # Errors
            /// See [`Read`](crate::Read).
            pub fn first(&self, table: Table, scan: &Scan<'_>) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
                let mut row = None;
                crate::Read::visit(self, table, scan, &mut |key, value| {
                    row = Some((key.to_vec(), value.to_vec()));
                    Ok(ControlFlow::Break(()))
                })?;
                Ok(row)
            }

            /// Number of rows; 0 for a table that does not exist. Takes constant time.
            ///
            /// # Errors
            /// See [`Read`](crate::Read).
            pub fn len(&self, table: Table) -> Result<u64> {
                crate::Read::len(self, table)
            }
        }
    };
}
pub(crate) use inherent_reads;

/// Walks a range of the engine. The visitor runs outside of the guard, so its panic stays its own.
pub(crate) fn walk(
    op: &'static str,
    range: &mut redb::Range<'_, &'static [u8], &'static [u8]>,
    scan: &crate::Scan<'_>,
    visit: &mut Visit<'_>,
) -> Result<()> {
    for _ in 0..scan.limit {
        let row = crate::fail::guarded(op, || {
            let row = if scan.reverse { range.next_back() } else { range.next() };
            row.transpose().map_err(|e| crate::fail::storage(op, e))
        })?;
        let Some((key, value)) = row else { break };
        let (key, value) = crate::fail::guarded(op, || Ok((key.value(), value.value())))?;
        if visit(key, value)?.is_break() {
            break;
        }
    }
    Ok(())
}
