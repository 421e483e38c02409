//! A reader of the store that knows nothing of the agent's code: rows of tables, as JSON. What a file says is checked against
//! itself, against what the killed children said aloud, and against the record that their tools left outside.

use crate::{
    child::{AT_MOST_ONCE, IDEMPOTENT, LEDGER, MODEL, PURE, question},
    tokens,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};
use zo_store::{Scan, Store, Table, key::Parts};

const RUNS: Table = Table::new("agent.runs");
const ENTRIES: Table = Table::new("agent.run_entries");
const UNFINISHED: Table = Table::new("agent.runs_unfinished");
const FINISHED: Table = Table::new("agent.runs_finished");
const OUTPUTS: Table = Table::new("agent.run_outputs");
const APPROVALS: Table = Table::new("agent.approvals");
const LEDGERS: Table = Table::new("agent.ledgers");
const COMPACTIONS: Table = Table::new("agent.compactions");
const MESSAGES: Table = Table::new("transcript.messages");
const CONVERSATIONS: Table = Table::new("transcript.conversations");

/// What the children said, over all their lives.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// Run -> its conversation and the name of its question.
    pub(crate) started: HashMap<String, (String, String)>,
    /// (run, call, nonce of its result).
    pub(crate) did: Vec<(String, String, String)>,
    pub(crate) done: HashMap<String, String>,
    pub(crate) asked: Vec<(String, String)>,
    pub(crate) decided: Vec<(String, String, String)>,
    /// (run, word), in the order in which they were said.
    pub(crate) said: Vec<(String, String)>,
    pub(crate) abandoned: Vec<String>,
    pub(crate) parked: usize,
    pub(crate) resumed: usize,
}

impl Acks {
    /// Takes a line of a child; gives it back if it tells of something that must not happen.
    pub(crate) fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let line = line.strip_prefix("! ")?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["started", run, conversation, name] => {
                self.started.insert((*run).into(), ((*conversation).into(), (*name).into()));
            }
            ["did", run, call, nonce] => self.did.push(((*run).into(), (*call).into(), (*nonce).into())),
            ["done", run, nonce] => drop(self.done.insert((*run).into(), (*nonce).into())),
            ["asked", run, call] => self.asked.push(((*run).into(), (*call).into())),
            ["decided", run, call, how] => {
                self.decided.push(((*run).into(), (*call).into(), (*how).into()));
            }
            ["said", run, _, word] => self.said.push(((*run).into(), (*word).into())),
            ["abandoned", run] => self.abandoned.push((*run).into()),
            ["parked", _] => self.parked += 1,
            ["resumed", _] => self.resumed += 1,
            ["compacted" | "overspent", _] | ["finished"] | ["at", ..] => {}
            _ => return Some(line),
        }
        None
    }
}

#[derive(Debug, Default)]
struct Run {
    header: Value,
    entries: Vec<(u32, Value)>,
    /// Calls of its answers: name by id.
    calls: HashMap<String, String>,
    claims: HashSet<String>,
    /// Results by the id of the call.
    results: HashMap<String, Value>,
    said: Vec<String>,
    end: Option<Value>,
    models: u64,
    microusd: u64,
    resumed: u64,
}

impl Run {
    fn conversation(&self) -> &str {
        self.header["conversation"].as_str().unwrap_or_default()
    }

    fn base(&self) -> u64 {
        self.header["base"].as_u64().unwrap_or_default()
    }

    /// Did its messages join the conversation?
    fn kept(&self) -> bool {
        match &self.end {
            None => false,
            Some(end) => end == "done" || end == "abandoned" || self.models > 0,
        }
    }

    fn spends_from(&self, ledger: &str) -> bool {
        self.header["ledgers"].as_array().is_some_and(|l| l.iter().any(|l| l == ledger))
    }
}

