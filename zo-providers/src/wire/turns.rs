//! A conversation as an API wants it: who speaks in turns, tool results right after the calls that they answer.

use crate::Dialect;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::{borrow::Cow, collections::BTreeMap};
use zo_traits::{
    Error, ErrorKind, Media, Message, Part, Request, Result, Role, ToolChoice, ToolResult, ToolSpec,
    ToolStatus,
};

/// A run of messages that belong together.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// The model's, however many messages it was kept in.
    Model(Vec<&'a Part>),
    /// Everybody else's: first the results of the model's calls, then what was said.
    Host { results: Vec<&'a ToolResult>, said: Vec<Said<'a>> },
}

/// A message that is not the model's, without results.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    pub(crate) role: &'a Role,
    pub(crate) parts: Vec<&'a Part>,
    /// The newest of the user's: what is asked now. A file in it that the API does not take is an error. Older ones were
    /// answered, by whomever, or given up: there the model is told of the file, since an error would come for ever.
    pub(crate) asked: bool,
}

/// Splits off the system text that stands before everything else, and groups the rest.
///
/// An API takes tool results only directly behind the calls, so they go before whatever else was said in between.
pub(crate) fn turns(messages: &[Message]) -> (Vec<&str>, Vec<Turn<'_>>) {
    let lead = messages.iter().take_while(|m| m.role == Role::System).count();
    let (system, rest) = messages.split_at(lead);
    let system =
        system.iter().flat_map(|m| &m.parts).filter_map(Part::as_text).filter(|t| !blank(t)).collect();
    let newest = rest.iter().rposition(|m| !matches!(m.role, Role::System | Role::Assistant | Role::Tool));
    let mut out: Vec<Turn<'_>> = Vec::new();
    for (at, message) in rest.iter().enumerate() {
        if message.role == Role::Assistant {
            match out.last_mut() {
                Some(Turn::Model(parts)) => parts.extend(&message.parts),
                _ => out.push(Turn::Model(message.parts.iter().collect())),
            }
            continue;
        }
        if !matches!(out.last(), Some(Turn::Host { .. })) {
            out.push(Turn::Host { results: Vec::new(), said: Vec::new() });
        }
        if let Some(Turn::Host { results, said }) = out.last_mut() {
            results.extend(message.results());
            let parts: Vec<_> = message.parts.iter().filter(|p| !matches!(p, Part::ToolResult(_))).collect();
            if !parts.is_empty() {
                said.push(Said { role: &message.role, parts, asked: newest == Some(at) });
            }
        }
    }
    (system, out)
}

/// For wires that know text, files and calls and nothing else: leaves out the turns in which nothing of these is, and joins
/// their neighbours, so that the speakers still take turns.
pub(crate) fn alternate(turns: Vec<Turn<'_>>) -> Vec<Turn<'_>> {
    let says = |part: &&Part| match part {
        Part::Text(t) | Part::Refusal(t) => !blank(&t.text),
        _ => false,
    };
    let mut out: Vec<Turn<'_>> = Vec::with_capacity(turns.len());
    for turn in turns {
        let hollow = match &turn {
            Turn::Model(parts) => !parts.iter().any(|p| says(p) || matches!(p, Part::ToolCall(_))),
            Turn::Host { results, said } => {
                let any = said.iter().flat_map(|s| &s.parts).any(|p| says(p) || matches!(p, Part::Media(_)));
                results.is_empty() && !any
            }
        };
        match (out.last_mut(), turn) {
            _ if hollow => {}
            (Some(Turn::Model(parts)), Turn::Model(more)) => parts.extend(more),
            (Some(Turn::Host { results, said }), Turn::Host { results: more, said: also }) => {
                results.extend(more);
                said.extend(also);
            }
            (_, turn) => out.push(turn),
        }
    }
    out
}

/// Nothing but white space: APIs refuse such text.
pub(crate) fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// System text in the middle of a conversation, for wires that have no place for it there.
pub(crate) fn marked_system(text: &str) -> String {
    format!("<system>\n{text}\n</system>")
}

/// What the model reads of a result. Never empty.
pub(crate) fn result_text(result: &ToolResult) -> Cow<'_, str> {
    if !blank(&result.content) {
        return Cow::Borrowed(&result.content);
    }
    Cow::Borrowed(match &result.status {
        ToolStatus::Ok => "(no output)",
        ToolStatus::Error => "failed, without saying why",
        ToolStatus::Unknown => "interrupted: it may or may not have happened",
        ToolStatus::Cancelled => "cancelled",
        ToolStatus::Denied => "denied",
        other if blank(other.as_str()) => "(no output)",
        other => return Cow::Owned(other.to_string()),
    })
}

/// Stands for a file that the API cannot take, so that the model knows of it.
pub(crate) fn media_note(media: &Media) -> String {
    format!("[{} {} is not shown]", media.media_type, media.name.as_deref().unwrap_or("file"))
}

