//! Allowances that children share with their parents, and what was spent on what.

use crate::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

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
    /// Tool calls.
    #[serde(default)]
    pub tool_calls: u64,
    /// Active wall time, in milliseconds: that of models and tools at work, not that of a run which waits for a person.
    /// Children that work at the same time each spend theirs.
    #[serde(default)]
    pub millis: u64,
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

    /// `n` tool calls.
    pub fn tool_calls(n: u64) -> Self {
        Self { tool_calls: n, ..Self::default() }
    }

    /// `n` milliseconds of active wall time.
    pub fn millis(n: u64) -> Self {
        Self { millis: n, ..Self::default() }
    }

    /// Active wall time; a begun millisecond counts.
    pub fn wall(time: Duration) -> Self {
        Self::millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }

    /// Nothing at all?
    pub fn is_zero(self) -> bool {
        self == Self::default()
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

    /// Adds this amount to what was spent on `what`. Beyond [`Budget::MAX_LABELS`] different things it goes to
    /// [`Budget::OTHER`], as it does when `what` is empty; of a long name only the beginning counts.
    pub fn book(self, by: &mut BTreeMap<String, Self>, what: &str) {
        let what = label(what);
        let known = by.contains_key(what);
        let others = by.len() - usize::from(by.contains_key(Budget::OTHER));
        let what =
            if what.is_empty() || (!known && others >= Budget::MAX_LABELS) { Budget::OTHER } else { what };
        match by.get_mut(what) {
            Some(sum) => *sum = sum.plus(self),
            None => drop(by.insert(what.to_owned(), self)),
        }
    }

    fn each(self, o: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            steps: f(self.steps, o.steps),
            tokens: f(self.tokens, o.tokens),
            microusd: f(self.microusd, o.microusd),
            tool_calls: f(self.tool_calls, o.tool_calls),
            millis: f(self.millis, o.millis),
        }
    }

    /// Each kind of thing by its name.
    fn kinds(self) -> [(&'static str, u64); 5] {
        [
            ("steps", self.steps),
            ("tokens", self.tokens),
            ("money", self.microusd),
            ("tool calls", self.tool_calls),
            ("time", self.millis),
        ]
    }

    fn of(self, kind: &str) -> u64 {
        self.kinds().iter().find(|(name, _)| *name == kind).map_or(0, |(_, n)| *n)
    }

    /// Name of the first kind in which `self` exceeds `limit`.
    fn over(self, limit: Self) -> Option<&'static str> {
        self.kinds()
            .iter()
            .zip(limit.kinds())
            .find_map(|((name, have), (_, max))| (*have > max).then_some(*name))
    }
}

/// For people: `3 steps, 1200 tokens, $0.25`.
impl fmt::Display for Spend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (kind, n) in self.kinds().iter().filter(|(_, n)| *n > 0) {
            let comma = if std::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{comma}{}", amount(kind, *n))?;
        }
        if first { f.write_str("nothing") } else { Ok(()) }
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
    /// Most tool calls.
    #[serde(default)]
    pub tool_calls: Option<u64>,
    /// Most active wall time, in milliseconds.
    #[serde(default)]
    pub millis: Option<u64>,
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

    /// Bound the tool calls.
    #[must_use]
    pub fn tool_calls(mut self, n: u64) -> Self {
        self.tool_calls = Some(n);
        self
    }

    /// Bound the active wall time; in whole milliseconds, rounded down.
    #[must_use]
    pub fn wall(mut self, time: Duration) -> Self {
        self.millis = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The narrower of both, kind by kind.
    #[must_use]
    pub fn tightest(self, other: Self) -> Self {
        let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            steps: least(self.steps, other.steps),
            tokens: least(self.tokens, other.tokens),
            microusd: least(self.microusd, other.microusd),
            tool_calls: least(self.tool_calls, other.tool_calls),
            millis: least(self.millis, other.millis),
        }
    }

    fn as_spend(self) -> Spend {
        Spend {
            steps: self.steps.unwrap_or(u64::MAX),
            tokens: self.tokens.unwrap_or(u64::MAX),
            microusd: self.microusd.unwrap_or(u64::MAX),
            tool_calls: self.tool_calls.unwrap_or(u64::MAX),
            millis: self.millis.unwrap_or(u64::MAX),
        }
    }

    fn left(self, spent: Spend) -> Self {
        let left = |limit: Option<u64>, spent: u64| limit.map(|limit| limit.saturating_sub(spent));
        Self {
            steps: left(self.steps, spent.steps),
            tokens: left(self.tokens, spent.tokens),
            microusd: left(self.microusd, spent.microusd),
            tool_calls: left(self.tool_calls, spent.tool_calls),
            millis: left(self.millis, spent.millis),
        }
    }
}

