//! Chat completions, as OpenAI and the stricter of those who imitate it take them.

use super::{Found, Rule, Violation, blank, items, object_schema, plain, positive, text_of, within};
use serde_json::Value;
use std::collections::HashSet;

const API: &str = "https://platform.openai.com/docs/api-reference/chat/create";

/// What [`check_body`] demands.
pub static RULES: &[Rule] = &[
    Rule { name: "shape", says: "an object with a model and at least one message", source: API },
    Rule { name: "role", says: "roles are developer, system, user, assistant, tool, function", source: API },
    Rule {
        name: "content",
        says: "every message has content that is text or parts; an assistant's may lack it beside tool calls",
        source: "error: Invalid value for 'content': expected a string, got null",
    },
    Rule {
        name: "blank-content",
        says: "content that a user, the host or a tool sends is not blank",
        source: "https://docs.mistral.ai/api: content must not be empty; Groq: minimum number of items is 1",
    },
    Rule { name: "parts", says: "parts are of a kind that the role may send, and whole", source: API },
    Rule {
        name: "calls",
        says: "tool calls are a list that is not empty, in an assistant's message",
        source: "error: [] is too short - 'messages.1.tool_calls'",
    },
    Rule {
        name: "call-id",
        says: "an id of 1 to 40 characters",
        source: "error: string too long, maximum length 40",
    },
    Rule { name: "call-type", says: "type is function (or custom)", source: API },
    Rule {
        name: "call-name",
        says: "[a-zA-Z0-9_-]{1,64}",
        source: "error: 'messages.1.tool_calls.0.function.name' does not match '^[a-zA-Z0-9_-]+$'",
    },
    Rule {
        name: "call-arguments",
        says: "arguments are the text of a JSON object; servers that apply a chat template parse it",
        source: "https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/chat_utils.py: arguments are parsed to a dict",
    },
    Rule {
        name: "unique-id",
        says: "ids of calls are unique in a message",
        source: "https://docs.anthropic.com/en/api/openai-sdk",
    },
    Rule {
        name: "results-follow",
        says: "tool messages that answer each call come right behind, each once",
        source: "error: An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'",
    },
    Rule {
        name: "orphan-result",
        says: "a tool message answers one of the calls before it",
        source: "error: messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
    },
    Rule { name: "tools", says: "tools are a list that is not empty, of at most 128 functions", source: API },
    Rule { name: "tool-name", says: "[a-zA-Z0-9_-]{1,64}, each once", source: API },
    Rule {
        name: "tool-schema",
        says: "parameters are the schema of an object",
        source: "error: Invalid schema for function 'f': schema must be a JSON Schema of 'type: \"object\"'",
    },
    Rule {
        name: "tool-choice",
        says: "none, auto, required (Mistral: any), or a function that is on offer",
        source: "error: 'tool_choice' is only allowed when 'tools' are specified",
    },
    Rule {
        name: "stream-options",
        says: "only of a streamed answer",
        source: "error: The 'stream_options' parameter is only allowed when 'stream' is enabled",
    },
    Rule {
        name: "sampling",
        says: "temperature 0 to 2, top_p 0 to 1, limits of at least 1 token, and only one of the two limits",
        source: API,
    },
    Rule { name: "stop", says: "at most 4 texts, none empty", source: API },
    Rule {
        name: "response-format",
        says: "text, json_object, or json_schema with a name [a-zA-Z0-9_-]{1,64} and an object for a schema",
        source: API,
    },
];

/// Checks the body of a request for a chat completion.
///
/// # Errors
/// Every violation.
pub fn check_body(body: &Value) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    let messages = items(&body["messages"]);
    let whole = body.is_object() && !text_of(body, "model").is_empty() && !messages.is_empty();
    found.must(whole, "shape", "", "model and messages");
    for (i, message) in messages.iter().enumerate() {
        self::message(message, &format!("/messages/{i}"), &mut found);
    }
    pairs(messages, &mut found);
    tools(body, &mut found);
    options(body, &mut found);
    found.done()
}

