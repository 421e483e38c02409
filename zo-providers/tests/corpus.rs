//! Recorded answers of real providers, served over a real socket and fed to the pure decoders in every disguise.
//!
//! The data is no part of this repository: it is looked for in `$ZO_CORPUS`, else beside the workspace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::result_large_err, clippy::collapsible_match)]

mod common;

use common::{Answer, Server, corpus};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::Path,
};
use zo_providers::{
    Anthropic, OpenAi,
    wire::{
        Codec, Decoder,
        anthropic::Messages,
        fault::{Class, classify},
        openai_chat::Chat,
        sse::Sse,
    },
};
use zo_traits::{
    Accumulator, Cx, Error, ErrorKind, FinishReason, Message, Part, Provider, Request, Result, StreamEvent,
    Timestamp, Usage,
};

struct Case {
    id: String,
    wire: String,
    kind: String,
    provider: String,
    status: u16,
    headers: Vec<(String, String)>,
    strict: bool,
    expect: Value,
    body: Vec<u8>,
}

/// The lines of this crate's wires; those of others are counted and left to their own crates and issues.
fn cases(root: &Path) -> Vec<Case> {
    let (mut out, mut skipped) = (Vec::new(), BTreeMap::<String, usize>::new());
    for line in
        std::fs::read_to_string(root.join("manifest.jsonl")).unwrap().lines().filter(|l| !l.trim().is_empty())
    {
        let v: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| v[key].as_str().unwrap_or_default().to_owned();
        let (wire, kind) = (text("wire"), text("kind"));
        if !matches!(wire.as_str(), "openai.chat" | "anthropic.messages")
            || !matches!(kind.as_str(), "json" | "sse" | "error")
        {
            *skipped.entry(format!("{wire} {kind}")).or_default() += 1;
            continue;
        }
        let body = std::fs::read(root.join(text("file"))).unwrap();
        let mut expect = v["expect"].clone();
        if text("provider") == "moonshotai" && expect["usage"].is_object() {
            // Moonshot counts its cache hits in a field of its own, which the manifest's decoder does not read.
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            if let Some(hits) = answer["usage"]["cached_tokens"].as_u64() {
                expect["usage"]["cache_read"] = hits.into();
            }
        }
        out.push(Case {
            id: text("id"),
            wire,
            kind,
            provider: text("provider"),
            status: v["status"].as_u64().unwrap_or(200) as u16,
            headers: v["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect(),
            strict: v["strict"].as_bool().unwrap_or(true),
            expect,
            body,
        });
    }
    for (what, n) in skipped {
        println!("skipped: {n} of {what}, a wire that this crate does not speak yet");
    }
    out
}

/// What a decoded answer says, in the words of the manifest.
#[derive(Debug, PartialEq, Clone)]
struct Said {
    message: Message,
    finish: FinishReason,
    usage: Usage,
}

impl Said {
    fn part_text(&self, pick: impl Fn(&Part) -> Option<&str>) -> String {
        self.message.parts.iter().filter_map(pick).collect()
    }
}

fn reasoning(p: &Part) -> Option<&str> {
    if let Part::Reasoning(t) = p { Some(&t.text) } else { None }
}

fn refusal(p: &Part) -> Option<&str> {
    if let Part::Refusal(t) = p { Some(&t.text) } else { None }
}

/// Outcome of an answer: what it says, or the error and what had come before it.
type Outcome = std::result::Result<Said, (Error, Message)>;

fn fold(events: impl IntoIterator<Item = Result<StreamEvent>>) -> Outcome {
    let mut acc = Accumulator::default();
    for event in events {
        if let Err(e) = event.and_then(|e| acc.push(e)) {
            return Err((e, acc.partial()));
        }
    }
    let partial = acc.partial();
    match acc.finish() {
        Ok(r) => Ok(Said { message: r.message, finish: r.finish, usage: r.usage }),
        Err(e) => Err((e, partial)),
    }
}

/// Feeds pieces to the pure decoder of a wire.
fn decode<'p>(wire: &str, provider: &str, pieces: impl IntoIterator<Item = &'p [u8]>) -> Outcome {
    fn run<'p, C: Codec>(codec: C, pieces: impl IntoIterator<Item = &'p [u8]>) -> Outcome {
        let (mut decoder, mut out) = (Decoder::new(codec), VecDeque::new());
        let mut result = Ok(());
        for piece in pieces {
            result = decoder.feed(piece, &mut out);
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            result = decoder.finish(&mut out);
        }
        fold(out.into_iter().map(Ok).chain(result.err().map(Err)))
    }
    if wire == "anthropic.messages" {
        run(Messages::new(), pieces)
    } else {
        run(Chat::new(provider.to_owned()), pieces)
    }
}

