//! Bodies of `/zo/ask`.

use super::{CONVERSATION, FAMILY};
use crate::wire::{
    media::{is_picture, refused},
    turns::{
        GO_ON, Said, Turn, alternate, blank, check_choice, marked_system, media_note, merge_extra,
        result_text, turns,
    },
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use zo_traits::{Error, ErrorKind, Message, Part, Request, Result, Role, ToolChoice};

#[derive(Serialize)]
struct Body<'a> {
    input: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_format: Option<Cow<'a, Value>>,
    stream: bool,
}

/// The body that asks Zo, with `model` as its model; empty leaves the choice to the user's settings.
///
/// * **Conversation.** The newest answer of Zo's in the history names the conversation that it belongs to. That one goes on, and
///   only what came after the answer is sent. Without one, the whole history is. A user's message alone goes as it is; several
///   speakers are told apart by tags.
/// * **Tools** on offer are left out: Zo uses its own. (The user may give it the host's as an MCP server.)
/// * There is no place for sampling, lengths, stop texts and effort; they are left out, too. `persona_id` and whatever else the
///   API takes go into [`Request::extra`].
///
/// # Errors
/// [`ErrorKind::Unsupported`] when a tool must be called, when the output schema is not that of an object, and for a file in the
/// user's newest message (of a picture, and of a file in an older message, Zo is told); [`ErrorKind::Invalid`] for a
/// conversation in which nobody says anything, and for a choice of a tool that is not on offer.
pub fn encode(request: &Request, model: &str) -> Result<Vec<u8>> {
    check_choice(request, OP)?;
    if let (false, ToolChoice::Required | ToolChoice::Tool(_)) =
        (request.tools.is_empty(), &request.tool_choice)
    {
        let why = "Zo uses its own tools and cannot be made to call one of the request's";
        return Err(Error::new(ErrorKind::Unsupported, OP, why));
    }
    let (conversation_id, news) = conversation(&request.messages);
    let body = Body {
        input: input(news, conversation_id.is_some())?,
        conversation_id,
        model_name: model,
        output_format: request.output_schema.as_deref().map(output_format).transpose()?,
        stream: !request.whole,
    };
    merge_extra(&body, &request.extra)
        .map_err(|e| Error::new(ErrorKind::Invalid, OP, format_args!("no JSON: {e}")))
}

const OP: &str = "zo.encode";

/// The newest conversation with Zo, and what came after its answer.
fn conversation(messages: &[Message]) -> (Option<&str>, &[Message]) {
    let id = |message: &Message| message.role == Role::Assistant && id_of(message).is_some();
    match messages.iter().rposition(id) {
        Some(at) => (messages.get(at).and_then(id_of), messages.get(at + 1..).unwrap_or_default()),
        None => (None, messages),
    }
}

fn id_of(message: &Message) -> Option<&str> {
    message.parts.iter().rev().find_map(|part| {
        let (Part::Text(zo_traits::Text { replay: Some(replay), .. }) | Part::Opaque(replay)) = part else {
            return None;
        };
        let id = replay.data.get(CONVERSATION).and_then(Value::as_str);
        id.filter(|id| replay.provider == FAMILY && !blank(id))
    })
}

/// The one text that is sent.
fn input(messages: &[Message], goes_on: bool) -> Result<String> {
    let (system, turns) = turns(messages);
    // It may have paused for its own provider, which is another one now.
    let paused = turns.last().is_none_or(|turn| matches!(turn, Turn::Model(_)));
    let turns = alternate(turns);
    let spoken = turns.iter().any(|turn| matches!(turn, Turn::Model(_)));
    let mut lines: Vec<Cow<'_, str>> = Vec::new();
    if spoken {
        lines.push("The conversation so far. Go on with it.".into());
    }
    lines.extend(system.into_iter().map(|text| marked_system(text).into()));
    for turn in &turns {
        match turn {
            Turn::Model(parts) => model_turn(parts, &mut lines),
            Turn::Host { results, said } => {
                for result in results {
                    let notes = result.media.iter().map(|media| format!("\n{}", media_note(media)));
                    let text = result_text(result).into_owned() + &notes.collect::<String>();
                    lines.push(tagged(
                        &format!("result tool={:?} status={:?}", result.name, result.status.as_str()),
                        &text,
                    ));
                }
                for said in said {
                    let text = host_text(said)?;
                    match (*said.role == Role::System, spoken) {
                        _ if text.is_empty() => {}
                        (false, true) => lines.push(tagged("user", &text)),
                        _ => lines.push(text),
                    }
                }
            }
        }
    }
    if goes_on && (lines.is_empty() || paused && turns.is_empty()) {
        lines.push(GO_ON.into());
    }
    let any = goes_on || !turns.is_empty();
    match any && !lines.is_empty() {
        true => Ok(lines.join("\n\n")),
        false => Err(Error::new(ErrorKind::Invalid, OP, "the request has no message with content")),
    }
}

