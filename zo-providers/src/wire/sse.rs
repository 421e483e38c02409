//! Server-sent events, decoded from bytes that may be cut anywhere.
//!
//! WHATWG HTML, section 9.2.6 ("Interpreting an event stream"), with one leniency: at the end of the bytes an event that
//! lacks its blank line, or even its line end, is still handed over, because many servers hang up without it. Whether such
//! an event is whole is for the codec to judge, since half a JSON text does not parse.
//!
//! `id` and `retry` are ignored: nobody reconnects to a model's answer.

use super::bom::Bom;
use memchr::memchr2;
use std::borrow::Cow;
use zo_traits::{Error, ErrorKind, Result};

/// Longest event, in bytes, that [`Sse::new`] puts up with. Generous, since images travel inside events.
pub const MAX_EVENT: usize = 16 << 20;

/// The decoder. [`feed`](Sse::feed) it, then [`finish`](Sse::finish).
#[derive(Debug)]
pub struct Sse {
    limit: usize,
    /// The line that has begun and not ended.
    line: Vec<u8>,
    /// The data lines of the event that has begun, joined with LF.
    data: Vec<u8>,
    /// One data line was seen, though it may have been empty.
    has_data: bool,
    event: Vec<u8>,
    /// The last byte was CR: a LF that follows belongs to it.
    after_cr: bool,
    bom: Bom,
}

impl Default for Sse {
    fn default() -> Self {
        Self::new()
    }
}

impl Sse {
    /// A decoder for events of at most [`MAX_EVENT`] bytes.
    pub fn new() -> Self {
        Self::with_limit(MAX_EVENT)
    }

    /// A decoder for events (names and data, and any single line) of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            event: Vec::new(),
            after_cr: false,
            bom: Bom::default(),
        }
    }

    /// Takes the next bytes and hands each event that they complete to `sink(name, data)`; the name of an event that has
    /// none is `"message"`. Invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when an event is larger than the limit, and whatever `sink` returns, at once. The decoder is
    /// then of no further use.
    pub fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        let mut rest = self.bom.skip(bytes, &mut self.line);
        loop {
            if self.after_cr {
                match rest {
                    [] => return Ok(()),
                    [b'\n', tail @ ..] => rest = tail,
                    _ => {}
                }
                self.after_cr = false;
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                self.fits(self.line.len() + rest.len())?;
                self.line.extend_from_slice(rest);
                return Ok(());
            };
            let (head, tail) = rest.split_at(end);
            self.after_cr = tail.first() == Some(&b'\r');
            rest = tail.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.fits(head.len())?;
                // The usual event is one data line and a blank one, both here already: handed over without a copy.
                if let (false, false, Some(data), [b'\n', tail @ ..]) =
                    (self.has_data, self.after_cr, head.strip_prefix(b"data:"), rest)
                {
                    rest = tail;
                    let data = data.strip_prefix(b" ").unwrap_or(data);
                    let name = std::mem::take(&mut self.event);
                    emit(&name, data, &mut sink)?;
                    // Keeps the buffer: names repeat.
                    self.event = name;
                    self.event.clear();
                    continue;
                }
                self.line_done(head, &mut sink)?;
            } else {
                self.fits(self.line.len() + head.len())?;
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(head);
                self.line_done(&line, &mut sink)?;
                line.clear();
                self.line = line;
            }
        }
    }

    /// Says that no more bytes will come, and hands over the event that was still open, if it has data.
    ///
    /// # Errors
    /// As [`feed`](Sse::feed).
    pub fn finish(&mut self, mut sink: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        self.bom.none(&mut self.line);
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.line_done(&line, &mut sink)?;
        }
        self.dispatch(&mut sink)
    }

    fn line_done(&mut self, line: &[u8], sink: &mut impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        if line.is_empty() {
            return self.dispatch(sink);
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default()),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.fits(self.data.len() + value.len() + 1)?;
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            // Comments (an empty field name), `id`, `retry` and whatever nobody knows.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, sink: &mut impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        if self.has_data {
            emit(&self.event, &self.data, sink)?;
            self.has_data = false;
            self.data.clear();
        }
        self.event.clear();
        Ok(())
    }

    fn fits(&self, len: usize) -> Result<()> {
        if len <= self.limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            "wire.sse",
            format_args!("an event of the stream is larger than {} bytes", self.limit),
        ))
    }
}

