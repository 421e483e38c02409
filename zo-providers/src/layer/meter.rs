//! One limit of a provider (requests or tokens per time), kept on this side as well as it can be known. Pure: no clock, no
//! lock; `now` is a monotonic time.
//!
//! Providers keep such a limit in one of two ways, and none says which. Some fill up steadily ([`Flow::Steady`]: a token
//! bucket); some give back what was taken when a window ends ([`Flow::Window`]). To take one for the other costs refusals, or
//! minutes. It shows in what they say: with each request more, the reset of a bucket moves into the future, that of a window
//! stands still. Where they say nothing, a bucket is assumed until a refusal asks for a wait that no bucket would ask for.
//!
//! What a provider says is about the moment at which it looked at one request, and nobody knows which of the others that were
//! under way it had counted by then. So it only bounds the level, from below (none of them) and from above (all of them).

use super::headroom::Window;
use std::{collections::VecDeque, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);
/// A bucket that nobody confirms is emptied a little slower than told, so that jitter on the way does not overdraw it.
const CAUTION: f64 = 0.98;
/// What rounding may do to a level.
const DUST: f64 = 1e-6;
/// A window remembers what was taken in steps of so many parts.
const STEPS: u32 = 4096;
/// Lengths that windows have.
const PERIODS: [Duration; 3] = [MINUTE, Duration::from_secs(3600), Duration::from_secs(86_400)];

/// A limit.
#[derive(Debug)]
pub(super) struct Meter {
    /// What the host said it is, per minute.
    set: Option<f64>,
    /// Everything that was ever taken.
    taken: u64,
    /// What of it the provider surely has counted.
    answered: u64,
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    /// Holds only until the provider is known.
    provisional: bool,
    limit: f64,
    level: f64,
    flow: Flow,
    /// Everything that ever came back.
    released: f64,
    /// The newest request whose answer was believed.
    fed: Option<u64>,
    /// What a provider said some time ago, to hold the next against.
    anchor: Option<(Window, Duration)>,
}

#[derive(Debug)]
enum Flow {
    /// Fills up by so much a second; `level` was right at `at`. `from` is how much was used when the rate was learnt.
    Steady { rate: f64, at: Duration, from: f64 },
    /// What is taken comes back `period` later: `(when it does, how much)`, in that order. The level and all of this together
    /// are the limit.
    Window { period: Duration, log: VecDeque<(Duration, f64)> },
}

/// What one request took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    amount: u64,
    /// All that was taken, this included.
    mark: u64,
    /// All that the provider surely had counted by then.
    answered: u64,
    /// All that had come back by then.
    released: f64,
    at: Duration,
}

impl Taken {
    /// When.
    pub(super) fn at(&self) -> Duration {
        self.at
    }
}

impl Meter {
    pub(super) fn new(set: Option<u64>, now: Duration) -> Self {
        let set = set.map(|n| n.max(1) as f64);
        let bound = set.map(|limit| Bound::steady(limit, limit / 60.0 * CAUTION, now));
        Self { set, taken: 0, answered: 0, bound }
    }

    /// For a provider of which nothing is known: a few at once and a few more each second.
    pub(super) fn feel_the_way(&mut self, few: f64, now: Duration) {
        if self.bound.is_none() {
            self.bound = Some(Bound { provisional: true, ..Bound::steady(few, few, now) });
        }
    }

    /// The provider has answered: it is no longer approached with care. True if that changed anything.
    pub(super) fn known(&mut self) -> bool {
        let was = self.bound.as_ref().is_some_and(|b| b.provisional);
        if was {
            self.bound = None;
        }
        was
    }

    /// When `amount` can be taken.
    pub(super) fn ready_at(&mut self, now: Duration, amount: u64) -> Duration {
        self.bound.as_mut().map_or(now, |bound| {
            bound.refresh(now);
            bound.when(now, (amount as f64).min(bound.limit))
        })
    }

    /// When `amount` can be taken by somebody who lets all of `ahead` go first; a guess.
    pub(super) fn expected_at(&mut self, now: Duration, ahead: u64, amount: u64) -> Duration {
        match &mut self.bound {
            Some(bound) if !bound.provisional => {
                bound.refresh(now);
                bound.when(now, ahead as f64 + (amount as f64).min(bound.limit))
            }
            _ => now,
        }
    }

