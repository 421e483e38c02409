//! The part of a conversation that the model sees.

use zo_traits::{Cx, Message, Part, Result, Role, ToolResult, ToolStatus, Transcript};

/// Most messages that are read back, however short.
const MAX_MESSAGES: u64 = 1_024;
/// The window's start moves in steps of so many messages, so that between two steps each request begins with the bytes
/// of the one before and a provider's prompt cache hits.
const STRIDE: u64 = 32;

/// The end of `conversation` that fits about `max_tokens` tokens, with the positions `[from, len)` that it was read from.
pub(crate) async fn window(
    cx: &Cx,
    transcript: &dyn Transcript,
    conversation: &str,
    max_tokens: usize,
) -> Result<(u64, u64, Vec<Message>)> {
    let len = transcript.len(cx, conversation).await?;
    let start = len.saturating_sub(MAX_MESSAGES).next_multiple_of(STRIDE).min(len);
    let mut messages = read(cx, transcript, conversation, start, len).await?;
    let mut from = start;
    let mut tokens: usize = messages.iter().map(tokens).sum();
    while tokens > max_tokens && !messages.is_empty() {
        let cut = (STRIDE - from % STRIDE).min(messages.len() as u64);
        tokens = tokens.saturating_sub(
            messages.drain(..usize::try_from(cut).unwrap_or(usize::MAX)).map(|m| self::tokens(&m)).sum(),
        );
        from += cut;
    }
    Ok((from, len, valid(messages)))
}

/// The messages `[from, base)`, as [`window`] gave them.
pub(crate) async fn read_back(
    cx: &Cx,
    transcript: &dyn Transcript,
    conversation: &str,
    from: u64,
    base: u64,
) -> Result<Vec<Message>> {
    Ok(valid(read(cx, transcript, conversation, from, base).await?))
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
/// behind it, and no message is empty. A transcript may come from anywhere, and a window may cut a turn in two.
pub(crate) fn valid(messages: Vec<Message>) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    let mut rest =
        messages.into_iter().skip_while(|m| matches!(m.role, Role::Tool | Role::Assistant)).peekable();
    while let Some(mut message) = rest.next() {
        // Results are taken up behind the message that called; any other is an orphan.
        message.parts.retain(|p| !matches!(p, Part::ToolResult(_)));
        let calls: Vec<_> = message.tool_calls().cloned().collect();
        if !message.parts.is_empty() {
            out.push(message);
        }
        if calls.is_empty() {
            continue;
        }
        let mut found: Vec<ToolResult> = Vec::new();
        while let Some(results) = rest.next_if(|m| m.role == Role::Tool) {
            found.extend(results.parts.into_iter().filter_map(|p| match p {
                Part::ToolResult(r) => Some(r),
                _ => None,
            }));
        }
        out.push(Message::tool_results(calls.iter().map(|call| {
            let mine = found.iter().position(|r| r.id == call.id).map(|i| found.swap_remove(i));
            mine.unwrap_or_else(|| {
                ToolResult::new(call, ToolStatus::Unknown, "no result is on record for this call")
            })
        })));
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
