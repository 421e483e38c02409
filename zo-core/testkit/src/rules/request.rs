//! The rules that all providers share, over the messages of a request.

use super::{Found, Rule, Violation, blank, object_schema, plain};
use std::collections::HashSet;
use zo_traits::{Message, Part, Request, Role, ToolChoice};

/// Longest id of a tool call: the Responses API's limit for a `call_id`.
const MAX_ID: usize = 64;

/// What [`check`] demands.
pub static RULES: &[Rule] = &[
    Rule {
        name: "has-messages",
        says: "a request has a message of the user",
        source: "https://docs.anthropic.com/en/api/messages: messages: at least one message is required",
    },
    Rule {
        name: "known-role",
        says: "roles are system, user, assistant, tool",
        source: "https://platform.openai.com/docs/api-reference/chat/create",
    },
    Rule {
        name: "user-begins",
        says: "behind system messages the user speaks first",
        source: "https://docs.anthropic.com/en/api/messages: first message must use the \"user\" role",
    },
    Rule {
        name: "user-ends",
        says: "the last message is not the model's, unless it paused in the middle of its provider's own work",
        source: "https://docs.anthropic.com/en/docs/build-with-claude/prompt-engineering/prefill-claudes-response: \
                 not supported by newer models; Mistral: Expected last role User or Tool",
    },
    Rule {
        name: "content",
        says: "every message has content that its role can have",
        source: "https://docs.anthropic.com/en/api/errors: all messages must have non-empty content",
    },
    Rule {
        name: "blank-text",
        says: "no text is only white space",
        source: "https://docs.anthropic.com/en/api/errors: text content blocks must contain non-whitespace text",
    },
    Rule {
        name: "part-in-role",
        says: "calls, refusals and reasoning are the assistant's, results the tool's, media not the host's",
        source: "https://platform.openai.com/docs/api-reference/chat/create: the message types",
    },
    Rule {
        name: "results-follow",
        says: "right behind calls stands one message with one result for each, in call order",
        source: "https://platform.openai.com/docs/guides/function-calling: an assistant message with 'tool_calls' must \
                 be followed by tool messages responding to each 'tool_call_id'",
    },
    Rule {
        name: "orphan-result",
        says: "no result stands anywhere else",
        source: "https://platform.openai.com/docs/guides/function-calling: messages with role 'tool' must be a response \
                 to a preceding message with 'tool_calls'",
    },
    Rule {
        name: "result-name",
        says: "a result bears the name of the call",
        source: "https://ai.google.dev/gemini-api/docs/function-calling: functionResponse.name",
    },
    Rule {
        name: "result-content",
        says: "a result holds something",
        source: "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use: blank text blocks are refused",
    },
    Rule {
        name: "unique-id",
        says: "no two calls have the same id",
        source: "https://docs.anthropic.com/en/api/errors: `tool_use` ids must be unique",
    },
    Rule {
        name: "id",
        says: "an id is 1 to 64 visible ASCII characters",
        source: "https://platform.openai.com/docs/api-reference/responses: call_id: string too long, at most 64",
    },
    Rule {
        name: "call-name",
        says: "the name of a call is [a-zA-Z0-9_-]{1,64}",
        source: "https://platform.openai.com/docs/api-reference/chat/create: does not match '^[a-zA-Z0-9_-]+$'",
    },
    Rule {
        name: "depth",
        says: "arguments are nested less than 100 deep: with what is around them, parsers stop at 128",
        source: "https://docs.rs/serde_json: recursion limit 128",
    },
    Rule {
        name: "tool-name",
        says: "the name of a tool is [a-zA-Z0-9_-]{1,64}, and comes once",
        source: "https://docs.anthropic.com/en/api/messages: tools: Tool names must be unique",
    },
    Rule {
        name: "tool-schema",
        says: "the schema of a tool is one of an object",
        source: "https://docs.anthropic.com/en/api/messages: tools.input_schema.type: object",
    },
    Rule {
        name: "tool-choice",
        says: "a tool that must be called is on offer",
        source: "https://platform.openai.com/docs/api-reference/chat/create: 'tool_choice' is only allowed when 'tools' are specified",
    },
];

