//! Scrubbing messages and requests.

use super::Leaks;
use serde_json::{Map, Value};
use std::{borrow::Cow, sync::Arc};
use zo_traits::{
    Media, MediaSource, Message, Part, Replay, Request, Text, ToolChoice, ToolOutput, ToolResult, ToolSpec,
};

/// What stands for a file that holds a secret.
const LEFT_OUT: &str = "[a file was left out: it holds a secret]";

impl Leaks {
    /// Replaces known secrets in `text`. Was there one?
    fn scrub_string(&self, text: &mut String) -> bool {
        match self.scrub(text) {
            Cow::Borrowed(_) => false,
            Cow::Owned(clean) => {
                *text = clean;
                true
            }
        }
    }

    /// Replaces known secrets in all texts, names of fields and numbers of `value`. Was there one?
    pub fn scrub_json(&self, value: &mut Value) -> bool {
        // By hand and not by calls: a value may be nested deeper than the stack is deep.
        let (mut todo, mut any) = (vec![value], false);
        while let Some(value) = todo.pop() {
            match value {
                Value::String(text) => any |= self.scrub_string(text),
                Value::Number(number) => {
                    if let Cow::Owned(clean) = self.scrub(&number.to_string()) {
                        *value = Value::String(clean);
                        any = true;
                    }
                }
                Value::Array(items) => todo.extend(items),
                Value::Object(fields) => {
                    any |= self.scrub_names(fields);
                    todo.extend(fields.values_mut());
                }
                Value::Null | Value::Bool(_) => {}
            }
        }
        any
    }

    fn scrub_names(&self, fields: &mut Map<String, Value>) -> bool {
        if !fields.keys().any(|name| self.is_in(name.as_bytes())) {
            return false;
        }
        *fields = std::mem::take(fields)
            .into_iter()
            .map(|(name, value)| (self.scrub(&name).into_owned(), value))
            .collect();
        true
    }

    /// Replaces known secrets in all parts of `message`, also in what goes back to a provider verbatim. A file that holds one
    /// is replaced by a line of text. Was there one?
    ///
    /// Ids of tool calls stay as they are: they come from providers and tie calls to results.
    pub fn scrub_message(&self, message: &mut Message) -> bool {
        // All of them, not only up to the first that holds one.
        message.parts.iter_mut().filter_map(|part| self.scrub_part(part).then_some(())).count() > 0
    }

    fn scrub_part(&self, part: &mut Part) -> bool {
        match part {
            Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => self.scrub_text(text),
            Part::Media(media) => {
                let bad = self.is_in_media(media);
                if bad {
                    *part = Part::text(LEFT_OUT);
                }
                bad
            }
            Part::ToolCall(call) => {
                let name = self.scrub_string(&mut call.name);
                let args = self.scrub_json(&mut call.args);
                self.scrub_replay(call.replay.as_mut()) || name || args
            }
            Part::ToolResult(result) => self.scrub_result(result),
            Part::Opaque(replay) => self.scrub_replay(Some(replay)),
            Part::Unknown(value) => self.scrub_json(value),
            // A kind of part that is newer than this scanner.
            other => {
                let mut value = serde_json::to_value(&*other).unwrap_or_default();
                let bad = self.scrub_json(&mut value);
                if bad {
                    *other = Part::Unknown(value);
                }
                bad
            }
        }
    }

    fn scrub_text(&self, text: &mut Text) -> bool {
        let said = self.scrub_string(&mut text.text);
        self.scrub_replay(text.replay.as_mut()) || said
    }

    fn scrub_replay(&self, replay: Option<&mut Replay>) -> bool {
        replay.is_some_and(|replay| self.scrub_json(&mut replay.data))
    }

    /// Replaces known secrets in what a tool answered. Was there one?
    pub fn scrub_result(&self, result: &mut ToolResult) -> bool {
        self.scrub_string(&mut result.name)
            | self.scrub_string(&mut result.content)
            | self.scrub_files(&mut result.media, &mut result.content)
    }

    /// Replaces known secrets in what a skill hands back: text, files and data. Was there one?
    pub fn scrub_output(&self, output: &mut ToolOutput) -> bool {
        self.scrub_string(&mut output.text)
            | self.scrub_files(&mut output.media, &mut output.text)
            | output.data.as_mut().is_some_and(|data| self.scrub_json(data))
    }

