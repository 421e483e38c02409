//! A conversation as the text that the model was trained on: the chat template of the file, or ChatML where it has none.
//!
//! Tools: a template that writes `<tool_call>` itself is given them; for all others they are told of in the system text, in the
//! same form (that of Hermes and Qwen), so that a call is read in one way.

use super::words::{From, Words};
use minijinja::{Environment, Value as Jinja};
use serde_json::{Value, json};
use zo_traits::{Error, ErrorKind, Media, Part, Request, Result, Role, ToolResult, ToolSpec, ToolStatus};

pub(super) const CALL: &str = "<tool_call>";
pub(super) const CALL_END: &str = "</tool_call>";
pub(super) const THINK: &str = "<think>";
pub(super) const THINK_END: &str = "</think>";

/// Around a mark that somebody other than the template wrote. These code points are no characters and stand in no text.
const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';
/// Steps that a template may take: a hundred times what one takes for a long conversation.
const FUEL: u64 = 50_000_000;

const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn invalid(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, super::OP, message)
}

/// A chat template, ready to use.
#[derive(Debug)]
pub(super) struct Chat {
    jinja: Environment<'static>,
    takes_tools: bool,
}

impl Chat {
    pub(super) fn new(template: Option<&str>) -> Result<Self> {
        let template = template.unwrap_or(CHATML);
        let mut jinja = Environment::new();
        jinja.set_trim_blocks(true);
        jinja.set_lstrip_blocks(true);
        jinja.set_fuel(Some(FUEL));
        jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // That of the library is for HTML: it writes `<` as an escape.
        jinja.add_filter("tojson", |value: Jinja| {
            serde_json::to_string(&value)
                .map_err(|e| minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, e.to_string()))
        });
        jinja.add_function("raise_exception", |message: String| -> Result<(), minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
        });
        jinja.add_template_owned("chat", template.to_owned()).map_err(|e| {
            super::gguf::unsupported(format_args!("the chat template of the file cannot be read: {e}"))
        })?;
        Ok(Self { jinja, takes_tools: template.contains(CALL) && template.contains("tools") })
    }

    /// The prompt, and whether the model begins by thinking.
    pub(super) fn prompt(
        &self,
        words: &Words,
        request: &Request,
        tools: &[ToolSpec],
    ) -> Result<(Vec<u32>, bool)> {
        let guard = |text: &str| words.guard(text, OPEN, CLOSE);
        let (system, turns) = self.turns(request, tools, &guard)?;
        let mut with_system = turns.clone();
        if !system.is_empty() {
            with_system.insert(0, json!({"role": "system", "content": system}));
        }
        let text = match self.render(words, &with_system, tools, &guard) {
            // Some families have no system text: it stands before what the user says first.
            Err(e) if !system.is_empty() => {
                self.render(words, &folded(turns, &system), tools, &guard).map_err(|_| e)?
            }
            other => other?,
        };
        let thinking = text.trim_end().ends_with(THINK);
        let pieces: Vec<_> = text
            .split(OPEN)
            .enumerate()
            .flat_map(|(n, part)| match part.split_once(CLOSE) {
                Some((other, template)) if n > 0 => [(From::Other, other), (From::Template, template)],
                _ => [(From::Template, part), (From::Template, "")],
            })
            .filter(|(_, text)| !text.is_empty())
            .collect();
        Ok((words.prompt(&pieces)?, thinking))
    }

    fn render(
        &self,
        words: &Words,
        messages: &[Value],
        tools: &[ToolSpec],
        guard: &dyn Fn(&str) -> String,
    ) -> Result<String> {
        let offered = (self.takes_tools && !tools.is_empty())
            .then(|| tools.iter().map(|t| guarded(&described(t), guard)).collect::<Vec<_>>());
        let values = minijinja::context! {
            messages => Jinja::from_serialize(messages),
            tools => offered.map(|t| Jinja::from_serialize(&t)),
            add_generation_prompt => true,
            bos_token => &words.first_text,
            eos_token => &words.end_text,
        };
        let template = self.jinja.get_template("chat");
        template
            .and_then(|t| t.render(values))
            .map_err(|e| invalid(format_args!("the chat template of the file refuses the conversation: {e}")))
    }

    /// The system text before everything, and who says what in turns.
    fn turns(
        &self,
        request: &Request,
        tools: &[ToolSpec],
        guard: &dyn Fn(&str) -> String,
    ) -> Result<(String, Vec<Value>)> {
        let messages = &request.messages;
        let lead = messages.iter().take_while(|m| m.role == Role::System).count();
        let mut system: Vec<String> = messages
            .iter()
            .take(lead)
            .map(|m| guard(&m.to_text()))
            .filter(|t| !t.trim().is_empty())
            .collect();
        if !self.takes_tools && !tools.is_empty() {
            system.push(told(tools, guard));
        }
        let newest = messages.iter().rposition(|m| m.role == Role::User);
        let mut turns: Vec<Value> = Vec::new();
        for (at, message) in messages.iter().enumerate().skip(lead) {
            let (mut text, mut calls) = (Vec::new(), Vec::new());
            for part in &message.parts {
                match part {
                    Part::Text(t) | Part::Refusal(t) => text.push(guard(&t.text)),
                    Part::Media(media) if newest == Some(at) => {
                        return Err(Error::new(
                            ErrorKind::Unsupported,
                            super::OP,
                            format_args!("a model of words cannot look at {}", media.media_type),
                        ));
                    }
                    Part::Media(media) => text.push(guard(&note(media))),
                    Part::ToolCall(call) => {
                        let arguments = guarded(&call.args, guard);
                        if self.takes_tools {
                            let function = json!({"name": guard(&call.name), "arguments": arguments});
                            calls.push(
                                json!({"id": guard(&call.id), "type": "function", "function": function}),
                            );
                        } else {
                            let name = Value::from(guard(&call.name));
                            text.push(format!(
                                "{CALL}\n{{\"name\": {name}, \"arguments\": {arguments}}}\n{CALL_END}"
                            ));
                        }
                    }
                    Part::ToolResult(result) if self.takes_tools => {
                        let (content, name) = (guard(&result_text(result)), guard(&result.name));
                        let id = guard(&result.id);
                        turns.push(
                            json!({"role": "tool", "content": content, "name": name, "tool_call_id": id}),
                        );
                    }
                    Part::ToolResult(result) => {
                        let content = guard(&result_text(result));
                        text.push(format!("<tool_response>\n{content}\n</tool_response>"));
                    }
                    // Thoughts of earlier turns are left out, as these models were trained.
                    Part::Reasoning(_) | Part::Opaque(_) | Part::Unknown(_) => {}
                    _ => {}
                }
            }
            let mut text = text.join("\n");
            if text.trim().is_empty() && calls.is_empty() {
                continue;
            }
            let role = if message.role == Role::Assistant { "assistant" } else { "user" };
            if message.role == Role::System {
                text = format!("<system>\n{text}\n</system>");
            }
            match turns.last_mut() {
                // Templates want the two to take turns.
                Some(last)
                    if last["role"] == role && calls.is_empty() && last.get("tool_calls").is_none() =>
                {
                    let before = last["content"].as_str().unwrap_or_default();
                    last["content"] = format!("{before}\n\n{text}").into();
                }
                _ if calls.is_empty() => turns.push(json!({"role": role, "content": text})),
                _ => turns.push(json!({"role": role, "content": text, "tool_calls": calls})),
            }
        }
        if turns.is_empty() {
            return Err(invalid("the conversation says nothing"));
        }
        Ok((system.join("\n\n"), turns))
    }
}