/// The finish reason that the manifest means.
fn finish_agrees(expect: &Value, got: &FinishReason, calls: bool) -> bool {
    let (name, raw) = (expect["finish"].as_str(), expect["finish_raw"].as_str().unwrap_or_default());
    match name {
        // Whoever calls tools waits for their results, even if it says "stop" or nothing at all.
        Some("stop") if calls => matches!(got, FinishReason::Stop | FinishReason::ToolCalls),
        None | Some("other") if raw.is_empty() => {
            *got == if calls { FinishReason::ToolCalls } else { FinishReason::Stop }
        }
        Some("stop") => *got == FinishReason::Stop,
        Some("length") => *got == FinishReason::Length,
        Some("tool_use") => *got == FinishReason::ToolCalls,
        Some("content_filter") => *got == FinishReason::ContentFilter,
        Some("refusal") => *got == FinishReason::Refusal,
        Some("pause") => *got == FinishReason::Pause,
        Some("other") => matches!(got, FinishReason::Other(_) | FinishReason::Pause),
        _ => false,
    }
}

fn class_kind(class: &str) -> ErrorKind {
    match class {
        "auth" => ErrorKind::Unauthorized,
        "permission" => ErrorKind::Denied,
        "rate_limit" => ErrorKind::RateLimited,
        "quota" => ErrorKind::Exhausted,
        "context_length" => ErrorKind::ContextOverflow,
        "overloaded" | "server" | "tool_use_failed" => ErrorKind::Unavailable,
        "timeout" => ErrorKind::Timeout,
        "invalid_request" | "content_filter" | "request_too_large" => ErrorKind::Invalid,
        "not_found" => ErrorKind::NotFound,
        "unsupported" => ErrorKind::Unsupported,
        "conflict" => ErrorKind::Conflict,
        other => panic!("unknown class {other}"),
    }
}

/// What differs from the manifest; empty when nothing does.
fn differences(expect: &Value, outcome: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    let mut differ = |what: &str, want: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug| {
        out.push(format!("{what}: expected {want:.300?}, got {got:.300?}"));
    };
    let want = |key: &str| expect[key].as_str().unwrap_or_default().to_owned();
    let failed = expect["error"].is_object() || expect["complete"] == false;
    let said = match outcome {
        Ok(_) if failed => {
            differ("outcome", &"an error", &"success");
            return out;
        }
        Ok(said) => said.clone(),
        Err((e, _)) if !failed => {
            differ("outcome", &"success", e);
            return out;
        }
        Err((e, partial)) => {
            let code = expect["error"]["code"].as_str();
            match expect["error"]["class"].as_str() {
                // The manifest goes by status here; the documented errors call this a bad sample, which may be drawn again.
                _ if code == Some("tool_use_failed") => {
                    if e.kind() != ErrorKind::Unavailable {
                        differ("error", &"unavailable", e);
                    }
                }
                Some(class) if e.kind() != class_kind(class) => differ("error", &class, e),
                None if !matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable) => {
                    differ("error", &"cut or unavailable", e);
                }
                _ => {}
            }
            if expect["text"].is_null() {
                return out;
            }
            Said { message: partial.clone(), finish: FinishReason::Stop, usage: Usage::default() }
        }
    };
    for (key, got) in [
        ("text", said.message.to_text()),
        ("reasoning", said.part_text(reasoning)),
        ("refusal", said.part_text(refusal)),
    ] {
        if want(key) != got {
            differ(key, &want(key), &got);
        }
    }
    if failed {
        return out;
    }
    let calls: Vec<_> = said.message.tool_calls().collect();
    let wanted = expect["tool_calls"].as_array().cloned().unwrap_or_default();
    let same = calls.len() == wanted.len()
        && calls.iter().zip(&wanted).all(|(got, want)| {
            let id = want["id"].as_str().unwrap_or_default();
            (if id.is_empty() { !got.id.is_empty() } else { got.id == id })
                && want["name"] == got.name.as_str()
                && if want["valid_json"] == false {
                    !got.args.is_object()
                } else {
                    want["arguments"] == got.args
                }
        });
    if !same {
        differ("tool_calls", &expect["tool_calls"].to_string(), &calls);
    }
    if !finish_agrees(expect, &said.finish, !calls.is_empty()) {
        differ("finish", &(&expect["finish"], &expect["finish_raw"]), &said.finish);
    }
    let count = |key: &str| expect["usage"][key].as_u64().unwrap_or(0);
    let mut usage = Usage::new(count("input"), count("output"));
    (usage.cache_read, usage.cache_write, usage.reasoning) =
        (count("cache_read"), count("cache_write"), count("reasoning"));
    if usage != said.usage {
        differ("usage", &usage, &said.usage);
    }
    out
}

