//! Laws of [`zo_traits::ComputeBackend`]. Each takes an empty pool.
//!
//! Time is virtual: a pool must go by the clock of the [`Cx`] it is given. What an engine cannot do it must refuse: a law
//! about priorities, delays, unique keys, dependencies, labels or attempts' timeouts asks the capabilities first (`priority`,
//! `delay`, `unique`, `dependencies`, `labels`, `timeout`; native or emulated) and where one is not named expects
//! `Unsupported` from a submission that needs it.

use crate::VirtualClock;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    future::poll_fn,
    sync::Arc,
    time::Duration,
};
use zo_traits::{
    Beat, BoxStream, Clock, ComputeBackend, Cx, ErrorKind, Finished, JobEvent, JobId, JobQuery, JobState,
    JobView, Lease, LeaseState, LeaseToken, NewJob, Outcome, PoolCapabilities, Result, Worker,
};

/// Makes a `#[test]` of each law; the expression is a future of an empty [`ComputeBackend`].
///
/// ```ignore
/// zo_testkit::compute_laws!(async { RamPool::new() });
/// ```
#[macro_export]
macro_rules! compute_laws {
    ($make:expr) => {
        $crate::__laws!(
            compute,
            $make;
            capabilities_are_told_the_same_twice_and_survive_json,
            a_job_comes_to_a_worker_as_it_was_submitted,
            jobs_get_ids_in_order,
            a_batch_with_a_bad_job_is_refused_whole,
            a_live_unique_key_is_one_job,
            a_unique_key_is_free_after_the_end,
            the_highest_priority_goes_first,
            a_worker_gets_only_its_kinds,
            a_worker_gets_only_what_it_has_the_labels_for,
            a_claim_takes_no_more_than_it_asks_for,
            a_job_is_leased_to_one_worker,
            an_idle_claim_is_empty_when_its_time_is_over,
            a_claim_that_waits_gets_the_next_job,
            a_claim_that_is_dropped_holds_no_job,
            a_claim_that_is_cancelled_holds_no_job,
            an_outcome_is_recorded_once,
            a_token_that_was_never_given_is_refused,
            a_lease_lasts_as_long_as_it_says,
            heartbeats_keep_a_lease,
            an_attempt_that_lost_its_lease_is_refused,
            answers_are_in_order,
            a_worker_that_dies_costs_one_attempt,
            a_job_that_kills_its_workers_is_kept_as_dead,
            a_retry_waits_as_long_as_it_says,
            a_retry_without_a_time_backs_off,
            a_job_out_of_attempts_is_dead,
            a_job_that_failed_for_good_is_dead,
            a_job_does_not_run_before_its_time,
            a_job_runs_after_what_it_depends_on,
            an_attempt_has_no_more_than_its_time,
            a_job_cancelled_in_time_never_runs,
            a_running_job_is_asked_to_stop,
            a_cancelled_job_is_not_tried_again,
            cancel_counts_what_was_live,
            queries_filter_and_page,
            progress_is_seen,
            events_tell_the_life_of_a_job,
            events_go_on_from_a_cursor_and_live,
            tick_says_when_to_come_back,
            a_cancelled_call_changes_nothing,
            a_late_call_is_refused,
            no_job_is_lost_among_dying_workers,
            a_shared_pool_is_the_pool,
        );
    };
}

/// Time of a law.
struct Bench {
    clock: VirtualClock,
    cx: Cx,
}

const START: i64 = 1_700_000_000_000;

fn bench() -> Bench {
    let clock = VirtualClock::at(START);
    Bench { cx: Cx::new("law").with_clock(Arc::new(clock.clone())), clock }
}

impl Bench {
    /// Lets time pass and the pool do what is due.
    async fn pass(&self, pool: &impl ComputeBackend, d: Duration) {
        self.clock.advance(d);
        pool.tick(&self.cx).await.unwrap();
    }

    /// What there is to claim right now: something, so a slow engine is given time.
    async fn take(&self, pool: &impl ComputeBackend, worker: &Worker, max: usize) -> Vec<Lease> {
        self.claim(pool, worker, max, Duration::from_secs(5)).await
    }

    /// What there is to claim right now, if there is anything.
    async fn look(&self, pool: &impl ComputeBackend, worker: &Worker, max: usize) -> Vec<Lease> {
        self.claim(pool, worker, max, Duration::from_millis(20)).await
    }

    /// The deadline comes when the clock is moved: from outside of the claim, after this much real time.
    async fn claim(
        &self,
        pool: &impl ComputeBackend,
        worker: &Worker,
        max: usize,
        patience: Duration,
    ) -> Vec<Lease> {
        let cx = self.cx.clone().with_timeout(Duration::from_millis(1));
        let mover = async {
            loop {
                tokio::time::sleep(patience).await;
                self.clock.advance(Duration::from_millis(1));
            }
        };
        tokio::select! {
            biased;
            leases = pool.claim(&cx, worker, max) => leases.unwrap(),
            () = mover => unreachable!(),
        }
    }

    async fn one(&self, pool: &impl ComputeBackend) -> Lease {
        let mut leases = self.take(pool, &worker(), 1).await;
        assert_eq!(leases.len(), 1, "there is a job to claim");
        leases.remove(0)
    }

    async fn none(&self, pool: &impl ComputeBackend) {
        assert_eq!(self.look(pool, &worker(), 9).await, [], "there is no job to claim");
    }

    async fn submit(&self, pool: &impl ComputeBackend, job: NewJob) -> JobId {
        pool.submit(&self.cx, vec![job]).await.unwrap()[0].id()
    }

    async fn view(&self, pool: &impl ComputeBackend, id: JobId) -> JobView {
        let mut views = pool.query(&self.cx, &JobQuery::ids([id])).await.unwrap();
        assert_eq!(views.len(), 1, "job {id} is kept");
        views.remove(0)
    }

