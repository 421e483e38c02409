//! Words of a text: where they stand, how they begin, and a stem to compare them by.
//!
//! A stem is the 64-bit hash of a lightly stemmed, lower-cased word, so that thousands of schema words can be compared
//! with a question without allocating. English endings only; words of other languages are compared whole.

use std::{collections::HashSet, sync::OnceLock};

/// Hash of a stemmed word.
pub(super) type Stem = u64;

/// Text beyond this many bytes is not analysed.
pub(super) const MAX_TEXT: usize = 16 * 1024;
/// Words beyond this many are not analysed.
const MAX_TOKENS: usize = 3_000;

/// A word or a punctuation mark of a [`Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Byte range in the text.
    pub(super) start: usize,
    /// End of the byte range.
    pub(super) end: usize,
    /// The mark, if it is not a word.
    pub(super) mark: Option<char>,
    /// Stem of a word; 0 for a mark.
    pub(super) stem: Stem,
    /// Carries little meaning of its own.
    pub(super) stop: bool,
    /// Begins with a capital letter.
    pub(super) capital: bool,
    /// Holds a digit.
    pub(super) digit: bool,
}

/// A text and its tokens.
#[derive(Debug)]
pub(super) struct Text<'a> {
    /// All of it.
    pub(super) full: &'a str,
    /// In order.
    pub(super) tokens: Vec<Token>,
}

impl<'a> Text<'a> {
    /// Splits `full`.
    pub(super) fn new(full: &'a str) -> Self {
        Self { full, tokens: tokens(cut(full, MAX_TEXT)) }
    }

    /// The text of token `i`.
    pub(super) fn word(&self, i: usize) -> &'a str {
        self.tokens.get(i).and_then(|t| self.full.get(t.start..t.end)).unwrap_or("")
    }

    /// The text from token `from` up to, not including, token `to`.
    pub(super) fn span(&self, from: usize, to: usize) -> &'a str {
        let Some(first) = self.tokens.get(from) else { return "" };
        let Some(last) = to.checked_sub(1).and_then(|i| self.tokens.get(i)) else { return "" };
        self.full.get(first.start..last.end).unwrap_or("")
    }

    /// The text from token `from` to the very end.
    pub(super) fn rest(&self, from: usize) -> &'a str {
        self.tokens.get(from).and_then(|t| self.full.get(t.start..)).unwrap_or("").trim()
    }

    /// Is token `i` this word, whatever its case?
    pub(super) fn is(&self, i: usize, word: &str) -> bool {
        self.word(i).eq_ignore_ascii_case(word)
    }

    /// Is token `i` one of these words?
    pub(super) fn any(&self, i: usize, words: &[&str]) -> bool {
        let word = self.word(i);
        !word.is_empty() && words.iter().any(|w| word.eq_ignore_ascii_case(w))
    }

    /// Is token `i` this mark?
    pub(super) fn mark(&self, i: usize, mark: char) -> bool {
        self.tokens.get(i).is_some_and(|t| t.mark == Some(mark))
    }

    /// Stem of token `i`, 0 past the end.
    pub(super) fn stem(&self, i: usize) -> Stem {
        self.tokens.get(i).map_or(0, |t| t.stem)
    }

    /// Does a sentence end at token `i`?
    pub(super) fn ends_sentence(&self, i: usize) -> bool {
        self.tokens.get(i).is_none_or(|t| matches!(t.mark, Some('.' | '!' | '?' | ';' | '\n')))
    }
}

/// The first `max` bytes, cut at a character.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().take(4).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    let mut chars = text.char_indices().peekable();
    let mut depth = 0u32;
    while let Some((start, c)) = chars.next() {
        if out.len() >= MAX_TOKENS {
            break;
        }
        let next = chars.peek().map(|&(_, c)| c);
        let signed = matches!(c, '-' | '+' | '−')
            && next.is_some_and(|n| n.is_ascii_digit())
            && out
                .last()
                .is_none_or(|t| t.end < start || matches!(t.mark, Some('(' | '[' | '{' | ',' | '=' | '$')));
        if !(c.is_alphanumeric() || c == '_' || signed) {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if !c.is_whitespace() || c == '\n' {
                out.push(mark(start, start + c.len_utf8(), c));
            }
            continue;
        }
        let mut end = start + c.len_utf8();
        let mut last = c;
        let mut digits = c.is_ascii_digit() || signed;
        let url = text.get(start..).is_some_and(is_url);
        while let Some(&(at, c)) = chars.peek() {
            let mut ahead = chars.clone();
            ahead.next();
            let after = ahead.next().map(|(_, c)| c);
            let joins = |c: char| c.is_alphanumeric() || c == '_';
            let inside = if url {
                let closes = matches!(c, '"' | '\'' | '<' | '>' | ')' | ']' | '}' | ',');
                let ends = matches!(c, '.' | '?' | '!' | ';' | ':') && after.is_none_or(char::is_whitespace);
                !(c.is_whitespace() || closes || ends)
            } else {
                match c {
                    c if joins(c) => true,
                    '-' | '.' | '/' | '@' | '&' | '^' | '*' | '\'' | '’' => after.is_some_and(joins),
                    // Times, not `id:3`.
                    ':' => last.is_ascii_digit() && after.is_some_and(|a| a.is_ascii_digit()),
                    '+' => after.is_some_and(joins) && !text.get(start..at).is_some_and(|w| w.contains(' ')),
                    // A thousands separator, unless in a list of numbers.
                    ',' => depth == 0 && digits && last.is_ascii_digit() && is_group(text.get(at + 1..)),
                    _ => false,
                }
            };
            if !inside {
                break;
            }
            digits &= c.is_ascii_digit() || matches!(c, ',' | '.');
            last = c;
            end = at + c.len_utf8();
            chars.next();
        }
        out.push(word(text, start, end));
    }
    out
}