fn message(message: &Value, at: &str, found: &mut Found) {
    let role = text_of(message, "role");
    let known = matches!(role, "developer" | "system" | "user" | "assistant" | "tool" | "function");
    found.must(known, "role", at, role);
    let calls = &message["tool_calls"];
    if !calls.is_null() {
        found.must(role == "assistant" && !items(calls).is_empty(), "calls", at, calls);
    }
    let content = &message["content"];
    let may_lack = role == "assistant" && (!calls.is_null() || message["refusal"].is_string());
    match content {
        Value::Null => found.must(may_lack, "content", at, "none"),
        Value::String(text) => {
            found.must(role == "assistant" || !blank(text), "blank-content", at, format_args!("{text:?}"));
            // Groq, Mistral and llama.cpp take an empty answer only beside calls.
            let says = !text.is_empty() || may_lack || has_reasoning(message);
            found.must(role != "assistant" || says, "content", at, "an empty answer");
        }
        Value::Array(parts) => {
            found.must(!parts.is_empty(), "content", at, "no part");
            parts.iter().enumerate().for_each(|(n, p)| part(p, role, &format!("{at}/content/{n}"), found));
        }
        other => found.add("content", at, other),
    }
    let mut ids = HashSet::new();
    for (n, call) in items(calls).iter().enumerate() {
        let at = format!("{at}/tool_calls/{n}");
        let id = text_of(call, "id");
        found.must((1..=40).contains(&id.chars().count()), "call-id", &at, id);
        found.must(ids.insert(id), "unique-id", &at, id);
        found.must(matches!(text_of(call, "type"), "function" | "custom"), "call-type", &at, &call["type"]);
        if call["type"] == "custom" {
            continue;
        }
        let function = &call["function"];
        found.must(plain(text_of(function, "name"), 64), "call-name", &at, &function["name"]);
        let parsed = function["arguments"].as_str().map(serde_json::from_str::<Value>);
        let object = matches!(parsed, Some(Ok(Value::Object(_))));
        found.must(object, "call-arguments", &at, &function["arguments"]);
    }
}

fn has_reasoning(message: &Value) -> bool {
    ["reasoning", "reasoning_content", "reasoning_details"].iter().any(|key| !message[*key].is_null())
}

fn part(part: &Value, role: &str, at: &str, found: &mut Found) {
    let fine = match text_of(part, "type") {
        "text" => {
            found.must(!blank(text_of(part, "text")), "blank-content", at, &part["text"]);
            part["text"].is_string()
        }
        "refusal" => role == "assistant" && part["refusal"].is_string(),
        // Mistral's.
        "thinking" => role == "assistant",
        "image_url" => {
            let url = part["image_url"].as_str().or(part["image_url"]["url"].as_str()).unwrap_or("");
            role == "user" && (url.starts_with("data:image/") || url.starts_with("http"))
        }
        "input_audio" => {
            let audio = &part["input_audio"];
            role == "user"
                && !text_of(audio, "data").is_empty()
                && matches!(text_of(audio, "format"), "wav" | "mp3")
        }
        "file" => {
            let file = &part["file"];
            role == "user" && (file["file_id"].is_string() || file["file_data"].is_string())
        }
        "" => false,
        // Some server's own.
        _ => true,
    };
    found.must(fine, "parts", at, format_args!("{role}: {part}"));
}

fn pairs(messages: &[Value], found: &mut Found) {
    let mut open: Vec<&str> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let at = format!("/messages/{i}");
        if message["role"] == "tool" {
            let id = text_of(message, "tool_call_id");
            match open.iter().position(|o| *o == id) {
                Some(n) => {
                    open.remove(n);
                }
                None => found.add("orphan-result", at, id),
            }
            continue;
        }
        found.must(open.is_empty(), "results-follow", &at, format_args!("{open:?}"));
        open = items(&message["tool_calls"]).iter().map(|c| text_of(c, "id")).collect();
    }
    found.must(open.is_empty(), "results-follow", "/messages", format_args!("{open:?}"));
}

fn tools(body: &Value, found: &mut Found) {
    let tools = &body["tools"];
    if !tools.is_null() {
        found.must((1..=128).contains(&items(tools).len()), "tools", "/tools", items(tools).len());
    }
    let mut names = HashSet::new();
    for (i, tool) in items(tools).iter().enumerate() {
        let at = format!("/tools/{i}");
        if tool["type"] != "function" {
            found.must(tool["type"].is_string(), "tools", at, &tool["type"]);
            continue;
        }
        let function = &tool["function"];
        let name = text_of(function, "name");
        found.must(plain(name, 64) && names.insert(name), "tool-name", &at, name);
        let schema = &function["parameters"];
        found.must(schema.is_null() || object_schema(schema), "tool-schema", &at, schema);
    }
    let choice = &body["tool_choice"];
    let fine = match choice {
        Value::Null => true,
        Value::String(s) => {
            matches!(s.as_str(), "none" | "auto" | "required" | "any") && !items(tools).is_empty()
        }
        Value::Object(_) if choice["type"] == "function" => {
            names.contains(text_of(&choice["function"], "name"))
        }
        Value::Object(_) => choice["type"].is_string(),
        _ => false,
    };
    found.must(fine, "tool-choice", "/tool_choice", choice);
}

fn options(body: &Value, found: &mut Found) {
    let streams = body["stream"] == true;
    found.must(
        body["stream_options"].is_null() || streams,
        "stream-options",
        "/stream_options",
        &body["stream"],
    );
    let fine = within(&body["temperature"], 0.0, 2.0)
        && within(&body["top_p"], 0.0, 1.0)
        && positive(&body["max_tokens"])
        && positive(&body["max_completion_tokens"])
        && (body["max_tokens"].is_null() || body["max_completion_tokens"].is_null());
    found.must(fine, "sampling", "", "out of bounds");
    let stop = &body["stop"];
    let fine = stop.is_null() || stop.is_string() || {
        (1..=4).contains(&items(stop).len())
            && items(stop).iter().all(|s| s.as_str().is_some_and(|s| !s.is_empty()))
    };
    found.must(fine, "stop", "/stop", stop);
    let format = &body["response_format"];
    let fine = match text_of(format, "type") {
        "text" | "json_object" => true,
        "json_schema" => {
            let spec = &format["json_schema"];
            plain(text_of(spec, "name"), 64) && spec["schema"].is_object()
        }
        _ => format.is_null(),
    };
    found.must(fine, "response-format", "/response_format", format);
}