/// Counts by group, and what failed.
#[derive(Default)]
struct Tally {
    groups: BTreeMap<String, (usize, usize)>,
    failed: Vec<(String, String)>,
}

impl Tally {
    fn add(&mut self, group: &str, id: &str, why: Vec<String>) {
        let entry = self.groups.entry(group.to_owned()).or_default();
        if why.is_empty() {
            entry.0 += 1;
        } else {
            entry.1 += 1;
            self.failed.push((id.to_owned(), why.join("; ")));
        }
    }

    /// Prints the counts and fails on everything that is not known to fail.
    fn judge(self) {
        let known: HashMap<&str, &str> = include_str!("known-failures.txt")
            .lines()
            .filter(|l| !l.starts_with('#'))
            .filter_map(|l| l.split_once(char::is_whitespace))
            .collect();
        let (mut passed, mut failed) = (0, 0);
        for (group, (p, f)) in &self.groups {
            println!("{group}: {p} passed, {f} failed");
            (passed, failed) = (passed + p, failed + f);
        }
        println!("all: {passed} passed, {failed} failed");
        let new: Vec<_> = self.failed.iter().filter(|(id, _)| !known.contains_key(id.as_str())).collect();
        for (id, why) in &self.failed {
            println!(
                "  {id}: {why}{}",
                known.get(id.as_str()).map(|k| format!(" (known: {k})")).unwrap_or_default()
            );
        }
        assert!(passed > 0, "nothing was tested");
        assert!(new.is_empty(), "{} cases fail that are not known to: {new:#?}", new.len());
    }
}

async fn ask(provider: &dyn Provider) -> Outcome {
    let cx = Cx::new("corpus").with_timeout(std::time::Duration::from_secs(20));
    let request = Request::new("m", [Message::user("hello")]);
    let mut stream = match provider.stream(&cx, &request).await {
        Ok(stream) => stream,
        Err(e) => return Err((e, Message::assistant(""))),
    };
    let mut events = Vec::new();
    while let Some(event) = std::future::poll_fn(|task| stream.as_mut().poll_next(task)).await {
        events.push(event);
    }
    fold(events)
}

fn provider(wire: &str, id: &str, base: &str, case: usize) -> Box<dyn Provider> {
    if wire == "anthropic.messages" {
        Box::new(Anthropic::new("sk-test-0123456789").base_url(&format!("{base}/{case}/v1")))
    } else {
        let key = Some("sk-test-0123456789".into());
        Box::new(OpenAi::compatible(id, &format!("{base}/{case}"), key))
    }
}

/// Asks for each answer in turn; a few at once.
async fn over_socket(asked: Vec<(String, String, Answer)>) -> Vec<Outcome> {
    let answers = asked.iter().enumerate().map(|(n, (_, _, a))| (n.to_string(), a.clone())).collect();
    let server = Server::cases(answers).await;
    let mut tasks = Vec::new();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(8));
    for (n, (wire, id, _)) in asked.into_iter().enumerate() {
        let (base, gate) = (server.base.clone(), gate.clone());
        tasks.push(tokio::spawn(async move {
            let _turn = gate.acquire().await.unwrap();
            ask(&*provider(&wire, &id, &base, n)).await
        }));
    }
    let mut out = Vec::new();
    for task in tasks {
        out.push(task.await.unwrap());
    }
    out
}

