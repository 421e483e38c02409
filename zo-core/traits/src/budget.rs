//! Allowances that children share with their parents.

use crate::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An amount of each thing that a run can use up. Fields add up over the whole run, sub-agents included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spend {
    /// Model calls.
    #[serde(default)]
    pub steps: u64,
    /// Prompt and completion tokens together.
    #[serde(default)]
    pub tokens: u64,
    /// Money, in millionths of a US dollar.
    #[serde(default)]
    pub microusd: u64,
}

impl Spend {
    /// `n` model calls.
    pub fn steps(n: u64) -> Self {
        Self { steps: n, ..Self::default() }
    }

    /// `n` tokens.
    pub fn tokens(n: u64) -> Self {
        Self { tokens: n, ..Self::default() }
    }

    /// `n` millionths of a US dollar.
    pub fn microusd(n: u64) -> Self {
        Self { microusd: n, ..Self::default() }
    }

    /// Field-wise sum, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// Field-wise difference, never below zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    fn each(self, o: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            steps: f(self.steps, o.steps),
            tokens: f(self.tokens, o.tokens),
            microusd: f(self.microusd, o.microusd),
        }
    }

    /// Name of the first field in which `self` exceeds `limit`.
    fn over(self, limit: Self) -> Option<&'static str> {
        [
            ("steps", self.steps, limit.steps),
            ("tokens", self.tokens, limit.tokens),
            ("money", self.microusd, limit.microusd),
        ]
        .into_iter()
        .find_map(|(name, have, max)| (have > max).then_some(name))
    }
}

/// Upper bounds; `None` is no bound of its own (a parent's still holds).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Most model calls.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Most tokens, prompt and completion together.
    #[serde(default)]
    pub tokens: Option<u64>,
    /// Most money, in millionths of a US dollar.
    #[serde(default)]
    pub microusd: Option<u64>,
}

impl Limits {
    /// No bound at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Bound the model calls.
    #[must_use]
    pub fn steps(mut self, n: u64) -> Self {
        self.steps = Some(n);
        self
    }

    /// Bound the tokens.
    #[must_use]
    pub fn tokens(mut self, n: u64) -> Self {
        self.tokens = Some(n);
        self
    }

    /// Bound the money, in millionths of a US dollar.
    #[must_use]
    pub fn microusd(mut self, n: u64) -> Self {
        self.microusd = Some(n);
        self
    }

    fn as_spend(self) -> Spend {
        Spend {
            steps: self.steps.unwrap_or(u64::MAX),
            tokens: self.tokens.unwrap_or(u64::MAX),
            microusd: self.microusd.unwrap_or(u64::MAX),
        }
    }
}

/// A shared allowance. Clones share it; a [`child`](Budget::child) has limits of its own *and* spends from its parent's,
/// so however many children run at once, the parent's limit holds.
///
/// ```
/// use zo_traits::{Budget, Limits, Spend};
/// let parent = Budget::new(Limits::none().tokens(100));
/// let child = parent.child(Limits::none().tokens(80));
/// child.spend(Spend::tokens(60))?;
/// assert!(child.spend(Spend::tokens(30)).is_err(), "over its own 80");
/// assert!(parent.child(Limits::none()).spend(Spend::tokens(50)).is_err(), "over the parent's 100");
/// assert_eq!(parent.spent().tokens, 60);
/// # Ok::<(), zo_traits::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Budget(Arc<Node>);

#[derive(Debug, Default)]
struct Node {
    limits: Limits,
    spent: Mutex<Spend>,
    parent: Option<Budget>,
}

