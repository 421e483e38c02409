//! Gemini's `generateContent`.

use super::{Found, Rule, Violation, blank, items, text_of, within};
use serde_json::Value;
use std::collections::HashSet;

const API: &str = "https://ai.google.dev/api/generate-content";
const CALLS: &str = "https://ai.google.dev/gemini-api/docs/function-calling";

/// What [`check_body`] demands.
pub static RULES: &[Rule] = &[
    Rule {
        name: "shape",
        says: "an object with at least one content",
        source: "error: contents is not specified",
    },
    Rule {
        name: "role",
        says: "roles are user and model (function in older versions)",
        source: "error: Please use a valid role: user, model.",
    },
    Rule {
        name: "parts",
        says: "a content has at least one part",
        source: "error: must include at least one parts field",
    },
    Rule {
        name: "part-data",
        says: "a part has exactly one kind of data",
        source: "error: required oneof field 'data' must have one initialized field",
    },
    Rule {
        name: "blank-text",
        says: "a text that the user or the host sends is not empty",
        source: "error: Unable to submit request because it must have a text parameter",
    },
    Rule {
        name: "user-ends",
        says: "the user, or a function's response, has the last word",
        source: "error: Please ensure that multiturn requests end with a user role or a function response",
    },
    Rule { name: "system", says: "the system instruction is text", source: API },
    Rule { name: "call-role", says: "calls are the model's, responses the user's", source: CALLS },
    Rule {
        name: "call-place",
        says: "a turn of calls comes right behind one of the user or of responses",
        source: "error: Please ensure that function call turn comes immediately after a user turn or after a function response turn",
    },
    Rule { name: "call-name", says: "a letter or _, then [a-zA-Z0-9_.:-], 64 at most", source: API },
    Rule { name: "call-args", says: "arguments and responses are objects", source: API },
    Rule {
        name: "as-many-responses",
        says: "right behind a turn of calls comes one with as many responses, under the same names",
        source: "error: Please ensure that the number of function response parts is equal to the number of function call parts",
    },
    Rule {
        name: "orphan-response",
        says: "responses come right behind calls",
        source: "error: Please ensure that function response turn comes immediately after a function call turn",
    },
    Rule { name: "media", says: "inline data is a media type and base64; a file has a URI", source: API },
    Rule { name: "tools", says: "declared functions have names that are valid and come once", source: API },
    Rule {
        name: "tool-schema",
        says: "parameters are the schema of an object",
        source: "error: functionDeclaration parameters schema should be of type OBJECT",
    },
    Rule {
        name: "tool-config",
        says: "mode AUTO, ANY, NONE or VALIDATED; allowed names are declared",
        source: CALLS,
    },
    Rule { name: "sampling", says: "temperature 0 to 2, topP 0 to 1, at most 5 stop sequences", source: API },
];

/// Checks the body of a request for content.
///
/// # Errors
/// Every violation.
pub fn check_body(body: &Value) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    let contents = items(&body["contents"]);
    found.must(body.is_object() && !contents.is_empty(), "shape", "", "contents");
    for (i, content) in contents.iter().enumerate() {
        self::content(content, &format!("/contents/{i}"), &mut found);
    }
    turns(contents, &mut found);
    let system = &body["systemInstruction"];
    if !system.is_null() {
        let parts = items(&system["parts"]);
        let fine = !parts.is_empty() && parts.iter().all(|p| !text_of(p, "text").is_empty());
        found.must(fine, "system", "/systemInstruction", system);
    }
    tools(body, &mut found);
    let config = &body["generationConfig"];
    let fine = within(&config["temperature"], 0.0, 2.0)
        && within(&config["topP"], 0.0, 1.0)
        && items(&config["stopSequences"]).len() <= 5;
    found.must(fine, "sampling", "/generationConfig", "out of bounds");
    found.done()
}

fn content(content: &Value, at: &str, found: &mut Found) {
    let role = text_of(content, "role");
    // Without a role it is the user's.
    let known = content["role"].is_null() || matches!(role, "user" | "model" | "function");
    found.must(known, "role", at, role);
    let model = role == "model";
    let parts = items(&content["parts"]);
    found.must(!parts.is_empty(), "parts", at, &content["parts"]);
    for (n, part) in parts.iter().enumerate() {
        let at = format!("{at}/parts/{n}");
        const DATA: [&str; 9] = [
            "text",
            "inlineData",
            "fileData",
            "functionCall",
            "functionResponse",
            "executableCode",
            "codeExecutionResult",
            "toolCall",
            "toolResponse",
        ];
        let kinds: Vec<_> = DATA.iter().filter(|k| !part[**k].is_null()).collect();
        found.must(kinds.len() == 1, "part-data", &at, format_args!("{kinds:?}"));
        if let Some(text) = part["text"].as_str() {
            // A model's text may be an empty one that bears a signature.
            let fine = !blank(text) || (model && !part["thoughtSignature"].is_null());
            found.must(fine, "blank-text", &at, format_args!("{text:?}"));
        }
        for (key, value) in [("functionCall", "args"), ("functionResponse", "response")] {
            let call = &part[key];
            if call.is_null() {
                continue;
            }
            found.must(model == (key == "functionCall"), "call-role", &at, format_args!("{role}: {key}"));
            found.must(name(text_of(call, "name")), "call-name", &at, &call["name"]);
            let absent = key == "functionCall" && call[value].is_null();
            found.must(absent || call[value].is_object(), "call-args", &at, &call[value]);
        }
        let (data, file) = (&part["inlineData"], &part["fileData"]);
        let fine = (data.is_null()
            || !(text_of(data, "mimeType").is_empty() || text_of(data, "data").is_empty()))
            && (file.is_null() || !text_of(file, "fileUri").is_empty());
        found.must(fine, "media", &at, "inline data or file");
    }
}

