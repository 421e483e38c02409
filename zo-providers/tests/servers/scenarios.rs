//! The scenarios, each written once for every server and wire.

use super::{journal, rows::Row, tap::Tap};
use serde_json::{Value, json};
use std::{future::poll_fn, time::Duration};
use zo_providers::Remote;
use zo_traits::{
    Accumulator, BoxStream, Cx, Embedder, Error, ErrorKind, FinishReason, Media, MediaSource, Message, Part,
    Provider, ProviderExt, Request, Response, Result, StreamEvent, ToolCall, ToolChoice, ToolResult,
    ToolSpec, ToolStatus,
};

/// Long enough for a busy machine; nothing waits for it unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

async fn next(stream: &mut BoxStream<Result<StreamEvent>>) -> Option<Result<StreamEvent>> {
    poll_fn(|task| stream.as_mut().poll_next(task)).await
}

/// An answer as it came: how many pieces of text, and what they are together.
async fn streamed(provider: &dyn Provider, cx: &Cx, request: &Request) -> (usize, Response) {
    let mut stream = provider.stream(cx, request).await.unwrap();
    let (mut acc, mut pieces) = (Accumulator::default(), 0);
    while let Some(event) = next(&mut stream).await {
        let event = event.unwrap();
        pieces += usize::from(matches!(event, StreamEvent::Delta { .. }));
        acc.push(event).unwrap();
    }
    (pieces, acc.finish().unwrap())
}