    /// Takes it, whether it is there or not.
    pub(super) fn take(&mut self, now: Duration, amount: u64) -> Taken {
        self.taken = self.taken.saturating_add(amount);
        let mut taken = Taken { amount, mark: self.taken, answered: self.answered, released: 0.0, at: now };
        if let Some(bound) = &mut self.bound {
            bound.refresh(now);
            bound.take(now, (amount as f64).min(bound.limit));
            taken.released = bound.released;
        }
        taken
    }

    /// The request that took this has been answered or is over: the provider has counted it if it ever will.
    pub(super) fn counted(&mut self, taken: Taken) {
        self.answered = self.answered.saturating_add(taken.amount);
    }

    /// Corrects what was taken. (Not where the provider has spoken since: it counts for itself.)
    pub(super) fn settle(&mut self, now: Duration, taken: Taken, used: u64) {
        let Some(bound) = &mut self.bound else { return };
        if bound.provisional || bound.fed.is_some_and(|mark| mark >= taken.mark) {
            return;
        }
        bound.refresh(now);
        let (before, after) = ((taken.amount as f64).min(bound.limit), (used as f64).min(bound.limit));
        bound.correct(taken.at, before - after);
    }

    /// Takes in what the provider said in its answer to the request that took `by`.
    pub(super) fn observe(&mut self, now: Duration, by: Taken, said: Window) {
        // A provider of the host's own may tell anything.
        if said.limit == 0 {
            return;
        }
        let said = Window { remaining: said.remaining.min(said.limit), ..said };
        let remaining = said.remaining as f64;
        // All that may not have been counted yet.
        let open = self.taken.saturating_sub(by.answered).saturating_sub(by.amount) as f64;
        let bound = match &mut self.bound {
            Some(bound) if !bound.provisional => bound,
            none => {
                let first = Bound::first(now, said, remaining - open);
                none.insert(first)
            }
        };
        bound.refresh(now);
        let news = bound.fed.is_none_or(|mark| by.mark >= mark);
        bound.fed = Some(by.mark.max(bound.fed.unwrap_or_default()));
        let until = now.saturating_add(said.resets_in);
        // What has come back meanwhile may be in what is left, or not.
        let most = remaining + (bound.released - by.released).max(0.0);
        match self.set.filter(|set| *set < said.limit as f64) {
            // The host wants less than the provider gives: what the provider says can only make it less still.
            Some(set) => {
                bound.resize(set);
                bound.lower(most, until);
            }
            None => {
                bound.resize(said.limit as f64);
                if news {
                    bound.learn(now, by.at, said);
                }
                bound.raise(remaining - open);
                bound.lower(most, until);
            }
        }
    }

    /// Takes in that a request which took `by` was refused, and is welcome after `wait`.
    pub(super) fn refused(&mut self, now: Duration, by: Taken, wait: Duration) {
        let Some(bound) = &mut self.bound else { return };
        bound.refresh(now);
        if bound.provisional {
            return;
        }
        let until = now.saturating_add(wait);
        match &mut bound.flow {
            Flow::Steady { rate, .. } if wait.as_secs_f64() <= 3.0 * by.amount as f64 / *rate + 1.0 => {
                bound.level = bound.level.min(0.0);
            }
            Flow::Steady { .. } => {
                let period = if self.set.is_some() { MINUTE } else { period(wait) };
                bound.close(0.0, until, period);
            }
            // Since it was sent more has come back than it needs.
            Flow::Window { .. } if bound.released - by.released > by.amount as f64 => {}
            Flow::Window { log, .. } => {
                for (at, _) in log.iter_mut() {
                    *at = until.max(*at);
                }
                bound.lower(0.0, until);
            }
        }
    }

