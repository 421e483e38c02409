//! Finds many words in one pass: the automaton of Aho and Corasick (CACM 18(6), 1975), entered only where a small hash table
//! says that the next eight bytes may begin a word, which in ordinary text is almost never.
//!
//! Time is linear in the text whatever the text and the words are. Memory is about 24 bytes for each byte of the words.

use super::guises::WRAP;
use memchr::{memchr, memchr2, memchr3, memmem};
use zeroize::Zeroize as _;

/// How the bytes of a text are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// As they are.
    Plain,
    /// `%41` is `A` (RFC 3986, section 2.1).
    Percent,
    /// `\u0041` is `A`, `\/` is `/` (RFC 8259, section 7).
    Json,
    /// JSON in a string of JSON, however deep: of an escape the backslashes are doubled each time.
    Nested,
}

/// A word in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Number of the secret that it belongs to.
    pub(super) secret: u32,
}

/// Bytes that the table looks at. No word is shorter.
const HEAD: usize = 8;
/// Most backslashes before one character that are read as one escape: five levels deep.
const RUN: usize = 32;
const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    /// The first child, and the next child of the same parent. [`ROOT`] is none.
    child: u32,
    next: u32,
    /// The longest other word beginning that ends here.
    fail: u32,
    depth: u32,
    /// The longest word that ends here.
    word: u32,
    byte: u8,
}

struct Word {
    len: u32,
    secret: u32,
}

pub(super) struct Finder {
    nodes: Vec<Node>,
    /// The children of the root, by their byte.
    roots: [u32; 256],
    words: Vec<Word>,
    heads: Vec<u64>,
    shift: u32,
    longest: usize,
}

impl Drop for Finder {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.byte.zeroize();
        }
    }
}

impl Finder {
    /// A finder of `words`, each with the number of its secret. Words of less than eight bytes are left out.
    pub(super) fn new(words: &[(impl AsRef<[u8]>, u32)]) -> Self {
        let words = || words.iter().map(|(w, s)| (w.as_ref(), *s)).filter(|(w, _)| w.len() >= HEAD);
        let total: usize = words().map(|(w, _)| w.len()).sum();
        let bits = (words().count().saturating_mul(64)).next_power_of_two().clamp(1 << 12, 1 << 22);
        let root = Node { child: ROOT, next: ROOT, fail: ROOT, depth: 0, word: NONE, byte: 0 };
        let mut this = Self {
            // Made large enough at once: growing would leave copies of secrets behind.
            nodes: Vec::with_capacity(total + 1),
            roots: [ROOT; 256],
            words: Vec::new(),
            heads: vec![0; bits / 64],
            shift: 64 - bits.trailing_zeros(),
            longest: 0,
        };
        this.nodes.push(root);
        for (word, secret) in words() {
            this.insert(word, secret);
        }
        this.link();
        this
    }

    fn node(&self, at: u32) -> Node {
        let lost = Node { child: ROOT, next: ROOT, fail: ROOT, depth: 0, word: NONE, byte: 0 };
        self.nodes.get(at as usize).copied().unwrap_or(lost)
    }

    fn child(&self, of: u32, byte: u8) -> u32 {
        if of == ROOT {
            return self.roots.get(usize::from(byte)).copied().unwrap_or(ROOT);
        }
        let mut at = self.node(of).child;
        while at != ROOT {
            let node = self.node(at);
            if node.byte == byte {
                return at;
            }
            at = node.next;
        }
        ROOT
    }

    fn insert(&mut self, word: &[u8], secret: u32) {
        let mut at = ROOT;
        for byte in word {
            let known = self.child(at, *byte);
            if known != ROOT {
                at = known;
                continue;
            }
            let parent = self.node(at);
            let new = u32::try_from(self.nodes.len()).unwrap_or(NONE);
            self.nodes.push(Node {
                child: ROOT,
                next: parent.child,
                fail: ROOT,
                depth: parent.depth + 1,
                word: NONE,
                byte: *byte,
            });
            if let Some(parent) = self.nodes.get_mut(at as usize) {
                parent.child = new;
            }
            if at == ROOT
                && let Some(slot) = self.roots.get_mut(usize::from(*byte))
            {
                *slot = new;
            }
            at = new;
        }
        let number = u32::try_from(self.words.len()).unwrap_or(NONE);
        if let Some(node) = self.nodes.get_mut(at as usize)
            && node.word == NONE
        {
            node.word = number;
            self.words.push(Word { len: node.depth, secret });
        }
        self.longest = self.longest.max(word.len());
        if let Some(head) = word.first_chunk() {
            let bit = self.bit(*head);
            if let Some(cell) = self.heads.get_mut(bit / 64) {
                *cell |= 1 << (bit % 64);
            }
        }
    }

