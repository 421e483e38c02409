//! Drives a codec over the bytes of an answer.

use super::{parts::Out, sse::Sse};
use std::fmt::Debug;
use zo_traits::{Error, ErrorKind, Result};

/// The decoding half of a wire: one value per answer.
///
/// Every method appends events that obey the grammar of [`StreamEvent`](zo_traits::StreamEvent). After an error a codec is
/// of no further use.
pub trait Codec: Send + Debug {
    /// Takes one server-sent event.
    ///
    /// # Errors
    /// What the server reports inside the stream, classified; [`ErrorKind::Corrupt`] for what cannot be read.
    fn event(&mut self, name: &str, data: &str, out: &mut Out) -> Result<()>;

    /// Takes a body that came whole, as one JSON text.
    ///
    /// # Errors
    /// As [`event`](Codec::event).
    fn whole(&mut self, body: &str, out: &mut Out) -> Result<()>;

    /// The bytes are over.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] unless the wire's own end was seen.
    fn end(&mut self, out: &mut Out) -> Result<()>;

    /// `Finish` was emitted: what follows is of no interest.
    fn is_finished(&self) -> bool;

    /// Everything that must come has come, though more may (token counts).
    fn may_end(&self) -> bool;
}

/// Decodes one answer: a codec behind a server-sent-events decoder.
///
/// ```
/// # #[cfg(feature = "openai")] {
/// use std::collections::VecDeque;
/// use zo_providers::wire::{Decoder, openai_chat::Chat};
///
/// let mut decoder = Decoder::new(Chat::new("openai"));
/// let mut events = VecDeque::new();
/// let body = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
/// for byte in body.as_bytes() {
///     decoder.feed(&[*byte], &mut events)?;
/// }
/// decoder.finish(&mut events)?;
/// assert!(decoder.is_finished());
/// # }
/// # Ok::<(), zo_traits::Error>(())
/// ```
#[derive(Debug)]
pub struct Decoder<C> {
    sse: Sse,
    codec: C,
}

impl<C: Codec> Decoder<C> {
    /// A decoder for one answer.
    pub fn new(codec: C) -> Self {
        Self { sse: Sse::new(), codec }
    }

    /// Takes the next bytes of a stream of server-sent events.
    ///
    /// # Errors
    /// As [`Codec::event`]; [`ErrorKind::Corrupt`] for an event beyond [`sse::MAX_EVENT`](super::sse::MAX_EVENT).
    pub fn feed(&mut self, bytes: &[u8], out: &mut Out) -> Result<()> {
        if self.codec.is_finished() {
            return Ok(());
        }
        let Self { sse, codec } = self;
        sse.feed(bytes, |name, data| if codec.is_finished() { Ok(()) } else { codec.event(name, data, out) })
    }

    /// Says that the stream is over.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the answer was cut.
    pub fn finish(&mut self, out: &mut Out) -> Result<()> {
        let Self { sse, codec } = self;
        if codec.is_finished() {
            return Ok(());
        }
        let last =
            sse.finish(|name, data| if codec.is_finished() { Ok(()) } else { codec.event(name, data, out) });
        match last {
            // The tail is half an event. If all that matters had come before, it does not matter.
            Err(e) if e.kind() == ErrorKind::Corrupt && codec.may_end() => codec.end(out),
            Err(e) if e.kind() == ErrorKind::Corrupt => Err(cut()),
            Err(e) => Err(e),
            Ok(()) => codec.end(out),
        }
    }

    /// Takes a body that is one JSON text instead of a stream.
    ///
    /// # Errors
    /// As [`Codec::whole`].
    pub fn whole(&mut self, body: &[u8], out: &mut Out) -> Result<()> {
        let body = String::from_utf8_lossy(body);
        let body = body.strip_prefix('\u{FEFF}').unwrap_or(&body);
        self.codec.whole(body, out)
    }

    /// `Finish` was emitted.
    pub fn is_finished(&self) -> bool {
        self.codec.is_finished()
    }

    /// See [`Codec::may_end`].
    pub fn may_end(&self) -> bool {
        self.codec.may_end()
    }
}

/// The bytes ended before the answer did.
pub(crate) fn cut() -> Error {
    Error::new(ErrorKind::Corrupt, "wire.decode", "the answer was cut before its end")
}

/// What came is no JSON, or none of this wire's. Shows where, and a little of the text.
pub(crate) fn unreadable(what: &str, data: &str, e: &serde_json::Error) -> Error {
    let shown: String = data.chars().take(80).collect();
    Error::new(ErrorKind::Corrupt, "wire.decode", format_args!("cannot read {what} ({e}): {shown:?}"))
}
