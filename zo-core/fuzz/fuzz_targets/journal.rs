//! Any journal in a file: the agent starts, says what it cannot read, and whatever is done with such runs ends. Other
//! conversations go on, and what is given up is gone.
//!
//! Input: lines of text, the first of them the header of a run and the others its entries; or else bytes by which up to three
//! runs of this version are put together and spoilt.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use zo_core::{
    Effect, Permissions, Role, RunId, Zo,
    permission::Rule,
    store::{Store, Table, key::Key},
};
use zo_testkit::{Scripted, Turn, tool};

const RUNS: Table = Table::new("agent.runs");
const ENTRIES: Table = Table::new("agent.run_entries");
const UNFINISHED: Table = Table::new("agent.runs_unfinished");
const APPROVALS: Table = Table::new("agent.approvals");
const MESSAGES: Table = Table::new("transcript.messages");
const CONVERSATIONS: Table = Table::new("transcript.conversations");

/// Longer than one thing may take, on a slow and busy machine.
const MOST_TIME: Duration = Duration::from_secs(8);
/// More questions than all that is done here may put to the model.
const MOST_ASKED: usize = 400;
const MAX_STEPS: u32 = 4;

const IDS: [&str; 3] = [
    "018bcfe568000123456789abcdef0123",
    "018bcfe568000123456789abcdef0124",
    "018bcfe56800ffff456789abcdef0123",
];

type Row = (Table, Vec<u8>, Vec<u8>);