    /// Level by level: where to go on when the next byte does not fit.
    fn link(&mut self) {
        let mut level: Vec<u32> = self.roots.iter().copied().filter(|n| *n != ROOT).collect();
        while !level.is_empty() {
            let mut below = Vec::new();
            for at in level {
                let parent = self.node(at);
                let mut child = parent.child;
                while child != ROOT {
                    let node = self.node(child);
                    let fail = self.step(parent.fail, node.byte);
                    let inherited = self.node(fail).word;
                    if let Some(node) = self.nodes.get_mut(child as usize) {
                        node.fail = fail;
                        if node.word == NONE {
                            node.word = inherited;
                        }
                    }
                    below.push(child);
                    child = node.next;
                }
            }
            level = below;
        }
    }

    fn step(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            let child = self.child(at, byte);
            if child != ROOT || at == ROOT {
                return child;
            }
            at = self.node(at).fail;
        }
    }

    fn bit(&self, head: [u8; HEAD]) -> usize {
        // Fibonacci hashing: the high bits of a product with 2^64 / phi.
        (u64::from_le_bytes(head).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    fn may_begin(&self, head: [u8; HEAD]) -> bool {
        let bit = self.bit(head);
        self.heads.get(bit / 64).is_some_and(|cell| cell >> (bit % 64) & 1 == 1)
    }

    /// Bytes of the longest word.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// All words in `text` in every view, in order, overlapping ones as one; and from where on more bytes could still make
    /// another.
    pub(super) fn all(&self, text: &[u8]) -> (Vec<Found>, usize) {
        let mut found = Vec::new();
        if self.is_empty() {
            return (found, text.len());
        }
        let mut open = self.scan(text, View::Plain, &mut found);
        for (view, sign) in [(View::Percent, b'%'), (View::Json, b'\\')] {
            if memchr(sign, text).is_some() {
                open = open.min(self.scan(text, view, &mut found));
            }
        }
        if memmem::find(text, b"\\\\").is_some() {
            open = open.min(self.scan(text, View::Nested, &mut found));
        }
        found.sort_unstable_by_key(|f| (f.start, std::cmp::Reverse(f.end)));
        let mut merged: Vec<Found> = Vec::with_capacity(found.len());
        // The one after which the merged piece is called is the longest in it.
        let mut most = 0;
        for f in found {
            match merged.last_mut() {
                Some(last) if f.start < last.end => {
                    if f.end - f.start > most {
                        most = f.end - f.start;
                        last.secret = f.secret;
                    }
                    last.end = last.end.max(f.end);
                }
                _ => {
                    most = f.end - f.start;
                    merged.push(f);
                }
            }
        }
        (merged, open)
    }

    fn scan(&self, text: &[u8], view: View, found: &mut Vec<Found>) -> usize {
        let (mut at, mut state, mut wrap) = (0, ROOT, 0usize);
        // Where each byte of the walk so far began.
        let mut trail: Vec<usize> = Vec::new();
        // The next byte that is not read as it stands.
        let mut special = 0;
        while at < text.len() {
            if state == ROOT {
                trail.clear();
                if special <= at {
                    special = next_special(text, at, view);
                }
                let plain = text.get(at..special).unwrap_or_default();
                let hit = plain
                    .windows(HEAD)
                    .position(|head| head.first_chunk().is_some_and(|head| self.may_begin(*head)));
                at += hit.unwrap_or((plain.len() + 1).saturating_sub(HEAD));
                if at >= text.len() {
                    break;
                }
            }
            let token = token(text, at, view);
            match token.kind {
                Kind::Open => break,
                Kind::Break => wrap += token.len,
                Kind::Bytes(bytes, n) => {
                    let blank = bytes.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
                    if wrap > 0 && blank {
                        wrap += token.len;
                    } else {
                        wrap = 0;
                        for byte in bytes.into_iter().take(n) {
                            trail.push(at);
                            state = self.step(state, byte);
                            self.report(state, &trail, at + token.len, found);
                        }
                    }
                }
            }
            if wrap > WRAP || state == ROOT {
                (state, wrap) = (ROOT, 0);
            }
            at += token.len;
            if trail.len() > 2 * self.longest + 64 {
                let keep = self.node(state).depth as usize;
                trail.drain(..trail.len().saturating_sub(keep));
            }
        }
        let depth = self.node(state).depth as usize;
        let began = trail.len().checked_sub(depth).and_then(|n| trail.get(n)).copied();
        began.unwrap_or(at).min(at)
    }

    /// Notes the longest word that ends in `state`, if one does.
    fn report(&self, state: u32, trail: &[usize], end: usize, found: &mut Vec<Found>) {
        let Some(word) = self.words.get(self.node(state).word as usize) else { return };
        let Some(start) = trail.len().checked_sub(word.len as usize).and_then(|n| trail.get(n)) else {
            return;
        };
        found.push(Found { start: *start, end, secret: word.secret });
    }
}

/// Where the next byte stands that `view` does not read as itself, or the end.
fn next_special(text: &[u8], at: usize, view: View) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let found = match view {
        View::Plain => memchr2(b'\n', b'\r', rest),
        View::Percent => memchr3(b'\n', b'\r', b'%', rest),
        View::Json | View::Nested => memchr3(b'\n', b'\r', b'\\', rest),
    };
    found.map_or(text.len(), |n| at + n)
}

