//! Names of tables and descriptions of scans.

use redb::TableDefinition;
use std::{borrow::Cow, ops::Bound, ops::RangeBounds};

/// A named table of byte keys to byte values, ordered by key.
///
/// A table exists once something was put into it. By convention a name is `part.what`; names that begin with `zo.` belong
/// to the store itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table(pub(crate) &'static str);

pub(crate) type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

impl Table {
    /// The table named `name`.
    ///
    /// # Panics
    /// When `name` is empty; in a constant that is an error of the compiler.
    pub const fn new(name: &'static str) -> Self {
        assert!(!name.is_empty(), "a table needs a name");
        Self(name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0
    }

    pub(crate) fn definition(self) -> Definition<'static> {
        TableDefinition::new(self.0)
    }
}

/// Which rows of a table, in which order, at most how many.
///
/// ```
/// use zo_store::Scan;
/// let newest_three = Scan::prefix(b"user/7/").reverse().limit(3);
/// let page = Scan::prefix(b"user/7/").after(b"user/7/last-seen").limit(100);
/// # let _ = (newest_three, page);
/// ```
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    pub(crate) start: Bound<Cow<'a, [u8]>>,
    pub(crate) end: Bound<Cow<'a, [u8]>>,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
}

/// Start and end as the engine wants them.
pub(crate) type Bounds<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

impl<'a> Scan<'a> {
    /// Every row.
    pub const fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded, reverse: false, limit: usize::MAX }
    }

    /// Rows whose key starts with `prefix`.
    pub fn prefix(prefix: &'a [u8]) -> Self {
        let end = match crate::key::successor(prefix) {
            Some(end) => Bound::Excluded(Cow::Owned(end)),
            None => Bound::Unbounded,
        };
        Self { start: Bound::Included(Cow::Borrowed(prefix)), end, ..Self::all() }
    }

    /// Rows whose key is in `range`, e.g. `a..b`, `a..` or a pair of [`Bound`]s. A range that ends before it starts is
    /// empty.
    pub fn range(range: impl RangeBounds<&'a [u8]>) -> Self {
        Self {
            start: range.start_bound().map(|k| Cow::Borrowed(*k)),
            end: range.end_bound().map(|k| Cow::Borrowed(*k)),
            ..Self::all()
        }
    }

    /// Greatest key first.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// At most `rows` rows.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    /// Goes on behind `key` in the direction of the scan: call it after [`reverse`](Scan::reverse). A key before the
    /// start changes nothing.
    #[must_use]
    pub fn after(mut self, key: &'a [u8]) -> Self {
        let bound = Bound::Excluded(Cow::Borrowed(key));
        if self.reverse {
            let narrower = match &self.end {
                Bound::Unbounded => true,
                Bound::Included(end) | Bound::Excluded(end) => key <= end.as_ref(),
            };
            if narrower {
                self.end = bound;
            }
        } else {
            let narrower = match &self.start {
                Bound::Unbounded => true,
                Bound::Included(start) | Bound::Excluded(start) => key >= start.as_ref(),
            };
            if narrower {
                self.start = bound;
            }
        }
        self
    }

    /// The bounds, unless they hold nothing.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let start = self.start.as_ref().map(AsRef::as_ref);
        let end = self.end.as_ref().map(AsRef::as_ref);
        let empty = match (start, end) {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
            _ => false,
        };
        (!empty && self.limit > 0).then_some((start, end))
    }
}
