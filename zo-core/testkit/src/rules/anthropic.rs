//! Anthropic's Messages API.

use super::{Found, Rule, Violation, blank, items, object_schema, plain, positive, text_of, within};
use serde_json::Value;
use std::collections::HashSet;

const API: &str = "https://docs.anthropic.com/en/api/messages";
const TOOLS: &str = "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use";
const THINKING: &str = "https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking";

/// What [`check_body`] demands.
pub static RULES: &[Rule] = &[
    Rule { name: "shape", says: "an object with a model and at least one message", source: API },
    Rule { name: "max-tokens", says: "max_tokens is given, and at least 1", source: API },
    Rule { name: "role", says: "roles are user and assistant", source: API },
    Rule {
        name: "user-begins",
        says: "the user speaks first",
        source: "error: messages: first message must use the \"user\" role",
    },
    Rule {
        name: "content",
        says: "content is text or a list of blocks that is not empty, except for a final assistant's",
        source: "error: messages.1: all messages must have non-empty content except for the optional final assistant message",
    },
    Rule {
        name: "blank-text",
        says: "text, of the system too, is not blank",
        source: "error: messages: text content blocks must contain non-whitespace text",
    },
    Rule {
        name: "final-space",
        says: "an assistant's last words do not end in white space",
        source: "error: messages: final assistant content cannot end with trailing whitespace",
    },
    Rule {
        name: "block-in-role",
        says: "results, pictures and documents are the user's blocks; calls and thoughts the assistant's",
        source: "error: messages.0.content.0: `tool_use` blocks can only be in `assistant` messages",
    },
    Rule {
        name: "call-id",
        says: "[a-zA-Z0-9_-]+",
        source: "error: tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
    },
    Rule {
        name: "unique-id",
        says: "no two calls of a conversation have one id",
        source: "error: messages: `tool_use` ids must be unique",
    },
    Rule {
        name: "call-name",
        says: "[a-zA-Z0-9_-]{1,64}",
        source: "error: tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
    },
    Rule {
        name: "call-input",
        says: "the input is an object",
        source: "error: tool_use.input: Input should be a valid dictionary",
    },
    Rule {
        name: "results-follow",
        says: "the next message answers every call",
        source: "error: `tool_use` ids were found without `tool_result` blocks immediately after",
    },
    Rule {
        name: "orphan-result",
        says: "a result answers a call of the message before",
        source: "error: unexpected `tool_use_id` found in `tool_result` blocks",
    },
    Rule {
        name: "one-result",
        says: "one result for each call",
        source: "error: each tool_use must have a single result",
    },
    Rule { name: "results-first", says: "in a message, results stand before all else", source: TOOLS },
    Rule {
        name: "result-content",
        says: "a result's content is text, or blocks of text, pictures, documents",
        source: TOOLS,
    },
    Rule {
        name: "thinking",
        says: "thoughts bear their signature, and do not end a message",
        source: "error: The final block in an assistant message cannot be `thinking`",
    },
    Rule {
        name: "thinking-options",
        says: "a budget of at least 1024 and less than max_tokens; no temperature, no forced tool beside it",
        source: THINKING,
    },
    Rule {
        name: "media",
        says: "pictures are jpeg, png, gif or webp; a source is whole",
        source: "https://docs.anthropic.com/en/docs/build-with-claude/vision",
    },
    Rule {
        name: "cache-control",
        says: "at most 4 breakpoints, none on a thought",
        source: "https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching",
    },
    Rule {
        name: "tool-name",
        says: "[a-zA-Z0-9_-]{1,128}, each once",
        source: "error: tools: Tool names must be unique",
    },
    Rule {
        name: "tool-schema",
        says: "the input schema is that of an object",
        source: "error: tools.0.custom.input_schema.type: Field required",
    },
    Rule {
        name: "tool-choice",
        says: "auto, any, none, or a tool that is on offer",
        source: "error: tool_choice may only be specified while providing tools",
    },
    Rule { name: "sampling", says: "temperature and top_p 0 to 1, stop sequences not blank", source: API },
];

