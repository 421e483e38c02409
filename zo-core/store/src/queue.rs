//! What waits for the writer, in the order in which it came, and when the writer has to wake up for it.
//!
//! Waking a thread costs more than queueing a job, so the bell is rung only when the writer would otherwise sleep for too
//! long: a job that can wait does not ring it while the writer's own timer ends early enough.

use crate::{
    Options, fail,
    job::{Job, OP},
};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use zo_traits::Result;

/// How soon a queued write becomes durable. See [`Store::queue`](crate::Store::queue).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Urgency {
    /// As soon as the writer is free.
    Now,
    /// Within [`Options::idle_linger`](crate::Options::idle_linger), with the next write that is urgent, or at
    /// [`Store::hurry`](crate::Store::hurry), whichever is first.
    Soon,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    bell: Condvar,
    /// Free places.
    room: Semaphore,
    max_batch: usize,
    linger: Duration,
    idle_linger: Duration,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Urgency, Box<dyn Job>)>,
    /// Urgent ones among `jobs`.
    urgent: usize,
    /// When the first of those that can wait came, or earlier.
    lazy_since: Option<Instant>,
    /// What is queued is to be committed without lingering.
    hurried: bool,
    /// Jobs that were queued without a free place.
    over: usize,
    sleep: Sleep,
    /// Urgent jobs in the last batch.
    company: usize,
    /// The last batch had jobs that could wait: more of them are likely, and a timer spares their wake-up.
    warm: bool,
    closed: bool,
}

/// How the writer sleeps.
#[derive(Default, Clone, Copy)]
enum Sleep {
    #[default]
    Awake,
    /// Until anything comes.
    Idle,
    /// By a timer that ends no later than any job that can wait may wait.
    Timed,
    /// Until this many urgent jobs are there, or a timer ends.
    Company(usize),
}

impl State {
    /// Is there anything that must not linger?
    fn is_due(&self, most: usize) -> bool {
        !self.jobs.is_empty() && (self.urgent > 0 || self.cannot_grow(most))
    }

    fn cannot_grow(&self, most: usize) -> bool {
        self.hurried || self.closed || self.jobs.len() >= most
    }

    /// Must the bell be rung for what just changed? Once is enough.
    fn rings(&mut self, most: usize) -> bool {
        let rings = match self.sleep {
            Sleep::Awake => false,
            Sleep::Idle => true,
            Sleep::Timed => self.closed || self.is_due(most),
            Sleep::Company(n) => self.urgent >= n || self.cannot_grow(most),
        };
        if rings {
            self.sleep = Sleep::Awake;
        }
        rings
    }
}

impl Queue {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            bell: Condvar::new(),
            room: Semaphore::new(options.max_queue.clamp(1, Semaphore::MAX_PERMITS)),
            max_batch: options.max_batch.max(1),
            linger: options.linger,
            idle_linger: options.idle_linger,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place, which a [`push`](Queue::push) then takes.
    pub(crate) async fn room(&self) -> Result<()> {
        // The writer gives it back when it takes the job.
        self.room.acquire().await.map_err(|_| fail::closed(OP))?.forget();
        Ok(())
    }

    /// Queues a job for which there is [`room`](Queue::room).
    pub(crate) fn push(&self, urgency: Urgency, job: Box<dyn Job>) {
        self.add(urgency, job, 0);
    }

    /// Queues a job, room or not.
    pub(crate) fn squeeze(&self, urgency: Urgency, job: Box<dyn Job>) {
        let over = match self.room.try_acquire() {
            Ok(place) => {
                place.forget();
                0
            }
            Err(_) => 1,
        };
        self.add(urgency, job, over);
    }

    fn add(&self, urgency: Urgency, job: Box<dyn Job>, over: usize) {
        let mut state = self.state();
        match urgency {
            Urgency::Now => state.urgent += 1,
            Urgency::Soon => {
                state.lazy_since.get_or_insert_with(Instant::now);
            }
        }
        state.jobs.push_back((urgency, job));
        state.over += over;
        // Whoever waits for room must not wait for those who linger.
        state.hurried |= self.room.available_permits() == 0;
        self.ring(state);
    }

    /// Lets nothing that is queued linger.
    pub(crate) fn hurry(&self) {
        let mut state = self.state();
        if !state.jobs.is_empty() && !state.hurried {
            state.hurried = true;
            self.ring(state);
        }
    }

    /// Ends [`take`](Queue::take) once the queue is empty.
    pub(crate) fn shut(&self) {
        let mut state = self.state();
        state.closed = true;
        self.ring(state);
    }

    fn ring(&self, mut state: MutexGuard<'_, State>) {
        let rings = state.rings(self.max_batch);
        // A writer that wakes while the lock is held goes to sleep again at once.
        drop(state);
        if rings {
            self.bell.notify_one();
        }
    }

    /// Waits for jobs and takes as many as go into one commit; `false` at the end.
    pub(crate) fn take(&self, batch: &mut VecDeque<Box<dyn Job>>) -> bool {
        let most = self.max_batch;
        let mut state = self.state();
        while !state.is_due(most) {
            let timer = if state.jobs.is_empty() {
                if state.closed {
                    return false;
                }
                state.warm.then_some(self.idle_linger)
            } else {
                let waited = state.lazy_since.map_or(Duration::MAX, |since| since.elapsed());
                match self.idle_linger.saturating_sub(waited) {
                    Duration::ZERO => break,
                    left => Some(left),
                }
            };
            state.sleep = if timer.is_some() { Sleep::Timed } else { Sleep::Idle };
            let timed_out;
            (state, timed_out) = self.sleep(state, timer);
            state.warm &= !(timed_out && state.jobs.is_empty());
        }
        // Those who shared the last commit are likely on their way back.
        let target = state.company.min(most);
        if state.urgent > 0 && state.urgent < target && !self.linger.is_zero() {
            let start = Instant::now();
            while state.urgent < target && !state.cannot_grow(most) {
                let left = self.linger.saturating_sub(start.elapsed());
                if left.is_zero() {
                    break;
                }
                state.sleep = Sleep::Company(target);
                state = self.sleep(state, Some(left)).0;
            }
        }
        let n = state.jobs.len().min(most);
        let mut urgent = 0;
        batch.extend(state.jobs.drain(..n).map(|(urgency, job)| {
            urgent += usize::from(urgency == Urgency::Now);
            job
        }));
        state.urgent -= urgent;
        state.company = urgent;
        state.warm = urgent < n;
        if state.jobs.is_empty() {
            state.hurried = false;
            state.lazy_since = None;
        }
        let over = state.over.min(n);
        state.over -= over;
        drop(state);
        self.room.add_permits(n - over);
        true
    }

    /// Sleeps until the bell or the end of the timer; tells whether it was the timer.
    fn sleep<'q>(
        &self,
        state: MutexGuard<'q, State>,
        timer: Option<Duration>,
    ) -> (MutexGuard<'q, State>, bool) {
        let (mut state, timed_out) = match timer {
            Some(left) => {
                let (state, end) =
                    self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
                (state, end.timed_out())
            }
            None => (self.bell.wait(state).unwrap_or_else(PoisonError::into_inner), false),
        };
        state.sleep = Sleep::Awake;
        (state, timed_out)
    }
}
