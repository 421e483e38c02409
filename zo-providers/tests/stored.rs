//! No conversation that lies on a disk bricks a provider: whatever wrote it, each wire makes a body of it that obeys the
//! provider's rules. Refused is only what the user asks now.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use zo_providers::{DIALECTS, Dialect, Family, wire};
use zo_testkit::rules::{self, Violation};
use zo_traits::{
    Effort, ErrorKind, Media, MediaSource, Message, Part, Replay, Request, Result, Role, Text, ToolCall,
    ToolResult, ToolStatus,
};

const CLAUDE: &str = "claude-sonnet-4-5";

fn encode(request: &Request, row: &Dialect) -> Result<Vec<u8>> {
    let model = match row.family {
        Family::Anthropic => CLAUDE,
        Family::Responses => "gpt-5-mini",
        Family::Gemini => "gemini-2.5-flash",
        _ => "m",
    };
    wire::encode(request, model, row)
}

/// The body for a provider, which must obey its rules and hold no key twice.
fn body(request: &Request, id: &str) -> Value {
    let row = Dialect::named(id).unwrap();
    let bytes = encode(request, row).unwrap_or_else(|e| panic!("{id}: {e}"));
    assert_eq!(check(&bytes, row), Ok(()), "{id}: {}", String::from_utf8_lossy(&bytes));
    serde_json::from_slice(&bytes).unwrap()
}

fn check(bytes: &[u8], row: &Dialect) -> std::result::Result<(), Vec<Violation>> {
    let body: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(body.to_string().len(), bytes.len(), "a key comes twice: {}", String::from_utf8_lossy(bytes));
    match row.family {
        Family::Anthropic => return rules::anthropic::check_body(&body),
        Family::Responses => return rules::openai_responses::check_body(&body),
        Family::Gemini => return rules::gemini::check_body(&body),
        Family::Ollama => return rules::ollama::check_body(&body),
        Family::Zo => return Ok(()),
        _ => {}
    }
    rules::openai_chat::check_body(&body)?;
    match (row.strict_turns, row.short_ids) {
        (true, true) => rules::strict_template::check_mistral_body(&body),
        (true, false) => rules::strict_template::check_body(&body),
        _ => Ok(()),
    }
}

fn said(role: Role, parts: impl IntoIterator<Item = Part>) -> Message {
    Message { role, parts: parts.into_iter().collect() }
}

fn model(parts: impl IntoIterator<Item = Part>) -> Message {
    said(Role::Assistant, parts)
}

fn file(kind: &str, source: MediaSource) -> Media {
    Media { media_type: kind.into(), source, name: None }
}

fn bytes(kind: &str) -> Media {
    file(kind, MediaSource::Base64("QUJD".into()))
}

fn opaque(provider: &str, data: Value) -> Part {
    Part::Opaque(Replay::new(provider, data))
}

fn roles(body: &Value) -> Vec<&str> {
    let turns = ["messages", "contents", "input"].iter().find_map(|key| body[key].as_array());
    turns.unwrap().iter().map(|m| m["role"].as_str().unwrap_or_default()).collect()
}

#[test]
fn only_what_is_asked_now_may_be_refused() {
    for kind in ["video/mp4", "text/plain", "application/zip", ""] {
        for row in DIALECTS.iter() {
            let asks = || said(Role::User, [Part::text("see"), Part::Media(bytes(kind))]);
            if row.family == Family::Gemini && matches!(kind, "video/mp4" | "text/plain") {
                // It watches films and reads.
                body(&Request::new("", [asks()]), &row.id);
                continue;
            }
            let e = encode(&Request::new("", [asks()]), row).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Unsupported, "{}: {kind}", row.id);
            // Answered by another provider; or refused, and the user goes on without.
            for after in [vec![Message::assistant("nice")], vec![]] {
                let mut r = Request::new("", [asks()]);
                r.messages.extend(after);
                r.messages.push(Message::user("and now?"));
                let sent = body(&r, &row.id).to_string();
                assert!(sent.contains("is not shown"), "{}: {kind}: {sent}", row.id);
            }
        }
    }
    let r = Request::new(
        "",
        [
            said(Role::User, [Part::Media(bytes("audio/wav"))]),
            Message::assistant("a voice"),
            Message::user("of whom?"),
        ],
    );
    assert!(body(&r, "anthropic").to_string().contains("[audio/wav file is not shown]"));
    // Of a picture that it cannot see the model is told at once.
    let picture = Request::new("", [said(Role::User, [Part::text("see"), Part::Media(bytes("image/gif"))])]);
    assert_eq!(body(&picture, "xai")["messages"][0]["content"], "see[image/gif file is not shown]");
    assert_eq!(body(&r, "openai")["messages"][0]["content"][0]["type"], "input_audio");
}

