//! The record of runs: what each run was asked, what the model answered, which tool calls were begun and how they ended.
//!
//! Each run is a header and numbered entries in tables of the one store, so that after a crash a run is a fold over its
//! entries. Entries are queued as they come and become durable in that order; the run waits only where something must not
//! happen before they are: a tool that changes the world, an answer to the host. Without a store nothing is recorded and
//! nothing survives the process.

mod entry;
mod log;
pub(crate) mod outputs;

pub(crate) use entry::{Claim, End, Entry, Header, Recorded, Setup, unknown_outcome};
pub(crate) use log::{BACKLOG, Listener, Log, Next, Probe, With};
pub(crate) use outputs::Whose;

use crate::{RunId, Unfinished, approval};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use zo_store::{Claim as StoreClaim, Scan, Store, Table, Tx};
use zo_traits::{Error, ErrorKind, Message, Result, Timestamp};

const RUNS: Table = Table::new("agent.runs");
const ENTRIES: Table = Table::new("agent.run_entries");
/// Run id -> [`PARKED`] or nothing: the runs without an end.
const UNFINISHED: Table = Table::new("agent.runs_unfinished");
/// Run id -> nothing: the runs with an end, oldest first because ids are time-ordered.
const FINISHED: Table = Table::new("agent.runs_finished");
/// (output id, offset of the page) -> a page of a tool output that was too long for the model.
const OUTPUTS: Table = Table::new("agent.run_outputs");
/// Digest -> [`Setup`].
const SETUPS: Table = Table::new("agent.setups");
/// What the conversation of a child begins with that was started by a tool call.
pub(crate) const CHILD: &str = "agent/";
/// Version of the JSON in these tables. What version 1 wrote is read as it is.
const SCHEMA: u32 = 2;
const PARKED: &[u8] = b"parked";

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
    probe: Probe,
    /// Runs that have ended.
    ends: AtomicU32,
    /// Setups that are on record.
    setups: Arc<Mutex<HashSet<String>>>,
}

/// The runs that have no end on record.
#[derive(Debug, Default)]
struct Runs {
    /// Under way in this process.
    active: HashMap<RunId, Arc<Log>>,
    /// Conversation -> the run under way in it.
    talking: HashMap<String, RunId>,
    /// Interrupted or parked, with their conversations; and by conversation.
    interrupted: BTreeMap<RunId, String>,
    by_conversation: HashMap<String, BTreeSet<RunId>>,
    /// The run above each run that is under way or interrupted and has one.
    parents: HashMap<RunId, RunId>,
    /// Those of the interrupted that wait for a decision.
    parked: HashSet<RunId>,
}

impl Runs {
    fn interrupt(&mut self, run: RunId, conversation: &str) {
        self.by_conversation.entry(conversation.to_owned()).or_default().insert(run.clone());
        self.interrupted.insert(run, conversation.to_owned());
    }

    fn forget(&mut self, run: &RunId) {
        self.parked.remove(run);
        if !self.active.contains_key(run) {
            self.parents.remove(run);
        }
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

/// A run under way in this process. Dropped before it has its end on record, it leaves an interrupted run.
#[derive(Debug)]
pub(crate) struct Active {
    journal: Arc<Journal>,
    pub(crate) log: Arc<Log>,
    rest: Rest,
}

/// What a run leaves when it is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rest {
    Interrupted,
    Parked,
    Ended,
}

impl Active {
    /// The run has its end on record.
    pub(crate) fn ended(&mut self) {
        self.rest = Rest::Ended;
    }

