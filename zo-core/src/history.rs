//! The part of a conversation that the model sees.

use crate::toolbox::clip;
use std::collections::{HashMap, HashSet, VecDeque};
use zo_traits::{Cx, Message, Part, Result, Role, ToolResult, ToolStatus, Transcript};

/// Most messages that are read back, however short.
const MAX_MESSAGES: u64 = 1_024;
/// The window's start moves in steps of so many messages, so that between two steps each request begins with the bytes
/// of the one before and a provider's prompt cache hits.
const STRIDE: u64 = 32;
/// What is left of a tool result in a turn that is too long by itself, in bytes.
const SHORT_RESULT: usize = 1_000;

/// The end of `conversation` that fits about `max_tokens` tokens, with the positions `[from, len)` that it was read from. The
/// last turn is always in it, if shortened.
pub(crate) async fn window(
    cx: &Cx,
    transcript: &dyn Transcript,
    conversation: &str,
    max_tokens: usize,
) -> Result<(u64, u64, Vec<Message>)> {
    let len = transcript.len(cx, conversation).await?;
    let (mut from, mut total, mut messages) = (len, 0, Vec::new());
    while from > 0 && len - from < MAX_MESSAGES {
        let start = (from - 1) / STRIDE * STRIDE;
        let mut chunk = read(cx, transcript, conversation, start, from).await?;
        let more: usize = chunk.iter().map(tokens).sum();
        // Enough, unless no turn has begun yet in what was read.
        if total + more > max_tokens && messages.iter().any(is_question) {
            break;
        }
        total += more;
        chunk.append(&mut messages);
        (messages, from) = (chunk, start);
    }
    Ok((from, len, fit(messages, max_tokens)))
}

/// The messages `[from, base)`, as [`window`] gave them.
pub(crate) async fn read_back(
    cx: &Cx,
    transcript: &dyn Transcript,
    conversation: &str,
    from: u64,
    base: u64,
    max_tokens: usize,
) -> Result<Vec<Message>> {
    Ok(fit(read(cx, transcript, conversation, from, base).await?, max_tokens))
}

/// Makes the messages valid, and short enough: first only the last turn is kept, then its tool results are shortened, then
/// only its question and its answer stay.
fn fit(messages: Vec<Message>, max_tokens: usize) -> Vec<Message> {
    let long = |m: &[Message]| m.iter().map(tokens).sum::<usize>() > max_tokens;
    let mut messages = valid(messages);
    if !long(&messages) {
        return messages;
    }
    if let Some(last) = messages.iter().rposition(is_question) {
        messages.drain(..last);
    }
    if long(&messages) {
        for result in messages.iter_mut().flat_map(|m| &mut m.parts) {
            if let Part::ToolResult(r) = result {
                r.content = clip(&r.content, SHORT_RESULT, None);
                r.media.clear();
            }
        }
    }
    if long(&messages) && messages.len() > 2 {
        let answer = messages.pop().filter(|m| m.role == Role::Assistant && m.tool_calls().next().is_none());
        messages.truncate(1);
        messages.extend(answer);
    }
    messages
}

fn is_question(message: &Message) -> bool {
    message.role == Role::User
}

async fn read(
    cx: &Cx,
    transcript: &dyn Transcript,
    conversation: &str,
    from: u64,
    to: u64,
) -> Result<Vec<Message>> {
    let n = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    if n == 0 { Ok(Vec::new()) } else { transcript.read(cx, conversation, from, n).await }
}

/// Estimated tokens of a message: a quarter of its bytes, and a few for the frame. Media count as a flat 1,500.
pub(crate) fn tokens(message: &Message) -> usize {
    let bytes: usize = message
        .parts
        .iter()
        .map(|p| match p {
            Part::Text(t) | Part::Reasoning(t) | Part::Refusal(t) => t.text.len(),
            Part::Media(_) => 6_000,
            Part::ToolCall(c) => c.name.len() + c.args.to_string().len(),
            Part::ToolResult(r) => r.content.len() + r.media.len() * 6_000,
            Part::Opaque(r) => r.data.to_string().len(),
            _ => 0,
        })
        .sum();
    bytes / 4 + 4
}