#[cfg(test)]
pub(super) fn good() -> Value {
    let call = |id: &str| {
        serde_json::json!({"id": id, "type": "function",
        "function": {"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}})
    };
    serde_json::json!({
        "model": "gpt-4.1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Weather here?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]},
            {"role": "assistant", "content": null, "tool_calls": [call("callAAAA1"), call("callAAAA2")]},
            {"role": "tool", "tool_call_id": "callAAAA2", "content": "rain"},
            {"role": "tool", "tool_call_id": "callAAAA1", "content": "sun"},
            {"role": "assistant", "content": "Sun and rain."},
            {"role": "user", "content": "Thanks."},
        ],
        "tools": [{"type": "function", "function": {"name": "get_weather", "description": "d",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "temperature": 0.5,
        "stop": ["\n"],
        "stream": true,
        "stream_options": {"include_usage": true},
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{but, each_can_fail, recorded};
    use serde_json::json;

    #[test]
    fn every_rule_can_fail() {
        let good = good();
        let call = "/messages/2/tool_calls/0";
        let bad = [
            ("shape", but(&good, "/messages", json!([]))),
            ("shape", but(&good, "/model", json!(""))),
            ("role", but(&good, "/messages/6/role", json!("human"))),
            ("content", but(&good, "/messages/5/content", Value::Null)),
            ("content", but(&good, "/messages/5/content", json!(""))),
            ("content", but(&good, "/messages/6/content", json!([]))),
            ("blank-content", but(&good, "/messages/6/content", json!(" \n"))),
            ("blank-content", but(&good, "/messages/3/content", json!(""))),
            ("blank-content", but(&good, "/messages/1/content/0/text", json!(""))),
            ("parts", but(&good, "/messages/1/content/1/image_url/url", json!(""))),
            ("parts", but(&good, "/messages/1/role", json!("system"))),
            ("calls", but(&good, "/messages/5/tool_calls", json!([]))),
            ("calls", but(&good, "/messages/6/tool_calls", good["messages"][2]["tool_calls"].clone())),
            ("call-id", but(&good, &format!("{call}/id"), json!(""))),
            ("call-id", but(&good, &format!("{call}/id"), json!("x".repeat(41)))),
            ("call-type", but(&good, &format!("{call}/type"), Value::Null)),
            ("call-name", but(&good, &format!("{call}/function/name"), json!("get weather"))),
            ("call-arguments", but(&good, &format!("{call}/function/arguments"), json!("{\"a\":"))),
            ("call-arguments", but(&good, &format!("{call}/function/arguments"), json!({"a": 1}))),
            ("unique-id", but(&good, &format!("{call}/id"), json!("callAAAA2"))),
            ("results-follow", but(&good, "/messages/4", json!({"role": "user", "content": "wait"}))),
            ("results-follow", but(&good, "/messages/4/tool_call_id", json!("callAAAA2"))),
            ("orphan-result", but(&good, "/messages/6", good["messages"][3].clone())),
            ("tools", but(&good, "/tools", json!([]))),
            ("tool-name", but(&good, "/tools/0/function/name", json!("a.b"))),
            ("tool-schema", but(&good, "/tools/0/function/parameters", json!({"type": "array"}))),
            ("tool-choice", but(&good, "/tool_choice/function/name", json!("other"))),
            ("tool-choice", but(&good, "/tool_choice", json!("must"))),
            ("stream-options", but(&good, "/stream", json!(false))),
            ("sampling", but(&good, "/temperature", json!(2.5))),
            ("sampling", but(&good, "/max_tokens", json!(0))),
            ("stop", but(&good, "/stop", json!(["a", "b", "c", "d", "e"]))),
            ("response-format", but(&good, "/response_format/json_schema/name", json!("an answer"))),
        ];
        each_can_fail(RULES, check_body, &good, &bad);
    }

    #[test]
    fn recorded_requests_pass() {
        recorded(
            "openai.chat",
            &[
                (
                    "huggingface__pydantic-ai__test_image_url_input",
                    "tools",
                    "takes an empty list, OpenAI does not",
                ),
                ("huggingface__pydantic-ai__test_max_completion_tokens", "tools", "the same"),
                ("huggingface__pydantic-ai__test_simple_completion", "tools", "the same"),
                ("mistral__pydantic-ai__test_image_as_binary", "tools", "needs no type, OpenAI does"),
            ],
            |body, _| check_body(body),
        );
    }
}