    /// The provider has said when the request that took `by` is welcome again. Where that is sooner than was thought, it fills
    /// up faster.
    pub(super) fn believe(&mut self, now: Duration, by: Taken, wait: Duration) {
        let Some(bound) = self.bound.as_mut().filter(|bound| !bound.provisional) else { return };
        bound.refresh(now);
        let need = (by.amount as f64).min(bound.limit);
        if bound.when(now, need) > now.saturating_add(wait) {
            let rate = need / wait.as_secs_f64().max(0.001);
            bound.level = 0.0;
            bound.flow = Flow::Steady { rate, at: now, from: bound.limit };
            bound.anchor = None;
        }
    }

    /// How full it is, from 0 to 1; 1 where there is no limit.
    pub(super) fn fullness(&mut self, now: Duration) -> f64 {
        self.bound.as_mut().map_or(1.0, |bound| {
            bound.refresh(now);
            bound.level / bound.limit
        })
    }
}

impl Bound {
    fn steady(limit: f64, rate: f64, at: Duration) -> Self {
        Self {
            provisional: false,
            limit,
            level: limit,
            flow: Flow::Steady { rate, at, from: 0.0 },
            released: 0.0,
            fed: None,
            anchor: None,
        }
    }

    /// A limit of which the provider has just told. If the reset is as far off as a bucket's would be that fills up within a
    /// minute, an hour or a day, it is one.
    fn first(now: Duration, said: Window, level: f64) -> Self {
        let limit = said.limit as f64;
        let (used, reset) = (limit - said.remaining as f64, said.resets_in.as_secs_f64());
        let rate = PERIODS.iter().map(|p| limit / p.as_secs_f64()).find(|rate| {
            let full = used / rate;
            (full - reset).abs() <= (0.1 * full).max(fuzz(said.resets_in))
        });
        let mut bound = Self::steady(limit, rate.unwrap_or(1.0), now);
        bound.level = level;
        if rate.is_none() {
            bound.close(level, now.saturating_add(said.resets_in), period(said.resets_in));
        }
        bound
    }

    fn refresh(&mut self, now: Duration) {
        match &mut self.flow {
            Flow::Steady { rate, at, .. } => {
                let back = now.saturating_sub(*at).as_secs_f64() * *rate;
                self.level = (self.level + back).min(self.limit);
                self.released += back;
                *at = now;
            }
            Flow::Window { log, .. } => {
                while let Some(&(_, back)) = log.front().filter(|(at, _)| *at <= now) {
                    log.pop_front();
                    self.level = (self.level + back).min(self.limit);
                    self.released += back;
                }
                if log.is_empty() {
                    self.level = self.limit;
                }
            }
        }
    }

    fn take(&mut self, now: Duration, amount: f64) {
        self.level -= amount;
        if let Flow::Window { period, log } = &mut self.flow {
            // What is taken within a step comes back at its end, so that nothing comes back too early.
            let due = now.saturating_add(*period);
            match log.back_mut().filter(|(at, _)| due <= *at) {
                Some((_, sum)) => *sum += amount,
                None => log.push_back((due.saturating_add(*period / STEPS), amount)),
            }
        }
    }

    fn correct(&mut self, taken_at: Duration, back: f64) {
        if let Flow::Window { period, log } = &mut self.flow {
            let due = taken_at.saturating_add(*period);
            let at = log.partition_point(|(at, _)| *at < due);
            match log.get_mut(at).filter(|(at, _)| at.saturating_sub(due) <= *period / STEPS) {
                Some((_, sum)) => *sum -= back,
                // It has come back already, or the provider has told otherwise.
                None => return,
            }
        }
        self.level = (self.level + back).min(self.limit);
    }

    /// When the level is at `need`, which may be more than the limit.
    fn when(&self, now: Duration, need: f64) -> Duration {
        let mut missing = need - self.level;
        if missing <= DUST {
            return now;
        }
        match &self.flow {
            Flow::Steady { rate, .. } => now.saturating_add(seconds(missing / rate)),
            Flow::Window { period, log } => {
                let mut last = now;
                for (at, back) in log {
                    missing -= back;
                    last = *at;
                    if missing <= DUST {
                        return last;
                    }
                }
                last.saturating_add(period.mul_f64((missing / self.limit).ceil().clamp(0.0, 1e6)))
            }
        }
    }

