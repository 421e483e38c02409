//! OpenAI's Responses API.

use super::{Found, Rule, Violation, blank, items, object_schema, plain, positive, text_of, within};
use serde_json::Value;
use std::collections::HashSet;

const API: &str = "https://platform.openai.com/docs/api-reference/responses/create";

/// What [`check_body`] demands.
pub static RULES: &[Rule] = &[
    Rule { name: "shape", says: "an object with a model and an input: text, or items", source: API },
    Rule { name: "role", says: "roles are user, assistant, system, developer", source: API },
    Rule { name: "content", says: "a message has content, and what is asked is not blank", source: API },
    Rule {
        name: "part",
        says: "input_* parts are of those who ask, output_text and refusal the assistant's",
        source: "error: Invalid value: 'input_text'. Supported values are: 'output_text' and 'refusal'.",
    },
    Rule {
        name: "call-id",
        says: "a call id of 1 to 64 characters",
        source: "error: Invalid 'input[1].call_id': string too long",
    },
    Rule { name: "unique-id", says: "no two calls have one call id", source: API },
    Rule {
        name: "call-name",
        says: "[a-zA-Z0-9_-]{1,64}",
        source: "error: Invalid 'input[1].name': string does not match pattern",
    },
    Rule { name: "call-arguments", says: "arguments are the text of a JSON object", source: API },
    Rule { name: "output", says: "an output is text or parts", source: API },
    Rule {
        name: "outputs-follow",
        says: "every call has its output, behind it",
        source: "error: No tool output found for function call call_1.",
    },
    Rule {
        name: "orphan-output",
        says: "every output has its call, or goes on from an earlier response",
        source: "error: No tool call found for function call output with call_id call_1.",
    },
    Rule {
        name: "reasoning-follows",
        says: "a reasoning item is followed by what was reasoned for",
        source: "error: Item 'rs_1' of type 'reasoning' was provided without its required following item.",
    },
    Rule { name: "tool-name", says: "[a-zA-Z0-9_-]{1,64}, each once", source: API },
    Rule {
        name: "tool-schema",
        says: "parameters are the schema of an object",
        source: "error: Invalid schema for function 'f'",
    },
    Rule { name: "tool-choice", says: "none, auto, required, or a tool on offer", source: API },
    Rule {
        name: "sampling",
        says: "temperature 0 to 2, top_p 0 to 1, max_output_tokens of at least 1",
        source: API,
    },
];

/// Checks the body of a request for a response.
///
/// # Errors
/// Every violation.
pub fn check_body(body: &Value) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    let input = &body["input"];
    let list = items(input);
    let goes_on = body["previous_response_id"].is_string() || !body["conversation"].is_null();
    let whole = body.is_object()
        && !text_of(body, "model").is_empty()
        && (input.as_str().is_some_and(|t| !blank(t)) || !list.is_empty() || goes_on);
    found.must(whole, "shape", "", "model and input");
    let (mut open, mut ids) = (Vec::new(), HashSet::new());
    for (i, item) in list.iter().enumerate() {
        let at = format!("/input/{i}");
        match (text_of(item, "type"), item["role"].is_string()) {
            ("message", _) | ("", true) => message(item, &at, &mut found),
            ("function_call", _) => {
                let id = text_of(item, "call_id");
                found.must((1..=64).contains(&id.chars().count()), "call-id", &at, id);
                found.must(ids.insert(id), "unique-id", &at, id);
                found.must(plain(text_of(item, "name"), 64), "call-name", &at, &item["name"]);
                let parsed = item["arguments"].as_str().map(serde_json::from_str::<Value>);
                let object = matches!(parsed, Some(Ok(Value::Object(_))));
                found.must(object, "call-arguments", &at, &item["arguments"]);
                open.push(id);
            }
            ("function_call_output", _) => {
                let id = text_of(item, "call_id");
                found.must(item["output"].is_string() || item["output"].is_array(), "output", &at, item);
                match open.iter().position(|o| *o == id) {
                    Some(n) => {
                        open.remove(n);
                    }
                    None => found.must(goes_on, "orphan-output", &at, id),
                }
            }
            ("reasoning", _) => {
                let next = list.get(i + 1).unwrap_or(&Value::Null);
                let asks = matches!(text_of(next, "role"), "user" | "system" | "developer");
                let fine = next.is_object() && !asks && next["type"] != "function_call_output";
                found.must(fine, "reasoning-follows", &at, next);
            }
            ("", false) => found.add("shape", at, item),
            // An item of a tool of the server's own.
            _ => {}
        }
    }
    found.must(open.is_empty(), "outputs-follow", "/input", format_args!("{open:?}"));
    tools(body, &mut found);
    let fine = within(&body["temperature"], 0.0, 2.0)
        && within(&body["top_p"], 0.0, 1.0)
        && positive(&body["max_output_tokens"]);
    found.must(fine, "sampling", "", "out of bounds");
    found.done()
}

