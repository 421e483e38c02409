//! Keeps the grammar of the stream on behalf of the codecs: one `Start`, fresh part indexes, nothing left open.

use std::collections::VecDeque;
use zo_traits::{FinishReason, PartKind, Replay, StreamEvent, Usage};

/// Running text of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prose {
    Text,
    Reasoning,
    Refusal,
}

impl Prose {
    fn kind(self) -> PartKind {
        match self {
            Self::Text => PartKind::Text,
            Self::Reasoning => PartKind::Reasoning,
            Self::Refusal => PartKind::Refusal,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Parts {
    next: u32,
    started: bool,
    finished: bool,
    /// The prose part that is open, for wires whose chunks carry bare text.
    prose: Option<(Prose, u32)>,
}

pub(crate) type Out = VecDeque<StreamEvent>;

impl Parts {
    /// Has `Start` been sent?
    pub(crate) fn started(&self) -> bool {
        self.started
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    /// Says `Start`, the first time only.
    pub(crate) fn start(&mut self, id: Option<&str>, model: Option<&str>, out: &mut Out) {
        if !self.started {
            self.started = true;
            out.push_back(StreamEvent::Start { id: id.map(str::to_owned), model: model.map(str::to_owned) });
        }
    }

    /// Opens a part and returns its index.
    pub(crate) fn open(&mut self, kind: PartKind, out: &mut Out) -> u32 {
        let index = self.next;
        self.next = self.next.saturating_add(1);
        out.push_back(StreamEvent::PartStart { index, kind });
        index
    }

    pub(crate) fn delta(&mut self, index: u32, text: &str, out: &mut Out) {
        if !text.is_empty() {
            out.push_back(StreamEvent::Delta { index, text: text.to_owned() });
        }
    }

    pub(crate) fn close(&mut self, index: u32, replay: Option<Replay>, out: &mut Out) {
        out.push_back(StreamEvent::PartEnd { index, replay });
    }

    /// A whole block that only its provider understands.
    pub(crate) fn opaque(&mut self, replay: Replay, out: &mut Out) {
        let index = self.open(PartKind::Opaque, out);
        self.close(index, Some(replay), out);
    }

    /// Appends running text. A change of kind closes the part that was open, with `replay`.
    pub(crate) fn say(
        &mut self,
        prose: Prose,
        text: &str,
        replay: impl FnOnce(Prose) -> Option<Replay>,
        out: &mut Out,
    ) {
        if text.is_empty() {
            return;
        }
        let index = match self.prose {
            Some((open, index)) if open == prose => index,
            _ => {
                self.hush(replay, out);
                let index = self.open(prose.kind(), out);
                self.prose = Some((prose, index));
                index
            }
        };
        self.delta(index, text, out);
    }

    /// Closes the running text, if there is any.
    pub(crate) fn hush(&mut self, replay: impl FnOnce(Prose) -> Option<Replay>, out: &mut Out) {
        if let Some((prose, index)) = self.prose.take() {
            self.close(index, replay(prose), out);
        }
    }

    /// The end of the answer. Everything must be closed.
    pub(crate) fn finish(&mut self, usage: Option<Usage>, reason: FinishReason, out: &mut Out) {
        self.start(None, None, out);
        if let Some(usage) = usage {
            out.push_back(StreamEvent::Usage(usage));
        }
        out.push_back(StreamEvent::Finish(reason));
        self.finished = true;
    }
}
