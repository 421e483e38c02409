//! The JSON that people have on disk. A change that breaks one of these texts loses somebody's history: add a new case
//! instead, and keep reading the old one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::json;
use std::time::Duration;
use zo_traits::{
    Effect, FinishReason, Media, MediaSource, MemoryId, Message, Part, Replay, Response, Role, Scope, Text,
    Timestamp, ToolCall, ToolResult, ToolSpec, ToolStatus, Touch, Usage,
};

/// `value` is written as `text`, and `text` is read as `value`.
fn golden<T>(value: &T, text: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_string(value).unwrap(), text);
    assert_eq!(&serde_json::from_str::<T>(text).unwrap(), value);
}

#[test]
fn messages() {
    golden(&Message::user("hi"), r#"{"role":"user","parts":[{"type":"text","text":"hi"}]}"#);
    golden(
        &Message {
            role: Role::Assistant,
            parts: vec![
                Part::Reasoning(Text {
                    text: "hm".into(),
                    replay: Some(Replay::new("anthropic", json!({"signature": "c2ln"}))),
                }),
                Part::text("Let me look."),
                Part::ToolCall(ToolCall::new("call_1", "weather", json!({"city": "Rome"}))),
                Part::Opaque(Replay::new("openai.responses", json!({"type": "web_search_call"}))),
                Part::Refusal(Text::new("no")),
            ],
        },
        concat!(
            r#"{"role":"assistant","parts":["#,
            r#"{"type":"reasoning","text":"hm","replay":{"provider":"anthropic","data":{"signature":"c2ln"}}},"#,
            r#"{"type":"text","text":"Let me look."},"#,
            r#"{"type":"tool_call","id":"call_1","name":"weather","args":{"city":"Rome"}},"#,
            r#"{"type":"opaque","provider":"openai.responses","data":{"type":"web_search_call"}},"#,
            r#"{"type":"refusal","text":"no"}]}"#
        ),
    );
    golden(
        &Message::tool_results([ToolResult {
            id: "call_1".into(),
            name: "weather".into(),
            status: ToolStatus::Ok,
            content: "21 C".into(),
            media: vec![Media {
                media_type: "image/png".into(),
                source: MediaSource::Base64("aGk=".into()),
                name: None,
            }],
        }]),
        concat!(
            r#"{"role":"tool","parts":[{"type":"tool_result","id":"call_1","name":"weather","status":"ok","#,
            r#""content":"21 C","media":[{"media_type":"image/png","source":{"base64":"aGk="}}]}]}"#
        ),
    );
    golden(
        &Part::Media(Media {
            media_type: "application/pdf".into(),
            source: MediaSource::Url("https://example.org/a.pdf".into()),
            name: Some("a.pdf".into()),
        }),
        r#"{"type":"media","media_type":"application/pdf","source":{"url":"https://example.org/a.pdf"},"name":"a.pdf"}"#,
    );
}

#[test]
fn responses() {
    let mut answer = Response::new(Message::assistant("x"), FinishReason::Length);
    answer.usage = Usage::new(3, 4);
    answer.model = Some("m".into());
    golden(
        &answer,
        concat!(
            r#"{"message":{"role":"assistant","parts":[{"type":"text","text":"x"}]},"finish":"length","#,
            r#""usage":{"input":3,"output":4,"cache_read":0,"cache_write":0,"reasoning":0},"model":"m"}"#
        ),
    );
}

#[test]
fn small_words() {
    golden(&Timestamp(-5), "-5");
    golden(&Scope::new("user/7"), r#""user/7""#);
    golden(&MemoryId(0x12), r#""00000000000000000000000000000012""#);
    golden(
        &ToolSpec::new("t", "d", json!({"type": "object"})).effect(Effect::Pure),
        r#"{"name":"t","description":"d","input":{"type":"object"},"effect":"pure","serial":false}"#,
    );
}

#[test]
fn what_tools_say_of_themselves() {
    golden(
        &ToolSpec::new("t", "d", json!({"type": "object"}))
            .effect(Effect::Idempotent)
            .touch(Touch::writes("file").path("path"))
            .touch(Touch::reads("account").arg("/from/id"))
            .touch(Touch::writes("canvas"))
            .scope("files:write")
            .scope("net")
            .timeout(Duration::from_millis(1_500))
            .max_parallel(2),
        concat!(
            r#"{"name":"t","description":"d","input":{"type":"object"},"effect":"idempotent","serial":false,"#,
            r#""touches":[{"what":"file","arg":"path","path":true,"write":true},"#,
            r#"{"what":"account","arg":"/from/id","write":false},{"what":"canvas","write":true}],"#,
            r#""scopes":["files:write","net"],"timeout":{"secs":1,"nanos":500000000},"max_parallel":2}"#
        ),
    );
}

#[test]
fn what_a_newer_version_wrote_survives() {
    for text in [
        r#"{"role":"narrator","parts":[{"type":"hologram","depth":3,"nested":{"a":[1,null]}}]}"#,
        r#"{"role":"assistant","parts":[{"type":"text","words":"a text part without its text"}]}"#,
        r#"{"role":"tool","parts":[{"type":"tool_result","id":"1","name":"t","status":"teleported","content":""}]}"#,
    ] {
        let message: Message = serde_json::from_str(text).unwrap();
        assert_eq!(
            serde_json::to_value(&message).unwrap(),
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
    }
    assert_eq!(
        serde_json::from_str::<FinishReason>(r#""tired""#).unwrap(),
        FinishReason::Other("tired".into())
    );
    assert_eq!(serde_json::to_string(&FinishReason::Other("tired".into())).unwrap(), r#""tired""#);
}

#[test]
fn what_an_older_version_wrote_is_read() {
    let spec: ToolSpec = serde_json::from_str(r#"{"name":"t","description":"d","input":{}}"#).unwrap();
    assert_eq!(
        (spec.effect, spec.serial),
        (Effect::AtMostOnce, false),
        "an unstated effect is the cautious one"
    );
    assert!(spec.touches.is_empty() && spec.scopes.is_empty());
    assert_eq!((spec.timeout, spec.max_parallel), (None, None));
    // A newer version may say more of what is touched.
    let touch: Touch = serde_json::from_str(r#"{"what":"file","write":true,"depth":1}"#).unwrap();
    assert_eq!(touch, Touch::writes("file"));
    let result: ToolResult =
        serde_json::from_str(r#"{"id":"1","name":"t","status":"ok","content":"x","later":true}"#).unwrap();
    assert!(result.media.is_empty());
}

#[test]
fn numbers_stay_what_they_are() {
    let text = r#"{"id":"1","name":"t","args":{"x":1.2345678901234567e+20,"y":0.1,"z":9007199254740993}}"#;
    let mut call: ToolCall = serde_json::from_str(text).unwrap();
    for _ in 0..5 {
        let again = serde_json::to_string(&call).unwrap();
        assert_eq!(again, text);
        call = serde_json::from_str(&again).unwrap();
    }
}
