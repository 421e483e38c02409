//! The record of runs: what each run was asked, what the model answered, which tool calls were begun and how they ended.
//!
//! An entry is committed before its effect can be seen, so that after a crash a run is a fold over its entries. Each run has
//! a header and numbered entries, JSON both, in tables of their own in the one store. Without a store nothing is recorded
//! and nothing survives the process.

use crate::{Machine, RunId, Step, Unfinished, toolbox::output_id};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use zo_store::{Claim as StoreClaim, Scan, Store, Table, Tx};
use zo_traits::{
    Effect, Error, ErrorKind, Message, Response, Result, Scope, Timestamp, ToolCall, ToolResult, ToolStatus,
};

const RUNS: Table = Table::new("agent.runs");
const ENTRIES: Table = Table::new("agent.run_entries");
/// Run id -> nothing: the runs without an end.
const UNFINISHED: Table = Table::new("agent.runs_unfinished");
/// Run id -> nothing: the runs with an end, oldest first because ids are time-ordered.
const FINISHED: Table = Table::new("agent.runs_finished");
/// (output id, offset of the page) -> a page of a tool output that was too long for the model.
const OUTPUTS: Table = Table::new("agent.run_outputs");
/// Version of the JSON in these tables.
const SCHEMA: u32 = 1;

/// What a run was asked, under which circumstances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) run: RunId,
    pub(crate) conversation: String,
    pub(crate) scope: Scope,
    pub(crate) model: String,
    pub(crate) started: Timestamp,
    pub(crate) max_steps: u32,
    /// The part of the conversation that the model sees before the opening: `[from, base)`.
    pub(crate) from: u64,
    pub(crate) base: u64,
    /// The user's message.
    pub(crate) opening: Vec<Message>,
    /// Recalled facts. They belong to the run and not to the conversation: they are of one scope, and may be forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) facts: Option<Message>,
}

impl Header {
    pub(crate) fn input(&self) -> String {
        self.opening.last().map(Message::to_text).unwrap_or_default()
    }
}

/// A tool call that is about to be begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) id: String,
    pub(crate) effect: Effect,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(crate) enum Entry<'a> {
    /// The model answered, and these of its calls are begun at once.
    Model { answer: Cow<'a, Response>, claims: Vec<Claim> },
    /// This call, which had to wait, is begun.
    Claimed { claim: Claim },
    /// The run's messages are about to be appended to a conversation kept elsewhere, at this position.
    Appending { at: u64 },
    /// A call ended.
    Tool { result: Cow<'a, ToolResult> },
    /// The run ended.
    End { outcome: End },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    Done,
    Cancelled,
    Failed {
        kind: ErrorKind,
        message: String,
    },
    /// The conversation went on without it, or the host gave it up.
    Abandoned,
}

/// A run as its entries tell it.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) header: Header,
    pub(crate) machine: Machine,
    /// Number of the next entry.
    pub(crate) next: u32,
    /// Calls that were begun and have no result.
    pub(crate) in_flight: HashMap<String, Effect>,
    /// Where its messages were about to be appended.
    pub(crate) appending: Option<u64>,
    pub(crate) ended: bool,
}

impl Recorded {
    /// Calls in flight that must not be repeated.
    pub(crate) fn unknown(&self) -> Vec<ToolCall> {
        let Step::Tools(open) = self.machine.step() else { return Vec::new() };
        open.into_iter().filter(|c| self.in_flight.get(&c.id).is_some_and(|e| !e.may_repeat())).collect()
    }

    /// The messages of the run if it ends here: begun calls that must not be repeated have an unknown outcome, all other
    /// open ones were not run.
    pub(crate) fn close(mut self, why: &str) -> Vec<Message> {
        for call in self.unknown() {
            // The call is open, so the machine takes the result.
            let _ = self.machine.tool(unknown_outcome(&call));
        }
        self.machine.close(&ToolStatus::Cancelled, why);
        self.machine.into_messages()
    }
}

/// What the model is told of a call that was in flight at a crash and must not be repeated.
pub(crate) fn unknown_outcome(call: &ToolCall) -> ToolResult {
    ToolResult::new(
        call,
        ToolStatus::Unknown,
        "outcome unknown: this call was begun and then interrupted. It may or may not have taken effect. It was not \
         repeated; check before doing it again.",
    )
}

/// Messages to append to a conversation when its run ends.
pub(crate) struct Append {
    pub(crate) conversation: String,
    pub(crate) messages: Vec<Message>,
}

#[derive(Debug)]
pub(crate) struct Journal {
    store: Option<Store>,
    /// The runs of a store are one agent's: what is under way is known in RAM alone.
    _claim: Option<StoreClaim>,
    /// Most finished runs that are kept.
    keep: u64,
    runs: Mutex<Runs>,
}