/// What was found, in numbers.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) runs: usize,
    pub(crate) ended: usize,
    pub(crate) children: usize,
    pub(crate) entries: usize,
    pub(crate) gaps: usize,
    pub(crate) unknown: usize,
    pub(crate) effects: usize,
    pub(crate) repeats: usize,
    pub(crate) compactions: usize,
    pub(crate) spilled: usize,
    pub(crate) said: usize,
    pub(crate) open: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    runs: BTreeMap<String, Run>,
    unfinished: HashMap<String, Vec<u8>>,
    finished: HashSet<String>,
    talks: BTreeMap<String, Vec<Value>>,
    lengths: HashMap<String, u64>,
    /// (run, call) -> the record.
    approvals: HashMap<(String, String), Value>,
    ledgers: HashMap<String, Value>,
    compactions: Vec<Value>,
    /// Id of the output -> its pages, the row with the length last.
    outputs: HashMap<String, Vec<Vec<u8>>>,
    problems: Vec<String>,
    counts: Counts,
}

macro_rules! must {
    ($book:expr, $that:expr, $($why:tt)*) => {
        if !$that {
            $book.problems.push(format!($($why)*));
        }
    };
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The texts of a message.
fn words(message: &Value) -> String {
    let parts = message["parts"].as_array().into_iter().flatten();
    parts.filter_map(|p| p["text"].as_str()).collect::<Vec<_>>().join("\n")
}

fn parts<'a>(message: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    message["parts"].as_array().into_iter().flatten().filter(move |p| p["type"] == kind)
}

impl Book {
    /// Reads a file that nobody has open.
    pub(crate) fn read(file: &Path) -> Self {
        let store = Store::open(file).unwrap_or_else(|e| panic!("the store cannot be opened: {e}"));
        let mut book = Self::default();
        let rows = |table| store.read(|s| s.collect(table, &Scan::all())).unwrap();
        let json = |row: &[u8]| serde_json::from_slice::<Value>(row).expect("a row is JSON");
        for (id, row) in rows(RUNS) {
            book.runs.insert(text(&id), Run { header: json(&row), ..Run::default() });
        }
        for (key, row) in rows(ENTRIES) {
            let (run, n) = key.split_at(key.len() - 4);
            let n = u32::from_be_bytes(n.try_into().unwrap());
            match book.runs.get_mut(&text(run)) {
                Some(run) => run.entries.push((n, json(&row))),
                None => book.problems.push(format!("entry {n} of a run without header: {}", text(run))),
            }
        }
        book.unfinished = rows(UNFINISHED).into_iter().map(|(id, state)| (text(&id), state)).collect();
        book.finished = rows(FINISHED).into_iter().map(|(id, _)| text(&id)).collect();
        for (key, row) in rows(MESSAGES) {
            let mut parts = Parts::of(&key);
            let (name, at) = (parts.str().unwrap().into_owned(), parts.u64().unwrap());
            let talk = book.talks.entry(name.clone()).or_default();
            must!(book, talk.len() as u64 == at, "conversation {name} has no message {}", talk.len());
            talk.push(json(&row));
        }
        book.lengths = rows(CONVERSATIONS)
            .into_iter()
            .map(|(n, l)| (text(&n), u64::from_be_bytes(l.try_into().unwrap())))
            .collect();
        for (key, row) in rows(APPROVALS) {
            let mut parts = Parts::of(&key);
            let key = (parts.str().unwrap().into_owned(), parts.str().unwrap().into_owned());
            book.approvals.insert(key, json(&row));
        }
        book.ledgers = rows(LEDGERS).into_iter().map(|(id, row)| (text(&id), json(&row))).collect();
        book.compactions = rows(COMPACTIONS).iter().map(|(_, row)| json(row)).collect();
        for (key, page) in rows(OUTPUTS) {
            let id = text(key.split(|b| *b == 0).next().unwrap());
            must!(book, key.len() == id.len() + 9, "the key of an output is not (id, offset): {key:?}");
            book.outputs.entry(id).or_default().push(page);
        }
        book
    }

