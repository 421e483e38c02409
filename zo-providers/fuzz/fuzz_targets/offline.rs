//! Any request to the rules: they answer, always the same, within bounds, and call nothing that was not offered.
//!
//! Input: a request as JSON, or else bytes from which one is built.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use std::{
    collections::HashSet,
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use zo_providers::Offline;
use zo_traits::{
    Cx, Message, Part, ProviderExt, Request, Role, ToolCall, ToolChoice, ToolResult, ToolSpec, ToolStatus,
};

const MOST_TIME: Duration = Duration::from_secs(5);

const WORDS: [&str; 64] = [
    "what",
    "is",
    "17",
    "times",
    "23",
    "?",
    "the",
    "weather",
    "in",
    "Paris",
    "and",
    "London",
    "tomorrow",
    "remember",
    "that",
    "my",
    "name",
    "Ada",
    "send",
    "an",
    "email",
    "to",
    "a@b.example",
    "next",
    "Friday",
    "at",
    "5pm",
    "12/31/2024",
    "every",
    "two",
    "hours",
    "calculate",
    "(3+4)*2",
    "half",
    "of",
    "1,234.50",
    "€",
    "percent",
    "don't",
    "\"quoted text\"",
    "it's",
    "https://a.example/x?y=1",
    "then",
    "also",
    ".",
    ",",
    ";",
    "\n",
    "-",
    "true",
    "no",
    "red",
    "large",
    "ten",
    "thousand",
    "is my",
    "'",
    "(",
    "İ",
    "ß",
    "\u{301}",
    "\u{1f600}",
    "2024-02-30",
    "-0.5e3",
];
const TYPES: [&str; 8] = ["string", "integer", "number", "boolean", "array", "object", "null", "odd"];
const FORMATS: [&str; 6] = ["date", "date-time", "email", "uri", "time", "uuid"];

struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[usize::from(self.byte()) % from.len()]
    }

    /// A few words, or the bytes that follow as they are.
    fn text(&mut self) -> String {
        let n = self.byte();
        if n < 200 {
            let words: Vec<&str> = (0..n % 24).map(|_| self.pick(&WORDS)).collect();
            return words.join(" ");
        }
        let (text, rest) = self.0.split_at(usize::from(n - 200).min(self.0.len()));
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn property(&mut self, depth: u8) -> Value {
        let mut out = Map::new();
        out.insert("type".into(), json!(self.pick(&TYPES)));
        for _ in 0..self.byte() % 4 {
            let (key, rule) = match self.byte() % 10 {
                0 => ("description", json!(self.text())),
                1 => ("enum", json!([self.pick(&WORDS), self.pick(&WORDS), self.byte()])),
                2 => ("minimum", json!(self.byte())),
                3 => ("maximum", json!(self.byte())),
                4 => ("format", json!(self.pick(&FORMATS))),
                5 => ("default", json!(self.pick(&WORDS))),
                6 => ("maxLength", json!(self.byte())),
                7 if depth > 0 => ("items", self.property(depth - 1)),
                8 if depth > 0 => ("anyOf", json!([self.property(depth - 1), {"type": "null"}])),
                9 if depth > 0 => ("properties", json!({ self.pick(&WORDS): self.property(depth - 1) })),
                _ => ("$ref", json!("#/properties/city")),
            };
            out.insert(key.into(), rule);
        }
        Value::Object(out)
    }

    fn tool(&mut self, n: usize) -> ToolSpec {
        let names =
            ["calculate", "weather", "remember", "send_email", "use_skill", "recall", "schedule_task", "x"];
        let mut properties = Map::new();
        for _ in 0..self.byte() % 4 {
            let name = ["expression", "city", "text", "to", "when", "count", "tags", "unit"];
            properties.insert(self.pick(&name).into(), self.property(2));
        }
        let required: Vec<String> = properties.keys().take(usize::from(self.byte() % 4)).cloned().collect();
        let schema = json!({"type": "object", "properties": properties, "required": required});
        ToolSpec::new(format!("{}{}", self.pick(&names), if n > 3 { "_" } else { "" }), self.text(), schema)
    }

    fn message(&mut self) -> Message {
        let role = match self.byte() % 6 {
            0 => Role::System,
            1 => Role::Assistant,
            2 => Role::Tool,
            _ => Role::User,
        };
        let mut parts = Vec::new();
        for _ in 0..=self.byte() % 2 {
            let call = ToolCall::new(format!("offline_{}", self.byte()), "weather", json!({"city": "Paris"}));
            parts.push(match self.byte() % 8 {
                0 => Part::ToolCall(call),
                1 => Part::ToolResult(ToolResult::new(&call, ToolStatus::Ok, self.text())),
                2 => Part::ToolResult(ToolResult::new(&call, ToolStatus::Error, self.text())),
                3 => Part::text(format!("Memories that may help:\n- {}\n- {}", self.text(), self.text())),
                4 => Part::text(format!(
                    "Today is {}. {}",
                    ["2024-02-29", "Friday", "1 May 2026"][usize::from(self.byte() % 3)],
                    self.text()
                )),
                _ => Part::text(self.text()),
            });
        }
        Message { role, parts }
    }

    fn request(&mut self) -> Request {
        let tools: Vec<ToolSpec> = (0..usize::from(self.byte() % 6)).map(|n| self.tool(n)).collect();
        let mut request = Request::new("", (0..=self.byte() % 4).map(|_| self.message()));
        request.tool_choice = match self.byte() % 8 {
            0 => ToolChoice::None,
            1 => ToolChoice::Required,
            2 => ToolChoice::Tool("weather".into()),
            _ => ToolChoice::Auto,
        };
        request.max_tokens = (self.byte() % 16 == 1).then(|| u32::from(self.byte()));
        request.tools(tools)
    }
}

/// The rules wait for nothing, so one poll is enough.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(out) => out,
        Poll::Pending => panic!("the rules wait for something"),
    }
}

fuzz_target!(|data: &[u8]| {
    let request = serde_json::from_slice::<Request>(data).unwrap_or_else(|_| Source(data).request());
    let begun = Instant::now();
    let complete = || now(Offline::new().complete(&Cx::default(), &request));
    let answer = complete().expect("the rules always have an answer");
    assert!(begun.elapsed() < MOST_TIME, "took {:?}", begun.elapsed());
    assert_eq!(complete().expect("again"), answer, "the same request has one answer");

    let calls: Vec<&ToolCall> = answer.message.tool_calls().collect();
    if request.tool_choice == ToolChoice::None {
        assert!(calls.is_empty(), "no tool was allowed: {calls:?}");
    }
    let mut ids = HashSet::new();
    for call in calls {
        assert!(ids.insert(&call.id), "an id twice: {call:?}");
        if let ToolChoice::Tool(only) = &request.tool_choice {
            assert_eq!(call.name, *only);
        }
        let args = call.args.as_object().expect("arguments are an object");
        let fits = |spec: &ToolSpec| {
            let required = spec.input.get("required").and_then(Value::as_array);
            let strings = required.into_iter().flatten().filter_map(Value::as_str);
            spec.name == call.name && strings.into_iter().all(|name| args.contains_key(name))
        };
        assert!(request.tools.iter().any(fits), "no offered tool takes {call:?}");
    }
    // The answer quotes what was given and little else.
    assert!(answer.message.to_text().len() <= 64 * 1024, "{} bytes", answer.message.to_text().len());
});
