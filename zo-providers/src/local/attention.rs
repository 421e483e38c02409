//! Attention of queries to the keys read so far.
//!
//! Each query is worked out by itself and in one order, so that it comes to the same whether it was read together with others or
//! alone: an answer does not depend on what the cache had already.

use pulp::Arch;
use rayon::prelude::*;

/// Partial sums of a product, for vector registers.
const LANES: usize = 16;

/// Keys and values of one layer: for each head, those of the positions in turn.
#[derive(Debug, Default)]
pub(super) struct Cache {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    head: usize,
}

impl Cache {
    /// For `heads` heads of `head` values each.
    pub(super) fn new(heads: usize, head: usize) -> Self {
        Self { keys: vec![Vec::new(); heads], values: vec![Vec::new(); heads], head }
    }

    /// Puts keys and values (heads by positions by values of a head) behind the first `at` positions.
    pub(super) fn put(&mut self, at: usize, keys: &[f32], values: &[f32]) {
        let each = keys.len() / self.keys.len().max(1);
        let both = [(&mut self.keys, keys), (&mut self.values, values)];
        for (heads, new) in both {
            for (old, new) in heads.iter_mut().zip(new.chunks(each.max(1))) {
                old.truncate(at * self.head);
                old.extend_from_slice(new);
            }
        }
    }

    /// What queries (heads by positions by values of a head), of which the first stands at position `at`, come to: positions by
    /// heads by values of a head. Neighbouring heads share keys.
    pub(super) fn attend(&self, at: usize, queries: &[f32], count: usize) -> Vec<f32> {
        let mut out = vec![0.0; queries.len()];
        let heads = queries.len() / (count * self.head).max(1);
        let sharing = (heads / self.keys.len().max(1)).max(1);
        let (scale, arch) = ((self.head as f32).sqrt().recip(), Arch::new());
        out.par_chunks_mut(self.head).enumerate().for_each(|(n, out)| {
            let (row, head) = (n / heads, n % heads);
            let query = queries.chunks(self.head).nth(head * count + row).unwrap_or_default();
            let seen = (at + row + 1) * self.head;
            let keys = self.keys.get(head / sharing).and_then(|h| h.get(..seen));
            let values = self.values.get(head / sharing).and_then(|h| h.get(..seen));
            if let (Some(keys), Some(values)) = (keys, values) {
                arch.dispatch(
                    #[inline(always)]
                    || one(query, keys, values, scale, out),
                );
            }
        });
        out
    }
}

#[inline(always)]
fn one(query: &[f32], keys: &[f32], values: &[f32], scale: f32, out: &mut [f32]) {
    let mut weights: Vec<f32> = keys.chunks_exact(query.len()).map(|key| dot(query, key) * scale).collect();
    let most = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for weight in &mut weights {
        *weight = (*weight - most).exp();
        sum += *weight;
    }
    for (weight, value) in weights.iter().zip(values.chunks_exact(out.len())) {
        let weight = weight / sum;
        out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_whole, b_whole) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_whole.remainder().iter().zip(b_whole.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_whole.zip(b_whole) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_formula_says() {
        // Two heads share the keys; two positions, the second sees both.
        let mut cache = Cache::new(1, 2);
        cache.put(0, &[1.0, 0.0, 0.0, 1.0], &[1.0, 2.0, 3.0, 4.0]);
        let queries = [1.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0];
        let out = cache.attend(0, &queries, 2);
        assert_eq!(out[..4], [1.0, 2.0, 1.0, 2.0], "the first position sees itself alone");
        let weight =
            |a: f32, b: f32| (a / 2f32.sqrt()).exp() / ((a / 2f32.sqrt()).exp() + (b / 2f32.sqrt()).exp());
        let (x, y) = (weight(2.0, 0.0), weight(0.0, 3.0));
        let exact = [3.0 - 2.0 * x, 4.0 - 2.0 * x, 3.0 - 2.0 * y, 4.0 - 2.0 * y];
        assert!(out[4..].iter().zip(exact).all(|(a, b)| (a - b).abs() < 1e-5), "{out:?} {exact:?}");
    }

    #[test]
    fn alone_or_together_is_the_same() {
        let value = |n: usize| (n as f32 * 0.37).sin();
        let (head, count) = (20, 9);
        let all: Vec<f32> = (0..head * count).map(value).collect();
        let mut cache = Cache::new(1, head);
        cache.put(0, &all, &all);
        let together = cache.attend(0, &all, count);
        for (at, alone) in all.chunks(head).enumerate() {
            cache.put(at, alone, alone);
            assert_eq!(cache.attend(at, alone, 1), together[at * head..][..head]);
        }
    }
}
