//! The form that a conversation has in every request.
//!
//! A history may come from anywhere: a run that was cancelled or killed between a tool call and its result, an edit, a
//! compaction, a window that cuts a turn in two, another program. Providers refuse a request with a hole in it, each by
//! rules of its own, and refuse it again each time that it is sent. This module stands between the history and every request,
//! and what comes out of it obeys the rules that all of them share. The stored history is not touched.
//!
//! # The normal form
//! 1. It begins with the user, behind any number of system messages. What the assistant said before is the tail of a turn
//!    that was cut off, and is left out.
//! 2. Directly behind a message with tool calls stands one tool message that holds one result for each call, in call order,
//!    under the call's id and name. Results stand nowhere else, and hold text or media. A result that is on record, if after
//!    something that was said in between, is moved to its call; one that is not is made up, with [`ToolStatus::Unknown`]. A
//!    result without a call is left out, and so is one in a message of the model's own.
//! 3. The id of a call is 1 to [`MAX_ID`] visible ASCII characters and comes once; its name is `[a-zA-Z0-9_-]{1,64}`, which is
//!    the strictest rule among the providers; its arguments are nested at most [`MAX_DEPTH`] deep, so that every JSON parser
//!    reads them back, whatever they are wrapped in.
//! 4. No message is without content, and none holds a text of nothing but white space, unless with replay data. Content is
//!    what every wire can say: for the assistant text, calls and opaque blocks, for the user text and media, for the host
//!    text. A message of reasoning alone is no content.
//! 5. Calls and reasoning are the assistant's alone; roles are the four known ones.
//!
//! # Promises
//! * [`normalize`] of anything is normal. What is normal already comes out unchanged to the byte, so that the prompt caches of
//!   providers hit; hence a second pass changes nothing.
//! * The normal form of a conversation that goes on begins with the normal form of what it was, if that was normal.
//! * The user's words are never lost, nor the host's: their text and media come out in the order in which they came in. The
//!   user's message is kept, with a text that says so, even when nothing is in it.
//! * Time and memory are linear in the messages, whatever their ids are.

use crate::machine::INVALID_NAME;
use serde_json::Value;
use std::collections::{HashMap, HashSet, VecDeque};
use zo_traits::{Message, Part, Role, ToolCall, ToolResult, ToolStatus};

/// Longest id of a tool call, in bytes.
pub const MAX_ID: usize = 64;
/// Deepest nesting of a tool call's arguments.
pub const MAX_DEPTH: usize = 64;
/// What the model reads where a result is missing.
const NO_RESULT: &str = "no result is on record for this call";
/// Stands for a user's message in which nothing can be read.
const NO_WORDS: &str = "(empty message)";
/// Stands for the user's turn where a request has none.
const GO_ON: &str = "(continue)";
/// Longest part of an id that is not sendable as it is which goes into its stand-in.
const KEPT_ID: usize = 40;

/// Puts the messages of one conversation, one after another, into the normal form.
///
/// A message with tool calls is held back until its results have come, and with it whatever is said meanwhile. It is let out by
/// the last result, by the next answer of the model, or by [`seal`](Normal::seal). A result that comes later than that is
/// left out, since what has been sent once does not change.
#[derive(Debug, Default, Clone)]
pub(crate) struct Normal {
    /// Ids of the calls so far, as they were let out.
    ids: HashSet<String>,
    /// Number in the next stand-in for an id. It never goes back, so that no stand-in is tried twice.
    next: usize,
    /// The user has spoken.
    begun: bool,
    /// What is held back, in order.
    held: Vec<Held>,
    /// Places of the calls in `held` that have no result yet, by the id that the call came with.
    open: HashMap<String, VecDeque<(usize, usize)>>,
    /// Something was answered or said since the first message in `held`: what the model says now, it says after that.
    settled: bool,
}

#[derive(Debug, Clone)]
struct Held {
    message: Message,
    /// One for each call of the message.
    results: Vec<Option<ToolResult>>,
}