/// Why a [`Budget`] refused: the cause of its error, there for whoever asks with
/// [`source_as`](Error::source_as).
///
/// ```
/// use zo_traits::{Budget, ErrorKind, Limits, Overspent, Spend};
/// let budget = Budget::new(Limits::none().microusd(1_250_000));
/// budget.record_on("model", Spend::microusd(1_000_000));
/// let e = budget.spend_on("search", Spend::microusd(300_000)).unwrap_err();
/// assert_eq!(e.kind(), ErrorKind::Denied);
/// assert_eq!(e.message(), "money limit of $1.25 reached: $1.00 spent, $0.30 more asked; spent on: model $1.00");
/// let why = e.source_as::<Overspent>().unwrap();
/// assert_eq!((why.limit, why.asked.microusd), ("money", 300_000));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overspent {
    /// What ran out: `steps`, `tokens`, `money`, `tool calls` or `time`.
    pub limit: &'static str,
    /// The limits of the allowance that refused: the asked one's or an ancestor's.
    pub limits: Limits,
    /// What was spent of it or reserved.
    pub spent: Spend,
    /// What of it is only set aside, and may come back.
    pub held: Spend,
    /// What was asked for.
    pub asked: Spend,
    /// What it was spent on, the greatest part first.
    pub by: Vec<(String, Spend)>,
}

impl Overspent {
    /// Might it fit once what is set aside has come back?
    pub fn may_pass(&self) -> bool {
        self.spent.minus(self.held).plus(self.asked).over(self.limits.as_spend()).is_none()
    }
}

impl fmt::Display for Overspent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |spend: Spend| amount(self.limit, spend.of(self.limit));
        let (limit, limits) = (self.limit, of(self.limits.as_spend()));
        write!(
            f,
            "{limit} limit of {limits} reached: {} spent, {} more asked",
            of(self.spent),
            of(self.asked)
        )?;
        let mut before = "; spent on: ";
        for (what, spend) in self.by.iter().filter(|(_, s)| s.of(limit) > 0).take(8) {
            write!(f, "{before}{what} {}", of(*spend))?;
            before = ", ";
        }
        Ok(())
    }
}

impl std::error::Error for Overspent {}

/// An amount of one kind, for people.
fn amount(kind: &str, n: u64) -> String {
    match kind {
        "money" => {
            let digits = format!("{:06}", n % 1_000_000);
            let (cents, rest) = digits.split_at(2);
            format!("${}.{cents}{}", n / 1_000_000, rest.trim_end_matches('0'))
        }
        "time" => format!("{:?}", Duration::from_millis(n)),
        _ => format!("{n} {}", if n == 1 { kind.trim_end_matches('s') } else { kind }),
    }
}

/// A label of bounded length.
fn label(what: &str) -> &str {
    let mut end = what.len().min(Budget::MAX_LABEL);
    while !what.is_char_boundary(end) {
        end -= 1;
    }
    what.get(..end).unwrap_or_default()
}

/// A shared allowance. Clones share it; a [`child`](Budget::child) has limits of its own *and* spends from its parent's,
/// so however many children run at once, the parent's limit holds.
///
/// As long as everything goes through [`spend`](Budget::spend) and [`reserve`](Budget::reserve), and nothing settles for
/// more than it reserved, no limit is ever exceeded, not even for a moment; and nothing is refused that would have fitted.
///
/// ```
/// use zo_traits::{Budget, Limits, Spend};
/// let parent = Budget::new(Limits::none().tokens(100));
/// let child = parent.child(Limits::none().tokens(80));
/// child.spend_on("a summary", Spend::tokens(60))?;
/// assert!(child.spend(Spend::tokens(30)).is_err(), "over its own 80");
/// assert!(parent.child(Limits::none()).spend(Spend::tokens(50)).is_err(), "over the parent's 100");
/// assert_eq!(parent.spent().tokens, 60);
/// assert_eq!(parent.breakdown()["a summary"].tokens, 60);
/// assert_eq!(child.remaining().tokens, Some(20));
/// # Ok::<(), zo_traits::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Budget(Arc<Node>);

