//! The sentences that say most of a text, chosen without a model.
//!
//! A sentence counts for the words that the texts keep coming back to and for what cannot be guessed: numbers, names, paths,
//! ids. It counts less the more of it was chosen already. Nothing here knows a language: words and their terms are those of
//! [`text`](crate::text), sentences end at line ends and at the full stops of any script.
//!
//! Deterministic, and bounded for hostile input: at most [`MAX_SENTENCES`] sentences are looked at, each up to
//! [`MAX_SENTENCE`] bytes.

use crate::text::{hash, query_terms};
use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
};

/// Most sentences that are looked at: of more, those at the end.
pub const MAX_SENTENCES: usize = 8_192;
/// Most bytes of a sentence that is chosen.
pub const MAX_SENTENCE: usize = 400;
/// Terms of a sentence that count.
const MAX_TERMS: usize = 64;
/// What a fact adds to a sentence, in shares of its words' weight, for the first few facts.
const FACT: f64 = 0.35;
const MAX_FACTS: u32 = 4;
/// A sentence without facts that scores less than this share of the best says too little to be kept, however much room
/// there is.
const FLOOR: f64 = 0.15;
/// Bytes that every sentence is taken to be longer by, so that an "Ok." is not the densest of all.
const SHORT: usize = 20;

/// A sentence of one of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extract<'t> {
    /// Which text it is of.
    pub text: usize,
    /// The sentence, without space around it; the beginning of it if it is longer than [`MAX_SENTENCE`].
    pub sentence: &'t str,
}

/// The sentences of `texts` that say most, in the order in which they stand there, at most `max_bytes` of them together.
/// Repetitions are left out.
///
/// ```
/// use zo_memory::summary::extract;
/// let texts = ["Sure! Happy to help. The flight LH 454 leaves on 12 May at 10:05 from gate B42.", "Great. Anything else?"];
/// let said: Vec<&str> = extract(&texts, 80).iter().map(|e| e.sentence).collect();
/// assert_eq!(said, ["The flight LH 454 leaves on 12 May at 10:05 from gate B42."]);
/// ```
pub fn extract<'t>(texts: &[&'t str], max_bytes: usize) -> Vec<Extract<'t>> {
    let sentences = sentences(texts, max_bytes);
    let mut frequency: HashMap<u64, u32> = HashMap::new();
    for term in sentences.iter().flat_map(|s| &s.terms) {
        *frequency.entry(*term).or_default() += 1;
    }
    // How often a term was chosen already.
    let mut chosen: HashMap<u64, u32> = HashMap::new();
    let mut heap: BinaryHeap<Candidate> = sentences
        .iter()
        .enumerate()
        .map(|(at, s)| Candidate { score: s.score(&frequency, &chosen), at, round: 0 })
        .collect();
    let floor = heap.peek().map_or(0.0, |best| best.score * FLOOR);
    let (mut picked, mut left, mut round) = (Vec::new(), max_bytes, 0u32);
    // A score only falls as more is chosen, so the best is found by looking again at the top alone.
    while let Some(mut top) = heap.pop() {
        let Some(sentence) = sentences.get(top.at) else { continue };
        if sentence.text.len() > left || top.score <= 0.0 || (sentence.facts == 0 && top.score <= floor) {
            continue;
        }
        if top.round < round {
            top.score = sentence.score(&frequency, &chosen);
            top.round = round;
            heap.push(top);
            continue;
        }
        left -= sentence.text.len();
        round += 1;
        for term in &sentence.terms {
            *chosen.entry(*term).or_default() += 1;
        }
        picked.push(top.at);
    }
    picked.sort_unstable();
    picked
        .iter()
        .filter_map(|at| sentences.get(*at))
        .map(|s| Extract { text: s.of, sentence: s.text })
        .collect()
}

struct Sentence<'t> {
    of: usize,
    text: &'t str,
    /// Hashes of its terms, each once, sorted.
    terms: Vec<u64>,
    facts: u32,
}

impl Sentence<'_> {
    /// The weight of its words by the square root of its length, so that neither a long nor a short one wins by that.
    fn score(&self, frequency: &HashMap<u64, u32>, chosen: &HashMap<u64, u32>) -> f64 {
        let weight: f64 = self
            .terms
            .iter()
            .map(|t| {
                let n = frequency.get(t).copied().unwrap_or(1);
                (1.0 + f64::from(n)).ln() / f64::from(1 + 3 * chosen.get(t).copied().unwrap_or(0))
            })
            .sum();
        weight / ((self.text.len() + SHORT) as f64).sqrt()
            * (1.0 + FACT * f64::from(self.facts.min(MAX_FACTS)))
    }
}

struct Candidate {
    score: f64,
    at: usize,
    /// When the score was taken.
    round: u32,
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Candidate {
    // Of two that are as good the earlier one.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.at.cmp(&self.at))
    }
}