    async fn finish(&self, pool: &impl ComputeBackend, token: LeaseToken, outcome: Outcome) -> Finished {
        pool.finish(&self.cx, vec![(token, outcome)]).await.unwrap().remove(0)
    }

    async fn beat(&self, pool: &impl ComputeBackend, token: LeaseToken) -> LeaseState {
        pool.heartbeat(&self.cx, &[beat(token, None)]).await.unwrap().remove(0)
    }
}

fn job() -> NewJob {
    NewJob::new("k", Value::Null)
}

fn with(change: impl FnOnce(&mut NewJob)) -> NewJob {
    let mut job = job();
    change(&mut job);
    job
}

fn worker() -> Worker {
    Worker::new("w", ["k"])
}

fn done(n: i64) -> Outcome {
    Outcome::Done(json!(n))
}

fn retry(after: Option<Duration>) -> Outcome {
    Outcome::Retry { message: "no luck".into(), after }
}

fn beat(token: LeaseToken, progress: Option<f32>) -> Beat {
    Beat { token, progress, note: None }
}

/// Can it? If it cannot, it refuses the job that needs it.
async fn can(pool: &impl ComputeBackend, feature: &str, job: NewJob) -> bool {
    let PoolCapabilities { native, emulated, .. } = pool.capabilities();
    if native.iter().chain(&emulated).any(|f| f == feature) {
        return true;
    }
    let e = pool.submit(&bench().cx, vec![job]).await.expect_err("a job that needs what the pool cannot do");
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{feature}: {e}");
    false
}

/// Capabilities do not change, and hosts may send them.
pub async fn capabilities_are_told_the_same_twice_and_survive_json(pool: impl ComputeBackend) {
    let told = pool.capabilities();
    assert_eq!(pool.capabilities(), told);
    let back: PoolCapabilities = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
    assert_eq!(back, told);
    let names: HashSet<_> = told.native.iter().chain(&told.emulated).collect();
    assert_eq!(
        names.len(),
        told.native.len() + told.emulated.len(),
        "nothing is native and emulated: {told:?}"
    );
}

/// Payload and all options reach the worker and the query unchanged; the first attempt is number 1.
pub async fn a_job_comes_to_a_worker_as_it_was_submitted(pool: impl ComputeBackend) {
    let b = bench();
    let job = with(|j| {
        j.payload = json!({"text": "ünï\0\"", "n": [1, -2.5, null, {"deep": [true]}]});
        j.max_attempts = 7;
        j.tenant = "ada".into();
    });
    let id = b.submit(&pool, job.clone()).await;
    let view = b.view(&pool, id).await;
    assert_eq!((&view.job, &view.state, view.attempts), (&job, &JobState::Ready, 0));
    let lease = b.one(&pool).await;
    assert_eq!((lease.job, lease.token.job, lease.token.attempt), (job, id, 1));
    assert!(!lease.expires_in.is_zero());
    let view = b.view(&pool, id).await;
    assert_eq!((view.state, view.attempts), (JobState::Running, 1));
}

/// One answer per job, in order, each job with an id of its own; an empty batch is fine.
pub async fn jobs_get_ids_in_order(pool: impl ComputeBackend) {
    let b = bench();
    assert_eq!(pool.submit(&b.cx, vec![]).await.unwrap(), []);
    let jobs: Vec<_> = (0..50).map(|n| NewJob::new("k", n)).collect();
    let ids: Vec<_> = pool.submit(&b.cx, jobs).await.unwrap().into_iter().map(|s| s.id()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 50);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(b.view(&pool, *id).await.job.payload, json!(n));
    }
}