    /// Everything that must hold after any kill. With `all_over` nothing may be left to do.
    pub(crate) fn check(mut self, acks: &Acks, outside: &str, all_over: bool) -> (Vec<String>, Counts) {
        let mut runs = std::mem::take(&mut self.runs);
        for (id, run) in &mut runs {
            self.fold(id, run);
        }
        self.lists(&runs, all_over);
        self.talks(&runs);
        self.acks(&runs, acks);
        self.outside(&runs, outside);
        self.money(&runs);
        self.counts.runs = runs.len();
        self.counts.ended = self.finished.len();
        self.counts.compactions = self.compactions.len();
        self.counts.open = self.unfinished.len();
        (self.problems, self.counts)
    }

    /// The entries of a run follow from each other.
    fn fold(&mut self, id: &str, run: &mut Run) {
        must!(self, run.header["run"] == id, "the header of {id} is another's");
        self.counts.children += usize::from(run.header["parent"].is_string());
        let mut open: HashSet<String> = HashSet::new();
        for (i, (n, entry)) in run.entries.iter().enumerate() {
            self.counts.entries += 1;
            let before = i.checked_sub(1).map(|b| run.entries[b].0);
            must!(self, before.is_none_or(|b| b < *n), "entry {n} of {id} comes after {before:?}");
            self.counts.gaps += usize::from(*n != before.map_or(0, |b| b + 1));
            must!(self, run.end.is_none(), "{id} goes on behind its end: {entry}");
            match entry["entry"].as_str().unwrap_or_default() {
                "model" => {
                    must!(self, open.is_empty(), "{id}: an answer while calls are open: {open:?}");
                    run.models += 1;
                    run.microusd += entry["microusd"].as_u64().unwrap_or_default();
                    for call in parts(&entry["answer"]["message"], "tool_call") {
                        let (call, name) = (call["id"].as_str().unwrap(), call["name"].as_str().unwrap());
                        must!(
                            self,
                            run.calls.insert(call.into(), name.into()).is_none(),
                            "{id}: two calls {call}"
                        );
                        open.insert(call.into());
                    }
                    for claim in entry["claims"].as_array().into_iter().flatten() {
                        run.claims.insert(claim["id"].as_str().unwrap().into());
                    }
                }
                "claimed" => {
                    let call = entry["claim"]["id"].as_str().unwrap();
                    must!(self, open.contains(call), "{id}: a claim of {call}, which is not open");
                    run.claims.insert(call.into());
                }
                "tool" => {
                    let result = entry["result"].clone();
                    let call = result["id"].as_str().unwrap().to_owned();
                    must!(self, open.remove(&call), "{id}: a result of {call}, which is not open: {result}");
                    let name = result["name"].as_str().unwrap_or_default();
                    let repeats = PURE.contains(&name) || IDEMPOTENT.contains(&name);
                    must!(
                        self,
                        !(repeats && result["status"] == "unknown"),
                        "{id}: {name} could have been repeated"
                    );
                    self.counts.unknown += usize::from(result["status"] == "unknown");
                    must!(
                        self,
                        run.results.insert(call.clone(), result).is_none(),
                        "{id}: two results of {call}"
                    );
                }
                "said" => {
                    self.counts.said += 1;
                    run.said.extend(tokens(&words(&entry["message"])).first().map(|w| (*w).to_owned()));
                }
                "end" => run.end = Some(entry["outcome"].clone()),
                "resumed" => run.resumed += 1,
                "compacted" | "shortened" | "stopped" | "asked" | "appending" => {}
                other => self.problems.push(format!("{id}: an entry {other:?}")),
            }
        }
        for claim in &run.claims {
            must!(self, run.calls.contains_key(claim), "{id}: a claim of {claim}, which nobody called");
        }
    }

