//! Characters that came in halves.
//!
//! A server that counts in UTF-16, as those in JavaScript do, may cut a text between the two units of a character, and write
//! each as an escape of its own: `"\ud83c"` in one piece, `"\udf08"` in the next. To a JSON parser either is an error, and the
//! whole answer would be lost. Here each half is marked before the parser sees it, and the marks are joined in what comes out
//! of the codec; a half whose other half never comes is U+FFFD.

use super::parts::Out;
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeMap};
use zo_traits::StreamEvent;

/// A half is marked by a character of the last private plane, where the 2,048 of them fit at its very end. Texts are looked at
/// for marks only after one was set.
const MARKS: u32 = 0x10_F800;
const HIGH: std::ops::RangeInclusive<u16> = 0xD800..=0xDBFF;
const LOW: std::ops::RangeInclusive<u16> = 0xDC00..=0xDFFF;

#[derive(Debug, Default)]
pub(super) struct Halves {
    /// One was marked, ever.
    any: bool,
    /// First halves at the end of what a part has said so far.
    open: BTreeMap<u32, u16>,
}

impl Halves {
    /// The JSON text with a mark in place of the escape of each half that has no other half beside it.
    pub(super) fn mark<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let unit = |at: usize| u16::from_str_radix(text.get(at..at + 6)?.strip_prefix("\\u")?, 16).ok();
        let (mut out, mut done, mut at) = (String::new(), 0, 0);
        while let Some(next) = text.as_bytes().get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
            at += next;
            at += match unit(at) {
                Some(high) if HIGH.contains(&high) && unit(at + 6).is_some_and(|low| LOW.contains(&low)) => {
                    12
                }
                Some(half) if HIGH.contains(&half) || LOW.contains(&half) => {
                    out.push_str(text.get(done..at).unwrap_or_default());
                    out.extend(char::from_u32(MARKS + u32::from(half - HIGH.start())));
                    done = at + 6;
                    6
                }
                Some(_) => 6,
                None => 2,
            };
        }
        if done == 0 {
            return Cow::Borrowed(text);
        }
        self.any = true;
        out.push_str(text.get(done..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// Joins the halves in the events behind the first `known`.
    pub(super) fn join(&mut self, known: usize, out: &mut Out) {
        if !self.any {
            return;
        }
        for event in out.split_off(known.min(out.len())) {
            match event {
                StreamEvent::Delta { index, text } => {
                    let text = self.joined(index, &text);
                    if !text.is_empty() {
                        out.push_back(StreamEvent::Delta { index, text });
                    }
                }
                StreamEvent::PartEnd { index, mut replay } => {
                    if self.open.remove(&index).is_some() {
                        out.push_back(StreamEvent::Delta { index, text: char::REPLACEMENT_CHARACTER.into() });
                    }
                    if let Some(replay) = &mut replay {
                        plain(&mut replay.data);
                    }
                    out.push_back(StreamEvent::PartEnd { index, replay });
                }
                event => out.push_back(event),
            }
        }
    }

    /// What can be said of a part now.
    fn joined(&mut self, index: u32, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut open = self.open.remove(&index);
        for c in text.chars() {
            let half = half(c);
            match (open.take(), half) {
                (Some(high), Some(low)) if LOW.contains(&low) => {
                    out.extend(
                        char::decode_utf16([high, low]).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)),
                    );
                    continue;
                }
                (Some(_), _) => out.push(char::REPLACEMENT_CHARACTER),
                (None, _) => {}
            }
            match half {
                Some(high) if HIGH.contains(&high) => open = Some(high),
                Some(_) => out.push(char::REPLACEMENT_CHARACTER),
                None => out.push(c),
            }
        }
        if let Some(high) = open {
            self.open.insert(index, high);
        }
        out
    }
}

/// The half that a character marks.
fn half(c: char) -> Option<u16> {
    let offset = u32::from(c).checked_sub(MARKS)?;
    u16::try_from(offset).ok().map(|n| HIGH.start() + n)
}

/// Replay data goes back as JSON, which cannot hold a half.
fn plain(value: &mut Value) {
    match value {
        Value::String(text) if text.chars().any(|c| half(c).is_some()) => {
            *text = text
                .chars()
                .map(|c| if half(c).is_some() { char::REPLACEMENT_CHARACTER } else { c })
                .collect();
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(map) => map.values_mut().for_each(plain),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zo_traits::{PartKind, Replay};

    /// What a part says whose pieces are these JSON texts.
    fn said(pieces: &[&str]) -> String {
        let (mut halves, mut out) = (Halves::default(), Out::new());
        out.push_back(StreamEvent::PartStart { index: 0, kind: PartKind::Text });
        for piece in pieces {
            let known = out.len();
            let text: String = serde_json::from_str(&halves.mark(piece)).unwrap();
            out.push_back(StreamEvent::Delta { index: 0, text });
            halves.join(known, &mut out);
        }
        let known = out.len();
        out.push_back(StreamEvent::PartEnd { index: 0, replay: None });
        halves.join(known, &mut out);
        let text =
            |e: &StreamEvent| if let StreamEvent::Delta { text, .. } = e { Some(text.clone()) } else { None };
        out.iter().filter_map(text).collect()
    }

    #[test]
    fn halves_are_joined_and_the_lonely_are_marked() {
        for (pieces, want) in [
            (&[r#""plain \n \" \\ \u00e4 \ud83d\ude00""#][..], "plain \n \" \\ \u{e4} \u{1F600}"),
            (&[r#""a\ud83d""#, r#""\ude00b""#], "a\u{1F600}b"),
            (&[r#""a\ud83d""#, r#""""#, r#""\ude00b""#], "a\u{1F600}b"),
            (&[r#""a\ud83d""#, r#""b""#], "a\u{FFFD}b"),
            (&[r#""a\ud83d""#], "a\u{FFFD}"),
            (&[r#""\uDE00b""#], "\u{FFFD}b"),
            (&[r#""\ud83d\ud83d\ude00\n""#], "\u{FFFD}\u{1F600}\n"),
            (&[r#""\\ud83d""#], "\\ud83d"),
            (&["\"\u{10F83D}\""], "\u{10F83D}"),
        ] {
            assert_eq!(said(pieces), want, "{pieces:?}");
        }
        let mut halves = Halves::default();
        assert!(matches!(halves.mark(r#""\\ \ud83d\ude00""#), Cow::Borrowed(_)));
        assert_eq!(halves.mark(r#""\ud83"#), r#""\ud83"#, "not even JSON");
        assert_eq!(halves.mark("\"\\u\u{e4}\u{e4}\\"), "\"\\u\u{e4}\u{e4}\\");
    }

    #[test]
    fn replay_data_holds_no_mark() {
        let (mut halves, mut out) = (Halves::default(), Out::new());
        let data: Value = serde_json::from_str(&halves.mark(r#"{"a": ["x\ud83d"]}"#)).unwrap();
        out.push_back(StreamEvent::PartEnd { index: 0, replay: Some(Replay::new("t", data)) });
        halves.join(0, &mut out);
        assert!(format!("{out:?}").contains("x\u{FFFD}"), "{out:?}");
    }
}
