//! Long-term memory in a store.

use crate::{
    index::{self, Prepared},
    rank,
    record::{self, ITEMS, Record},
    scope::ScopeRow,
};
use std::ops::ControlFlow;
use zo_store::{Scan, Store, Tx, key::Key};
use zo_traits::{
    Cx, Error, ErrorKind, Forget, MemoryId, MemoryStore, NewMemory, Recall, Recalled, Result, Scope,
    async_trait,
};

const SCHEMA: u32 = 1;

/// Long-term memory in a [`Store`]: durable, ranked, one scope apart from the other.
///
/// * **Ranking** is BM25 (k1 = 1.2, b = 0.75) over stemmed words ([`text`](crate::text)); of equal matches the newer comes
///   first. An item that holds none of the words of the question is not found. [`Recalled::score`] is 0 in a list of the
///   newest.
/// * **The same again**: an item whose text and metadata equal, byte for byte, those of one that is in the scope already is
///   not stored twice; [`remember`](MemoryStore::remember) returns the id that it has. So a call that may have happened can
///   be tried again. With other metadata it is another item.
/// * **Ids** begin with the clock's time and count up from the last one when the clock stands still or goes back. After
///   everything was forgotten they still go on.
/// * **Cost**: recall touches the rows of the question's words, never all items, and about 256 KiB of memory. An item of
///   n different words touches about 2n rows, in the same commit.
#[derive(Debug, Clone)]
pub struct Memory {
    store: Store,
}

impl Memory {
    /// The memory in `store`, which may hold other things too. Several of them over one store are one memory.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when a newer version wrote it; those of the store.
    pub async fn new(store: Store) -> Result<Self> {
        store.require_schema("memory", SCHEMA, |_, _| Ok(())).await?;
        Ok(Self { store })
    }

    /// A memory that lasts as long as its last clone.
    ///
    /// # Errors
    /// Those of [`Store::in_memory`].
    pub async fn in_memory() -> Result<Self> {
        Self::new(Store::in_memory()?).await
    }
}

/// Longest text of an item, in bytes. Its words are indexed in one commit, and everyone else's writes wait for it.
pub const MAX_TEXT: usize = 4 << 20;

#[async_trait]
impl MemoryStore for Memory {
    async fn remember(&self, cx: &Cx, scope: &Scope, items: Vec<NewMemory>) -> Result<Vec<MemoryId>> {
        const OP: &str = "memory.remember";
        cx.check(OP)?;
        if let Some(at) = items.iter().position(|item| item.text.trim().is_empty()) {
            let text = format!("item {at} has no text");
            return Err(Error::new(ErrorKind::Invalid, OP, &text).with_model_text(text));
        }
        if let Some(at) = items.iter().position(|item| item.text.len() > MAX_TEXT) {
            let text = format!("item {at} is longer than {MAX_TEXT} bytes; store a shorter text or several");
            return Err(Error::new(ErrorKind::Invalid, OP, &text).with_model_text(text));
        }
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let prepared: Vec<_> = items.iter().map(Prepared::new).collect();
        drop(items);
        let (cx, scope) = (cx.clone(), scope.clone());
        let add = move |tx: &mut Tx<'_>| {
            // It may have waited in the queue since.
            cx.check(OP)?;
            index::add(tx, &scope.0, &prepared, cx.clock().now())
        };
        self.store.write(add).await
    }

    async fn recall(&self, cx: &Cx, scope: &Scope, query: &Recall) -> Result<Vec<Recalled>> {
        cx.check("memory.recall")?;
        let snapshot = self.store.snapshot()?;
        let Some(scope) = ScopeRow::read(&snapshot, &scope.0)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        if query.text.trim().is_empty() {
            let prefix = Key::new().u32(scope.number);
            snapshot.scan(ITEMS, &Scan::prefix(&prefix).reverse().limit(query.limit), |_, row| {
                found.push(Record::decode(row)?.recalled(0.0)?);
                Ok(ControlFlow::Continue(()))
            })?;
            return Ok(found);
        }
        for hit in rank::search(cx, &snapshot, &scope, &query.text, query.limit)? {
            // A posting that was left behind (see `postings::remove`) points to nothing.
            found.extend(record::load(&snapshot, scope.number, hit.number, hit.score)?);
        }
        Ok(found)
    }

    async fn forget(&self, cx: &Cx, scope: &Scope, what: &Forget) -> Result<usize> {
        const OP: &str = "memory.forget";
        cx.check(OP)?;
        let (cx, scope, what) = (cx.clone(), scope.clone(), what.clone());
        let forget = move |tx: &mut Tx<'_>| {
            cx.check(OP)?;
            match &what {
                Forget::Ids(ids) => index::remove(tx, &scope.0, ids),
                Forget::All => index::clear(tx, &scope.0),
                _ => Err(Error::new(ErrorKind::Unsupported, OP, "this way to forget is not known here")),
            }
        };
        self.store.write(forget).await
    }
}