    /// The lists of runs say what the runs say.
    fn lists(&mut self, runs: &BTreeMap<String, Run>, all_over: bool) {
        for (id, run) in runs {
            let (open, over) = (self.unfinished.contains_key(id), self.finished.contains(id));
            must!(self, open != over, "{id} is unfinished: {open}, finished: {over}");
            must!(self, over == run.end.is_some(), "{id} is finished: {over}, its end is {:?}", run.end);
            must!(self, !over || !self.ledgers.contains_key(id), "{id} is over, its ledger is not");
        }
        for id in self.unfinished.keys().chain(&self.finished) {
            must!(self, runs.contains_key(id), "{id} is listed and has no header");
        }
        for (run, call) in self.approvals.keys() {
            must!(self, self.unfinished.contains_key(run), "{run} is over, the approval of {call} is not");
        }
        if all_over {
            must!(self, self.unfinished.is_empty(), "not carried to their end: {:?}", self.unfinished.keys());
        }
    }

    /// Conversations are valid and are what their runs say, each once.
    fn talks(&mut self, runs: &BTreeMap<String, Run>) {
        let talks = std::mem::take(&mut self.talks);
        for (name, talk) in &talks {
            let length = self.lengths.get(name);
            must!(
                self,
                length == Some(&(talk.len() as u64)),
                "{name}: {} messages, length {length:?}",
                talk.len()
            );
            self.is_valid(name, talk);
            let mut kept: Vec<(&String, &Run)> = runs
                .iter()
                // Elsewhere the messages come before the end does.
                .filter(|(_, r)| r.conversation() == name)
                .filter(|(_, r)| r.kept() || (r.end.is_none() && r.base() < talk.len() as u64))
                .collect();
            kept.sort_by_key(|(_, r)| r.base());
            must!(
                self,
                kept.first().is_some_and(|(_, r)| r.base() == 0),
                "{name} begins with nobody's messages"
            );
            for (i, (id, run)) in kept.iter().enumerate() {
                let from = usize::try_from(run.base()).unwrap();
                let to = kept.get(i + 1).map_or(talk.len(), |(_, r)| usize::try_from(r.base()).unwrap());
                match talk.get(from..to) {
                    Some(part) if !part.is_empty() => self.is_of(id, run, part),
                    _ => self
                        .problems
                        .push(format!("{id} is over, and its messages {from}.. are not in {name}")),
                }
            }
        }
        for (id, run) in runs.iter().filter(|(_, r)| r.kept()) {
            must!(
                self,
                talks.contains_key(run.conversation()),
                "{id} is over, its conversation is not there"
            );
        }
        for c in &self.compactions {
            let length = self.lengths.get(c["conversation"].as_str().unwrap()).copied().unwrap_or_default();
            must!(self, c["upto"].as_u64().unwrap() <= length, "a summary of more than there is: {c}");
        }
        self.talks = talks;
    }

    fn is_valid(&mut self, name: &str, talk: &[Value]) {
        for (i, message) in talk.iter().enumerate() {
            let calls: Vec<_> = parts(message, "tool_call").map(|c| c["id"].clone()).collect();
            let next = talk.get(i + 1);
            let results: Vec<_> =
                next.into_iter().flat_map(|m| parts(m, "tool_result")).map(|r| r["id"].clone()).collect();
            must!(self, calls == results, "{name}: the calls {calls:?} have the results {results:?}");
            let role = message["role"].as_str().unwrap_or_default();
            must!(self, matches!(role, "user" | "assistant" | "tool"), "{name}: a message of {role:?}");
            let known: &[&str] = if role == "tool" { &["tool_result"] } else { &["text", "tool_call"] };
            for part in message["parts"].as_array().into_iter().flatten() {
                must!(self, known.contains(&part["type"].as_str().unwrap()), "{name}: {role} says {part}");
            }
        }
    }