/// One for each agent, idle ones too: kept small.
#[derive(Debug, Default)]
struct Node {
    limits: Limits,
    state: Mutex<State>,
    parent: Option<Budget>,
}

#[derive(Debug, Default)]
struct State {
    spent: Spend,
    /// What of it is only set aside.
    held: Spend,
    /// What of it was spent on what, by name. What is in none of them was spent on something else.
    by: Vec<(Box<str>, Spend)>,
}

impl State {
    fn add(&mut self, what: &str, amount: Spend) {
        self.spent = self.spent.plus(amount);
        let what = label(what);
        // Without a name, and under that of the rest, it belongs to the rest.
        if what.is_empty() || what == Budget::OTHER || amount.is_zero() {
            return;
        }
        match self.by.binary_search_by(|(name, _)| name.as_ref().cmp(what)) {
            Ok(at) => {
                if let Some((_, sum)) = self.by.get_mut(at) {
                    *sum = sum.plus(amount);
                }
            }
            Err(at) if self.by.len() < Budget::MAX_LABELS => {
                if self.by.len() < 2 {
                    // Most agents spend on one or two things.
                    self.by.reserve_exact(1);
                }
                self.by.insert(at, (what.into(), amount));
            }
            Err(_) => {}
        }
    }

    fn sub(&mut self, what: &str, amount: Spend) {
        self.spent = self.spent.minus(amount);
        let what = label(what);
        if let Ok(at) = self.by.binary_search_by(|(name, _)| name.as_ref().cmp(what))
            && let Some((_, sum)) = self.by.get_mut(at)
        {
            *sum = sum.minus(amount);
        }
    }

    fn breakdown(&self) -> BTreeMap<String, Spend> {
        let mut rest = self.spent;
        let mut by = BTreeMap::new();
        for (what, amount) in self.by.iter().filter(|(_, amount)| !amount.is_zero()) {
            rest = rest.minus(*amount);
            by.insert(what.to_string(), *amount);
        }
        if !rest.is_zero() {
            by.insert(Budget::OTHER.to_owned(), rest);
        }
        by
    }

    fn refusal(&self, limit: &'static str, limits: Limits, asked: Spend) -> Overspent {
        let mut by: Vec<_> = self.breakdown().into_iter().collect();
        by.sort_by_key(|(_, spend)| std::cmp::Reverse(spend.of(limit)));
        Overspent { limit, limits, spent: self.spent, held: self.held, asked, by }
    }
}

impl Budget {
    /// Most things that one allowance tells apart in its [`breakdown`](Budget::breakdown).
    pub const MAX_LABELS: usize = 64;
    /// Most bytes of the name of a thing that was spent on.
    pub const MAX_LABEL: usize = 96;
    /// The name of what was spent without saying on what, or on more things than are told apart.
    pub const OTHER: &'static str = "other";