/// The same messages as a request may hold them: they start where a turn starts, every tool call has its one result right
/// behind it, no id of a call comes twice, and no message is empty. A transcript may come from anywhere, and a window may
/// cut a turn in two.
pub(crate) fn valid(messages: Vec<Message>) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    let mut ids: HashSet<String> = HashSet::new();
    let mut rest =
        messages.into_iter().skip_while(|m| matches!(m.role, Role::Tool | Role::Assistant)).peekable();
    while let Some(mut message) = rest.next() {
        // Results are taken up behind the message that called; any other is an orphan.
        message.parts.retain(|p| !matches!(p, Part::ToolResult(_)));
        if message.parts.is_empty() || message.role == Role::Tool {
            continue;
        }
        let mut found: HashMap<String, VecDeque<ToolResult>> = HashMap::new();
        if message.tool_calls().next().is_some() {
            while let Some(results) = rest.next_if(|m| m.role == Role::Tool) {
                for part in results.parts {
                    if let Part::ToolResult(r) = part {
                        found.entry(r.id.clone()).or_default().push_back(r);
                    }
                }
            }
        }
        let mut results = Vec::new();
        for part in &mut message.parts {
            let Part::ToolCall(call) = part else { continue };
            let result = found.get_mut(&call.id).and_then(VecDeque::pop_front);
            if !ids.insert(call.id.clone()) {
                call.id = format!("{}-{}", call.id, ids.len() + 1);
                ids.insert(call.id.clone());
            }
            let mut result = result.unwrap_or_else(|| {
                ToolResult::new(call, ToolStatus::Unknown, "no result is on record for this call")
            });
            result.id.clone_from(&call.id);
            results.push(result);
        }
        out.push(message);
        if !results.is_empty() {
            out.push(Message::tool_results(results));
        }
    }
    out
}

/// Drops the older half of a window, at the start of a turn. `false` when there is nothing left to drop.
pub(crate) fn halve(messages: &mut Vec<Message>) -> bool {
    if messages.is_empty() {
        return false;
    }
    let half = messages.len().div_ceil(2);
    let kept = messages.split_off(half);
    *messages = valid(kept);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use zo_traits::ToolCall;

    fn call(id: &str) -> Message {
        Message { role: Role::Assistant, parts: vec![Part::ToolCall(ToolCall::new(id, "t", json!({})))] }
    }

    fn result(id: &str) -> Message {
        Message::tool_results([ToolResult::new(&ToolCall::new(id, "t", json!({})), ToolStatus::Ok, "r")])
    }

    #[test]
    fn orphans_are_mended() {
        let got = valid(vec![
            result("lost"),
            Message::assistant("tail of a cut turn"),
            Message::user("u"),
            call("a"),
            Message::user("interrupted"),
            result("a"),
            call("b"),
            result("b"),
            Message { role: Role::Assistant, parts: vec![] },
        ]);
        assert_eq!(
            got.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(),
            ["user", "assistant", "tool", "user", "assistant", "tool"]
        );
        assert_eq!(got[2].results().next().unwrap().status, ToolStatus::Unknown);
        assert_eq!(got[5].results().next().unwrap().status, ToolStatus::Ok);
    }

    #[test]
    fn ids_that_come_twice_are_told_apart() {
        let got = valid(vec![
            Message::user("u"),
            call("a"),
            result("a"),
            Message::user("v"),
            call("a"),
            result("a"),
        ]);
        let ids: Vec<_> = got.iter().flat_map(|m| m.results()).map(|r| r.id.clone()).collect();
        let calls: Vec<_> = got.iter().flat_map(|m| m.tool_calls()).map(|c| c.id.clone()).collect();
        assert!(ids == calls && ids[0] != ids[1], "{ids:?}");
        assert!(got.iter().flat_map(|m| m.results()).all(|r| r.status == ToolStatus::Ok));
    }

    #[test]
    fn a_turn_that_is_too_long_is_shortened_and_not_forgotten() {
        let mut turn = vec![Message::user("old"), Message::assistant("x"), Message::user("Find the tickets")];
        for i in 0..40 {
            turn.push(call(&format!("{i}")));
            let mut r = result(&format!("{i}"));
            if let Part::ToolResult(r) = &mut r.parts[0] {
                r.content = "long ".repeat(2_000);
            }
            turn.push(r);
        }
        turn.push(Message::assistant("Two tickets, 40 euros"));
        let some = fit(turn.clone(), 20_000);
        assert_eq!(some[0].to_text(), "Find the tickets");
        assert!(some.len() == 82 && some.iter().map(tokens).sum::<usize>() < 20_000);
        let least = fit(turn, 2_000);
        assert_eq!(
            least.iter().map(Message::to_text).collect::<Vec<_>>(),
            ["Find the tickets", "Two tickets, 40 euros"]
        );
    }

    #[test]
    fn valid_history_is_left_alone() {
        let history = vec![
            Message::system("facts"),
            Message::user("u"),
            call("a"),
            result("a"),
            Message::assistant("x"),
        ];
        assert_eq!(valid(history.clone()), history);
    }

    #[test]
    fn halving_ends() {
        let mut m: Vec<_> =
            (0..50).flat_map(|i| [Message::user(format!("{i}")), Message::assistant("a")]).collect();
        let mut n = 0;
        while halve(&mut m) {
            n += 1;
            assert!(n < 20);
        }
    }
}