    /// This part of a conversation is this run: every word of it once, nothing else.
    fn is_of(&mut self, id: &str, run: &Run, part: &[Value]) {
        must!(self, Some(&part[0]) == run.header["opening"].get(0), "{id} does not begin with its question");
        let questions = part.iter().filter(|m| m["role"] == "user" && question(&words(m)).is_some()).count();
        must!(self, questions == 1, "{id} asks {questions} questions");
        let of = |role: &str| -> Vec<String> {
            let all = part.iter().filter(|m| m["role"] == role).flat_map(|m| {
                let results = parts(m, "tool_result").filter_map(|r| r["content"].as_str());
                results
                    .chain([words(m).as_str()])
                    .flat_map(|t| tokens(t).first().map(|t| (*t).to_owned()))
                    .collect::<Vec<_>>()
            });
            all.collect()
        };
        let answers: Vec<String> = run
            .entries
            .iter()
            .filter(|(_, e)| e["entry"] == "model")
            .filter_map(|(_, e)| tokens(&words(&e["answer"]["message"])).first().map(|t| (*t).to_owned()))
            .collect();
        let there = of("assistant");
        must!(self, answers == there, "{id}: its answers are {answers:?}, in the conversation {there:?}");
        let there = of("user");
        must!(self, run.said == there, "{id}: it was told {:?}, in the conversation {there:?}", run.said);
        let mut results: Vec<String> = run
            .results
            .values()
            .filter_map(|r| tokens(r["content"].as_str().unwrap()).first().map(|t| (*t).to_owned()))
            .collect();
        let mut there = of("tool");
        results.sort();
        there.sort();
        must!(self, results == there, "{id}: its results are {results:?}, in the conversation {there:?}");
    }

    /// What was said aloud holds.
    fn acks(&mut self, runs: &BTreeMap<String, Run>, acks: &Acks) {
        for (id, (conversation, name)) in &acks.started {
            let asked = runs.get(id).is_some_and(|r| {
                r.conversation() == conversation
                    && question(&words(&r.header["opening"][0])).is_some_and(|(q, _)| q == name)
            });
            must!(self, asked, "LOST: {id} was started with {name}");
        }
        for (run, call, nonce) in &acks.did {
            let result = runs.get(run).and_then(|r| r.results.get(call));
            let same = result.is_some_and(|r| r["content"].as_str().is_some_and(|c| c.contains(nonce)));
            must!(self, same, "LOST: call {call} of {run} gave {nonce}; on record is {result:?}");
        }
        for (id, nonce) in &acks.done {
            let run = runs.get(id);
            must!(self, run.is_some_and(|r| r.end == Some("done".into())), "LOST: {id} was done");
            let talk = run.and_then(|r| self.talks.get(r.conversation()));
            let times =
                talk.into_iter().flatten().filter(|m| tokens(&words(m)).contains(&nonce.as_str())).count();
            must!(
                self,
                times == 1,
                "LOST: {id} was done; its answer {nonce} is in the conversation {times} times"
            );
        }
        for (run, call) in &acks.asked {
            let there =
                self.approvals.contains_key(&(run.clone(), call.clone())) || self.finished.contains(run);
            must!(self, there, "LOST: {run} asked about {call}");
        }
        for (run, call, how) in &acks.decided {
            let row = self.approvals.get(&(run.clone(), call.clone()));
            let decided = row.is_some_and(|r| {
                let d = &r["answer"]["decision"];
                if how == "allow" { d == "allow" } else { d["deny"].is_object() }
            });
            must!(self, decided || self.finished.contains(run), "LOST: {call} of {run} was decided: {how}");
        }
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (run, word) in &acks.said {
            let at = runs.get(run).and_then(|r| r.said.iter().position(|w| w == word));
            must!(self, at.is_some(), "LOST: {run} was told {word}");
            if let Some(at) = at {
                let before = last.insert(run, at);
                must!(self, before.is_none_or(|b| b < at), "{run} was told {word} too early");
            }
        }
        for run in &acks.abandoned {
            let gone = runs.get(run).is_some_and(|r| r.end == Some("abandoned".into()));
            must!(self, gone, "LOST: {run} was abandoned");
        }
        // A long output can be read on.
        for (id, run) in runs {
            for (call, result) in
                run.results.iter().filter(|(_, r)| r["name"] == "report" && r["status"] == "ok")
            {
                let pages = self.outputs.get(&format!("{id}/{call}"));
                let (length, whole) =
                    pages.and_then(|p| p.split_last()).map_or((0, String::new()), |(l, pages)| {
                        (u64::from_be_bytes(l.as_slice().try_into().unwrap()), text(&pages.concat()))
                    });
                let same = tokens(result["content"].as_str().unwrap()).first() == tokens(&whole).first();
                must!(
                    self,
                    same && whole.len() as u64 == length && length > 4_000,
                    "{id}: the output of {call} is cut"
                );
                self.counts.spilled += 1;
            }
        }
    }

