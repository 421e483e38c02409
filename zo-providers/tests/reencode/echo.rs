//! Recorded answers in a conversation that goes on: with the provider that gave them, and with every other.
//!
//! What must go back verbatim is read from the recorded bytes, not from what our decoder made of them.

use super::{Case, json_of, row, violations};
use crate::tally::Tally;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use zo_providers::{
    Dialect, Family,
    wire::{
        Codec, Decoder, anthropic::Messages, encode, gemini::Generate, ollama::OllamaChat, openai_chat::Chat,
        openai_responses::Responses,
    },
};
use zo_traits::{Accumulator, FinishReason, Message, Request, Response, ToolResult, ToolSpec, ToolStatus};

/// Rows and models that a conversation may move to: of every wire one at least, of chat completions those that differ most.
const OTHERS: &[(&str, &str, &str)] = &[
    ("openai.chat", "openai", "gpt-5-mini"),
    ("openai.chat", "mistral", "mistral-small-latest"),
    ("openai.chat", "deepseek", "deepseek-flash"),
    ("openai.chat", "openrouter", "openrouter/auto"),
    ("openai.chat", "llamacpp", "m"),
    ("openai.responses", "openai-responses", "gpt-5-mini"),
    ("anthropic.messages", "anthropic", "claude-sonnet-4-6"),
    ("gemini.generate", "gemini", "gemini-2.5-flash"),
    ("gemini.generate", "gemini", "gemini-3-pro-preview"),
    ("ollama.chat", "ollama", "qwen3"),
    ("zo.ask", "zo", "m"),
];

/// Puts a recorded answer into conversations, and those on wires.
pub fn check(case: &Case, tally: &mut Tally) {
    let model = own_model(case);
    let Some(row) = row(&case.wire, &case.provider, &model) else { return };
    let Some(answer) = decoded(case, &row) else { return };
    let opaque = match row.family {
        Family::Anthropic => Opaque::of_anthropic(case),
        Family::Responses => Opaque::of_responses(case),
        Family::Gemini => Opaque::of_gemini(case),
        Family::Chat if row.replay_details => Opaque::of_details(case),
        _ => Opaque::default(),
    };
    for (how, request) in conversations(&answer) {
        let id = format!("echo/{}/{how}", case.id);
        let body = json_of(encode(&request, &model, &row));
        let why = body.map_or_else(
            |e| vec![e],
            |body| {
                let mut why: Vec<_> = violations(&row, &body).iter().map(ToString::to_string).collect();
                why.extend(opaque.missing(&body));
                why
            },
        );
        tally.add(&format!("{} to itself, {how}", case.wire), &id, why);
        for (wire, provider, model) in OTHERS {
            let Some(other) = super::row(wire, provider, model) else { continue };
            if (other.family, &other.id) == (row.family, &row.id) {
                continue;
            }
            let body = json_of(encode(&request, model, &other));
            let why = body.map_or_else(
                |e| vec![e],
                |body| {
                    let mut why: Vec<_> = violations(&other, &body).iter().map(ToString::to_string).collect();
                    why.extend(opaque.leaked(&body));
                    why
                },
            );
            tally.add(&format!("{} to {wire}", case.wire), &format!("{id}/{provider}/{model}"), why);
        }
    }
    if !opaque.is_empty() {
        tally.add(&format!("{} with something to bring back", case.wire), &case.id, Vec::new());
    }
}

fn own_model(case: &Case) -> String {
    if case.wire == "gemini.generate" {
        return super::gemini_model(&case.answer);
    }
    let named = case.asked.as_ref().and_then(|body| body["model"].as_str());
    named.unwrap_or("m").to_owned()
}

fn decoded(case: &Case, row: &Dialect) -> Option<Response> {
    fn run<C: Codec>(codec: C, case: &Case) -> Option<Response> {
        let (mut decoder, mut out) = (Decoder::new(codec), VecDeque::new());
        match case.kind.as_str() {
            "json" => decoder.whole(&case.answer, &mut out).ok()?,
            "sse" | "ndjson" => {
                decoder.feed(&case.answer, &mut out).ok()?;
                decoder.finish(&mut out).ok()?;
            }
            _ => return None,
        }
        let mut fold = Accumulator::default();
        out.into_iter().try_for_each(|event| fold.push(event)).ok()?;
        fold.finish().ok()
    }
    match row.family {
        Family::Anthropic => run(Messages::new(), case),
        Family::Responses => run(Responses::new(row.id.clone()), case),
        Family::Gemini => run(Generate::new(), case),
        Family::Ollama => run(OllamaChat::new().turn(1), case),
        _ => {
            let codec = Chat::new(row.id.clone());
            run(codec.keep_reasoning(row.replay_reasoning).keep_details(row.replay_details), case)
        }
    }
}

