//! Behaviour over a real socket: time limits, keys, broken answers, connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Answer, Server, Then};
use serde_json::{Value, json};
use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use zo_providers::{Dialect, Remote, Timeouts};
use zo_testkit::VirtualClock;
use zo_traits::{
    BoxStream, Cx, Embedder, Error, ErrorKind, FinishReason, Media, MediaSource, Message, Part, Provider,
    ProviderExt, Request, Response, Result, Role, StreamEvent,
};

const KEY: &str = "sk-canary-77f1c0ffee";

fn request() -> Request {
    Request::new("m", [Message::user("hello")])
}

fn chat(server: &Server) -> Remote {
    Remote::compatible("test", &server.base, Some(KEY.into()))
}

async fn complete(provider: &impl Provider) -> Result<Response> {
    provider.complete(&Cx::new("t").with_timeout(Duration::from_secs(10)), &request()).await
}

async fn next(stream: &mut BoxStream<Result<StreamEvent>>) -> Option<Result<StreamEvent>> {
    poll_fn(|task| stream.as_mut().poll_next(task)).await
}

/// A chunk of a stream.
fn chunk(delta: Value) -> String {
    format!("data: {}\n\n", json!({"id": "c", "choices": [{"index": 0, "delta": delta}]}))
}

fn stop(reason: &str) -> String {
    format!(
        "data: {}\n\ndata: [DONE]\n\n",
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    )
}

fn said(texts: &[&str]) -> String {
    texts.iter().map(|t| chunk(json!({ "content": t }))).collect::<String>() + &stop("stop")
}

fn short(first_byte: u64, idle: u64) -> Timeouts {
    let mut t = Timeouts::default();
    (t.first_byte, t.idle) = (Duration::from_millis(first_byte), Duration::from_millis(idle));
    t
}

async fn failure(answer: Answer) -> Error {
    let server = Server::always(answer).await;
    complete(&chat(&server)).await.unwrap_err()
}

async fn reply(body: String) -> Response {
    let server = Server::always(Answer::sse(body).pieces(&[1, 5, 100])).await;
    complete(&chat(&server)).await.unwrap()
}