#[test]
fn what_only_another_provider_understands_leaves_no_hole() {
    let foreign = || opaque("elsewhere", json!({"executableCode": {}}));
    let call = ToolCall::new("callAAAA1", "f", json!({}));
    let result = || Message::tool_results([ToolResult::new(&call, ToolStatus::Ok, "1")]);
    for row in DIALECTS.iter().filter(|row| row.family != Family::Zo) {
        let r = Request::new("", [Message::user("a"), model([foreign()]), Message::user("b")]);
        let b = body(&r, &row.id);
        assert!(b.to_string().contains('a') && b.to_string().contains('b'), "{b}");
        // Behind results, too.
        let r = Request::new(
            "",
            [
                Message::user("a"),
                model([Part::ToolCall(call.clone())]),
                result(),
                model([foreign()]),
                Message::user("b"),
            ],
        );
        body(&r, &row.id);
        // It paused there, and another one goes on.
        for parts in [vec![foreign()], vec![Part::text("so "), foreign()], vec![foreign(), Part::text("so ")]]
        {
            let r = Request::new("", [Message::user("a"), model(parts)]);
            let b = body(&r, &row.id);
            assert_eq!(roles(&b).last(), Some(&"user"), "{}: {b}", row.id);
        }
        let r = Request::new("", [Message::assistant("hello"), Message::user("a")]);
        body(&r, &row.id);
    }
    // What its own provider paused goes back as it is.
    let own = opaque("anthropic", json!({"type": "server_tool_use", "id": "s", "name": "g", "input": {}}));
    let r = Request::new("", [Message::user("a"), model([Part::text("so"), own])]);
    assert_eq!(roles(&body(&r, "anthropic")), ["user", "assistant"]);
    assert_eq!(roles(&body(&r, "mistral")), ["user", "assistant", "user"]);
}

#[test]
fn replayed_fields_never_take_the_place_of_ours() {
    let mut call = ToolCall::new("c1", "f", json!({"a": 1}));
    call.replay = Some(Replay::new(
        "anthropic",
        json!({"type": "text", "id": "x", "name": "y", "input": {}, "caller": {"type": "direct"}}),
    ));
    let r = Request::new(
        "",
        [
            Message::user("a"),
            model([Part::ToolCall(call.clone())]),
            Message::tool_results([ToolResult::new(&call, ToolStatus::Ok, "1")]),
        ],
    );
    assert_eq!(
        body(&r, "anthropic")["messages"][1]["content"][0],
        json!({"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}})
    );
    // Of a wire with other words under the same name, as OpenAI's Responses are.
    let other =
        opaque("openai", json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "name": "?"}));
    let r = Request::new("", [Message::user("a"), model([Part::text("b"), other]), Message::user("c")]);
    assert_eq!(body(&r, "openai")["messages"][1], json!({"role": "assistant", "content": "b"}));
}

