//! The record of runs: what each run was asked, what the model answered, which tool calls were begun and how they ended.
//!
//! An entry is committed before its effect can be seen, so that after a crash a run is a fold over its entries. Each run has
//! a header and numbered entries, JSON both, in tables of their own in the one store. Without a store nothing is recorded
//! and nothing survives the process.

use crate::{Machine, RunId, Step, Unfinished, toolbox::output_id};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};
use zo_store::{Scan, Store, Table, Tx};
use zo_traits::{
    Effect, Error, ErrorKind, Message, Response, Result, Scope, Timestamp, ToolCall, ToolResult, ToolStatus,
};

const RUNS: Table = Table::new("agent.runs");
const ENTRIES: Table = Table::new("agent.run_entries");
/// Run id -> nothing: the runs without an end.
const UNFINISHED: Table = Table::new("agent.runs_unfinished");
/// Run id -> nothing: the runs with an end, oldest first because ids are time-ordered.
const FINISHED: Table = Table::new("agent.runs_finished");
/// Output id -> the whole text of a tool output that was too long for the model.
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
    /// Recalled facts, if any, and the user's message.
    pub(crate) opening: Vec<Message>,
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
    pub(crate) fn close(mut self, why: &str) -> (Header, Vec<Message>, bool) {
        for call in self.unknown() {
            // The call is open, so the machine takes the result.
            let _ = self.machine.tool(unknown_outcome(&call));
        }
        self.machine.close(&ToolStatus::Cancelled, why);
        let answered = self.machine.has_answer();
        (self.header, self.machine.into_messages(), answered)
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
    /// Most finished runs that are kept.
    keep: u64,
    /// Runs under way in this process.
    active: Mutex<HashSet<RunId>>,
    /// Interrupted runs and their conversations.
    interrupted: Mutex<HashMap<RunId, String>>,
}

impl Journal {
    pub(crate) async fn open(store: Option<Store>, keep: u64) -> Result<Self> {
        let mut interrupted = HashMap::new();
        if let Some(store) = &store {
            store.require_schema("agent.journal", SCHEMA, |_, from| Err(unknown_schema(from))).await?;
            let rows = store.read(|s| s.collect(UNFINISHED, &Scan::all()))?;
            let journal = Self::with(Some(store.clone()), keep, HashMap::new());
            for (key, _) in rows {
                let run = RunId::from(String::from_utf8_lossy(&key).as_ref());
                let conversation = journal.load(&run)?.header.conversation;
                interrupted.insert(run, conversation);
            }
        }
        Ok(Self::with(store, keep, interrupted))
    }

    fn with(store: Option<Store>, keep: u64, interrupted: HashMap<RunId, String>) -> Self {
        Self { store, keep, active: Mutex::default(), interrupted: Mutex::new(interrupted) }
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
            let whole = whole
                .map(|text| (output_id(run.as_str(), &result.id).into_bytes(), text.as_bytes().to_vec()));
            store
                .write(move |tx| {
                    if let Some((id, text)) = &whole {
                        tx.put(OUTPUTS, id, text)?;
                    }
                    tx.put(ENTRIES, &key, &row)
                })
                .await?;
        }
        Ok(())
    }

    /// The whole of a tool output that was too long for the model.
    pub(crate) fn output(&self, id: &str) -> Result<Option<String>> {
        let Some(store) = &self.store else { return Ok(None) };
        let bytes = store.read(|snapshot| snapshot.get(OUTPUTS, id.as_bytes()))?;
        Ok(bytes.map(|b| String::from_utf8_lossy(&b).into_owned()))
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
        lock(&self.interrupted).remove(run);
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
        let mut recorded = Recorded { header, machine, next: 0, in_flight: HashMap::new(), ended: false };
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
                Entry::End { .. } => recorded.ended = true,
            }
        }
        Ok(recorded)
    }

    /// The interrupted runs, oldest first.
    pub(crate) fn unfinished(&self) -> Result<Vec<Unfinished>> {
        let mut runs: Vec<RunId> = lock(&self.interrupted).keys().cloned().collect();
        runs.sort();
        let mut all = Vec::with_capacity(runs.len());
        for run in runs {
            let recorded = self.load(&run)?;
            all.push(Unfinished {
                run,
                input: recorded.header.input(),
                started: recorded.header.started,
                steps: recorded.machine.steps(),
                unknown: recorded.unknown(),
                conversation: recorded.header.conversation,
            });
        }
        Ok(all)
    }

    /// Interrupted runs of this conversation, oldest first.
    pub(crate) fn interrupted_in(&self, conversation: &str) -> Vec<RunId> {
        let all = lock(&self.interrupted);
        let mut runs: Vec<RunId> =
            all.iter().filter(|(_, c)| c.as_str() == conversation).map(|(r, _)| r.clone()).collect();
        runs.sort();
        runs
    }

    /// Marks a run as under way here; it is marked as interrupted when the guard goes without [`Active::ended`].
    pub(crate) fn activate(&self, run: &RunId) -> Result<()> {
        if !lock(&self.active).insert(run.clone()) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "run.resume",
                format_args!("run {run} is under way"),
            ));
        }
        lock(&self.interrupted).remove(run);
        Ok(())
    }

    pub(crate) fn deactivate(&self, run: &RunId, conversation: &str, ended: bool) {
        lock(&self.active).remove(run);
        if !ended && self.is_on() {
            lock(&self.interrupted).insert(run.clone(), conversation.to_owned());
        }
    }
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

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