fn folded(mut turns: Vec<Value>, system: &str) -> Vec<Value> {
    match turns.first_mut() {
        Some(first) if first["role"] == "user" => {
            let said = first["content"].as_str().unwrap_or_default();
            first["content"] = format!("{system}\n\n{said}").into();
        }
        _ => turns.insert(0, json!({"role": "user", "content": system})),
    }
    turns
}

fn described(tool: &ToolSpec) -> Value {
    let function = json!({"name": tool.name, "description": tool.description, "parameters": *tool.input});
    json!({"type": "function", "function": function})
}

fn told(tools: &[ToolSpec], guard: &dyn Fn(&str) -> String) -> String {
    let list: Vec<_> = tools.iter().map(|t| guarded(&described(t), guard).to_string()).collect();
    format!(
        "You may call functions to help with what the user asks. They are described in JSON within <tools></tools>:\n\
         <tools>\n{}\n</tools>\n\
         To call one, write a JSON object with its name and its arguments within <tool_call></tool_call>:\n\
         {CALL}\n{{\"name\": \"the name\", \"arguments\": {{}}}}\n{CALL_END}",
        list.join("\n")
    )
}

/// Every text in `value`, guarded.
fn guarded(value: &Value, guard: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => guard(text).into(),
        Value::Array(items) => items.iter().map(|v| guarded(v, guard)).collect(),
        Value::Object(fields) => fields.iter().map(|(k, v)| (guard(k), guarded(v, guard))).collect(),
        other => other.clone(),
    }
}

fn result_text(result: &ToolResult) -> String {
    let mut text = if !result.content.trim().is_empty() {
        result.content.clone()
    } else {
        match &result.status {
            ToolStatus::Ok => "(no output)".into(),
            ToolStatus::Unknown => "interrupted: it may or may not have happened".into(),
            other => other.to_string(),
        }
    };
    for media in &result.media {
        text.push('\n');
        text.push_str(&note(media));
    }
    text
}

fn note(media: &Media) -> String {
    format!("[{} {} is not shown]", media.media_type, media.name.as_deref().unwrap_or("file"))
}