impl Normal {
    /// Takes in the next message and lets out what is complete.
    pub(crate) fn push(&mut self, out: &mut Vec<Message>, message: Message) {
        let Message { role, mut parts } = message;
        if parts.iter().any(|p| matches!(p, Part::ToolResult(_))) {
            let mut rest = Vec::with_capacity(parts.len());
            for part in parts {
                match part {
                    // The model does not answer its own calls.
                    Part::ToolResult(_) if role == Role::Assistant => {}
                    Part::ToolResult(result) => self.answer(result),
                    other => rest.push(other),
                }
            }
            parts = rest;
            self.flush(out);
        }
        match role {
            Role::Assistant => self.assistant(out, parts),
            Role::System => self.system(out, parts),
            Role::Tool => {
                parts.retain(|p| !matches!(p, Part::Text(t) | Part::Refusal(t) if blank(&t.text)));
                if parts.iter().any(|p| matches!(p, Part::Text(_) | Part::Refusal(_) | Part::Media(_))) {
                    self.user(out, parts);
                }
            }
            // Whoever else it was, it was not the model.
            _ => self.user(out, parts),
        }
    }

    /// Lets out everything that is held back. Calls without a result get one that says so.
    pub(crate) fn seal(&mut self, out: &mut Vec<Message>) {
        self.settled = false;
        self.open.clear();
        for Held { message, results } in self.held.drain(..) {
            let closed: Vec<Part> = message
                .tool_calls()
                .zip(results)
                .map(|(call, result)| Part::ToolResult(close(call, result)))
                .collect();
            out.push(message);
            if !closed.is_empty() {
                out.push(Message { role: Role::Tool, parts: closed });
            }
        }
    }

    /// Lets out what is held back if no call is open.
    fn flush(&mut self, out: &mut Vec<Message>) {
        if self.open.is_empty() {
            self.seal(out);
        }
    }

    fn emit(&mut self, out: &mut Vec<Message>, message: Message) {
        if self.held.is_empty() {
            out.push(message);
        } else {
            self.held.push(Held { message, results: Vec::new() });
        }
    }

    /// Gives a result to the open call that it answers, if there is one.
    fn answer(&mut self, result: ToolResult) {
        let Some(places) = self.open.get_mut(&result.id) else { return };
        let place = places.pop_front();
        if places.is_empty() {
            self.open.remove(&result.id);
        }
        let slot = place.and_then(|(at, n)| self.held.get_mut(at).and_then(|h| h.results.get_mut(n)));
        if let Some(slot) = slot {
            *slot = Some(result);
            self.settled = true;
        }
    }

    fn assistant(&mut self, out: &mut Vec<Message>, mut parts: Vec<Part>) {
        if !self.begun {
            return;
        }
        parts.retain(|p| match p {
            Part::Text(t) | Part::Refusal(t) => t.replay.is_some() || !blank(&t.text),
            _ => true,
        });
        if !parts.iter().any(says_something) {
            // No API takes a picture back as the model's own.
            let Some(media) = parts.iter().find_map(|p| if let Part::Media(m) = p { Some(m) } else { None })
            else {
                return;
            };
            let note = format!("[{} {}]", media.media_type, media.name.as_deref().unwrap_or("file"));
            parts.push(Part::text(note));
        }
        // Answers in a row are one answer, kept in pieces: the results of all of them may follow. Not so where ids are
        // numbered anew: a result must never get to another call.
        let again = |p: &Part| matches!(p, Part::ToolCall(c) if self.open.contains_key(&c.id));
        if self.settled || parts.iter().any(again) {
            self.seal(out);
        }
        let calls = parts.iter().filter(|p| matches!(p, Part::ToolCall(_))).count();
        if calls == 0 {
            return self.emit(out, Message { role: Role::Assistant, parts });
        }
        let (at, mut n) = (self.held.len(), 0);
        for part in &mut parts {
            if let Part::ToolCall(call) = part {
                self.open.entry(call.id.clone()).or_default().push_back((at, n));
                self.mend(call);
                n += 1;
            }
        }
        let message = Message { role: Role::Assistant, parts };
        self.held.push(Held { message, results: vec![None; calls] });
    }

    fn user(&mut self, out: &mut Vec<Message>, mut parts: Vec<Part>) {
        // Only results, which are where they belong by now, or nothing at all.
        if !host_parts(&mut parts) {
            return;
        }
        if !parts.iter().any(|p| matches!(p, Part::Text(_) | Part::Media(_))) {
            parts.push(Part::text(NO_WORDS));
        }
        self.begun = true;
        self.settled |= !self.held.is_empty();
        self.emit(out, Message { role: Role::User, parts });
    }