fn model_turn<'a>(parts: &[&'a Part], lines: &mut Vec<Cow<'a, str>>) {
    let text: String = parts
        .iter()
        .filter_map(|part| match part {
            Part::Text(t) | Part::Refusal(t) => Some(&*t.text),
            _ => None,
        })
        .collect();
    if !blank(&text) {
        lines.push(tagged("assistant", &text));
    }
    for part in parts {
        if let Part::ToolCall(call) = part {
            lines.push(tagged(&format!("call tool={:?}", call.name), &call.args.to_string()));
        }
    }
}

fn host_text<'a>(said: &Said<'a>) -> Result<Cow<'a, str>> {
    let mut out: Cow<'a, str> = Cow::Borrowed("");
    for part in &said.parts {
        let text: Cow<'a, str> = match part {
            Part::Text(t) | Part::Refusal(t) if blank(&t.text) => continue,
            Part::Text(t) | Part::Refusal(t) if *said.role == Role::System => marked_system(&t.text).into(),
            Part::Text(t) | Part::Refusal(t) => Cow::Borrowed(&t.text),
            Part::Media(media) if said.asked && !is_picture(media) => return Err(refused(media, OP, "Zo")),
            Part::Media(media) => media_note(media).into(),
            _ => continue,
        };
        match out.is_empty() {
            true => out = text,
            false => {
                out.to_mut().push('\n');
                out.to_mut().push_str(&text);
            }
        }
    }
    Ok(out)
}

/// `text` between tags; `tag` may have attributes.
fn tagged(tag: &str, text: &str) -> Cow<'static, str> {
    let name = tag.split(' ').next().unwrap_or(tag);
    format!("<{tag}>\n{text}\n</{name}>").into()
}

