//! Which items hold a term: rows of the inverted index.
//!
//! A term of a scope has one row that counts its items and one row per block of 1,024 item numbers. A block lists, in order
//! of numbers, how far each is from the one before, how often the item holds the term, and how many terms the item has:
//! all that BM25 asks for. So ranking reads a few dense rows and no item, and remembering rewrites one small row per term.

use crate::varint::{self, corrupt};
use zo_store::{Table, Tx, key::Key};
use zo_traits::Result;

/// (scope u32, term) -> number of items; (scope u32, term, block u32) -> entries.
pub(crate) const POSTINGS: Table = Table::new("memory.postings");

/// Item numbers of one block, as bits.
pub(crate) const BLOCK_BITS: u32 = 10;

/// An item that holds a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number, less the block's first.
    pub(crate) offset: u32,
    /// How often it holds the term.
    pub(crate) count: u32,
    /// How many terms it has.
    pub(crate) terms: u32,
}

pub(crate) fn term_key(scope: u32, term: &str) -> Key {
    Key::new().u32(scope).str(term)
}

pub(crate) fn block_of(number: u64) -> Result<u32> {
    u32::try_from(number >> BLOCK_BITS).map_err(|_| corrupt("an item number"))
}

pub(crate) fn offset_of(number: u64) -> u32 {
    (number & ((1 << BLOCK_BITS) - 1)) as u32
}

/// Shows each entry of a block to `each`.
#[inline]
pub(crate) fn entries(mut block: &[u8], mut each: impl FnMut(Entry)) -> Result<()> {
    let mut next = 0u64;
    while !block.is_empty() {
        let offset = next.saturating_add(varint::take(&mut block)?);
        if offset >= 1 << BLOCK_BITS {
            return Err(corrupt("the index"));
        }
        let count = u32::try_from(varint::take(&mut block)?).unwrap_or(u32::MAX);
        let terms = u32::try_from(varint::take(&mut block)?).unwrap_or(u32::MAX);
        each(Entry { offset: offset as u32, count, terms });
        next = offset + 1;
    }
    Ok(())
}

pub(crate) fn decode(block: &[u8]) -> Result<Vec<Entry>> {
    let mut list = Vec::with_capacity(block.len() / 3);
    entries(block, |entry| list.push(entry))?;
    Ok(list)
}

fn push(block: &mut Vec<u8>, next: &mut u32, entry: Entry) {
    varint::put(block, u64::from(entry.offset - *next));
    varint::put(block, u64::from(entry.count));
    varint::put(block, u64::from(entry.terms));
    *next = entry.offset + 1;
}

pub(crate) fn encode(list: &[Entry]) -> Vec<u8> {
    let (mut block, mut next) = (Vec::with_capacity(list.len() * 3), 0);
    for entry in list {
        push(&mut block, &mut next, *entry);
    }
    block
}

pub(crate) fn count(tx: &Tx<'_>, term: &[u8]) -> Result<u64> {
    match tx.get(POSTINGS, term)? {
        None => Ok(0),
        Some(value) => varint::take(&mut value.as_slice()),
    }
}

pub(crate) fn set_count(tx: &mut Tx<'_>, term: &[u8], count: u64) -> Result<()> {
    if count == 0 {
        return tx.delete(POSTINGS, term).map(|_| ());
    }
    let mut value = Vec::with_capacity(5);
    varint::put(&mut value, count);
    tx.put(POSTINGS, term, &value)
}

/// Adds entries, whose numbers are greater than all that are there, to one term.
pub(crate) fn append(tx: &mut Tx<'_>, term: &[u8], list: &[(u64, Entry)]) -> Result<()> {
    let mut list = list;
    let total = count(tx, term)? + list.len() as u64;
    while let Some((first, _)) = list.first() {
        let block = block_of(*first)?;
        let here = list.iter().take_while(|(n, _)| n >> BLOCK_BITS == u64::from(block)).count();
        let (now, rest) = list.split_at(here);
        let key = Key::after(term).u32(block);
        let mut bytes = tx.get(POSTINGS, &key)?.unwrap_or_default();
        let mut next = 0;
        entries(&bytes, |entry| next = entry.offset + 1)?;
        bytes.reserve(now.len() * 4);
        for (_, entry) in now {
            if entry.offset < next {
                return Err(corrupt("the index"));
            }
            push(&mut bytes, &mut next, *entry);
        }
        tx.put(POSTINGS, &key, &bytes)?;
        list = rest;
    }
    set_count(tx, term, total)
}

/// Takes one item out of one term. One that is not there is fine: which words a text has follows the Unicode tables of the
/// compiler, so another build may find others in it than the one that stored it.
pub(crate) fn remove(tx: &mut Tx<'_>, term: &[u8], number: u64) -> Result<()> {
    let key = Key::after(term).u32(block_of(number)?);
    let mut list = match tx.get(POSTINGS, &key)? {
        Some(block) => decode(&block)?,
        None => return Ok(()),
    };
    let before = list.len();
    list.retain(|entry| entry.offset != offset_of(number));
    if list.len() == before {
        return Ok(());
    }
    if list.is_empty() {
        tx.delete(POSTINGS, &key)?;
    } else {
        tx.put(POSTINGS, &key, &encode(&list))?;
    }
    let left = count(tx, term)?.checked_sub(1).ok_or_else(|| corrupt("the index"))?;
    set_count(tx, term, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_and_damage_is_an_error() {
        let list: Vec<_> =
            [0, 1, 5, 700, 1023].map(|offset| Entry { offset, count: offset + 1, terms: offset * 9 }).into();
        let bytes = encode(&list);
        assert_eq!(decode(&bytes).unwrap(), list);
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode(&[0xff, 0x7f, 1, 1]).is_err(), "beyond the block");
    }
}