    /// The run waits for a decision, and that is on record.
    pub(crate) fn parked(&mut self) {
        self.rest = Rest::Parked;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest != Rest::Interrupted
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // Who found the log just now must not write behind the next one to take the run up.
        self.log.shut();
        let mut runs = self.journal.runs();
        runs.active.remove(&self.log.run);
        if runs.talking.get(&self.log.conversation) == Some(&self.log.run) {
            runs.talking.remove(&self.log.conversation);
        }
        if self.rest != Rest::Ended && self.journal.is_on() {
            runs.interrupt(self.log.run.clone(), &self.log.conversation);
            if self.rest == Rest::Parked {
                runs.parked.insert(self.log.run.clone());
            }
        }
        if self.rest == Rest::Ended {
            runs.parents.remove(&self.log.run);
        }
        drop(runs);
        self.log.end(Err(Error::new(
            ErrorKind::Unavailable,
            "run.attach",
            "the run was interrupted; resume it and attach again",
        )));
    }
}

impl Journal {
    pub(crate) async fn open(store: Option<Store>, keep: u64, probe: Probe) -> Result<Self> {
        let mut runs = Runs::default();
        let mut claim = None;
        if let Some(store) = &store {
            claim = Some(store.claim("agent.journal")?);
            let migrate = |_: &mut Tx<'_>, from| if from == 1 { Ok(()) } else { Err(unknown_schema(from)) };
            store.require_schema("agent.journal", SCHEMA, migrate).await?;
            // Headers only: one damaged run must not keep the others from being opened.
            store.read(|s| {
                for (key, state) in s.collect(UNFINISHED, &Scan::all())? {
                    let header: Option<Header> = s.get(RUNS, &key)?.and_then(|row| parse(&row).ok());
                    let run = RunId::from(String::from_utf8_lossy(&key).as_ref());
                    if state == PARKED {
                        runs.parked.insert(run.clone());
                    }
                    if let Some(parent) = header.as_ref().and_then(|h| h.parent.clone()) {
                        runs.parents.insert(run.clone(), parent);
                    }
                    runs.interrupt(run, header.as_ref().map_or("", |h| &h.conversation));
                }
                Ok(())
            })?;
        }
        Ok(Self {
            store,
            _claim: claim,
            keep,
            runs: Mutex::new(runs),
            probe,
            ends: AtomicU32::new(0),
            setups: Arc::default(),
        })
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
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

    /// What puts a run on record.
    pub(crate) fn begin(&self, header: &Header, setup: Option<&Setup>) -> Result<With> {
        let (key, row) = (header.run.as_str().as_bytes().to_vec(), json(header)?);
        let mut setup = self.setup(header.setup.as_deref(), setup)?;
        Ok(Box::new(move |tx| {
            if let Some(setup) = &mut setup {
                setup(tx)?;
            }
            tx.put(RUNS, &key, &row)?;
            tx.put(UNFINISHED, &key, &[])
        }))
    }

    /// What puts a setup on record, if it is not yet.
    pub(crate) fn setup(&self, digest: Option<&str>, setup: Option<&Setup>) -> Result<Option<With>> {
        let (Some(digest), Some(setup)) = (digest, setup) else { return Ok(None) };
        let known = self.setups.clone();
        if known.lock().unwrap_or_else(PoisonError::into_inner).contains(digest) {
            return Ok(None);
        }
        let (digest, row) = (digest.to_owned(), json(setup)?);
        Ok(Some(Box::new(move |tx| {
            if !tx.contains(SETUPS, digest.as_bytes())? {
                tx.put(SETUPS, digest.as_bytes(), &row)?;
            }
            // A commit that fails takes the whole store with it.
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= 1_024 {
                known.clear();
            }
            known.insert(digest.clone());
            Ok(())
        })))
    }

    /// A setup that is on record.
    pub(crate) fn read_setup(&self, digest: &str) -> Result<Option<Setup>> {
        let Some(store) = &self.store else { return Ok(None) };
        store.read(|s| s.get(SETUPS, digest.as_bytes())?.map(|row| parse(&row)).transpose())
    }

    /// What ends a run, beside its last entry: it is no longer unfinished, and its messages join its conversation.
    pub(crate) fn ending(&self, run: &RunId, append: Option<Append>, mut with: Option<With>) -> With {
        let (key, keep, setups) = (run.as_str().as_bytes().to_vec(), self.keep, self.setups.clone());
        // Now and then: most ends pay for nothing but themselves.
        let tidy = self.ends.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIDY);
        Box::new(move |tx| {
            if !tx.contains(UNFINISHED, &key)? {
                return Err(has_ended());
            }
            tx.delete(UNFINISHED, &key)?;
            tx.put(FINISHED, &key, &[])?;
            if let Some(a) = &append {
                append_in(tx, a)?;
            }
            if let Some(with) = &mut with {
                with(tx)?;
            }
            approval::delete(tx, std::str::from_utf8(&key).unwrap_or_default())?;
            if tidy {
                prune(tx, keep)?;
                sweep(tx, &setups)?;
            }
            Ok(())
        })
    }

    /// What parks a run, or takes it up again.
    pub(crate) fn parking(&self, run: &RunId, parked: bool) -> With {
        let key = run.as_str().as_bytes().to_vec();
        Box::new(move |tx| tx.put(UNFINISHED, &key, if parked { PARKED } else { &[] }))
    }