/// A dependency that does not exist is `Invalid`, and nothing of its batch is enqueued.
pub async fn a_batch_with_a_bad_job_is_refused_whole(pool: impl ComputeBackend) {
    let b = bench();
    let bad = with(|j| j.after = vec![JobId(u128::MAX)]);
    if !can(&pool, "dependencies", bad.clone()).await {
        return;
    }
    let e = pool.submit(&b.cx, vec![job(), bad, job()]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
    assert_eq!(pool.query(&b.cx, &JobQuery::default()).await.unwrap(), []);
    b.none(&pool).await;
}

/// While a job of a unique key waits or runs, submitting the key again gives that job; also within one batch.
pub async fn a_live_unique_key_is_one_job(pool: impl ComputeBackend) {
    let b = bench();
    let unique = |key: &str, n: i64| {
        with(|j| {
            j.unique = Some(key.into());
            j.payload = json!(n);
        })
    };
    if !can(&pool, "unique", unique("a", 0)).await {
        return;
    }
    let first =
        pool.submit(&b.cx, vec![unique("a", 1), unique("b", 2), unique("a", 3), job()]).await.unwrap();
    use zo_traits::Submitted::{Existing, New};
    let a = first[0].id();
    assert!(matches!(first[..], [New(_), New(_), Existing(_), New(_)]), "{first:?}");
    assert_eq!(first[2].id(), a);
    assert_ne!(first[1].id(), a);
    assert_eq!(pool.submit(&b.cx, vec![unique("a", 4)]).await.unwrap(), [Existing(a)]);
    assert_eq!(b.take(&pool, &worker(), 9).await.len(), 3);
    assert_eq!(pool.submit(&b.cx, vec![unique("a", 5)]).await.unwrap(), [Existing(a)], "while it runs");
    assert_eq!(b.view(&pool, a).await.job.payload, json!(1));
    assert!(matches!(pool.submit(&b.cx, vec![job()]).await.unwrap()[..], [New(_)]), "no key is not a key");
}

/// When a job has ended, however that was, its unique key makes a new one.
pub async fn a_unique_key_is_free_after_the_end(pool: impl ComputeBackend) {
    let b = bench();
    let unique = || with(|j| j.unique = Some("a".into()));
    if !can(&pool, "unique", unique()).await {
        return;
    }
    let mut seen = HashSet::new();
    for end in [done(1), Outcome::Dead { message: "x".into() }, Outcome::Cancelled] {
        assert!(seen.insert(b.submit(&pool, unique()).await), "a new job");
        let lease = b.one(&pool).await;
        assert_eq!(b.finish(&pool, lease.token, end).await, Finished::Recorded);
    }
    let id = b.submit(&pool, unique()).await;
    assert!(seen.insert(id));
    pool.cancel(&b.cx, &[id]).await.unwrap();
    assert!(seen.insert(b.submit(&pool, unique()).await));
}

/// Higher first, negative ones last, over one claim and over several.
pub async fn the_highest_priority_goes_first(pool: impl ComputeBackend) {
    let b = bench();
    let at = |p: i32| with(|j| j.priority = p);
    if !can(&pool, "priority", at(1)).await {
        return;
    }
    let order = [0, 5, i32::MIN, -3, 9, i32::MAX, 1];
    pool.submit(&b.cx, order.map(at).into()).await.unwrap();
    let mut got: Vec<i32> = b.take(&pool, &worker(), 3).await.iter().map(|l| l.job.priority).collect();
    for _ in 0..4 {
        got.push(b.one(&pool).await.job.priority);
    }
    assert_eq!(got, [i32::MAX, 9, 5, 1, 0, -3, i32::MIN]);
}

/// Kinds match exactly.
pub async fn a_worker_gets_only_its_kinds(pool: impl ComputeBackend) {
    let b = bench();
    let jobs = ["a", "b", "A", "aa", "a*"].map(|kind| NewJob::new(kind, Value::Null));
    pool.submit(&b.cx, jobs.into()).await.unwrap();
    let kinds = |leases: Vec<Lease>| leases.into_iter().map(|l| l.job.kind).collect::<HashSet<_>>();
    assert_eq!(kinds(b.take(&pool, &Worker::new("w", ["b", "z"]), 9).await), HashSet::from(["b".into()]));
    assert!(b.look(&pool, &Worker::new("w", ["*"]), 9).await.is_empty());
    assert_eq!(kinds(b.take(&pool, &Worker::new("w", ["a"]), 9).await), HashSet::from(["a".into()]));
}

/// Every required label must be there with its value; further ones do no harm.
pub async fn a_worker_gets_only_what_it_has_the_labels_for(pool: impl ComputeBackend) {
    let b = bench();
    let labels = |of: &[(&str, &str)]| {
        of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let needs = with(|j| j.requires = labels(&[("gpu", "a100"), ("region", "eu")]));
    if !can(&pool, "labels", needs.clone()).await {
        return;
    }
    b.submit(&pool, needs).await;
    for has in
        [&[][..], &[("gpu", "a100")], &[("gpu", "t4"), ("region", "eu")], &[("gpu", ""), ("region", "eu")]]
    {
        let mut w = worker();
        w.labels = labels(has);
        assert!(b.look(&pool, &w, 9).await.is_empty(), "{has:?}");
    }
    let mut w = worker();
    w.labels = labels(&[("gpu", "a100"), ("region", "eu"), ("os", "linux")]);
    assert_eq!(b.take(&pool, &w, 9).await.len(), 1);
}

/// At most `max`; none for 0.
pub async fn a_claim_takes_no_more_than_it_asks_for(pool: impl ComputeBackend) {
    let b = bench();
    pool.submit(&b.cx, vec![job(); 10]).await.unwrap();
    assert_eq!(b.look(&pool, &worker(), 0).await.len(), 0);
    let mut seen = HashSet::new();
    for (max, got) in [(3, 3), (1, 1), (5, 5), (5, 1), (5, 0)] {
        let leases =
            if got > 0 { b.take(&pool, &worker(), max).await } else { b.look(&pool, &worker(), max).await };
        assert_eq!(leases.len(), got);
        assert!(leases.iter().all(|l| seen.insert(l.token.job)), "a job was leased twice");
    }
}

/// Of workers that claim at the same time each job goes to one.
pub async fn a_job_is_leased_to_one_worker(pool: impl ComputeBackend) {
    let (b, pool) = (bench(), Arc::new(pool));
    pool.submit(&b.cx, vec![job(); 200]).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let (pool, cx) = (pool.clone(), b.cx.clone());
            tokio::spawn(async move {
                let (mut mine, worker) = (Vec::new(), Worker::new(format!("w{n}"), ["k"]));
                for _ in 0..5 {
                    mine.extend(pool.claim(&cx, &worker, 5).await.unwrap());
                    tokio::task::yield_now().await;
                }
                mine
            })
        })
        .collect();
    let mut seen = HashSet::new();
    for task in tasks {
        for lease in task.await.unwrap() {
            assert!(seen.insert(lease.token.job), "job {} was leased twice", lease.token.job);
        }
    }
    assert_eq!(seen.len(), 200);
}

