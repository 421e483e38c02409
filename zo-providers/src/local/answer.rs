//! One answer: tokens chosen one after another, as text, as thoughts, or as tool calls whose every token the grammar allows.

use super::{
    chat::{CALL, CALL_END, THINK, THINK_END},
    gguf::unsupported,
    grammar::Grammars,
    model::Model,
    sample::Sampler,
    words::Words,
};
use llguidance::Matcher;
use serde_json::{Value, json};
use toktrie::SimpleVob;
use zo_traits::{FinishReason, PartKind, Result, StreamEvent, ToolSpec, Usage};

/// Most calls of one turn.
const MAX_CALLS: usize = 16;
const BEFORE_NAME: &str = "\n{\"name\": ";
const BEFORE_ARGUMENTS: &str = ", \"arguments\": ";

/// What is wanted of an answer.
pub(super) struct Plan<'a> {
    /// Tools on offer; none where none may be called.
    pub(super) tools: &'a [ToolSpec],
    /// A tool must be called.
    pub(super) must_call: bool,
    /// More than one tool may be called.
    pub(super) parallel: bool,
    pub(super) schema: Option<&'a Value>,
    pub(super) stop: &'a [String],
    /// The model begins by thinking.
    pub(super) thinking: bool,
    /// Makes the ids of calls.
    pub(super) id: u64,
}

/// Grammars of a plan, made before anything is read: what is wrong with a schema is said at once.
pub(super) struct Ready {
    names: Option<Matcher>,
    arguments: Vec<Matcher>,
    schema: Option<Matcher>,
}

impl Ready {
    pub(super) fn new(grammars: &mut Grammars, plan: &Plan<'_>) -> Result<Self> {
        let names: Vec<_> = plan.tools.iter().map(|t| t.name.as_str()).collect();
        Ok(Self {
            names: if names.len() > 1 { Some(grammars.json(&json!({"enum": names}))?) } else { None },
            arguments: plan
                .tools
                .iter()
                .map(|t| {
                    grammars
                        .arguments(&t.input)
                        .map_err(|e| unsupported(format_args!("tool {}: {}", t.name, e.message())))
                })
                .collect::<Result<_>>()?,
            schema: plan.schema.map(|s| grammars.json(s)).transpose()?,
        })
    }
}

/// Writes one answer.
pub(super) struct Writer<'a> {
    pub(super) model: &'a mut Model,
    pub(super) words: &'a Words,
    pub(super) sampler: Sampler,
    /// Asked again and again; an error ends the answer.
    pub(super) go_on: &'a mut dyn FnMut() -> Result<()>,
    pub(super) emit: &'a mut dyn FnMut(StreamEvent),
    /// Scores of the next token, once everything is read.
    pub(super) scores: Vec<f32>,
    /// Chosen, and not read yet.
    pub(super) unread: Vec<u32>,
    /// Tokens of the prompt.
    pub(super) input: usize,
    /// Tokens written.
    pub(super) output: usize,
    /// Most tokens to write.
    pub(super) most: usize,
    /// Parts begun.
    pub(super) parts: u32,
}

/// How a run of tokens ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By itself.
    Done,
    /// By a limit on its length.
    Cut,
    /// With the beginning of a tool call.
    Call,
}