/// The runs that have no end on record.
#[derive(Debug, Default)]
struct Runs {
    /// Under way in this process.
    active: HashSet<RunId>,
    /// Interrupted, with their conversations; and by conversation.
    interrupted: BTreeMap<RunId, String>,
    by_conversation: HashMap<String, BTreeSet<RunId>>,
}

impl Runs {
    fn interrupt(&mut self, run: RunId, conversation: &str) {
        self.by_conversation.entry(conversation.to_owned()).or_default().insert(run.clone());
        self.interrupted.insert(run, conversation.to_owned());
    }

    fn forget(&mut self, run: &RunId) {
        if let Some(conversation) = self.interrupted.remove(run)
            && let Some(runs) = self.by_conversation.get_mut(&conversation)
        {
            runs.remove(run);
            if runs.is_empty() {
                self.by_conversation.remove(&conversation);
            }
        }
    }
}

/// A run under way in this process. Dropped before [`ended`](Active::ended), it leaves an interrupted run.
#[derive(Debug)]
pub(crate) struct Active {
    journal: Arc<Journal>,
    run: RunId,
    conversation: String,
    ended: bool,
}

impl Active {
    /// The run has its end on record.
    pub(crate) fn ended(&mut self) {
        self.ended = true;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut runs = self.journal.runs();
        runs.active.remove(&self.run);
        if !self.ended && self.journal.is_on() {
            runs.interrupt(self.run.clone(), &self.conversation);
        }
    }
}