/// A claim waits until its deadline and then is empty, not an error.
pub async fn an_idle_claim_is_empty_when_its_time_is_over(pool: impl ComputeBackend) {
    let (b, pool) = (bench(), Arc::new(pool));
    let (other, cx) = (pool.clone(), b.cx.clone().with_timeout(Duration::from_secs(60)));
    let claim = tokio::spawn(async move { other.claim(&cx, &worker(), 1).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    b.clock.advance(Duration::from_secs(59));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!claim.is_finished(), "before its deadline it waits");
    b.clock.advance(Duration::from_secs(1));
    let leases =
        tokio::time::timeout(Duration::from_secs(10), claim).await.expect("at the deadline").unwrap();
    assert_eq!(leases.expect("no error"), []);
}

/// Whoever waits gets what is submitted then.
pub async fn a_claim_that_waits_gets_the_next_job(pool: impl ComputeBackend) {
    let (b, pool) = (bench(), Arc::new(pool));
    let (other, cx) = (pool.clone(), b.cx.clone());
    let claim = tokio::spawn(async move { other.claim(&cx, &worker(), 3).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let id = b.submit(&*pool, job()).await;
    let leases = tokio::time::timeout(Duration::from_secs(10), claim).await.expect("woken").unwrap().unwrap();
    assert_eq!(leases.iter().map(|l| l.token.job).collect::<Vec<_>>(), [id]);
}

/// A claim that is dropped while it waits takes nothing with it.
pub async fn a_claim_that_is_dropped_holds_no_job(pool: impl ComputeBackend) {
    let (b, pool) = (bench(), Arc::new(pool));
    for _ in 0..10 {
        let (other, cx) = (pool.clone(), b.cx.clone());
        let claim = tokio::spawn(async move { other.claim(&cx, &worker(), 1).await });
        tokio::time::sleep(Duration::from_millis(2)).await;
        claim.abort();
        assert!(claim.await.is_err());
    }
    let id = b.submit(&*pool, job()).await;
    let token = b.one(&*pool).await.token;
    assert_eq!((token.job, token.attempt), (id, 1));
}

/// A claim that is cancelled is `Cancelled` and takes nothing with it.
pub async fn a_claim_that_is_cancelled_holds_no_job(pool: impl ComputeBackend) {
    let (b, pool) = (bench(), Arc::new(pool));
    let (other, cx) = (pool.clone(), b.cx.child());
    let theirs = cx.clone();
    let claim = tokio::spawn(async move { other.claim(&theirs, &worker(), 1).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    cx.cancel().cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), claim).await.expect("at once").unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    let id = b.submit(&*pool, job()).await;
    assert_eq!(pool.claim(&cx, &worker(), 1).await.unwrap_err().kind(), ErrorKind::Cancelled);
    let token = b.one(&*pool).await.token;
    assert_eq!((token.job, token.attempt), (id, 1));
}

/// The first outcome of an attempt is the job's; each further one is stale.
pub async fn an_outcome_is_recorded_once(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    let token = b.one(&pool).await.token;
    let both = vec![(token, done(1)), (token, done(2))];
    assert_eq!(pool.finish(&b.cx, both).await.unwrap(), [Finished::Recorded, Finished::Stale]);
    for late in [done(3), retry(None), Outcome::Dead { message: "x".into() }, Outcome::Cancelled] {
        assert_eq!(b.finish(&pool, token, late).await, Finished::Stale);
    }
    assert_eq!(b.beat(&pool, token).await, LeaseState::Lost);
    assert_eq!(b.view(&pool, id).await.state, JobState::Done(json!(1)));
    b.none(&pool).await;
}

/// Another attempt, another epoch, another job: lost and stale.
pub async fn a_token_that_was_never_given_is_refused(pool: impl ComputeBackend) {
    let b = bench();
    let waiting = b.submit(&pool, with(|j| j.kind = "other".into())).await;
    b.submit(&pool, job()).await;
    let token = b.one(&pool).await.token;
    for forged in [
        LeaseToken { attempt: 2, ..token },
        LeaseToken { attempt: 0, ..token },
        LeaseToken { epoch: token.epoch.wrapping_add(1), ..token },
        LeaseToken { epoch: token.epoch.wrapping_sub(1), ..token },
        LeaseToken { job: waiting, ..token },
        LeaseToken { job: JobId(u128::MAX), ..token },
    ] {
        assert_eq!(b.beat(&pool, forged).await, LeaseState::Lost, "{forged:?}");
        assert_eq!(b.finish(&pool, forged, done(9)).await, Finished::Stale, "{forged:?}");
    }
    assert_eq!(b.view(&pool, waiting).await.state, JobState::Ready);
    assert_eq!(b.finish(&pool, token, done(1)).await, Finished::Recorded, "the real one still counts");
}

/// Until it runs out nobody else gets the job; then somebody does.
pub async fn a_lease_lasts_as_long_as_it_says(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    let first = b.one(&pool).await;
    b.pass(&pool, first.expires_in * 9 / 10).await;
    assert_eq!(b.view(&pool, id).await.state, JobState::Running);
    b.none(&pool).await;
    b.pass(&pool, first.expires_in).await;
    let second = b.one(&pool).await.token;
    assert_eq!((second.job, second.attempt), (id, 2));
}

/// A beat makes a lease last from then on, as often as it comes.
pub async fn heartbeats_keep_a_lease(pool: impl ComputeBackend) {
    let b = bench();
    b.submit(&pool, job()).await;
    let lease = b.one(&pool).await;
    for _ in 0..10 {
        b.pass(&pool, lease.expires_in * 3 / 4).await;
        assert_eq!(b.beat(&pool, lease.token).await, LeaseState::Extended);
    }
    b.none(&pool).await;
    assert_eq!(b.finish(&pool, lease.token, done(1)).await, Finished::Recorded);
}

/// When the lease was lost, whether or not somebody else has the job by now, nothing that the attempt says counts.
pub async fn an_attempt_that_lost_its_lease_is_refused(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    let first = b.one(&pool).await;
    b.pass(&pool, first.expires_in * 2).await;
    assert_eq!(b.beat(&pool, first.token).await, LeaseState::Lost);
    assert_eq!(b.finish(&pool, first.token, done(1)).await, Finished::Stale, "nobody has it");
    let second = b.one(&pool).await;
    assert_eq!(b.beat(&pool, first.token).await, LeaseState::Lost);
    assert_eq!(b.finish(&pool, first.token, done(1)).await, Finished::Stale, "another has it");
    assert_eq!(b.finish(&pool, first.token, Outcome::Cancelled).await, Finished::Stale);
    assert_eq!(b.finish(&pool, second.token, done(2)).await, Finished::Recorded);
    assert_eq!(b.finish(&pool, first.token, done(1)).await, Finished::Stale, "another did it");
    assert_eq!(b.view(&pool, id).await.state, JobState::Done(json!(2)));
}

/// Beats and outcomes are answered one by one, in their order.
pub async fn answers_are_in_order(pool: impl ComputeBackend) {
    let b = bench();
    assert_eq!(pool.heartbeat(&b.cx, &[]).await.unwrap(), []);
    assert_eq!(pool.finish(&b.cx, vec![]).await.unwrap(), []);
    pool.submit(&b.cx, vec![job(); 3]).await.unwrap();
    let t: Vec<_> = b.take(&pool, &worker(), 3).await.iter().map(|l| l.token).collect();
    assert_eq!(t.len(), 3);
    pool.cancel(&b.cx, &[t[1].job]).await.unwrap();
    let wrong = LeaseToken { attempt: 9, ..t[0] };
    let beats = [t[2], wrong, t[1], t[0]].map(|t| beat(t, None));
    use LeaseState::{Cancel, Extended, Lost};
    assert_eq!(pool.heartbeat(&b.cx, &beats).await.unwrap(), [Extended, Lost, Cancel, Extended]);
    let outcomes = vec![
        (wrong, done(0)),
        (t[2], done(2)),
        (t[1], Outcome::Cancelled),
        (wrong, done(0)),
        (t[0], done(0)),
    ];
    use Finished::{Recorded, Stale};
    assert_eq!(pool.finish(&b.cx, outcomes).await.unwrap(), [Stale, Recorded, Recorded, Stale, Recorded]);
    assert_eq!(b.view(&pool, t[2].job).await.state, JobState::Done(json!(2)));
}

/// The attempt of a worker that was never heard of again counts, and the next one starts anew.
pub async fn a_worker_that_dies_costs_one_attempt(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    for attempt in 1..=3 {
        let lease = b.one(&pool).await;
        assert_eq!((lease.token.job, lease.token.attempt), (id, attempt));
        assert_eq!(b.view(&pool, id).await.attempts, attempt);
        if attempt < 3 {
            b.pass(&pool, lease.expires_in * 2).await;
        } else {
            assert_eq!(b.finish(&pool, lease.token, done(1)).await, Finished::Recorded);
        }
    }
}

/// Out of attempts because its workers die, a job is dead, with a word why, and no worker gets it again.
pub async fn a_job_that_kills_its_workers_is_kept_as_dead(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, with(|j| j.max_attempts = 2)).await;
    for _ in 0..2 {
        let lease = b.one(&pool).await;
        b.pass(&pool, lease.expires_in * 2).await;
    }
    for _ in 0..3 {
        b.none(&pool).await;
        b.pass(&pool, Duration::from_secs(86_400)).await;
    }
    let view = b.view(&pool, id).await;
    assert!(matches!(&view.state, JobState::Dead { message } if !message.is_empty()), "{view:?}");
    assert_eq!(view.attempts, 2);
}

/// `after` is kept to, even where it is zero.
pub async fn a_retry_waits_as_long_as_it_says(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, with(|j| j.max_attempts = 9)).await;
    let token = b.one(&pool).await.token;
    let hour = Duration::from_secs(3600);
    assert_eq!(b.finish(&pool, token, retry(Some(hour))).await, Finished::Recorded);
    assert_eq!(b.view(&pool, id).await.state, JobState::Waiting);
    b.pass(&pool, hour - Duration::from_secs(60)).await;
    b.none(&pool).await;
    b.pass(&pool, Duration::from_secs(60)).await;
    let token = b.one(&pool).await.token;
    assert_eq!((token.job, token.attempt), (id, 2));
    assert_eq!(b.finish(&pool, token, retry(Some(Duration::ZERO))).await, Finished::Recorded);
    b.pass(&pool, Duration::ZERO).await;
    assert_eq!(b.one(&pool).await.token.attempt, 3);
}

/// Without `after` the pool waits a while of its own choosing, within a day.
pub async fn a_retry_without_a_time_backs_off(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    let token = b.one(&pool).await.token;
    assert_eq!(b.finish(&pool, token, retry(None)).await, Finished::Recorded);
    assert_eq!(b.view(&pool, id).await.state, JobState::Waiting, "it does not spin");
    b.pass(&pool, Duration::from_secs(86_400)).await;
    assert_eq!(b.one(&pool).await.token.attempt, 2);
}

/// The last retry makes the job dead with the message that came with it.
pub async fn a_job_out_of_attempts_is_dead(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, with(|j| j.max_attempts = 2)).await;
    for _ in 0..2 {
        let token = b.one(&pool).await.token;
        assert_eq!(b.finish(&pool, token, retry(Some(Duration::ZERO))).await, Finished::Recorded);
        b.pass(&pool, Duration::from_secs(1)).await;
    }
    b.none(&pool).await;
    assert_eq!(b.view(&pool, id).await.state, JobState::Dead { message: "no luck".into() });
}