#[test]
fn broken_blocks_of_its_own_are_left_out() {
    let own = |data: Value| opaque("anthropic", data);
    let cited =
        |data: Value| Part::Text(Text { text: "so".into(), replay: Some(Replay::new("anthropic", data)) });
    let search =
        |id: &str| own(json!({"type": "server_tool_use", "id": id, "name": "web_search", "input": {}}));
    let found = |id: &str| own(json!({"type": "web_search_tool_result", "tool_use_id": id, "content": []}));
    let kinds = |parts: Vec<Part>| -> Vec<String> {
        let r = Request::new("", [Message::user("a"), model(parts), Message::user("b")]);
        let b = body(&r, "anthropic");
        if roles(&b).len() == 1 {
            return Vec::new();
        }
        let blocks = b["messages"][1]["content"].as_array().unwrap();
        blocks.iter().map(|b| b["type"].as_str().unwrap().to_owned()).collect()
    };
    for data in [
        Value::Null,
        json!("text"),
        json!([]),
        json!({}),
        json!({"type": ""}),
        json!({"type": 5}),
        json!({"type": "text", "text": " "}),
        json!({"type": "thinking", "thinking": "hm"}),
        json!({"type": "thinking", "thinking": "hm", "signature": ""}),
        json!({"type": "redacted_thinking"}),
        json!({"type": "tool_use", "id": "t", "name": "f", "input": {}}),
        json!({"type": "tool_result", "tool_use_id": "t", "content": []}),
        json!({"type": "image", "source": {}}),
    ] {
        assert_eq!(kinds(vec![own(data.clone()), Part::text("so")]), ["text"], "{data}");
    }
    // The provider's own tools: cut off before the result, or a result whose call was cut off.
    assert_eq!(kinds(vec![Part::text("so"), search("s")]), ["text"]);
    assert_eq!(kinds(vec![found("s"), Part::text("so")]), ["text"]);
    assert_eq!(
        kinds(vec![search("s"), found("s"), search("t"), Part::text("so")]),
        ["server_tool_use", "web_search_tool_result", "text"]
    );
    assert_eq!(kinds(vec![search("s")]), Vec::<String>::new());
    for data in [Value::Null, json!({"citations": null}), json!({"citations": "x"}), json!({"citations": []})]
    {
        let r = Request::new("", [Message::user("a"), model([cited(data)]), Message::user("b")]);
        let block = &body(&r, "anthropic")["messages"][1]["content"][0];
        assert_eq!(*block, json!({"type": "text", "text": "so"}));
    }
}

#[test]
fn the_providers_own_tool_may_wait_for_ours() {
    // Code that it runs calls a tool of ours: no result of the code yet, and none is missing.
    let code =
        opaque("anthropic", json!({"type": "server_tool_use", "id": "s", "name": "code", "input": {}}));
    let done =
        opaque("anthropic", json!({"type": "code_execution_tool_result", "tool_use_id": "s", "content": {}}));
    let call = ToolCall::new("c1", "f", json!({}));
    let mut r = Request::new(
        "",
        [
            Message::user("a"),
            model([code, Part::ToolCall(call.clone())]),
            Message::tool_results([ToolResult::new(&call, ToolStatus::Ok, "1")]),
        ],
    );
    let kind = |b: &Value, m: usize| b["messages"][m]["content"][0]["type"].clone();
    assert_eq!(kind(&body(&r, "anthropic"), 1), "server_tool_use");
    r.messages.push(model([done, Part::text("done")]));
    r.messages.push(Message::user("b"));
    let b = body(&r, "anthropic");
    assert_eq!((kind(&b, 1), kind(&b, 3)), (json!("server_tool_use"), json!("code_execution_tool_result")));
}

#[test]
fn unsigned_thoughts_do_not_count_as_thinking() {
    // An answer that was cut off in its thoughts, kept with its calls.
    let thought =
        |data| Part::Reasoning(Text { text: "hm".into(), replay: Some(Replay::new("anthropic", data)) });
    let call = ToolCall::new("c1", "f", json!({}));
    let of = |data: Value| {
        let mut r = Request::new(
            "",
            [
                Message::user("a"),
                model([thought(data), Part::ToolCall(call.clone())]),
                Message::tool_results([ToolResult::new(&call, ToolStatus::Ok, "1")]),
            ],
        );
        r.effort = Some(Effort::High);
        body(&r, "anthropic")
    };
    for data in [json!({}), json!({"signature": ""}), Value::Null] {
        let b = of(data);
        assert!(b.get("thinking").is_none(), "the turn must begin with a thought: {b}");
    }
    assert_eq!(of(json!({"signature": "s"}))["thinking"]["type"], "enabled");
}