/// The schema as the API takes it: an object with its properties and those that are required.
fn output_format(schema: &Value) -> Result<Cow<'_, Value>> {
    let wrong = || {
        Error::new(
            ErrorKind::Unsupported,
            OP,
            "Zo takes the schema of an object, and no other, as output format",
        )
    };
    let map = schema.as_object().ok_or_else(wrong)?;
    match map.get("type") {
        Some(Value::String(kind)) if kind == "object" => {}
        None if map.get("properties").is_some_and(Value::is_object) => {}
        _ => return Err(wrong()),
    }
    let missing: Map<String, Value> = [
        ("type", Value::from("object")),
        ("properties", Value::Object(Map::new())),
        ("required", Value::Array(Vec::new())),
    ]
    .into_iter()
    .filter(|(key, _)| !map.contains_key(*key))
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    if missing.is_empty() {
        return Ok(Cow::Borrowed(schema));
    }
    let mut map = map.clone();
    map.extend(missing);
    Ok(Cow::Owned(Value::Object(map)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;
    use zo_traits::{Media, MediaSource, Replay, Text, ToolCall, ToolResult, ToolSpec, ToolStatus};

    fn body(request: &Request) -> Value {
        serde_json::from_slice(&encode(request, "").unwrap()).unwrap()
    }

    fn input_of(messages: impl IntoIterator<Item = Message>) -> String {
        body(&Request::new("", messages))["input"].as_str().unwrap().to_owned()
    }

    fn answer(text: &str, provider: &str, id: Value) -> Message {
        let replay = Some(Replay::new(provider, json!({ "conversation_id": id })));
        Message { role: Role::Assistant, parts: vec![Part::Text(Text { text: text.into(), replay })] }
    }

    #[test]
    fn a_message_alone_goes_as_it_is() {
        let r = Request::new("", [Message::user(" <hello>\n")]);
        assert_eq!(body(&r), json!({"input": " <hello>\n", "stream": true}));
        assert_eq!(
            input_of([Message::system("be brief"), Message::user("q")]),
            "<system>\nbe brief\n</system>\n\nq"
        );
        assert_eq!(input_of([Message::user("a"), Message::user("b")]), "a\n\nb");
    }

    #[test]
    fn a_conversation_goes_on_where_it_is() {
        let talk = [
            Message::system("be brief"),
            Message::user("one"),
            answer("1", "zo", json!("con_1")),
            Message::user("two"),
            answer("2", "zo", json!("con_2")),
            Message::user("three"),
        ];
        let b = body(&Request::new("", talk.clone()));
        assert_eq!((&b["input"], &b["conversation_id"]), (&json!("three"), &json!("con_2")));
        // What another model said in between is told.
        let mut other = talk[..3].to_vec();
        other.extend([Message::user("two"), answer("2", "other", json!("x")), Message::user("three")]);
        let b = body(&Request::new("", other));
        assert_eq!(b["conversation_id"], "con_1");
        assert_eq!(
            b["input"],
            "The conversation so far. Go on with it.\n\n<user>\ntwo\n</user>\n\n<assistant>\n2\n</assistant>\n\n<user>\nthree\n</user>"
        );
        // An id that is none does not count.
        for id in [json!(""), json!(7), Value::Null] {
            let b =
                body(&Request::new("", [Message::user("one"), answer("1", "zo", id), Message::user("two")]));
            assert!(
                b.get("conversation_id").is_none() && b["input"].as_str().unwrap().contains("one"),
                "{b}"
            );
        }
        let silent = Message {
            role: Role::Assistant,
            parts: vec![Part::Opaque(Replay::new("zo", json!({"conversation_id": "con_3"})))],
        };
        let b = body(&Request::new("", [Message::user("one"), silent.clone()]));
        assert_eq!((&b["input"], &b["conversation_id"]), (&json!(GO_ON), &json!("con_3")));
        let b = body(&Request::new("", [Message::user("one"), silent, Message::user("  ")]));
        assert_eq!(b["input"], GO_ON);
    }

    #[test]
    fn the_work_of_another_model_is_told() {
        let call = ToolCall::new("c", "f", json!({"a": 1}));
        let said =
            Message { role: Role::Assistant, parts: vec![Part::text("on it"), Part::ToolCall(call.clone())] };
        let results = Message::tool_results([ToolResult::new(&call, ToolStatus::Error, "")]);
        assert_eq!(
            input_of([
                Message::system("s"),
                Message::user("go"),
                said,
                results,
                Message::system("t"),
                Message::user("so?")
            ]),
            "The conversation so far. Go on with it.\n\n<system>\ns\n</system>\n\n<user>\ngo\n</user>\n\n\
             <assistant>\non it\n</assistant>\n\n<call tool=\"f\">\n{\"a\":1}\n</call>\n\n\
             <result tool=\"f\" status=\"error\">\nfailed, without saying why\n</result>\n\n\
             <system>\nt\n</system>\n\n<user>\nso?\n</user>"
        );
    }

    #[test]
    fn tools_and_schema() {
        let mut r = Request::new("", [Message::user("x")]);
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))].into();
        assert_eq!(body(&r), json!({"input": "x", "stream": true}));
        for choice in [ToolChoice::Required, ToolChoice::Tool("f".into())] {
            r.tool_choice = choice;
            assert_eq!(encode(&r, "").unwrap_err().kind(), ErrorKind::Unsupported);
        }
        r.tool_choice = ToolChoice::Tool("g".into());
        assert_eq!(encode(&r, "").unwrap_err().kind(), ErrorKind::Invalid);
        r.tool_choice = ToolChoice::None;
        let schema = json!({"type": "object", "properties": {"a": {}}, "required": [], "$defs": {}});
        r.output_schema = Some(Arc::new(schema.clone()));
        assert_eq!(body(&r)["output_format"], schema);
        r.output_schema = Some(Arc::new(json!({"properties": {"a": {}}})));
        assert_eq!(
            body(&r)["output_format"],
            json!({"type": "object", "properties": {"a": {}}, "required": []})
        );
        for schema in [json!({"type": "array"}), json!(true), json!({}), json!({"type": ["object", "null"]})]
        {
            r.output_schema = Some(Arc::new(schema));
            assert_eq!(encode(&r, "").unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }

    #[test]
    fn other_fields() {
        let mut r = Request::new("", [Message::user("x")]);
        r.whole = true;
        r.extra.insert("persona_id".into(), "p".into());
        let b: Value = serde_json::from_slice(&encode(&r, "vercel:minimax/minimax-m2.7").unwrap()).unwrap();
        let all = json!({"input": "x", "model_name": "vercel:minimax/minimax-m2.7", "persona_id": "p", "stream": false});
        assert_eq!(b, all);
    }

    #[test]
    fn files_and_silence() {
        let file = |kind: &str| {
            let media =
                Media { media_type: kind.into(), source: MediaSource::Base64("QUJD".into()), name: None };
            Message { role: Role::User, parts: vec![Part::text("see"), Part::Media(media)] }
        };
        assert_eq!(input_of([file("image/png")]), "see\n[image/png file is not shown]");
        let e = encode(&Request::new("", [file("application/pdf")]), "").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        let older = input_of([file("application/pdf"), Message::assistant("no"), Message::user("well")]);
        assert!(older.contains("[application/pdf file is not shown]"), "{older}");
        for silent in [vec![], vec![Message::user(" ")], vec![Message::system("s")]] {
            assert_eq!(encode(&Request::new("", silent), "").unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
