//! Questions that a person answers before a tool call is begun: on record from the moment they are asked, so that the
//! run can wait for days, through restarts, at no cost, and the answer can come from anywhere.
//!
//! # Promises
//! * **One answer, one call.** An answer is to one call of one run with exactly these arguments: it names the
//!   [digest](Approval::digest) of what was shown to the person, and whoever begins the call compares it with the digest
//!   of the call at hand. It says nothing about a later call, however alike.
//! * **The first answer stands.** The same again is taken without complaint (a button that was pressed twice, a message
//!   that was delivered twice), another is refused.
//! * **Time limits both.** Once it [expires](Approval::expires), a question cannot be answered, and a yes that nobody has
//!   acted on is none: what was right to do then may not be now.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    io::{self, Write},
    ops::ControlFlow,
};
use zo_store::{Read, Scan, Table, Tx, key::Key};
use zo_traits::{Error, ErrorKind, Result, Timestamp, ToolCall};

/// (run, call) -> [`Record`] as JSON.
const APPROVALS: Table = Table::new("agent.approvals");

/// A tool call that waits for a person's answer. As JSON it can travel through any channel; its answer needs
/// [`run`](Self::run), the id of the [`call`](Self::call) and the [`digest`](Self::digest) back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Approval {
    /// The run that waits.
    pub run: String,
    /// Its conversation.
    pub conversation: String,
    /// The call, with the arguments that it will be run with.
    pub call: ToolCall,
    /// Binds an answer to what was asked: SHA-256 of the run, the tool's name and the arguments, in 64 hexadecimal
    /// digits.
    pub digest: String,
    /// Why it is asked, for people.
    pub why: String,
    /// When it was asked.
    pub asked: Timestamp,
    /// From when on it cannot be answered, and a yes that was not acted on is none. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl Approval {
    /// A question about `call`, asked now, that does not expire.
    pub(crate) fn new(run: &str, conversation: &str, call: ToolCall, why: String, asked: Timestamp) -> Self {
        let digest = digest(run, &call);
        let (run, conversation) = (run.to_owned(), conversation.to_owned());
        Self { run, conversation, call, digest, why, asked, expires: None }
    }

    /// The same question, which expires at `at`.
    pub(crate) fn expires(mut self, at: Option<Timestamp>) -> Self {
        self.expires = at;
        self
    }

    /// Is its time over?
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }
}

/// A person's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// Begin it.
    Allow,
    /// Do not.
    Deny {
        /// What the model is told, in the person's words; may be empty.
        why: String,
    },
}

/// How a question stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody has answered.
    Pending,
    /// Yes.
    Allowed {
        /// Who said so.
        by: String,
    },
    /// No.
    Denied {
        /// Why, in the person's words.
        why: String,
        /// Who said so.
        by: String,
    },
    /// Its time was over before it was answered, or before the call was begun.
    Expired,
}

/// What is on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    approval: Approval,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Answer {
    decision: Decision,
    by: String,
    at: Timestamp,
}

impl Record {
    fn state(self, now: Timestamp) -> State {
        match self.answer {
            // A no stays a no.
            Some(Answer { decision: Decision::Deny { why }, by, .. }) => State::Denied { why, by },
            _ if self.approval.is_expired(now) => State::Expired,
            Some(Answer { decision: Decision::Allow, by, .. }) => State::Allowed { by },
            None => State::Pending,
        }
    }
}

/// Puts a question on record; `false` when it is there already, answered or not.
///
/// # Errors
/// `Invalid` when the digest is not that of the call; `Conflict` when another call of this id was asked about in this run.
pub(crate) fn ask(tx: &mut Tx<'_>, approval: &Approval) -> Result<bool> {
    const OP: &str = "approval.ask";
    if approval.digest != digest(&approval.run, &approval.call) {
        return Err(Error::new(ErrorKind::Invalid, OP, "the digest is not that of the call"));
    }
    match load(tx, &approval.run, &approval.call.id)? {
        Some(known) if known.approval.digest == approval.digest => Ok(false),
        Some(_) => Err(changed(OP)),
        None => save(tx, &Record { approval: approval.clone(), answer: None }).map(|()| true),
    }
}

