//! Where to cut a conversation so that the rest fits. Pure: messages and their costs in, a plan out.
//!
//! # Promises
//! * A tool call and its results stay together: both before the cut, both behind it, or both kept verbatim.
//! * What the host pinned is kept verbatim, and so is the question that is being answered, wherever the cut is: the first
//!   and the last thing that the user said since the model's last complete answer.
//! * The last step (a question, an answer, or calls with their results) always stays.
//! * A cut is at the start of a user's turn where that leaves enough, and else between two steps.
//! * More room never means that more is dropped.

use super::summarize::is_summary;
use crate::toolbox::clip;
use std::collections::HashMap;
use zo_traits::{Message, Part, Role};

/// A cut at the start of a turn must leave this part of the room filled, or a later part of the turn before it stays too.
const LEAST_FILL: u64 = 4;

/// What to replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// `messages[..cut]` are replaced by a summary.
    pub(crate) cut: usize,
    /// Those of them that are kept verbatim between the summary and the rest, in order. Calls have their results.
    pub(crate) pinned: Vec<usize>,
}

impl Plan {
    /// The messages that the summary stands for, and those that stay: the pinned ones, then those behind the cut.
    #[cfg(test)]
    pub(crate) fn split(&self, messages: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
        let (mut dropped, mut kept) = (Vec::new(), Vec::new());
        for (i, message) in messages.into_iter().enumerate() {
            let stays = i >= self.cut || self.pinned.binary_search(&i).is_ok();
            if stays { &mut kept } else { &mut dropped }.push(message);
        }
        (dropped, kept)
    }
}

/// Where to cut so that what stays is at most `keep`, in the unit of `costs`, or as little above it as can be. `None` when
/// all of it fits, or when nothing can be dropped. Time and memory linear in the number of messages and calls.
///
/// The messages are those behind the system prompt; a summary among them is replaced like any other.
pub(crate) fn plan(
    messages: &[Message],
    costs: &[u64],
    pinned: &dyn Fn(usize) -> bool,
    keep: u64,
) -> Option<Plan> {
    let pairs = Pairs::of(messages);
    let cost = |i: usize| costs.get(i).copied().unwrap_or(0);
    let total = (0..messages.len()).fold(0u64, |sum, i| sum.saturating_add(cost(i)));
    if total <= keep {
        return None;
    }
    let turn = current_turn(messages);
    let mut stays: Vec<bool> = (0..messages.len()).map(pinned).collect();
    for question in turn.into_iter().flat_map(|t| [t.first, t.last]) {
        if let Some(stay) = stays.get_mut(question) {
            *stay = true;
        }
    }
    pairs.close(&mut stays);
    // What a cut leaves falls as the cut moves on.
    let mut left = total;
    let mut cuts: Vec<(usize, u64)> = Vec::new();
    for i in 0..messages.len() {
        if i > 0 && pairs.may_cut(i) && !continues(messages, i) {
            cuts.push((i, left));
        }
        if !stays.get(i).copied().unwrap_or(false) {
            left = left.saturating_sub(cost(i));
        }
    }
    let fits = cuts.partition_point(|(_, left)| *left > keep);
    let (step, turn_start) = match cuts.get(fits) {
        // Even the last step is too much: drop all that can be.
        None => (*cuts.last()?, None),
        Some(step) => {
            let latest = turn.map_or(usize::MAX, |t| t.first);
            let starts = |(i, _): &&(usize, u64)| *i <= latest && messages.get(*i).is_some_and(is_question);
            (*step, cuts.get(fits..).and_then(|rest| rest.iter().find(starts)).copied())
        }
    };
    let (cut, _) = turn_start.filter(|(_, left)| *left >= keep / LEAST_FILL).unwrap_or(step);
    let pinned: Vec<usize> = (0..cut).filter(|i| stays.get(*i).copied().unwrap_or(false)).collect();
    (pinned.len() < cut).then_some(Plan { cut, pinned })
}

/// Something that the user said.
fn is_question(message: &Message) -> bool {
    message.role == Role::User && !is_summary(message)
}

/// Belongs to the step that the message before it is of.
fn continues(messages: &[Message], at: usize) -> bool {
    messages.get(at).is_some_and(|m| m.role == Role::Tool)
}

/// The questions of the turn that is under way or was the last.
#[derive(Debug, Clone, Copy)]
struct Turn {
    first: usize,
    last: usize,
}

/// The last thing that the user said, and the first one since the model's last complete answer before it: what is said into
/// a running turn adds to its question.
fn current_turn(messages: &[Message]) -> Option<Turn> {
    let last = messages.iter().rposition(is_question)?;
    let mut first = last;
    for (i, message) in messages.iter().enumerate().take(last).rev() {
        if message.role == Role::Assistant && message.tool_calls().next().is_none() {
            break;
        }
        if is_question(message) {
            first = i;
        }
    }
    Some(Turn { first, last })
}