#[test]
fn media_are_sent_as_what_they_are() {
    let png =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let base64 = |data: &str| MediaSource::Base64(data.into());
    let link = |url: &str| MediaSource::Url(url.into());
    let shown = |kind: &str, source: MediaSource, id: &str| {
        let call = ToolCall::new("callAAAA1", "f", json!({}));
        let mut result = ToolResult::new(&call, ToolStatus::Ok, "1");
        result.media.push(file(kind, source));
        let r = Request::new(
            "",
            [Message::user("a"), model([Part::ToolCall(call)]), Message::tool_results([result])],
        );
        let b = body(&r, id);
        match id {
            "anthropic" => b["messages"][2]["content"][0]["content"][1].clone(),
            _ => b["messages"].as_array().unwrap().last().unwrap()["content"][1].clone(),
        }
    };
    // The bytes say what a picture is, whatever its label.
    for kind in ["image/png", "image/jpeg", "IMAGE/PNG", "image/png; charset=binary", "image/bmp"] {
        assert_eq!(shown(kind, base64(png), "anthropic")["source"]["media_type"], "image/png", "{kind}");
        let url = shown(kind, base64(png), "openai")["image_url"]["url"].clone();
        assert!(url.as_str().unwrap().starts_with("data:image/png;base64,iVBOR"), "{kind}: {url}");
    }
    // Broken into lines, as mail has it.
    let lines = format!("{}\r\n{}\n", &png[..40], &png[40..]);
    assert_eq!(shown("image/png", base64(&lines), "anthropic")["source"]["data"], png);
    // A link that holds the bytes.
    let data = link(&format!("data:image/png;base64,{png}"));
    assert_eq!(shown("image/png", data.clone(), "anthropic")["source"]["data"], png);
    assert!(shown("image/png", data, "openai")["image_url"]["url"].as_str().unwrap().ends_with(png));
    assert_eq!(shown("image/png", link("https://a/b"), "anthropic")["source"]["url"], "https://a/b");
    // No bytes, no base64, no link that a provider could follow; no picture that any reads.
    for (kind, source) in [
        ("image/png", base64("")),
        ("image/png", base64("not base64!")),
        ("image/png", base64("QUJ")),
        ("image/png", base64("Q===")),
        ("image/png", base64("QU=D")),
        ("image/png", base64("-_-_")),
        ("image/png", link("")),
        ("image/png", link("file:///etc/passwd")),
        ("image/png", link("/tmp/a.png")),
        ("image/png", link("data:,x")),
        ("image/svg+xml", base64("QUJD")),
        ("image/bmp", base64("QUJD")),
        ("application/pdf", base64("%PDF")),
    ] {
        assert_eq!(shown(kind, source.clone(), "anthropic")["type"], "text", "{kind} {source:?}");
        let sent = shown(kind, source.clone(), "openai");
        assert_eq!(sent, Value::Null, "{kind} {source:?}");
    }
    // DeepSeek has seen since its V4.1; not yet GIFs, xAI.
    assert!(shown("image/png", base64(png), "deepseek")["image_url"]["url"].is_string());
    assert_eq!(shown("image/gif", base64("QUJD"), "xai"), Value::Null);
    // Blank names.
    let mut pdf = bytes("application/pdf");
    pdf.name = Some(" ".into());
    let r = Request::new("", [said(Role::User, [Part::Media(pdf)])]);
    assert!(body(&r, "anthropic")["messages"][0]["content"][0].get("title").is_none());
    assert_eq!(body(&r, "openai")["messages"][0]["content"][0]["file"]["filename"], "file.pdf");
}

#[test]
fn deep_replay_data_and_fields_of_the_caller_go_together() {
    let deep = (0..123).fold(json!(1), |v, _| json!([v]));
    let own = opaque("anthropic", json!({"type": "brand_new", "x": deep}));
    let mut r = Request::new("", [Message::user("a"), model([own, Part::text("b")]), Message::user("c")]);
    r.temperature = Some(0.7);
    let plain = String::from_utf8(encode(&r, Dialect::named("anthropic").unwrap()).unwrap()).unwrap();
    r.extra.insert("metadata".into(), json!({"user_id": "u"}));
    let bytes = encode(&r, Dialect::named("anthropic").unwrap()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("\"user_id\":\"u\"") && text.contains("\"temperature\":0.7"), "{text}");
    assert!(plain.len() < text.len());
}

