//! The choice of the next token from the scores of all.

use super::gguf::corrupt;
use zo_traits::Result;

/// Chooses tokens. The same seed makes the same choices.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Zero or less: always the best.
    temperature: f32,
    top_p: f32,
    state: u64,
}

impl Sampler {
    pub(super) fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        Self { temperature, top_p, state: seed }
    }

    /// The next token, one of those that `allowed` lets through.
    ///
    /// # Errors
    /// None is left, or the scores are no numbers.
    pub(super) fn pick(&mut self, scores: &[f32], allowed: impl Fn(u32) -> bool) -> Result<u32> {
        let open = (0u32..).zip(scores).filter(|(n, s)| s.is_finite() && allowed(*n)).map(|(n, s)| (n, *s));
        if self.temperature <= 0.0 {
            // The first of equals.
            let best = open.reduce(|a, b| if b.1 > a.1 { b } else { a });
            return best.map(|b| b.0).ok_or_else(none);
        }
        let mut open: Vec<_> = open.collect();
        let best = open.iter().map(|o| o.1).reduce(f32::max).ok_or_else(none)?;
        for (_, score) in &mut open {
            *score = ((*score - best) / self.temperature).exp();
        }
        if self.top_p < 1.0 {
            open.sort_by(|a, b| b.1.total_cmp(&a.1));
            let (all, mut sum) = (open.iter().map(|o| o.1).sum::<f32>(), 0.0);
            let keep = open.iter().take_while(|o| {
                let more = sum < self.top_p * all;
                sum += o.1;
                more
            });
            let keep = keep.count().max(1);
            open.truncate(keep);
        }
        let mut at = self.random() * open.iter().map(|o| o.1).sum::<f32>();
        let hit = open.iter().find(|(_, weight)| {
            at -= weight;
            at < 0.0
        });
        hit.or(open.last()).map(|h| h.0).ok_or_else(none)
    }

    /// Within 0 and 1, 1 excluded: SplitMix64.
    fn random(&mut self) -> f32 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    }
}

fn none() -> zo_traits::Error {
    corrupt("the model gives no next token a score")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_the_best_of_those_allowed() {
        let mut greedy = Sampler::new(0.0, 1.0, 0);
        assert_eq!(greedy.pick(&[1.0, 3.0, f32::NAN, 2.0], |_| true).unwrap(), 1);
        assert_eq!(greedy.pick(&[1.0, 3.0, f32::NAN, 2.0], |n| n != 1).unwrap(), 3);
        assert!(greedy.pick(&[1.0, f32::INFINITY], |n| n == 1).is_err());
        assert!(Sampler::new(1.0, 1.0, 0).pick(&[f32::NAN], |_| true).is_err());
    }

    #[test]
    fn it_chooses_by_weight_and_seed() {
        let scores = [0.0, 2.0f32.ln(), 4.0f32.ln(), -100.0];
        let count = |top_p, seed| {
            let mut sampler = Sampler::new(1.0, top_p, seed);
            let mut counts = [0; 4];
            for _ in 0..7000 {
                counts[sampler.pick(&scores, |_| true).unwrap() as usize] += 1;
            }
            counts
        };
        let counts = count(1.0, 7);
        assert_eq!((counts, counts[3]), (count(1.0, 7), 0));
        assert!((900..1100).contains(&counts[0]) && (3800..4200).contains(&counts[2]), "{counts:?}");
        assert_ne!(counts, count(1.0, 8));
        assert_eq!(count(0.5, 7)[..2], [0, 0], "the best alone is more than half");
        assert_eq!(count(0.8, 7)[0], 0);
    }
}