    /// An allowance with these limits and no parent.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Node { limits, ..Node::default() }))
    }

    /// An allowance inside this one. It can narrow the parent's, never widen it.
    #[must_use]
    pub fn child(&self, limits: Limits) -> Self {
        Self(Arc::new(Node { limits, state: Mutex::default(), parent: Some(self.clone()) }))
    }

    /// This allowance's own limits.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Spent or reserved so far, children included.
    pub fn spent(&self) -> Spend {
        self.lock().spent
    }

    /// What is left under the tightest limit among this allowance and those above it: what a request may ask for at most.
    /// Another's spending may make it less at any time.
    pub fn remaining(&self) -> Limits {
        self.chain().fold(Limits::none(), |least, budget| {
            let left = budget.0.limits.left(budget.spent());
            least.tightest(left)
        })
    }

    /// What was spent or reserved on what, children included: at most [`MAX_LABELS`](Budget::MAX_LABELS) things and
    /// [`OTHER`](Budget::OTHER). The amounts add up to [`spent`](Budget::spent).
    pub fn breakdown(&self) -> BTreeMap<String, Spend> {
        self.lock().breakdown()
    }

    /// Takes `amount` from this allowance and every one above it, or from none.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] with [`Overspent`] as its cause: the first limit that it would exceed, and what was spent on
    /// what.
    pub fn spend(&self, amount: Spend) -> Result<()> {
        self.spend_on("", amount)
    }

    /// [`spend`](Budget::spend) on something, by its name: a model, a tool.
    ///
    /// # Errors
    /// As [`spend`](Budget::spend).
    pub fn spend_on(&self, what: &str, amount: Spend) -> Result<()> {
        self.take(what, amount, false).map_err(refused)
    }

    /// Locks are taken from the child upwards and held until all have agreed. So it is all or nothing for everybody else
    /// too: nobody is refused because of an amount that is about to be refused itself.
    fn take(&self, what: &str, amount: Spend, held: bool) -> Result<(), Box<Overspent>> {
        let mut state = self.lock();
        let limits = self.0.limits;
        if let Some(limit) = state.spent.plus(amount).over(limits.as_spend()) {
            return Err(Box::new(state.refusal(limit, limits, amount)));
        }
        if let Some(parent) = &self.0.parent {
            parent.take(what, amount, held)?;
        }
        state.add(what, amount);
        if held {
            state.held = state.held.plus(amount);
        }
        Ok(())
    }

    /// Records what has already been used, even past a limit: the truth is kept and the next
    /// [`spend`](Budget::spend) is refused.
    pub fn record(&self, amount: Spend) {
        self.record_on("", amount);
    }

    /// [`record`](Budget::record) on something, by its name.
    pub fn record_on(&self, what: &str, amount: Spend) {
        for budget in self.chain() {
            budget.lock().add(what, amount);
        }
    }

    /// [`record_on`](Budget::record_on) for this allowance alone, not for those above it: what they use up by themselves at the
    /// same moment, such as time.
    pub fn record_here(&self, what: &str, amount: Spend) {
        self.lock().add(what, amount);
    }

    /// Sets `amount` aside until the true cost is known. Dropping the reservation gives it back.
    ///
    /// # Errors
    /// As [`spend`](Budget::spend).
    pub fn reserve(&self, amount: Spend) -> Result<Reservation> {
        self.reserve_on("", amount)
    }

    /// [`reserve`](Budget::reserve) for something, by its name.
    ///
    /// # Errors
    /// As [`spend`](Budget::spend).
    pub fn reserve_on(&self, what: &str, amount: Spend) -> Result<Reservation> {
        self.take(what, amount, true).map_err(refused)?;
        Ok(Reservation { budget: self.clone(), what: what.into(), held: amount })
    }

    /// Sets what was spent before a restart, in place of what is known. Those above are left alone: each is restored from
    /// its own record. Amounts of the breakdown beyond `spent` raise it.
    pub fn restore(&self, spent: Spend, breakdown: &BTreeMap<String, Spend>) {
        let mut fresh = State::default();
        for (what, amount) in breakdown {
            fresh.add(what, *amount);
        }
        fresh.spent = fresh.spent.each(spent, u64::max);
        *self.lock() = fresh;
    }

    /// Is anything set aside, here or above, that may come back?
    pub fn is_held(&self) -> bool {
        self.chain().any(|budget| !budget.lock().held.is_zero())
    }

    /// Do both stand for one allowance?
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A handle that does not keep the allowance.
    pub fn downgrade(&self) -> WeakBudget {
        WeakBudget(Arc::downgrade(&self.0))
    }

    /// Replaces what was held by what was used, in one step each.
    fn replace(&self, what: &str, held: Spend, used: Spend) {
        for budget in self.chain() {
            let mut state = budget.lock();
            state.held = state.held.minus(held);
            state.sub(what, held);
            state.add(what, used);
        }
    }

    /// This one and those above it.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |budget| budget.0.parent.as_ref())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(why: Box<Overspent>) -> Error {
    Error::new(ErrorKind::Denied, "budget.spend", &why)
        .with_model_text(format!("the {} budget of this run is used up", why.limit))
        .with_source(*why)
}

/// A [`Budget`] that ends when nobody else holds it.
#[derive(Debug, Clone, Default)]
pub struct WeakBudget(Weak<Node>);

impl WeakBudget {
    /// The allowance, while somebody holds it.
    pub fn upgrade(&self) -> Option<Budget> {
        self.0.upgrade().map(Budget)
    }
}