/// Checks the body of a request for a message.
///
/// # Errors
/// Every violation.
pub fn check_body(body: &Value) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    let messages = items(&body["messages"]);
    let whole = body.is_object() && !text_of(body, "model").is_empty() && !messages.is_empty();
    found.must(whole, "shape", "", "model and messages");
    let limited = !body["max_tokens"].is_null() && positive(&body["max_tokens"]);
    found.must(limited, "max-tokens", "/max_tokens", &body["max_tokens"]);
    let begins = messages.first().is_none_or(|m| m["role"] != "assistant");
    found.must(begins, "user-begins", "/messages/0", "the assistant's");
    match &body["system"] {
        Value::String(text) => found.must(!blank(text), "blank-text", "/system", format_args!("{text:?}")),
        blocks => {
            for (i, block) in items(blocks).iter().enumerate() {
                found.must(!blank(text_of(block, "text")), "blank-text", format_args!("/system/{i}"), block);
            }
        }
    }
    let mut ids = HashSet::new();
    for (i, message) in messages.iter().enumerate() {
        let last = i + 1 == messages.len();
        self::message(message, last, &format!("/messages/{i}"), &mut ids, &mut found);
    }
    pairs(messages, &mut found);
    tools(body, &mut found);
    options(body, &mut found);
    found.done()
}

fn message<'a>(message: &'a Value, last: bool, at: &str, ids: &mut HashSet<&'a str>, found: &mut Found) {
    let role = text_of(message, "role");
    found.must(matches!(role, "user" | "assistant"), "role", at, &message["role"]);
    let end = match &message["content"] {
        Value::String(text) => {
            found.must(!text.is_empty() || (last && role == "assistant"), "content", at, "empty");
            found.must(text.is_empty() || !blank(text), "blank-text", at, format_args!("{text:?}"));
            text.as_str()
        }
        Value::Array(blocks) => {
            found.must(!blocks.is_empty() || (last && role == "assistant"), "content", at, "no block");
            let mut results_over = false;
            for (n, block) in blocks.iter().enumerate() {
                let at = format!("{at}/content/{n}");
                self::block(block, role, &at, ids, found);
                let result = block["type"] == "tool_result";
                found.must(!(result && results_over), "results-first", at, block);
                results_over |= !result;
            }
            let end = blocks.last().unwrap_or(&Value::Null);
            let thought = matches!(text_of(end, "type"), "thinking" | "redacted_thinking");
            found.must(!thought, "thinking", at, "a thought at the end");
            text_of(end, "text")
        }
        other => {
            found.add("content", at, other);
            ""
        }
    };
    let spaced = last && role == "assistant" && end.ends_with(char::is_whitespace);
    found.must(!spaced, "final-space", at, format_args!("{end:?}"));
}

fn block<'a>(block: &'a Value, role: &str, at: &str, ids: &mut HashSet<&'a str>, found: &mut Found) {
    let (user, model) = (role == "user", role == "assistant");
    let here = match text_of(block, "type") {
        "text" => {
            found.must(!blank(text_of(block, "text")), "blank-text", at, &block["text"]);
            true
        }
        "image" | "document" => {
            media(block, at, found);
            user
        }
        "tool_use" => {
            let id = text_of(block, "id");
            found.must(plain(id, usize::MAX), "call-id", at, id);
            found.must(ids.insert(id), "unique-id", at, id);
            found.must(plain(text_of(block, "name"), 64), "call-name", at, &block["name"]);
            found.must(block["input"].is_object(), "call-input", at, &block["input"]);
            model
        }
        "tool_result" => {
            let content = &block["content"];
            let mut fine = content.is_null() || content.is_string() || content.is_array();
            for (n, inner) in items(content).iter().enumerate() {
                let at = format!("{at}/content/{n}");
                match text_of(inner, "type") {
                    "text" => found.must(!blank(text_of(inner, "text")), "blank-text", at, &inner["text"]),
                    "image" | "document" => media(inner, &at, found),
                    kind => fine &= matches!(kind, "search_result" | "tool_reference"),
                }
            }
            found.must(fine, "result-content", at, content);
            user
        }
        "thinking" => {
            let signed = block["thinking"].is_string() && !text_of(block, "signature").is_empty();
            found.must(signed, "thinking", at, &block["signature"]);
            model
        }
        "redacted_thinking" => {
            found.must(!text_of(block, "data").is_empty(), "thinking", at, &block["data"]);
            model
        }
        "" => {
            found.add("content", at, block);
            true
        }
        _ => true,
    };
    found.must(here, "block-in-role", at, format_args!("{role}: {}", block["type"]));
}