    /// Reads a run back.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when its entries do not make a run; `Unsupported` when a newer version wrote them.
    pub(crate) fn load(&self, run: &RunId) -> Result<Recorded> {
        let (header, rows) = self.rows(run)?;
        let mut recorded = Recorded::new(header);
        for (at, row) in rows {
            recorded.next = at.saturating_add(1);
            recorded.apply(parse_entry(&row)?)?;
        }
        Ok(recorded)
    }

    /// The header of a run and its entries with their numbers, as they are on record.
    pub(crate) fn rows(&self, run: &RunId) -> Result<(Header, Rows)> {
        let missing = || missing(run);
        let store = self.store.as_ref().ok_or_else(missing)?;
        let (header, rows) = store.read(|snapshot| {
            let header = snapshot.get(RUNS, run.as_str().as_bytes())?.ok_or_else(missing)?;
            Ok((header, snapshot.collect(ENTRIES, &Scan::prefix(run.as_str().as_bytes()))?))
        })?;
        let numbered = rows.into_iter().map(|(key, row)| {
            let at = key.get(run.as_str().len()..).and_then(|n| n.try_into().ok()).map(u32::from_be_bytes);
            // One more must fit behind it.
            at.filter(|at| *at < u32::MAX)
                .map(|at| (at, row))
                .ok_or_else(|| damaged("the number of an entry"))
        });
        Ok((parse(&header)?, numbered.collect::<Result<_>>()?))
    }

    /// The interrupted and the parked runs, oldest first.
    pub(crate) fn unfinished(&self) -> Result<Vec<Unfinished>> {
        let all: Vec<(RunId, String)> =
            self.runs().interrupted.iter().map(|(r, c)| (r.clone(), c.clone())).collect();
        let mut open = Vec::with_capacity(all.len());
        for (run, conversation) in all {
            let loaded = self.load(&run).and_then(|recorded| Ok((recorded, self.pending(&run)?)));
            open.push(match loaded {
                Ok((recorded, _)) if recorded.ended.is_some() => continue,
                Ok((recorded, approvals)) => Unfinished {
                    input: recorded.header.input(),
                    started: recorded.header.started,
                    steps: recorded.machine.steps(),
                    unknown: recorded.unknown(),
                    approvals,
                    parent: recorded.header.parent,
                    run,
                    conversation,
                    damaged: None,
                },
                // Its start never reached the disk.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => Unfinished {
                    run,
                    input: String::new(),
                    started: Timestamp(0),
                    steps: 0,
                    unknown: Vec::new(),
                    approvals: Vec::new(),
                    parent: None,
                    conversation,
                    damaged: Some(e),
                },
                Err(e) => return Err(e),
            });
        }
        Ok(open)
    }

    /// The header of a run, if it is on record.
    pub(crate) fn header(&self, run: &RunId) -> Result<Option<Header>> {
        match &self.store {
            Some(store) => {
                store.read(|s| s.get(RUNS, run.as_str().as_bytes())?.map(|row| parse(&row)).transpose())
            }
            None => Ok(None),
        }
    }

    /// Has it no end yet?
    pub(crate) fn is_open(&self, run: &RunId) -> bool {
        let runs = self.runs();
        runs.active.contains_key(run) || runs.interrupted.contains_key(run)
    }

    /// The calls of a run that wait for a decision.
    pub(crate) fn pending(&self, run: &RunId) -> Result<Vec<approval::Approval>> {
        match &self.store {
            Some(store) => store.read(|s| approval::pending_of(s, run.as_str())),
            None => Ok(Vec::new()),
        }
    }

    /// Interrupted runs of this conversation, oldest first.
    pub(crate) fn interrupted_in(&self, conversation: &str) -> Vec<RunId> {
        self.runs().by_conversation.get(conversation).into_iter().flatten().cloned().collect()
    }

    /// Does it wait for a decision?
    pub(crate) fn is_parked(&self, run: &RunId) -> bool {
        self.runs().parked.contains(run)
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
        self.runs().active.contains_key(run)
    }

    /// The runs under way, oldest first.
    pub(crate) fn running(&self) -> Vec<RunId> {
        let mut all: Vec<RunId> = self.runs().active.keys().cloned().collect();
        all.sort();
        all
    }

    /// The log of a run under way.
    pub(crate) fn log_of(&self, run: &RunId) -> Option<Arc<Log>> {
        self.runs().active.get(run).cloned()
    }

    /// The log of the run under way in a conversation.
    pub(crate) fn talking_in(&self, conversation: &str) -> Option<Arc<Log>> {
        let runs = self.runs();
        runs.talking.get(conversation).and_then(|run| runs.active.get(run)).cloned()
    }