/// Conversations that an answer may be in.
fn conversations(answer: &Response) -> Vec<(&'static str, Request)> {
    let asked = [Message::system("be brief"), Message::user("go"), answer.message.clone()];
    let mut names = BTreeSet::new();
    let tools: Vec<ToolSpec> = answer
        .message
        .tool_calls()
        .filter(|call| names.insert(call.name.clone()))
        .map(|call| ToolSpec::new(call.name.clone(), "", json!({"type": "object", "properties": {}})))
        .collect();
    let results = |status: ToolStatus, text: &str| {
        Message::tool_results(
            answer.message.tool_calls().map(|call| ToolResult::new(call, status.clone(), text)),
        )
    };
    let request = |more: &[Message]| {
        Request::new("", asked.iter().cloned().chain(more.iter().cloned())).tools(tools.clone())
    };
    if answer.finish == FinishReason::Pause {
        return vec![("paused", request(&[])), ("then a question", request(&[Message::user("and?")]))];
    }
    if tools.is_empty() {
        let again = [Message::user("and?"), answer.message.clone(), Message::user("and now?")];
        return vec![("then a question", request(&again[..1])), ("twice", request(&again))];
    }
    let (done, failed) = (results(ToolStatus::Ok, "1"), results(ToolStatus::Error, ""));
    let end = [done.clone(), Message::assistant("done"), Message::user("and?")];
    vec![
        ("results", request(std::slice::from_ref(&done))),
        ("failures and a question", request(&[failed, Message::user("and?")])),
        ("results, then a question", request(&end)),
    ]
}

/// What a recorded answer holds that must come back as it is.
#[derive(Default)]
struct Opaque {
    /// Signatures and the like.
    texts: BTreeSet<String>,
    /// Whole blocks.
    blocks: Vec<Value>,
}

