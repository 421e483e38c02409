//! Drives a codec over the bytes of an answer.

use super::{
    halves::Halves,
    ndjson::Lines,
    parts::Out,
    sse::{MAX_EVENT, Sse},
};
use std::fmt::Debug;
use zo_traits::{Error, ErrorKind, Result, StreamEvent};

/// The decoding half of a wire: one value per answer.
///
/// Every method appends events that obey the grammar of [`StreamEvent`](zo_traits::StreamEvent). After an error a codec is
/// of no further use.
pub trait Codec: Send + Debug {
    /// How the events of a stream are told apart.
    fn framing(&self) -> Framing {
        Framing::Events(Sse::new())
    }

    /// Takes one server-sent event, or one line.
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

/// How the events of a stream are told apart.
#[derive(Debug)]
#[non_exhaustive]
pub enum Framing {
    /// Server-sent events.
    Events(Sse),
    /// Lines of JSON. Their events have no name.
    Lines(Lines),
}

impl Framing {
    fn feed(&mut self, bytes: &[u8], sink: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        match self {
            Self::Events(sse) => sse.feed(bytes, sink),
            Self::Lines(lines) => lines.feed(bytes, sink),
        }
    }

    fn finish(&mut self, sink: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        match self {
            Self::Events(sse) => sse.finish(sink),
            Self::Lines(lines) => lines.finish(sink),
        }
    }
}

/// Decodes one answer: a codec behind what tells its events apart.
///
/// ```
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
/// # Ok::<(), zo_traits::Error>(())
/// ```
#[derive(Debug)]
pub struct Decoder<C> {
    framing: Framing,
    codec: C,
    body: Body,
    /// Content came behind what looked like the end: from now on only the end of the bytes is one.
    doubt: bool,
    halves: Halves,
}

/// What is being fed, by its first byte.
#[derive(Debug)]
enum Body {
    /// Nothing yet but white space.
    Unknown,
    Stream,
    /// One text, whatever was promised: a JSON text under another name, or the page of a proxy.
    Whole(Vec<u8>),
}

impl<C: Codec> Decoder<C> {
    /// A decoder for one answer.
    pub fn new(codec: C) -> Self {
        Self { framing: codec.framing(), codec, body: Body::Unknown, doubt: false, halves: Halves::default() }
    }

    /// Takes the next bytes of a stream.
    ///
    /// # Errors
    /// As [`Codec::event`]; [`ErrorKind::Corrupt`] for an event beyond [`sse::MAX_EVENT`](super::sse::MAX_EVENT).
    pub fn feed(&mut self, bytes: &[u8], out: &mut Out) -> Result<()> {
        if self.codec.is_finished() {
            return Ok(());
        }
        let bytes = match self.sniff(bytes)? {
            Some(rest) => rest,
            None => return Ok(()),
        };
        let Self { framing, codec, doubt, halves, .. } = self;
        framing.feed(bytes, |name, data| event(codec, doubt, halves, name, data, out))
    }

    /// Takes away what belongs to a text that came whole where events were expected: none of their lines begins so.
    fn sniff<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>> {
        if let (Body::Unknown, Framing::Events(_)) = (&self.body, &self.framing) {
            let blank = |b: &u8| b.is_ascii_whitespace() || matches!(b, 0xEF | 0xBB | 0xBF);
            self.body = match bytes.iter().find(|b| !blank(b)) {
                None => return Ok(Some(bytes)),
                // The last one is how compressed bytes begin, which nobody asked for.
                Some(b'{' | b'[' | b'<' | 0x1F) => Body::Whole(Vec::new()),
                Some(_) => Body::Stream,
            };
        }
        let Body::Whole(text) = &mut self.body else { return Ok(Some(bytes)) };
        if text.len().saturating_add(bytes.len()) > MAX_EVENT {
            let why = format_args!("the answer is longer than {MAX_EVENT} bytes");
            return Err(Error::new(ErrorKind::Corrupt, "wire.decode", why));
        }
        text.extend_from_slice(bytes);
        Ok(None)
    }

    /// Says that the stream is over.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the answer was cut.
    pub fn finish(&mut self, out: &mut Out) -> Result<()> {
        self.tail(out)?;
        if self.codec.is_finished() { Ok(()) } else { self.end(out) }
    }

    fn end(&mut self, out: &mut Out) -> Result<()> {
        let known = out.len();
        let done = self.codec.end(out);
        self.halves.join(known, out);
        done
    }