const HOSTILE: &[usize] = &[1, 2, 61, 3, 7, 1, 400, 5, 13, 1, 1, 1, 1000];

fn answer(case: &Case) -> Answer {
    let mut answer = Answer::new(case.status, "", case.body.clone()).pieces(HOSTILE);
    answer.headers = case.headers.clone();
    answer
        .headers
        .retain(|(k, _)| !matches!(k.as_str(), "content-length" | "transfer-encoding" | "content-encoding"));
    if !answer.headers.iter().any(|(k, _)| k == "content-type") {
        let kind = if case.kind == "sse" { "text/event-stream" } else { "application/json" };
        answer.headers.push(("content-type".into(), kind.into()));
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_answers_over_a_socket() {
    let Some(root) = corpus("providers") else { return };
    let cases = cases(&root);
    let asked = cases.iter().map(|c| (c.wire.clone(), c.provider.clone(), answer(c))).collect();
    let mut tally = Tally::default();
    for (case, outcome) in cases.iter().zip(over_socket(asked).await) {
        // Several messages in one stream, or lines that are no JSON: they must not panic, and that is all.
        let why = if case.strict { differences(&case.expect, &outcome) } else { Vec::new() };
        let group = format!("{} {}{}", case.wire, case.kind, if case.strict { "" } else { " (not strict)" });
        tally.add(&group, &case.id, why);
    }
    tally.judge();
}

/// The same stream in disguise: every one must decode alike.
fn disguises(body: &[u8], ends_without_done: bool) -> Vec<(&'static str, Vec<u8>)> {
    let text = String::from_utf8(body.to_vec()).unwrap().replace("\r\n", "\n");
    let mut out = vec![
        ("CRLF", text.replace('\n', "\r\n").into_bytes()),
        ("CR", text.replace('\n', "\r").into_bytes()),
        (
            "comments between events",
            format!(": hi\n\n{}", text.replace("\n\n", "\n\n: ping\n\n:\n\n")).into_bytes(),
        ),
        ("comments inside events", text.replace("data:", ": ping\ndata:").into_bytes()),
        ("byte order mark", [b"\xEF\xBB\xBF".as_slice(), text.as_bytes()].concat()),
        ("no blank line at the end", text.trim_end().as_bytes().to_vec()),
        ("no space after the colon", text.replace("data: ", "data:").into_bytes()),
        ("ids and retries", text.replace("data:", "id: 7\nretry: 10\ndata:").into_bytes()),
    ];
    if ends_without_done {
        out.push(("no [DONE]", text.replace("data: [DONE]", "").into_bytes()));
    }
    out
}

#[test]
fn recorded_streams_in_every_disguise() {
    let Some(root) = corpus("providers") else { return };
    let mut tally = Tally::default();
    for case in cases(&root).iter().filter(|c| c.kind == "sse") {
        let plain = decode(&case.wire, &case.provider, [&case.body[..]]);
        let mut check = |how: &str, outcome: Outcome| {
            let same = match (&plain, &outcome) {
                (Ok(a), Ok(b)) => a == b,
                (Err((a, x)), Err((b, y))) => a.kind() == b.kind() && x == y,
                _ => false,
            };
            let why = if same { vec![] } else { vec![format!("under {how}: {outcome:.400?}")] };
            tally.add(&format!("{} {how}", case.wire), &case.id, why);
        };
        for size in [1usize, 2, 3, 61, 1021] {
            check("other pieces", decode(&case.wire, &case.provider, case.body.chunks(size)));
        }
        let finishes = case.wire == "anthropic.messages"
            || case.expect["finish_raw"].as_str().is_some_and(|f| !f.is_empty());
        for (how, bytes) in disguises(&case.body, finishes && case.expect["complete"] == true) {
            check(how, decode(&case.wire, &case.provider, [&bytes[..]]));
            check(how, decode(&case.wire, &case.provider, bytes.chunks(1)));
        }
    }
    tally.judge();
}

/// Where the end of an answer begins: the line that carries its terminal.
fn terminal(case: &Case) -> Option<usize> {
    let mut at = 0;
    for line in case.body.split_inclusive(|b| *b == b'\n') {
        if let Some(data) = line.strip_prefix(b"data:") {
            let v: Value = serde_json::from_slice(data).unwrap_or_default();
            let ends = if case.wire == "anthropic.messages" {
                v["type"] == "message_stop"
            } else {
                v["choices"].as_array().is_some_and(|c| {
                    c.iter().any(|c| c["finish_reason"].as_str().is_some_and(|f| !f.is_empty()))
                }) || data.trim_ascii() == b"[DONE]"
            };
            if ends {
                return Some(at);
            }
        }
        at += line.len();
    }
    None
}

/// Places to cut: around every line end, and a spread of others.
fn cuts(body: &[u8], end: usize, most: usize) -> Vec<usize> {
    let lines =
        body[..end].iter().enumerate().filter(|(_, b)| **b == b'\n').flat_map(|(n, _)| [n, n + 1, n + 2]);
    let spread = (0..97).map(|n| end * n / 97);
    let mut all: Vec<usize> = lines.chain(spread).filter(|n| *n <= end).collect();
    all.sort_unstable();
    all.dedup();
    let step = all.len().div_ceil(most).max(1);
    all.into_iter().step_by(step).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_answer_is_never_a_success() {
    let Some(root) = corpus("providers") else { return };
    let (mut tally, mut asked, mut ids) = (Tally::default(), Vec::new(), Vec::new());
    for case in cases(&root).iter().filter(|c| c.kind == "sse" && c.strict && c.expect["complete"] == true) {
        let Some(end) = terminal(case) else { panic!("{} has no end", case.id) };
        let whole = case.expect["text"].as_str().unwrap_or_default();
        for cut in cuts(&case.body, end, 150) {
            let mut why = Vec::new();
            match decode(&case.wire, &case.provider, [&case.body[..cut]]) {
                Ok(_) => why.push(format!("cut at {cut} of {end}: taken for whole")),
                Err((e, partial)) => {
                    if !matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable) {
                        why.push(format!("cut at {cut}: {e:?}"));
                    }
                    if !whole.starts_with(&partial.to_text()) {
                        why.push(format!("cut at {cut}: what came before is not kept"));
                    }
                }
            }
            tally.add(&format!("{} cut, pure", case.wire), &case.id, why);
        }
        for cut in cuts(&case.body, end, 3) {
            let mut answer = answer(case);
            // Half of them end in good order, half with a broken connection.
            if cut % 2 == 0 {
                answer.body.truncate(cut);
            } else {
                answer = answer.then(cut, common::Then::Close);
            }
            asked.push((case.wire.clone(), case.provider.clone(), answer));
            ids.push(case.id.clone());
        }
    }
    for (id, outcome) in ids.iter().zip(over_socket(asked).await) {
        let why = if outcome.is_ok() { vec!["cut over the socket: taken for whole".into()] } else { vec![] };
        tally.add("cut, over a socket", id, why);
    }
    tally.judge();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_errors() {
    let Some(root) = corpus("providers") else { return };
    let Ok(lines) = std::fs::read_to_string(root.join("errors_documented.jsonl")) else {
        println!("SKIPPED: no errors_documented.jsonl in {}", root.display());
        return;
    };
    let (mut tally, mut asked, mut wanted) = (Tally::default(), Vec::new(), Vec::new());
    for line in lines.lines().filter(|l| !l.trim().is_empty()) {
        let v: Value = serde_json::from_str(line).unwrap();
        let wire = v["wire"].as_str().unwrap().to_owned();
        let id = v["id"].as_str().unwrap().to_owned();
        let expect = v["expect"]["error"].clone();
        let status = v["status"].as_u64().unwrap() as u16;
        let body = v["body"].as_str().unwrap();
        let headers: Vec<(String, String)> = v["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
            .collect();
        let streamed = headers
            .iter()
            .any(|(k, v)| k == "content-type" && (v.contains("event-stream") || v.contains("ndjson")));
        if !streamed {
            // The classification is for every wire.
            let fault = classify(
                status,
                |name| headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()),
                body,
                Timestamp(1_790_000_000_000),
            );
            let mut why = Vec::new();
            let wait = fault.retry_after.map(|d| d.as_millis() as u64);
            if expect["class"] != fault.class.as_str() {
                why.push(format!("class {} instead of {}", fault.class.as_str(), expect["class"]));
            }
            if expect["retryable"] != fault.retryable {
                why.push(format!("retryable: {}", fault.retryable));
            }
            if expect["retry_after_ms"].as_u64() != wait {
                why.push(format!("retry after {wait:?} ms instead of {}", expect["retry_after_ms"]));
            }
            if expect["retryable"] != fault.clone().into_error("t").is_retryable() {
                why.push(format!("as an error: {:?}", fault.kind()));
            }
            tally.add(&format!("{wire} classified"), &id, why);
        }
        if matches!(wire.as_str(), "openai.chat" | "anthropic.messages") {
            let mut answer = Answer::new(status, "", body).pieces(HOSTILE);
            answer.headers = headers;
            asked.push((wire.clone(), v["provider"].as_str().unwrap().to_owned(), answer));
            wanted.push((wire, id, expect));
        }
    }
    for ((wire, id, expect), outcome) in wanted.into_iter().zip(over_socket(asked).await) {
        let mut why = Vec::new();
        match outcome {
            Ok(_) => why.push("taken for a success".into()),
            Err((e, _)) => {
                let class = expect["class"].as_str().unwrap();
                // Where the server overrules its class's habit of retrying, the error obeys the server.
                let overruled = e.kind() != class_kind(class) && id.contains("shouldretry");
                if e.kind() != class_kind(class) && !overruled {
                    why.push(format!("{class} became {e:?}"));
                }
                if expect["retryable"] != e.is_retryable() {
                    why.push(format!("retryable: {e:?}"));
                }
                if expect["retry_after_ms"].as_u64() != e.retry_after().map(|d| d.as_millis() as u64) {
                    why.push(format!("retry after: {e:?}"));
                }
            }
        }
        tally.add(&format!("{wire} over a socket"), &id, why);
    }
    assert_eq!(Class::Quota.as_str(), "quota");
    tally.judge();
}

#[test]
fn sse_vectors_under_every_split() {
    let Some(root) = corpus("providers") else { return };
    let Ok(text) = std::fs::read_to_string(root.join("sse_vectors.json")) else {
        println!("SKIPPED: no sse_vectors.json in {}", root.display());
        return;
    };
    let all: Value = serde_json::from_str(&text).unwrap();
    let mut tally = Tally::default();
    for vector in all["vectors"].as_array().unwrap() {
        let bytes = base64(vector["raw_b64"].as_str().unwrap());
        let expect = vector.get("expect_lenient").unwrap_or(&vector["expect"]);
        let want: Vec<(String, String)> = expect
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["event"].as_str().unwrap().to_owned(), e["data"].as_str().unwrap().to_owned()))
            .collect();
        let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut sse, mut got) = (Sse::new(), Vec::new());
            let mut sink = |n: &str, d: &str| {
                got.push((n.to_owned(), d.to_owned()));
                Ok(())
            };
            for piece in pieces {
                sse.feed(piece, &mut sink).unwrap();
            }
            sse.finish(&mut sink).unwrap();
            got
        };
        let mut why = Vec::new();
        // Every way to cut a short text in three; a long one in two, around every 97th byte.
        let step = if bytes.len() > 200 { 97 } else { 1 };
        for a in (0..=bytes.len()).step_by(step) {
            for b in (a..=bytes.len()).step_by(if step > 1 { bytes.len() } else { 1 }) {
                if run(&mut [&bytes[..a], &bytes[a..b], &bytes[b..]].into_iter()) != want {
                    why.push(format!("cut at {a} and {b}"));
                }
            }
        }
        if run(&mut bytes.chunks(1)) != want {
            why.push("byte by byte".into());
        }
        why.truncate(3);
        tally.add("sse vectors", vector["id"].as_str().unwrap(), why);
    }
    tally.judge();
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'=').map(digit).collect();
    digits
        .chunks(4)
        .flat_map(|c| {
            let n = c.iter().fold(0u32, |n, d| n << 6 | u32::from(*d)) << (6 * (4 - c.len()));
            n.to_be_bytes()[1..c.len()].to_vec()
        })
        .collect()
}