impl Journal {
    pub(crate) async fn open(store: Option<Store>, keep: u64) -> Result<Self> {
        let mut runs = Runs::default();
        let mut claim = None;
        if let Some(store) = &store {
            claim = Some(store.claim("agent.journal")?);
            store.require_schema("agent.journal", SCHEMA, |_, from| Err(unknown_schema(from))).await?;
            // Headers only: one damaged run must not keep the others from being opened.
            store.read(|s| {
                for (key, _) in s.collect(UNFINISHED, &Scan::all())? {
                    let header: Option<Header> = s.get(RUNS, &key)?.and_then(|row| parse(&row).ok());
                    let run = RunId::from(String::from_utf8_lossy(&key).as_ref());
                    runs.interrupt(run, header.as_ref().map_or("", |h| &h.conversation));
                }
                Ok(())
            })?;
        }
        Ok(Self { store, _claim: claim, keep, runs: Mutex::new(runs) })
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when everything that was queued before is committed: a future that was dropped may have left a write
    /// behind it, which stands.
    pub(crate) async fn settled(&self) -> Result<()> {
        match &self.store {
            // A closure that changes nothing waits its turn and costs no sync.
            Some(store) => store.write(|_| Ok(())).await,
            None => Ok(()),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.store.is_some()
    }

    /// Puts a run on record.
    pub(crate) async fn start(&self, header: &Header) -> Result<()> {
        if let Some(store) = &self.store {
            let (key, row) = (header.run.as_str().as_bytes().to_vec(), json(header)?);
            store
                .write(move |tx| {
                    tx.put(RUNS, &key, &row)?;
                    tx.put(UNFINISHED, &key, &[])
                })
                .await?;
        }
        Ok(())
    }

    /// Appends an entry; durable when it returns.
    pub(crate) async fn append(&self, run: &RunId, at: u32, entry: &Entry<'_>) -> Result<()> {
        if let Some(store) = &self.store {
            let (key, row) = (entry_key(run, at), json(entry)?);
            store.write(move |tx| tx.put(ENTRIES, &key, &row)).await?;
        }
        Ok(())
    }

    /// Records the end of a call, with the whole output where the model sees only a part; durable when it returns.
    pub(crate) async fn tool(
        &self,
        run: &RunId,
        at: u32,
        result: &ToolResult,
        whole: Option<&str>,
    ) -> Result<()> {
        if let Some(store) = &self.store {
            let (key, row) = (entry_key(run, at), json(&Entry::Tool { result: Cow::Borrowed(result) })?);
            let pages = whole.map_or_else(Vec::new, |text| pages(&output_id(run.as_str(), &result.id), text));
            store
                .write(move |tx| {
                    for (id, page) in &pages {
                        tx.put(OUTPUTS, id, page)?;
                    }
                    tx.put(ENTRIES, &key, &row)
                })
                .await?;
        }
        Ok(())
    }

    /// From `offset` on, about `most` bytes of a tool output that was too long for the model, where to read on, and how many
    /// bytes follow.
    ///
    /// # Errors
    /// `NotFound` when there is no such output, or when it is of another conversation or scope than `mine`.
    pub(crate) fn output(
        &self,
        id: &str,
        offset: usize,
        most: usize,
        mine: &Whose,
    ) -> Result<(String, usize, usize)> {
        let missing = || {
            Error::new(ErrorKind::NotFound, "output.read", "no such output")
                .with_model_text("there is no kept output with this id")
        };
        let (Some(store), Some((run, _))) = (&self.store, id.split_once('/')) else { return Err(missing()) };
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

    /// Ends a run: its last entries, its end and what it adds to its conversation, in one commit.
    pub(crate) async fn finish(
        &self,
        run: &RunId,
        at: u32,
        last: Option<Entry<'_>>,
        outcome: End,
        append: Option<Append>,
    ) -> Result<()> {
        if let Some(store) = &self.store {
            let mut rows = Vec::with_capacity(2);
            for (entry, n) in last.into_iter().chain([Entry::End { outcome }]).zip(at..) {
                rows.push((entry_key(run, n), json(&entry)?));
            }
            let (key, keep) = (run.as_str().as_bytes().to_vec(), self.keep);
            store
                .write(move |tx| {
                    if !tx.contains(UNFINISHED, &key)? {
                        return Err(has_ended());
                    }
                    for (key, row) in &rows {
                        tx.put(ENTRIES, key, row)?;
                    }
                    tx.delete(UNFINISHED, &key)?;
                    tx.put(FINISHED, &key, &[])?;
                    if let Some(a) = &append {
                        append_in(tx, a)?;
                    }
                    prune(tx, keep)
                })
                .await?;
        }
        self.runs().forget(run);
        Ok(())
    }

    /// Reads a run back.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when its entries do not make a run; `Unsupported` when a newer version wrote them.
    pub(crate) fn load(&self, run: &RunId) -> Result<Recorded> {
        let missing = || Error::new(ErrorKind::NotFound, "run.load", format_args!("no run {run} on record"));
        let store = self.store.as_ref().ok_or_else(missing)?;
        let (header, rows) = store.read(|snapshot| {
            let header = snapshot.get(RUNS, run.as_str().as_bytes())?.ok_or_else(missing)?;
            Ok((header, snapshot.collect(ENTRIES, &Scan::prefix(run.as_str().as_bytes()))?))
        })?;
        let header: Header = parse(&header)?;
        let machine = Machine::new(header.opening.clone(), &[], header.max_steps);
        let in_flight = HashMap::new();
        let mut recorded = Recorded { header, machine, next: 0, in_flight, appending: None, ended: false };
        for (_, row) in rows {
            recorded.next += 1;
            match parse(&row)? {
                Entry::Model { answer, claims } => {
                    recorded.machine.model(answer.into_owned()).map_err(out_of_order)?;
                    recorded.in_flight.extend(claims.into_iter().map(|c| (c.id, c.effect)));
                }
                Entry::Claimed { claim } => {
                    recorded.in_flight.insert(claim.id, claim.effect);
                }
                Entry::Tool { result } => {
                    recorded.in_flight.remove(&result.id);
                    recorded.machine.tool(result.into_owned()).map_err(out_of_order)?;
                }
                Entry::Appending { at } => recorded.appending = Some(at),
                Entry::End { .. } => recorded.ended = true,
            }
        }
        Ok(recorded)
    }

    /// The interrupted runs, oldest first.
    pub(crate) fn unfinished(&self) -> Result<Vec<Unfinished>> {
        let all: Vec<(RunId, String)> =
            self.runs().interrupted.iter().map(|(r, c)| (r.clone(), c.clone())).collect();
        let mut open = Vec::with_capacity(all.len());
        for (run, conversation) in all {
            open.push(match self.load(&run) {
                Ok(recorded) if recorded.ended => continue,
                Ok(recorded) => Unfinished {
                    run,
                    input: recorded.header.input(),
                    started: recorded.header.started,
                    steps: recorded.machine.steps(),
                    unknown: recorded.unknown(),
                    conversation,
                    damaged: None,
                },
                // Its start never reached the disk.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) if e.kind() == ErrorKind::Corrupt => Unfinished {
                    run,
                    input: String::new(),
                    started: Timestamp(0),
                    steps: 0,
                    unknown: Vec::new(),
                    conversation,
                    damaged: Some(e),
                },
                Err(e) => return Err(e),
            });
        }
        Ok(open)
    }

    /// Interrupted runs of this conversation, oldest first.
    pub(crate) fn interrupted_in(&self, conversation: &str) -> Vec<RunId> {
        self.runs().by_conversation.get(conversation).into_iter().flatten().cloned().collect()
    }

    /// The run turned out to have its end on record, or never to have begun.
    pub(crate) fn forget(&self, run: &RunId) {
        self.runs().forget(run);
    }

    /// The conversation of an interrupted run, as far as it is known.
    pub(crate) fn conversation_of(&self, run: &RunId) -> Option<String> {
        self.runs().interrupted.get(run).cloned()
    }

    pub(crate) fn is_active(&self, run: &RunId) -> bool {
        self.runs().active.contains(run)
    }

    /// Marks a run as under way here.
    pub(crate) fn activate(self: &Arc<Self>, run: &RunId, conversation: &str) -> Result<Active> {
        let mut runs = self.runs();
        if !runs.active.insert(run.clone()) {
            return Err(under_way(run));
        }
        runs.forget(run);
        let (run, conversation) = (run.clone(), conversation.to_owned());
        Ok(Active { journal: self.clone(), run, conversation, ended: false })
    }

    /// Deletes what is on record of the runs of a conversation.
    pub(crate) async fn delete(&self, conversation: &str, with: Option<DeleteIn>) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let name = conversation.to_owned();
        store
            .write(move |tx| {
                let rows = tx.collect(RUNS, &Scan::all())?;
                for (run, row) in rows {
                    if parse::<Header>(&row).is_ok_and(|h| h.conversation == name) {
                        for table in [RUNS, UNFINISHED, FINISHED, ENTRIES, OUTPUTS] {
                            tx.delete_all(table, &Scan::prefix(&run))?;
                        }
                    }
                }
                match with {
                    Some(delete) => delete(tx, &name),
                    None => Ok(()),
                }
            })
            .await?;
        let runs = self.interrupted_in(conversation);
        let mut all = self.runs();
        runs.iter().for_each(|run| all.forget(run));
        Ok(())
    }
}

/// Deletes a conversation inside a transaction.
pub(crate) type DeleteIn = fn(&mut Tx<'_>, &str) -> Result<()>;

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

/// The text in pages of [`PAGE`] bytes, and the row with its length.
fn pages(id: &str, text: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes = text.as_bytes();
    let mut pages: Vec<_> = bytes
        .chunks(PAGE)
        .zip((0u64..).step_by(PAGE))
        .map(|(page, at)| (page_key(id, at), page.to_vec()))
        .collect();
    pages.push((page_key(id, LENGTH), (bytes.len() as u64).to_be_bytes().to_vec()));
    pages
}

fn number(row: &[u8]) -> Result<u64> {
    let bytes = row
        .try_into()
        .map_err(|_| Error::new(ErrorKind::Corrupt, "journal.read", "a length cannot be read"))?;
    Ok(u64::from_be_bytes(bytes))
}

pub(crate) fn under_way(run: &RunId) -> Error {
    Error::new(ErrorKind::Conflict, "run", format_args!("run {run} is under way"))
}

pub(crate) fn has_ended() -> Error {
    Error::new(ErrorKind::Conflict, "run", "the run has ended")
}

fn prune(tx: &mut Tx<'_>, keep: u64) -> Result<()> {
    // A few at a time: every end of a run pays for itself and a little of the past.
    let surplus = tx.len(FINISHED)?.saturating_sub(keep).min(4);
    let old = tx.collect(FINISHED, &Scan::all().limit(usize::try_from(surplus).unwrap_or(0)))?;
    for (run, _) in old {
        for table in [RUNS, FINISHED, ENTRIES, OUTPUTS] {
            tx.delete_all(table, &Scan::prefix(&run))?;
        }
    }
    Ok(())
}

#[cfg(feature = "memory")]
fn append_in(tx: &mut Tx<'_>, a: &Append) -> Result<()> {
    zo_memory::append_in(tx, &a.conversation, None, &a.messages).map(|_| ())
}

#[cfg(not(feature = "memory"))]
fn append_in(_: &mut Tx<'_>, _: &Append) -> Result<()> {
    Ok(())
}

fn entry_key(run: &RunId, at: u32) -> Vec<u8> {
    let mut key = run.as_str().as_bytes().to_vec();
    key.extend_from_slice(&at.to_be_bytes());
    key
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| {
        Error::new(ErrorKind::Invalid, "journal.write", "cannot be written as JSON").with_source(e)
    })
}

fn parse<'a, T: Deserialize<'a>>(row: &'a [u8]) -> Result<T> {
    serde_json::from_slice(row)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "journal.read", "a record cannot be read").with_source(e))
}

fn out_of_order(e: Error) -> Error {
    Error::new(ErrorKind::Corrupt, "journal.read", "the entries of a run do not follow from each other")
        .with_source(e)
}

fn unknown_schema(from: u32) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "journal.open",
        format_args!("no way to migrate the journal from version {from}"),
    )
}