/// Checks a request against the rules that all providers share.
///
/// # Errors
/// Every violation.
pub fn check(request: &Request) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    messages(&request.messages, &mut found);
    let mut names = HashSet::new();
    for (i, tool) in request.tools.iter().enumerate() {
        let fine = plain(&tool.name, 64) && names.insert(&tool.name);
        found.must(fine, "tool-name", format_args!("/tools/{i}/name"), &tool.name);
        found.must(object_schema(&tool.input), "tool-schema", format_args!("/tools/{i}/input"), &tool.input);
    }
    let choice = match &request.tool_choice {
        ToolChoice::Tool(name) => names.contains(name),
        ToolChoice::Required => !names.is_empty(),
        _ => true,
    };
    found.must(choice, "tool-choice", "/tool_choice", format_args!("{:?}", request.tool_choice));
    found.done()
}

fn messages(messages: &[Message], found: &mut Found) {
    let speaks = |m: &&Message| m.role != Role::System;
    match messages.iter().find(speaks).map(|m| &m.role) {
        None => found.add("has-messages", "/messages", format_args!("{} of the host's", messages.len())),
        Some(Role::User) => {}
        Some(other) => found.add("user-begins", "/messages", other),
    }
    if let Some(last) = messages.last().filter(|m| m.role == Role::Assistant) {
        let paused = last.parts.iter().any(|p| matches!(p, Part::Opaque(_)));
        found.must(paused, "user-ends", format_args!("/messages/{}", messages.len() - 1), "an answer");
    }
    let mut ids = HashSet::new();
    for (i, message) in messages.iter().enumerate() {
        content(message, &format!("/messages/{i}"), found);
        for call in message.tool_calls() {
            let at = format!("/messages/{i}: {:?}", call.id);
            found.must(ids.insert(&call.id), "unique-id", &at, &call.id);
            let visible = call.id.bytes().all(|b| (0x21..=0x7e).contains(&b));
            found.must(visible && (1..=MAX_ID).contains(&call.id.len()), "id", &at, &call.id);
            found.must(plain(&call.name, 64), "call-name", &at, &call.name);
            found.must(nested(&call.args) < 100, "depth", &at, nested(&call.args));
        }
        let asked: Vec<_> = message.tool_calls().map(|c| (&c.id, &c.name)).collect();
        let next: Vec<_> = match messages.get(i + 1) {
            Some(m) if m.role == Role::Tool => m.results().map(|r| (&r.id, &r.name)).collect(),
            _ => Vec::new(),
        };
        let same = |(a, b): (&(&String, &String), &(&String, &String))| a.0 == b.0;
        if !asked.is_empty() {
            let fine = asked.len() == next.len() && asked.iter().zip(&next).all(same);
            found.must(fine, "results-follow", format_args!("/messages/{}", i + 1), format_args!("{next:?}"));
            for (call, result) in asked.iter().zip(&next).filter(|(a, b)| a.0 == b.0) {
                found.must(
                    call.1 == result.1,
                    "result-name",
                    format_args!("/messages/{}", i + 1),
                    format_args!("{result:?}"),
                );
            }
        }
        let behind_calls = i > 0 && messages[i - 1].tool_calls().next().is_some();
        let orphan = message.results().next().is_some() && !behind_calls;
        found.must(!orphan, "orphan-result", format_args!("/messages/{i}"), "no call before it");
    }
}

fn content(message: &Message, at: &str, found: &mut Found) {
    let role = &message.role;
    let mut any = false;
    for (n, part) in message.parts.iter().enumerate() {
        let at = format!("{at}/parts/{n}");
        let (here, says) = match part {
            Part::Text(t) => {
                let replayed = t.replay.is_some() && *role == Role::Assistant;
                found.must(replayed || !blank(&t.text), "blank-text", &at, format_args!("{:?}", t.text));
                (*role != Role::Tool, !blank(&t.text))
            }
            Part::Refusal(t) => {
                found.must(t.replay.is_some() || !blank(&t.text), "blank-text", &at, format_args!("{t:?}"));
                (*role == Role::Assistant, !blank(&t.text))
            }
            Part::Reasoning(_) => (*role == Role::Assistant, false),
            Part::ToolCall(_) => (*role == Role::Assistant, true),
            Part::Media(_) => (matches!(role, Role::User | Role::Assistant), *role == Role::User),
            Part::Opaque(_) => (*role != Role::Tool, *role == Role::Assistant),
            Part::ToolResult(r) => {
                let fine = !blank(&r.content) || !r.media.is_empty();
                found.must(fine, "result-content", &at, format_args!("{:?}", r.content));
                (*role == Role::Tool, true)
            }
            _ => (true, false),
        };
        found.must(here, "part-in-role", &at, format_args!("{role}: {part:?}"));
        any |= says;
    }
    found.must(any, "content", at, format_args!("{role}: {:?}", message.parts));
    let known = matches!(role, Role::System | Role::User | Role::Assistant | Role::Tool);
    found.must(known, "known-role", at, role);
}