/// Makes choices out of bytes; at their end the first is taken.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn up_to(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// A value for where another is expected.
    fn odd(&mut self) -> Value {
        match self.byte() % 22 {
            0 => Value::Null,
            1 => json!(-1),
            2 => json!(u64::MAX),
            3 => json!(u32::MAX),
            4 => json!(i64::MAX),
            5 => json!(i64::MIN),
            6 => json!(""),
            7 => json!("a".repeat(5_000)),
            8 => json!([]),
            9 => json!({}),
            10 => json!(1e300),
            11 => json!(true),
            12 => json!(self.byte() % 8),
            13 => (0..100).fold(json!([]), |inside, _| json!([inside])),
            14 => json!(IDS[self.up_to(3)]),
            15 => json!([[IDS[self.up_to(3)], self.byte() % 4]]),
            16 => json!([IDS[0], IDS[1], IDS[2], "shared"]),
            17 => said("assistant", "out of place"),
            18 => json!([said("user", "one"), said("tool", "two"), said("system", "three")]),
            19 => {
                json!(["1", "2", "3", "4", "look", "mail", "agent/x", "later", "at_most_once"][self.up_to(9)])
            }
            20 => json!("\u{0}\u{202e}\u{1f600}".repeat(50)),
            _ => {
                json!({"nudge_at": u32::from(self.byte()), "stop_at": u32::from(self.byte()), "tokens": 0, "steps": 0})
            }
        }
    }

    /// Spoils a row at some places.
    fn spoil(&mut self, row: &mut Value, most: usize) {
        for _ in 0..self.up_to(most + 1) {
            let mut places = Vec::new();
            collect(row, String::new(), &mut places);
            let place = places[self.up_to(places.len())].clone();
            let what = self.byte() % 4;
            let odd = self.odd();
            let Some(at) = row.pointer_mut(&place) else { continue };
            match (what, at) {
                (0, Value::Object(map)) => {
                    let key = map.keys().nth(self.up_to(map.len())).cloned();
                    key.map(|key| map.remove(&key));
                }
                (0 | 1, Value::Array(list)) => {
                    let copy = list.first().cloned().unwrap_or(odd);
                    list.push(copy);
                }
                (_, Value::Object(map)) if place.is_empty() => {
                    let key = EXTRA[self.up_to(EXTRA.len())];
                    map.insert(key.to_owned(), odd);
                }
                (_, at) => *at = odd,
            }
        }
    }

    fn entry(&mut self) -> Value {
        let call =
            |id: &str, name: &str| json!({"type": "tool_call", "id": id, "name": name, "args": {"n": 1}});
        let id = ["1", "2", "3", "4"][self.up_to(4)];
        let name = ["look", "put", "mail", "nobody"][self.up_to(4)];
        match self.byte() % 14 {
            0..=2 => {
                let calls = json!({"role": "assistant", "parts": [
                    {"type": "reasoning", "text": "let me see"}, call("1", "look"), call("2", "put"), call("3", "mail")]});
                answered(&calls, "tool_calls", &json!([{"id": id, "effect": "at_most_once"}]), self.byte())
            }
            3 => answered(&said("assistant", "done"), "stop", &json!([]), self.byte()),
            4 | 5 => {
                json!({"entry": "tool", "result": {"id": id, "name": name, "status": "ok", "content": "then"}})
            }
            6 => {
                json!({"entry": "said", "message": said("user", "by the way"), "repair": self.byte() % 4 == 0})
            }
            7 => json!({"entry": "claimed", "claim": {"id": id, "effect": "idempotent"}}),
            8 => json!({"entry": "asked", "call": id}),
            9 => json!({"entry": "resumed", "setup": null}),
            10 => json!({"entry": "appending", "at": self.byte() % 4}),
            11 => json!({"entry": "shortened", "own": self.byte() % 8}),
            12 if self.byte() % 4 == 0 => json!({"entry": "end", "outcome": "done"}),
            12 => json!({"entry": "stopped"}),
            _ => json!({"entry": "compacted", "microusd": 0, "compaction": {
                "conversation": "c", "n": self.byte() % 3, "upto": self.byte() % 4, "since": 0, "summary": "so far",
                "method": "extractive", "pinned": [0, 1], "tokens_before": 9, "tokens_after": 3, "at": 1
            }}),
        }
    }

    fn run(&mut self, id: &str, rows: &mut Vec<Row>) {
        let mut header = header(id);
        let shape = self.byte();
        if shape & 1 != 0 {
            header["conversation"] = json!(["c", "d", "", "agent/x", "agent/c"][self.up_to(5)]);
        }
        if shape & 2 != 0 {
            header["parent"] = json!(IDS[self.up_to(3)]);
            header["depth"] = json!(1);
        }
        if shape & 4 != 0 {
            header["limits"] = json!({"steps": 2, "tokens": 100});
            header["ledgers"] = json!([id, IDS[self.up_to(3)], "shared"]);
        }
        if shape & 8 != 0 {
            header["output_schema"] = json!({"type": "object", "required": ["a"]});
        }
        if shape & 16 != 0 {
            header["permissions"] = json!([{"rules": [{"verdict": "ask", "tool": "mail"}]}]);
        }
        if shape & 32 != 0 {
            self.spoil(&mut header, 3);
        }
        rows.push((RUNS, id.into(), header.to_string().into()));
        let state: &[u8] = if shape & 64 != 0 { b"parked" } else { b"" };
        rows.push((UNFINISHED, id.into(), state.into()));
        let mut n = 0u32;
        for _ in 0..self.byte() % 12 {
            let mut entry = self.entry();
            let how = self.byte();
            if how & 1 != 0 {
                self.spoil(&mut entry, 2);
            }
            let mut row = entry.to_string().into_bytes();
            if how & 0b1110 == 0b1110 {
                row.truncate(self.up_to(row.len()));
            }
            n = match how >> 5 {
                7 => u32::MAX,
                6 => n.saturating_add(2),
                _ => n.saturating_add(1),
            };
            rows.push((ENTRIES, [id.as_bytes(), &(n - 1).to_be_bytes()].concat(), row));
        }
        if shape & 128 != 0 {
            let mut record = json!({"approval": {
                "run": id, "conversation": "c", "call": {"id": "3", "name": "mail", "args": {"n": 1}},
                "digest": "0".repeat(64), "why": "it mails", "asked": 1
            }});
            self.spoil(&mut record, 1);
            let key = Key::new().str(id).str("3").into_bytes();
            rows.push((APPROVALS, key, record.to_string().into()));
        }
    }
}