/// Answers a question, and returns it.
///
/// # Errors
/// `NotFound` when it was not asked, or its run is over; `Conflict` when `digest` is that of other arguments, when it was
/// answered otherwise, and when its time is over.
pub(crate) fn decide(
    tx: &mut Tx<'_>,
    run: &str,
    call: &str,
    digest: &str,
    decision: &Decision,
    by: &str,
    now: Timestamp,
) -> Result<Approval> {
    const OP: &str = "approval.decide";
    let Some(mut record) = load(tx, run, call)? else {
        let message = format_args!("call {call} of run {run} does not wait for an answer");
        return Err(Error::new(ErrorKind::NotFound, OP, message));
    };
    if record.approval.digest != digest {
        return Err(changed(OP));
    }
    let same = |given: &Decision| std::mem::discriminant(given) == std::mem::discriminant(decision);
    match &record.answer {
        Some(answer) if same(&answer.decision) => return Ok(record.approval),
        Some(answer) => {
            let given = if matches!(answer.decision, Decision::Allow) { "allowed" } else { "denied" };
            let message = format_args!("{} has already {given} it", answer.by);
            return Err(Error::new(ErrorKind::Conflict, OP, message));
        }
        None if record.approval.is_expired(now) => {
            return Err(Error::new(ErrorKind::Conflict, OP, "the question has expired"));
        }
        None => {}
    }
    record.answer = Some(Answer { decision: decision.clone(), by: by.to_owned(), at: now });
    save(tx, &record)?;
    Ok(record.approval)
}

/// How the question about this very call stands; `None` when it was not asked.
///
/// # Errors
/// `Conflict` when the question was about other arguments: then nobody has allowed this call.
pub(crate) fn state(reads: &dyn Read, run: &str, call: &ToolCall, now: Timestamp) -> Result<Option<State>> {
    match load(reads, run, &call.id)? {
        Some(record) if record.approval.digest == digest(run, call) => Ok(Some(record.state(now))),
        Some(_) => Err(changed("approval.state")),
        None => Ok(None),
    }
}

/// The question about a call by the call's id, and how it stands.
pub(crate) fn find(
    reads: &dyn Read,
    run: &str,
    call: &str,
    now: Timestamp,
) -> Result<Option<(Approval, State)>> {
    Ok(load(reads, run, call)?.map(|record| (record.approval.clone(), record.state(now))))
}

/// All questions without an answer, expired ones too, oldest first.
pub(crate) fn pending(reads: &dyn Read) -> Result<Vec<Approval>> {
    unanswered(reads, &Scan::all())
}

/// The questions of a run without an answer, expired ones too, oldest first.
pub(crate) fn pending_of(reads: &dyn Read, run: &str) -> Result<Vec<Approval>> {
    unanswered(reads, &Scan::prefix(&Key::new().str(run)))
}

/// Forgets the questions of a run; returns how many there were.
pub(crate) fn delete(tx: &mut Tx<'_>, run: &str) -> Result<u64> {
    tx.delete_all(APPROVALS, &Scan::prefix(&Key::new().str(run)))
}

/// SHA-256 of the run, the tool's name and the arguments, as JSON with sorted keys, in hexadecimal digits. A number counts
/// as it is written: `1` and `1.0` are different arguments.
pub(crate) fn digest(run: &str, call: &ToolCall) -> String {
    let mut hash = Sha(hmac_sha256::Hash::new());
    // A hash takes every byte, and a `Value` is always JSON.
    let _ = writeln!(hash, "zo.approval.1")
        .and_then(|()| text(&mut hash, run))
        .and_then(|()| text(&mut hash, &call.name))
        .and_then(|()| canonical(&mut hash, &call.args));
    hash.0.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        for digit in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(digit.into(), 16));
        }
        hex
    })
}

struct Sha(hmac_sha256::Hash);

impl Write for Sha {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A JSON string: it says itself where it ends.
fn text(out: &mut impl Write, text: &str) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

/// JSON without spaces and with the keys of each object in the order of their bytes.
fn canonical(out: &mut impl Write, value: &Value) -> io::Result<()> {
    match value {
        Value::Array(items) => {
            out.write_all(b"[")?;
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.write_all(b",")?;
                }
                canonical(out, item)?;
            }
            out.write_all(b"]")
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.write_all(b"{")?;
            for (n, (name, value)) in fields.into_iter().enumerate() {
                if n > 0 {
                    out.write_all(b",")?;
                }
                text(out, name)?;
                out.write_all(b":")?;
                canonical(out, value)?;
            }
            out.write_all(b"}")
        }
        Value::String(s) => text(out, s),
        Value::Number(n) => write!(out, "{n}"),
        Value::Bool(b) => write!(out, "{b}"),
        Value::Null => out.write_all(b"null"),
    }
}