impl Budget {
    /// An allowance with these limits and no parent.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Node { limits, ..Node::default() }))
    }

    /// An allowance inside this one. It can narrow the parent's, never widen it.
    #[must_use]
    pub fn child(&self, limits: Limits) -> Self {
        Self(Arc::new(Node { limits, spent: Mutex::default(), parent: Some(self.clone()) }))
    }

    /// This allowance's own limits.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Spent or reserved so far, children included.
    pub fn spent(&self) -> Spend {
        *self.lock()
    }

    /// Takes `amount` from this allowance and every one above it, or from none.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] naming the limit that it would exceed.
    pub fn spend(&self, amount: Spend) -> Result<()> {
        {
            let mut spent = self.lock();
            let after = spent.plus(amount);
            if let Some(name) = after.over(self.0.limits.as_spend()) {
                return Err(Error::new(
                    ErrorKind::Exhausted,
                    "budget.spend",
                    format_args!(
                        "{name} limit reached: {spent:?} spent, {amount:?} asked, {:?}",
                        self.0.limits
                    ),
                )
                .with_model_text(format!("the {name} budget of this run is used up")));
            }
            *spent = after;
        }
        if let Some(parent) = &self.0.parent
            && let Err(e) = parent.spend(amount)
        {
            let mut spent = self.lock();
            *spent = spent.minus(amount);
            return Err(e);
        }
        Ok(())
    }

    /// Records what has already been used, even past a limit: the truth is kept and the next
    /// [`spend`](Budget::spend) is refused.
    pub fn record(&self, amount: Spend) {
        let mut at = Some(self);
        while let Some(budget) = at {
            let mut spent = budget.lock();
            *spent = spent.plus(amount);
            drop(spent);
            at = budget.0.parent.as_ref();
        }
    }

    /// Sets `amount` aside until the true cost is known. Dropping the reservation gives it back.
    ///
    /// # Errors
    /// As [`spend`](Budget::spend).
    pub fn reserve(&self, amount: Spend) -> Result<Reservation> {
        self.spend(amount)?;
        Ok(Reservation { budget: self.clone(), held: amount })
    }

    fn give_back(&self, amount: Spend) {
        let mut at = Some(self);
        while let Some(budget) = at {
            let mut spent = budget.lock();
            *spent = spent.minus(amount);
            drop(spent);
            at = budget.0.parent.as_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spend> {
        self.0.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An amount set aside by [`Budget::reserve`].
#[derive(Debug)]
#[must_use = "dropping a reservation gives it back"]
pub struct Reservation {
    budget: Budget,
    held: Spend,
}

impl Reservation {
    /// Replaces the reserved amount by what was really used, even where that is more.
    pub fn settle(mut self, used: Spend) {
        let held = std::mem::take(&mut self.held);
        self.budget.record(used);
        self.budget.give_back(held);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_children_never_overshoot_the_parent() {
        let parent = Budget::new(Limits::none().tokens(1_000));
        let got: u64 = std::thread::scope(|s| {
            let all: Vec<_> = (0..8)
                .map(|_| {
                    let child = parent.child(Limits::none().tokens(400));
                    s.spawn(move || {
                        (0..1_000).filter(|_| child.spend(Spend::tokens(1)).is_ok()).count() as u64
                    })
                })
                .collect();
            all.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(got, 1_000);
        assert_eq!(parent.spent().tokens, 1_000);
    }

    #[test]
    fn refused_by_the_parent_leaves_the_child_untouched() {
        let parent = Budget::new(Limits::none().steps(1));
        let child = parent.child(Limits::none().steps(9));
        assert!(child.spend(Spend::steps(2)).is_err());
        assert_eq!((child.spent().steps, parent.spent().steps), (0, 0));
    }

    #[test]
    fn reservation_settles_or_returns() {
        let b = Budget::new(Limits::none().tokens(10));
        drop(b.reserve(Spend::tokens(10)).unwrap());
        assert_eq!(b.spent().tokens, 0);
        b.reserve(Spend::tokens(10)).unwrap().settle(Spend::tokens(12));
        assert_eq!(b.spent().tokens, 12, "the truth is kept even when it is over");
        assert!(b.spend(Spend::tokens(1)).is_err());
    }
}