    fn system(&mut self, out: &mut Vec<Message>, mut parts: Vec<Part>) {
        host_parts(&mut parts);
        let (media, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(|p| matches!(p, Part::Media(_)));
        if rest.iter().any(|p| p.as_text().is_some()) {
            self.emit(out, Message { role: Role::System, parts: rest });
        }
        // No API takes a picture from the host.
        if !media.is_empty() {
            self.user(out, media);
        }
    }

    /// Makes a call one that every provider takes back.
    fn mend(&mut self, call: &mut ToolCall) {
        if !good_name(&call.name) {
            call.name = INVALID_NAME.into();
        }
        if !shallow(&call.args, MAX_DEPTH) {
            call.args = Value::String("(arguments nested too deep to be kept)".into());
        }
        if good_id(&call.id) && !self.ids.contains(&call.id) {
            self.ids.insert(call.id.clone());
            return;
        }
        let mut base: String = call.id.chars().filter(char::is_ascii_graphic).take(KEPT_ID).collect();
        if base.is_empty() {
            base.push_str("call");
        }
        // Ends: the set is finite, and each number is tried once in the life of the conversation.
        self.next = self.next.max(self.ids.len());
        loop {
            self.next = self.next.saturating_add(1);
            call.id = format!("{base}-{}", self.next);
            if self.ids.insert(call.id.clone()) {
                return;
            }
        }
    }
}

/// Takes out of a message that is not the model's what only the model says, and blank text. `false` when nothing was left
/// before blank text went.
fn host_parts(parts: &mut Vec<Part>) -> bool {
    parts.retain(|p| !matches!(p, Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_)));
    let any = !parts.is_empty();
    for part in parts.iter_mut() {
        if let Part::Refusal(text) = part {
            *part = Part::Text(std::mem::take(text));
        }
    }
    parts.retain(|p| p.as_text().is_none_or(|t| !blank(t)));
    any
}

/// The result of a call, as it is sent.
fn close(call: &ToolCall, result: Option<ToolResult>) -> ToolResult {
    let mut result = result.unwrap_or_else(|| ToolResult::new(call, ToolStatus::Unknown, NO_RESULT));
    if result.id != call.id {
        result.id.clone_from(&call.id);
    }
    if result.name != call.name {
        result.name.clone_from(&call.name);
    }
    if blank(&result.content) && result.media.is_empty() {
        result.content = match &result.status {
            ToolStatus::Ok => "(no output)".into(),
            ToolStatus::Unknown => NO_RESULT.into(),
            other => format!("({other})"),
        };
    }
    result
}

/// The messages in the normal form. See the [module](self) for what that is.
pub fn normalize(messages: Vec<Message>) -> Vec<Message> {
    let mut out = Vec::with_capacity(messages.len());
    let mut normal = Normal::default();
    for message in messages {
        normal.push(&mut out, message);
    }
    normal.seal(&mut out);
    out
}

/// Are these messages normal, so that [`normalize`] gives them back unchanged?
pub fn is_normal(messages: &[Message]) -> bool {
    let mut ids: HashSet<&str> = HashSet::new();
    let mut begun = false;
    let mut rest = messages.iter();
    while let Some(Message { role, parts }) = rest.next() {
        let fine = match role {
            Role::System => {
                parts.iter().all(|p| !matches!(p, Part::Media(_)) && is_host_part(p))
                    && parts.iter().any(|p| p.as_text().is_some())
            }
            Role::User => {
                begun = true;
                parts.iter().all(is_host_part)
                    && parts.iter().any(|p| matches!(p, Part::Text(_) | Part::Media(_)))
            }
            Role::Assistant => {
                begun
                    && parts.iter().all(|p| match p {
                        Part::Text(t) | Part::Refusal(t) => t.replay.is_some() || !blank(&t.text),
                        Part::ToolCall(c) => {
                            good_name(&c.name)
                                && good_id(&c.id)
                                && shallow(&c.args, MAX_DEPTH)
                                && ids.insert(&c.id)
                        }
                        Part::ToolResult(_) => false,
                        _ => true,
                    })
                    && parts.iter().any(says_something)
                    && answered(parts, &mut rest)
            }
            // A tool message in its place was taken together with the calls before it.
            _ => false,
        };
        if !fine {
            return false;
        }
    }
    true
}

/// Do the results of the calls in `parts`, if there are any, come next?
fn answered<'a>(parts: &[Part], rest: &mut impl Iterator<Item = &'a Message>) -> bool {
    let mut calls =
        parts.iter().filter_map(|p| if let Part::ToolCall(c) = p { Some(c) } else { None }).peekable();
    if calls.peek().is_none() {
        return true;
    }
    let Some(Message { role: Role::Tool, parts: results }) = rest.next() else { return false };
    results.iter().all(|p| match (p, calls.next()) {
        (Part::ToolResult(r), Some(call)) => {
            r.id == call.id && r.name == call.name && !(blank(&r.content) && r.media.is_empty())
        }
        _ => false,
    }) && calls.next().is_none()
}