impl Writer<'_> {
    /// Writes the answer that `plan` wants, all but its `Start`.
    pub(super) fn write(&mut self, plan: &Plan<'_>, mut ready: Ready) -> Result<()> {
        let finish = self.answer(plan, &mut ready)?;
        (self.emit)(StreamEvent::Usage(Usage::new(self.input as u64, self.output as u64)));
        (self.emit)(StreamEvent::Finish(finish));
        Ok(())
    }

    fn answer(&mut self, plan: &Plan<'_>, ready: &mut Ready) -> Result<FinishReason> {
        if plan.must_call {
            return self.calls(plan, ready, "");
        }
        let end = match &mut ready.schema {
            Some(schema) => {
                let mut schema = schema.deep_clone();
                let call = if plan.tools.is_empty() { None } else { self.encode(CALL)?.first().copied() };
                let mask = self.mask(&mut schema)?;
                let open = |n: u32| Some(n) == call || allows(&mask, n);
                match self.pick(&open)? {
                    None => End::Cut,
                    Some(token) if Some(token) == call && !allows(&mask, token) => {
                        self.unread.pop();
                        self.output -= 1;
                        return self.calls(plan, ready, "");
                    }
                    Some(token) => {
                        let index = self.part(PartKind::Text);
                        let end = self.constrained(&mut schema, Some(token), index)?;
                        (self.emit)(StreamEvent::PartEnd { index, replay: None });
                        end
                    }
                }
            }
            None => {
                let (end, tail) = self.free(plan)?;
                if end == End::Call {
                    return self.calls(plan, ready, &tail);
                }
                end
            }
        };
        Ok(if end == End::Cut { FinishReason::Length } else { FinishReason::Stop })
    }

    /// Tool calls, after `tail`, which was taken back from what is read.
    fn calls(&mut self, plan: &Plan<'_>, ready: &Ready, tail: &str) -> Result<FinishReason> {
        let mut before = format!("{tail}{CALL}{BEFORE_NAME}");
        for n in 0..MAX_CALLS {
            if !self.force(&before)? {
                return Ok(FinishReason::Length);
            }
            let mut name = String::new();
            let which = match &ready.names {
                None => {
                    let only = plan.tools.first().map(|t| t.name.as_str()).unwrap_or_default();
                    if !self.force(&Value::from(only).to_string())? {
                        return Ok(FinishReason::Length);
                    }
                    0
                }
                Some(names) => {
                    let collect = |text: String| {
                        name.push_str(&text);
                        None
                    };
                    if self.run(&mut names.deep_clone(), None, collect)? == End::Cut {
                        return Ok(FinishReason::Length);
                    }
                    let name: String = serde_json::from_str(&name).unwrap_or_default();
                    plan.tools.iter().position(|t| t.name == name).ok_or_else(|| broken(&name))?
                }
            };
            let (Some(tool), Some(arguments)) = (plan.tools.get(which), ready.arguments.get(which)) else {
                return Err(broken(&name));
            };
            let id = format!("call_{:016x}_{n}", plan.id);
            let index = self.part(PartKind::ToolCall { id, name: tool.name.clone() });
            let end = if self.force(BEFORE_ARGUMENTS)? {
                self.constrained(&mut arguments.deep_clone(), None, index)?
            } else {
                End::Cut
            };
            (self.emit)(StreamEvent::PartEnd { index, replay: None });
            if end == End::Cut {
                return Ok(FinishReason::Length);
            }
            // One more, or the end? The call is whole: a limit here takes nothing from it.
            if !plan.parallel || n + 1 == MAX_CALLS || !self.force(&format!("}}\n{CALL_END}"))? {
                break;
            }
            before = format!("\n{CALL}{BEFORE_NAME}");
            let more = self.encode(&before)?.first().copied();
            let words = self.words;
            match self.pick(&|n| Some(n) == more || words.ends(n))? {
                Some(token) if Some(token) == more => {
                    self.unread.pop();
                    self.output -= 1;
                }
                _ => break,
            }
        }
        Ok(FinishReason::ToolCalls)
    }

    /// Text, thoughts before it, up to an end, a stop text or a tool call. Gives what is to be read again before a call.
    fn free(&mut self, plan: &Plan<'_>) -> Result<(End, String)> {
        let begin = self.at();
        let mut text = Text::new(self.words.begins_with_space());
        let mut thinking = plan.thinking;
        let mut part: Option<u32> = None;
        let mut said = false;
        let mut end = loop {
            let Some(token) = self.pick(&|_| true)? else { break End::Cut };
            let over = self.words.ends(token);
            if !over {
                text.push(self.words.bytes(token));
            }
            let mut watch: Vec<&str> = Vec::new();
            if thinking {
                watch.push(THINK_END);
            } else {
                watch.extend(plan.stop.iter().map(String::as_str).filter(|s| !s.is_empty()));
                watch.extend((!plan.tools.is_empty()).then_some(CALL));
                watch.extend((!said).then_some(THINK));
            }
            let found = text.find(&watch);
            let shown = match found {
                Some((at, _)) => text.take(at),
                None if over => text.rest(),
                None => text.take_safe(&watch),
            };
            if part.is_none() && !shown.trim().is_empty() || part.is_some() && !shown.is_empty() {
                let kind = if thinking { PartKind::Reasoning } else { PartKind::Text };
                let index = *part.get_or_insert_with(|| self.part(kind));
                said |= !thinking;
                let shown = if said || thinking { shown } else { shown.trim_start().to_owned() };
                (self.emit)(StreamEvent::Delta { index, text: shown });
            }
            match found {
                Some((_, mark)) if mark == THINK || mark == THINK_END => {
                    text.skip(mark.len());
                    if let Some(index) = part.take() {
                        (self.emit)(StreamEvent::PartEnd { index, replay: None });
                    }
                    (thinking, said) = (mark == THINK, said || mark == THINK_END);
                }
                Some((_, mark)) if mark == CALL && !plan.stop.iter().any(|s| s == CALL) => break End::Call,
                Some(_) => break End::Done,
                None if over => break End::Done,
                None => {}
            }
        };
        if end == End::Cut {
            let left = text.rest();
            if part.is_some() && !left.is_empty() || !left.trim().is_empty() {
                let kind = if thinking { PartKind::Reasoning } else { PartKind::Text };
                let index = *part.get_or_insert_with(|| self.part(kind));
                (self.emit)(StreamEvent::Delta { index, text: left });
            }
        }
        if let Some(index) = part {
            (self.emit)(StreamEvent::PartEnd { index, replay: None });
        }
        let mut tail = String::new();
        if end == End::Call {
            // The mark may end within a token, or begin within one: back to where the token with its beginning begins.
            let (tokens, text) = text.before();
            self.back_to(begin + tokens);
            tail = text;
        }
        if end == End::Call && self.output >= self.most {
            end = End::Cut;
        }
        Ok((end, tail))
    }

    /// Text that `grammar` allows, as deltas of a part.
    fn constrained(&mut self, grammar: &mut Matcher, first: Option<u32>, index: u32) -> Result<End> {
        self.run(grammar, first, |text| Some(StreamEvent::Delta { index, text }))
    }

    fn run(
        &mut self,
        grammar: &mut Matcher,
        mut first: Option<u32>,
        mut show: impl FnMut(String) -> Option<StreamEvent>,
    ) -> Result<End> {
        let mut bytes = Vec::new();
        loop {
            let token = match first.take() {
                Some(token) => token,
                None => {
                    if grammar.is_stopped() && !grammar.is_error() {
                        return Ok(End::Done);
                    }
                    let mask = self.mask(grammar)?;
                    let words = self.words;
                    if (0..words.len() as u32).all(|n| !allows(&mask, n) || words.ends(n)) {
                        return Ok(End::Done);
                    }
                    match self.pick(&|n| allows(&mask, n))? {
                        Some(token) => token,
                        None => return Ok(End::Cut),
                    }
                }
            };
            if self.words.ends(token) {
                return Ok(End::Done);
            }
            grammar.consume_token(token).map_err(|e| broken(&e.to_string()))?;
            bytes.extend_from_slice(self.words.bytes(token));
            let text = whole(&mut bytes);
            if !text.is_empty() {
                show(text).into_iter().for_each(&mut *self.emit);
            }
        }
    }

    fn mask(&self, grammar: &mut Matcher) -> Result<SimpleVob> {
        grammar
            .compute_mask_or_eos()
            .map_err(|e| unsupported(format_args!("the JSON schema is too much: {e}")))
    }

    /// Begins a part.
    fn part(&mut self, kind: PartKind) -> u32 {
        let index = self.parts;
        self.parts += 1;
        (self.emit)(StreamEvent::PartStart { index, kind });
        index
    }

    /// Chooses the next token; none when the limit is reached.
    fn pick(&mut self, allowed: &dyn Fn(u32) -> bool) -> Result<Option<u32>> {
        if self.output >= self.most {
            return Ok(None);
        }
        if !self.unread.is_empty() {
            let unread = std::mem::take(&mut self.unread);
            self.scores = self.model.more(&unread, self.go_on)?;
        }
        (self.go_on)()?;
        let words = self.words.len() as u32;
        let token = self.sampler.pick(&self.scores, |n| n < words && allowed(n))?;
        self.unread.push(token);
        self.output += 1;
        Ok(Some(token))
    }

    /// Writes `text` without asking the model; false when it does not fit.
    fn force(&mut self, text: &str) -> Result<bool> {
        let tokens = self.encode(text)?;
        if self.output + tokens.len() > self.most {
            return Ok(false);
        }
        self.output += tokens.len();
        self.unread.extend(tokens);
        Ok(true)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.words.inner(text)
    }

    /// Tokens so far, those of the prompt included.
    fn at(&self) -> usize {
        self.model.len() + self.unread.len()
    }

    fn back_to(&mut self, len: usize) {
        let read = self.model.len();
        self.unread.truncate(len.saturating_sub(read));
        self.model.back_to(len);
    }
}