/// What an answer says, without what a server makes up anew each time.
fn said(answer: &Response) -> (Vec<(&'static str, String)>, &FinishReason, u64, u64) {
    let parts = answer.message.parts.iter().map(|part| match part {
        Part::Text(t) => ("text", t.text.clone()),
        Part::Reasoning(t) => ("reasoning", t.text.clone()),
        Part::ToolCall(call) => ("call", format!("{} {}", call.name, call.args)),
        other => ("other", format!("{other:?}")),
    });
    (parts.collect(), &answer.finish, answer.usage.input, answer.usage.output)
}

/// The same request for an answer in one piece.
fn whole(ask: &Request) -> Request {
    let mut ask = ask.clone();
    ask.whole = true;
    ask
}

fn weather() -> ToolSpec {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"], "additionalProperties": false});
    ToolSpec::new("get_weather", "The weather of a city.", schema)
}

/// A question that wants the tool.
fn ask_weather(row: &Row, text: &str) -> Request {
    let mut ask = row.ask(text).tools([weather()]);
    if !row.is_mock() {
        // The examples in the server's template work only right before the question.
        ask.messages.remove(0);
        ask.tool_choice = ToolChoice::Required;
    }
    ask.max_tokens = Some(96);
    ask
}

fn asks_for_results(row: &Row, answer: &Response) {
    match row.wire.name {
        // aimock's own word, which Google's API does not know.
        "gemini" => assert!(
            matches!(&answer.finish, FinishReason::ToolCalls)
                || answer.finish == FinishReason::Other("FUNCTION_CALL".into()),
            "{:?}",
            answer.finish
        ),
        _ => assert_eq!(answer.finish, FinishReason::ToolCalls),
    }
}

fn calls(answer: &Response) -> Vec<ToolCall> {
    answer.message.tool_calls().cloned().collect()
}

pub(crate) async fn plain(row: &Row) {
    let (remote, mut ask) = (row.remote(), row.ask("Name three colours."));
    let (pieces, answer) = streamed(&remote, &row.cx(), &ask).await;
    assert!(pieces > 2, "it came in pieces: {pieces}");
    assert_eq!(remote.complete(&row.cx(), &ask).await.unwrap().message.to_text(), answer.message.to_text());
    ask.whole = true;
    let (_, whole) = streamed(&remote, &row.cx(), &ask).await;
    assert_eq!(said(&whole), said(&answer));
    if row.is_mock() {
        assert_eq!(
            (answer.message.to_text().as_str(), &answer.finish),
            ("Red, green and blue: naïve, übermäßig, 色 and 🎨 as well.", &FinishReason::Stop)
        );
    } else {
        assert!(!answer.message.to_text().trim().is_empty());
        // Over Responses, the server begins without saying who speaks.
        assert_eq!(answer.model.as_deref(), (row.wire.name != "responses").then_some(row.model()));
    }
}

pub(crate) async fn conversation(row: &Row) {
    let remote = row.remote();
    let mut ask = row.ask("My name is Ada, and I am 36.");
    // aimock answers only if it sees as many answers before as there were, below the system text.
    ask.messages.extend([Message::assistant("Hello, Ada."), Message::user("What is my name?")]);
    let answer = remote.complete(&row.cx(), &ask).await.unwrap();
    let first = answer.message.to_text();
    ask.messages.extend([answer.message, Message::user("And how old am I?")]);
    let second = remote.complete(&row.cx(), &ask).await.unwrap();
    if row.is_mock() {
        assert_eq!((first.as_str(), second.message.to_text().as_str()), ("Ada.", "Thirty-six."));
    } else {
        assert!(!first.trim().is_empty() && !second.message.to_text().trim().is_empty());
        assert!(
            second.usage.input > answer.usage.input + answer.usage.output,
            "the longer the talk, the more to read"
        );
    }
}

pub(crate) async fn tool_call(row: &Row) {
    let remote = row.remote();
    let mut ask = ask_weather(row, "What is the weather in Paris?");
    let (_, answer) = streamed(&remote, &row.cx(), &ask).await;
    let call = calls(&answer).pop().expect("a call");
    assert_eq!(call.name, "get_weather");
    assert!(call.args["city"].is_string() && !call.id.is_empty(), "{call:?}");
    asks_for_results(row, &answer);
    assert_eq!(said(&remote.complete(&row.cx(), &whole(&ask)).await.unwrap()), said(&answer));
    if row.is_mock() {
        assert_eq!(call.args, json!({"city": "Paris", "note": "\"ü\" \\ {}"}));
    }
    if !row.is_mock() {
        ask.tool_choice = ToolChoice::None;
    }
    ask.messages.push(answer.message);
    ask.messages.push(Message::tool_results([ToolResult::new(&call, ToolStatus::Ok, "Sunny, 21 degrees.")]));
    let after = remote.complete(&row.cx(), &ask).await.unwrap();
    assert!(!after.message.to_text().trim().is_empty(), "{after:?}");
    if row.is_mock() {
        assert_eq!(after.message.to_text(), "It is sunny in Paris.");
    }
}

pub(crate) async fn parallel_calls(row: &Row) {
    let remote = row.remote();
    let mut ask = ask_weather(row, "Compare Oslo and Rome.");
    let (_, answer) = streamed(&remote, &row.cx(), &ask).await;
    let made = calls(&answer);
    assert_eq!(answer.message.to_text(), "I look both up.");
    assert_eq!(made.iter().map(|c| c.args["city"].as_str().unwrap()).collect::<Vec<_>>(), ["Oslo", "Rome"]);
    assert_ne!(made[0].id, made[1].id);
    asks_for_results(row, &answer);
    assert_eq!(said(&remote.complete(&row.cx(), &whole(&ask)).await.unwrap()), said(&answer));
    ask.messages.push(answer.message);
    ask.messages.push(Message::tool_results([
        ToolResult::new(&made[0], ToolStatus::Ok, "Oslo: cold"),
        ToolResult::new(&made[1], ToolStatus::Ok, "Rome: warm"),
    ]));
    let after = remote.complete(&row.cx(), &ask).await.unwrap();
    assert_eq!(after.message.to_text(), "Rome is warmer than Oslo.");
}

pub(crate) async fn structured(row: &Row) {
    let mut ask = row.ask("Give a person: Ada, 36.");
    ask.max_tokens = Some(64);
    ask.output_schema = Some(
        json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"],
            "additionalProperties": false})
        .into(),
    );
    let (_, answer) = streamed(&row.remote(), &row.cx(), &ask).await;
    let text = answer.message.to_text();
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(value["name"].is_string() && value["age"].is_u64(), "{value}");
    assert_eq!(answer.finish, FinishReason::Stop);
    if row.is_mock() {
        assert_eq!(value, json!({"name": "Ada", "age": 36}));
    }
}

pub(crate) async fn usage(row: &Row) {
    let mut ask = row.ask("Name three colours.");
    for whole in [false, true] {
        ask.whole = whole;
        let usage = row.remote().complete(&row.cx(), &ask).await.unwrap().usage;
        if row.is_mock() {
            assert_eq!((usage.input, usage.output), (21, 17), "whole: {whole}");
        } else {
            // Some forty words in the template; those in the cache are counted in.
            assert!((12..80).contains(&usage.input) && (1..=24).contains(&usage.output), "{usage:?}");
            assert!(usage.cache_read < usage.input, "{usage:?}");
        }
    }
}

pub(crate) async fn reasoning(row: &Row) {
    let remote = row.remote();
    let mut ask = row.ask("How much is six times seven?");
    let (_, answer) = streamed(&remote, &row.cx(), &ask).await;
    let thought = answer.message.parts.iter().find_map(|part| match part {
        Part::Reasoning(t) => Some(t.clone()),
        _ => None,
    });
    let thought = thought.expect("a thought");
    assert_eq!(thought.text, "Six times seven is seven times six, which is forty-two.");
    if row.wire.name == "anthropic" {
        let data = thought.replay.as_ref().expect("its signature").data.to_string();
        assert!(data.contains("c2lnbmF0dXJlIG9mIGEgdGhvdWdodA=="), "{data}");
    }
    assert_eq!(answer.message.to_text(), "42");
    assert_eq!(said(&remote.complete(&row.cx(), &whole(&ask)).await.unwrap()), said(&answer));
    ask.messages.extend([answer.message, Message::user("And times two?")]);
    assert_eq!(remote.complete(&row.cx(), &ask).await.unwrap().message.to_text(), "84");
}

