//! Scrubbing what comes in pieces.

use super::Leaks;
use std::{fmt, io};

/// Scrubs bytes that come in pieces: a secret that was cut in two is found all the same. What may be the beginning of a secret
/// is held back until it is seen whether it is one; other bytes pass at once.
///
/// At most 8 times the longest spelling of a secret and 4 KiB are held back; what holds more back than that was made to, and
/// goes on, scrubbed as far as it can be.
///
/// ```
/// use zo_providers::{LeakStream, Leaks, Secret};
/// let leaks = Leaks::default();
/// leaks.add("db", &Secret::new("hunter2-hunter2"))?;
/// let mut stream = LeakStream::new(&leaks);
/// assert_eq!(stream.push(b"password hunter2-hu"), b"password ");
/// assert_eq!(stream.push(b"nter2 ok"), b"[secret db] ok");
/// assert_eq!(stream.finish(), b"");
/// # Ok::<(), zo_traits::Error>(())
/// ```
pub struct LeakStream {
    leaks: Leaks,
    held: Vec<u8>,
}

impl fmt::Debug for LeakStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is held back may be half a secret.
        f.debug_struct("LeakStream").field("leaks", &self.leaks).field("held", &self.held.len()).finish()
    }
}

impl LeakStream {
    /// A stream from which the secrets in `leaks` are taken, those that become known later included.
    pub fn new(leaks: &Leaks) -> Self {
        Self { leaks: leaks.clone(), held: Vec::new() }
    }

    /// Takes the next piece and returns what can be said of it by now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let index = self.leaks.index();
        let (mut found, mut open) = index.finder.all(&self.held);
        if self.held.len() - open.min(self.held.len()) > index.finder.longest() * 8 + 4096 {
            open = self.held.len();
        }
        // A secret that ends in what is held back may turn out to be a longer one.
        let all = found.len();
        while let Some(last) = found.last().filter(|f| f.end > open) {
            open = open.min(last.start);
            found.pop();
        }
        if found.len() < all && self.held.len() - open > index.finder.longest() * 8 + 4096 {
            // Secrets without end, each overlapping the next.
            (found, _) = index.finder.all(&self.held);
            open = found.last().map_or(open, |f| f.end);
        }
        let rest = self.held.split_off(open.min(self.held.len()));
        let out = std::mem::replace(&mut self.held, rest);
        if found.is_empty() { out } else { index.replace(&out, &found) }
    }

    /// The end of the bytes: what was held back, scrubbed.
    pub fn finish(self) -> Vec<u8> {
        let held = self.leaks.scrub_bytes(&self.held);
        held.into_owned()
    }
}

/// A writer for logs and the like: what is written through it holds no known secret.
///
/// `flush` does not give out what is held back as the possible beginning of a secret: it comes with the next bytes, or when
/// this is dropped or [finished](Scrubbed::finish).
pub struct Scrubbed<W: io::Write> {
    stream: LeakStream,
    /// `None` once it was finished.
    inner: Option<W>,
}

impl<W: io::Write> fmt::Debug for Scrubbed<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubbed").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<W: io::Write> Scrubbed<W> {
    /// Writes to `inner` what is left after scrubbing.
    pub fn new(leaks: &Leaks, inner: W) -> Self {
        Self { stream: LeakStream::new(leaks), inner: Some(inner) }
    }

    /// Writes what was held back and gives the inner writer back.
    ///
    /// # Errors
    /// What the inner writer reports.
    pub fn finish(mut self) -> io::Result<W> {
        self.rest()?;
        self.inner.take().ok_or_else(|| io::Error::other("finished before"))
    }

    fn rest(&mut self) -> io::Result<()> {
        let empty = LeakStream::new(&self.stream.leaks);
        let rest = std::mem::replace(&mut self.stream, empty).finish();
        match &mut self.inner {
            Some(inner) => inner.write_all(&rest).and_then(|()| inner.flush()),
            None => Ok(()),
        }
    }
}

impl<W: io::Write> io::Write for Scrubbed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let out = self.stream.push(bytes);
        match &mut self.inner {
            Some(inner) => inner.write_all(&out)?,
            None => return Err(io::Error::other("finished before")),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.as_mut().map_or(Ok(()), io::Write::flush)
    }
}

impl<W: io::Write> Drop for Scrubbed<W> {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.rest();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Secret;
    use std::io::Write as _;

    fn leaks(keys: &[&str]) -> Leaks {
        let leaks = Leaks::default();
        for key in keys {
            leaks.add(key.get(..1).unwrap(), &Secret::new(*key)).unwrap();
        }
        leaks
    }

    #[test]
    fn little_is_held_back() {
        let leaks = leaks(&["sk-canary-1", "sk-canary-1-and-more"]);
        let mut stream = LeakStream::new(&leaks);
        assert_eq!(stream.push(b"hello, "), b"hello, ");
        assert_eq!(stream.push(b"sk-canary-1"), b"", "it may be the longer one");
        assert_eq!(stream.push(b"-and"), b"");
        assert_eq!(stream.push(b", "), b"[secret s]-and, ");
        assert_eq!(stream.push(b"sk-can"), b"");
        assert_eq!(stream.finish(), b"sk-can");
    }

    #[test]
    fn what_is_held_back_has_a_bound() {
        let leaks = leaks(&["aaaaaaaa"]);
        let mut stream = LeakStream::new(&leaks);
        let (mut most, mut out) = (0, Vec::new());
        for _ in 0..2_000 {
            out.extend(stream.push(b"aaaaaaaaaaaaaaaa"));
            most = most.max(stream.held.len());
        }
        out.extend(stream.finish());
        assert!(most <= 8 * 16 + 4096 + 16, "{most}");
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains("aaaaaaaa") && out.contains("[secret a]"));
    }

    #[test]
    fn a_writer_keeps_the_end_until_it_is_dropped() {
        let leaks = leaks(&["sk-canary-1"]);
        let mut out = Vec::new();
        let mut writer = Scrubbed::new(&leaks, &mut out);
        write!(writer, "key sk-cana").unwrap();
        writer.flush().unwrap();
        write!(writer, "ry-1, and sk-").unwrap();
        drop(writer);
        assert_eq!(out, b"key [secret s], and sk-");
        let mut writer = Scrubbed::new(&leaks, Vec::new());
        writer.write_all(b"sk-canary").unwrap();
        assert!(!format!("{writer:?}").contains("canary"));
        assert_eq!(writer.finish().unwrap(), b"sk-canary");
    }
}