#[tokio::test]
async fn what_is_sent() {
    let server = Server::always(Answer::sse(said(&["hi"]))).await;
    complete(&chat(&server).header("x-title", "my agent")).await.unwrap();
    let asked = &server.asked()[0];
    assert!(asked.line.starts_with("POST /chat/completions HTTP/1.1"), "{}", asked.line);
    let head = asked.head.to_lowercase();
    assert!(
        head.contains(&format!("authorization: bearer {KEY}")) && head.contains("x-title: my agent"),
        "{head}"
    );
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!((&body["model"], &body["stream"]), (&json!("m"), &json!(true)));

    let server = Server::always(Answer::json(401, "{}")).await;
    let claude = Remote::anthropic(format!(" {KEY}\n")).base_url(&server.base);
    complete(&claude).await.unwrap_err();
    let asked = &server.asked()[0];
    assert!(asked.line.starts_with("POST /v1/messages "), "{}", asked.line);
    assert!(
        asked.head.contains(&format!("x-api-key: {KEY}\r\n"))
            && asked.head.contains("anthropic-version: 2023-06-01")
    );
    assert!(!asked.head.to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn the_key_is_in_no_error_and_no_debug_output() {
    let quoting = json!({"error": {"message": format!("bad key {KEY}"), "code": KEY}}).to_string();
    let stream_error = format!("data: {}\n\n", json!({"error": {"message": format!("key {KEY}")}}));
    let garbage = format!("data: {KEY} is no JSON\n\n");
    for answer in [
        Answer::json(401, quoting.clone()),
        Answer::json(200, quoting),
        Answer::sse(stream_error),
        Answer::sse(chunk(json!({"content": "x"})) + &garbage),
        Answer::sse(garbage),
        Answer::new(302, "text/html", "").header("location", &format!("http://127.0.0.1:1/{KEY}")),
    ] {
        let e = failure(answer).await;
        assert!(!format!("{e} {e:?} {}", e.model_text()).contains("canary"), "{e:?}");
    }
    for provider in [
        chat(&Server::always(Answer::json(500, "")).await),
        Remote::compatible("x", &format!("http://user:{KEY}@127.0.0.1:1"), Some(KEY.into())),
        Remote::compatible("x", &format!("nonsense {KEY}"), Some(format!("{KEY}\u{7f}\n{KEY}").into())),
    ] {
        let e = complete(&provider).await.unwrap_err();
        assert!(!format!("{e} {e:?} {provider:?}").contains("canary"), "{e:?} {provider:?}");
    }
    let secret = Remote::openai("x").header("x-gateway", KEY);
    assert!(!format!("{secret:?}").contains("canary"));
}

/// Whoever echoes requests, as a wrong address may, gives back the key.
#[tokio::test]
async fn an_echo_shows_no_key() {
    for body in [
        format!("<html>{KEY}"),
        format!("[1,\"{KEY}\""),
        "x".repeat(70) + KEY,
        format!("{{\"got\":\"{KEY}\"}}"),
    ] {
        let server = Server::always(Answer::new(200, "text/html", body)).await;
        let cx = Cx::new("t");
        for row in ["anthropic", "openai", "openai-responses", "gemini", "ollama", "zo"] {
            let remote =
                || Remote::new(Dialect::named(row).unwrap(), Some(KEY.into())).base_url(&server.base);
            let errors = [
                remote().models(&cx).await.map(|_| ()),
                remote().count_tokens(&cx, &request()).await.map(|_| ()),
                complete(&remote()).await.map(|_| ()),
                remote().embedder(&cx, "m").await.map(|_| ()),
            ];
            for e in errors.map(Result::unwrap_err) {
                assert!(!format!("{e:?}").contains("sk-can"), "{row}: {e:?}");
            }
        }
    }
    let row = r#"{"id": "x", "base_url": "http://me:hunter2@127.0.0.1:9"}"#;
    let remote = Remote::new(&Dialect::read(row).unwrap()[0], None);
    assert!(!format!("{remote:?}").contains("hunter2"), "{remote:?}");
}

#[tokio::test]
async fn a_row_without_an_address_speaks_of_every_address() {
    let server = Server::always(Answer::sse(said(&["hi"]))).await;
    let row = Dialect::read(r#"{"id": "mine", "mid_system": true}"#).unwrap();
    let remote =
        Remote::new(&row[0], None).base_url(&server.base).header("content-type", "application/json; x=1");
    let r = Request::new("m", [Message::user("a"), Message::system("b")]);
    remote.complete(&Cx::new("t"), &r).await.unwrap();
    let asked = &server.asked()[0];
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(body["messages"][1], json!({"role": "system", "content": "b"}));
    assert_eq!(asked.head.to_lowercase().matches("content-type").count(), 1, "{}", asked.head);
}

#[tokio::test]
async fn embeddings_go_in_batches_that_the_provider_takes() {
    let server = Server::by(|asked| {
        let body: Value = serde_json::from_slice(&asked.body).ok()?;
        let data: Vec<_> =
            (0..body["input"].as_array()?.len()).map(|n| json!({"index": n, "embedding": [1, 0]})).collect();
        Some(Answer::json(200, json!({ "data": data }).to_string()))
    })
    .await;
    let (words, pages) = (vec!["word"; 25], vec!["x".repeat(20_000); 3]);
    let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
    for (row, texts, requests) in
        [("dashscope", &words, 3), ("openai", &words, 1), ("mistral", &pages, 3), ("openai", &pages, 1)]
    {
        let before = server.asked().len();
        let remote = Remote::new(Dialect::named(row).unwrap(), Some(KEY.into())).base_url(&server.base);
        let vectors = remote.embedder_of("m", 2).embed(&Cx::new("t"), texts).await.unwrap();
        assert_eq!((vectors.len(), server.asked().len() - before), (texts.len(), requests), "{row}");
    }
}

/// Thoughts are bound to what stood before them, and to their model and account.
#[tokio::test]
async fn a_conversation_outlives_its_thoughts() {
    let server = Server::by(|asked| {
        let refused = "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different \
                       conversation.";
        let error =
            json!({"type": "error", "error": {"type": "invalid_request_error", "message": refused}});
        let text = json!([{"type": "text", "text": "hi"}]);
        let answer = json!({"type": "message", "content": text, "stop_reason": "end_turn"});
        Some(match String::from_utf8_lossy(&asked.body).contains("signature") {
            true => Answer::json(400, error.to_string()),
            false => Answer::json(200, answer.to_string()),
        })
    })
    .await;
    let claude = Remote::anthropic(KEY).base_url(&server.base);
    let signed = zo_traits::Text {
        text: "hm".into(),
        replay: Some(zo_traits::Replay::new("anthropic", json!({"signature": "s"}))),
    };
    let mut r = request();
    r.messages
        .push(Message { role: Role::Assistant, parts: vec![Part::Reasoning(signed), Part::text("so")] });
    r.messages.push(Message::user("and?"));
    assert_eq!(claude.complete(&Cx::new("t"), &r).await.unwrap().message.to_text(), "hi");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Server::always(Answer::sse(said(&["stolen"]))).await;
    let answer = Answer::new(307, "text/plain", "").header("location", &other.base);
    let e = failure(answer).await;
    assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn statuses_become_kinds_with_their_wait() {
    let e =
        failure(Answer::json(429, r#"{"error":{"message":"slow down"}}"#).header("retry-after", "7")).await;
    assert_eq!((e.kind(), e.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(7))));
    let e =
        failure(Answer::json(429, r#"{"error":{"code":"insufficient_quota"}}"#).header("retry-after", "7"))
            .await;
    assert_eq!((e.kind(), e.retry_after()), (ErrorKind::Exhausted, None));
    let e = failure(Answer::json(400, r#"{"error":{"code":"context_length_exceeded"}}"#)).await;
    assert_eq!(e.kind(), ErrorKind::ContextOverflow);
    // Anthropic sends the header on successes too: it means nothing there.
    let server = Server::always(Answer::sse(said(&["hi"])).header("retry-after", "61")).await;
    assert_eq!(complete(&chat(&server)).await.unwrap().message.to_text(), "hi");
}

#[tokio::test]
async fn an_error_page_without_end_is_cut_short() {
    let e = failure(Answer::new(500, "text/html", vec![b'x'; 4 << 20])).await;
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.message().len() < 2000);
}

#[tokio::test]
async fn limits_of_time() {
    let mut slow = Answer::sse(said(&["hi"]));
    slow.delay = Duration::from_secs(30);
    for (answer, limits, expect) in [
        (slow, short(60, 5000), "no answer within"),
        (Answer::sse(said(&["hi"])).then(0, Then::Silence), short(60, 5000), "no answer within"),
        (Answer::sse(said(&["hi"])).then(90, Then::Silence), short(5000, 60), "silent"),
        (Answer::json(200, "{\"choices\":[]}").then(3, Then::Silence), short(5000, 60), "silent"),
    ] {
        let server = Server::always(answer).await;
        let began = Instant::now();
        let e = complete(&chat(&server).timeouts(limits)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Timeout, "{e}");
        assert!(e.message().contains(expect), "{e}");
        assert!(began.elapsed() < Duration::from_secs(3));
        assert!(server.until_closed(1).await, "the connection is closed: {expect}");
    }
    // An error whose body never ends is still that error.
    let server = Server::always(Answer::json(429, "{\"error\":{}}").then(3, Then::Silence)).await;
    let e = complete(&chat(&server).timeouts(short(5000, 60))).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::RateLimited, "{e}");
}

#[tokio::test]
async fn keep_alive_comments_push_the_idle_limit_back() {
    let first = chunk(json!({"content": "hel"}));
    let body = first.clone() + &said(&["lo"]);
    let server = Server::always(Answer::sse(body).then(first.len(), Then::Pings(20))).await;
    let answer = complete(&chat(&server).timeouts(short(5000, 150))).await.unwrap();
    assert_eq!(answer.message.to_text(), "hello", "400 ms of comments, 150 ms of patience");
}

#[tokio::test]
async fn waits_go_by_the_callers_clock() {
    let server = Server::always(Answer::sse(said(&["hi"])).then(90, Then::Silence)).await;
    let clock = VirtualClock::at(0);
    let cx = Cx::new("t").with_clock(Arc::new(clock.clone()));
    let provider = chat(&server);
    let waiting = tokio::spawn(async move { provider.complete(&cx, &request()).await });
    while clock.sleepers() == 0 || server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..30 {
        assert!(!waiting.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while !waiting.is_finished() {
        clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert!(clock.sleepers() == 0, "no timer is left behind");
}

#[tokio::test]
async fn the_patience_for_the_first_byte_ends_with_it() {
    let body = said(&["hi"]);
    let server = Server::always(Answer::sse(body).then(0, Then::Late(90))).await;
    let clock = VirtualClock::at(0);
    let cx = Cx::new("t").with_clock(Arc::new(clock.clone()));
    let provider = chat(&server).timeouts(short(600_000, 60_000));
    let mut stream = provider.stream(&cx, &request()).await.unwrap();
    let waiting = tokio::spawn(async move { while let Some(Ok(_)) = next(&mut stream).await {} });
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(61));
    tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it waits on").unwrap();
}

#[tokio::test]
async fn dropping_closes_the_connection() {
    let mut late = Answer::sse("");
    late.delay = Duration::from_secs(60);
    let first = chunk(json!({"content": "x"}));
    for answer in [Answer::sse(first.clone() + &said(&["y"])).then(first.len(), Then::Silence)] {
        let server = Server::always(answer).await;
        let provider = chat(&server);
        let mut stream = provider.stream(&Cx::new("t"), &request()).await.unwrap();
        next(&mut stream).await.unwrap().unwrap();
        drop(stream);
        assert!(server.until_closed(1).await);
    }
    // The same when it is cancelled in the middle, or the call is dropped before its answer.
    let server =
        Server::always(Answer::sse(first.clone() + &said(&["y"])).then(first.len(), Then::Silence)).await;
    let (cx, provider) = (Cx::new("t"), chat(&server));
    let mut stream = provider.stream(&cx, &request()).await.unwrap();
    cx.cancel().cancel();
    let mut last = None;
    while let Some(item) = next(&mut stream).await {
        last = Some(item);
    }
    assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(server.until_closed(1).await, "although the stream itself is still held");
}

#[tokio::test]
async fn connections_are_used_again() {
    for body in [said(&["hi"]), said(&["hi"]) + ": trailing words\n\n"] {
        for pieces in [&[usize::MAX][..], &[1, 20]] {
            let server = Server::always(Answer::sse(body.clone()).pieces(pieces)).await;
            let provider = chat(&server);
            for _ in 0..5 {
                complete(&provider).await.unwrap();
            }
            assert_eq!(server.accepted.load(Ordering::SeqCst), 1, "folded to the end");
        }
    }
    // A caller who stops at Finish leaves a good connection, too.
    let server = Server::always(Answer::sse(said(&["hi"]))).await;
    let provider = chat(&server);
    for _ in 0..5 {
        let mut stream = provider.stream(&Cx::new("t"), &request()).await.unwrap();
        while !matches!(next(&mut stream).await, Some(Ok(StreamEvent::Finish(_)))) {}
        drop(stream);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(server.accepted.load(Ordering::SeqCst) <= 2, "{:?}", server.accepted);
    // Errors as well.
    let server = Server::always(Answer::json(400, "{}")).await;
    let provider = chat(&server);
    for _ in 0..5 {
        complete(&provider).await.unwrap_err();
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_end_is_not_held_up_by_a_server_that_does_not_hang_up() {
    let body = said(&["hi"]);
    let server = Server::always(Answer::sse(body.clone()).then(body.len(), Then::Silence)).await;
    let began = Instant::now();
    assert_eq!(complete(&chat(&server)).await.unwrap().message.to_text(), "hi");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// Older Gemini models, and gateways, say "stop" in every piece; some before the model has begun.
#[tokio::test]
async fn an_end_that_goes_on_is_none() {
    let gemini = |text: &str| {
        let parts = json!([{ "text": text }]);
        let candidate = json!({"content": {"parts": parts}, "finishReason": "STOP"});
        format!("data: {}\r\n\r\n", json!({ "candidates": [candidate] }))
    };
    let chat_chunk = |text: &str| {
        let choice = json!({"delta": {"content": text}, "finish_reason": "stop"});
        format!("data: {}\n\n", json!({ "choices": [choice] }))
    };
    let cx = || Cx::new("t").with_timeout(Duration::from_secs(2));
    for first in ["one ", ""] {
        let begin = gemini(first);
        // Longer than half of the time to the deadline, which is the most that anybody lingers.
        let answer = Answer::sse(begin.clone() + &gemini("two")).then(begin.len(), Then::Pings(60));
        let server = Server::always(answer).await;
        let r = Remote::gemini(KEY).base_url(&server.base).complete(&cx(), &request()).await.unwrap();
        assert_eq!(r.message.to_text(), format!("{first}two"));
    }
    let begin = chat_chunk("one ") + &chat_chunk("two ");
    let body = begin.clone() + &chat_chunk("three") + "data: [DONE]\n\n";
    let server = Server::always(Answer::sse(body.clone()).then(begin.len(), Then::Pings(60))).await;
    let r = chat(&server).complete(&cx(), &request()).await.unwrap();
    assert_eq!(r.message.to_text(), "one two three");
    // Broken off, all of these are cut.
    let server = Server::always(Answer::sse(body).then(begin.len(), Then::Close)).await;
    assert_eq!(complete(&chat(&server)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let begin = gemini("one ");
    let server =
        Server::always(Answer::sse(begin.clone() + &gemini("two")).then(begin.len(), Then::Close)).await;
    let e = complete(&Remote::gemini(KEY).base_url(&server.base)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
}

#[tokio::test]
async fn an_answer_is_what_it_is_whatever_it_is_called() {
    let whole = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]});
    let pretty = serde_json::to_string_pretty(&whole).unwrap();
    let array = json!([{"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]}]);
    for (kind, body) in [
        ("text/plain", whole.to_string()),
        ("text/event-stream", format!("\u{FEFF}\r\n {pretty}")),
        ("application/json", said(&["hi"])),
        ("application/json; charset=utf-8", ": ping\r\n\r\n".to_owned() + &said(&["h", "i"])),
        ("application/octet-stream", said(&["hi"])),
    ] {
        let server = Server::always(Answer::new(200, kind, body.clone()).pieces(&[1, 3, 50])).await;
        assert_eq!(complete(&chat(&server)).await.unwrap().message.to_text(), "hi", "{kind} {body}");
    }
    let server = Server::always(Answer::sse(array.to_string())).await;
    let r = complete(&Remote::gemini(KEY).base_url(&server.base)).await.unwrap();
    assert_eq!(r.message.to_text(), "hi");
    let spent = json!({"error": {"message": "spent", "code": "insufficient_quota"}}).to_string();
    for kind in ["text/plain", "text/event-stream", "text/html"] {
        let e = failure(Answer::new(200, kind, spent.clone())).await;
        assert_eq!(e.kind(), ErrorKind::Exhausted, "no reason to try again: {e}");
    }
    let e = failure(Answer::new(200, "text/html", "<!doctype html><title>Sign in</title>")).await;
    assert!(e.message().contains("Sign in"), "{e}");
    let cut = failure(Answer::new(200, "text/plain", &pretty.as_bytes()[..pretty.len() / 2])).await;
    assert_eq!(cut.kind(), ErrorKind::Unavailable, "nothing was shown yet: {cut}");
    let half =
        "data: {\"choices\":[{\"delta\":{\"content\":\"hi\\ud83d\"}},null]}\n\n".to_owned() + &stop("stop");
    assert_eq!(reply(half).await.message.to_text(), "hi\u{FFFD}");
}

#[tokio::test]
async fn what_fails_before_any_content_is_an_error_of_the_call() {
    for (body, kind) in [
        (String::new(), ErrorKind::Unavailable),
        (": ping\n\n".into(), ErrorKind::Unavailable),
        (chunk(json!({"role": "assistant", "content": ""})), ErrorKind::Unavailable),
        (
            "data: {\"error\":{\"message\":\"x\",\"type\":\"overloaded_error\"}}\n\n".into(),
            ErrorKind::Unavailable,
        ),
        ("data: {\"error\":{\"message\":\"x\",\"code\":429}}\n\n".into(), ErrorKind::RateLimited),
        ("data: [DONE]\n\n".into(), ErrorKind::Unavailable),
        ("data: {\"choices\":\n\n".into(), ErrorKind::Corrupt),
        ("data: hello\n\n".into(), ErrorKind::Corrupt),
    ] {
        let server = Server::always(Answer::sse(body.clone())).await;
        match chat(&server).stream(&Cx::new("t"), &request()).await {
            Err(e) => assert_eq!(e.kind(), kind, "{body:?}: {e}"),
            Ok(_) => panic!("{body:?} began"),
        }
    }
}

#[tokio::test]
async fn what_fails_later_comes_after_what_was_said() {
    for (tail, kind) in [
        (String::new(), ErrorKind::Corrupt),
        ("data: {\"choi".into(), ErrorKind::Corrupt),
        ("data: nonsense\n\n".into(), ErrorKind::Corrupt),
        (
            "event: error\ndata: {\"error\":{\"message\":\"busy\",\"type\":\"overloaded_error\"}}\n\n".into(),
            ErrorKind::Unavailable,
        ),
        (
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n".into(),
            ErrorKind::Unavailable,
        ),
    ] {
        let server = Server::always(Answer::sse(chunk(json!({"content": "so far"})) + &tail)).await;
        let mut stream = chat(&server).stream(&Cx::new("t"), &request()).await.unwrap();
        let (mut text, mut error) = (String::new(), None);
        while let Some(item) = next(&mut stream).await {
            assert!(error.is_none(), "the error is the last item");
            match item {
                Ok(StreamEvent::Delta { text: t, .. }) => text.push_str(&t),
                Ok(_) => {}
                Err(e) => error = Some(e),
            }
        }
        assert_eq!((text.as_str(), error.unwrap().kind()), ("so far", kind), "{tail:?}");
    }
}

#[tokio::test]
async fn a_connection_that_the_server_gave_up_is_replaced() {
    // Two answers, then the connection is dropped when the next request is there.
    let n = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::by(move |_| {
        let mut answer = Answer::sse(said(&["hi"]));
        if n.fetch_add(1, Ordering::SeqCst) == 2 {
            answer = answer.hang_up();
        }
        Some(answer)
    })
    .await;
    let provider = chat(&server);
    for _ in 0..4 {
        complete(&provider).await.unwrap();
    }
    assert_eq!((server.asked().len(), server.accepted.load(Ordering::SeqCst)), (5, 2));
    // A connection that was made for this very request was not kept too long: whether to ask again is for others to say.
    let server = Server::always(Answer::sse("").hang_up()).await;
    assert_eq!(complete(&chat(&server)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn no_server() {
    let e = complete(&Remote::compatible("x", "http://127.0.0.1:9", None)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    assert!(e.message().to_lowercase().contains("refused") && !e.message().contains("127.0.0.1:9/"), "{e}");
    for bad in ["", "ftp://x", "not a url"] {
        let e = complete(&Remote::compatible("x", bad, None)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{bad}: {e}");
    }
}

#[tokio::test]
async fn tls_refuses_a_server_that_speaks_none() {
    let server = Server::always(Answer::sse(said(&["hi"]))).await;
    let provider = Remote::compatible("x", &server.base.replace("http:", "https:"), Some(KEY.into()));
    let e = complete(&provider).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    assert!(server.asked().is_empty(), "and the key was not sent");
}

fn calls(response: &Response) -> Vec<(String, String, Value)> {
    response.message.tool_calls().map(|c| (c.id.clone(), c.name.clone(), c.args.clone())).collect()
}

fn call(parts: Value) -> String {
    chunk(json!({ "tool_calls": parts }))
}

#[tokio::test]
async fn tool_calls_of_every_accent() {
    let f = |n: &str, a: Value| json!({"name": n, "arguments": a});
    let two = |a: &str, b: &str| {
        vec![(a.to_owned(), "f".to_owned(), json!({"n": 1})), (b.to_owned(), "g".to_owned(), json!({"n": 2}))]
    };
    type Called = (String, String, Value);
    let streams: Vec<(&str, Vec<Value>, Vec<Called>)> = vec![
        (
            "interleaved by index",
            vec![
                json!([{"index": 0, "id": "a", "function": f("f", json!(""))}, {"index": 1, "id": "b", "function": f("g", json!("{\"n\""))}]),
                json!([{"index": 0, "function": {"arguments": "{\"n\":1}"}}, {"index": 1, "function": {"arguments": ":2}"}}]),
            ],
            two("a", "b"),
        ),
        (
            "no index",
            vec![
                json!([{"id": "a", "function": f("f", json!("{\"n\":1}"))}]),
                json!([{"id": "b", "function": f("g", json!("{\"n\":"))}]),
                json!([{"function": {"arguments": "2}"}}]),
            ],
            two("a", "b"),
        ),
        (
            "an index used again",
            vec![
                json!([{"index": 0, "id": "a", "function": f("f", json!("{\"n\":1}"))}]),
                json!([{"index": 0, "id": "b", "function": f("g", json!("{\"n\":2}"))}]),
            ],
            two("a", "b"),
        ),
        (
            "an index used again, without ids",
            vec![
                json!([{"index": 0, "function": f("f", json!("{\"n\":1}"))}]),
                json!([{"index": 0, "function": f("g", json!("{\"n\""))}]),
                json!([{"index": 0, "function": f("g", json!(":2}"))}]),
            ],
            two("call_0_c", "call_1_c"),
        ),
        (
            "id and name in every chunk, id empty in some",
            vec![
                json!([{"index": 0, "id": "a", "function": f("f", json!("{\"n\""))}]),
                json!([{"index": 0, "id": "a", "function": f("f", json!(":"))}]),
                json!([{"index": 0, "id": "", "function": f("f", json!("1}"))}]),
                json!([{"index": 1, "id": "b", "function": f("g", json!({"n": 2}))}]),
                json!([{"index": 1, "id": null, "function": f("", Value::Null)}]),
            ],
            two("a", "b"),
        ),
        (
            "no ids at all",
            vec![
                json!([{"index": 0, "function": f("f", json!("{\"n\":1}"))}, {"index": 1, "function": f("g", json!("{\"n\":2}"))}]),
            ],
            two("call_0_c", "call_1_c"),
        ),
        (
            "the name comes late",
            vec![
                json!([{"index": 0, "id": "a", "function": {"arguments": "{\"n\":"}}]),
                json!([{"index": 0, "function": f("f", json!("1}"))}, {"index": 1, "id": "b", "function": f("g", json!("{\"n\":2}"))}]),
            ],
            two("a", "b"),
        ),
    ];
    for (what, chunks, want) in streams {
        let body: String = chunks.into_iter().map(call).collect();
        for reason in ["tool_calls", "stop", ""] {
            let answer = reply(body.clone() + &stop(reason)).await;
            assert_eq!(calls(&answer), want, "{what}");
            assert_eq!(answer.finish, FinishReason::ToolCalls, "{what}, finish {reason:?}");
        }
    }
}

#[tokio::test]
async fn odd_arguments_are_kept_and_said_to_be_odd() {
    let one =
        |args: Value| call(json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": args}}]));
    for (args, want) in [
        (json!(null), json!({})),
        (json!(""), json!({})),
        (json!("{\"a\":"), json!("{\"a\":")),
        (json!("plain words"), json!("plain words")),
        (json!("[1]"), json!([1])),
    ] {
        assert_eq!(calls(&reply(one(args.clone()) + &stop("tool_calls")).await)[0].2, want, "{args}");
    }
    // Cut by the length limit: reported, so that the agent can say so, and marked.
    let cut = reply(one(json!("{\"a\":\"unfin")) + &stop("length")).await;
    assert_eq!((cut.finish.clone(), &calls(&cut)[0].2), (FinishReason::Length, &json!("{\"a\":\"unfin")));
    // Ids that are not unique are passed on as they are: making them so is the agent's business, which knows the run.
    let twice = json!([{"index": 0, "id": "a", "function": {"name": "f"}}, {"index": 1, "id": "a", "function": {"name": "g"}}]);
    let answer = reply(call(twice) + &stop("tool_calls")).await;
    assert_eq!(calls(&answer).iter().map(|c| c.0.as_str()).collect::<Vec<_>>(), ["a", "a"]);
}

#[tokio::test]
async fn a_call_that_nobody_finished_is_cut_although_the_server_is_done() {
    let one =
        |args: Value| call(json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": args}}]));
    for args in [json!(null), json!(""), json!("{\"a\":"), json!("{\"a\":1} {")] {
        let server = Server::always(Answer::sse(one(args.clone()) + "data: [DONE]\n\n")).await;
        assert_eq!(complete(&chat(&server)).await.unwrap_err().kind(), ErrorKind::Corrupt, "{args}");
    }
    // What is whole is taken, and so is text.
    let answer = reply(one(json!("{\"a\":1}")) + "data: [DONE]\n\n").await;
    assert_eq!(calls(&answer)[0].2, json!({"a": 1}));
    assert_eq!(reply(chunk(json!({"content": "x"})) + "data: [DONE]\n\n").await.message.to_text(), "x");
}

#[tokio::test]
async fn pings_after_the_answer_neither_hold_it_up_nor_spoil_it() {
    let all = chunk(json!({"content": "hi"}));
    let all = all + "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let server = Server::always(Answer::sse(all.clone()).then(all.len(), Then::Pings(500))).await;
    let cx = Cx::new("t").with_timeout(Duration::from_millis(1500));
    let answer = chat(&server).complete(&cx, &request()).await.unwrap();
    assert_eq!(answer.message.to_text(), "hi");
}

#[tokio::test]
async fn an_endless_stream_is_ended() {
    // Comments cost the decoder nothing, but a stream of them is no answer.
    let comments = format!(": {}\n\n", "x".repeat(65_532)).repeat(1025);
    for (first, body) in [(String::new(), comments.clone()), (chunk(json!({"content": "x"})), comments)] {
        let server = Server::always(Answer::sse(first + &body + &said(&["hi"]))).await;
        let e = complete(&chat(&server)).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Corrupt && e.message().contains("larger"), "{e}");
    }
}

#[tokio::test]
async fn a_key_that_a_cut_goes_through_does_not_show_its_head() {
    for before in 380..400 {
        let words = "x".repeat(before);
        let answer = json!({"error": {"message": format!("{words}{KEY}")}}).to_string();
        for answer in [
            Answer::json(400, answer.clone()),
            Answer::new(400, "text/plain", format!("{words}{KEY}")),
            Answer::sse(format!("data: {answer}\n\n")),
            Answer::sse(format!("data: {}{KEY}\n\n", "x".repeat(before - 330))),
        ] {
            let e = failure(answer).await;
            assert!(!e.message().contains("sk-can"), "{before}: {e}");
        }
    }
    let server = Server::always(Answer::json(400, "{\"error\":\"no user hunter2\"}")).await;
    let e = complete(&chat(&server).header("x-pass", "hunter2")).await.unwrap_err();
    assert!(!e.message().contains("hunter2"), "a short header is a secret as well: {e}");
}

#[tokio::test]
async fn openai_elsewhere_may_be_anybody_and_takes_a_query() {
    let server = Server::always(Answer::sse(said(&["hi"]))).await;
    let provider = Remote::openai(KEY).base_url(&format!("{}/v1/?api-version=1", server.base));
    let mut r = request();
    r.messages.push(Message::system("fact"));
    provider.complete(&Cx::new("t"), &r).await.unwrap();
    let asked = &server.asked()[0];
    assert!(asked.line.starts_with("POST /v1/chat/completions?api-version=1 "), "{}", asked.line);
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    let want = json!([{"role": "user", "content": "hello\n\n<system>\nfact\n</system>"}]);
    assert_eq!(body["messages"], want);
    // Nor is it known which pictures that one takes.
    let bmp =
        Media { media_type: "image/bmp".into(), source: MediaSource::Base64("QUJD".into()), name: None };
    r.messages = vec![Message { role: Role::User, parts: vec![Part::Media(bmp)] }];
    provider.complete(&Cx::new("t"), &r).await.unwrap();
    let body: Value = serde_json::from_slice(&server.asked()[1].body).unwrap();
    assert_eq!(body["messages"][0]["content"][0]["type"], "image_url", "{body}");
    let claude = Remote::anthropic(KEY).base_url(&format!("{}?a=1", server.base));
    complete(&claude).await.unwrap_err();
    assert!(server.asked()[2].line.starts_with("POST /v1/messages?a=1 "), "{}", server.asked()[2].line);
    let e = complete(&Remote::openai(KEY).base_url(&format!("{}/v1#x", server.base))).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn reasoning_comes_under_any_name_and_goes_back_where_it_belongs() {
    let mistral = json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "so"}]});
    for first in
        [json!({"reasoning_content": "hm", "reasoning": "hm"}), json!({"reasoning": "hm"}), mistral.clone()]
    {
        let tail = if first == mistral { String::new() } else { chunk(json!({"content": "so"})) };
        let answer = reply(chunk(first) + &tail + &stop("stop")).await;
        let parts = &answer.message.parts;
        assert!(
            matches!(&parts[..], [Part::Reasoning(r), Part::Text(t)] if r.text == "hm" && t.text == "so"),
            "{parts:?}"
        );
    }

    // OpenRouter's details go back verbatim, put together from their pieces; DeepSeek's reasoning goes back as text.
    let details = chunk(
        json!({"reasoning": "h", "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "h"}]}),
    ) + &chunk(
        json!({"reasoning": "m", "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "m", "signature": "s"}]}),
    ) + &call(json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]))
        + &stop("tool_calls");
    for (row, field, want) in [
        (
            "openrouter",
            "reasoning_details",
            json!([{"type": "reasoning.text", "index": 0, "text": "hm", "signature": "s"}]),
        ),
        ("deepseek", "reasoning_content", json!("hm")),
        ("groq", "reasoning_content", Value::Null),
    ] {
        let server = Server::always(Answer::sse(details.clone())).await;
        let provider = Remote::new(Dialect::named(row).unwrap(), None).base_url(&server.base);
        let answer = complete(&provider).await.unwrap();
        let mut again = request();
        again.messages.push(answer.message.clone());
        again.messages.push(Message::tool_results(
            answer
                .message
                .tool_calls()
                .map(|c| zo_traits::ToolResult::new(c, zo_traits::ToolStatus::Ok, "1")),
        ));
        provider.complete(&Cx::new("t"), &again).await.unwrap();
        let sent: Value = serde_json::from_slice(&server.asked()[1].body).unwrap();
        assert_eq!(sent["messages"][1][field], want, "{row}: {sent}");
    }
}

#[tokio::test]
async fn anthropic_blocks_survive_the_round_trip() {
    let event = |v: Value| format!("event: {}\ndata: {v}\n\n", v["type"].as_str().unwrap());
    let block = |n: u64, start: Value, deltas: &[Value]| {
        event(json!({"type": "content_block_start", "index": n, "content_block": start}))
            + &deltas
                .iter()
                .map(|d| event(json!({"type": "content_block_delta", "index": n, "delta": d})))
                .collect::<String>()
            + &event(json!({"type": "content_block_stop", "index": n}))
    };
    let body = event(json!({"type": "message_start", "message": {"id": "m", "model": "c",
            "usage": {"input_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 11, "output_tokens": 1}}}))
        + &block(
            0,
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            &[
                json!({"type": "thinking_delta", "thinking": "hm"}),
                json!({"type": "signature_delta", "signature": "si"}),
                json!({"type": "signature_delta", "signature": "g"}),
            ],
        )
        + &block(1, json!({"type": "redacted_thinking", "data": "xx"}), &[])
        + &block(
            2,
            json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
            &[
                json!({"type": "input_json_delta", "partial_json": "{\"q\""}),
                json!({"type": "input_json_delta", "partial_json": ":1}"}),
            ],
        )
        + &event(json!({"type": "brand_new_event", "index": 2}))
        + &block(
            3,
            json!({"type": "text", "text": ""}),
            &[
                json!({"type": "text_delta", "text": "so"}),
                json!({"type": "citations_delta", "citation": {"n": 1}}),
                json!({"type": "odd_delta", "odd": {"x": 1}}),
            ],
        )
        + &block(
            4,
            json!({"type": "compaction", "content": null}),
            &[json!({"type": "compaction_delta", "content": "short"})],
        )
        + &block(5, json!({"type": "tool_use", "id": "t", "name": "f", "input": {}}), &[])
        + &event(
            json!({"type": "message_delta", "delta": {"stop_reason": "pause_turn"}, "usage": {"output_tokens": 42}}),
        )
        + &event(json!({"type": "message_stop"}));
    let server = Server::always(Answer::sse(body).pieces(&[7, 100])).await;
    let claude = Remote::anthropic(KEY).base_url(&server.base);
    let answer = complete(&claude).await.unwrap();
    assert_eq!(answer.finish, FinishReason::Pause);
    assert_eq!(
        (answer.usage.input, answer.usage.output, answer.usage.cache_read, answer.usage.cache_write),
        (23, 42, 7, 11)
    );
    let mut again = request();
    again.messages.push(answer.message);
    claude.complete(&Cx::new("t"), &again).await.unwrap();
    let sent: Value = serde_json::from_slice(&server.asked()[1].body).unwrap();
    assert_eq!(
        sent["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "xx"},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
            {"type": "text", "text": "so", "citations": [{"n": 1}]},
            {"type": "compaction", "content": "short"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        ])
    );
}

#[tokio::test]
async fn lists_of_models() {
    for body in [
        json!({"object": "list", "data": [{"id": "a", "context_length": 4096}, {"id": "b"}]}),
        json!([{"id": "a", "context_length": 4096}, {"id": "b"}]),
        json!({"models": [{"model": "a", "max_model_len": 4096}, {"id": "b"}]}),
    ] {
        let server = Server::by(move |asked| {
            Some(if asked.line.starts_with("GET /models ") {
                Answer::json(200, body.to_string())
            } else {
                Answer::sse(said(&["hi"]))
            })
        })
        .await;
        let provider = chat(&server);
        let list = provider.models(&Cx::new("t")).await.unwrap();
        assert_eq!(
            (list.len(), list[0].id.as_str(), list[0].capabilities.context_window),
            (2, "a", Some(4096))
        );
        // A request that names no model takes the first, asked for once.
        for _ in 0..2 {
            provider.complete(&Cx::new("t"), &Request::new("", [Message::user("x")])).await.unwrap();
        }
        let asked = server.asked();
        let sent: Value = serde_json::from_slice(&asked.last().unwrap().body).unwrap();
        assert_eq!((&sent["model"], asked.len()), (&json!("a"), 4));
    }
}
