//! What is on record of compactions: which part of a conversation is replaced by which summary, what the host pinned, and
//! what was undone. Rows of the agent's store; the transcript is not touched.

use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use zo_store::{
    Read, Scan, Table, Tx,
    key::{Key, Parts},
};
use zo_traits::{Error, ErrorKind, Result, Timestamp};

/// (conversation, number) -> JSON of a [`Compaction`].
const COMPACTIONS: Table = Table::new("agent.compactions");
/// (conversation, position) -> nothing.
const PINS: Table = Table::new("agent.pins");

/// Who wrote a summary. One word in JSON; one that this version does not know survives in `Other`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// A model.
    Provider,
    /// Sentences of the conversation itself, chosen without a model.
    Extractive,
    /// A word of a later version.
    #[serde(untagged)]
    Other(String),
}

/// A part of a conversation that is replaced by a summary in what the model sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compaction {
    /// The conversation.
    pub conversation: String,
    /// Number of the compaction in its conversation, from 1; numbers are not used again after an undo.
    pub n: u64,
    /// Positions `[0, upto)` of the transcript are replaced.
    pub upto: u64,
    /// `upto` of the compaction that was in force before, 0 if there was none: the summary was made of that one's and of
    /// positions `[since, upto)`.
    pub since: u64,
    /// What stands for them.
    pub summary: String,
    /// Who wrote it.
    pub method: Method,
    /// Positions below `upto` that are sent as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<u64>,
    /// Estimated tokens of what the model saw before.
    pub tokens_before: u64,
    /// And after.
    pub tokens_after: u64,
    /// When.
    pub at: Timestamp,
    /// It was taken back: the one before it is in force again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub undone: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_false(b: &bool) -> bool {
    !*b
}

impl Compaction {
    /// A compaction of `[since, upto)` of `conversation`, without a number yet.
    pub(crate) fn new(
        conversation: impl Into<String>,
        since: u64,
        upto: u64,
        summary: impl Into<String>,
        method: Method,
        at: Timestamp,
    ) -> Self {
        Self {
            conversation: conversation.into(),
            n: 0,
            upto,
            since,
            summary: summary.into(),
            method,
            pinned: Vec::new(),
            tokens_before: 0,
            tokens_after: 0,
            at,
            undone: false,
        }
    }
}

/// The end of a text in a key is marked, so no conversation's rows begin with another's prefix.
fn prefix(conversation: &str) -> Key {
    Key::new().str(conversation)
}

fn row_key(conversation: &str, n: u64) -> Key {
    prefix(conversation).u64(n)
}

fn parse(row: &[u8]) -> Result<Compaction> {
    serde_json::from_slice(row).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "zo.compaction", "a compaction's record is damaged").with_source(e)
    })
}

fn write(tx: &mut Tx<'_>, compaction: &Compaction) -> Result<()> {
    let row = serde_json::to_vec(compaction).map_err(|e| {
        Error::new(ErrorKind::Invalid, "zo.compaction", "a compaction that is not JSON").with_source(e)
    })?;
    tx.put(COMPACTIONS, &row_key(&compaction.conversation, compaction.n), &row)
}