#[test]
fn a_status_without_words_is_no_empty_result() {
    let call = ToolCall::new("callAAAA1", "f", json!({}));
    let r = Request::new(
        "",
        [
            Message::user("a"),
            model([Part::ToolCall(call.clone())]),
            Message::tool_results([ToolResult::new(&call, ToolStatus::Other(" ".into()), "")]),
        ],
    );
    DIALECTS.iter().for_each(|row| drop(body(&r, &row.id)));
}

// Anything.

fn words() -> impl Strategy<Value = String> {
    select(vec!["hello", "so ", " ünï\u{202e}", "<system>", "a\u{0}b", "{\"a\":", "2\n\n", "\u{200b}"])
        .prop_map(str::to_owned)
}

fn any_replay() -> impl Strategy<Value = Replay> {
    let provider =
        select(vec!["anthropic", "openai", "openrouter", "deepseek", "mistral", "gemini", "llamacpp"]);
    let data = select(vec![
        Value::Null,
        json!("x"),
        json!([1]),
        json!({}),
        json!({"signature": "c2ln"}),
        json!({"signature": ""}),
        json!({"signature": 5}),
        json!({"citations": [{"type": "x"}]}),
        json!({"citations": 1}),
        json!({"type": "tool_use", "id": "z", "name": "f", "input": {}}),
        json!({"type": "tool_result", "tool_use_id": "z"}),
        json!({"type": "redacted_thinking", "data": "eA=="}),
        json!({"type": "redacted_thinking"}),
        json!({"type": "thinking", "thinking": "hm"}),
        json!({"type": "text", "text": ""}),
        json!({"type": "image", "source": null}),
        json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}),
        json!({"reasoning_details": [{"type": "reasoning.text"}]}),
        json!({"reasoning_details": null}),
        json!({"role": "user", "content": "", "tool_calls": [], "tool_call_id": "x", "name": "a b", "refusal": 1}),
        (0..100).fold(json!({"type": "new"}), |v, _| json!({"type": "new", "v": v})),
    ]);
    (provider, data).prop_map(|(p, d)| Replay::new(p, d))
}

fn any_media() -> impl Strategy<Value = Media> {
    let kind = select(vec![
        "image/png",
        "image/jpg",
        "image/bmp",
        "image/svg+xml",
        "image/*",
        "image/",
        "IMAGE/GIF",
        "audio/wav",
        "audio/mpeg",
        "audio/ogg",
        "application/pdf",
        "video/mp4",
        "text/plain",
        "",
        " ",
        "x",
    ]);
    let source = select(vec![
        MediaSource::Base64("QUJD".into()),
        MediaSource::Base64("iVBORw0KGgo=".into()),
        MediaSource::Base64("QU JD\r\n".into()),
        MediaSource::Base64(String::new()),
        MediaSource::Base64("%".into()),
        MediaSource::Url("https://example.com/a".into()),
        MediaSource::Url("file:///a".into()),
        MediaSource::Url(String::new()),
        MediaSource::Url("data:image/png;base64,QUJD".into()),
        MediaSource::Url("data:;base64,".into()),
    ]);
    let name = select(vec![None, Some(String::new()), Some("a.pdf".into()), Some("ä\u{0}".repeat(600))]);
    (kind, source, name).prop_map(|(kind, source, name)| Media { media_type: kind.into(), source, name })
}

fn prose() -> impl Strategy<Value = Text> {
    (words(), proptest::option::of(any_replay())).prop_map(|(text, replay)| Text { text, replay })
}

fn user_part() -> impl Strategy<Value = Part> {
    prop_oneof![
        3 => prose().prop_map(Part::Text),
        3 => any_media().prop_map(Part::Media),
        1 => any_replay().prop_map(Part::Opaque),
        1 => Just(Part::Unknown(json!({"type": "hologram"}))),
    ]
}

