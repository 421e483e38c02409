//! Ranking: BM25 over the postings of a scope.
//!
//! Scores are gathered in a window of 65,536 item numbers at a time, so memory does not grow with the scope, and each
//! posting costs one addition. The result is item numbers with scores: what another ranking, by vectors for instance, would
//! give too, to be merged before the items are loaded.

use crate::{
    postings::{self, BLOCK_BITS, POSTINGS},
    scope::ScopeRow,
    text,
    varint::{self, corrupt},
};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
    ops::ControlFlow,
};
use zo_store::{Scan, Snapshot, key::Key};
use zo_traits::{Cx, Result};

/// How soon repetition stops to count, and how much a long text is held against it: the usual values (Robertson and
/// Zaragoza, "The Probabilistic Relevance Framework", 2009, section 3.5).
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// Words of a question that are looked at, and the rarest of them that are looked for.
const MOST_WORDS: usize = 4096;
const MOST_TERMS: usize = 256;

/// Blocks that are scored together.
const WINDOW: u32 = 64;

/// An item and how well it matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Hit {
    pub(crate) number: u64,
    pub(crate) score: f32,
}

impl Eq for Hit {}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Greater is better: the higher score, then the newer item.
impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(self.number.cmp(&other.number))
    }
}

/// The best hits so far.
struct Best {
    limit: usize,
    heap: BinaryHeap<Reverse<Hit>>,
}

impl Best {
    fn offer(&mut self, hit: Hit) {
        if self.heap.len() < self.limit {
            self.heap.push(Reverse(hit));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && worst.0 < hit
        {
            *worst = Reverse(hit);
        }
    }

    /// A score must be above this to matter.
    fn floor(&self) -> f32 {
        match self.heap.peek() {
            Some(Reverse(worst)) if self.heap.len() == self.limit => worst.score,
            _ => 0.0,
        }
    }

    fn into_sorted(self) -> Vec<Hit> {
        let mut hits: Vec<_> = self.heap.into_iter().map(|Reverse(hit)| hit).collect();
        hits.sort_unstable_by(|a, b| b.cmp(a));
        hits
    }
}

struct Term {
    key: Key,
    items: u64,
    /// What one more occurrence is worth at first.
    weight: f32,
}

/// The `limit` best items for `question`, best first. Items without any of its words do not match.
pub(crate) fn search(
    cx: &Cx,
    snapshot: &Snapshot,
    scope: &ScopeRow,
    question: &str,
    limit: usize,
) -> Result<Vec<Hit>> {
    let terms = look_up(snapshot, scope, question)?;
    let mut best = Best { limit, heap: BinaryHeap::new() };
    if terms.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let average = scope.terms as f32 / scope.items.max(1) as f32;
    let (flat, slope) = (K1 * (1.0 - B), K1 * B / average.max(1.0));
    let last_block = postings::block_of(scope.next.saturating_sub(1))?;
    let blocks = last_block.min(WINDOW - 1) + 1;
    let mut scores = vec![0.0f32; (blocks as usize) << BLOCK_BITS];
    for first in (0..=last_block).step_by(WINDOW as usize) {
        cx.check("memory.recall")?;
        let mut touched = 0u64;
        for term in &terms {
            let (start, end) = (
                Key::after(&term.key).u32(first),
                Key::after(&term.key).u32(first.saturating_add(WINDOW - 1)),
            );
            snapshot.scan(POSTINGS, &Scan::range(&start[..]..=&end[..]), |key, value| {
                let block = key.last_chunk().map(|b| u32::from_be_bytes(*b)).unwrap_or_default();
                let at = block.wrapping_sub(first);
                let from = (at as usize) << BLOCK_BITS;
                let scores = scores
                    .get_mut(from..from.saturating_add(1 << BLOCK_BITS))
                    .ok_or_else(|| corrupt("the index"))?;
                touched |= 1 << at;
                postings::entries(value, |entry| {
                    let count = entry.count as f32;
                    let share = count / (count + flat + slope * entry.terms as f32);
                    if let Some(score) = scores.get_mut(entry.offset as usize) {
                        *score += term.weight * share;
                    }
                })?;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        for (at, scores) in (0u32..).zip(scores.chunks_exact_mut(1 << BLOCK_BITS)) {
            if touched & (1 << at) == 0 {
                continue;
            }
            let number = u64::from(first + at) << BLOCK_BITS;
            let mut floor = best.floor();
            for (number, score) in (number..).zip(scores.iter_mut()) {
                // Equal to the worst of the best counts, being newer.
                if *score >= floor && *score > 0.0 {
                    best.offer(Hit { number, score: *score });
                    floor = best.floor();
                }
                *score = 0.0;
            }
        }
    }
    Ok(best.into_sorted())
}

/// The words of the question that the scope knows, with their weights. The order is that of the terms, so that a score is the
/// same sum every time.
fn look_up(snapshot: &Snapshot, scope: &ScopeRow, question: &str) -> Result<Vec<Term>> {
    let mut words: BTreeMap<String, f32> = BTreeMap::new();
    for word in text::query_terms(question, MOST_WORDS) {
        *words.entry(word).or_default() += 1.0;
    }
    let mut terms = Vec::with_capacity(words.len().min(MOST_TERMS));
    for (word, repeats) in words {
        let key = postings::term_key(scope.number, &word);
        let items = snapshot.get_with(POSTINGS, &key, |mut value| varint::take(&mut value))?;
        if let Some(items) = items.filter(|n| *n > 0) {
            terms.push(Term { key, items, weight: repeats * idf(scope.items, items) * (K1 + 1.0) });
        }
    }
    if terms.len() > MOST_TERMS {
        terms.sort_by_key(|term| term.items);
        terms.truncate(MOST_TERMS);
        terms.sort_by(|a, b| a.key.cmp(&b.key));
    }
    Ok(terms)
}

/// How much it says that an item holds a term that `holders` of `items` hold; never negative.
fn idf(items: u64, holders: u64) -> f32 {
    let (items, holders) = (items as f64, holders as f64);
    (1.0 + (items - holders + 0.5).max(0.5) / (holders + 0.5)).ln() as f32
}
