//! The agent loop without I/O: feed it what happened, ask it what to do next.
//!
//! A [`Machine`] holds the messages of one run and where the run stands. It is plain data (serde), so it can be stored,
//! sent and compared, and every branch is tested without a runtime. The driver does the I/O and journals each input; a run
//! is resumed by feeding the journal to a fresh machine.
//!
//! It promises that at every moment [`Machine::close`] leaves messages in which each tool call has exactly one result, in
//! call order, directly after the message that made the calls.

use crate::{
    LoopPolicy,
    loops::{self, Loops, Verdict},
    normal,
};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use zo_traits::{
    Error, ErrorKind, FinishReason, Message, Part, Response, Result, Role, ToolCall, ToolResult, ToolStatus,
    Usage,
};

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Ask the model, then feed [`Machine::model`]. With `last`, the run is at its end: allow no tools.
    Model {
        /// No further step will follow.
        last: bool,
    },
    /// Run these calls, then feed each [`Machine::tool`]. Only those without a result yet, in call order.
    Tools(Vec<ToolCall>),
    /// Over, for this reason.
    Done(FinishReason),
}

/// One run of the agent loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    messages: Vec<Message>,
    phase: Phase,
    steps: u32,
    max_steps: u32,
    usage: Usage,
    /// Text of the last answer, which may be empty.
    text: String,
    /// Tool call ids in use, those of the conversation before this run included.
    ids: HashSet<String>,
    #[serde(default)]
    loop_policy: LoopPolicy,
    #[serde(default)]
    loops: Loops,
    /// The last number that was put behind an id to make it unique.
    #[serde(default)]
    renamed: u64,
    /// The model goes round in circles: its next answer is the last.
    #[serde(default)]
    circling: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Model,
    Tools { calls: Vec<ToolCall>, results: Vec<Option<ToolResult>> },
    Done(FinishReason),
}

impl Machine {
    /// A run that starts with `opening` (the user's message last) and asks the model at most `max_steps` times (at least
    /// once). `history` is what came before; only the ids of its tool calls are kept.
    pub fn new(opening: Vec<Message>, history: &[Message], max_steps: u32) -> Self {
        let mut machine = Self {
            messages: opening,
            phase: Phase::Model,
            steps: 0,
            max_steps: max_steps.max(1),
            usage: Usage::default(),
            text: String::new(),
            ids: HashSet::new(),
            loop_policy: LoopPolicy::default(),
            loops: Loops::default(),
            circling: false,
            renamed: 0,
        };
        machine.reserve_ids(history);
        machine
    }

    /// What is done about a model that makes the same call with the same result over and over.
    #[must_use]
    pub fn with_loop_policy(mut self, policy: LoopPolicy) -> Self {
        self.loop_policy = policy;
        self
    }

    /// Keeps the ids of the tool calls in `history` out of this run, as [`new`](Machine::new) does.
    pub fn reserve_ids(&mut self, history: &[Message]) {
        self.ids.extend(history.iter().flat_map(Message::tool_calls).map(|c| c.id.clone()));
    }

    /// What to do next. Asking changes nothing.
    pub fn step(&self) -> Step {
        match &self.phase {
            Phase::Model => {
                Step::Model { last: self.circling || self.steps.saturating_add(1) >= self.max_steps }
            }
            Phase::Tools { calls, results } => {
                let open = calls.iter().zip(results).filter(|(_, r)| r.is_none());
                Step::Tools(open.map(|(c, _)| c.clone()).collect())
            }
            Phase::Done(reason) => Step::Done(reason.clone()),
        }
    }