/// The newest compaction that `wanted` wants.
fn newest(
    reads: &impl Read,
    conversation: &str,
    wanted: impl Fn(&Compaction) -> bool,
) -> Result<Option<Compaction>> {
    let mut found = None;
    reads.visit(COMPACTIONS, &Scan::prefix(&prefix(conversation)).reverse(), &mut |_, row| {
        let compaction = parse(row)?;
        if wanted(&compaction) {
            found = Some(compaction);
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Puts a compaction on record under the next number of its conversation, which it returns.
pub(crate) fn put(tx: &mut Tx<'_>, mut compaction: Compaction) -> Result<Compaction> {
    compaction.n = match newest(&*tx, &compaction.conversation, |_| true)? {
        Some(last) => last.n.saturating_add(1),
        None => 1,
    };
    write(tx, &compaction)?;
    Ok(compaction)
}

/// The compaction that is in force for a conversation of `len` messages: the newest that was not undone and replaces no
/// more than there is (a transcript that is kept elsewhere may have been cut or replaced).
pub(crate) fn latest_in_force(reads: &impl Read, conversation: &str, len: u64) -> Result<Option<Compaction>> {
    newest(reads, conversation, |c| !c.undone && c.upto <= len)
}

/// Every compaction of a conversation, undone ones included, oldest first.
pub(crate) fn list(reads: &impl Read, conversation: &str) -> Result<Vec<Compaction>> {
    let mut all = Vec::new();
    reads.visit(COMPACTIONS, &Scan::prefix(&prefix(conversation)), &mut |_, row| {
        all.push(parse(row)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// Takes back the newest compaction that is not taken back yet, and returns it; the one before it is in force again.
pub(crate) fn undo(tx: &mut Tx<'_>, conversation: &str) -> Result<Option<Compaction>> {
    let Some(mut last) = newest(&*tx, conversation, |c| !c.undone)? else { return Ok(None) };
    last.undone = true;
    write(tx, &last)?;
    Ok(Some(last))
}

/// Keeps the message at `position` out of every later compaction. `false` when it was pinned already.
pub(crate) fn pin(tx: &mut Tx<'_>, conversation: &str, position: u64) -> Result<bool> {
    let key = row_key(conversation, position);
    if tx.contains(PINS, &key)? {
        return Ok(false);
    }
    tx.put(PINS, &key, &[])?;
    Ok(true)
}

/// Takes a pin back. `false` when there was none.
pub(crate) fn unpin(tx: &mut Tx<'_>, conversation: &str, position: u64) -> Result<bool> {
    tx.delete(PINS, &row_key(conversation, position))
}

/// The pinned positions of a conversation, in order.
pub(crate) fn pins(reads: &impl Read, conversation: &str) -> Result<Vec<u64>> {
    let prefix = prefix(conversation);
    let mut all = Vec::new();
    reads.visit(PINS, &Scan::prefix(&prefix), &mut |key, _| {
        let mut parts = Parts::of(key.get(prefix.len()..).unwrap_or_default());
        all.push(parts.u64()?);
        parts.end()?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// Forgets a conversation's compactions and pins. Returns how many rows there were.
pub(crate) fn delete_all(tx: &mut Tx<'_>, conversation: &str) -> Result<u64> {
    let prefix = prefix(conversation);
    let scan = Scan::prefix(&prefix);
    Ok(tx.delete_all(COMPACTIONS, &scan)? + tx.delete_all(PINS, &scan)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zo_store::Store;

    fn compaction(conversation: &str, since: u64, upto: u64) -> Compaction {
        let mut c =
            Compaction::new(conversation, since, upto, "said much", Method::Provider, Timestamp(1_000));
        (c.pinned, c.tokens_before, c.tokens_after) = (vec![3], 9_000, 1_200);
        c
    }

    #[tokio::test]
    async fn the_newest_that_stands_is_in_force() {
        let store = Store::in_memory().unwrap();
        let put_one = |c: Compaction| store.write(move |tx| put(tx, c.clone()));
        assert_eq!(put_one(compaction("c", 0, 10)).await.unwrap().n, 1);
        assert_eq!(put_one(compaction("c", 10, 30)).await.unwrap().n, 2);
        let force = |len| store.read(|s| latest_in_force(s, "c", len)).unwrap().map(|c| c.n);
        assert_eq!((force(99), force(30), force(29), force(9)), (Some(2), Some(2), Some(1), None));
        let undone = store.write(|tx| undo(tx, "c")).await.unwrap().unwrap();
        assert_eq!((undone.n, undone.undone, force(99)), (2, true, Some(1)));
        // A number is not used again, and what was undone stays on record.
        assert_eq!(put_one(compaction("c", 10, 40)).await.unwrap().n, 3);
        assert_eq!(force(99), Some(3));
        let all = store.read(|s| list(s, "c")).unwrap();
        assert_eq!(
            all.iter().map(|c| (c.n, c.undone)).collect::<Vec<_>>(),
            [(1, false), (2, true), (3, false)]
        );
        for (left, then) in [(3, Some(1)), (1, None)] {
            assert_eq!(store.write(|tx| undo(tx, "c")).await.unwrap().map(|c| c.n), Some(left));
            assert_eq!(force(99), then);
        }
        assert_eq!(store.write(|tx| undo(tx, "c")).await.unwrap(), None);
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn conversations_do_not_see_each_other() {
        let store = Store::in_memory().unwrap();
        let names = ["a", "ab", "a\0", "", "a\0\u{1}", "\u{ff}"];
        store
            .write(move |tx| {
                for (i, name) in names.iter().enumerate() {
                    put(tx, compaction(name, 0, i as u64 + 1))?;
                    assert!(pin(tx, name, i as u64)?);
                    assert!(!pin(tx, name, i as u64)?);
                }
                Ok(())
            })
            .await
            .unwrap();
        for (i, name) in names.iter().enumerate() {
            let found = store.read(|s| Ok((list(s, name)?, pins(s, name)?))).unwrap();
            assert_eq!(
                found.0.iter().map(|c| (c.conversation.as_str(), c.n)).collect::<Vec<_>>(),
                [(*name, 1)]
            );
            assert_eq!(found.1, [i as u64]);
        }
        assert_eq!(store.write(|tx| delete_all(tx, "a")).await.unwrap(), 2);
        for (i, name) in names.iter().enumerate() {
            let n = store.read(|s| Ok(list(s, name)?.len() + pins(s, name)?.len())).unwrap();
            assert_eq!(n, if i == 0 { 0 } else { 2 }, "{name:?}");
        }
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn pins_are_in_order() {
        let store = Store::in_memory().unwrap();
        store
            .write(|tx| {
                for position in [300, 2, 70_000, 1] {
                    pin(tx, "c", position)?;
                }
                assert!(unpin(tx, "c", 2)? && !unpin(tx, "c", 2)?);
                assert_eq!(pins(&*tx, "c")?, [1, 300, 70_000]);
                Ok(())
            })
            .await
            .unwrap();
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_row_is_said() {
        let store = Store::in_memory().unwrap();
        store.write(|tx| tx.put(COMPACTIONS, &row_key("c", 1), b"{\"n\":1")).await.unwrap();
        let e = store.read(|s| latest_in_force(s, "c", 9)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        store.close().await.unwrap();
    }

    #[test]
    fn golden() {
        let mut c = compaction("c", 0, 10);
        c.n = 1;
        let json = r#"{"conversation":"c","n":1,"upto":10,"since":0,"summary":"said much","method":"provider","pinned":[3],"tokens_before":9000,"tokens_after":1200,"at":1000}"#;
        assert_eq!(serde_json::to_string(&c).unwrap(), json);
        assert_eq!(serde_json::from_str::<Compaction>(json).unwrap(), c);
        // What a later version adds is skipped, and a method that it has is kept.
        let later = json.replace("\"provider\"", "\"committee\"").replace("\"n\":1", "\"n\":1,\"new\":[1]");
        let read: Compaction = serde_json::from_str(&later).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap()["method"], "committee");
        c.undone = true;
        assert!(serde_json::to_string(&c).unwrap().ends_with(r#""at":1000,"undone":true}"#));
    }
}