impl Opaque {
    fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.blocks.is_empty()
    }

    fn text(&mut self, value: &Value) {
        if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
            self.texts.insert(text.to_owned());
        }
    }

    fn of_anthropic(case: &Case) -> Self {
        let mut blocks: BTreeMap<u64, Value> = BTreeMap::new();
        if case.kind == "json" {
            let answer: Value = serde_json::from_slice(&case.answer).unwrap();
            blocks.extend(
                answer["content"].as_array().into_iter().flatten().cloned().zip(0..).map(|(b, n)| (n, b)),
            );
        }
        let mut inputs: BTreeMap<u64, String> = BTreeMap::new();
        for event in events(case) {
            let at = event["index"].as_u64().unwrap_or(0);
            if event["type"] == "content_block_start" {
                blocks.insert(at, event["content_block"].clone());
            }
            let (delta, Some(block)) = (&event["delta"], blocks.get_mut(&at)) else { continue };
            match delta["type"].as_str() {
                Some("input_json_delta") => {
                    inputs.entry(at).or_default().push_str(delta["partial_json"].as_str().unwrap());
                }
                Some("signature_delta") => {
                    let old = block["signature"].as_str().unwrap_or_default();
                    block["signature"] = format!("{old}{}", delta["signature"].as_str().unwrap()).into();
                }
                // As a whole, the summary of what came before.
                Some("compaction_delta") => block["content"] = delta["content"].clone(),
                Some("citations_delta") => {
                    let mut all = block["citations"].as_array().cloned().unwrap_or_default();
                    all.push(delta["citation"].clone());
                    block["citations"] = all.into();
                }
                _ => {}
            }
        }
        for (at, text) in inputs {
            if let Ok(input) = serde_json::from_str(&text) {
                blocks.get_mut(&at).unwrap()["input"] = input;
            }
        }
        let mut out = Self::default();
        // A call of the provider's own tools and its result go back together.
        let all: Vec<Value> = blocks.into_values().collect();
        let paired = |b: &Value| match (b["type"].as_str().unwrap(), &b["tool_use_id"]) {
            (_, id @ Value::String(_)) => all.iter().any(|call| call["id"] == *id),
            ("tool_use", _) => true,
            (kind, _) if kind.ends_with("tool_use") => all.iter().any(|r| r["tool_use_id"] == b["id"]),
            _ => true,
        };
        let mut back: Vec<&Value> = all.iter().filter(|b| paired(b)).collect();
        // Thoughts at the very end do not.
        while back.last().is_some_and(|b| b["type"].as_str().unwrap().ends_with("thinking")) {
            back.pop();
        }
        for block in back.into_iter().cloned() {
            match block["type"].as_str().unwrap() {
                "text" => out.blocks.extend(block["citations"].as_array().cloned().into_iter().flatten()),
                "thinking" => out.text(&block["signature"]),
                "tool_use" => {}
                _ => out.blocks.push(block),
            }
        }
        out
    }

    fn of_responses(case: &Case) -> Self {
        let items: Vec<Value> = if case.kind == "json" {
            let answer: Value = serde_json::from_slice(&case.answer).unwrap();
            answer["output"].as_array().cloned().unwrap_or_default()
        } else {
            events(case)
                .into_iter()
                .filter(|event| event["type"] == "response.output_item.done")
                .map(|event| event["item"].clone())
                .collect()
        };
        // A call of a tool that the host is to run does not go back without its output.
        let runs =
            |item: &Value| item["type"].as_str().unwrap().ends_with("_call") && item["call_id"].is_string();
        let answered = |call: &Value| {
            let output = format!("{}_output", call["type"].as_str().unwrap());
            items.iter().any(|item| item["type"] == output.as_str() && item["call_id"] == call["call_id"])
        };
        let own = |item: &&Value| item["type"] == "function_call" || !runs(item) || answered(item);
        let mut back: Vec<Value> = items.iter().filter(own).cloned().collect();
        // Nor does reasoning that led to nothing.
        while back.last().is_some_and(|item| item["type"] == "reasoning") {
            back.pop();
        }
        let mut out = Self::default();
        for item in back {
            match item["type"].as_str().unwrap() {
                "message" | "function_call" => {}
                "reasoning" => out.text(&item["encrypted_content"]),
                _ => out.blocks.push(item),
            }
        }
        out
    }

    fn of_gemini(case: &Case) -> Self {
        let mut answers = events(case);
        if case.kind == "json" {
            answers.push(serde_json::from_slice(&case.answer).unwrap());
        }
        let mut out = Self::default();
        for part in answers.iter().flat_map(|a| a["candidates"][0]["content"]["parts"].as_array()).flatten() {
            out.text(&part["thoughtSignature"]);
            if part["text"].is_null() && part["functionCall"].is_null() {
                out.blocks.push(part.clone());
            }
        }
        out
    }

    /// `reasoning_details`: signatures and encrypted data.
    fn of_details(case: &Case) -> Self {
        let mut answers = events(case);
        if case.kind == "json" {
            answers.push(serde_json::from_slice(&case.answer).unwrap());
        }
        let mut out = Self::default();
        for choice in answers.iter().flat_map(|a| a["choices"].as_array()).flatten() {
            for said in [&choice["delta"], &choice["message"]] {
                for detail in said["reasoning_details"].as_array().into_iter().flatten() {
                    out.text(&detail["signature"]);
                    out.text(&detail["data"]);
                }
            }
        }
        out
    }

    /// What is not in a body.
    fn missing(&self, body: &Value) -> Option<String> {
        let (mut texts, mut blocks) = (BTreeSet::new(), self.blocks.clone());
        walk(body, &mut |value| {
            if let Some(text) = value.as_str() {
                texts.insert(text.to_owned());
            }
            blocks.retain(|block| !same(block, value));
        });
        if let Some(block) = blocks.first() {
            return Some(format!("does not come back: {block:.400}"));
        }
        let gone = self.texts.iter().find(|text| !texts.contains(*text));
        gone.map(|text| format!("does not come back: {text:.100}"))
    }

    /// What another provider was told of it.
    fn leaked(&self, body: &Value) -> Option<String> {
        let body = body.to_string();
        let leaked = self.texts.iter().find(|text| text.len() > 20 && body.contains(text.as_str()));
        leaked.map(|text| format!("told to another provider: {text:.100}"))
    }
}

/// Equal but for nulls and what marks prompts to be kept.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let said = |m: &Map<String, Value>| {
                m.iter()
                    .filter(|(k, v)| !v.is_null() && *k != "cache_control")
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect::<BTreeMap<_, _>>()
            };
            let (a, b) = (said(a), said(b));
            a.len() == b.len() && a.iter().zip(&b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

fn walk(value: &Value, see: &mut impl FnMut(&Value)) {
    see(value);
    match value {
        Value::Object(map) => map.values().for_each(|v| walk(v, see)),
        Value::Array(items) => items.iter().for_each(|v| walk(v, see)),
        _ => {}
    }
}

/// The data of a stream's events.
fn events(case: &Case) -> Vec<Value> {
    if case.kind != "sse" {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&case.answer).into_owned();
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data.trim()).ok()).collect()
}