/// `Dead` ends a job whatever attempts it has left.
pub async fn a_job_that_failed_for_good_is_dead(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    let token = b.one(&pool).await.token;
    assert_eq!(
        b.finish(&pool, token, Outcome::Dead { message: "hopeless".into() }).await,
        Finished::Recorded
    );
    b.pass(&pool, Duration::from_secs(86_400)).await;
    b.none(&pool).await;
    let view = b.view(&pool, id).await;
    assert_eq!((view.state, view.attempts), (JobState::Dead { message: "hopeless".into() }, 1));
}

/// Not before `run_at`, and soon after; a time in the past is now.
pub async fn a_job_does_not_run_before_its_time(pool: impl ComputeBackend) {
    let b = bench();
    let at = |s: u64| with(|j| j.run_at = Some(zo_traits::Timestamp(START).after(Duration::from_secs(s))));
    if !can(&pool, "delay", at(60)).await {
        return;
    }
    let id = b.submit(&pool, at(60)).await;
    assert_eq!(b.view(&pool, id).await.state, JobState::Waiting);
    b.pass(&pool, Duration::from_secs(59)).await;
    b.none(&pool).await;
    b.pass(&pool, Duration::from_secs(1)).await;
    assert_eq!(b.one(&pool).await.token.job, id);
    let past = b.submit(&pool, at(0)).await;
    b.pass(&pool, Duration::ZERO).await;
    assert_eq!(b.one(&pool).await.token.job, past);
}