    /// Says that the stream broke off. Where only the end of the bytes ends an answer, that is none.
    ///
    /// # Errors
    /// As [`finish`](Decoder::finish).
    pub(crate) fn broken(&mut self, out: &mut Out) -> Result<()> {
        self.tail(out)?;
        match self.codec.is_finished() {
            true => Ok(()),
            false if self.may_end() => self.end(out),
            false => Err(cut()),
        }
    }

    /// Takes what was still open at the end of the bytes.
    fn tail(&mut self, out: &mut Out) -> Result<()> {
        if self.codec.is_finished() {
            return Ok(());
        }
        if let Body::Whole(text) = std::mem::replace(&mut self.body, Body::Stream) {
            return self.text(&text_of(&text), out);
        }
        let Self { framing, codec, doubt, halves, .. } = self;
        match framing.finish(|name, data| event(codec, doubt, halves, name, data, out)) {
            // The tail is half an event. If all that matters had come before, it does not matter.
            Err(e) if e.kind() == ErrorKind::Corrupt && self.may_end() => Ok(()),
            Err(e) if e.kind() == ErrorKind::Corrupt => Err(cut()),
            done => done,
        }
    }

    /// Takes a body that is one JSON text instead of a stream, or is said to be: a stream is understood, too.
    ///
    /// # Errors
    /// As [`Codec::whole`].
    pub fn whole(&mut self, body: &[u8], out: &mut Out) -> Result<()> {
        let text = text_of(body);
        let text = bare(&text);
        let fields = ["data:", "event:", "id:", "retry:", ":"];
        if matches!(self.framing, Framing::Events(_)) && fields.iter().any(|f| text.starts_with(f)) {
            self.feed(body, out)?;
            return self.finish(out);
        }
        self.text(text, out)
    }

    fn text(&mut self, text: &str, out: &mut Out) -> Result<()> {
        let known = out.len();
        let done = self.codec.whole(&self.halves.mark(bare(text)), out);
        self.halves.join(known, out);
        done
    }

    /// `Finish` was emitted.
    pub fn is_finished(&self) -> bool {
        self.codec.is_finished()
    }

    /// See [`Codec::may_end`].
    pub fn may_end(&self) -> bool {
        !self.doubt && self.codec.may_end()
    }
}

fn event<C: Codec>(
    codec: &mut C,
    doubt: &mut bool,
    halves: &mut Halves,
    name: &str,
    data: &str,
    out: &mut Out,
) -> Result<()> {
    if codec.is_finished() {
        return Ok(());
    }
    let (ended, known) = (codec.may_end(), out.len());
    let done = codec.event(name, &halves.mark(data), out);
    halves.join(known, out);
    let says = |e: &StreamEvent| matches!(e, StreamEvent::PartStart { .. } | StreamEvent::Delta { .. });
    *doubt |= ended && !codec.is_finished() && out.iter().skip(known).any(says);
    done
}

/// The bytes as text. Looked at as a whole first, which is far quicker than piece by piece.
fn text_of(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Into::into)
}

/// Text without what may stand before it.
fn bare(text: &str) -> &str {
    text.strip_prefix('\u{FEFF}').unwrap_or(text).trim_start()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::openai_chat::Chat;

    #[test]
    fn an_end_that_was_none_ends_nothing_any_more() {
        let chunk = |text: &str| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}\n\n"
            )
        };
        let (mut decoder, mut out) = (Decoder::new(Chat::new("x")), Out::new());
        decoder.feed(chunk("a").as_bytes(), &mut out).unwrap();
        assert!(decoder.may_end());
        decoder.feed(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n", &mut out).unwrap();
        assert!(decoder.may_end(), "counts are no content");
        decoder.feed(chunk("b").as_bytes(), &mut out).unwrap();
        assert!(!decoder.may_end());
        decoder.feed(b"data: {\"cho", &mut out).unwrap();
        assert_eq!(decoder.broken(&mut out).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn what_is_kept_of_a_whole_text_is_bounded() {
        let (mut decoder, mut out) = (Decoder::new(Chat::new("x")), Out::new());
        let e = (0..=MAX_EVENT >> 20).find_map(|_| decoder.feed(&[b'['; 1 << 20], &mut out).err());
        assert_eq!(e.unwrap().kind(), ErrorKind::Corrupt);
    }
}