fn key(run: &str, call: &str) -> Vec<u8> {
    Key::new().str(run).str(call).into_bytes()
}

fn load(reads: &dyn Read, run: &str, call: &str) -> Result<Option<Record>> {
    reads.get(APPROVALS, &key(run, call))?.map(|row| parse(&row)).transpose()
}

fn save(tx: &mut Tx<'_>, record: &Record) -> Result<()> {
    let row = serde_json::to_vec(record).map_err(|e| {
        Error::new(ErrorKind::Invalid, "approval.write", "cannot be written as JSON").with_source(e)
    })?;
    tx.put(APPROVALS, &key(&record.approval.run, &record.approval.call.id), &row)
}

fn parse(row: &[u8]) -> Result<Record> {
    serde_json::from_slice(row).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "approval.read", "a record cannot be read").with_source(e)
    })
}

fn unanswered(reads: &dyn Read, scan: &Scan<'_>) -> Result<Vec<Approval>> {
    let mut open = Vec::new();
    reads.visit(APPROVALS, scan, &mut |_, row| {
        let record = parse(row)?;
        if record.answer.is_none() {
            open.push(record.approval);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    // Rows come in order of run and call: a stable sort keeps it among those of one moment.
    open.sort_by_key(|a| a.asked);
    Ok(open)
}

fn changed(op: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, op, "the arguments changed: the answer was to another call")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use zo_store::Store;

    const T0: Timestamp = Timestamp(1_000);
    const LATER: Timestamp = Timestamp(2_000);

    fn call() -> ToolCall {
        ToolCall::new("call_1", "transfer", json!({"to": "ada", "amount": 12.5}))
    }

    fn asked(call: ToolCall) -> Approval {
        Approval::new("run-1", "chat", call, "moves money".into(), T0)
    }

    fn no(why: &str) -> Decision {
        Decision::Deny { why: why.into() }
    }

    fn answer(store: &Store, a: &Approval, d: Decision, by: &str, now: Timestamp) -> Result<Approval> {
        let (a, by) = (a.clone(), by.to_owned());
        store.write_blocking(move |tx| decide(tx, &a.run, &a.call.id, &a.digest, &d, &by, now))
    }

    fn put(store: &Store, a: &Approval) -> Result<bool> {
        let a = a.clone();
        store.write_blocking(move |tx| ask(tx, &a))
    }

    fn stands(store: &Store, a: &Approval, now: Timestamp) -> Option<State> {
        store.read(|s| state(s, &a.run, &a.call, now)).unwrap()
    }

    #[test]
    fn asked_answered_and_forgotten() {
        let store = Store::in_memory().unwrap();
        let a = asked(call());
        assert_eq!(stands(&store, &a, T0), None);
        assert!(put(&store, &a).unwrap());
        assert!(!put(&store, &a).unwrap(), "the same question again is the same question");
        assert_eq!(stands(&store, &a, T0), Some(State::Pending));
        assert_eq!(store.read(|s| pending(s)).unwrap(), std::slice::from_ref(&a));
        assert_eq!(answer(&store, &a, Decision::Allow, "ada", LATER).unwrap(), a);
        assert_eq!(stands(&store, &a, LATER), Some(State::Allowed { by: "ada".into() }));
        assert!(store.read(|s| pending(s)).unwrap().is_empty());
        assert!(!put(&store, &a).unwrap());
        assert_eq!(
            stands(&store, &a, LATER),
            Some(State::Allowed { by: "ada".into() }),
            "asking again unsays nothing"
        );
        assert_eq!(store.write_blocking(|tx| delete(tx, "run-1")).unwrap(), 1);
        assert_eq!(stands(&store, &a, LATER), None);
        assert_eq!(
            answer(&store, &a, Decision::Allow, "ada", LATER).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn the_first_answer_stands() {
        let store = Store::in_memory().unwrap();
        let a = asked(call());
        put(&store, &a).unwrap();
        answer(&store, &a, no("too much"), "ada", T0).unwrap();
        answer(&store, &a, no("again"), "bob", T0).unwrap();
        let e = answer(&store, &a, Decision::Allow, "eve", T0).unwrap_err();
        assert_eq!((e.kind(), e.message()), (ErrorKind::Conflict, "ada has already denied it"));
        let want = State::Denied { why: "too much".into(), by: "ada".into() };
        assert_eq!(stands(&store, &a, T0), Some(want));
    }

    #[test]
    fn an_answer_is_to_these_arguments() {
        let store = Store::in_memory().unwrap();
        let a = asked(call());
        put(&store, &a).unwrap();
        let mut other = call();
        other.args["amount"] = json!(1250);
        let swapped = asked(other.clone());
        assert_eq!(put(&store, &swapped).unwrap_err().kind(), ErrorKind::Conflict, "one id, two calls");
        let e = answer(&store, &swapped, Decision::Allow, "ada", T0).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Conflict);
        assert!(e.message().starts_with("the arguments changed"));
        answer(&store, &a, Decision::Allow, "ada", T0).unwrap();
        let e = store.read(|s| state(s, "run-1", &other, T0)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Conflict, "a yes to one is none to the other");
        let forged = Approval { digest: a.digest.clone(), ..asked(ToolCall { id: "c2".into(), ..other }) };
        assert_eq!(put(&store, &forged).unwrap_err().kind(), ErrorKind::Invalid);
        let twin = ToolCall { id: "call_2".into(), ..call() };
        assert_eq!(
            store.read(|s| state(s, "run-1", &twin, T0)).unwrap(),
            None,
            "nor to a second call like it"
        );
        assert_eq!(store.read(|s| state(s, "run-2", &call(), T0)).unwrap(), None, "nor in another run");
    }

    #[test]
    fn time_limits_the_question_and_the_yes() {
        let store = Store::in_memory().unwrap();
        let a = asked(call()).expires(Some(LATER));
        put(&store, &a).unwrap();
        assert_eq!(stands(&store, &a, Timestamp(1_999)), Some(State::Pending));
        assert_eq!(stands(&store, &a, LATER), Some(State::Expired));
        let e = answer(&store, &a, Decision::Allow, "ada", LATER).unwrap_err();
        assert_eq!((e.kind(), e.message()), (ErrorKind::Conflict, "the question has expired"));
        assert_eq!(store.read(|s| pending_of(s, "run-1")).unwrap().len(), 1, "who waits must hear of it");
        answer(&store, &a, Decision::Allow, "ada", Timestamp(1_999)).unwrap();
        assert_eq!(stands(&store, &a, Timestamp(1_999)), Some(State::Allowed { by: "ada".into() }));
        assert_eq!(stands(&store, &a, LATER), Some(State::Expired), "nobody acted on it in time");
        let b = asked(ToolCall { id: "b".into(), ..call() }).expires(Some(LATER));
        put(&store, &b).unwrap();
        answer(&store, &b, no(""), "ada", T0).unwrap();
        assert!(matches!(stands(&store, &b, LATER), Some(State::Denied { .. })));
    }

    #[test]
    fn oldest_first_and_only_the_runs_own() {
        let store = Store::in_memory().unwrap();
        for (run, id, at) in
            [("run-1", "x", 30), ("run-10", "y", 10), ("run-1", "z", 20), ("run-1\0", "w", 5)]
        {
            let call = ToolCall { id: id.into(), ..call() };
            put(&store, &Approval::new(run, "c", call, String::new(), Timestamp(at))).unwrap();
        }
        let ids = |all: Vec<Approval>| all.into_iter().map(|a| a.call.id).collect::<Vec<_>>();
        assert_eq!(ids(store.read(|s| pending(s)).unwrap()), ["w", "y", "z", "x"]);
        assert_eq!(ids(store.read(|s| pending_of(s, "run-1")).unwrap()), ["z", "x"]);
        assert_eq!(store.write_blocking(|tx| delete(tx, "run-1")).unwrap(), 2);
        assert_eq!(ids(store.read(|s| pending(s)).unwrap()), ["w", "y"]);
        let found = store.read(|s| find(s, "run-10", "y", T0)).unwrap().unwrap();
        assert_eq!((found.0.asked, found.1), (Timestamp(10), State::Pending));
    }

    #[test]
    fn it_survives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("zo");
        let a = asked(call());
        let store = Store::open(&file).unwrap();
        put(&store, &a).unwrap();
        answer(&store, &a, Decision::Allow, "ada", T0).unwrap();
        drop(store);
        let store = Store::open(&file).unwrap();
        assert_eq!(stands(&store, &a, T0), Some(State::Allowed { by: "ada".into() }));
    }

    #[test]
    fn on_disk_it_looks_like_this() {
        let store = Store::in_memory().unwrap();
        let a = asked(call()).expires(Some(LATER));
        put(&store, &a).unwrap();
        let row = |store: &Store| {
            let row = store.read(|s| s.get(APPROVALS, &key("run-1", "call_1"))).unwrap().unwrap();
            serde_json::from_slice::<Value>(&row).unwrap()
        };
        // As another implementation of SHA-256 computes it.
        let digest = "fb5e001d65e064f72930fb7bd6de1ff8ddae4ba12ad4049abd187bd98f08da27";
        let mut want = json!({"approval": {
            "run": "run-1", "conversation": "chat", "digest": digest, "why": "moves money",
            "call": {"id": "call_1", "name": "transfer", "args": {"amount": 12.5, "to": "ada"}},
            "asked": 1000, "expires": 2000,
        }});
        assert_eq!(row(&store), want);
        answer(&store, &a, no("no"), "ada", Timestamp(1_500)).unwrap();
        want["answer"] = json!({"decision": {"deny": {"why": "no"}}, "by": "ada", "at": 1500});
        assert_eq!(row(&store), want);
        let yes = json!({"decision": "allow", "by": "ada", "at": 1});
        let answer: Answer = serde_json::from_value(yes).unwrap();
        assert_eq!(answer.decision, Decision::Allow);
    }

    #[test]
    fn a_damaged_row_is_an_error_and_no_yes() {
        let store = Store::in_memory().unwrap();
        store.write_blocking(|tx| tx.put(APPROVALS, &key("run-1", "call_1"), b"{\"approval\":")).unwrap();
        let e = store.read(|s| state(s, "run-1", &call(), T0)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn the_canonical_form() {
        let mut out = Vec::new();
        let value: Value = serde_json::from_str(
            r#"{"b": [1, 1.0, -0.0, 1e2, 18446744073709551615], "a": {"é\n": null, "": true}}"#,
        )
        .unwrap();
        canonical(&mut out, &value).unwrap();
        let want = r#"{"a":{"":true,"é\n":null},"b":[1,1.0,-0.0,100.0,18446744073709551615]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn nothing_can_be_moved_between_the_parts() {
        let d = |run: &str, name: &str, args: Value| digest(run, &ToolCall::new("i", name, args));
        let all = [
            d("a", "b", json!("c")),
            d("ab", "", json!("c")),
            d("a", "b\"\"c", json!("")),
            d("a\"\"b", "", json!("c")),
            d("a", "b", json!(["c"])),
            d("a", "b", json!({"c": null})),
            d("a", "b", json!({})),
            d("a", "b", json!(1)),
            d("a", "b", json!(1.0)),
            d("a", "b", json!("1")),
            d("a", "b", json!(true)),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|fields| { Value::Object(fields.into_iter().collect()) }),
            ]
        })
    }

    proptest! {
        /// The digest of what comes back from a disk or a channel is that of what went out.
        #[test]
        fn the_digest_survives_the_trip(args in values()) {
            let a = asked(ToolCall { args, ..call() });
            let back: Approval = serde_json::from_slice(&serde_json::to_vec(&a).unwrap()).unwrap();
            prop_assert_eq!(digest(&back.run, &back.call), a.digest);
        }

        /// Different arguments have different digests, in whatever order their keys were written.
        #[test]
        fn it_is_the_digest_of_the_value(a in values(), b in values()) {
            let of = |v: &Value| digest("r", &ToolCall::new("c", "t", v.clone()));
            prop_assert_eq!(of(&a) == of(&b), a == b);
            if let Value::Object(fields) = &a {
                let turned: serde_json::Map<_, _> = fields.clone().into_iter().rev().collect();
                prop_assert_eq!(of(&Value::Object(turned)), of(&a));
            }
        }
    }
}