/// A red dot.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==";

pub(crate) async fn image(row: &Row) {
    let mut ask = row.ask("What is in this picture?");
    let dot = Media { media_type: "image/png".into(), source: MediaSource::Base64(PNG.into()), name: None };
    ask.messages[1].parts.push(Part::Media(dot));
    let answer = row.remote().complete(&row.cx(), &ask).await.unwrap();
    assert_eq!(answer.message.to_text(), "A red dot.");
    let seen = journal::of(row).await;
    assert_eq!(seen.len(), 1);
    if row.wire.name == "chat" {
        // The journal holds the requests of the other wires without their pictures.
        assert!(seen[0].body.to_string().contains(PNG), "{}", seen[0].body);
    }
}

pub(crate) async fn models(row: &Row) {
    let listed = row.remote().models(&row.cx()).await.unwrap();
    assert_eq!(listed.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), [row.model()]);
    // Who names none gets the first.
    let mut ask = row.ask("Name three colours.");
    ask.model.clear();
    let remote = if row.wire.name == "chat" || row.wire.name == "ollama" {
        row.remote()
    } else {
        row.remote().default_model(row.model())
    };
    assert!(!remote.complete(&row.cx(), &ask).await.unwrap().message.to_text().is_empty());
}

pub(crate) async fn embeddings(row: &Row) {
    let cx = row.cx();
    let embedder = row.remote().embedder(&cx, "text-embedding-3-small").await.unwrap();
    let vectors = embedder.embed(&cx, &["a database", "", "SQL", "a database"]).await.unwrap();
    assert_eq!(vectors.len(), 4);
    assert!(embedder.dimensions() > 8 && vectors.iter().all(|v| v.len() == embedder.dimensions()));
    let long = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((long(&vectors[0]) - 1.0).abs() < 1e-3 && long(&vectors[1]) == 0.0);
    assert_eq!(vectors[0], vectors[3], "each vector is that of its text");
    assert_ne!(vectors[0], vectors[2]);
}

pub(crate) async fn count_tokens(row: &Row) {
    let (remote, cx) = (row.remote(), row.cx());
    let short = remote.count_tokens(&cx, &row.ask("Name three colours.")).await.unwrap();
    let long = remote.count_tokens(&cx, &row.ask(&"Name three colours. ".repeat(20))).await.unwrap();
    assert!(short > 5 && long > short + 60, "{short}, {long}");
    let used = remote.complete(&cx, &row.ask("Name three colours.")).await.unwrap().usage;
    assert_eq!(used.input, short, "what was counted ahead is what it took");
}

async fn fails(row: &Row, remote: &Remote, ask: &Request) -> Error {
    let e = match remote.stream(&row.cx(), ask).await {
        Ok(mut stream) => loop {
            match next(&mut stream).await {
                Some(Ok(_)) => {}
                Some(Err(e)) => break e,
                None => panic!("it did not fail"),
            }
        },
        Err(e) => e,
    };
    let at_once = remote.complete(&row.cx(), &whole(ask)).await.unwrap_err();
    assert_eq!((at_once.kind(), at_once.message()), (e.kind(), e.message()), "whole or not, it is the same");
    assert!(!format!("{e} {e:?}").contains("key-that"), "{e}");
    e
}

pub(crate) async fn unknown_model(row: &Row) {
    let mut ask = row.error("unknown model");
    ask.model = "no-such-model".into();
    let e = fails(row, &row.remote(), &ask).await;
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    assert!(e.message().contains("no-such-model"), "{e}");
}

pub(crate) async fn bad_key(row: &Row) {
    let remote = row.remote_at(&row.url, "key-that-nobody-gave-out");
    let e = fails(row, &remote, &row.ask("Name three colours.")).await;
    assert_eq!(e.kind(), ErrorKind::Unauthorized, "{e}");
    let none = row.remote_at(&row.url, "");
    assert_eq!(fails(row, &none, &row.ask("Name three colours.")).await.kind(), ErrorKind::Unauthorized);
    assert!(journal::of(row).await.is_empty());
}

pub(crate) async fn context_overflow(row: &Row) {
    let ask = if row.is_mock() {
        row.error("a prompt that is too long")
    } else {
        row.ask(&"many words ".repeat(3000))
    };
    let e = fails(row, &row.remote(), &ask).await;
    assert_eq!(e.kind(), ErrorKind::ContextOverflow, "{e}");
    assert!(!e.is_retryable());
}

