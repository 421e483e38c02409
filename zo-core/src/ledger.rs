//! Allowances that outlive their runs: what was spent is on record, so that neither a restart nor the end of a run refills
//! them, and runs, children and schedules share one by its id.
//!
//! A ledger is two things. Its **row** is the truth after a restart: amounts are added to it in the commit that records
//! what they were spent on. Its **[`Budget`]** is what holds the limit while the process runs: [`Ledgers`] gives the same one to
//! whoever asks for the id, as long as anybody has it.
//!
//! Whoever spends queues its [`add`] before it lets go of the budget: then a budget that is made anew from the row misses
//! nothing.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Mutex as AsyncMutex;
use zo_store::{Read, Scan, Store, Table, Tx};
use zo_traits::{Budget, Error, ErrorKind, Limits, Result, Spend, WeakBudget};

/// Id -> [`Row`] as JSON.
const LEDGERS: Table = Table::new("agent.ledgers");

/// A shared, durable allowance as it is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ledger {
    /// The host's name for it.
    pub id: String,
    /// What may be spent in all.
    pub limits: Limits,
    /// What was spent.
    pub spent: Spend,
    /// On what; at most [`Budget::MAX_LABELS`] things and [`Budget::OTHER`].
    pub by: BTreeMap<String, Spend>,
}

/// What is on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Row {
    limits: Limits,
    spent: Spend,
    #[serde(default)]
    by: BTreeMap<String, Spend>,
}

impl Row {
    fn named(self, id: &str) -> Ledger {
        Ledger { id: id.to_owned(), limits: self.limits, spent: self.spent, by: self.by }
    }
}

/// Puts a ledger on record, or gives the one on record these limits. What was spent stays spent.
///
/// # Errors
/// `Invalid` for an empty id.
pub(crate) fn open(tx: &mut Tx<'_>, id: &str, limits: Limits) -> Result<Ledger> {
    if id.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "ledger.open", "a ledger needs an id"));
    }
    let known = load(tx, id)?;
    let is_new = known.as_ref().is_none_or(|row| row.limits != limits);
    let row = Row { limits, ..known.unwrap_or_default() };
    if is_new {
        save(tx, id, &row)?;
    }
    Ok(row.named(id))
}

/// Adds what was spent, on what, even past a limit.
///
/// # Errors
/// `NotFound` when there is no such ledger.
pub(crate) fn add(tx: &mut Tx<'_>, id: &str, amounts: &[(&str, Spend)]) -> Result<()> {
    let mut row = load(tx, id)?.ok_or_else(|| missing("ledger.add", id))?;
    let before = row.spent;
    for (what, amount) in amounts.iter().filter(|(_, amount)| !amount.is_zero()) {
        row.spent = row.spent.plus(*amount);
        amount.book(&mut row.by, what);
    }
    if row.spent == before { Ok(()) } else { save(tx, id, &row) }
}

/// A ledger as it is on record.
pub(crate) fn read(reads: &dyn Read, id: &str) -> Result<Option<Ledger>> {
    Ok(load(reads, id)?.map(|row| row.named(id)))
}

