//! The conversation as the model sees it: what one request after the other is made of.
//!
//! In this order: the system text; the summary and the pinned messages of a compaction, if there was one; the conversation
//! before this run; the question; what is said aside about it (recalled facts, the form of the answer); what happened since.
//! Between two compactions a request only grows at its end, so that a provider's prompt cache hits.

use crate::{
    context::{compact, estimate::Estimator, record::Compaction, summarize},
    digest::Fnv,
    journal::Header,
    normal::{self, Normal},
};
use std::sync::{Arc, Mutex, PoisonError};
use std::{borrow::Cow, ops::Range};
use zo_traits::{Message, Part, Request, ToolChoice, ToolSpec, ToolStatus};

/// What is left of a tool result when nothing else can be left out, in bytes.
const SHORT_RESULT: usize = 1_000;

/// What a view is made of.
pub(crate) struct Material<'a> {
    pub(crate) header: &'a Header,
    pub(crate) system: Option<&'a str>,
    pub(crate) compaction: Option<&'a Compaction>,
    /// The pinned messages of the compaction, with their positions.
    pub(crate) pinned: &'a [(u64, Message)],
    /// The conversation behind the compaction and before this run.
    pub(crate) history: Vec<Message>,
    /// Tool results were cut down in the history and in so many of the run's messages.
    pub(crate) shortened: Option<u32>,
    /// This run's messages.
    pub(crate) own: &'a [Message],
}

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) request: Request,
    normal: Normal,
    /// How many of the run's messages are in it.
    taken: usize,
    /// Where the conversation before the run stands.
    history: Range<usize>,
    /// Estimated tokens of its messages, and how many were counted.
    tokens: u64,
    counted: usize,
    digest: Fnv,
    digested: usize,
}

impl View {
    pub(crate) fn new(mut request: Request, material: Material<'_>, asides: Vec<Message>) -> Self {
        let Material { header, system, compaction, pinned, mut history, shortened, own } = material;
        let mut own = Cow::Borrowed(own);
        if let Some(n) = shortened {
            compact::shorten(&mut history, SHORT_RESULT);
            let n = usize::try_from(n).unwrap_or(usize::MAX).min(own.len());
            compact::shorten(own.to_mut().get_mut(..n).unwrap_or_default(), SHORT_RESULT);
        }
        let mut view_messages: Vec<Message> = system.map(Message::system).into_iter().collect();
        let mut normal = Normal::default();
        let out = &mut view_messages;
        if let Some(c) = compaction {
            normal.push(out, summarize::message(&c.summary, c.upto.saturating_sub(pinned.len() as u64)));
            pinned.iter().for_each(|(_, m)| normal.push(out, m.clone()));
        }
        let before = out.len();
        for message in history {
            normal.push(out, message);
        }
        let history = before..out.len();
        // The beginning of the run itself may be in the summary; its question never is.
        let first = usize::try_from(compaction.map_or(0, |c| c.upto.saturating_sub(header.base)))
            .unwrap_or(usize::MAX);
        let opening = header.opening.len().min(own.len());
        let (question, rest) = own.split_at(opening);
        question.iter().for_each(|m| normal.push(out, m.clone()));
        asides.into_iter().for_each(|m| normal.push(out, m));
        for message in rest.get(first.saturating_sub(opening)..).unwrap_or_default() {
            normal.push(out, message.clone());
        }
        request.messages = view_messages;
        Self {
            request,
            normal,
            taken: own.len(),
            history,
            tokens: 0,
            counted: 0,
            digest: Fnv::default(),
            digested: 0,
        }
    }

    /// Takes up what the run has added.
    pub(crate) fn catch_up(&mut self, own: &[Message]) {
        for message in own.get(self.taken..).unwrap_or_default() {
            self.normal.push(&mut self.request.messages, message.clone());
        }
        self.taken = own.len();
        self.normal.seal(&mut self.request.messages);
    }

    /// Estimated tokens of the request as it is now.
    pub(crate) fn tokens(&mut self, estimator: &Estimator) -> u64 {
        let model = &self.request.model;
        for message in self.request.messages.get(self.counted..).unwrap_or_default() {
            self.tokens = self.tokens.saturating_add(estimator.message(model, message));
        }
        self.counted = self.request.messages.len();
        let frame = estimator.frame(model, &self.request);
        self.tokens.saturating_add(frame).saturating_add(estimator.tools(model, &self.request.tools))
    }

    /// Digest of everything in the request that decides what it asks.
    pub(crate) fn digest(&mut self, frames: &Frames) -> String {
        if self.digested == 0 {
            self.digest = frames.digest(&self.request);
        }
        for message in self.request.messages.get(self.digested..).unwrap_or_default() {
            self.digest.json(message);
        }
        self.digested = self.request.messages.len();
        let mut whole = self.digest.clone();
        whole.json(&self.request.tool_choice);
        whole.hex()
    }

    /// The request of the next call, with the user's word last. Give the result to [`sent`](View::sent).
    pub(crate) fn prepare(&mut self, choice: ToolChoice) -> bool {
        self.request.tool_choice = choice;
        match normal::nudge(&self.request.messages) {
            Some(word) => {
                self.request.messages.push(word);
                true
            }
            None => false,
        }
    }

    /// Takes what [`prepare`](View::prepare) added away again.
    pub(crate) fn sent(&mut self, nudged: bool) {
        if nudged {
            self.request.messages.pop();
            self.recount();
        }
    }

    /// Estimated tokens of the conversation before the run, as far as it is no summary.
    pub(crate) fn history_tokens(&self, estimator: &Estimator) -> u64 {
        let messages = self.request.messages.get(self.history.clone()).unwrap_or_default();
        messages.iter().fold(0, |sum, m| sum.saturating_add(estimator.message(&self.request.model, m)))
    }

    fn recount(&mut self) {
        (self.tokens, self.counted, self.digested) = (0, 0, 0);
    }
}

/// A model, the tools of its requests, and the digest of both.
type Framed = (String, Arc<[ToolSpec]>, Fnv);

/// The digest of what the requests of many runs have in common.
#[derive(Debug, Default)]
pub(crate) struct Frames(Mutex<Option<Framed>>);

impl Frames {
    fn digest(&self, request: &Request) -> Fnv {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((model, tools, fnv)) = &*last
            && *model == request.model
            && Arc::ptr_eq(tools, &request.tools)
            && request.output_schema.is_none()
        {
            return fnv.clone();
        }
        let mut fnv = Fnv::default();
        fnv.json(&request.model);
        fnv.json(&request.output_schema);
        request.tools.iter().for_each(|tool| fnv.json(tool));
        if request.output_schema.is_none() {
            *last = Some((request.model.clone(), request.tools.clone(), fnv.clone()));
        }
        fnv
    }
}

/// What the provider refused as it is must not be in the way of every later question.
pub(crate) fn drop_media(message: &mut Message) {
    for part in &mut message.parts {
        if let Part::ToolResult(r) = part
            && !r.media.is_empty()
        {
            r.media.clear();
            r.content.push_str("\n[an attachment is left out: the request with it was refused]");
        }
    }
}

/// Was it run at all?
pub(crate) fn was_run(status: &ToolStatus) -> bool {
    !matches!(status, ToolStatus::Denied | ToolStatus::Cancelled)
}
