//! Any sequence of stream events: the fold takes it exactly when the grammar does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::{BTreeMap, BTreeSet};
use zo_traits::{Accumulator, ErrorKind, FinishReason, Part, PartKind, Replay, StreamEvent, Usage};

/// One event out of a byte and what follows it.
fn event(data: &mut &[u8]) -> Option<StreamEvent> {
    let mut byte = || {
        let (first, rest) = data.split_first()?;
        *data = rest;
        Some(*first)
    };
    let what = byte()?;
    let index = u32::from(what >> 5);
    Some(match what % 16 {
        0 => StreamEvent::Start { id: None, model: Some("m".into()) },
        1..=4 => {
            let kind = match byte()? % 6 {
                0 => PartKind::Reasoning,
                1 => PartKind::Refusal,
                2 | 3 => PartKind::ToolCall { id: format!("c{index}"), name: "tool".into() },
                4 => PartKind::Opaque,
                _ => PartKind::Text,
            };
            StreamEvent::PartStart { index, kind }
        }
        5..=9 => {
            let len = usize::from(byte()? % 16).min(data.len());
            let (text, rest) = data.split_at(len);
            *data = rest;
            StreamEvent::Delta { index, text: String::from_utf8_lossy(text).into_owned() }
        }
        10..=13 => {
            StreamEvent::PartEnd { index, replay: (byte()? % 2 == 0).then(|| Replay::new("family", "data")) }
        }
        14 => StreamEvent::Usage(Usage::new(u64::from(byte()?), 1)),
        _ => StreamEvent::Finish(FinishReason::Stop),
    })
}

/// The grammar, written down once more.
#[derive(Default)]
struct Grammar {
    started: bool,
    over: bool,
    used: BTreeSet<u32>,
    /// Text so far; none for opaque parts.
    open: BTreeMap<u32, Option<String>>,
    text: BTreeMap<u32, String>,
}

impl Grammar {
    fn takes(&mut self, event: &StreamEvent) -> bool {
        if self.over {
            return false;
        }
        match event {
            StreamEvent::Start { .. } => {
                let first = !self.started && self.used.is_empty();
                self.started = true;
                first
            }
            StreamEvent::PartStart { index, kind } => {
                self.open.insert(*index, (*kind != PartKind::Opaque).then(String::new));
                self.used.insert(*index)
            }
            StreamEvent::Delta { index, text } => match self.open.get_mut(index) {
                Some(Some(so_far)) => {
                    so_far.push_str(text);
                    true
                }
                _ => false,
            },
            StreamEvent::PartEnd { index, replay } => match self.open.remove(index) {
                Some(Some(text)) => {
                    self.text.insert(*index, text);
                    true
                }
                Some(None) => replay.is_some(),
                None => false,
            },
            StreamEvent::Usage(_) => true,
            StreamEvent::Finish(_) => {
                self.over = true;
                self.open.is_empty()
            }
            _ => false,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (mut fold, mut grammar) = (Accumulator::default(), Grammar::default());
    let (mut starts, mut kinds) = (Vec::new(), BTreeMap::new());
    while let Some(event) = event(&mut data) {
        let right = grammar.takes(&event);
        if let StreamEvent::PartStart { index, kind } = &event
            && right
        {
            starts.push(*index);
            kinds.insert(*index, kind.clone());
        }
        match fold.push(event.clone()) {
            Ok(()) => assert!(right, "{event:?} breaks the grammar and was taken"),
            Err(e) => {
                assert!(!right && e.kind() == ErrorKind::Corrupt, "{event:?} was refused: {e:?}");
                return;
            }
        }
        // Never an unfinished call, at any moment.
        let closed = |i: &&u32| grammar.text.contains_key(i) && matches!(kinds[i], PartKind::ToolCall { .. });
        assert_eq!(fold.partial().tool_calls().count(), starts.iter().filter(closed).count());
        assert_eq!(fold.is_finished(), grammar.over);
    }
    let whole = fold.finish();
    assert_eq!(whole.is_ok(), grammar.over, "a cut answer is never a success");
    let Ok(response) = whole else { return };
    assert_eq!(response.message.parts.len(), starts.len(), "one part for each start, in their order");
    for (index, part) in starts.iter().zip(&response.message.parts) {
        let text = grammar.text.get(index).map(String::as_str).unwrap_or_default();
        match part {
            Part::Text(t) | Part::Reasoning(t) | Part::Refusal(t) => assert_eq!(t.text, text),
            Part::ToolCall(call) => match serde_json::from_str::<serde_json::Value>(text) {
                Ok(args) => assert_eq!(call.args, args),
                Err(_) if text.trim().is_empty() => assert_eq!(call.args, serde_json::json!({})),
                Err(_) => assert_eq!(call.args, text),
            },
            part => assert!(matches!(part, Part::Opaque(_)), "{part:?}"),
        }
    }
});