struct Token {
    kind: Kind,
    len: usize,
}

enum Kind {
    Bytes([u8; 4], usize),
    /// The end of a line.
    Break,
    /// An escape whose end has not come.
    Open,
}

/// What stands at `at`, which is within the text.
fn token(text: &[u8], at: usize, view: View) -> Token {
    let rest = text.get(at..).unwrap_or_default();
    let one = |byte: u8, len: usize| {
        let kind = if matches!(byte, b'\n' | b'\r') { Kind::Break } else { Kind::Bytes([byte, 0, 0, 0], 1) };
        Token { kind, len }
    };
    match (view, rest) {
        (View::Percent, [b'%', a, b, ..]) => match (hex(*a), hex(*b)) {
            (Some(a), Some(b)) => one((a << 4 | b) as u8, 3),
            _ => one(b'%', 1),
        },
        (View::Percent, [b'%', a]) if hex(*a).is_some() => Token { kind: Kind::Open, len: 2 },
        (View::Percent, [b'%']) | (View::Json, [b'\\']) => Token { kind: Kind::Open, len: 1 },
        (View::Nested, [b'\\', ..]) => nested(rest),
        (View::Json, [b'\\', b'u', ..]) => unicode(rest),
        (View::Json, [b'\\', escaped, ..]) => match escaped {
            b'n' => one(b'\n', 2),
            b'r' => one(b'\r', 2),
            b't' => one(b'\t', 2),
            b'b' => one(8, 2),
            b'f' => one(12, 2),
            b'"' | b'\\' | b'/' => one(*escaped, 2),
            _ => one(b'\\', 1),
        },
        (_, [byte, ..]) => one(*byte, 1),
        (_, []) => Token { kind: Kind::Open, len: 1 },
    }
}