fn allows(mask: &SimpleVob, token: u32) -> bool {
    (token as usize) < mask.len() && mask.is_allowed(token)
}

fn broken(what: &str) -> zo_traits::Error {
    super::gguf::corrupt(format_args!("the grammar let through what it must not: {what}"))
}

/// Takes whole characters off the front of `bytes`; what can be none becomes U+FFFD.
fn whole(bytes: &mut Vec<u8>) -> String {
    let mut out = String::new();
    loop {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                bytes.clear();
                return out;
            }
            Err(e) => {
                let good = e.valid_up_to();
                out.push_str(&String::from_utf8_lossy(bytes.get(..good).unwrap_or_default()));
                let Some(bad) = e.error_len() else {
                    bytes.drain(..good);
                    return out;
                };
                out.push('\u{FFFD}');
                bytes.drain(..good + bad);
            }
        }
    }
}

/// Text as it comes, of which what may turn out to be a mark is held back.
#[derive(Debug)]
struct Text {
    bytes: Vec<u8>,
    /// Not shown yet.
    held: String,
    /// All of it.
    all: String,
    /// Bytes of it that were shown or skipped.
    gone: usize,
    /// Where each token begins, in bytes of the text so far.
    begins: Vec<usize>,
    drop_space: bool,
}

impl Text {
    fn new(drop_space: bool) -> Self {
        Self {
            bytes: Vec::new(),
            held: String::new(),
            all: String::new(),
            gone: 0,
            begins: Vec::new(),
            drop_space,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.begins.push(self.all.len());
        let bytes = if std::mem::take(&mut self.drop_space) {
            bytes.strip_prefix(b" ").unwrap_or(bytes)
        } else {
            bytes
        };
        self.bytes.extend_from_slice(bytes);
        let text = whole(&mut self.bytes);
        self.held.push_str(&text);
        self.all.push_str(&text);
    }

    /// The first of the marks in what is held, the longest where several begin.
    fn find<'a>(&self, marks: &[&'a str]) -> Option<(usize, &'a str)> {
        let found = marks.iter().filter_map(|m| self.held.find(m).map(|at| (at, *m)));
        found.min_by_key(|(at, m)| (*at, std::cmp::Reverse(m.len())))
    }

    fn take(&mut self, len: usize) -> String {
        let rest = self.held.split_off(len);
        self.gone += len;
        std::mem::replace(&mut self.held, rest)
    }

    /// All but the longest end that a mark may begin with.
    fn take_safe(&mut self, marks: &[&str]) -> String {
        let held = &self.held;
        let keep = held.char_indices().map(|(at, _)| at).find(|at| {
            let end = held.get(*at..).unwrap_or_default();
            marks.iter().any(|m| m.starts_with(end))
        });
        self.take(keep.unwrap_or(self.held.len()))
    }

    /// Everything, at the end.
    fn rest(&mut self) -> String {
        let mut all = self.take(self.held.len());
        all.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.bytes)));
        all
    }

    fn skip(&mut self, len: usize) {
        self.take(len);
    }

    /// Tokens that are wholly shown, and what is shown of the next.
    fn before(&self) -> (usize, String) {
        let tokens = self.begins.iter().rposition(|at| *at <= self.gone).unwrap_or(0);
        let begin = self.begins.get(tokens).copied().unwrap_or(0);
        (tokens, self.all.get(begin..self.gone).unwrap_or_default().to_owned())
    }
}