/// Only when all of them are done, also where some were before it was submitted.
pub async fn a_job_runs_after_what_it_depends_on(pool: impl ComputeBackend) {
    let b = bench();
    let first = b.submit(&pool, job()).await;
    let after = |ids: &[JobId]| with(|j| j.after = ids.to_vec());
    if !can(&pool, "dependencies", after(&[first])).await {
        return;
    }
    let token = b.one(&pool).await.token;
    b.finish(&pool, token, done(1)).await;
    let (x, y) = (b.submit(&pool, job()).await, b.submit(&pool, job()).await);
    let last = b.submit(&pool, after(&[first, x, y])).await;
    assert_eq!(b.view(&pool, last).await.state, JobState::Waiting);
    let leases = b.take(&pool, &worker(), 9).await;
    assert_eq!(leases.iter().map(|l| l.token.job).collect::<HashSet<_>>(), HashSet::from([x, y]));
    b.finish(&pool, leases[0].token, done(1)).await;
    b.none(&pool).await;
    b.finish(&pool, leases[1].token, done(1)).await;
    assert_eq!(b.one(&pool).await.token.job, last);
}

/// When `timeout` is over an attempt is, however lively its worker; the lease does not promise more.
pub async fn an_attempt_has_no_more_than_its_time(pool: impl ComputeBackend) {
    let b = bench();
    let limit = Duration::from_secs(3600);
    let limited = with(|j| j.timeout = Some(limit));
    if !can(&pool, "timeout", limited.clone()).await {
        return;
    }
    let id = b.submit(&pool, limited).await;
    let lease = b.one(&pool).await;
    assert!(lease.expires_in <= limit);
    let step = lease.expires_in / 2;
    let mut passed = Duration::ZERO;
    while passed + step < limit {
        b.pass(&pool, step).await;
        passed += step;
        // The last one is so late that the lease alone would outlast the limit.
        assert_eq!(b.beat(&pool, lease.token).await, LeaseState::Extended, "after {passed:?}");
    }
    b.pass(&pool, step).await;
    assert_eq!(b.beat(&pool, lease.token).await, LeaseState::Lost);
    assert_eq!(b.finish(&pool, lease.token, done(1)).await, Finished::Stale);
    let again = b.one(&pool).await.token;
    assert_eq!((again.job, again.attempt), (id, 2));
}

/// Cancelled before a worker had it, a job is over.
pub async fn a_job_cancelled_in_time_never_runs(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    assert_eq!(pool.cancel(&b.cx, &[id]).await.unwrap(), 1);
    assert_eq!(b.view(&pool, id).await.state, JobState::Cancelled);
    b.pass(&pool, Duration::from_secs(86_400)).await;
    b.none(&pool).await;
}

/// The next beat says so; what the worker then reports counts.
pub async fn a_running_job_is_asked_to_stop(pool: impl ComputeBackend) {
    let b = bench();
    for (end, state) in [(Outcome::Cancelled, JobState::Cancelled), (done(1), JobState::Done(json!(1)))] {
        let id = b.submit(&pool, job()).await;
        let token = b.one(&pool).await.token;
        assert_eq!(b.beat(&pool, token).await, LeaseState::Extended);
        assert_eq!(pool.cancel(&b.cx, &[id]).await.unwrap(), 1);
        assert_eq!(b.beat(&pool, token).await, LeaseState::Cancel);
        assert_eq!(b.finish(&pool, token, end).await, Finished::Recorded);
        assert_eq!(b.view(&pool, id).await.state, state);
    }
}

/// After a cancellation neither a failure nor the death of the worker leads to another attempt.
pub async fn a_cancelled_job_is_not_tried_again(pool: impl ComputeBackend) {
    let b = bench();
    for dies in [true, false] {
        let id = b.submit(&pool, job()).await;
        let lease = b.one(&pool).await;
        pool.cancel(&b.cx, &[id]).await.unwrap();
        if dies {
            b.pass(&pool, lease.expires_in * 2).await;
        } else {
            b.finish(&pool, lease.token, retry(Some(Duration::ZERO))).await;
        }
        b.pass(&pool, Duration::from_secs(86_400)).await;
        b.none(&pool).await;
        assert_eq!(b.view(&pool, id).await.state, JobState::Cancelled);
    }
}

/// Waiting and running ones count; ended, unknown and cancelled ones do not.
pub async fn cancel_counts_what_was_live(pool: impl ComputeBackend) {
    let b = bench();
    let ended = b.submit(&pool, job()).await;
    let token = b.one(&pool).await.token;
    b.finish(&pool, token, done(1)).await;
    let running = b.submit(&pool, job()).await;
    b.one(&pool).await;
    let waiting = b.submit(&pool, job()).await;
    assert_eq!(pool.cancel(&b.cx, &[]).await.unwrap(), 0);
    let all = [ended, running, waiting, JobId(u128::MAX)];
    assert_eq!(pool.cancel(&b.cx, &all).await.unwrap(), 2);
    assert_eq!(pool.cancel(&b.cx, &[ended, waiting]).await.unwrap(), 0);
    assert_eq!(b.view(&pool, ended).await.state, JobState::Done(json!(1)));
}

