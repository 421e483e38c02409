//! Newline-delimited JSON, cut out of bytes that may come in any pieces.
//!
//! A line ends with LF; a CR before it is no part of the line. Blank lines are skipped, a byte order mark at the very start
//! too. At the end of the bytes a last line without LF is handed over as it is: whether it is whole is for the codec to judge,
//! since half a JSON text does not parse.

use super::bom::Bom;
use memchr::memchr;
use zo_traits::{Error, ErrorKind, Result};

/// Longest line, in bytes, that [`Lines::new`] puts up with. Generous, since an answer may come as one line.
pub const MAX_LINE: usize = 16 << 20;

/// The decoder. [`feed`](Lines::feed) it, then [`finish`](Lines::finish).
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    /// The line that has begun and not ended.
    line: Vec<u8>,
    bom: Bom,
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl Lines {
    /// A decoder for lines of at most [`MAX_LINE`] bytes.
    pub fn new() -> Self {
        Self::with_limit(MAX_LINE)
    }

    /// A decoder for lines of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { limit, line: Vec::new(), bom: Bom::default() }
    }

    /// Takes the next bytes and hands each line that they complete to `sink("", line)`; a line has no name. Invalid UTF-8
    /// becomes U+FFFD. A line that came in one piece is not copied.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when a line is longer than the limit, and whatever `sink` returns, at once. The decoder is then
    /// of no further use.
    pub fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        let mut rest = self.bom.skip(bytes, &mut self.line);
        while let Some(end) = memchr(b'\n', rest) {
            let (head, tail) = rest.split_at(end);
            rest = tail.get(1..).unwrap_or_default();
            self.fits(head.len())?;
            if self.line.is_empty() {
                emit(head, &mut sink)?;
            } else {
                self.line.extend_from_slice(head);
                emit(&self.line, &mut sink)?;
                // Keeps the buffer: lines are of a size.
                self.line.clear();
            }
        }
        self.fits(rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// Says that no more bytes will come, and hands over the line that was still open.
    ///
    /// # Errors
    /// As [`feed`](Lines::feed).
    pub fn finish(&mut self, mut sink: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        self.bom.none(&mut self.line);
        emit(&std::mem::take(&mut self.line), &mut sink)
    }

    /// May the open line grow by so much?
    fn fits(&self, more: usize) -> Result<()> {
        if self.line.len().saturating_add(more) <= self.limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            "wire.ndjson",
            format_args!("a line of the stream is longer than {} bytes", self.limit),
        ))
    }
}

fn emit(line: &[u8], sink: &mut impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    sink("", &String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bom::BOM;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]], limit: usize) -> (Vec<String>, bool) {
        let (mut lines, mut out) = (Lines::with_limit(limit), Vec::new());
        let mut sink = |name: &str, line: &str| {
            assert_eq!(name, "");
            out.push(line.to_owned());
            Ok(())
        };
        let whole =
            pieces.iter().try_for_each(|p| lines.feed(p, &mut sink)).and_then(|()| lines.finish(&mut sink));
        (out, whole.is_ok())
    }

    #[test]
    fn lines_end_as_they_like() {
        let (lines, whole) = decode(&[b"\xEF\xBB\xBF{}\r\n\n \t\r\n{\"a\":\"\xE2\x80\xA8\"}\n\r\n[1]"], 99);
        assert_eq!((&*lines, whole), (&["{}".into(), "{\"a\":\"\u{2028}\"}".into(), "[1]".into()][..], true));
        assert_eq!(decode(&[b"\xEF", b"\xBB", b"x\n"], 99).0, ["\u{FFFD}x"], "half a mark is no mark");
        assert_eq!(decode(&[], 99), (vec![], true));
        assert_eq!(decode(&[b"a\rb\n"], 99).0, ["a\rb"], "CR alone ends nothing");
    }

    #[test]
    fn a_line_in_one_piece_is_not_copied() {
        let bytes = b"{\"a\":1}\n{\"b\":2}\n";
        let (mut lines, mut seen) = (Lines::new(), 0);
        lines
            .feed(bytes, |_, line| {
                assert!(bytes.as_ptr_range().contains(&line.as_ptr()));
                seen += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!((seen, lines.line.capacity()), (2, 0));
    }

    #[test]
    fn a_long_line_is_refused_however_it_comes() {
        for piece in [1usize, 7, 1000] {
            let mut lines = Lines::with_limit(64);
            let text = format!("{}\n", "x".repeat(65));
            let e = text.as_bytes().chunks(piece).find_map(|c| lines.feed(c, |_, _| Ok(())).err()).unwrap();
            assert_eq!(e.kind(), ErrorKind::Corrupt);
            assert!(lines.line.len() <= 64);
        }
        let fits = format!("{}\n", "x".repeat(64)).repeat(1000);
        for piece in [1usize, 7, 1000] {
            let pieces: Vec<_> = fits.as_bytes().chunks(piece).collect();
            let (lines, whole) = decode(&pieces, 64);
            assert!(whole && lines.len() == 1000);
        }
    }

    #[test]
    fn what_the_sink_refuses_ends_the_stream() {
        let mut n = 0;
        let e = Lines::new().feed(b"1\n2\n3\n", |_, _| {
            n += 1;
            Err(Error::new(ErrorKind::Invalid, "t", "no"))
        });
        assert_eq!((e.unwrap_err().kind(), n), (ErrorKind::Invalid, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_bytes_in_any_pieces_are_the_same_lines(
            tokens in prop::collection::vec(prop::sample::select(vec![
                &b"{}"[..], b"\n", b"\r", b"\r\n", b" ", b"\xEF\xBB\xBF", b"\xEF", b"\xE2\x80\xA8", b"\xF0\x9F\x98\x80", b"\0", b"\xFF",
            ]), 0..40),
            cuts in prop::collection::vec(1usize..9, 1..12),
            limit in prop::sample::select(vec![3usize, 8, 1 << 20]),
        ) {
            let bytes = tokens.concat();
            let (mut pieces, mut rest, mut i) = (Vec::new(), &bytes[..], 0);
            while !rest.is_empty() {
                let (a, b) = rest.split_at(cuts[i % cuts.len()].min(rest.len()));
                pieces.push(a);
                rest = b;
                i += 1;
            }
            // The rules read off once more, on all bytes at once.
            let text = bytes.strip_prefix(&BOM).unwrap_or(&bytes);
            let raw: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
            let fine = raw.iter().take_while(|l| l.len() <= limit).count();
            let lines: Vec<String> = raw[..fine]
                .iter()
                .map(|l| l.strip_suffix(b"\r").unwrap_or(l))
                .filter(|l| !l.trim_ascii().is_empty())
                .map(|l| String::from_utf8_lossy(l).into_owned())
                .collect();
            prop_assert_eq!(decode(&pieces, limit), (lines, fine == raw.len()));
        }
    }
}