    /// The runs without an end that this one started: those under way, and those that are interrupted with their
    /// conversations.
    pub(crate) fn children_of(&self, run: &RunId) -> (usize, Vec<(RunId, String)>) {
        let runs = self.runs();
        let mine = runs.parents.iter().filter(|(_, parent)| *parent == run).map(|(child, _)| child);
        let (mut active, mut interrupted) = (0, Vec::new());
        for child in mine {
            match runs.interrupted.get(child) {
                Some(conversation) => interrupted.push((child.clone(), conversation.clone())),
                None => active += usize::from(runs.active.contains_key(child)),
            }
        }
        (active, interrupted)
    }

    /// Takes note of the run above a run.
    pub(crate) fn adopt(&self, child: &RunId, parent: &RunId) {
        self.runs().parents.insert(child.clone(), parent.clone());
    }

    /// Marks a run as under way here; its next entry has the number `next`.
    pub(crate) fn activate(self: &Arc<Self>, run: &RunId, conversation: &str, next: u32) -> Result<Active> {
        self.activate_as(run, conversation, next, false)
    }

    /// From now on something can be said to this run: what began it, or took it up, is on its way to the disk.
    pub(crate) fn talk(&self, active: &Active) {
        let (run, conversation) = (active.log.run.clone(), active.log.conversation.clone());
        self.runs().talking.insert(conversation, run);
    }

    /// As [`activate`](Self::activate), for who is not going to carry the run on: nobody can say anything to it.
    pub(crate) fn activate_silent(
        self: &Arc<Self>,
        run: &RunId,
        conversation: &str,
        next: u32,
    ) -> Result<Active> {
        self.activate_as(run, conversation, next, true)
    }

    fn activate_as(
        self: &Arc<Self>,
        run: &RunId,
        conversation: &str,
        next: u32,
        silent: bool,
    ) -> Result<Active> {
        let mut runs = self.runs();
        if runs.active.contains_key(run) {
            return Err(under_way(run));
        }
        let log =
            Log::new(self.store.clone(), self.probe.clone(), run.clone(), conversation.to_owned(), next);
        if silent {
            // Before anybody can find it.
            log.shut();
        }
        runs.active.insert(run.clone(), log.clone());
        runs.forget(run);
        Ok(Active { journal: self.clone(), log, rest: Rest::Interrupted })
    }

    /// Puts a run with a past on record, as an interrupted one.
    pub(crate) async fn plant(
        self: &Arc<Self>,
        fork: crate::replay::Fork,
        compaction: Option<crate::context::record::Compaction>,
        past: Option<Append>,
    ) -> Result<RunId> {
        let crate::replay::Fork { mut header, rows } = fork;
        let active = self.activate_silent(&header.run, &header.conversation, 0)?;
        let store = self.store.as_ref().ok_or_else(has_ended)?;
        let run = header.run.clone();
        store
            .write(move |tx| {
                if let Some(past) = &past {
                    append_in(tx, past)?;
                }
                if let Some(mut c) = compaction.clone() {
                    c.conversation.clone_from(&header.conversation);
                    header.compaction = Some(crate::context::record::put(tx, c)?.n);
                }
                if !header.ledgers.is_empty() {
                    crate::ledger::open(tx, header.run.as_str(), header.limits)?;
                }
                let key = header.run.as_str().as_bytes();
                tx.put(RUNS, key, &json(&header)?)?;
                tx.put(UNFINISHED, key, &[])?;
                for (row, at) in rows.iter().zip(0u32..) {
                    tx.put(ENTRIES, &entry_key(&header.run, at), row)?;
                }
                Ok(())
            })
            .await?;
        drop(active);
        Ok(run)
    }