    /// Leaves out files that hold a secret, and says so in `text`.
    fn scrub_files(&self, files: &mut Vec<Media>, text: &mut String) -> bool {
        let before = files.len();
        files.retain(|media| !self.is_in_media(media));
        for _ in files.len()..before {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(LEFT_OUT);
        }
        files.len() < before
    }

    fn is_in_media(&self, media: &Media) -> bool {
        let data = match &media.source {
            MediaSource::Base64(data) | MediaSource::Url(data) => self.is_in(data.as_bytes()),
            // A source that is newer than this scanner.
            other => serde_json::to_vec(other).is_ok_and(|json| self.is_in(&json)),
        };
        data || self.is_in(media.media_type.as_bytes())
            || media.name.as_ref().is_some_and(|name| self.is_in(name.as_bytes()))
    }

    /// `request` without any known secret: messages, tools, schema, stop texts and extra fields. It is cloned only if it has
    /// one.
    pub fn scrub_request<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        let mut out = Cow::Borrowed(request);
        for (n, message) in request.messages.iter().enumerate() {
            if self.is_in_message(message)
                && let Some(message) = out.to_mut().messages.get_mut(n)
            {
                self.scrub_message(message);
            }
        }
        if request.tools.iter().any(|tool| self.is_in_tool(tool)) {
            out.to_mut().tools = request.tools.iter().map(|tool| self.scrubbed_tool(tool)).collect();
        }
        if let ToolChoice::Tool(name) = &request.tool_choice
            && let Cow::Owned(name) = self.scrub(name)
        {
            out.to_mut().tool_choice = ToolChoice::Tool(name);
        }
        if let Cow::Owned(model) = self.scrub(&request.model) {
            out.to_mut().model = model;
        }
        if request.stop.iter().any(|stop| self.is_in(stop.as_bytes())) {
            out.to_mut().stop = request.stop.iter().map(|stop| self.scrub(stop).into_owned()).collect();
        }
        if let Some(schema) = &request.output_schema
            && self.is_in_json(schema)
        {
            let mut schema = Value::clone(schema);
            self.scrub_json(&mut schema);
            out.to_mut().output_schema = Some(Arc::new(schema));
        }
        let extra =
            request.extra.iter().any(|(name, value)| self.is_in(name.as_bytes()) || self.is_in_json(value));
        if extra {
            let mut extra = Value::Object(request.extra.clone());
            self.scrub_json(&mut extra);
            if let Value::Object(extra) = extra {
                out.to_mut().extra = extra;
            }
        }
        out
    }

    fn is_in_json(&self, value: &Value) -> bool {
        let mut todo = vec![value];
        while let Some(value) = todo.pop() {
            let here = match value {
                Value::String(text) => self.is_in(text.as_bytes()),
                Value::Number(number) => self.is_in(number.to_string().as_bytes()),
                Value::Array(items) => {
                    todo.extend(items);
                    false
                }
                Value::Object(fields) => {
                    todo.extend(fields.values());
                    fields.keys().any(|name| self.is_in(name.as_bytes()))
                }
                Value::Null | Value::Bool(_) => false,
            };
            if here {
                return true;
            }
        }
        false
    }

    fn is_in_message(&self, message: &Message) -> bool {
        let replay = |replay: &Option<Replay>| replay.as_ref().is_some_and(|r| self.is_in_json(&r.data));
        message.parts.iter().any(|part| match part {
            Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => {
                self.is_in(text.text.as_bytes()) || replay(&text.replay)
            }
            Part::Media(media) => self.is_in_media(media),
            Part::ToolCall(call) => {
                self.is_in(call.name.as_bytes()) || self.is_in_json(&call.args) || replay(&call.replay)
            }
            Part::ToolResult(result) => {
                self.is_in(result.name.as_bytes())
                    || self.is_in(result.content.as_bytes())
                    || result.media.iter().any(|media| self.is_in_media(media))
            }
            Part::Opaque(replay) => self.is_in_json(&replay.data),
            Part::Unknown(value) => self.is_in_json(value),
            other => serde_json::to_value(other).is_ok_and(|value| self.is_in_json(&value)),
        })
    }

    fn is_in_tool(&self, tool: &ToolSpec) -> bool {
        self.is_in(tool.name.as_bytes())
            || self.is_in(tool.description.as_bytes())
            || self.is_in_json(&tool.input)
    }

    fn scrubbed_tool(&self, tool: &ToolSpec) -> ToolSpec {
        let mut tool = tool.clone();
        self.scrub_string(&mut tool.name);
        self.scrub_string(&mut tool.description);
        if self.is_in_json(&tool.input) {
            self.scrub_json(Arc::make_mut(&mut tool.input));
        }
        tool
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Secret;
    use serde_json::json;
    use zo_traits::{ToolCall, ToolStatus};

    const KEY: &str = "sk-canary-77f1c0ffee";

    fn leaks() -> Leaks {
        let leaks = Leaks::default();
        leaks.add("k", &Secret::new(KEY)).unwrap();
        leaks.add("pin", &Secret::new("12345678")).unwrap();
        leaks
    }

    fn media(data: &str) -> Media {
        Media { media_type: "text/plain".into(), source: MediaSource::Base64(data.into()), name: None }
    }

    /// `key: sk-canary-77f1c0ffee` in base64.
    const FILE: &str = "a2V5OiBzay1jYW5hcnktNzdmMWMwZmZlZQ==";

    #[test]
    fn json_is_scrubbed_everywhere() {
        let mut value =
            json!({"a": [1, KEY, {KEY: {"b": format!("x{KEY}")}}], "n": 12345678, "m": 1234567.5});
        assert!(leaks().scrub_json(&mut value));
        assert_eq!(
            value,
            json!({"a": [1, "[secret k]", {"[secret k]": {"b": "x[secret k]"}}], "n": "[secret pin]", "m": 1234567.5})
        );
        assert!(!leaks().scrub_json(&mut value));
        let mut deep = Value::String(KEY.into());
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert!(leaks().scrub_json(&mut deep) && !deep.to_string().contains(KEY));
    }

    fn messages(key: &str, file: &str) -> Vec<Message> {
        let call = ToolCall {
            id: "1".into(),
            name: "t".into(),
            args: json!({"q": key}),
            replay: Some(Replay::new("p", json!({"s": key}))),
        };
        let mut result = ToolResult::new(&call, ToolStatus::Ok, key);
        result.media = vec![media(file), media("aGVsbG8=")];
        let thought = Text { text: String::new(), replay: Some(Replay::new("p", json!([key]))) };
        let turn = |parts: Vec<Part>| Message { role: zo_traits::Role::Assistant, parts };
        vec![
            Message::system("hi"),
            Message::user(key),
            turn(vec![Part::Reasoning(thought)]),
            turn(vec![Part::Refusal(Text::new(key))]),
            turn(vec![Part::ToolCall(call)]),
            Message::tool_results([result]),
            turn(vec![Part::Opaque(Replay::new("p", key)), Part::Unknown(json!({"type": "new", "x": key}))]),
            turn(vec![Part::Media(media(file)), Part::Media(media("aGVsbG8="))]),
        ]
    }

    #[test]
    fn no_part_of_a_message_keeps_a_secret() {
        let (leaks, mut all) = (leaks(), messages(KEY, FILE));
        assert!(!leaks.scrub_message(&mut all[0]));
        for message in &mut all[1..] {
            assert!(leaks.scrub_message(message), "{message:?}");
        }
        let text = serde_json::to_string(&all).unwrap();
        assert!(!text.contains("canary") && !text.contains("2FuYXJ5"), "{text}");
        assert_eq!(text.matches("[secret k]").count(), 8, "{text}");
        assert_eq!(text.matches(LEFT_OUT).count(), 2, "{text}");
        assert_eq!(text.matches("aGVsbG8=").count(), 2, "harmless files stay");
    }

    #[test]
    fn a_request_is_cloned_only_if_it_holds_one() {
        let leaks = leaks();
        let clean = Request::new("m", messages("nothing", "aGVsbG8="));
        assert!(matches!(leaks.scrub_request(&clean), Cow::Borrowed(_)));
        let mut request = Request::new("m", messages(KEY, FILE));
        request = request.tools([ToolSpec::new(
            "t",
            format!("use {KEY}"),
            json!({"type": "object", "default": {KEY: 1}}),
        )]);
        request.stop = vec![KEY.into()];
        request.output_schema = Some(Arc::new(json!({"const": KEY})));
        request.extra.insert("user".into(), KEY.into());
        request.tool_choice = ToolChoice::Tool(KEY.into());
        let before = request.clone();
        let out = leaks.scrub_request(&request).into_owned();
        assert_eq!(request, before);
        let text = serde_json::to_string(&out).unwrap();
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(text.matches("[secret k]").count(), 14, "{text}");
        assert!(matches!(leaks.scrub_request(&out), Cow::Borrowed(_)));
    }
}