/// By id, kind and state, each job once over pages of any size, in order of id.
pub async fn queries_filter_and_page(pool: impl ComputeBackend) {
    let b = bench();
    let mut jobs: Vec<_> = (0..20).map(|_| job()).collect();
    jobs.extend((0..5).map(|_| NewJob::new("other", Value::Null)));
    let mut ids: Vec<_> = pool.submit(&b.cx, jobs).await.unwrap().into_iter().map(|s| s.id()).collect();
    let others: Vec<_> = ids[20..].to_vec();
    let leases = b.take(&pool, &worker(), 3).await;
    b.finish(&pool, leases[0].token, done(1)).await;
    b.finish(&pool, leases[1].token, Outcome::Dead { message: "x".into() }).await;
    pool.cancel(&b.cx, &others[..1]).await.unwrap();
    ids.sort();
    let ask = async |q: JobQuery| -> Vec<JobId> {
        pool.query(&b.cx, &q).await.unwrap().iter().map(|v| v.id).collect()
    };
    let of = |change: &dyn Fn(&mut JobQuery)| {
        let mut q = JobQuery::default();
        q.limit = 1_000;
        change(&mut q);
        q
    };
    assert_eq!(ask(of(&|_| {})).await, ids);
    let some = [ids[7], ids[2], JobId(u128::MAX)];
    assert_eq!(ask(of(&|q| q.ids = some.into())).await, [ids[2], ids[7]]);
    let kind = ask(of(&|q| q.kind = Some("other".into()))).await;
    assert_eq!(kind.iter().collect::<HashSet<_>>(), others.iter().collect());
    for (state, n) in
        [("ready", 21), ("running", 1), ("done", 1), ("dead", 1), ("cancelled", 1), ("waiting", 0), ("x", 0)]
    {
        assert_eq!(ask(of(&|q| q.state = Some(state.into()))).await.len(), n, "{state}");
    }
    let done = ask(of(&|q| q.state = Some("done".into()))).await;
    assert_eq!(done, [leases[0].token.job]);
    assert_eq!(ask(of(&|q| (q.state, q.kind) = (Some("done".into()), Some("other".into())))).await, []);
    let mut paged: Vec<JobId> = Vec::new();
    loop {
        let page = ask(of(&|q| (q.after, q.limit) = (paged.last().copied(), 4))).await;
        assert!(page.len() <= 4);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
        assert!(paged.len() <= ids.len(), "pages overlap");
    }
    assert_eq!(paged, ids);
    assert!(!ask(JobQuery::default()).await.is_empty(), "a limit of 0 is the pool's own");
}

/// The last beat's progress shows; a beat without one leaves it.
pub async fn progress_is_seen(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    let token = b.one(&pool).await.token;
    assert_eq!(b.view(&pool, id).await.progress, None);
    for (said, seen) in [(Some(0.25), 0.25), (None, 0.25), (Some(0.75), 0.75)] {
        pool.heartbeat(&b.cx, &[beat(token, said)]).await.unwrap();
        assert_eq!(b.view(&pool, id).await.progress, Some(seen));
    }
}

async fn next(events: &mut BoxStream<Result<JobEvent>>) -> JobEvent {
    let next = poll_fn(|task| events.as_mut().poll_next(task));
    let event = tokio::time::timeout(Duration::from_secs(10), next).await.expect("an event");
    event.expect("the stream goes on").unwrap()
}

/// Every state that a job is in for any time is told, the end last; cursors rise.
pub async fn events_tell_the_life_of_a_job(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    let lease = b.one(&pool).await;
    b.pass(&pool, lease.expires_in * 2).await;
    let lease = b.one(&pool).await;
    b.finish(&pool, lease.token, done(1)).await;
    let (mut events, mut seen, mut seq) = (pool.events(&b.cx, 0).await.unwrap(), Vec::new(), 0);
    loop {
        let event = next(&mut events).await;
        assert!(event.seq > seq, "cursors rise");
        seq = event.seq;
        assert_eq!(event.id, id);
        assert!(event.at.0 >= START && event.at <= b.clock.now());
        seen.push(event.state.clone());
        if matches!(event.state, JobState::Done(_)) {
            break;
        }
    }
    assert_eq!(seen.last(), Some(&JobState::Done(json!(1))));
    assert_eq!(seen.iter().filter(|s| **s == JobState::Running).count(), 2, "{seen:?}");
    assert!(seen.contains(&JobState::Ready), "{seen:?}");
}