    /// The model answered. The answer is kept with every tool call id unique in the conversation, since some providers
    /// number calls anew in each answer and others refuse a request in which an id repeats.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when no answer was asked for.
    pub fn model(&mut self, answer: Response) -> Result<()> {
        if self.phase != Phase::Model {
            return Err(out_of_turn("a model's answer"));
        }
        self.steps = self.steps.saturating_add(1);
        self.usage += answer.usage;
        let Response { mut message, finish, .. } = answer;
        message.role = Role::Assistant;
        self.text = message.to_text();
        let (mut calls, mut surplus) = (Vec::new(), Vec::new());
        for part in &mut message.parts {
            if let Part::ToolCall(call) = part {
                self.make_unique(call);
                make_sendable(call);
                if calls.len() < MAX_CALLS { calls.push(call.clone()) } else { surplus.push(call.clone()) }
            }
        }
        // A message without content is refused by some providers, and says nothing.
        let empty = message.parts.iter().all(|p| matches!(p, Part::Text(t) if t.text.is_empty()));
        if !empty {
            self.messages.push(message);
        }
        let over = self.circling || self.steps >= self.max_steps;
        self.phase = match finish {
            FinishReason::Pause if calls.is_empty() && !over => Phase::Model,
            _ if calls.is_empty() && self.circling => Phase::Done(FinishReason::Other(LOOP.into())),
            finish if calls.is_empty() => Phase::Done(finish),
            // The last argument may be cut in the middle of its meaning, even where it is valid JSON.
            FinishReason::Length | FinishReason::ContentFilter | FinishReason::Refusal => {
                calls.append(&mut surplus);
                let why = format!("not run: the answer was cut ({finish}) before it was complete");
                self.answer_all(&calls, ToolStatus::Error, &why);
                if over { Phase::Done(finish) } else { Phase::Model }
            }
            _ if over => {
                calls.append(&mut surplus);
                let (why, reason) = if self.circling {
                    ("not run: this run was going round in circles and is over", LOOP)
                } else {
                    ("not run: the step limit of this run is reached", STEP_LIMIT)
                };
                self.answer_all(&calls, ToolStatus::Cancelled, why);
                Phase::Done(FinishReason::Other(reason.into()))
            }
            _ => {
                let mut results = vec![None; calls.len()];
                let why = format!("not run: at most {MAX_CALLS} tool calls are run for one answer");
                results.extend(surplus.iter().map(|c| Some(ToolResult::new(c, ToolStatus::Error, &why))));
                calls.append(&mut surplus);
                Phase::Tools { calls, results }
            }
        };
        Ok(())
    }

    /// A tool call ended. Results may come in any order; they are kept in call order.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] for a call that was not made or already has a result.
    pub fn tool(&mut self, result: ToolResult) -> Result<()> {
        let Phase::Tools { calls, results } = &mut self.phase else {
            return Err(out_of_turn("a tool result"));
        };
        let slot = calls.iter().position(|c| c.id == result.id).and_then(|i| results.get_mut(i));
        match slot {
            Some(slot @ None) => *slot = Some(result),
            _ => return Err(out_of_turn(format_args!("a result for call {:?}", result.id))),
        }
        if results.iter().all(Option::is_some) {
            let mut results: Vec<ToolResult> = std::mem::take(results).into_iter().flatten().collect();
            // In call order, so that it does not matter in which order they ended.
            let verdicts = self.loops.saw_turn(&self.loop_policy, calls.iter().zip(&results));
            for (result, verdict) in results.iter_mut().zip(verdicts) {
                match verdict {
                    Verdict::Fine => {}
                    Verdict::Nudge { times } => result.content.push_str(&loops::nudge(times)),
                    Verdict::Stop { times } => {
                        result.content.push_str(&loops::nudge(times));
                        self.circling = true;
                    }
                }
            }
            self.messages.push(Message::tool_results(results));
            self.phase = Phase::Model;
        }
        Ok(())
    }

    /// The user says something more, or an answer is sent back to be made better: the model is asked again, unless its
    /// steps are used up.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while tools run.
    pub fn say(&mut self, message: Message) -> Result<()> {
        match self.phase {
            Phase::Tools { .. } => return Err(out_of_turn("a message")),
            Phase::Done(_) if self.circling || self.steps >= self.max_steps => {}
            Phase::Model | Phase::Done(_) => self.phase = Phase::Model,
        }
        self.messages.push(message);
        Ok(())
    }

    /// Ends the run here, whatever it was doing: calls without a result get one of this `status`.
    pub fn close(&mut self, status: &ToolStatus, why: &str) {
        let phase =
            std::mem::replace(&mut self.phase, Phase::Done(FinishReason::Other("interrupted".into())));
        match phase {
            Phase::Done(reason) => self.phase = Phase::Done(reason),
            Phase::Model => {}
            Phase::Tools { calls, results } => {
                let closed = calls.iter().zip(results).map(|(call, result)| {
                    result.unwrap_or_else(|| ToolResult::new(call, status.clone(), why))
                });
                self.messages.push(Message::tool_results(closed));
            }
        }
    }

    /// The messages of this run so far, the opening included. While tools run, their message is not there yet.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages of this run, taken out.
    pub fn into_messages(self) -> Vec<Message> {
        self.messages
    }

    /// Token counts of all answers so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// How often the model has answered.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Has the model answered at all?
    pub fn has_answer(&self) -> bool {
        self.messages.iter().any(|m| m.role == Role::Assistant)
    }

    /// The last answer as the machine keeps it, with unique tool call ids.
    pub fn last_answer(&self) -> Option<&Message> {
        self.messages.iter().rev().find(|m| m.role == Role::Assistant)
    }

    /// The text of the last answer.
    pub fn final_text(&self) -> &str {
        &self.text
    }