/// Which messages belong together.
struct Pairs {
    /// Message of the call, message of the result.
    pairs: Vec<(usize, usize)>,
    /// Calls that still wait for their result.
    open_from: usize,
    /// How many pairs a cut before each message would split.
    split: Vec<usize>,
}

impl Pairs {
    fn of(messages: &[Message]) -> Self {
        // An id may come twice: a result answers the latest call of its id that has none.
        let mut calls: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut pairs = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            for part in &message.parts {
                match part {
                    Part::ToolCall(c) => calls.entry(&c.id).or_default().push(i),
                    Part::ToolResult(r) => {
                        if let Some(call) = calls.get_mut(r.id.as_str()).and_then(Vec::pop) {
                            pairs.push((call, i));
                        }
                    }
                    _ => {}
                }
            }
        }
        // The step under way: its results are still to come, so no cut may be behind it.
        let tail = messages.iter().rposition(|m| m.role != Role::Tool).unwrap_or(0);
        let open = calls.values().flatten().any(|call| *call == tail);
        let open_from = if open { tail } else { usize::MAX };
        let mut changes = vec![0isize; messages.len() + 1];
        for (call, result) in &pairs {
            // A cut before message `i` splits the pair when call < i <= result.
            for (at, by) in [(call + 1, 1), (result + 1, -1)] {
                if let Some(change) = changes.get_mut(at) {
                    *change += by;
                }
            }
        }
        let mut now = 0isize;
        let split = changes.iter().map(|change| {
            now += change;
            now.unsigned_abs()
        });
        Self { open_from, split: split.collect(), pairs }
    }

    fn may_cut(&self, at: usize) -> bool {
        at <= self.open_from && self.split.get(at).is_some_and(|n| *n == 0)
    }

    /// Adds to what stays whatever belongs to it.
    fn close(&self, stays: &mut [bool]) {
        let mut partners: HashMap<usize, Vec<usize>> = HashMap::new();
        for (call, result) in &self.pairs {
            partners.entry(*call).or_default().push(*result);
            partners.entry(*result).or_default().push(*call);
        }
        let mut todo: Vec<usize> = (0..stays.len()).filter(|i| stays.get(*i) == Some(&true)).collect();
        while let Some(i) = todo.pop() {
            for partner in partners.remove(&i).unwrap_or_default() {
                if let Some(stay) = stays.get_mut(partner)
                    && !*stay
                {
                    *stay = true;
                    todo.push(partner);
                }
            }
        }
    }
}