fn is_url(rest: &str) -> bool {
    let head: String = rest.chars().take(8).collect::<String>().to_ascii_lowercase();
    head.starts_with("http://")
        || head.starts_with("https://")
        || head.starts_with("www.")
        || head.starts_with("ftp://")
}

/// Three digits and then no further digit: what follows a thousands separator.
fn is_group(rest: Option<&str>) -> bool {
    let mut bytes = rest.unwrap_or("").bytes();
    bytes.by_ref().take(3).filter(u8::is_ascii_digit).count() == 3
        && !bytes.next().is_some_and(|b| b.is_ascii_digit())
}

fn mark(start: usize, end: usize, c: char) -> Token {
    Token { start, end, mark: Some(c), stem: 0, stop: true, capital: false, digit: false }
}

fn word(text: &str, start: usize, end: usize) -> Token {
    let word = text.get(start..end).unwrap_or("");
    let stem = stem(word);
    Token {
        start,
        end,
        mark: None,
        stem,
        stop: is_stop(stem),
        capital: word.starts_with(char::is_uppercase),
        digit: word.bytes().any(|b| b.is_ascii_digit()),
    }
}

/// The stem of one word.
pub(super) fn stem(word: &str) -> Stem {
    let mut buffer = [0u8; 32];
    if word.len() > buffer.len() || !word.is_ascii() {
        return hash(word.to_lowercase().as_bytes());
    }
    for (to, from) in buffer.iter_mut().zip(word.bytes()) {
        *to = from.to_ascii_lowercase();
    }
    let short = shorten(buffer.get(..word.len()).unwrap_or(&[]));
    // "city" and "cities" meet at "citi".
    match short {
        [head @ .., b'y'] if head.len() >= 3 => hash_on(hash_all(head), b'i'),
        _ => hash(short),
    }
}

/// FNV-1a; the low bit is set so that no stem is 0, which stands for "no word".
fn hash(bytes: &[u8]) -> Stem {
    hash_all(bytes) | 1
}