pub(crate) async fn server_error(row: &Row) {
    let e = fails(row, &row.remote(), &row.error("a server that fails")).await;
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    assert!(e.is_retryable());
}

/// The server closes the connection in the middle: what has come is shown, and it is no success.
pub(crate) async fn cut_answer(row: &Row) {
    let mut stream = row.remote().stream(&row.cx(), &row.ask("An answer that breaks off.")).await.unwrap();
    let (mut acc, mut failed) = (Accumulator::default(), None);
    while let Some(event) = next(&mut stream).await {
        match event {
            Ok(event) => acc.push(event).unwrap(),
            Err(e) => assert!(failed.replace(e).is_none(), "one error, at the end"),
        }
    }
    let e = failed.expect("an error");
    assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable), "{e}");
    assert!(!acc.is_finished());
    let shown = acc.partial().to_text();
    assert!(!shown.is_empty() && "This answer is much longer than what".starts_with(&shown), "{shown}");
}

fn long(row: &Row) -> Request {
    let mut ask = row.ask("Count from one to a thousand, in words, with commas.");
    ask.max_tokens = Some(1500);
    ask
}

/// Reads until the answer flows.
async fn begun(remote: &Remote, cx: &Cx, ask: &Request) -> BoxStream<Result<StreamEvent>> {
    let mut stream = remote.stream(cx, ask).await.unwrap();
    let mut pieces = 0;
    while pieces < 3 {
        pieces += usize::from(matches!(next(&mut stream).await.unwrap().unwrap(), StreamEvent::Delta { .. }));
    }
    stream
}

pub(crate) async fn cancellation(row: &Row) {
    let tap = Tap::before(&row.url).await;
    let (remote, cx) = (row.remote_at(&tap.url, super::rows::KEY), row.cx());
    let mut stream = begun(&remote, &cx, &long(row)).await;
    cx.cancel().cancel();
    let mut last = None;
    let rest = async {
        while let Some(item) = next(&mut stream).await {
            last = Some(item);
        }
    };
    tokio::time::timeout(PATIENCE, rest).await.expect("it ends");
    assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    // The stream is still there; its connection is not.
    tokio::time::timeout(PATIENCE, tap.all_closed()).await.expect("its connection is closed");
    assert_eq!(tap.opened(), 1);
    drop(stream);
    // The next one is served at once, by a server with one slot, too.
    assert!(
        !remote
            .complete(&row.cx(), &row.ask("Name three colours."))
            .await
            .unwrap()
            .message
            .to_text()
            .is_empty()
    );
    assert_eq!(tap.opened(), 2);
}

pub(crate) async fn drop_closes(row: &Row) {
    let tap = Tap::before(&row.url).await;
    let remote = row.remote_at(&tap.url, super::rows::KEY);
    // An answer that was read to its end leaves the connection to the next.
    for _ in 0..3 {
        remote.complete(&row.cx(), &row.ask("Name three colours.")).await.unwrap();
    }
    // llama.cpp's closes it after each.
    assert_eq!(tap.opened(), if row.is_mock() { 1 } else { 3 });
    drop(begun(&remote, &row.cx(), &long(row)).await);
    tokio::time::timeout(PATIENCE, tap.all_closed()).await.expect("its connection is closed");
}

pub(crate) async fn stop_text(row: &Row) {
    let (remote, mut ask) = (row.remote(), row.ask("Name three colours."));
    let full = remote.complete(&row.cx(), &ask).await.unwrap().message.to_text();
    // A word in the middle, with what stands before it.
    let words: Vec<&str> = full.split_inclusive(' ').collect();
    let at = words.len() / 2;
    let (before, word) = (words[..at].concat(), words[at].trim());
    assert!(!before.contains(word), "of {full:?}, {word:?} comes once");
    ask.stop = vec![word.to_owned()];
    let cut = remote.complete(&row.cx(), &ask).await.unwrap();
    assert_eq!(cut.message.to_text().trim_end(), before.trim_end(), "of {full:?}, up to {word:?}");
    assert_eq!(cut.finish, FinishReason::Stop);
}

pub(crate) async fn length(row: &Row) {
    let mut ask = if row.is_mock() { row.ask("An answer that is cut at its limit.") } else { long(row) };
    ask.max_tokens = Some(16);
    for whole in [false, true] {
        ask.whole = whole;
        let answer = row.remote().complete(&row.cx(), &ask).await.unwrap();
        assert_eq!(answer.finish, FinishReason::Length, "whole: {whole}");
        if row.is_mock() {
            assert_eq!(answer.message.to_text(), "one, two, three, fo");
        } else {
            assert_eq!(answer.usage.output, 16);
        }
    }
}