/// The last resort when one step alone is too long: every tool result is cut to about `max_bytes`, its beginning and its
/// end, and its media are left out. Returns how many results were changed. It edits the middle of a conversation, so prompt
/// caches miss from there on.
pub(crate) fn shorten(messages: &mut [Message], max_bytes: usize) -> usize {
    let mut changed = 0;
    for part in messages.iter_mut().flat_map(|m| &mut m.parts) {
        let Part::ToolResult(result) = part else { continue };
        let long = result.content.len() > max_bytes;
        if long {
            result.content = clip(&result.content, max_bytes, None);
        }
        if !result.media.is_empty() {
            let notes =
                result.media.drain(..).map(|m| format!("\n[{} left out]", clip(&m.media_type, 80, None)));
            let notes: Vec<String> = notes.collect();
            result.content.extend(notes);
            changed += usize::from(!long);
        }
        changed += usize::from(long);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::{super::summarize, *};
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::HashSet;
    use zo_traits::{ToolCall, ToolResult, ToolStatus};

    fn calls(ids: &[&str]) -> Message {
        let parts = ids.iter().map(|id| Part::ToolCall(ToolCall::new(*id, "t", json!({})))).collect();
        Message { role: Role::Assistant, parts }
    }

    fn results(ids: &[&str]) -> Message {
        let result = |id: &&str| ToolResult::new(&ToolCall::new(*id, "t", json!({})), ToolStatus::Ok, "r");
        Message::tool_results(ids.iter().map(result))
    }

    fn user() -> Message {
        Message::user("u")
    }

    fn answer() -> Message {
        Message::assistant("a")
    }

    fn none(_: usize) -> bool {
        false
    }

    fn tens(messages: &[Message]) -> Vec<u64> {
        vec![10; messages.len()]
    }

    #[test]
    fn old_turns_go_first_and_whole() {
        let m =
            [user(), answer(), user(), calls(&["a"]), results(&["a"]), answer(), user(), answer(), user()];
        let at = |keep| plan(&m, &tens(&m), &none, keep).map(|p| p.cut);
        assert_eq!((at(90), at(89), at(70)), (None, Some(2), Some(2)));
        // Not in the middle of the second turn, although more of it would fit.
        assert_eq!((at(69), at(40), at(30)), (Some(6), Some(6), Some(6)));
        // The question always stays.
        assert_eq!((at(29), at(10), at(0)), (Some(8), Some(8), Some(8)));
    }

    #[test]
    fn a_long_turn_before_is_cut_between_steps() {
        let mut m = vec![user()];
        for i in 0..50 {
            let id = format!("{i}");
            m.extend([calls(&[&id]), results(&[&id])]);
        }
        m.extend([answer(), user()]);
        let p = plan(&m, &tens(&m), &none, 400).unwrap();
        assert_eq!((p.cut, p.pinned.len()), (63, 0));
        assert_eq!(m[p.cut].role, Role::Assistant);
    }

    #[test]
    fn a_turn_that_is_too_long_by_itself_keeps_its_question() {
        let mut m = vec![user(), answer(), user()];
        for i in 0..200 {
            let id = format!("{i}");
            m.extend([calls(&[&id]), results(&[&id])]);
            if i == 100 {
                // Said while it ran: belongs to the question.
                m.push(user());
            }
        }
        let p = plan(&m, &tens(&m), &none, 400).unwrap();
        assert_eq!(p.pinned, [2, 205]);
        let (dropped, kept) = p.split(m.clone());
        assert!(kept.len() == 40 && dropped.len() + kept.len() == m.len() && kept[2].role == Role::Assistant);
        // With room for nothing the last step stays.
        let p = plan(&m, &tens(&m), &none, 0).unwrap();
        assert_eq!((p.cut, p.pinned), (m.len() - 2, vec![2, 205]));
        // Nothing that could be dropped.
        assert_eq!(plan(&m[2..5], &tens(&m[2..5]), &none, 0), None);
        assert_eq!(plan(&[], &[], &none, 0), None);
    }

    #[test]
    fn calls_that_wait_for_results_stay() {
        let m =
            [user(), answer(), user(), calls(&["a"]), results(&["a"]), calls(&["b", "c"]), results(&["b"])];
        let p = plan(&m, &tens(&m), &none, 10).unwrap();
        assert_eq!((p.cut, p.pinned), (5, vec![2]));
        // A call that never got one, in the middle, blocks nothing.
        let m = [user(), calls(&["x"]), user(), answer(), user()];
        assert_eq!(plan(&m, &tens(&m), &none, 10).unwrap().cut, 4);
    }

    #[test]
    fn a_result_that_comes_late_still_belongs_to_its_call() {
        let m =
            [user(), answer(), calls(&["a"]), user(), results(&["a"]), answer(), user(), answer(), user()];
        for keep in 0..90 {
            let cut = plan(&m, &tens(&m), &none, keep).unwrap().cut;
            assert!(!(3..=4).contains(&cut), "{keep}: {cut}");
        }
    }

    #[test]
    fn a_pin_takes_its_pair_along() {
        let m = [
            user(),
            calls(&["a", "b"]),
            results(&["a"]),
            results(&["b"]),
            answer(),
            user(),
            answer(),
            user(),
        ];
        let p = plan(&m, &tens(&m), &|i| i == 3, 60).unwrap();
        assert_eq!((p.cut, p.pinned), (5, vec![1, 2, 3]));
        // All pinned: nothing to drop.
        assert_eq!(plan(&m, &tens(&m), &|_| true, 10), None);
    }

    #[test]
    fn a_summary_is_no_question() {
        let m = [summarize::message("s", 9), calls(&["a"]), results(&["a"]), answer(), user(), answer()];
        let p = plan(&m, &tens(&m), &none, 20).unwrap();
        assert_eq!((p.cut, p.pinned), (4, vec![]));
        let m = [
            summarize::message("s", 9),
            user(),
            calls(&["a"]),
            results(&["a"]),
            calls(&["b"]),
            results(&["b"]),
        ];
        let p = plan(&m, &tens(&m), &none, 30).unwrap();
        assert_eq!((p.cut, p.pinned), (4, vec![1]));
    }

    #[test]
    fn results_are_shortened_and_said_to_be() {
        let mut m = vec![user(), calls(&["a", "b"]), results(&["a", "b"])];
        if let Part::ToolResult(r) = &mut m[2].parts[0] {
            r.content = "é".repeat(5_000);
            r.media.push(zo_traits::Media {
                media_type: "image/png".into(),
                source: zo_traits::MediaSource::Base64("AA==".into()),
                name: None,
            });
        }
        assert_eq!(shorten(&mut m, 1_000), 1);
        let r = m[2].results().next().unwrap();
        assert!(r.content.len() < 1_200 && r.content.contains("bytes left out") && r.media.is_empty());
        assert!(r.content.ends_with("[image/png left out]"));
        assert_eq!(shorten(&mut m, 2_000), 0);
    }

    #[test]
    fn long_conversations_are_planned_in_linear_time() {
        let mut m = Vec::new();
        for i in 0..50_000 {
            // The same id over and over, as a hostile transcript has it.
            let id = if i % 2 == 0 { "same".to_owned() } else { format!("{i}") };
            m.extend([user(), calls(&[&id, "same"]), results(&["same", &id]), answer()]);
        }
        let started = std::time::Instant::now();
        let p = plan(&m, &tens(&m), &|i| i % 7 == 0, 100_000).unwrap();
        assert!(p.cut > 0 && started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }

    /// A history as runs make it, of arbitrary shape: `(kind, size)`.
    fn history(shape: &[(u8, u8)]) -> Vec<Message> {
        let mut m = Vec::new();
        for (n, (kind, size)) in shape.iter().enumerate() {
            let ids: Vec<String> = (0..=size % 3).map(|i| format!("{n}-{i}")).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            match kind % 6 {
                0 | 1 => m.push(user()),
                2 => m.push(answer()),
                3 => m.extend([calls(&ids), results(&ids)]),
                4 => {
                    // A message per result.
                    m.push(calls(&ids));
                    m.extend(ids.iter().map(|id| results(&[id])));
                }
                _ => m.push(Message::system("facts")),
            }
        }
        m
    }

    fn ids(messages: &[Message]) -> (HashSet<String>, HashSet<String>) {
        (
            messages.iter().flat_map(Message::tool_calls).map(|c| c.id.clone()).collect(),
            messages.iter().flat_map(Message::results).map(|r| r.id.clone()).collect(),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_plan_keeps_its_promises(
            shape in prop::collection::vec(any::<(u8, u8)>(), 0..40),
            costs in prop::collection::vec(1u64..100, 130),
            pins in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            keep in 0u64..2_000,
            more in 0u64..500,
        ) {
            let m = history(&shape);
            let costs = &costs[..m.len().min(costs.len())];
            prop_assume!(costs.len() == m.len());
            let pins: HashSet<usize> = pins.iter().filter(|_| !m.is_empty()).map(|i| i.index(m.len())).collect();
            let pinned = |i: usize| pins.contains(&i);
            let total: u64 = costs.iter().sum();
            let got = plan(&m, costs, &pinned, keep);
            prop_assert_eq!(&got, &plan(&m, costs, &pinned, keep));
            let Some(p) = got else {
                // Either all of it fits, or dropping as much as there is drops nothing.
                prop_assert!(total <= keep || plan(&m, costs, &pinned, 0).is_none());
                return Ok(());
            };
            prop_assert!(total > keep && p.cut > 0 && p.cut < m.len() && p.pinned.len() < p.cut);
            prop_assert!(p.pinned.is_sorted() && p.pinned.iter().all(|i| *i < p.cut));
            let (dropped, kept) = p.split(m.clone());
            let ((c1, r1), (c2, r2)) = (ids(&dropped), ids(&kept));
            prop_assert!(c1 == r1 && c2 == r2, "a pair is split");
            prop_assert!(m[p.cut].role != Role::Tool);
            let stays = |i: usize| i >= p.cut || p.pinned.contains(&i);
            prop_assert!(pins.iter().all(|i| stays(*i)));
            if let Some(question) = m.iter().rposition(|m| m.role == Role::User) {
                prop_assert!(stays(question));
            }
            // Within the room, or no cut does better.
            let left = |p: &Plan| (0..m.len()).filter(|i| *i >= p.cut || p.pinned.contains(i)).map(|i| costs[i]).sum::<u64>();
            let least = plan(&m, costs, &pinned, 0).unwrap();
            prop_assert!(left(&p) <= keep || left(&p) == left(&least));
            // More room, no earlier message lost.
            match plan(&m, costs, &pinned, keep + more) {
                None => prop_assert!(total <= keep + more),
                Some(wider) => prop_assert!(wider.cut <= p.cut),
            }
        }

        #[test]
        fn any_garbage_is_planned(shape in prop::collection::vec((0u8..4, prop::collection::vec(0u8..4, 0..4)), 0..40), keep in 0u64..300) {
            let m: Vec<Message> = shape
                .iter()
                .map(|(role, ids)| {
                    let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
                    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                    match role {
                        0 => user(),
                        1 => calls(&ids),
                        2 => results(&ids),
                        _ => answer(),
                    }
                })
                .collect();
            if let Some(p) = plan(&m, &tens(&m), &none, keep) {
                prop_assert!(p.cut < m.len() && p.pinned.iter().all(|i| *i < p.cut) && p.pinned.len() < p.cut);
            }
        }
    }
}