fn media(block: &Value, at: &str, found: &mut Found) {
    let source = &block["source"];
    let kind = text_of(source, "media_type");
    let fine = match (text_of(source, "type"), text_of(block, "type")) {
        ("base64", "image") => {
            matches!(kind, "image/jpeg" | "image/png" | "image/gif" | "image/webp")
                && !text_of(source, "data").is_empty()
        }
        ("base64", _) => kind == "application/pdf" && !text_of(source, "data").is_empty(),
        ("url", _) => text_of(source, "url").starts_with("http"),
        ("text", "document") => !text_of(source, "data").is_empty(),
        ("content", "document") => true,
        ("file", _) => source["file_id"].is_string(),
        _ => false,
    };
    found.must(fine, "media", at, source);
}

fn pairs(messages: &[Value], found: &mut Found) {
    let mut open: Vec<&str> = Vec::new();
    let of = |message: &'_ Value, kind: &str, key: &str| -> Vec<String> {
        items(&message["content"])
            .iter()
            .filter(|b| b["type"] == kind)
            .map(|b| text_of(b, key).to_owned())
            .collect()
    };
    for (i, message) in messages.iter().enumerate() {
        let at = format!("/messages/{i}");
        let results = of(message, "tool_result", "tool_use_id");
        let known: HashSet<&str> = open.iter().copied().collect();
        let mut got = HashSet::new();
        for id in &results {
            found.must(known.contains(id.as_str()), "orphan-result", &at, id);
            found.must(got.insert(id.as_str()), "one-result", &at, id);
        }
        open.retain(|id| !got.contains(id));
        found.must(open.is_empty(), "results-follow", &at, format_args!("{open:?}"));
        open = items(&message["content"])
            .iter()
            .filter(|b| b["type"] == "tool_use")
            .map(|b| text_of(b, "id"))
            .collect();
    }
    found.must(open.is_empty(), "results-follow", "/messages", format_args!("{open:?}"));
}

fn tools(body: &Value, found: &mut Found) {
    let mut names = HashSet::new();
    for (i, tool) in items(&body["tools"]).iter().enumerate() {
        let at = format!("/tools/{i}");
        let name = text_of(tool, "name");
        // Toolsets of MCP servers have no name of their own.
        let named = plain(name, 128) && names.insert(name);
        found.must(named || text_of(tool, "type") == "mcp_toolset", "tool-name", &at, name);
        if matches!(text_of(tool, "type"), "" | "custom") {
            found.must(object_schema(&tool["input_schema"]), "tool-schema", &at, &tool["input_schema"]);
        }
    }
    let choice = &body["tool_choice"];
    let fine = match text_of(choice, "type") {
        "auto" | "any" | "none" => !items(&body["tools"]).is_empty(),
        "tool" => names.contains(text_of(choice, "name")),
        _ => choice.is_null(),
    };
    found.must(fine, "tool-choice", "/tool_choice", choice);
}

