//! Tool outputs that are too long for the model, whole, in pages.

use super::{Header, OUTPUTS, RUNS, parse};
use std::ops::ControlFlow;
use zo_store::{Scan, Store, Tx};
use zo_traits::{Error, ErrorKind, Result, Scope};

/// Whose output it is: what may be read on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Whose {
    pub(crate) conversation: String,
    pub(crate) scope: Scope,
}

/// Length of a page of a long output, in bytes.
const PAGE: usize = 16 << 10;
/// The page that holds no text but the length of the whole.
const LENGTH: u64 = u64::MAX;

/// Writes pages that [`pages`] made.
pub(crate) fn put(tx: &mut Tx<'_>, pages: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    pages.iter().try_for_each(|(id, page)| tx.put(OUTPUTS, id, page))
}

/// The text in pages of [`PAGE`] bytes, and the row with its length.
pub(crate) fn pages(id: &str, text: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes = text.as_bytes();
    let mut pages: Vec<_> = bytes
        .chunks(PAGE)
        .zip((0u64..).step_by(PAGE))
        .map(|(page, at)| (page_key(id, at), page.to_vec()))
        .collect();
    pages.push((page_key(id, LENGTH), (bytes.len() as u64).to_be_bytes().to_vec()));
    pages
}

/// From `offset` on, about `most` bytes of an output, where to read on, and how many bytes follow.
///
/// # Errors
/// `NotFound` when there is no such output, or when it is of another conversation or scope than `mine`.
pub(crate) fn read(
    store: Option<&Store>,
    id: &str,
    offset: usize,
    most: usize,
    mine: &Whose,
) -> Result<(String, usize, usize)> {
    let missing = || {
        Error::new(ErrorKind::NotFound, "output.read", "no such output")
            .with_model_text("there is no kept output with this id")
    };
    let (Some(store), Some((run, _))) = (store, id.split_once('/')) else { return Err(missing()) };
    store.read(|s| {
        let header: Header = parse(&s.get(RUNS, run.as_bytes())?.ok_or_else(missing)?)?;
        if header.conversation != mine.conversation || header.scope != mine.scope {
            return Err(missing());
        }
        let length = s.get(OUTPUTS, &page_key(id, LENGTH))?.ok_or_else(missing)?;
        let length = usize::try_from(number(&length)?).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        let first = offset / PAGE * PAGE;
        let (from, end) = (page_key(id, first as u64), page_key(id, LENGTH));
        s.scan(OUTPUTS, &Scan::range(from.as_slice()..end.as_slice()), |_, page| {
            bytes.extend_from_slice(page);
            let enough = bytes.len() >= (offset - first).saturating_add(most).saturating_add(4);
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let start = character(&bytes, offset - first);
        let stop = character(&bytes, start.saturating_add(most));
        let shown = bytes.get(start..stop).unwrap_or_default();
        let next = first.saturating_add(stop);
        Ok((String::from_utf8_lossy(shown).into_owned(), next, length.saturating_sub(next)))
    })
}

fn page_key(id: &str, offset: u64) -> Vec<u8> {
    let mut key = id.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// The first boundary between characters at or behind `at`.
fn character(utf8: &[u8], at: usize) -> usize {
    let rest = utf8.get(at..).unwrap_or_default();
    at.min(utf8.len()) + rest.iter().take_while(|b| **b & 0b1100_0000 == 0b1000_0000).count()
}

fn number(row: &[u8]) -> Result<u64> {
    let bytes = row
        .try_into()
        .map_err(|_| Error::new(ErrorKind::Corrupt, "journal.read", "a length cannot be read"))?;
    Ok(u64::from_be_bytes(bytes))
}
