//! Keeping the index true: what changes with an item that comes or goes, all in the transaction of the item itself.

use crate::{
    postings::{self, Entry, offset_of},
    record::{Body, ITEMS, Record, SEEN, item_key, seen_key},
    scope::{Ids, ScopeRow, number_of},
    text,
    varint::corrupt,
};
use std::collections::BTreeMap;
use zo_store::{Scan, Tx, key::Key};
use zo_traits::{MemoryId, NewMemory, Result, Timestamp};

/// An item, taken apart before it waits for the writer.
#[derive(Debug)]
pub(crate) struct Prepared {
    body: Body,
    hash: u64,
    /// Each term once, in order, and how often.
    terms: BTreeMap<String, u32>,
    total: u32,
}

/// Each term of `text` once and how often, and how many there are.
fn count_terms(text: &str) -> (BTreeMap<String, u32>, u32) {
    let (mut terms, mut total) = (BTreeMap::new(), 0u32);
    text::index_terms(text, |term| {
        total = total.saturating_add(1);
        match terms.get_mut(term) {
            Some(count) => *count += 1,
            None => {
                terms.insert(term.to_owned(), 1);
            }
        }
    });
    (terms, total)
}

impl Prepared {
    pub(crate) fn new(item: &NewMemory) -> Self {
        let (terms, total) = count_terms(&item.text);
        let body = Body::new(item);
        Self { hash: body.hash(), body, terms, total }
    }
}

/// Stores what is new of `items` in scope `name`; returns an id for each.
pub(crate) fn add(tx: &mut Tx<'_>, name: &str, items: &[Prepared], now: Timestamp) -> Result<Vec<MemoryId>> {
    let mut scope = match ScopeRow::read(tx, name)? {
        Some(scope) => scope,
        None => ScopeRow::create(tx)?,
    };
    let mut ids = Ids::load(tx, now)?;
    let mut out = Vec::with_capacity(items.len());
    let first = scope.next;
    // Terms in order, so that neighbouring rows are touched together, and each once for all items.
    let mut lists: BTreeMap<&str, Vec<(u64, Entry)>> = BTreeMap::new();
    for item in items {
        if let Some(known) = find(tx, scope.number, item)? {
            out.push(known);
            continue;
        }
        let number = scope.next;
        let id = ids.mint(number);
        tx.put(ITEMS, &item_key(scope.number, number), &Record::encode(id, now, &item.body))?;
        tx.put(SEEN, &seen_key(scope.number, item.hash), &number.to_be_bytes())?;
        for (term, count) in &item.terms {
            let entry = Entry { offset: offset_of(number), count: *count, terms: item.total };
            lists.entry(term).or_default().push((number, entry));
        }
        scope.next += 1;
        scope.items += 1;
        scope.terms += u64::from(item.total);
        out.push(id);
    }
    if scope.next > first {
        for (term, list) in lists {
            postings::append(tx, &postings::term_key(scope.number, term), &list)?;
        }
        scope.write(tx, name)?;
        ids.save(tx)?;
    }
    Ok(out)
}

/// The item that says the same already.
fn find(tx: &Tx<'_>, scope: u32, item: &Prepared) -> Result<Option<MemoryId>> {
    let Some(number) = tx.get(SEEN, &seen_key(scope, item.hash))? else { return Ok(None) };
    let number = u64::from_be_bytes(number.try_into().map_err(|_| corrupt("the index"))?);
    let same = tx.get_with(ITEMS, &item_key(scope, number), |row| {
        let record = Record::decode(row)?;
        // Equal hashes may be chance: only equal bytes are the same.
        Ok(record.is(&item.body).then_some(record.id))
    })?;
    Ok(same.flatten())
}

/// Deletes these items of scope `name`; returns how many there were.
pub(crate) fn remove(tx: &mut Tx<'_>, name: &str, ids: &[MemoryId]) -> Result<usize> {
    let Some(mut scope) = ScopeRow::read(tx, name)? else { return Ok(0) };
    let mut gone = 0;
    for id in ids {
        let number = number_of(*id);
        let key = item_key(scope.number, number);
        let Some(row) = tx.get(ITEMS, &key)? else { continue };
        let record = Record::decode(&row)?;
        // The same number in another scope.
        if record.id != *id {
            continue;
        }
        let (terms, total) = count_terms(record.text()?);
        for term in terms.keys() {
            postings::remove(tx, &postings::term_key(scope.number, term), number)?;
        }
        let seen = seen_key(scope.number, record.hash());
        if tx.get(SEEN, &seen)?.as_deref() == Some(&number.to_be_bytes()) {
            tx.delete(SEEN, &seen)?;
        }
        tx.delete(ITEMS, &key)?;
        scope.items = scope.items.checked_sub(1).ok_or_else(|| corrupt("a scope"))?;
        scope.terms = scope.terms.checked_sub(u64::from(total)).ok_or_else(|| corrupt("a scope"))?;
        gone += 1;
    }
    if gone > 0 {
        scope.write(tx, name)?;
    }
    Ok(gone)
}

/// Deletes everything of scope `name`; returns how many items there were.
pub(crate) fn clear(tx: &mut Tx<'_>, name: &str) -> Result<usize> {
    let Some(scope) = ScopeRow::read(tx, name)? else { return Ok(0) };
    let prefix = Key::new().u32(scope.number);
    tx.delete_all(ITEMS, &Scan::prefix(&prefix))?;
    tx.delete_all(SEEN, &Scan::prefix(&prefix))?;
    tx.delete_all(postings::POSTINGS, &Scan::prefix(&prefix))?;
    ScopeRow::delete(tx, name)?;
    Ok(usize::try_from(scope.items).unwrap_or(usize::MAX))
}
