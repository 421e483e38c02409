//! Chat completions where a chat template raises on the order of roles: Mistral's API, and local servers with templates such
//! as those of Mistral, Gemma and Llama. These rules come on top of those of [`openai_chat`](super::openai_chat).

use super::{Found, Rule, Violation, items, text_of};
use serde_json::Value;

const TEMPLATE: &str =
    "https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.3/blob/main/tokenizer_config.json";

/// What [`check_body`] demands; the last is [`check_mistral_body`]'s.
pub static RULES: &[Rule] = &[
    Rule {
        name: "system-first",
        says: "one system message at most, and before all others",
        source: "https://huggingface.co/meta-llama: templates take the system message from messages[0] only",
    },
    Rule {
        name: "alternate",
        says: "conversation roles must alternate user/assistant/user/assistant/..., calls and results aside",
        source: TEMPLATE,
    },
    Rule { name: "user-begins", says: "the user speaks first", source: TEMPLATE },
    Rule {
        name: "after-tool",
        says: "behind tool messages the assistant speaks",
        source: "Mistral's API: Unexpected role 'user' after role 'tool'",
    },
    Rule {
        name: "last-role",
        says: "the user or a tool has the last word (or the assistant's is marked as a prefix)",
        source: "Mistral's API: Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
    },
    Rule {
        name: "answer",
        says: "an assistant's message has content or tool calls",
        source: "Mistral's API: Assistant message must have either content or tool_calls, but not none",
    },
    Rule {
        name: "as-many-results",
        says: "as many results as calls",
        source: "Mistral's API: Not the same number of function calls and responses",
    },
    Rule {
        name: "short-id",
        says: "an id is nine letters or digits",
        source: "Mistral's API: Tool call id was x but must be a-z, A-Z, 0-9, with a length of 9",
    },
];

/// Checks the order of roles.
///
/// # Errors
/// Every violation.
pub fn check_body(body: &Value) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    order(body, &mut found);
    found.done()
}

/// Checks the order of roles, and ids as Mistral wants them.
///
/// # Errors
/// Every violation.
pub fn check_mistral_body(body: &Value) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    order(body, &mut found);
    let short = |id: &str| id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    for (i, message) in items(&body["messages"]).iter().enumerate() {
        let mut ids: Vec<_> = items(&message["tool_calls"]).iter().map(|c| text_of(c, "id")).collect();
        if message["role"] == "tool" {
            ids.push(text_of(message, "tool_call_id"));
        }
        for id in ids {
            found.must(short(id), "short-id", format_args!("/messages/{i}"), id);
        }
    }
    found.done()
}

fn order(body: &Value, found: &mut Found) {
    let messages = items(&body["messages"]);
    let mut users_turn = true;
    let mut before = "";
    let mut owed = 0usize;
    for (i, message) in messages.iter().enumerate() {
        let at = format!("/messages/{i}");
        let role = text_of(message, "role");
        if role != "tool" {
            found.must(owed == 0, "as-many-results", &at, format_args!("{owed} missing"));
            owed = 0;
        }
        let calls = items(&message["tool_calls"]).len();
        match role {
            "system" | "developer" => found.must(i == 0, "system-first", &at, role),
            "user" => {
                found.must(before != "tool", "after-tool", &at, role);
                found.must(users_turn || before == "tool", "alternate", &at, role);
                users_turn = false;
            }
            "assistant" => {
                let begins = !before.is_empty() && before != "system" && before != "developer";
                found.must(begins, "user-begins", &at, role);
                found.must(!begins || !users_turn, "alternate", &at, role);
                let says = !message["content"].is_null() && message["content"] != "";
                found.must(says || calls > 0, "answer", &at, &message["content"]);
                // Behind the results it is the assistant's turn again.
                users_turn = calls == 0;
                owed = calls;
            }
            "tool" => {
                found.must(owed > 0, "as-many-results", &at, "one too many");
                owed = owed.saturating_sub(1);
                users_turn = false;
            }
            _ => {}
        }
        before = role;
    }
    found.must(owed == 0, "as-many-results", "/messages", format_args!("{owed} missing"));
    let last = messages.last().unwrap_or(&Value::Null);
    let fine = matches!(text_of(last, "role"), "user" | "tool") || last["prefix"] == true;
    found.must(fine, "last-role", "/messages", &last["role"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{but, each_can_fail, openai_chat, recorded};
    use serde_json::json;

    #[test]
    fn every_rule_can_fail() {
        let good = openai_chat::good();
        let say = |role: &str| json!({"role": role, "content": "x"});
        let list = |roles: &[&str]| json!({"messages": roles.iter().map(|r| say(r)).collect::<Vec<_>>()});
        let bad = [
            ("system-first", list(&["user", "system", "user"])),
            ("system-first", list(&["system", "system", "user"])),
            ("alternate", list(&["user", "user"])),
            ("alternate", list(&["user", "assistant", "assistant", "user"])),
            ("user-begins", list(&["assistant", "user"])),
            ("user-begins", list(&["system", "assistant", "user"])),
            ("after-tool", but(&good, "/messages/5", say("user"))),
            ("last-role", list(&["user", "assistant"])),
            ("answer", but(&good, "/messages/5/content", Value::Null)),
            ("as-many-results", but(&good, "/messages/4", say("assistant"))),
            ("as-many-results", but(&good, "/messages/5", say("tool"))),
            ("short-id", but(&good, "/messages/3/tool_call_id", json!("call_1"))),
        ];
        each_can_fail(RULES, check_mistral_body, &good, &bad);
    }

    #[test]
    fn recorded_requests_pass() {
        let lenient = [
            ("llamacpp__rig__raw_followup", "user-begins", "this model's template does not count"),
            ("llamacpp__rig__raw_followup", "after-tool", "the same"),
            ("mistral__rig__parallel_tool_calls_single", "short-id", "the recording blanked the id"),
        ];
        recorded("openai.chat", &lenient, |body, provider| match provider {
            "mistral" => check_mistral_body(body),
            "llamacpp" | "mistralrs" | "ollama" => check_body(body),
            _ => Ok(()),
        });
    }
}