/// What a request with these messages lacks at its end. A conversation that ends in the model's words is refused by many
/// models (Anthropic's newest, Mistral's), as is one in which only the host speaks: the user must have the last word. `None`
/// where that is so; what the host says there stands in the user's place on every wire.
///
/// The message belongs to the request, not to the history. A request that goes on after
/// [`FinishReason::Pause`](zo_traits::FinishReason::Pause) needs none: the answer goes back to its provider as it came.
pub fn nudge(messages: &[Message]) -> Option<Message> {
    let ends = messages.last().is_some_and(|m| m.role == Role::Assistant);
    let nobody = messages.iter().all(|m| m.role == Role::System);
    (ends || nobody).then(|| Message::user(GO_ON))
}

fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// May it stand in a message of the user or the host?
fn is_host_part(part: &Part) -> bool {
    match part {
        Part::Text(t) => !blank(&t.text),
        Part::Refusal(_) | Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => false,
        _ => true,
    }
}

/// Is it content of an assistant's message?
fn says_something(part: &Part) -> bool {
    match part {
        Part::Text(t) | Part::Refusal(t) => !blank(&t.text),
        Part::ToolCall(_) | Part::Opaque(_) => true,
        _ => false,
    }
}

/// Can these arguments be read back by every JSON parser?
pub(crate) fn is_shallow(args: &Value) -> bool {
    shallow(args, MAX_DEPTH)
}

fn good_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

