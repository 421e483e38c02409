//! How large a request is, roughly and for free.

use serde_json::Value;
use zo_traits::{Part, Request};

/// Tokens of an answer of which nobody said how long it may be.
const ANSWER: u64 = 1024;
/// Tokens of an image, a sound or a document, whatever its size: providers scale them down.
const MEDIA: u64 = 1500;

/// Prompt tokens of `request`: a quarter of the bytes of its texts. Always the same for the same request.
pub(super) fn prompt(request: &Request) -> u64 {
    let (mut bytes, mut media) = (0, 0u64);
    for part in request.messages.iter().flat_map(|m| &m.parts) {
        bytes += match part {
            Part::Text(t) | Part::Reasoning(t) | Part::Refusal(t) => t.text.len(),
            Part::ToolCall(c) => c.name.len() + json(&c.args),
            Part::ToolResult(r) => {
                media += r.media.len() as u64;
                r.content.len()
            }
            Part::Media(_) => {
                media += 1;
                0
            }
            Part::Opaque(r) => json(&r.data),
            Part::Unknown(v) => json(v),
            _ => 0,
        };
    }
    for tool in request.tools.iter() {
        bytes += tool.name.len() + tool.description.len() + json(&tool.input);
    }
    bytes += request.output_schema.as_deref().map_or(0, json);
    (bytes as u64).div_ceil(4).saturating_add(media.saturating_mul(MEDIA))
}

/// Tokens of `request` and its answer together.
pub(super) fn total(request: &Request) -> u64 {
    prompt(request).saturating_add(request.max_tokens.map_or(ANSWER, u64::from))
}

/// Bytes of a JSON text, without writing it.
fn json(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 6,
        Value::String(s) => s.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|v| json(v) + 1).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(k, v)| k.len() + 4 + json(v)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zo_traits::{Message, ToolCall};

    #[test]
    fn an_estimate_follows_the_size() {
        let mut request = Request::new("m", [Message::user("x".repeat(400))]);
        assert_eq!((prompt(&request), total(&request)), (100, 100 + ANSWER));
        request.max_tokens = Some(50);
        assert_eq!(total(&request), 150);
        let call = ToolCall::new("a", "search", serde_json::json!({"query": "y".repeat(400), "n": [1, 2]}));
        request
            .messages
            .push(Message { role: zo_traits::Role::Assistant, parts: vec![Part::ToolCall(call)] });
        assert!((200..220).contains(&prompt(&request)), "{}", prompt(&request));
    }
}