const EXTRA: [&str; 16] = [
    "facts",
    "compaction",
    "persona",
    "setup",
    "permissions",
    "limits",
    "ledgers",
    "parent",
    "depth",
    "loops",
    "output_schema",
    "schema_native",
    "forked",
    "heard",
    "microusd",
    "claims",
];

/// The JSON Pointers of all that is in a value.
fn collect(value: &Value, at: String, places: &mut Vec<String>) {
    places.push(at.clone());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| collect(v, format!("{at}/{key}"), places)),
        Value::Array(list) if at.len() < 200 => {
            list.iter().enumerate().for_each(|(n, v)| collect(v, format!("{at}/{n}"), places));
        }
        _ => {}
    }
}

fn header(id: &str) -> Value {
    json!({
        "run": id, "conversation": "c", "scope": "default", "model": "m", "started": 1_700_000_000_000_i64,
        "max_steps": 4, "from": 0, "base": 2, "opening": [said("user", "go")],
        "loops": {"nudge_at": 3, "stop_at": 6},
    })
}

fn said(role: &str, text: &str) -> Value {
    json!({"role": role, "parts": [{"type": "text", "text": text}]})
}

fn answered(message: &Value, finish: &str, claims: &Value, heard: u8) -> Value {
    let usage = json!({"input": 10, "output": 5, "cache_read": 0, "cache_write": 0, "reasoning": 0});
    json!({
        "entry": "model", "answer": {"message": message, "finish": finish, "usage": usage},
        "claims": claims, "heard": heard % 4, "microusd": 1
    })
}

/// The rows of the file.
fn rows(data: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    if data.starts_with(b"{") {
        for (line, n) in data.split(|b| *b == b'\n').zip(0u32..) {
            match n.checked_sub(1) {
                None => rows.push((RUNS, IDS[0].into(), line.into())),
                Some(n) => rows.push((ENTRIES, [IDS[0].as_bytes(), &n.to_be_bytes()].concat(), line.into())),
            }
        }
        rows.push((UNFINISHED, IDS[0].into(), Vec::new()));
        return rows;
    }
    let mut source = Source(data);
    let shape = source.byte();
    for id in &IDS[..=usize::from(shape % 3)] {
        source.run(id, &mut rows);
    }
    // The conversation before it, or less of it than the header says.
    for at in 0..u64::from(shape >> 6) {
        let message = if at % 2 == 0 { said("user", "before") } else { said("assistant", "yes") };
        rows.push((MESSAGES, Key::new().str("c").u64(at).into_bytes(), message.to_string().into()));
        rows.push((CONVERSATIONS, b"c".to_vec(), (at + 1).to_be_bytes().to_vec()));
    }
    rows
}

/// It ends in good time.
async fn soon<T>(what: &str, it: impl Future<Output = T>) -> T {
    match tokio::time::timeout(MOST_TIME, it).await {
        Ok(got) => got,
        Err(_) => panic!("{what} does not end"),
    }
}

/// The agent, and how often its model was asked.
async fn agent(store: &Store) -> (Zo, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = asked.clone();
    let model = Scripted::by_unrecorded(move |request| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let asked = request.messages.last().is_some_and(|m| m.role == Role::User);
        if asked && !request.tools.is_empty() {
            let id = format!("new{n}");
            return Turn::calls([(&*id, "look", json!({})), ("3", "mail", json!({"n": 1}))]);
        }
        Turn::text("{\"a\": 1}")
    });
    let skill = |name: &str, effect| tool(name, |_, _| async { Ok("now".into()) }).effect(effect);
    let zo = Zo::builder()
        .provider(model)
        .model("m")
        .store(store.clone())
        .recall_limit(0)
        .max_steps(MAX_STEPS)
        .tool_timeout(Duration::from_secs(1))
        .permissions(Permissions::default().rule(Rule::ask().tool("mail")))
        .skill(skill("look", Effect::Pure))
        .skill(skill("put", Effect::Idempotent))
        .skill(skill("mail", Effect::AtMostOnce))
        .build();
    (soon("to start", zo).await.expect("what a file holds keeps no agent from starting"), asked)
}

