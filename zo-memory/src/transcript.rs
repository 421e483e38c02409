//! Conversations in a store: one row per message, in JSON, under (conversation, position).

use crate::varint::corrupt;
use std::ops::ControlFlow;
use zo_store::{Read, Scan, Store, Table, Tx, key::Key};
use zo_traits::{Cx, Error, ErrorKind, Message, Result, Transcript, async_trait};

/// (conversation, position u64) -> message as JSON.
const MESSAGES: Table = Table::new("transcript.messages");
/// Name, as it is, so that names list in byte order -> length u64.
const CONVERSATIONS: Table = Table::new("transcript.conversations");

const SCHEMA: u32 = 1;

/// Deletes `conversation` inside a transaction of the caller's; `false` when there was none.
///
/// # Errors
/// Those of the store.
pub fn delete_in(tx: &mut Tx<'_>, conversation: &str) -> Result<bool> {
    if !tx.delete(CONVERSATIONS, conversation.as_bytes())? {
        return Ok(false);
    }
    tx.delete_all(MESSAGES, &Scan::prefix(&Key::new().str(conversation)))?;
    Ok(true)
}

/// Conversations in a [`Store`]. An append is one durable commit, shared with whoever else writes at the time.
#[derive(Debug, Clone)]
pub struct StoreTranscript {
    store: Store,
}

impl StoreTranscript {
    /// The transcripts in `store`, which may hold other things too. Several of them over one store are one.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when a newer version wrote them; those of the store.
    pub async fn new(store: Store) -> Result<Self> {
        store.require_schema("transcript", SCHEMA, |_, _| Ok(())).await?;
        Ok(Self { store })
    }
}

/// [`Transcript::append`] inside a transaction of the caller's, so that messages and what belongs to them are one commit.
/// Make a [`StoreTranscript`] over the store first: it checks the version of the tables.
///
/// It decides before it writes: after [`ErrorKind::Conflict`] nothing was changed.
///
/// # Errors
/// As [`Transcript::append`].
pub fn append_in(tx: &mut Tx<'_>, conversation: &str, at: Option<u64>, messages: &[Message]) -> Result<u64> {
    append_rows(tx, conversation, at, &to_rows(messages)?)
}

fn to_rows(messages: &[Message]) -> Result<Vec<Vec<u8>>> {
    let encode = |message| {
        serde_json::to_vec(message)
            .map_err(|e| Error::new(ErrorKind::Invalid, "transcript.append", e.to_string()).with_source(e))
    };
    messages.iter().map(encode).collect()
}

fn append_rows(tx: &mut Tx<'_>, conversation: &str, at: Option<u64>, rows: &[Vec<u8>]) -> Result<u64> {
    let len = length(tx, conversation)?;
    check_length(conversation, at, len)?;
    if rows.is_empty() {
        return Ok(len);
    }
    let prefix = Key::new().str(conversation);
    let mut next = len;
    for row in rows {
        tx.put(MESSAGES, &Key::after(&prefix).u64(next), row)?;
        next += 1;
    }
    tx.put(CONVERSATIONS, conversation.as_bytes(), &next.to_be_bytes())?;
    Ok(next)
}

pub(crate) fn check_length(conversation: &str, at: Option<u64>, len: u64) -> Result<()> {
    match at {
        Some(at) if at != len => Err(Error::new(
            ErrorKind::Conflict,
            "transcript.append",
            format_args!("conversation {conversation:?} has {len} messages, not {at}"),
        )),
        _ => Ok(()),
    }
}

fn length(reads: &impl Read, conversation: &str) -> Result<u64> {
    match reads.get(CONVERSATIONS, conversation.as_bytes())? {
        None => Ok(0),
        Some(value) => {
            value.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("the length of a conversation"))
        }
    }
}

#[async_trait]
impl Transcript for StoreTranscript {
    async fn append(
        &self,
        cx: &Cx,
        conversation: &str,
        at: Option<u64>,
        messages: &[Message],
    ) -> Result<u64> {
        const OP: &str = "transcript.append";
        cx.check(OP)?;
        let (cx, conversation, rows) = (cx.clone(), conversation.to_owned(), to_rows(messages)?);
        let append = move |tx: &mut Tx<'_>| {
            // It may have waited in the queue since.
            cx.check(OP)?;
            append_rows(tx, &conversation, at, &rows)
        };
        self.store.write(append).await
    }

    async fn read(&self, cx: &Cx, conversation: &str, from: u64, limit: usize) -> Result<Vec<Message>> {
        cx.check("transcript.read")?;
        let prefix = Key::new().str(conversation);
        let (start, end) = (Key::after(&prefix).u64(from), Key::after(&prefix).u64(u64::MAX));
        let mut messages = Vec::new();
        self.store.read(|s| {
            s.scan(MESSAGES, &Scan::range(&start[..]..&end[..]).limit(limit), |key, value| {
                let expected = from + messages.len() as u64;
                if key.get(prefix.len()..) != Some(&expected.to_be_bytes()) {
                    return Err(corrupt("a conversation (a message is missing)"));
                }
                messages
                    .push(serde_json::from_slice(value).map_err(|e| corrupt("a message").with_source(e))?);
                Ok(ControlFlow::Continue(()))
            })
        })?;
        Ok(messages)
    }

    async fn len(&self, cx: &Cx, conversation: &str) -> Result<u64> {
        cx.check("transcript.len")?;
        self.store.read(|s| length(s, conversation))
    }

    async fn conversations(&self, cx: &Cx, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        cx.check("transcript.conversations")?;
        let mut scan = Scan::all().limit(limit);
        if let Some(after) = after {
            scan = scan.after(after.as_bytes());
        }
        let mut names = Vec::new();
        self.store.read(|s| {
            s.scan(CONVERSATIONS, &scan, |name, _| {
                let name = std::str::from_utf8(name).map_err(|_| corrupt("the name of a conversation"))?;
                names.push(name.to_owned());
                Ok(ControlFlow::Continue(()))
            })
        })?;
        Ok(names)
    }

    async fn delete(&self, cx: &Cx, conversation: &str) -> Result<bool> {
        const OP: &str = "transcript.delete";
        cx.check(OP)?;
        let (cx, conversation) = (cx.clone(), conversation.to_owned());
        let delete = move |tx: &mut Tx<'_>| {
            cx.check(OP)?;
            delete_in(tx, &conversation)
        };
        self.store.write(delete).await
    }
}