/// The sentences that are looked at, in order.
fn sentences<'t>(texts: &[&'t str], max_bytes: usize) -> Vec<Sentence<'t>> {
    let mut all = Vec::new();
    let mut seen: HashMap<u64, ()> = HashMap::new();
    // From the end, so that of too many the late ones are there.
    'texts: for (of, text) in texts.iter().enumerate().rev() {
        for sentence in split(text).rev() {
            let sentence = cut(sentence, MAX_SENTENCE.min(max_bytes));
            // The very same again says nothing: rows of a log, a quoted mail.
            if sentence.is_empty() || seen.insert(hash(sentence.as_bytes()), ()).is_some() {
                continue;
            }
            let terms = query_terms(sentence, MAX_TERMS);
            let mut terms: Vec<u64> = terms.iter().map(|term| hash(term.as_bytes())).collect();
            terms.sort_unstable();
            terms.dedup();
            all.push(Sentence { of, text: sentence, terms, facts: facts(sentence) });
            if all.len() >= MAX_SENTENCES {
                break 'texts;
            }
        }
    }
    all.reverse();
    all
}

/// The sentences of a text, without space around them; empty ones too.
fn split(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    let mut ends = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        let end = match c {
            '\n' | '\r' => true,
            '.' | '!' | '?' | '…' | '؟' | '۔' | '।' | '॥' | '።' => {
                next.is_none_or(char::is_whitespace)
            }
            '。' | '！' | '？' | '｡' => true,
            _ => false,
        };
        if end {
            ends.push(at + c.len_utf8());
        }
    }
    ends.push(text.len());
    let mut start = 0;
    let pieces: Vec<&str> = ends
        .into_iter()
        .map(|end| {
            let piece = text.get(start..end).unwrap_or_default().trim();
            start = end;
            piece
        })
        .collect();
    pieces.into_iter()
}

/// How many words of a sentence cannot be guessed: with a digit, with a sign inside (a path, an address, an id), or a name.
fn facts(sentence: &str) -> u32 {
    let mut facts = 0;
    for (at, word) in sentence.split_whitespace().enumerate() {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        let upper = || word.chars().next().is_some_and(char::is_uppercase);
        let inside = || word.contains(['/', '\\', '@', '_', ':', '=', '#', '-', '.']);
        if word.chars().any(char::is_numeric) || inside() || (at > 0 && upper()) {
            facts += 1;
        }
    }
    facts
}

/// At most `max` bytes of the beginning, at a character boundary.
fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.get(..end).unwrap_or_default().trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said<'t>(texts: &[&'t str], max: usize) -> Vec<&'t str> {
        extract(texts, max).iter().map(|e| e.sentence).collect()
    }

    #[test]
    fn facts_stay_and_chatter_goes() {
        let texts = [
            "Sure thing! Let me have a look. I found it. The invoice 2024-118 over 1,250.00 EUR is due on 3 March.",
            "No problem at all. You are welcome. Ok. The backup is at /var/backups/db-7.tar.gz on host Ada.",
        ];
        assert_eq!(
            said(&texts, 150),
            [
                "The invoice 2024-118 over 1,250.00 EUR is due on 3 March.",
                "The backup is at /var/backups/db-7.tar.gz on host Ada."
            ]
        );
    }

    #[test]
    fn any_script_has_sentences() {
        let texts = [
            "会议定于2025年5月12日在东京举行。好的。谢谢！",
            "मीटिंग 12 मई को है। ठीक है।",
            "الاجتماع في 12 مايو. شكرا؟",
        ];
        let got = extract(&texts, 120);
        assert!(
            got.iter().any(|e| e.text == 0 && e.sentence == "会议定于2025年5月12日在东京举行。"),
            "{got:?}"
        );
        assert!(got.iter().any(|e| e.sentence.contains("12")), "{got:?}");
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let line = "The server is down since 10:05.";
        let texts = vec![line; 500];
        assert_eq!(said(&texts, 10_000), [line]);
        // And what says nearly the same comes after what says something else.
        let texts = ["Berlin has 3 offices.", "Berlin has 3 offices now.", "Paris has 2 labs."];
        let got = said(&texts, 45);
        assert!(got.contains(&"Paris has 2 labs.") && got.len() == 2, "{got:?}");
    }

    #[test]
    fn a_sentence_ends_where_a_number_or_a_path_does_not() {
        let got: Vec<_> =
            split("Pi is 3.14. See a.b/c.rs? Yes!Well…\nno end").filter(|s| !s.is_empty()).collect();
        assert_eq!(got, ["Pi is 3.14.", "See a.b/c.rs?", "Yes!Well…", "no end"]);
    }

    #[test]
    fn hostile_texts_cost_little() {
        let endless = "x".repeat(4 << 20);
        let short = "a.\n".repeat(1 << 20);
        let many = (0..200_000)
            .map(|i| format!("w{i} w{} q{}.", i * 7 % 1000, i % 13))
            .collect::<Vec<_>>()
            .join(" ");
        let started = std::time::Instant::now();
        let got = extract(&[&endless, &short, &many], 4_000);
        assert!(got.iter().map(|e| e.sentence.len()).sum::<usize>() <= 4_000 && !got.is_empty());
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn bounded_ordered_and_repeatable(texts in prop::collection::vec(any::<String>(), 0..12), max in 0usize..600) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let got = extract(&texts, max);
            prop_assert!(got.iter().map(|e| e.sentence.len()).sum::<usize>() <= max);
            prop_assert!(got.iter().all(|e| texts[e.text].contains(e.sentence) && !e.sentence.is_empty()));
            prop_assert!(got.iter().map(|e| e.text).is_sorted());
            prop_assert_eq!(got, extract(&texts, max));
        }
    }
}