async fn go_through(data: &[u8]) {
    let rows = rows(data);
    let ids: Vec<RunId> = IDS.iter().map(|id| RunId::from(*id)).collect();
    let store = Store::in_memory().expect("memory");
    store.require_schema("agent.journal", 2, |_, _| unreachable!()).await.expect("new");
    store.require_schema("transcript", 1, |_, _| unreachable!()).await.expect("new");
    let put =
        move |tx: &mut zo_core::store::Tx<'_>| rows.iter().try_for_each(|(table, k, v)| tx.put(*table, k, v));
    store.write(put).await.expect("rows that fit");

    let (zo, asked) = agent(&store).await;
    let left = zo.unfinished().expect("a list, whatever is in it");
    assert!(left.iter().all(|u| u.damaged.is_none() || u.input.is_empty()));
    let byte = |n: usize| data.get(data.len().wrapping_sub(n + 1)).copied().unwrap_or(0);
    for id in &ids {
        // As it lies there.
        let replayed = soon("a replay", zo.replay(id)).await;
        for cursor in [
            "0.0.0".to_owned(),
            format!("{}.{}.{}", byte(0), byte(1), byte(2)),
            format!("{0}.{1}.{1}", u32::MAX, u64::MAX),
        ] {
            let mut stream = zo.attach(id, cursor.parse().expect("a cursor"));
            let mut events = 0;
            while let Some(event) = soon("to look on", stream.next()).await {
                events += 1;
                assert!(events < 5_000, "events without an end");
                let _ = stream.cursor().to_string();
                if event.is_err() {
                    break;
                }
            }
        }
        let steps = u32::from(byte(3) % 4);
        if let Ok(forked) = soon("a fork", zo.fork(id, steps, format!("fork of {id}"))).await {
            assert!(zo.unfinished().expect("a list").iter().any(|u| u.run == forked));
            let _ = soon("a fork's run", zo.resume(&forked).reply()).await;
        }
        let again = soon("a replay", zo.replay(id)).await;
        assert_eq!(again.is_ok(), replayed.is_ok(), "looking on changed the run");
        let (one, other) = (replayed.ok().map(|r| r.steps), again.ok().map(|r| r.steps));
        assert!(one == other, "looking on changed the run");
    }
    // It is in nobody else's way.
    let elsewhere = soon("another conversation", zo.ask("elsewhere", "and you?")).await;
    assert!(elsewhere.is_ok(), "{elsewhere:?}");
    for id in &ids {
        let _ = soon(&format!("to resume {id}"), zo.resume(id).reply()).await;
    }
    let _ = zo.ledgers();
    if let Ok(approvals) = zo.approvals() {
        for (n, approval) in approvals.iter().take(8).enumerate() {
            if (byte(4) >> n) & 1 == 0 {
                let _ = soon("a yes", zo.approve(approval, "ada")).await;
            } else {
                let _ = soon("a no", zo.deny(approval, "no", "ada")).await;
            }
        }
    }
    for id in &ids {
        let _ = soon(&format!("to resume {id}"), zo.resume(id).reply()).await;
    }
    let _ = soon("the next question", zo.ask("c", "and now?")).await;
    let _ = soon("the next question", zo.ask("d", "and now?")).await;
    drop(zo);

    let (zo, more) = agent(&store).await;
    let left = zo.unfinished().expect("a list, whatever is in it");
    for run in left.iter().map(|u| &u.run) {
        let given_up = soon("to give up", zo.abandon(run)).await;
        let there = zo.unfinished().expect("a list").iter().any(|u| u.run == *run);
        assert!(!there || given_up.is_err(), "given up, and there it is");
    }
    let _ = soon("to delete", zo.delete_conversation("c")).await;
    let asked = asked.load(Ordering::Relaxed) + more.load(Ordering::Relaxed);
    assert!(asked < MOST_ASKED, "{asked} questions to the model");
    drop(zo);
    soon("to close", store.close()).await.expect("closed");
}

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(go_through(data));
});