fn message(message: &Value, at: &str, found: &mut Found) {
    let role = text_of(message, "role");
    found.must(matches!(role, "user" | "assistant" | "system" | "developer"), "role", at, role);
    match &message["content"] {
        // An empty answer, as it stands beside calls, is taken back.
        Value::String(text) => {
            found.must(role == "assistant" || !blank(text), "content", at, format_args!("{text:?}"));
        }
        Value::Array(parts) => {
            found.must(!parts.is_empty(), "content", at, "no part");
            for (n, part) in parts.iter().enumerate() {
                let at = format!("{at}/content/{n}");
                let kind = text_of(part, "type");
                let fine = match kind {
                    "output_text" | "refusal" => role == "assistant",
                    _ => kind.starts_with("input_") && role != "assistant",
                };
                found.must(fine, "part", &at, format_args!("{role}: {kind}"));
                if kind.ends_with("_text") {
                    found.must(!blank(text_of(part, "text")), "content", &at, part);
                }
            }
        }
        other => found.add("content", at, other),
    }
}

fn tools(body: &Value, found: &mut Found) {
    let mut names = HashSet::new();
    for (i, tool) in items(&body["tools"]).iter().enumerate() {
        let at = format!("/tools/{i}");
        if tool["type"] != "function" {
            found.must(tool["type"].is_string(), "tool-name", at, tool);
            continue;
        }
        let name = text_of(tool, "name");
        found.must(plain(name, 64) && names.insert(name), "tool-name", &at, name);
        let schema = &tool["parameters"];
        found.must(schema.is_null() || object_schema(schema), "tool-schema", &at, schema);
    }
    let choice = &body["tool_choice"];
    let fine = match choice {
        Value::Null => true,
        Value::String(s) => matches!(s.as_str(), "none" | "auto" | "required"),
        Value::Object(_) if choice["type"] == "function" => names.contains(text_of(choice, "name")),
        Value::Object(_) => choice["type"].is_string(),
        _ => false,
    };
    found.must(fine, "tool-choice", "/tool_choice", choice);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{but, each_can_fail, recorded};
    use serde_json::json;

    #[test]
    fn every_rule_can_fail() {
        let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"});
        let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "1"});
        let good = json!({
            "model": "gpt-5",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "go"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
                call("a"),
                call("b"),
                output("b"),
                output("a"),
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]},
                {"role": "user", "content": "thanks"},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
            "tool_choice": {"type": "function", "name": "f"},
            "max_output_tokens": 100,
        });
        let bad = [
            ("shape", but(&good, "/input", json!([]))),
            ("shape", but(&good, "/input/7", json!({"content": "x"}))),
            ("role", but(&good, "/input/7/role", json!("tool"))),
            ("content", but(&good, "/input/7/content", json!(" "))),
            ("content", but(&good, "/input/0/content/0/text", json!(""))),
            ("part", but(&good, "/input/6/content/0/type", json!("input_text"))),
            ("call-id", but(&good, "/input/2/call_id", json!("x".repeat(65)))),
            ("unique-id", but(&good, "/input/2/call_id", json!("b"))),
            ("call-name", but(&good, "/input/2/name", json!("no such tool"))),
            ("call-arguments", but(&good, "/input/2/arguments", json!("{"))),
            ("output", but(&good, "/input/4/output", Value::Null)),
            ("outputs-follow", but(&good, "/input/5", json!({"role": "user", "content": "wait"}))),
            ("orphan-output", but(&good, "/input/7", output("c"))),
            ("reasoning-follows", but(&good, "/input/6", good["input"][1].clone())),
            ("tool-name", but(&good, "/tools/0/name", json!("a.b"))),
            ("tool-schema", but(&good, "/tools/0/parameters", json!({"type": "null"}))),
            ("tool-choice", but(&good, "/tool_choice/name", json!("g"))),
            ("sampling", but(&good, "/max_output_tokens", json!(0))),
        ];
        each_can_fail(RULES, check_body, &good, &bad);
    }

    #[test]
    fn recorded_requests_pass() {
        recorded("openai.responses", &[], |body, _| check_body(body));
    }
}