/// Stands for the user's words before those of a model that began.
pub(crate) const BEGINS: &str = "(The conversation begins with the assistant.)";
/// Stands for the user's words behind those of a model that paused for its own provider, and whose provider is another one now.
pub(crate) const GO_ON: &str = "(continue)";

/// Arguments as an API takes them back: an object. What the model wrote instead of one goes into a field that says so, since
/// many servers refuse the whole conversation over arguments that they cannot parse.
pub(crate) fn args_object(args: &Value) -> Cow<'_, Value> {
    match args {
        Value::Object(_) => Cow::Borrowed(args),
        Value::Null => Cow::Owned(Value::Object(serde_json::Map::new())),
        other => Cow::Owned(serde_json::json!({ "invalid_arguments": other })),
    }
}

/// `len` letters and digits that stand for `id`: for APIs that are picky about ids which another provider made.
pub(crate) fn alias(id: &str, len: usize) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    // FNV-1a, twice over, so that 64 bits are well mixed.
    let hash = |seed: u64| id.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut n = (u128::from(hash(0xcbf2_9ce4_8422_2325)) << 64) | u128::from(hash(0x9e37_79b9_7f4a_7c15));
    (0..len)
        .map(|_| {
            let digit = usize::try_from(n % 62).unwrap_or(0);
            n /= 62;
            char::from(DIGITS.get(digit).copied().unwrap_or(b'0'))
        })
        .collect()
}

/// A tool that must be called has to be on offer.
pub(crate) fn check_choice(request: &Request, op: &'static str) -> Result<()> {
    match &request.tool_choice {
        ToolChoice::Tool(name) if request.tools.iter().all(|t| t.name != *name) => Err(Error::new(
            ErrorKind::Invalid,
            op,
            format_args!("the tool {name:?} must be called, but is not on offer"),
        )),
        _ => Ok(()),
    }
}

/// Puts the caller's own fields over an encoded body. They win.
pub(crate) fn merge_extra(
    body: &impl serde::Serialize,
    extra: &serde_json::Map<String, Value>,
) -> serde_json::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(body)?;
    if extra.is_empty() {
        return Ok(bytes);
    }
    let own = extra.iter().map(|(k, v)| Ok((k, to_raw_value(v)?))).collect::<serde_json::Result<Vec<_>>>()?;
    // Raw, since what lies deep in a body need not fit the depth to which a parser goes.
    let mut map: BTreeMap<&str, &RawValue> = serde_json::from_slice(&bytes)?;
    map.extend(own.iter().map(|(k, v)| (k.as_str(), &**v)));
    serde_json::to_vec(&map)
}

/// For each turn: was a tool called between the question before it and the one after it? It stays so when the conversation goes
/// on, so that what was sent once is sent the same again.
pub(crate) fn with_tools(turns: &[Turn<'_>]) -> Vec<bool> {
    let spoke = |said: &Said<'_>| {
        *said.role != Role::System && said.parts.iter().any(|p| p.as_text().is_none_or(|t| !blank(t)))
    };
    let asks = |turn: &Turn<'_>| matches!(turn, Turn::Host { said, .. } if said.iter().any(spoke));
    let calls = |turn: &Turn<'_>| matches!(turn, Turn::Model(parts) if parts.iter().any(|p| matches!(p, Part::ToolCall(_))));
    turns
        .chunk_by(|_, next| !asks(next))
        .flat_map(|span| std::iter::repeat_n(span.iter().any(calls), span.len()))
        .collect()
}

/// The tools on offer. Where the one that must be called cannot be named, it alone is.
pub(crate) fn offered<'a>(request: &'a Request, dialect: &Dialect) -> impl Iterator<Item = &'a ToolSpec> {
    let only = match &request.tool_choice {
        ToolChoice::Tool(name) if !dialect.tool_by_name => Some(name),
        _ => None,
    };
    request.tools.iter().filter(move |spec| only.is_none_or(|name| *name == spec.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zo_traits::ToolCall;

    #[test]
    fn results_come_first_whatever_was_said_in_between() {
        let call = ToolCall::new("c1", "f", serde_json::json!({}));
        let messages = [
            Message::system("a"),
            Message::system(" "),
            Message { role: Role::Assistant, parts: vec![Part::ToolCall(call.clone())] },
            Message::user("wait"),
            Message::tool_results([ToolResult::new(&call, ToolStatus::Ok, "1")]),
            Message::system("note"),
        ];
        let (system, turns) = turns(&messages);
        assert_eq!(system, ["a"]);
        let [Turn::Model(_), Turn::Host { results, said }] = &turns[..] else { panic!("{turns:?}") };
        assert_eq!((results.len(), said.len()), (1, 2));
    }

    #[test]
    fn aliases_are_stable_and_apart() {
        assert_eq!(alias("call_1", 9), alias("call_1", 9));
        let many: std::collections::HashSet<_> =
            (0..10_000).map(|n| alias(&format!("call_{n}"), 9)).collect();
        assert_eq!(many.len(), 10_000);
        assert!(alias("x", 9).chars().all(|c| c.is_ascii_alphanumeric()) && alias("x", 9).len() == 9);
    }
}