    /// The level is at least this.
    fn raise(&mut self, least: f64) {
        let mut by = least.min(self.limit) - self.level;
        if by <= 0.0 {
            return;
        }
        self.level += by;
        if let Flow::Window { log, .. } = &mut self.flow {
            // What was to come back next has come back sooner.
            while let Some((_, sum)) = log.front_mut() {
                if *sum > by {
                    *sum -= by;
                    return;
                }
                by -= *sum;
                log.pop_front();
            }
        }
    }

    /// The level is at most this; what is missing comes back at `until`.
    fn lower(&mut self, most: f64, until: Duration) {
        let by = self.level - most;
        if by <= 0.0 {
            return;
        }
        self.level = most;
        if let Flow::Window { log, .. } = &mut self.flow {
            let at = log.partition_point(|(at, _)| *at <= until);
            log.insert(at, (until, by));
        }
    }

    fn resize(&mut self, limit: f64) {
        self.level += limit - self.limit;
        self.limit = limit;
    }

    /// From now on a window: `level` is left, the rest comes back at `until`.
    fn close(&mut self, level: f64, until: Duration, period: Duration) {
        self.level = level;
        self.flow = Flow::Window { period, log: VecDeque::from([(until, self.limit - level)]) };
    }

    /// Finds out of what kind the limit is.
    fn learn(&mut self, now: Duration, sent: Duration, said: Window) {
        let until = now.saturating_add(said.resets_in);
        if let Flow::Window { log, period } = &mut self.flow {
            let early = until.saturating_add(Duration::from_secs_f64(fuzz(said.resets_in)));
            // What was taken up to then comes back when the window ends, if that is sooner than reckoned. What was taken later
            // may be in the next one already.
            let due = sent.saturating_add(*period).saturating_add(*period / STEPS);
            let (from, to) =
                (log.partition_point(|(at, _)| *at <= early), log.partition_point(|(at, _)| *at <= due));
            if from < to {
                let sum = log.drain(from..to).map(|(_, sum)| sum).sum();
                let at = log.partition_point(|(at, _)| *at <= until);
                log.insert(at, (until, sum));
            }
        }
        let window = matches!(self.flow, Flow::Window { .. });
        let lasts = |then: &Window| if window { then.resets_in } else { then.resets_in.max(MINUTE) };
        let anchor =
            self.anchor.filter(|(then, at)| then.limit == said.limit && now < at.saturating_add(lasts(then)));
        let Some((then, at)) = anchor else {
            self.anchor = Some((said, now));
            return;
        };
        let fuzz = fuzz(said.resets_in).max(fuzz(then.resets_in));
        let used = (said.limit - said.remaining) as f64;
        let used_then = ((then.limit - then.remaining) as f64).max(1.0);
        let reset = said.resets_in.as_secs_f64();
        let bucket = then.resets_in.as_secs_f64() * used / used_then;
        let steady = used > 0.0 && reset > 0.0 && (reset - bucket).abs() <= (0.1 * bucket).max(fuzz);
        let moved = until.as_secs_f64() - at.saturating_add(then.resets_in).as_secs_f64();
        match (steady, moved.abs() <= fuzz, &mut self.flow) {
            (true, false, Flow::Steady { rate, from, .. }) if used * 2.0 >= *from => {
                (*rate, *from) = (used / reset, used.max(*from));
            }
            (true, false, flow @ Flow::Window { .. }) => {
                *flow = Flow::Steady { rate: used / reset, at: now, from: used };
            }
            (false, true, Flow::Steady { .. }) => self.close(self.level, until, period(said.resets_in)),
            _ => {}
        }
    }
}

/// How coarse a time is that somebody printed, in seconds.
fn fuzz(time: Duration) -> f64 {
    if time.subsec_nanos() == 0 { 1.0 } else { 0.05 }
}

/// The shortest usual window that a wait so long can be in; a little more is rounding.
fn period(wait: Duration) -> Duration {
    PERIODS.into_iter().find(|p| p.mul_f64(1.05) >= wait).unwrap_or(wait)
}

/// A time in seconds, rounded up to the millisecond, so that a timer never wakes too early.
fn seconds(s: f64) -> Duration {
    Duration::from_millis((s.clamp(0.0, 1e9) * 1e3).ceil() as u64)
}