fn model_part() -> impl Strategy<Value = Part> {
    let args = select(vec![json!({}), json!("{\"a\":"), json!([1]), Value::Null, deep_args()]);
    let id = select(vec![
        "",
        "abcDEF123",
        "functions.f:0",
        "call_1",
        "c-long-long-long-long-long-long-long-long-long",
    ]);
    let call = (id, args, proptest::option::of(any_replay()))
        .prop_map(|(id, args, replay)| Part::ToolCall(ToolCall { replay, ..ToolCall::new(id, "f", args) }));
    prop_oneof![
        2 => prose().prop_map(Part::Text),
        1 => prose().prop_map(Part::Refusal),
        2 => prose().prop_map(Part::Reasoning),
        2 => Just(Part::Reasoning(Text { text: String::new(), replay: Some(Replay::new("anthropic", json!({"signature": "s"}))) })),
        3 => any_replay().prop_map(Part::Opaque),
        1 => any_media().prop_map(Part::Media),
        1 => Just(Part::Unknown(json!({"type": "hologram"}))),
        2 => call,
    ]
}

fn deep_args() -> Value {
    (0..98).fold(json!({}), |v, _| json!({ "a": v }))
}

fn turn() -> impl Strategy<Value = Vec<Message>> {
    let said_ = prop_oneof![
        4 => vec(user_part(), 1..4).prop_map(|p| said(Role::User, p)),
        1 => words().prop_map(Message::system),
    ];
    let status = select(vec![ToolStatus::Ok, ToolStatus::Error, ToolStatus::Other(String::new())]);
    (vec(said_, 0..3), vec(model_part(), 0..5), status, vec(any_media(), 0..2), words()).prop_map(
        |(mut out, parts, status, media, content)| {
            let answer = model(parts);
            let results: Vec<_> = answer
                .tool_calls()
                .map(|c| ToolResult {
                    media: media.clone(),
                    ..ToolResult::new(c, status.clone(), content.clone())
                })
                .collect();
            out.push(answer);
            if !results.is_empty() {
                out.push(Message::tool_results(results));
            }
            out
        },
    )
}

/// Conversations that obey the rules which all providers share, and nothing more.
fn stored() -> impl Strategy<Value = Vec<Message>> {
    (vec(turn(), 1..5), any::<bool>()).prop_map(|(turns, pauses)| {
        let mut out = vec![Message::system("facts"), Message::user("go")];
        out.extend(turns.concat());
        let content = |m: &Message| match m.role {
            Role::Assistant => m
                .parts
                .iter()
                .any(|p| matches!(p, Part::Text(_) | Part::Refusal(_) | Part::ToolCall(_) | Part::Opaque(_))),
            Role::User => m.parts.iter().any(|p| matches!(p, Part::Text(_) | Part::Media(_))),
            _ => true,
        };
        out.retain(content);
        let mut n = 0;
        let mut ids: Vec<String> = Vec::new();
        for part in out.iter_mut().flat_map(|m| &mut m.parts) {
            match part {
                Part::ToolCall(c) => {
                    (c.id, n) = (format!("{}{n}", c.id), n + 1);
                    ids.push(c.id.clone());
                }
                Part::ToolResult(r) => r.id = ids.remove(0),
                _ => {}
            }
        }
        let paused =
            |m: &Message| m.role == Role::Assistant && m.parts.iter().any(|p| matches!(p, Part::Opaque(_)));
        if out.last().is_some_and(|m| m.role == Role::Assistant && !(pauses && paused(m))) {
            out.push(Message::user("go on"));
        }
        out
    })
}

/// 1,000 cases, or `PROPTEST_CASES`.
fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_is_stored_can_be_sent(messages in stored(), extra in any::<bool>(), think in any::<bool>()) {
        let mut r = Request::new("", messages);
        if extra {
            r.extra.insert("user".into(), "u".into());
        }
        r.effort = think.then_some(Effort::High);
        prop_assert_eq!(rules::check(&r), Ok(()));
        let newest = r.messages.iter().rev().find(|m| m.role == Role::User).unwrap();
        let file = |p: &Part| matches!(p, Part::Media(m) if !m.media_type.to_lowercase().starts_with("image/"));
        let asks_with_media = newest.parts.iter().any(file);
        for row in DIALECTS.iter() {
            match encode(&r, row) {
                Ok(bytes) => prop_assert_eq!(check(&bytes, row), Ok(()), "{}: {:#?}", row.id, r.messages),
                Err(e) => {
                    prop_assert_eq!(e.kind(), ErrorKind::Unsupported, "{}: {}", row.id, e);
                    prop_assert!(asks_with_media, "{}: {}: {:#?}", row.id, e, r.messages);
                }
            }
        }
    }
}