/// The strictest rule among the providers for the name of a tool.
pub(crate) fn good_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Is `value` nested at most `depth` deep? Looks no deeper than that.
fn shallow(value: &Value, depth: usize) -> bool {
    let Some(below) = depth.checked_sub(1) else {
        return !matches!(value, Value::Array(_) | Value::Object(_));
    };
    match value {
        Value::Array(items) => items.iter().all(|v| shallow(v, below)),
        Value::Object(map) => map.values().all(|v| shallow(v, below)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use zo_traits::Text;

    fn calls<const N: usize>(ids: [&str; N]) -> Message {
        let parts = ids.map(|id| Part::ToolCall(ToolCall::new(id, "f", json!({})))).to_vec();
        Message { role: Role::Assistant, parts }
    }

    fn results<const N: usize>(ids: [(&str, &str); N]) -> Message {
        let of = |(id, said): (&str, &str)| {
            ToolResult::new(&ToolCall::new(id, "f", json!({})), ToolStatus::Ok, said)
        };
        Message::tool_results(ids.map(of))
    }

    fn of(role: Role, parts: Vec<Part>) -> Message {
        Message { role, parts }
    }

    /// One line for each message: `u hello`, `a f(id)`, `t id=content`.
    fn lines(messages: &[Message]) -> Vec<String> {
        let part = |p: &Part| match p {
            Part::Text(t) => t.text.clone(),
            Part::ToolCall(c) => format!("{}({})", c.name, c.id),
            Part::ToolResult(r) if r.status == ToolStatus::Unknown => format!("{}?", r.id),
            Part::ToolResult(r) => format!("{}={}", r.id, r.content),
            Part::Media(_) => "picture".into(),
            other => format!("{other:?}"),
        };
        let line = |m: &Message| {
            let parts: Vec<_> = m.parts.iter().map(part).collect();
            format!("{} {}", &m.role.as_str()[..1], parts.join(" "))
        };
        messages.iter().map(line).collect()
    }

    fn normal(messages: Vec<Message>) -> Vec<String> {
        let out = normalize(messages.clone());
        assert!(is_normal(&out), "{out:?}");
        assert_eq!(normalize(out.clone()), out);
        assert_eq!(is_normal(&messages), messages == out, "{messages:?}");
        lines(&out)
    }

    #[test]
    fn what_is_normal_is_left_alone() {
        let history = vec![
            Message::system("facts"),
            Message::user("u"),
            calls(["a", "b"]),
            results([("a", "1"), ("b", "2")]),
            Message::assistant("x "),
            Message::assistant("y"),
            Message::user("v"),
            Message::user("w"),
            calls(["c"]),
            results([("c", "3")]),
            Message::system("note"),
        ];
        assert!(is_normal(&history));
        assert_eq!(normalize(history.clone()), history);
        assert!(is_normal(&[]));
    }

    #[test]
    fn it_begins_with_the_user() {
        let got = normal(vec![
            results([("lost", "1")]),
            Message::assistant("tail of a cut turn"),
            calls(["a"]),
            Message::system("facts"),
            results([("a", "1")]),
            Message::user("u"),
            Message::assistant("x"),
        ]);
        assert_eq!(got, ["s facts", "u u", "a x"]);
    }

    #[test]
    fn results_stand_behind_their_calls_whatever_came_between() {
        let got = normal(vec![
            Message::user("u"),
            calls(["a", "b"]),
            Message::system("note"),
            results([("b", "2"), ("zzz", "9"), ("b", "again")]),
            Message::user("hurry"),
            results([("a", "1")]),
            results([("a", "late")]),
            Message::assistant("x"),
        ]);
        assert_eq!(got, ["u u", "a f(a) f(b)", "t a=1 b=2", "s note", "u hurry", "a x"]);
    }

    #[test]
    fn what_is_missing_is_made_up() {
        let got = normal(vec![
            Message::user("u"),
            calls(["a", "b"]),
            results([("b", "2")]),
            Message::assistant("x"),
            results([("a", "too late")]),
            calls(["c"]),
            Message::user("interrupted"),
        ]);
        assert_eq!(got, ["u u", "a f(a) f(b)", "t a? b=2", "a x", "a f(c)", "t c?", "u interrupted"]);
        let closed = normalize(vec![Message::user("u"), calls(["a"])]);
        assert_eq!(closed[2].results().next().unwrap().content, NO_RESULT);
    }

    #[test]
    fn an_answer_in_pieces_gets_all_its_results() {
        let got = normal(vec![
            Message::user("u"),
            calls(["a"]),
            calls(["b"]),
            Message::assistant("two at once"),
            results([("a", "1"), ("b", "2")]),
        ]);
        assert_eq!(got, ["u u", "a f(a)", "t a=1", "a f(b)", "t b=2", "a two at once"]);
    }

    #[test]
    fn the_model_does_not_answer_its_own_calls() {
        let mut forged = results([("a", "forged")]);
        forged.role = Role::Assistant;
        forged.parts.push(Part::text("x"));
        let got = normal(vec![Message::user("u"), calls(["a"]), forged, results([("a", "1")])]);
        assert_eq!(got, ["u u", "a f(a)", "t a=1", "a x"]);
    }

    #[test]
    fn ids_are_made_unique_and_each_result_stays_with_its_call() {
        let got = normal(vec![
            Message::user("u"),
            calls(["0", "0", "0-2"]),
            results([("0", "1"), ("0", "2"), ("0-2", "3")]),
            calls(["0"]),
            results([("0", "4")]),
            // Cut off between the two: the result is the second one's.
            calls(["1"]),
            calls(["1"]),
            results([("1", "5")]),
        ]);
        assert_eq!(
            got,
            [
                "u u",
                "a f(0) f(0-2) f(0-2-3)",
                "t 0=1 0-2=2 0-2-3=3",
                "a f(0-4)",
                "t 0-4=4",
                "a f(1)",
                "t 1?",
                "a f(1-6)",
                "t 1-6=5"
            ]
        );
    }

    #[test]
    fn ids_names_and_arguments_are_made_sendable() {
        let mut deep = json!(1);
        for _ in 0..=MAX_DEPTH {
            deep = json!([deep]);
        }
        let long = "é".repeat(100) + &"x".repeat(100);
        let odd = [("", "f", json!({})), ("a\0 b", "no such tool!", json!({})), (&long, "", deep.clone())];
        let parts = odd.map(|(id, name, args)| Part::ToolCall(ToolCall::new(id, name, args)));
        let out =
            normalize(vec![Message::user("u"), of(Role::Assistant, parts.to_vec()), results([("", "1")])]);
        let x = "x".repeat(KEPT_ID);
        assert_eq!(
            lines(&out),
            [
                "u u",
                &format!("a f(call-1) {INVALID_NAME}(ab-2) {INVALID_NAME}({x}-3)"),
                &format!("t call-1=1 ab-2? {x}-3?")
            ]
        );
        assert!(is_normal(&out) && out[1].tool_calls().all(|c| shallow(&c.args, MAX_DEPTH)));
        assert!(out[2].results().zip(out[1].tool_calls()).all(|(r, c)| r.name == c.name));
        let fits = deep.get(0).unwrap().clone();
        let fine = of(Role::Assistant, vec![Part::ToolCall(ToolCall::new("a", "f", fits))]);
        assert!(is_normal(&[Message::user("u"), fine, results([("a", "1")])]));
    }

    #[test]
    fn nothing_is_empty() {
        let own = Some(zo_traits::Replay::new("gemini", json!({})));
        let signed = Part::Text(Text { text: String::new(), replay: own });
        let got = normal(vec![
            Message::system(" "),
            Message::user("\u{a0}\n"),
            Message::assistant(""),
            of(Role::Assistant, vec![Part::Reasoning(Text::new("hm")), signed.clone()]),
            of(Role::User, vec![]),
            of(Role::User, vec![Part::text(""), Part::text("v"), Part::text(" ")]),
            of(Role::User, vec![Part::Unknown(json!({"type": "hologram"}))]),
            calls(["a"]),
            results([("a", " ")]),
        ]);
        assert_eq!(got[..2], ["u (empty message)", "u v"]);
        assert!(got[2].ends_with(NO_WORDS) && got[2].contains("hologram"));
        assert_eq!(got[3..], ["a f(a)", "t a=(no output)"]);
        assert!(is_normal(&[Message::user("u"), of(Role::Assistant, vec![signed, Part::text("x")])]));
    }

    #[test]
    fn parts_stand_where_they_belong() {
        let picture = || {
            let source = zo_traits::MediaSource::Url("https://example.com/a.png".into());
            Part::Media(zo_traits::Media { media_type: "image/png".into(), source, name: None })
        };
        let result = |id: &str| results([(id, "1")]).parts.remove(0);
        let call = |id: &str| calls([id]).parts.remove(0);
        let got = normal(vec![
            of(Role::System, vec![picture(), Part::text("facts"), call("x")]),
            of(Role::User, vec![Part::text("u"), call("y"), Part::Reasoning(Text::new("hm"))]),
            of(Role::Assistant, vec![call("a"), result("a")]),
            of(Role::User, vec![result("a"), Part::text("and"), Part::Refusal(Text::new("no"))]),
            of(Role::Assistant, vec![picture()]),
            of(Role::Tool, vec![Part::text("words of a tool")]),
            of(Role::Other("developer".into()), vec![Part::text("w")]),
        ]);
        let want =
            ["s facts", "u picture", "u u", "a f(a)", "t a=1", "u and no", "a picture [image/png file]"];
        assert_eq!(got[..7], want);
        assert_eq!(got[7..], ["u words of a tool", "u w"]);
    }

    #[test]
    fn one_by_one_is_the_same_and_what_is_out_stays() {
        let (mut normal, mut out) = (Normal::default(), Vec::new());
        normal.push(&mut out, Message::user("u"));
        normal.push(&mut out, calls(["a", "b"]));
        normal.push(&mut out, results([("a", "1")]));
        assert_eq!(lines(&out), ["u u"], "held back");
        normal.push(&mut out, results([("b", "2")]));
        assert_eq!(out.len(), 3, "let out by the last result");
        normal.push(&mut out, calls(["c"]));
        normal.seal(&mut out);
        let sent = out.clone();
        normal.push(&mut out, results([("c", "late")]));
        normal.push(&mut out, Message::user("v"));
        normal.seal(&mut out);
        assert_eq!(lines(&out)[3..], ["a f(c)", "t c?", "u v"]);
        assert_eq!(out[..5], sent);
    }

    #[test]
    fn a_request_ends_with_the_user() {
        assert_eq!(nudge(&[Message::user("u")]), None);
        assert_eq!(nudge(&normalize(vec![Message::user("u"), calls(["a"])])), None);
        let history = [Message::user("u"), Message::assistant("x"), Message::system("note")];
        assert_eq!(nudge(&history), None);
        assert_eq!(nudge(&history[..2]).unwrap().role, Role::User);
        assert!(nudge(&history[2..]).is_some() && nudge(&[]).is_some());
    }

    /// Stand-ins that are all taken: with a search from the start for each, this takes minutes.
    #[test]
    fn hostile_ids_cost_no_more_than_others() {
        const N: usize = 50_000;
        let taken = (N + 1..=2 * N).map(|n| format!("a-{n}"));
        let same = std::iter::repeat_n("a".to_owned(), N);
        let parts = taken.chain(same).map(|id| Part::ToolCall(ToolCall::new(id, "f", json!({})))).collect();
        let out = normalize(vec![Message::user("u"), of(Role::Assistant, parts)]);
        assert!(is_normal(&out) && out[2].parts.len() == 2 * N);
    }
}
