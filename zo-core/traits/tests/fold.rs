//! The grammar of streamed answers, tried with arbitrary events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::json;
use zo_traits::{
    Accumulator, ErrorKind, FinishReason, Message, Part, PartKind, Replay, Response, Role, StreamEvent, Text,
    ToolCall, Usage,
};

fn fold(events: impl IntoIterator<Item = StreamEvent>) -> zo_traits::Result<Response> {
    let mut acc = Accumulator::default();
    for event in events {
        acc.push(event)?;
    }
    acc.finish()
}

fn event() -> impl Strategy<Value = StreamEvent> {
    let kind = prop_oneof![
        Just(PartKind::Text),
        Just(PartKind::Reasoning),
        Just(PartKind::Refusal),
        Just(PartKind::Opaque),
        Just(PartKind::ToolCall { id: "1".into(), name: "t".into() }),
    ];
    prop_oneof![
        Just(StreamEvent::Start { id: None, model: None }),
        (0u32..4, kind).prop_map(|(index, kind)| StreamEvent::PartStart { index, kind }),
        (0u32..4, "[a-z{}\":]{0,4}").prop_map(|(index, text)| StreamEvent::Delta { index, text }),
        (0u32..4, any::<bool>()).prop_map(|(index, r)| StreamEvent::PartEnd {
            index,
            replay: r.then(|| Replay::new("p", json!(1)))
        }),
        Just(StreamEvent::Usage(Usage::new(1, 2))),
        Just(StreamEvent::Finish(FinishReason::Stop)),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let text = ("\\PC{0,8}", any::<bool>())
        .prop_map(|(text, r)| Text { text, replay: r.then(|| Replay::new("p", json!({"s": 1}))) });
    prop_oneof![
        text.clone().prop_map(Part::Text),
        text.clone().prop_map(Part::Reasoning),
        text.prop_map(Part::Refusal),
        "[a-z]{1,3}".prop_map(|id| Part::ToolCall(ToolCall::new(id, "t", json!({"a": [1, "x"]})))),
        Just(Part::Opaque(Replay::new("p", json!({"type": "b"})))),
    ]
}

proptest! {
    /// Every error is `Corrupt`, and a stream without its end never is a success.
    #[test]
    fn arbitrary_events_fold_or_are_corrupt(events in proptest::collection::vec(event(), 0..24)) {
        let ended = events.iter().any(|e| matches!(e, StreamEvent::Finish(_)));
        match fold(events) {
            Ok(_) => prop_assert!(ended),
            Err(e) => prop_assert_eq!(e.kind(), ErrorKind::Corrupt),
        }
    }

    /// An answer taken apart into events folds back into itself, and every proper beginning of them is an error.
    #[test]
    fn answers_survive_the_trip(parts in proptest::collection::vec(part(), 0..6)) {
        let mut answer = Response::new(Message { role: Role::Assistant, parts }, FinishReason::ToolCalls);
        answer.usage = Usage::new(7, 9);
        answer.id = Some("id".into());
        let events = answer.clone().into_events();
        for cut in 0..events.len() {
            prop_assert!(fold(events[..cut].iter().cloned()).is_err());
        }
        prop_assert_eq!(fold(events).unwrap(), answer);
    }
}

#[test]
fn arguments_that_are_not_json_are_kept_and_never_invented() {
    let call = |args: &str| {
        let events = [
            StreamEvent::PartStart {
                index: 0,
                kind: PartKind::ToolCall { id: "1".into(), name: "t".into() },
            },
            StreamEvent::Delta { index: 0, text: args.into() },
            StreamEvent::PartEnd { index: 0, replay: None },
            StreamEvent::Finish(FinishReason::ToolCalls),
        ];
        fold(events).unwrap().message.tool_calls().next().unwrap().args.clone()
    };
    assert_eq!(call(r#"{"a":"#), json!(r#"{"a":"#));
    assert_eq!(call(" "), json!({}));
    // Blank text that was kept as text does not turn into an empty object on its way back.
    for blank in ["", " "] {
        let parts = vec![Part::ToolCall(ToolCall::new("1", "t", json!(blank)))];
        let answer = Response::new(Message { role: Role::Assistant, parts }, FinishReason::ToolCalls);
        assert_eq!(fold(answer.clone().into_events()).unwrap(), answer);
    }
    assert_eq!(
        call(&"[".repeat(100_000)),
        json!("[".repeat(100_000)),
        "deep nesting is refused, not overflowed"
    );
}