    /// Nothing took effect that was not on record as begun, and nothing twice that must not.
    fn outside(&mut self, runs: &BTreeMap<String, Run>, outside: &str) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for line in outside.lines() {
            let [key, name, _] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
            let (run, call) = key.split_once('/').unwrap();
            let record = runs.get(run);
            let called = record.and_then(|r| r.calls.get(call)).is_some_and(|n| n == name);
            must!(self, called, "UNCLAIMED: {name} ran as {key}, and nobody is on record who called it");
            let claimed = record.is_some_and(|r| r.claims.contains(call));
            must!(self, claimed, "UNCLAIMED: {name} ran as {key} before that was on record");
            let times = seen.entry(key).or_default();
            *times += 1;
            let once = AT_MOST_ONCE.contains(&name);
            must!(self, !once || *times == 1, "REPEATED: {name} ran {times} times as {key}");
            self.counts.effects += usize::from(once);
            self.counts.repeats += usize::from(!once && *times > 1);
        }
    }

    /// The books balance.
    fn money(&mut self, runs: &BTreeMap<String, Run>) {
        let ledgers = std::mem::take(&mut self.ledgers);
        for (id, ledger) in &ledgers {
            let mine: Vec<&Run> = runs.values().filter(|r| r.spends_from(id)).collect();
            let sum = |f: &dyn Fn(&Run) -> u64| mine.iter().map(|r| f(r)).sum::<u64>();
            let by = |label: &str, what: &str| ledger["by"][label][what].as_u64().unwrap_or_default();
            let label = format!("model {MODEL}");
            let (steps, cost) = (sum(&|r| r.models), sum(&|r| r.microusd));
            let booked = (by(&label, "steps"), by(&label, "microusd"));
            must!(
                self,
                (steps, cost) == booked,
                "ledger {id}: {steps} answers for {cost} on record, {booked:?} booked"
            );
            let (lost, resumed) = (by("lost answers", "steps"), sum(&|r| r.resumed));
            must!(self, lost <= resumed, "ledger {id}: {lost} answers lost in {resumed} resumptions");
            for name in PURE.iter().chain(&IDEMPOTENT).chain(&AT_MOST_ONCE) {
                let ran = |r: &Value| {
                    r["name"] == *name
                        && r["status"] != "denied"
                        && r["status"] != "cancelled"
                        && !r["content"].as_str().unwrap().starts_with("supplied")
                };
                let ran = sum(&|r| r.results.values().filter(|r| ran(r)).count() as u64);
                let booked = by(&format!("tool {name}"), "tool_calls");
                must!(self, ran == booked, "ledger {id}: {name} ran {ran} times, {booked} times booked");
            }
            for what in ["steps", "tokens", "microusd", "tool_calls"] {
                let all: u64 = ledger["by"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter_map(|(_, s)| s[what].as_u64())
                    .sum();
                must!(self, ledger["spent"][what] == all, "ledger {id}: {what} do not add up: {ledger}");
            }
            // Answers that were lost are booked when they are found to be, whatever the limit.
            let limit = ledger["limits"]["steps"].as_u64().unwrap_or(u64::MAX);
            let summaries = by("summaries", "steps");
            must!(
                self,
                steps + summaries <= limit,
                "ledger {id}: {steps} + {summaries} steps, the limit is {limit}"
            );
        }
        must!(self, ledgers.contains_key(LEDGER) || runs.is_empty(), "the shared ledger is gone");
        for (id, run) in runs.iter().filter(|(_, r)| r.end.is_none()) {
            let own = run.header["limits"]["steps"].is_u64();
            must!(
                self,
                own == ledgers.contains_key(id),
                "{id}: has limits: {own}; its ledger is another matter"
            );
        }
        self.ledgers = ledgers;
    }
}