    fn make_unique(&mut self, call: &mut ToolCall) {
        if call.id.is_empty() {
            call.id = "call".into();
        }
        if self.ids.insert(call.id.clone()) {
            return;
        }
        let base = call.id.clone();
        // Never the same number twice, so that no choice of ids makes it try for long. Ends: the set is finite.
        self.renamed = self.renamed.max(self.ids.len() as u64);
        loop {
            self.renamed += 1;
            call.id = format!("{base}-{}", self.renamed);
            if self.ids.insert(call.id.clone()) {
                return;
            }
        }
    }

    fn answer_all(&mut self, calls: &[ToolCall], status: ToolStatus, why: &str) {
        let results = calls.iter().map(|c| ToolResult::new(c, status.clone(), why));
        self.messages.push(Message::tool_results(results));
    }
}

/// Most tool calls that are run for one answer; the rest are answered with an error.
pub const MAX_CALLS: usize = 128;

/// The name under which a call is kept whose own name no provider would take back.
pub const INVALID_NAME: &str = "invalid_tool_name";

/// A conversation with a tool name of other characters is refused by providers, again and again: what the model made up must
/// not get into it. The name it is given instead belongs to no tool, so nothing runs.
fn make_sendable(call: &mut ToolCall) {
    // What is nested deeper could be stored and not read back.
    if !normal::is_shallow(&call.args) {
        call.args = "(arguments nested too deep to be kept)".into();
    }
    if !normal::good_name(&call.name) {
        call.name = INVALID_NAME.into();
    }
}

/// The finish reason of a run that used up its steps.
pub const STEP_LIMIT: &str = "step_limit";

/// The finish reason of a run that made the same calls with the same results over and over.
pub const LOOP: &str = "loop";