fn options(body: &Value, found: &mut Found) {
    let thinking = &body["thinking"];
    let thinks = matches!(text_of(thinking, "type"), "enabled" | "adaptive");
    let budget = thinking["budget_tokens"].as_u64().unwrap_or(0);
    let limit = body["max_tokens"].as_u64().unwrap_or(0);
    let within_limit = text_of(thinking, "type") != "enabled" || (1024..limit).contains(&budget);
    let forced = matches!(text_of(&body["tool_choice"], "type"), "any" | "tool");
    let cool = body["temperature"].is_null() || body["temperature"].as_f64() == Some(1.0);
    let fine = !thinks || (within_limit && !forced && cool);
    found.must(fine, "thinking-options", "/thinking", thinking);
    let stops = items(&body["stop_sequences"]).iter().all(|s| s.as_str().is_some_and(|s| !blank(s)));
    let fine = within(&body["temperature"], 0.0, 1.0) && within(&body["top_p"], 0.0, 1.0) && stops;
    found.must(fine, "sampling", "", "out of bounds");
    let mut breakpoints = 0;
    let blocks = items(&body["messages"]).iter().flat_map(|m| items(&m["content"]));
    for block in items(&body["tools"]).iter().chain(items(&body["system"])).chain(blocks) {
        if !block["cache_control"].is_null() {
            breakpoints += 1;
            let thought = text_of(block, "type").ends_with("thinking");
            found.must(!thought, "cache-control", "/messages", "on a thought");
        }
    }
    found.must(breakpoints <= 4, "cache-control", "", format_args!("{breakpoints} breakpoints"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{but, each_can_fail, recorded};
    use serde_json::json;

    #[test]
    fn every_rule_can_fail() {
        let text = |t: &str| json!({"type": "text", "text": t});
        let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "f", "input": {"a": 1}});
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": [text("1")]});
        let image =
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}});
        let good = json!({
            "model": "claude-sonnet-4-5",
            "max_tokens": 4096,
            "system": [text("Be brief.")],
            "messages": [
                {"role": "user", "content": [text("go"), image]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"}, text("on it"), call("a"), call("b")]},
                {"role": "user", "content": [result("b"), result("a"), text("hurry")]},
                {"role": "assistant", "content": [text("done")]},
                {"role": "user", "content": "thanks"},
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "temperature": 1,
            "stream": true,
        });
        let hot = |body: Value| but(&body, "/thinking", Value::Null);
        let marked = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
        let bad = [
            ("shape", but(&good, "/messages", json!([]))),
            ("max-tokens", but(&good, "/max_tokens", Value::Null)),
            ("role", but(&good, "/messages/4/role", json!("system"))),
            ("user-begins", but(&good, "/messages/0", good["messages"][3].clone())),
            ("content", but(&good, "/messages/4/content", json!([]))),
            ("content", but(&good, "/messages/4/content", Value::Null)),
            ("blank-text", but(&good, "/messages/3/content/0/text", json!(" \n"))),
            ("blank-text", but(&good, "/messages/2/content/0/content/0/text", json!(""))),
            ("blank-text", but(&good, "/system/0/text", json!(""))),
            (
                "final-space",
                but(&good, "/messages/4", json!({"role": "assistant", "content": [text("so ")]})),
            ),
            ("block-in-role", but(&good, "/messages/3/content/0", image.clone())),
            ("block-in-role", but(&good, "/messages/0/content/0", call("c"))),
            ("call-id", but(&good, "/messages/1/content/2/id", json!("functions.f:0"))),
            ("unique-id", but(&good, "/messages/3/content/0", call("a"))),
            ("call-name", but(&good, "/messages/1/content/2/name", json!("no such tool"))),
            ("call-input", but(&good, "/messages/1/content/2/input", json!("{\"a\":"))),
            ("results-follow", but(&good, "/messages/2/content", json!([result("a")]))),
            ("results-follow", but(&good, "/messages/2/content", json!("interrupted"))),
            ("orphan-result", but(&good, "/messages/4/content", json!([result("a")]))),
            ("one-result", but(&good, "/messages/2/content/2", result("a"))),
            (
                "results-first",
                but(&good, "/messages/2/content", json!([text("x"), result("a"), result("b")])),
            ),
            ("result-content", but(&good, "/messages/2/content/0/content/0", call("z"))),
            ("thinking", but(&good, "/messages/1/content/0/signature", json!(""))),
            ("thinking", but(&good, "/messages/3/content/0", good["messages"][1]["content"][0].clone())),
            ("thinking-options", but(&good, "/thinking/budget_tokens", json!(4096))),
            ("thinking-options", but(&good, "/tool_choice", json!({"type": "any"}))),
            ("media", but(&good, "/messages/0/content/1/source/media_type", json!("image/bmp"))),
            ("cache-control", but(&good, "/messages/4/content", json!(vec![marked; 5]))),
            ("tool-name", but(&good, "/tools/0/name", json!("f.g"))),
            ("tool-schema", but(&good, "/tools/0/input_schema", json!({}))),
            ("tool-choice", but(&good, "/tool_choice", json!({"type": "tool", "name": "g"}))),
            ("sampling", hot(but(&good, "/temperature", json!(1.5)))),
        ];
        each_can_fail(RULES, check_body, &good, &bad);
    }

    #[test]
    fn recorded_requests_pass() {
        recorded("anthropic.messages", &[], |body, _| check_body(body));
    }
}