/// How deep arrays and objects are in each other.
fn nested(value: &serde_json::Value) -> usize {
    let mut deepest = 0;
    let mut todo = vec![(value, 0)];
    while let Some((value, depth)) = todo.pop() {
        deepest = deepest.max(depth);
        match value {
            serde_json::Value::Array(items) => todo.extend(items.iter().map(|v| (v, depth + 1))),
            serde_json::Value::Object(map) => todo.extend(map.values().map(|v| (v, depth + 1))),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{but, each_can_fail};
    use serde_json::{Value, json};

    #[test]
    fn every_rule_can_fail() {
        let call = |id: &str| json!({"type": "tool_call", "id": id, "name": "f", "args": {"a": 1}});
        let result =
            |id: &str| json!({"type": "tool_result", "id": id, "name": "f", "status": "ok", "content": "1"});
        let text = |role: &str, text: &str| json!({"role": role, "parts": [{"type": "text", "text": text}]});
        let good = json!({
            "model": "m",
            "messages": [
                text("system", "be brief"),
                text("user", "go"),
                {"role": "assistant", "parts": [{"type": "reasoning", "text": ""}, call("a"), call("b")]},
                {"role": "tool", "parts": [result("a"), result("b")]},
                text("assistant", "done"),
                text("user", "thanks"),
            ],
            "tools": [{"name": "f", "description": "", "input": {"type": "object"}}],
            "tool_choice": {"tool": "f"},
        });
        let mut deep = json!(1);
        for _ in 0..101 {
            deep = json!([deep]);
        }
        let calls = "/messages/2/parts";
        let bad = [
            ("has-messages", but(&good, "/messages", json!([text("system", "x")]))),
            ("known-role", but(&good, "/messages/5/role", json!("wizard"))),
            ("user-begins", but(&good, "/messages/1", text("assistant", "hi"))),
            ("user-ends", but(&good, "/messages/5", text("assistant", "more"))),
            ("content", but(&good, "/messages/1/parts", json!([]))),
            ("content", but(&good, "/messages/4/parts", json!([{"type": "reasoning", "text": "hm"}]))),
            ("content", but(&good, "/messages/1/parts", json!([{"type": "hologram"}]))),
            ("blank-text", but(&good, "/messages/1", text("user", " \n"))),
            ("part-in-role", but(&good, "/messages/1/parts/0", call("c"))),
            ("results-follow", but(&good, "/messages/3/parts", json!([result("a")]))),
            ("results-follow", but(&good, "/messages/3/parts", json!([result("b"), result("a")]))),
            ("results-follow", but(&good, "/messages/3", text("user", "wait"))),
            ("orphan-result", but(&good, calls, json!([{"type": "text", "text": "x"}]))),
            ("result-name", but(&good, "/messages/3/parts/0/name", json!("g"))),
            ("result-content", but(&good, "/messages/3/parts/0/content", json!(" "))),
            ("unique-id", but(&good, &format!("{calls}/2/id"), json!("a"))),
            ("id", but(&good, &format!("{calls}/2/id"), json!(""))),
            ("id", but(&good, &format!("{calls}/2/id"), json!("x".repeat(65)))),
            ("id", but(&good, &format!("{calls}/2/id"), json!("a\u{0}b"))),
            ("call-name", but(&good, &format!("{calls}/2/name"), json!("no such tool"))),
            ("depth", but(&good, &format!("{calls}/2/args"), deep)),
            ("tool-name", but(&good, "/tools/0/name", json!("f.g"))),
            ("tool-schema", but(&good, "/tools/0/input", json!({"type": "string"}))),
            ("tool-choice", but(&good, "/tool_choice", json!({"tool": "g"}))),
        ];
        let check_json = |v: &Value| check(&serde_json::from_value(v.clone()).unwrap());
        each_can_fail(RULES, check_json, &good, &bad);
    }
}