/// A run of backslashes and what it escapes; two and more before anything else are one.
fn nested(rest: &[u8]) -> Token {
    let run = rest.iter().take(RUN).take_while(|b| **b == b'\\').count();
    let last = rest.get(run.saturating_sub(1)..).unwrap_or_default();
    let token = match last {
        [b'\\'] => Token { kind: Kind::Open, len: 1 },
        [b'\\', b'\\', ..] => Token { kind: Kind::Bytes([b'\\', 0, 0, 0], 1), len: 1 },
        _ => token(last, 0, View::Json),
    };
    Token { len: token.len + run.saturating_sub(1), ..token }
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

/// `\u` and four digits; two of them for what lies beyond the first plane.
fn unicode(rest: &[u8]) -> Token {
    let unit = |from: usize| match rest.get(from..) {
        Some([b'\\', b'u', digits @ ..]) => match digits.get(..4) {
            Some(four) => four.iter().try_fold(0, |sum, d| Some(sum << 4 | hex(*d)?)).ok_or(false),
            None => Err(digits.iter().all(|d| hex(*d).is_some())),
        },
        Some([] | [b'\\']) => Err(true),
        _ => Err(false),
    };
    let literal = Token { kind: Kind::Bytes([b'\\', 0, 0, 0], 1), len: 1 };
    let open = Token { kind: Kind::Open, len: rest.len() };
    let (code, len) = match unit(0) {
        Ok(high @ 0xd800..0xdc00) => match unit(6) {
            Ok(low @ 0xdc00..0xe000) => (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
            Err(true) => return open,
            _ => return literal,
        },
        Ok(code) => (code, 6),
        Err(true) => return open,
        Err(false) => return literal,
    };
    match char::from_u32(code) {
        Some('\n' | '\r') => Token { kind: Kind::Break, len },
        Some(c) => {
            let mut bytes = [0; 4];
            let n = c.encode_utf8(&mut bytes).len();
            Token { kind: Kind::Bytes(bytes, n), len }
        }
        None => literal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(words: &[&str], text: &str) -> Vec<(usize, usize, u32)> {
        let words: Vec<(&str, u32)> = words.iter().zip(0..).map(|(w, n)| (*w, n)).collect();
        Finder::new(&words).all(text.as_bytes()).0.iter().map(|f| (f.start, f.end, f.secret)).collect()
    }

    #[test]
    fn words_that_overlap_or_hold_each_other_are_found() {
        assert_eq!(spans(&["abcdefgh", "cdefghij"], "xabcdefghijx"), [(1, 11, 0)]);
        assert_eq!(spans(&["abcdefgh", "abcdefghij"], "abcdefghij abcdefgh"), [(0, 10, 1), (11, 19, 0)]);
        assert_eq!(spans(&["bcdefghi", "abcdefghx"], "abcdefghi"), [(1, 9, 0)]);
        assert_eq!(spans(&["aaaaaaaa"], &"a".repeat(100)), [(0, 100, 0)]);
        assert_eq!(spans(&["aaaaaaab"], "aaaaaaaaaaaab"), [(5, 13, 0)]);
    }

    #[test]
    fn it_reads_through_line_ends_and_escapes() {
        let key = "sk/\"k€y😀!";
        for text in [
            "sk/\"k\n  €y😀!",
            "sk/\r\n\"k€y😀!",
            "sk%2f%22k%E2%82%acy%f0%9f%98%80!",
            "%73%6B/\"k€y😀%21",
            r#"sk\/\"k€y😀!"#,
            r#"\u0073k/\"k\u20acy\ud83D\uDe00!"#,
            r#"sk/\"k\r\n  €y😀!"#,
        ] {
            let text = format!("<{text}>");
            assert_eq!(spans(&[key], &text), [(1, text.len() - 1, 0)], "{text}");
        }
        for text in [r#"sk/\"k\u20ay😀!"#, "sk%2f%22k%E2%82%aty😀!", "sk/\" k€y😀!"] {
            assert_eq!(spans(&[key], text), [], "{text}");
        }
    }

    #[test]
    fn what_may_go_on_is_told() {
        let finder = Finder::new(&[("abcdefgh", 0)]);
        for (text, open) in [
            ("", 0),
            ("xyz", 3),
            ("xyzabc", 3),
            ("abcdefg\n ", 0),
            ("xx%", 2),
            ("xx%4", 2),
            ("xxab%63%", 2),
            ("xx\\u00", 2),
            ("xx\\ud83d\\", 2),
            ("xx%zz", 5),
            ("abcabcabab", 8),
        ] {
            assert_eq!(finder.all(text.as_bytes()), (vec![], open), "{text}");
        }
    }
}