/// All ledgers, in order of id.
pub(crate) fn list(reads: &dyn Read) -> Result<Vec<Ledger>> {
    let mut all = Vec::new();
    reads.visit(LEDGERS, &Scan::all(), &mut |id, row| {
        all.push(parse(row)?.named(&String::from_utf8_lossy(id)));
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// Forgets a ledger and what was spent; `false` when there was none. A budget that is in use goes on without a row.
pub(crate) fn delete(tx: &mut Tx<'_>, id: &str) -> Result<bool> {
    tx.delete(LEDGERS, id.as_bytes())
}

fn load(reads: &dyn Read, id: &str) -> Result<Option<Row>> {
    reads.get(LEDGERS, id.as_bytes())?.map(|row| parse(&row)).transpose()
}

fn parse(row: &[u8]) -> Result<Row> {
    serde_json::from_slice(row)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "ledger.read", "a record cannot be read").with_source(e))
}

fn save(tx: &mut Tx<'_>, id: &str, row: &Row) -> Result<()> {
    let row = serde_json::to_vec(row).map_err(|e| {
        Error::new(ErrorKind::Invalid, "ledger.write", "cannot be written as JSON").with_source(e)
    })?;
    tx.put(LEDGERS, id.as_bytes(), &row)
}

fn missing(op: &'static str, id: &str) -> Error {
    Error::new(ErrorKind::NotFound, op, format_args!("there is no ledger {id:?}"))
}

/// The ledgers in use in this process. Without a store they last as long as it does.
#[derive(Debug)]
pub(crate) struct Ledgers {
    store: Option<Store>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// One ledger. Locked while it is opened, so that nobody else opens it.
type Slot = AsyncMutex<Live>;

#[derive(Debug, Default)]
struct Live {
    budget: WeakBudget,
    /// Keeps the budget where there is no row to make it from again.
    kept: Option<Budget>,
}

impl Ledgers {
    /// None in use.
    pub(crate) fn new(store: Option<Store>) -> Self {
        Self { store, slots: Mutex::default() }
    }

    /// The ledger of this id with these limits: the one in use, or the one on record, or a new one.
    ///
    /// # Errors
    /// `Conflict` when it is in use with other limits; `Invalid` for an empty id; those of the store.
    pub(crate) async fn open(&self, id: &str, limits: Limits) -> Result<Budget> {
        self.find(id, Some(limits)).await
    }

    /// The ledger of this id, with the limits that it has.
    ///
    /// # Errors
    /// `NotFound` when there is none; those of the store.
    pub(crate) async fn get(&self, id: &str) -> Result<Budget> {
        self.find(id, None).await
    }

    async fn find(&self, id: &str, limits: Option<Limits>) -> Result<Budget> {
        const OP: &str = "ledger.open";
        let slot = self.slot(id);
        let mut live = slot.lock().await;
        if let Some(budget) = live.budget.upgrade() {
            if limits.is_some_and(|limits| limits != budget.limits()) {
                let message = format_args!("ledger {id:?} is in use with other limits");
                return Err(Error::new(ErrorKind::Conflict, OP, message));
            }
            return Ok(budget);
        }
        // Nobody holds it, and nobody else can open it: whatever was spent from it is in the row or queued before this.
        let ledger = match (&self.store, limits) {
            (Some(store), limits) => {
                let name = id.to_owned();
                store
                    .write(move |tx| match limits {
                        Some(limits) => open(tx, &name, limits),
                        None => read(tx, &name)?.ok_or_else(|| missing(OP, &name)),
                    })
                    .await?
            }
            (None, Some(_)) if id.is_empty() => {
                return Err(Error::new(ErrorKind::Invalid, OP, "a ledger needs an id"));
            }
            (None, Some(limits)) => Row { limits, ..Row::default() }.named(id),
            (None, None) => return Err(missing(OP, id)),
        };
        let budget = Budget::new(ledger.limits);
        budget.restore(ledger.spent, &ledger.by);
        live.budget = budget.downgrade();
        live.kept = self.store.is_none().then(|| budget.clone());
        Ok(budget)
    }

    fn slot(&self, id: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(id) {
            return slot.clone();
        }
        if slots.len() == slots.capacity() {
            // One that somebody waits for is in two hands, and one that is locked is being opened.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1
                    || slot.try_lock().map_or(true, |live| live.budget.upgrade().is_some())
            });
        }
        slots.entry(id.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use zo_store::Urgency;

    fn dollars(n: u64) -> Limits {
        Limits::none().microusd(n * 1_000_000)
    }

    async fn book(store: &Store, id: &'static str, what: &'static str, amount: Spend) {
        store.write(move |tx| add(tx, id, &[(what, amount)])).await.unwrap();
    }

    #[tokio::test]
    async fn one_id_is_one_budget_while_anybody_holds_it() {
        for store in [None, Some(Store::in_memory().unwrap())] {
            let ledgers = Ledgers::new(store);
            let a = ledgers.open("team", dollars(5)).await.unwrap();
            a.spend(Spend::microusd(4_000_000)).unwrap();
            let b = ledgers.open("team", dollars(5)).await.unwrap();
            assert!(a.is(&b) && ledgers.get("team").await.unwrap().is(&a));
            assert_eq!(b.spend(Spend::microusd(2_000_000)).unwrap_err().kind(), ErrorKind::Denied);
            let e = ledgers.open("team", dollars(50)).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Conflict, "nobody widens it behind the others' backs");
            assert_eq!(ledgers.open("", dollars(5)).await.unwrap_err().kind(), ErrorKind::Invalid);
            assert_eq!(ledgers.get("nobody's").await.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }

    #[tokio::test]
    async fn neither_a_restart_nor_letting_go_refills_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("zo");
        for _ in 0..4 {
            let store = Store::open(&file).unwrap();
            let ledgers = Ledgers::new(Some(store.clone()));
            for _ in 0..2 {
                // Each time nobody holds it: it is made from the row.
                let budget = ledgers.open("team", dollars(5)).await.unwrap();
                if budget.spend_on("search", Spend::microusd(700_000)).is_ok() {
                    book(&store, "team", "search", Spend::microusd(700_000)).await;
                }
            }
            drop(ledgers);
            store.close().await.unwrap();
        }
        let store = Store::open(&file).unwrap();
        let ledger = store.read(|s| read(s, "team")).unwrap().unwrap();
        assert_eq!(ledger.spent.microusd, 4_900_000, "seven of eight fitted");
        let budget = Ledgers::new(Some(store)).get("team").await.unwrap();
        let e = budget.spend(Spend::microusd(200_000)).unwrap_err();
        assert!(e.message().contains("spent on: search $4.90"), "{}", e.message());
        budget.spend(Spend::microusd(100_000)).unwrap();
    }

    #[tokio::test]
    async fn without_a_store_letting_go_does_not_refill_it() {
        let ledgers = Ledgers::new(None);
        ledgers.open("a", dollars(1)).await.unwrap().spend(Spend::microusd(1_000_000)).unwrap();
        assert!(ledgers.get("a").await.unwrap().spend(Spend::microusd(1)).is_err());
    }

    #[tokio::test]
    async fn limits_can_be_changed_when_nobody_holds_it() {
        let ledgers = Ledgers::new(Some(Store::in_memory().unwrap()));
        drop(ledgers.open("a", dollars(1)).await.unwrap());
        let wider = ledgers.open("a", dollars(2)).await.unwrap();
        assert_eq!(wider.limits(), dollars(2));
        drop(wider);
        assert_eq!(ledgers.get("a").await.unwrap().limits(), dollars(2));
    }

    /// Openers come and go while others spend: every amount is in the row and in the budget, and the cap holds.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_is_lost_between_the_row_and_the_budget() {
        let store = Store::in_memory().unwrap();
        let ledgers = Arc::new(Ledgers::new(Some(store.clone())));
        let limits = Limits::none().tokens(500);
        let tasks: Vec<_> = (0..50u32)
            .map(|n| {
                let (store, ledgers) = (store.clone(), ledgers.clone());
                tokio::spawn(async move {
                    let mut got = 0;
                    for _ in 0..20 {
                        let budget = ledgers.open("shared", limits).await.unwrap();
                        let run = budget.child(Limits::none());
                        drop(budget);
                        if run.spend_on("t", Spend::tokens(1)).is_ok() {
                            got += 1;
                            // It lets go as soon as its amount is queued, before that is on the disk.
                            let one = [("t", Spend::tokens(1))];
                            let when = if n % 2 == 0 { Urgency::Now } else { Urgency::Soon };
                            let work = move |tx: &mut Tx<'_>| add(tx, "shared", &one);
                            store.queue(when, work, |outcome| assert!(outcome.is_ok())).await.unwrap();
                        }
                        drop(run);
                        tokio::task::yield_now().await;
                    }
                    got
                })
            })
            .collect();
        let mut got = 0;
        for task in tasks {
            got += task.await.unwrap();
        }
        assert_eq!(got, 500);
        store.write(|_| Ok(())).await.unwrap();
        let ledger = store.read(|s| read(s, "shared")).unwrap().unwrap();
        assert_eq!((ledger.spent.tokens, ledger.by["t"].tokens), (500, 500));
    }

    #[tokio::test]
    async fn ids_that_nobody_holds_take_no_room() {
        let ledgers = Ledgers::new(Some(Store::in_memory().unwrap()));
        let held = ledgers.open("held", dollars(1)).await.unwrap();
        for n in 0..2_000 {
            ledgers.open(&format!("{n}"), dollars(1)).await.unwrap();
        }
        assert!(ledgers.slots.lock().unwrap().capacity() < 64);
        assert!(ledgers.get("held").await.unwrap().is(&held));
    }

    #[test]
    fn on_disk_it_looks_like_this() {
        let store = Store::in_memory().unwrap();
        let made = store
            .write_blocking(|tx| {
                open(tx, "team", Limits::none().microusd(5_000_000))?;
                add(
                    tx,
                    "team",
                    &[("gpt", Spend::microusd(3).plus(Spend::steps(1))), ("", Spend::tokens(2))],
                )?;
                open(tx, "team", Limits::none().microusd(6_000_000))
            })
            .unwrap();
        let zero = json!({"steps": 0, "tokens": 0, "microusd": 0, "tool_calls": 0, "millis": 0});
        let with = |fields: Value| {
            let mut all = zero.clone();
            all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            all
        };
        let want = json!({
            "limits": {"steps": null, "tokens": null, "microusd": 6_000_000, "tool_calls": null, "millis": null},
            "spent": with(json!({"steps": 1, "tokens": 2, "microusd": 3})),
            "by": {"gpt": with(json!({"steps": 1, "microusd": 3})), "other": with(json!({"tokens": 2}))},
        });
        let row = store.read(|s| s.get(LEDGERS, b"team")).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&row).unwrap(), want);
        assert_eq!(store.read(|s| list(s)).unwrap(), [made]);
        let short: Row = serde_json::from_str(r#"{"limits":{},"spent":{"tokens":7}}"#).unwrap();
        assert_eq!((short.spent, short.limits), (Spend::tokens(7), Limits::none()));
        assert!(store.write_blocking(|tx| delete(tx, "team")).unwrap());
        let e = store.write_blocking(|tx| add(tx, "team", &[])).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        store.write_blocking(|tx| tx.put(LEDGERS, b"bad", b"[]")).unwrap();
        assert_eq!(store.read(|s| read(s, "bad")).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The breakdown adds up to what was spent, and a budget made from the row says the same.
        #[test]
        fn the_row_adds_up(amounts in prop::collection::vec(("[a-c]{0,2}|[0-9]{1,3}", 0..1_000u64), 0..200)) {
            let store = Store::in_memory().unwrap();
            let ledger = store.write_blocking(move |tx| {
                open(tx, "l", Limits::none())?;
                for pair in amounts.chunks(3) {
                    let amounts: Vec<_> = pair.iter().map(|(w, n)| (w.as_str(), Spend::tokens(*n))).collect();
                    add(tx, "l", &amounts)?;
                }
                Ok(read(tx, "l")?.unwrap())
            }).unwrap();
            prop_assert!(ledger.by.len() <= Budget::MAX_LABELS + 1);
            let sum = ledger.by.values().fold(Spend::default(), |sum, s| sum.plus(*s));
            prop_assert_eq!(sum, ledger.spent);
            let budget = Budget::new(Limits::none());
            budget.restore(ledger.spent, &ledger.by);
            prop_assert_eq!((budget.spent(), budget.breakdown()), (ledger.spent, ledger.by));
        }
    }
}
