//! Ollama's own chat API (`/api/chat`).

use super::{Found, Rule, Violation, blank, items, object_schema, text_of};
use serde_json::Value;

const API: &str = "https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion";

/// What [`check_body`] demands.
pub static RULES: &[Rule] = &[
    Rule {
        name: "shape",
        says: "an object with a model and at least one message (an empty list loads the model)",
        source: API,
    },
    Rule { name: "role", says: "roles are system, user, assistant, tool", source: API },
    Rule {
        name: "content",
        says: "content is a string, empty only beside calls, thoughts or pictures",
        source: "error: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
    },
    Rule { name: "images", says: "pictures are base64 texts, without the `data:` before them", source: API },
    Rule { name: "calls", says: "a call has a function with a name, in an assistant's message", source: API },
    Rule {
        name: "call-arguments",
        says: "arguments are an object",
        source: "error: cannot unmarshal string into Go struct field .arguments of type api.ToolCallFunctionArguments",
    },
    Rule { name: "tool-name", says: "a result names a tool that was called right before", source: API },
    Rule { name: "results-follow", says: "as many results as calls, right behind them", source: API },
    Rule { name: "tools", says: "a tool is a function with a name and the schema of an object", source: API },
    Rule { name: "options", says: "options are an object, format is \"json\" or a schema", source: API },
];

/// Checks the body of a request for an answer.
///
/// # Errors
/// Every violation.
pub fn check_body(body: &Value) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    let messages = items(&body["messages"]);
    let whole = body.is_object() && !text_of(body, "model").is_empty() && !messages.is_empty();
    found.must(whole, "shape", "", "model and messages");
    let mut open: Vec<&str> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let at = format!("/messages/{i}");
        let role = text_of(message, "role");
        found.must(matches!(role, "system" | "user" | "assistant" | "tool"), "role", &at, role);
        let calls = items(&message["tool_calls"]);
        let images = items(&message["images"]);
        let beside = !calls.is_empty()
            || !images.is_empty()
            || !text_of(message, "thinking").is_empty()
            || role == "tool";
        let fine = message["content"].as_str().is_some_and(|t| !blank(t) || beside)
            || (message["content"].is_null() && beside);
        found.must(fine, "content", &at, &message["content"]);
        let raw = images.iter().all(|i| i.as_str().is_some_and(|i| !i.is_empty() && !i.starts_with("data:")));
        found.must(raw, "images", &at, "images");
        for call in calls {
            let function = &call["function"];
            let fine = role == "assistant" && !text_of(function, "name").is_empty();
            found.must(fine, "calls", &at, call);
            found.must(function["arguments"].is_object(), "call-arguments", &at, &function["arguments"]);
        }
        if role == "tool" {
            // Older versions know no name; order tells which call is meant.
            let name = text_of(message, "tool_name");
            match open.iter().position(|o| name.is_empty() || *o == name) {
                Some(n) => {
                    open.remove(n);
                }
                None => found.add("tool-name", &at, name),
            }
        } else {
            found.must(open.is_empty(), "results-follow", &at, format_args!("{open:?}"));
            open = calls.iter().map(|c| text_of(&c["function"], "name")).collect();
        }
    }
    found.must(open.is_empty(), "results-follow", "/messages", format_args!("{open:?}"));
    for (i, tool) in items(&body["tools"]).iter().enumerate() {
        let function = &tool["function"];
        let fine = tool["type"] == "function"
            && !text_of(function, "name").is_empty()
            && object_schema(&function["parameters"]);
        found.must(fine, "tools", format_args!("/tools/{i}"), tool);
    }
    let format = &body["format"];
    let fine = (body["options"].is_null() || body["options"].is_object())
        && (format.is_null() || format.is_object() || format == "json" || format == "");
    found.must(fine, "options", "/options", format);
    found.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{but, each_can_fail, recorded};
    use serde_json::json;

    #[test]
    fn every_rule_can_fail() {
        let call = json!({"function": {"name": "f", "arguments": {"a": 1}}});
        let good = json!({
            "model": "qwen3:4b",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "go", "images": ["QUJD"]},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_name": "f", "content": "1"},
                {"role": "assistant", "content": "done"},
                {"role": "user", "content": "thanks"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "options": {"num_ctx": 8192},
            "format": {"type": "object"},
        });
        let bad = [
            ("shape", but(&good, "/model", json!(""))),
            ("role", but(&good, "/messages/5/role", json!("human"))),
            ("content", but(&good, "/messages/5/content", json!(""))),
            ("content", but(&good, "/messages/5/content", json!([{"type": "text", "text": "x"}]))),
            ("images", but(&good, "/messages/1/images/0", json!("data:image/png;base64,QUJD"))),
            ("calls", but(&good, "/messages/2/tool_calls/0/function/name", json!(""))),
            (
                "call-arguments",
                but(&good, "/messages/2/tool_calls/0/function/arguments", json!("{\"a\": 1}")),
            ),
            ("tool-name", but(&good, "/messages/3/tool_name", json!("g"))),
            ("results-follow", but(&good, "/messages/3", json!({"role": "user", "content": "wait"}))),
            ("tools", but(&good, "/tools/0/function/parameters", json!("{}"))),
            ("options", but(&good, "/format", json!("yaml"))),
        ];
        each_can_fail(RULES, check_body, &good, &bad);
    }

    #[test]
    fn recorded_requests_pass() {
        recorded("ollama.chat", &[], |body, _| check_body(body));
    }
}