fn out_of_turn(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Conflict, "machine", format_args!("{what} came out of turn"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn start(max: u32) -> Machine {
        Machine::new(vec![Message::user("hi")], &[], max)
    }

    fn calls(ids: &[&str]) -> Response {
        let parts = ids.iter().map(|id| Part::ToolCall(ToolCall::new(*id, "t", json!({})))).collect();
        Response::new(Message { role: Role::Assistant, parts }, FinishReason::ToolCalls)
    }

    fn text(t: &str) -> Response {
        Response::new(Message::assistant(t), FinishReason::Stop)
    }

    fn open(m: &Machine) -> Vec<String> {
        match m.step() {
            Step::Tools(calls) => calls.into_iter().map(|c| c.id).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn result(id: &str) -> ToolResult {
        ToolResult::new(&ToolCall::new(id, "t", json!({})), ToolStatus::Ok, id)
    }

    #[test]
    fn results_come_out_in_call_order() {
        let mut m = start(5);
        m.model(calls(&["a", "b", "c"])).unwrap();
        for id in ["c", "a", "b"] {
            m.tool(result(id)).unwrap();
        }
        let order: Vec<_> = m.messages().last().unwrap().results().map(|r| r.id.as_str()).collect();
        assert_eq!(order, ["a", "b", "c"]);
        m.model(text("done")).unwrap();
        assert_eq!(m.step(), Step::Done(FinishReason::Stop));
        assert_eq!(m.final_text(), "done");
    }

    #[test]
    fn repeated_and_empty_ids_become_unique() {
        let history = vec![calls(&["call_0"]).message];
        let mut m = Machine::new(vec![Message::user("x")], &history, 9);
        m.model(calls(&["call_0", "call_0", ""])).unwrap();
        let ids = open(&m);
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
        assert!(
            ids[0].starts_with("call_0-") && ids[1].starts_with("call_0-") && ids[2] == "call",
            "{ids:?}"
        );
    }

    #[test]
    fn names_that_no_provider_takes_back_do_not_get_into_a_conversation() {
        let mut m = start(5);
        let parts = ["no such tool!\0", "", &"x".repeat(65), "fine_1"];
        let parts = parts.map(|n| Part::ToolCall(ToolCall::new("i", n, json!({})))).to_vec();
        m.model(Response::new(Message { role: Role::Assistant, parts }, FinishReason::ToolCalls)).unwrap();
        let names: Vec<_> = m.messages()[1].tool_calls().map(|c| c.name.as_str()).collect();
        assert_eq!(names, [INVALID_NAME, INVALID_NAME, INVALID_NAME, "fine_1"]);
    }

    #[test]
    fn a_flood_of_calls_is_answered_and_not_run() {
        let mut m = start(5);
        m.model(calls(&["same"; 10_000])).unwrap();
        let ids = open(&m);
        assert_eq!(ids.len(), MAX_CALLS);
        for id in ids {
            m.tool(result(&id)).unwrap();
        }
        assert_eq!(m.messages().last().unwrap().results().count(), 10_000);
        assert!(pairs_hold(m.messages()));
    }

    #[test]
    fn the_text_is_that_of_the_last_answer_even_when_it_is_empty() {
        let mut m = start(5);
        let mut first = calls(&["a"]);
        first.message.parts.insert(0, Part::text("Let me look."));
        m.model(first).unwrap();
        m.tool(result("a")).unwrap();
        m.model(text("")).unwrap();
        assert_eq!(m.final_text(), "");
    }

    #[test]
    fn a_cut_answer_runs_nothing() {
        let mut m = start(5);
        let mut cut = calls(&["a"]);
        cut.finish = FinishReason::Length;
        m.model(cut).unwrap();
        assert_eq!(m.step(), Step::Model { last: false });
        assert!(m.messages().last().unwrap().results().all(ToolResult::is_error));
    }

    #[test]
    fn stops_at_the_step_limit_with_pairs_closed() {
        let mut m = start(1);
        assert_eq!(m.step(), Step::Model { last: true });
        m.model(calls(&["a"])).unwrap();
        assert_eq!(m.step(), Step::Done(FinishReason::Other(STEP_LIMIT.into())));
        assert!(pairs_hold(m.messages()));
    }

    #[test]
    fn inputs_out_of_turn_are_refused() {
        let mut m = start(5);
        assert!(m.tool(result("a")).is_err());
        m.model(calls(&["a"])).unwrap();
        assert!(m.model(text("x")).is_err());
        assert!(m.tool(result("b")).is_err());
        m.tool(result("a")).unwrap();
        assert!(m.tool(result("a")).is_err());
    }

    fn pairs_hold(messages: &[Message]) -> bool {
        let mut i = 0;
        let mut seen = HashSet::new();
        while i < messages.len() {
            let ids: Vec<_> = messages[i].tool_calls().map(|c| c.id.clone()).collect();
            if !ids.iter().all(|id| seen.insert(id.clone())) {
                return false;
            }
            if !ids.is_empty() {
                i += 1;
                let got: Vec<_> =
                    messages.get(i).into_iter().flat_map(|m| m.results()).map(|r| r.id.clone()).collect();
                if got != ids {
                    return false;
                }
            } else if messages[i].results().next().is_some() {
                return false;
            }
            i += 1;
        }
        true
    }

    #[derive(Debug, Clone)]
    enum Do {
        Calls(Vec<u8>, u8),
        Text(u8),
        Tool(u8),
        Reload,
    }

    proptest! {
        /// However a run goes and wherever it is closed, every call has its result, in order, right behind it.
        #[test]
        fn closing_anywhere_leaves_valid_pairs(
            script in proptest::collection::vec(prop_oneof![
                (proptest::collection::vec(0u8..4, 0..5), 0u8..6).prop_map(|(ids, f)| Do::Calls(ids, f)),
                (0u8..6).prop_map(Do::Text),
                any::<u8>().prop_map(Do::Tool),
                Just(Do::Reload),
            ], 0..40),
            max in 0u32..12,
        ) {
            let finish = |f: u8| [FinishReason::Stop, FinishReason::ToolCalls, FinishReason::Length,
                FinishReason::Pause, FinishReason::Refusal, FinishReason::Other("new".into())][usize::from(f)].clone();
            let mut m = start(max);
            for action in script {
                match action {
                    Do::Calls(ids, f) => {
                        let names: Vec<String> = ids.iter().map(|i| if *i == 0 { String::new() } else { format!("c{i}") }).collect();
                        let mut r = calls(&names.iter().map(String::as_str).collect::<Vec<_>>());
                        r.finish = finish(f);
                        let _ = m.model(r);
                    }
                    Do::Text(f) => {
                        let mut r = text(if f == 0 { "" } else { "t" });
                        r.finish = finish(f);
                        let _ = m.model(r);
                    }
                    Do::Tool(n) => if let Step::Tools(open) = m.step() {
                        let id = &open[usize::from(n) % open.len()].id;
                        m.tool(result(id)).unwrap();
                    },
                    Do::Reload => {
                        let json = serde_json::to_string(&m).unwrap();
                        let back: Machine = serde_json::from_str(&json).unwrap();
                        prop_assert_eq!(&m, &back);
                        m = back;
                    }
                }
                let mut closed = m.clone();
                closed.close(&ToolStatus::Cancelled, "closed");
                prop_assert!(pairs_hold(closed.messages()), "{:?}", closed.messages());
                prop_assert!(matches!(closed.step(), Step::Done(_)));
                prop_assert!(closed.messages().iter().all(|m| !m.parts.is_empty()));
            }
        }
    }
}
