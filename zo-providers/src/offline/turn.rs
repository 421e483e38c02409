//! What a request's conversation says about the turn that is to be answered.

use super::{
    extract::date::{self, Day},
    words::{Text, cut},
};
use std::borrow::Cow;
use zo_traits::{Message, Part, Request, Role, ToolCall, ToolResult};

/// First line of the system message that carries recalled facts; lines `- <fact>` follow.
pub(super) const MEMORIES: &str = "Memories that may help:";

/// Most facts of either kind that are looked at.
const MAX_FACTS: usize = 200;

/// The turn to answer.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// The last message of the user, its text.
    pub(super) message: Cow<'a, str>,
    /// Calls made since.
    pub(super) calls: Vec<&'a ToolCall>,
    /// Their results.
    pub(super) results: Vec<&'a ToolResult>,
    /// Rounds of calls made since.
    pub(super) rounds: usize,
    /// The day that a system message states for today.
    pub(super) today: Option<Day>,
    /// Recalled facts.
    pub(super) memories: Vec<&'a str>,
    /// What the user said earlier, newest first.
    pub(super) earlier: Vec<&'a str>,
    /// Number for the id of the next call.
    pub(super) next_id: u64,
}

impl<'a> Turn<'a> {
    /// Reads a request.
    pub(super) fn new(request: &'a Request) -> Self {
        let messages = &request.messages;
        let at = messages.iter().rposition(|m| m.role == Role::User);
        let after = messages.get(at.map_or(0, |at| at + 1)..).unwrap_or(&[]);
        let before = messages.get(..at.unwrap_or(0)).unwrap_or(&[]);
        let systems = || messages.iter().rev().filter(|m| m.role == Role::System);
        let memories = systems()
            .flat_map(|m| m.parts.iter().filter_map(Part::as_text))
            .find_map(|text| text.trim_start().strip_prefix(MEMORIES))
            .map(|list| {
                let facts = list.lines().filter_map(|line| line.trim_start().strip_prefix("- "));
                facts.map(str::trim).filter(|f| !f.is_empty()).take(MAX_FACTS).collect()
            })
            .unwrap_or_default();
        let today = systems().take(16).find_map(|m| {
            let text = m.parts.iter().find_map(Part::as_text)?;
            date::stated_today(&Text::new(cut(text, 4_096)))
        });
        let earlier = before
            .iter()
            .rev()
            .filter(|m| m.role == Role::User)
            .take(MAX_FACTS)
            .flat_map(|m| m.parts.iter().filter_map(Part::as_text))
            .flat_map(|text| cut(text, 2_000).split_inclusive(['.', '!', '?', '\n']))
            .map(str::trim)
            .filter(|s| !s.is_empty() && !s.ends_with('?'))
            .take(MAX_FACTS)
            .collect();
        Self {
            message: at.and_then(|at| messages.get(at)).map(text_of).unwrap_or_default(),
            calls: after.iter().flat_map(Message::tool_calls).collect(),
            results: after.iter().flat_map(Message::results).collect(),
            rounds: after.iter().filter(|m| m.tool_calls().next().is_some()).count(),
            today,
            memories,
            earlier,
            next_id: next_id(messages),
        }
    }
}

fn text_of(message: &Message) -> Cow<'_, str> {
    let mut texts = message.parts.iter().filter_map(Part::as_text);
    match (texts.next(), texts.next()) {
        (None, _) => Cow::Borrowed(""),
        (Some(only), None) => Cow::Borrowed(only),
        _ => Cow::Owned(message.to_text()),
    }
}

/// One above the highest number in use, so that ids stay unique when old messages have been compacted away.
fn next_id(messages: &[Message]) -> u64 {
    let calls = messages.iter().flat_map(Message::tool_calls).map(|c| c.id.as_str());
    let results = messages.iter().flat_map(Message::results).map(|r| r.id.as_str());
    let used = calls.chain(results).filter_map(|id| id.strip_prefix("offline_")?.parse::<u64>().ok());
    let total = u64::try_from(messages.len()).unwrap_or(u64::MAX / 2);
    used.map(|n| n.saturating_add(1)).max().unwrap_or(0).max(total)
}