/// An amount set aside by [`Budget::reserve`].
#[derive(Debug)]
#[must_use = "dropping a reservation gives it back"]
pub struct Reservation {
    budget: Budget,
    what: Box<str>,
    held: Spend,
}

impl Reservation {
    /// The amount that is set aside.
    pub fn held(&self) -> Spend {
        self.held
    }

    /// Replaces the reserved amount by what was really used, even where that is more.
    pub fn settle(mut self, used: Spend) {
        let held = std::mem::take(&mut self.held);
        self.budget.replace(&self.what, held, used);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.held.is_zero() {
            self.budget.replace(&self.what, self.held, Spend::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_agents_allowance_is_small() {
        let counts = 2 * size_of::<usize>();
        assert!(size_of::<Node>() + counts < 240, "{}", size_of::<Node>() + counts);
    }

    #[test]
    fn refused_by_the_parent_leaves_the_child_untouched() {
        let parent = Budget::new(Limits::none().steps(1));
        let child = parent.child(Limits::none().steps(9));
        assert!(child.spend_on("a", Spend::steps(2)).is_err());
        assert_eq!((child.spent().steps, parent.spent().steps), (0, 0));
        assert!(child.breakdown().is_empty() && parent.breakdown().is_empty());
    }

    #[test]
    fn reservation_settles_or_returns() {
        let b = Budget::new(Limits::none().tokens(10));
        drop(b.reserve(Spend::tokens(10)).unwrap());
        assert_eq!(b.spent().tokens, 0);
        b.reserve(Spend::tokens(10)).unwrap().settle(Spend::tokens(12));
        assert_eq!(b.spent().tokens, 12, "the truth is kept even when it is over");
        assert!(b.spend(Spend::tokens(1)).is_err());
        assert!(b.spend(Spend::steps(1)).is_err(), "past one limit nothing more is begun");
    }

    #[test]
    fn every_kind_has_a_limit_that_holds() {
        let one = [
            (Limits::none().steps(5), Spend::steps(5), Spend::steps(1), "steps"),
            (Limits::none().tokens(5), Spend::tokens(5), Spend::tokens(1), "tokens"),
            (Limits::none().microusd(5), Spend::microusd(5), Spend::microusd(1), "money"),
            (Limits::none().tool_calls(5), Spend::tool_calls(5), Spend::tool_calls(1), "tool calls"),
            (Limits::none().wall(Duration::from_millis(5)), Spend::millis(5), Spend::millis(1), "time"),
        ];
        for (limits, most, more, name) in one {
            let b = Budget::new(limits);
            b.spend(most).unwrap();
            assert_eq!(b.remaining().as_spend().of(name), 0);
            let e = b.spend(more).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Denied);
            assert_eq!(e.source_as::<Overspent>().unwrap().limit, name);
            assert_eq!(e.model_text(), format!("the {name} budget of this run is used up"));
            assert_eq!(b.spent(), most);
        }
    }

    #[test]
    fn what_is_left_is_the_tightest_of_the_chain() {
        let top = Budget::new(Limits::none().tokens(100).tool_calls(4));
        let middle = top.child(Limits::none().tokens(90).steps(7));
        let low = middle.child(Limits::none().tokens(95));
        top.spend(Spend::tokens(30)).unwrap();
        low.spend(Spend::tokens(5).plus(Spend::steps(2))).unwrap();
        assert_eq!(low.remaining(), Limits::none().tokens(65).tool_calls(4).steps(5));
        assert_eq!(top.remaining(), Limits::none().tokens(65).tool_calls(4));
        assert_eq!(Budget::new(Limits::none()).remaining(), Limits::none());
    }

    #[test]
    fn the_refusal_says_who_used_it_up() {
        let top = Budget::new(Limits::none().microusd(2_000_000));
        top.child(Limits::none()).record_on("model-b", Spend::microusd(500_001));
        top.child(Limits::none()).record_on("model-a", Spend::microusd(1_400_000).plus(Spend::steps(3)));
        top.record(Spend::microusd(20));
        let e = top.child(Limits::none().steps(1)).spend(Spend::microusd(99_999)).unwrap_err();
        assert_eq!(
            e.message(),
            "money limit of $2.00 reached: $1.900021 spent, $0.099999 more asked; spent on: model-a $1.40, \
             model-b $0.500001, other $0.00002"
        );
        let why = e.source_as::<Overspent>().unwrap();
        assert_eq!(why.by.len(), 3);
        assert_eq!(why.by.iter().fold(Spend::default(), |sum, (_, s)| sum.plus(*s)), why.spent);
        assert_eq!(why.limits, top.limits(), "that of the allowance which refused");
        let slow = Budget::new(Limits::none().wall(Duration::from_millis(1_500)));
        assert_eq!(
            slow.spend(Spend::wall(Duration::from_secs(2))).unwrap_err().message(),
            "time limit of 1.5s reached: 0ns spent, 2s more asked"
        );
    }

    #[test]
    fn labels_are_few_and_short() {
        let b = Budget::new(Limits::none());
        for n in 0..1_000 {
            b.spend_on(&format!("{n}"), Spend::tokens(1)).unwrap();
        }
        b.spend_on(&"é".repeat(10_000), Spend::tokens(7)).unwrap();
        let by = b.breakdown();
        assert_eq!(by.len(), Budget::MAX_LABELS + 1);
        assert_eq!(by[Budget::OTHER].tokens, 1_000 - 64 + 7);
        let long = Budget::new(Limits::none());
        long.spend_on(&"é".repeat(10_000), Spend::tokens(7)).unwrap();
        assert!(long.breakdown().keys().all(|k| k.len() <= Budget::MAX_LABEL && k.ends_with('é')));
    }

    #[test]
    fn a_restart_does_not_refill_it() {
        let before = Budget::new(Limits::none().tokens(10));
        before.spend_on("a", Spend::tokens(6)).unwrap();
        before.spend(Spend::tokens(1)).unwrap();
        let after = Budget::new(Limits::none().tokens(10));
        after.restore(before.spent(), &before.breakdown());
        assert_eq!((after.spent(), after.breakdown()), (before.spent(), before.breakdown()));
        assert!(after.spend(Spend::tokens(4)).is_err());
        after.spend(Spend::tokens(3)).unwrap();
        let parent = Budget::new(Limits::none());
        parent.child(Limits::none()).restore(Spend::tokens(5), &BTreeMap::new());
        assert!(parent.spent().is_zero(), "it has its own record");
    }

    #[test]
    fn booking_into_a_map_is_bounded_as_well() {
        let mut by = BTreeMap::new();
        for n in 0..1_000 {
            Spend::steps(1).book(&mut by, &format!("{n}"));
        }
        Spend::steps(5).book(&mut by, "7");
        Spend::steps(5).book(&mut by, "");
        assert_eq!(by.len(), Budget::MAX_LABELS + 1);
        assert_eq!((by["7"].steps, by[Budget::OTHER].steps), (6, 1_000 - 64 + 5));
    }

    #[test]
    fn a_weak_handle_keeps_nothing() {
        let b = Budget::new(Limits::none());
        let weak = b.downgrade();
        assert!(weak.upgrade().unwrap().is(&b) && !b.child(Limits::none()).is(&b));
        drop(b);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn on_disk_it_looks_like_this_and_older_rows_are_read() {
        let spend = Spend { steps: 1, tokens: 2, microusd: 3, tool_calls: 4, millis: 5 };
        let json = r#"{"steps":1,"tokens":2,"microusd":3,"tool_calls":4,"millis":5}"#;
        assert_eq!(serde_json::to_string(&spend).unwrap(), json);
        assert_eq!(serde_json::from_str::<Spend>(json).unwrap(), spend);
        let old = serde_json::from_str::<Spend>(r#"{"steps":1,"tokens":2,"microusd":3}"#).unwrap();
        assert_eq!(old, Spend { tool_calls: 0, millis: 0, ..spend });
        let limits = Limits::none().steps(1).wall(Duration::from_secs(2));
        let json = r#"{"steps":1,"tokens":null,"microusd":null,"tool_calls":null,"millis":2000}"#;
        assert_eq!(serde_json::to_string(&limits).unwrap(), json);
        assert_eq!(serde_json::from_str::<Limits>(json).unwrap(), limits);
        assert_eq!(serde_json::from_str::<Limits>("{}").unwrap(), Limits::none());
    }
}