/// From a cursor on nothing is missing and nothing is told again; then come events as they happen.
pub async fn events_go_on_from_a_cursor_and_live(pool: impl ComputeBackend) {
    let (b, pool) = (bench(), Arc::new(pool));
    pool.submit(&b.cx, vec![job(); 5]).await.unwrap();
    let leases = b.take(&*pool, &worker(), 5).await;
    for lease in &leases {
        b.finish(&*pool, lease.token, done(1)).await;
    }
    let is_end = |e: &JobEvent| matches!(e.state, JobState::Done(_));
    let mut events = pool.events(&b.cx, 0).await.unwrap();
    let (mut all, mut ends) = (Vec::new(), 0);
    while ends < 5 {
        let event = next(&mut events).await;
        ends += usize::from(is_end(&event));
        all.push(event);
    }
    for (n, event) in all.iter().enumerate() {
        let mut rest = pool.events(&b.cx, event.seq).await.unwrap();
        if let Some(expected) = all.get(n + 1) {
            assert_eq!(next(&mut rest).await, *expected);
        }
    }
    let mut live = pool.events(&b.cx, all.last().unwrap().seq).await.unwrap();
    let waits = tokio::spawn(async move {
        let event = next(&mut live).await;
        (event, live)
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waits.is_finished(), "nothing has happened");
    let id = b.submit(&*pool, job()).await;
    let (event, _live) = waits.await.unwrap();
    assert_eq!(event.id, id);
    assert!(event.seq > all.last().unwrap().seq);
}

/// The time that it names is never too late: what is due then is done by the tick at that time.
pub async fn tick_says_when_to_come_back(pool: impl ComputeBackend) {
    let b = bench();
    assert_eq!(pool.tick(&b.cx).await.unwrap(), None, "an empty pool has nothing to come");
    let id = b.submit(&pool, with(|j| j.max_attempts = 2)).await;
    let lease = b.one(&pool).await;
    let mut state = JobState::Running;
    for _ in 0..1_000 {
        let Some(at) = pool.tick(&b.cx).await.unwrap() else { break };
        let due = at.since(b.clock.now());
        assert!(due <= lease.expires_in + Duration::from_secs(86_400), "{due:?}");
        b.clock.advance(due.max(Duration::from_millis(1)));
        pool.tick(&b.cx).await.unwrap();
        state = b.view(&pool, id).await.state;
        if state == JobState::Ready {
            break;
        }
    }
    assert_eq!(state, JobState::Ready, "following the ticks alone the lost job becomes ready");
}

/// Under a cancelled context every call is `Cancelled` and changes nothing.
pub async fn a_cancelled_call_changes_nothing(pool: impl ComputeBackend) {
    let b = bench();
    let id = b.submit(&pool, job()).await;
    let token = b.one(&pool).await.token;
    let cx = b.cx.child();
    cx.cancel().cancel();
    let kinds = [
        pool.submit(&cx, vec![job()]).await.unwrap_err().kind(),
        pool.claim(&cx, &worker(), 1).await.unwrap_err().kind(),
        pool.heartbeat(&cx, &[beat(token, Some(0.5))]).await.unwrap_err().kind(),
        pool.finish(&cx, vec![(token, done(1))]).await.unwrap_err().kind(),
        pool.cancel(&cx, &[id]).await.unwrap_err().kind(),
        pool.query(&cx, &JobQuery::default()).await.unwrap_err().kind(),
        pool.events(&cx, 0).await.err().unwrap().kind(),
        pool.tick(&cx).await.unwrap_err().kind(),
    ];
    assert!(kinds.iter().all(|k| *k == ErrorKind::Cancelled), "{kinds:?}");
    let views = pool.query(&b.cx, &JobQuery::default()).await.unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!((&views[0].state, views[0].progress), (&JobState::Running, None));
    assert_eq!(b.beat(&pool, token).await, LeaseState::Extended, "it was not cancelled");
}

/// After its deadline a submission is refused.
pub async fn a_late_call_is_refused(pool: impl ComputeBackend) {
    let b = bench();
    let late = b.cx.clone().with_timeout(Duration::ZERO);
    assert_eq!(pool.submit(&late, vec![job()]).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(pool.query(&b.cx, &JobQuery::default()).await.unwrap(), []);
}

/// Workers that die at every turn, late ones that report all the same: in the end each job is done once.
pub async fn no_job_is_lost_among_dying_workers(pool: impl ComputeBackend) {
    let b = bench();
    let jobs: Vec<_> = (0..60)
        .map(|n| {
            with(|j| {
                j.payload = json!(n);
                j.max_attempts = 1_000;
            })
        })
        .collect();
    let ids: Vec<_> = pool.submit(&b.cx, jobs).await.unwrap().into_iter().map(|s| s.id()).collect();
    let (mut recorded, mut late) = (HashSet::new(), Vec::<LeaseToken>::new());
    // The dice of a linear congruential generator: the same in every run.
    let mut dice = 7u64;
    let mut throw = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    for _ in 0..2_000 {
        if recorded.len() == ids.len() {
            break;
        }
        for lease in b.look(&pool, &worker(), 7).await {
            match throw(4) {
                0 => {
                    let told = b.finish(&pool, lease.token, done(i64::from(lease.token.attempt))).await;
                    assert_eq!(told, Finished::Recorded);
                    assert!(recorded.insert(lease.token.job), "a job was done twice");
                }
                1 => drop(b.finish(&pool, lease.token, retry(Some(Duration::from_secs(throw(50))))).await),
                // Dead, or only slow.
                _ => late.push(lease.token),
            }
        }
        b.pass(&pool, Duration::from_secs(throw(40))).await;
        if throw(3) == 0
            && let Some(token) = late.pop()
            && b.finish(&pool, token, done(-1)).await == Finished::Recorded
        {
            assert!(recorded.insert(token.job), "a job was done twice");
        }
    }
    assert_eq!(recorded.len(), ids.len(), "every job was done");
    for id in ids {
        assert!(matches!(b.view(&pool, id).await.state, JobState::Done(_)));
    }
}

/// Behind `Arc<dyn ComputeBackend>` it is the same pool.
pub async fn a_shared_pool_is_the_pool(pool: impl ComputeBackend) {
    let b = bench();
    let told = pool.capabilities();
    let shared: Arc<dyn ComputeBackend> = Arc::new(pool);
    assert_eq!(shared.capabilities(), told);
    let id = b.submit(&shared, job()).await;
    let token = b.one(&shared.clone()).await.token;
    assert_eq!(b.finish(&shared, token, done(1)).await, Finished::Recorded);
    assert_eq!(b.view(&shared, id).await.state, JobState::Done(json!(1)));
    assert!(!format!("{shared:?}").is_empty());
}