fn hash_all(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

fn hash_on(so_far: u64, byte: u8) -> Stem {
    (so_far ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) | 1
}

/// Takes English endings off. Wrong linguistically now and then, but the same for both sides of a comparison.
fn shorten(mut w: &[u8]) -> &[u8] {
    let strip = |w: &mut &[u8], end: &[u8], min: usize| match w.strip_suffix(end) {
        Some(head) if head.len() >= min => {
            *w = head;
            true
        }
        _ => false,
    };
    strip(&mut w, b"'s", 1);
    for (plural, one) in
        [(&b"children"[..], &b"child"[..]), (b"people", b"person"), (b"men", b"man"), (b"women", b"woman")]
    {
        if w == plural {
            return one;
        }
    }
    if w.iter().any(|b| !b.is_ascii_alphabetic()) {
        return w;
    }
    let ies = w.ends_with(b"ies") && w.len() > 4;
    if ies || [&b"sses"[..], b"ches", b"shes", b"xes", b"zes"].iter().any(|e| w.ends_with(e)) {
        strip(&mut w, b"es", 2);
    } else if !(w.ends_with(b"ss") || w.ends_with(b"us") || w.ends_with(b"is")) {
        strip(&mut w, b"s", 3);
    }
    if strip(&mut w, b"ing", 3) || strip(&mut w, b"ed", 3) {
        undouble(&mut w);
    }
    strip(&mut w, b"ly", 3);
    if w.len() > 6 && (w.ends_with(b"tion") || w.ends_with(b"sion")) {
        strip(&mut w, b"ion", 3);
    }
    if w.len() > 5 && w.ends_with(b"tor") {
        strip(&mut w, b"or", 3);
    }
    if w.len() > 5 && strip(&mut w, b"er", 3) {
        undouble(&mut w);
    }
    strip(&mut w, b"e", 3);
    w
}

fn undouble(w: &mut &[u8]) {
    if let [head @ .., a, b] = *w
        && a == b
        && !matches!(a, b'l' | b's' | b'z' | b'e' | b'o')
        && let Some(shorter) = w.get(..head.len() + 1)
    {
        *w = shorter;
    }
}

/// Calls `each` with the words of an identifier or a sentence: `getUserInfo`, `user_id`, `geo.area` are split.
pub(super) fn each_word(text: &str, mut each: impl FnMut(&str)) {
    let mut start = None;
    let mut last = ' ';
    let mut last_at = 0;
    for (at, c) in text.char_indices() {
        if !c.is_alphanumeric() {
            if let Some(from) = start.take() {
                each(text.get(from..at).unwrap_or(""));
            }
        } else if let Some(from) = start {
            let hump = c.is_uppercase() && last.is_lowercase();
            // The last capital of a row begins the next word: `HTTPServer`.
            let tail = c.is_lowercase() && last.is_uppercase() && from < last_at;
            let number = c.is_ascii_digit() != last.is_ascii_digit() && c.is_ascii() && last.is_ascii();
            if hump || number {
                each(text.get(from..at).unwrap_or(""));
                start = Some(at);
            } else if tail && text.get(from..last_at).is_some_and(|w| w.chars().all(char::is_uppercase)) {
                each(text.get(from..last_at).unwrap_or(""));
                start = Some(last_at);
            }
        } else {
            start = Some(at);
        }
        (last, last_at) = (c, at);
    }
    if let Some(from) = start {
        each(text.get(from..).unwrap_or(""));
    }
}

/// Stems of the words of an identifier or a sentence, at most `max`, without stop words.
pub(super) fn stems(text: &str, max: usize) -> Vec<Stem> {
    let mut out = Vec::new();
    each_word(cut(text, 16 * max), |word| {
        let stem = stem(word);
        if out.len() < max && !is_stop(stem) {
            out.push(stem);
        }
    });
    out
}

/// Is this the stem of a word that says little by itself?
pub(super) fn is_stop(stem: Stem) -> bool {
    static STOPS: OnceLock<HashSet<Stem>> = OnceLock::new();
    STOPS.get_or_init(|| STOP_WORDS.split_whitespace().map(self::stem).collect()).contains(&stem)
}

/// Is this the stem of a verb or noun that half of all tools have in common (*get*, *find*, *data*)?
pub(super) fn is_generic(stem: Stem) -> bool {
    static GENERIC: OnceLock<HashSet<Stem>> = OnceLock::new();
    GENERIC.get_or_init(|| GENERIC_WORDS.split_whitespace().map(self::stem).collect()).contains(&stem)
}

const STOP_WORDS: &str = "a an the this that these those and or but nor so if then else of in on at by for from to into \
    onto with without within as is are was were be been being am do does did done doing have has had having will would \
    shall should can could may might must not no yes i me my mine we us our ours you your yours he him his she her hers \
    it its they them their theirs who whom whose which what where when why how there here very too also just only than \
    please thank thanks hello hi hey kindly want wants need needs like would let lets let's i'm i'd i'll i've what's it's \
    that's don't doesn't can't you're tell give me show know some any each every all both more most much many such own \
    same other another about over under between against during before after above below up down out off again once \
    using use used via per e.g i.e etc optional required default defaults value values parameter parameters \
    specified specific specify given such as example format string integer number boolean float list array true false \
    whether indicate indicates one make sure it'd able going get gets got t s d m ll re ve if it's i'm we're help try \
    near nearby around within across along among toward towards until till since upon";

const GENERIC_WORDS: &str = "get find search retrieve fetch look lookup return calculate compute determine check obtain \
    provide display data information info detail details result results function api tool service user name \
    type id list set create add update perform query request current new based certain particular \
    available various related different good best please general item object time date day year today now way thing";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let text = Text::new(text);
        (0..text.tokens.len()).map(|i| text.word(i).to_owned()).collect()
    }

    #[test]
    fn numbers_lists_and_identifiers_stay_whole() {
        assert_eq!(words("pay $10,000.50, now"), ["pay", "$", "10,000.50", ",", "now"]);
        assert_eq!(words("[100,200,-3]"), ["[", "100", ",", "200", ",", "-3", "]"]);
        assert_eq!(words("see https://a.b/c?d=e."), ["see", "https://a.b/c?d=e", "."]);
        assert_eq!(words("gluten-free x^2 a=2 10:30"), ["gluten-free", "x^2", "a", "=", "2", "10:30"]);
    }

    #[test]
    fn related_words_share_a_stem() {
        for (a, b) in [
            ("calculate", "calculator"),
            ("calculation", "calculating"),
            ("movies", "Movie"),
            ("stopped", "stop"),
            ("cities", "city"),
            ("boxes", "box"),
            ("monthly", "month"),
            ("converter", "convert"),
        ] {
            assert_eq!(stem(a), stem(b), "{a} {b}");
        }
        assert_ne!(stem("less"), stem("le"));
    }

    #[test]
    fn identifiers_are_split() {
        let mut out = Vec::new();
        each_word("getUserInfo HTTPServer user_id2 geo.area", |w| out.push(w.to_owned()));
        assert_eq!(out, ["get", "User", "Info", "HTTP", "Server", "user", "id", "2", "geo", "area"]);
    }
}
