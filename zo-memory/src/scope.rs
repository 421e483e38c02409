//! Scopes as the store knows them: a name, a short number for keys, and the counts that BM25 needs.

use crate::varint::{self, corrupt};
use zo_store::{Read, Table, Tx};
use zo_traits::{MemoryId, Result, Timestamp};

/// Name, as it is -> [`ScopeRow`].
const SCOPES: Table = Table::new("memory.scopes");
/// Counters of the whole memory.
const META: Table = Table::new("memory.meta");
const LAST_ID: &[u8] = b"last_id";
const NEXT_SCOPE: &[u8] = b"next_scope";

/// The low bits of an id number the item in its scope; those above are a clock that never stands still.
const NUMBER_BITS: u32 = 48;
/// The low bits of that clock count within a millisecond.
const COUNTER_BITS: u32 = 32;

/// A scope that holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScopeRow {
    /// Stands for the name in keys. Never used again once everything was forgotten.
    pub(crate) number: u32,
    /// Number of the next item.
    pub(crate) next: u64,
    /// Items.
    pub(crate) items: u64,
    /// Terms of all items together.
    pub(crate) terms: u64,
}

impl ScopeRow {
    pub(crate) fn read(reads: &impl Read, name: &str) -> Result<Option<Self>> {
        let Some(value) = reads.get(SCOPES, name.as_bytes())? else { return Ok(None) };
        let mut rest = value.as_slice();
        let mut take = || varint::take(&mut rest);
        let (number, next, items, terms) = (take()?, take()?, take()?, take()?);
        let number = u32::try_from(number).map_err(|_| corrupt("a scope"))?;
        Ok(Some(Self { number, next, items, terms }))
    }

    /// A new scope, not yet written.
    pub(crate) fn create(tx: &mut Tx<'_>) -> Result<Self> {
        let number = match tx.get(META, NEXT_SCOPE)? {
            None => 0,
            Some(n) => u32::from_be_bytes(n.try_into().map_err(|_| corrupt("a counter"))?),
        };
        let next = number.checked_add(1).ok_or_else(|| corrupt("a counter"))?;
        tx.put(META, NEXT_SCOPE, &next.to_be_bytes())?;
        Ok(Self { number, next: 0, items: 0, terms: 0 })
    }

    pub(crate) fn write(&self, tx: &mut Tx<'_>, name: &str) -> Result<()> {
        let mut value = Vec::with_capacity(24);
        for n in [u64::from(self.number), self.next, self.items, self.terms] {
            varint::put(&mut value, n);
        }
        tx.put(SCOPES, name.as_bytes(), &value)
    }

    pub(crate) fn delete(tx: &mut Tx<'_>, name: &str) -> Result<()> {
        tx.delete(SCOPES, name.as_bytes()).map(|_| ())
    }
}

/// Hands out ids: greater than every one before, also across restarts, deletions and clocks that go back.
#[derive(Debug)]
pub(crate) struct Ids {
    /// The last clock value that was used.
    last: u128,
    now: u128,
}

impl Ids {
    pub(crate) fn load(tx: &Tx<'_>, now: Timestamp) -> Result<Self> {
        let last = match tx.get(META, LAST_ID)? {
            None => 0,
            Some(n) => u128::from_be_bytes(n.try_into().map_err(|_| corrupt("a counter"))?),
        };
        let ms = u128::from(u64::try_from(now.0).unwrap_or(0)) & ((1 << 48) - 1);
        Ok(Self { last, now: ms << COUNTER_BITS })
    }

    /// The id of item `number` of its scope.
    pub(crate) fn mint(&mut self, number: u64) -> MemoryId {
        self.last = (self.last + 1).max(self.now);
        MemoryId((self.last << NUMBER_BITS) | u128::from(number))
    }

    pub(crate) fn save(&self, tx: &mut Tx<'_>) -> Result<()> {
        tx.put(META, LAST_ID, &self.last.to_be_bytes())
    }
}

/// The number of an item in its scope.
pub(crate) fn number_of(id: MemoryId) -> u64 {
    (id.0 & ((1 << NUMBER_BITS) - 1)) as u64
}