    /// Deletes what is on record of the runs of a conversation.
    pub(crate) async fn delete(&self, conversation: &str, with: Option<DeleteIn>) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let name = conversation.to_owned();
        store
            .write(move |tx| {
                let headers: Vec<(Vec<u8>, Header)> = tx
                    .collect(RUNS, &Scan::all())?
                    .into_iter()
                    .filter_map(|(run, row)| Some((run, parse(&row).ok()?)))
                    .collect();
                // Those of the conversation, and all that they started.
                let mut gone: HashSet<String> = HashSet::new();
                loop {
                    let before = gone.len();
                    for (_, h) in &headers {
                        let child = h.parent.as_ref().is_some_and(|p| gone.contains(p.as_str()));
                        if child || h.conversation == name {
                            gone.insert(h.run.as_str().to_owned());
                        }
                    }
                    if gone.len() == before {
                        break;
                    }
                }
                for (run, header) in headers.iter().filter(|(_, h)| gone.contains(h.run.as_str())) {
                    delete_run(tx, run)?;
                    crate::ledger::delete(tx, header.run.as_str())?;
                    tx.delete(UNFINISHED, run)?;
                }
                crate::context::record::delete_all(tx, &name)?;
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

/// Entries with their numbers.
type Rows = Vec<(u32, Vec<u8>)>;

/// Deletes a conversation inside a transaction.
pub(crate) type DeleteIn = fn(&mut Tx<'_>, &str) -> Result<()>;

pub(crate) fn missing(run: &RunId) -> Error {
    Error::new(ErrorKind::NotFound, "run.load", format_args!("no run {run} on record"))
}

pub(crate) fn under_way(run: &RunId) -> Error {
    Error::new(ErrorKind::Conflict, "run", format_args!("run {run} is under way"))
}

pub(crate) fn has_ended() -> Error {
    Error::new(ErrorKind::Conflict, "run", "the run has ended")
}

/// Every so many ends of runs what is old is deleted.
const TIDY: u32 = 8;
/// So many setups may be on record before those that no run needs are deleted.
const MAX_SETUPS: u64 = 256;

fn prune(tx: &mut Tx<'_>, keep: u64) -> Result<()> {
    let surplus = tx.len(FINISHED)?.saturating_sub(keep).min(u64::from(4 * TIDY));
    let old = tx.collect(FINISHED, &Scan::all().limit(usize::try_from(surplus).unwrap_or(0)))?;
    old.iter().try_for_each(|(run, _)| delete_run(tx, run))
}

/// Deletes the setups that no run on record was started with, once there are many.
fn sweep(tx: &mut Tx<'_>, known: &Mutex<HashSet<String>>) -> Result<()> {
    let (setups, runs) = (tx.len(SETUPS)?, tx.len(RUNS)?);
    if setups <= MAX_SETUPS.max(runs.saturating_mul(2)) {
        return Ok(());
    }
    let mut used = HashSet::new();
    for (_, row) in tx.collect(RUNS, &Scan::all())? {
        used.extend(parse::<Header>(&row).ok().and_then(|h| h.setup));
    }
    for (digest, _) in tx.collect(SETUPS, &Scan::all())? {
        if !used.contains(&*String::from_utf8_lossy(&digest)) {
            tx.delete(SETUPS, &digest)?;
        }
    }
    known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    Ok(())
}

fn delete_run(tx: &mut Tx<'_>, run: &[u8]) -> Result<()> {
    // What an agent said to another is of no use without it.
    if let Some(header) = tx.get(RUNS, run)?.and_then(|row| parse::<Header>(&row).ok())
        && header.parent.is_some()
        && header.conversation.starts_with(CHILD)
    {
        delete_conversation_in(tx, &header.conversation)?;
    }
    for table in [RUNS, FINISHED, ENTRIES, OUTPUTS] {
        tx.delete_all(table, &Scan::prefix(run))?;
    }
    approval::delete(tx, std::str::from_utf8(run).unwrap_or_default()).map(|_| ())
}

#[cfg(feature = "memory")]
fn delete_conversation_in(tx: &mut Tx<'_>, conversation: &str) -> Result<()> {
    zo_memory::delete_in(tx, conversation).map(|_| ())
}

#[cfg(not(feature = "memory"))]
fn delete_conversation_in(_: &mut Tx<'_>, _: &str) -> Result<()> {
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
    serde_json::from_slice(row).map_err(|e| damaged("a record").with_source(e))
}

/// Reads an entry; one of a kind that this version does not know is no damage.
pub(crate) fn parse_entry(row: &[u8]) -> Result<Entry<'static>> {
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(borrow)]
        entry: std::borrow::Cow<'a, str>,
    }
    const KNOWN: &[&str] = &[
        "model",
        "claimed",
        "said",
        "compacted",
        "shortened",
        "stopped",
        "asked",
        "resumed",
        "appending",
        "tool",
        "end",
    ];
    serde_json::from_slice(row).map_err(|e| match serde_json::from_slice::<Tag<'_>>(row) {
        Ok(tag) if !KNOWN.contains(&&*tag.entry) => Error::new(
            ErrorKind::Unsupported,
            "journal.read",
            format_args!(
                "a newer version of zo wrote an entry {:?}; continue this run with that version",
                tag.entry
            ),
        ),
        _ => damaged("a record").with_source(e),
    })
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "journal.read", format_args!("{what} cannot be read"))
}

fn unknown_schema(from: u32) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "journal.open",
        format_args!("no way to migrate the journal from version {from}"),
    )
}