fn emit(name: &[u8], data: &[u8], sink: &mut impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
    let name: Cow<'_, str> =
        if name.is_empty() { Cow::Borrowed("message") } else { String::from_utf8_lossy(name) };
    // Nearly all data is well-formed, and the check for that is much faster than the repair.
    match std::str::from_utf8(data) {
        Ok(data) => sink(&name, data),
        Err(_) => sink(&name, &String::from_utf8_lossy(data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bom::BOM;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut sse = Sse::new();
        let mut out = Vec::new();
        for piece in pieces {
            sse.feed(piece, |n, d| {
                out.push((n.to_owned(), d.to_owned()));
                Ok(())
            })
            .unwrap();
        }
        sse.finish(|n, d| {
            out.push((n.to_owned(), d.to_owned()));
            Ok(())
        })
        .unwrap();
        out
    }

    /// The rules read off the standard, on the whole text at once: what the decoder is held against.
    fn slow(bytes: &[u8]) -> Vec<(String, String)> {
        let text = String::from_utf8_lossy(bytes.strip_prefix(&BOM).unwrap_or(bytes)).into_owned();
        let (mut out, mut data, mut name) = (Vec::new(), Vec::<String>::new(), String::new());
        let lines = text.replace("\r\n", "\n").replace('\r', "\n");
        for line in lines.split('\n').chain([""]) {
            if line.is_empty() {
                if !data.is_empty() {
                    let name = if name.is_empty() { "message".into() } else { name.clone() };
                    out.push((name, data.join("\n")));
                }
                data.clear();
                name.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "data" => data.push(value),
                "event" => name = value,
                _ => {}
            }
        }
        out
    }

    #[test]
    fn a_large_event_is_refused_however_it_comes() {
        for piece in [1usize, 7, 1000] {
            let mut sse = Sse::with_limit(64);
            let text = format!("data: {}\n\n", "x".repeat(100));
            let e = text.as_bytes().chunks(piece).find_map(|c| sse.feed(c, |_, _| Ok(())).err()).unwrap();
            assert_eq!(e.kind(), ErrorKind::Corrupt);
        }
        let mut sse = Sse::with_limit(64);
        let e = (0..100).find_map(|_| sse.feed(b"data: 0123456789\n", |_, _| Ok(())).err());
        assert!(e.is_some(), "many small lines of one event add up");
        let mut sse = Sse::with_limit(64);
        for _ in 0..1000 {
            sse.feed(b": ping\n\ndata: 0123456789\n\n", |_, _| Ok(())).unwrap();
        }
    }

    #[test]
    fn the_name_is_reset_after_every_event() {
        let events = decode(&[b"event: a\ndata: 1\n\ndata: 2\n\nevent: lost\n\ndata: 3\n\n"]);
        let names: Vec<_> = events.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["a", "message", "message"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_in_any_pieces_is_what_the_standard_says(
            tokens in prop::collection::vec(prop::sample::select(vec![
                &b"data"[..], b"event", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"x", b"\xEF\xBB\xBF", b"\xE2\x80\xA8",
                b"\xF0\x9F\x98\x80", b"data: {\"a\":1}\n\n", b"id: 1", b"\0", b"\xFF",
            ]), 0..40),
            cuts in prop::collection::vec(1usize..9, 1..12),
        ) {
            let bytes = tokens.concat();
            let (mut pieces, mut rest, mut i) = (Vec::new(), &bytes[..], 0);
            while !rest.is_empty() {
                let (a, b) = rest.split_at(cuts[i % cuts.len()].min(rest.len()));
                pieces.push(a);
                rest = b;
                i += 1;
            }
            prop_assert_eq!(decode(&pieces), slow(&bytes));
        }
    }
}