fn name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
}

fn turns(contents: &[Value], found: &mut Found) {
    let names = |content: &Value, key: &str| {
        let mut names: Vec<String> = items(&content["parts"])
            .iter()
            .filter(|p| !p[key].is_null())
            .map(|p| text_of(&p[key], "name").to_owned())
            .collect();
        names.sort();
        names
    };
    let mut open: Vec<String> = Vec::new();
    for (i, content) in contents.iter().enumerate() {
        let at = format!("/contents/{i}");
        let got = names(content, "functionResponse");
        if open.is_empty() {
            found.must(got.is_empty(), "orphan-response", &at, format_args!("{got:?}"));
        } else {
            found.must(got == open, "as-many-responses", &at, format_args!("{open:?}: {got:?}"));
        }
        open = names(content, "functionCall");
        let after_model = i == 0 || contents[i - 1]["role"] == "model";
        found.must(open.is_empty() || !after_model, "call-place", &at, format_args!("{open:?}"));
    }
    found.must(open.is_empty(), "as-many-responses", "/contents", format_args!("{open:?}"));
    let last = contents.last().is_none_or(|c| c["role"] != "model");
    found.must(last, "user-ends", "/contents", "the model's");
}

fn tools(body: &Value, found: &mut Found) {
    let mut names = HashSet::new();
    for tool in items(&body["tools"]) {
        for function in items(&tool["functionDeclarations"]) {
            let name = text_of(function, "name");
            found.must(self::name(name) && names.insert(name), "tools", "/tools", name);
            let (old, new) = (&function["parameters"], &function["parametersJsonSchema"]);
            let schema = if old.is_null() { new } else { old };
            let object = text_of(schema, "type").eq_ignore_ascii_case("object");
            found.must(schema.is_null() || object, "tool-schema", "/tools", schema);
        }
    }
    let config = &body["toolConfig"]["functionCallingConfig"];
    let known = config["mode"].is_null()
        || matches!(text_of(config, "mode"), "AUTO" | "ANY" | "NONE" | "VALIDATED" | "MODE_UNSPECIFIED");
    let allowed =
        items(&config["allowedFunctionNames"]).iter().all(|n| n.as_str().is_some_and(|n| names.contains(n)));
    found.must(known && allowed, "tool-config", "/toolConfig", config);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{but, each_can_fail, recorded};
    use serde_json::json;

    #[test]
    fn every_rule_can_fail() {
        let user = |text: &str| json!({"role": "user", "parts": [{"text": text}]});
        let call =
            |n: &str| json!({"functionCall": {"name": n, "args": {"a": 1}}, "thoughtSignature": "c2ln"});
        let response = |n: &str| json!({"functionResponse": {"name": n, "response": {"result": 1}}});
        let good = json!({
            "contents": [
                {"role": "user", "parts": [{"text": "go"}, {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]},
                {"role": "model", "parts": [{"text": "on it"}, call("f"), call("g")]},
                {"role": "user", "parts": [response("f"), response("g")]},
                {"role": "model", "parts": [{"text": "done"}]},
                user("thanks"),
            ],
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}},
                {"name": "g", "parametersJsonSchema": {"type": "object"}}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
            "generationConfig": {"temperature": 1.0},
        });
        let bad = [
            ("shape", but(&good, "/contents", json!([]))),
            ("role", but(&good, "/contents/4/role", json!("assistant"))),
            ("parts", but(&good, "/contents/4/parts", json!([]))),
            ("part-data", but(&good, "/contents/4/parts/0", json!({}))),
            ("part-data", but(&good, "/contents/1/parts/1/text", json!("x"))),
            ("blank-text", but(&good, "/contents/4", user(""))),
            ("user-ends", but(&good, "/contents/4", good["contents"][3].clone())),
            ("system", but(&good, "/systemInstruction/parts", json!([]))),
            ("call-role", but(&good, "/contents/1/role", json!("user"))),
            ("call-place", but(&good, "/contents/0", good["contents"][3].clone())),
            ("call-name", but(&good, "/contents/1/parts/1/functionCall/name", json!("no such tool"))),
            ("call-name", but(&good, "/contents/1/parts/1/functionCall/name", json!("1f"))),
            ("call-args", but(&good, "/contents/1/parts/1/functionCall/args", json!("{"))),
            ("call-args", but(&good, "/contents/2/parts/1/functionResponse/response", json!("1"))),
            ("as-many-responses", but(&good, "/contents/2/parts", json!([response("f")]))),
            ("as-many-responses", but(&good, "/contents/2/parts/0", response("h"))),
            ("orphan-response", but(&good, "/contents/4/parts", json!([response("f")]))),
            ("media", but(&good, "/contents/0/parts/1/inlineData/mimeType", json!(""))),
            ("tools", but(&good, "/tools/0/functionDeclarations/1/name", json!("f"))),
            ("tool-schema", but(&good, "/tools/0/functionDeclarations/0/parameters/type", json!("STRING"))),
            (
                "tool-config",
                but(&good, "/toolConfig/functionCallingConfig/allowedFunctionNames/0", json!("x")),
            ),
            ("sampling", but(&good, "/generationConfig/temperature", json!(3))),
        ];
        each_can_fail(RULES, check_body, &good, &bad);
    }

    #[test]
    fn recorded_requests_pass() {
        recorded(
            "gemini.generate",
            &[(
                "test_google_instructions_only_with_tool_calls",
                "blank-text",
                "the Developer API takes an empty text, Vertex AI does not",
            )],
            |body, _| check_body(body),
        );
    }
}
