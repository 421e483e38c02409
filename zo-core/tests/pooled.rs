//! Runs as jobs of a pool: whatever dies, every question is answered once, and no child may do or spend more than its parent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

use futures_util::StreamExt;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use zo_core::{
    Ask, Beat, BoxStream, ComputeBackend, Cx, Effect, Error, ErrorKind, Finished, JobEvent, JobId, JobQuery,
    JobState, JobView, Lease, LeaseState, LeaseToken, Limits, Message, NewJob, Outcome, POOLED_ASK,
    Permissions, PoolCapabilities, Reply, Request, Result, Role, Submitted, Timestamp, ToolCall, ToolOutput,
    ToolStatus, Worker, Zo, ZoBuilder, async_trait, permission::Rule,
};
use zo_testkit::{RamPool, RawTool, Scripted, Turn, VirtualClock, tool};

type Log = Arc<Mutex<Vec<String>>>;

struct Bench {
    clock: VirtualClock,
    pool: RamPool,
    cx: Cx,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let clock = VirtualClock::at(1_800_000_000_000);
        let cx = Cx::new("test").with_clock(Arc::new(clock.clone()));
        Self { clock, pool: RamPool::new(), cx, dir: tempfile::tempdir().unwrap() }
    }

    fn zo(&self, model: &Scripted) -> ZoBuilder {
        self.zo_in(model, self.dir.path())
    }

    fn zo_in(&self, model: &Scripted, dir: &Path) -> ZoBuilder {
        let zo = Zo::builder().provider(model.clone()).file(dir.join("z")).clock(self.clock.clone());
        zo.recall_limit(0).max_wait(Duration::ZERO)
    }

    /// A worker in a task of its own; aborting it is its crash.
    fn worker(&self, zo: &Zo, at_once: usize) -> JoinHandle<Result<()>> {
        self.worker_of(zo, Arc::new(self.pool.clone()), at_once, self.cx.child())
    }

    fn worker_of(
        &self,
        zo: &Zo,
        pool: Arc<dyn ComputeBackend>,
        at_once: usize,
        cx: Cx,
    ) -> JoinHandle<Result<()>> {
        static NAMES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name = format!("w{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let zo = zo.clone();
        tokio::spawn(async move { zo.work(&cx, pool, Worker::new(name, [""; 0]), at_once).await })
    }

    async fn submit(&self, zo: &Zo, text: &str) -> JobId {
        zo.submit_all(&self.cx, &self.pool, [Ask::new("", text)]).await.unwrap()[0]
    }

    async fn reply(&self, zo: &Zo, job: JobId) -> Result<Reply> {
        let mut replies = zo.pooled_replies(&self.cx, Arc::new(self.pool.clone()), &[job]).await;
        let (of, reply) = soon(replies.next()).await.unwrap();
        assert_eq!(of, job);
        assert!(replies.next().await.is_none());
        reply
    }

    async fn view(&self, job: JobId) -> JobView {
        self.pool.query(&self.cx, &JobQuery::ids([job])).await.unwrap().remove(0)
    }

    /// Lets time pass, a bit at a time, until a job has ended or is `state`.
    async fn pass_until(&self, job: JobId, step: Duration, is: impl Fn(&JobState) -> bool) -> JobState {
        for _ in 0..200 {
            let state = self.view(job).await.state;
            if is(&state) {
                return state;
            }
            self.clock.advance(step);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?}", self.view(job).await)
    }
}

async fn soon<F: Future>(f: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), f).await.expect("in time")
}

async fn when(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The last words of the user.
fn asked(r: &Request) -> String {
    r.messages.iter().rfind(|m| m.role == Role::User).map(Message::to_text).unwrap()
}

/// Mails once, then says what it was asked.
fn mailing() -> Scripted {
    Scripted::by(|r| match r.messages.last().unwrap().role {
        Role::Tool => Turn::text(&format!("answer to {}", asked(r))),
        _ => Turn::calls([("1", "mail", json!({"to": asked(r)}))]),
    })
}

/// Notes to whom it was sent; hangs as long as it is told to.
fn mail(log: &Log, hang: &Arc<AtomicBool>) -> RawTool {
    let (log, hang) = (log.clone(), hang.clone());
    tool("mail", move |_, call: ToolCall| {
        log.lock().unwrap().push(call.args["to"].as_str().unwrap().to_owned());
        let hang = hang.load(Ordering::SeqCst);
        async move {
            if hang {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok(ToolOutput::text("sent"))
        }
    })
    .effect(Effect::AtMostOnce)
}

fn statuses(reply: &Reply) -> Vec<ToolStatus> {
    reply.messages.iter().flat_map(Message::results).map(|r| r.status.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_jobs_and_a_worker_that_dies() {
    let b = Bench::new();
    let (log, hang) = (Log::default(), Arc::default());
    let zo = b.zo(&mailing()).skill(mail(&log, &hang)).build().await.unwrap();
    let asks = (0..200).map(|n| Ask::new("", format!("question {n}")));
    let jobs = zo.submit_all(&b.cx, &b.pool, asks).await.unwrap();
    assert_eq!(jobs.iter().collect::<HashSet<_>>().len(), 200);
    let victim = b.worker(&zo, 8);
    let others = [b.worker(&zo, 8), b.worker(&zo, 8)];
    let mut replies = zo.pooled_replies(&b.cx, Arc::new(b.pool.clone()), &jobs).await;
    let mut got: HashMap<JobId, Reply> = HashMap::new();
    while got.len() < 40 {
        let (job, reply) = soon(replies.next()).await.unwrap();
        assert!(got.insert(job, reply.unwrap()).is_none());
    }
    victim.abort();
    assert!(victim.await.unwrap_err().is_cancelled());
    loop {
        match tokio::time::timeout(Duration::from_millis(200), replies.next()).await {
            Ok(Some((job, reply))) => assert!(got.insert(job, reply.unwrap()).is_none()),
            Ok(None) => break,
            // Nothing is left but what the victim held.
            Err(_) => b.clock.advance(Duration::from_secs(10)),
        }
    }
    let mut again = 0;
    for (n, job) in jobs.iter().enumerate() {
        let reply = &got[job];
        assert_eq!(reply.text, format!("answer to question {n}"));
        again += b.view(*job).await.attempts - 1;
    }
    let log = log.lock().unwrap().clone();
    let sent: HashSet<&String> = log.iter().collect();
    assert_eq!(log.len(), sent.len(), "none was sent twice");
    for (n, job) in jobs.iter().enumerate() {
        // One that was on record as begun, and then not begun, is unknown too.
        let unknown = statuses(&got[job]) == [ToolStatus::Unknown];
        assert!(unknown || sent.contains(&format!("question {n}")), "{n} was forgotten");
        assert!(!unknown || b.view(*job).await.attempts > 1, "{n}");
    }
    assert!((1..=8).contains(&again), "{again} jobs were under way at the crash");
    assert!(zo.unfinished().unwrap().is_empty());
    others.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn the_next_attempt_goes_on_with_the_run() {
    let b = Bench::new();
    let (log, hang) = (Log::default(), Arc::new(AtomicBool::new(true)));
    let model = mailing();
    let zo1 = b.zo(&model).skill(mail(&log, &hang)).build().await.unwrap();
    let job = b.submit(&zo1, "go").await;
    let worker = b.worker(&zo1, 4);
    when(|| log.lock().unwrap().len() == 1).await;
    worker.abort();
    assert!(worker.await.is_err());
    drop(zo1);

    // Another process, as it were.
    hang.store(false, Ordering::SeqCst);
    let zo2 = b.zo(&model).skill(mail(&log, &hang)).build().await.unwrap();
    let run = zo2.unfinished().unwrap().remove(0).run;
    let worker = b.worker(&zo2, 4);
    b.pass_until(job, Duration::from_secs(10), |s| matches!(s, JobState::Done(_))).await;
    let reply = b.reply(&zo2, job).await.unwrap();
    assert_eq!((reply.run.clone(), reply.text.as_str()), (run, "answer to go"));
    assert_eq!(statuses(&reply), [ToolStatus::Unknown], "it was not sent twice, and the model was told");
    assert_eq!((log.lock().unwrap().len(), model.asked().len()), (1, 2));
    assert_eq!(b.view(job).await.attempts, 2);
    // The first worker, had it only been slow, comes too late.
    let late = (LeaseToken { job, attempt: 1, epoch: 1 }, Outcome::Done(json!("forged")));
    assert_eq!(b.pool.finish(&b.cx, vec![late]).await.unwrap(), [Finished::Stale]);
    assert_eq!(b.reply(&zo2, job).await.unwrap(), reply);
    worker.abort();
}

#[tokio::test]
async fn an_answer_that_was_not_told_is_not_asked_for_again() {
    let b = Bench::new();
    let model = Scripted::by(|_| Turn::text("42"));
    let zo = b.zo(&model).build().await.unwrap();
    let mute = Arc::new(Broken { pool: b.pool.clone(), deaf: AtomicBool::new(false), mute: true });
    let job = b.submit(&zo, "go").await;
    let worker = b.worker_of(&zo, mute, 1, b.cx.child());
    when(|| model.asked().len() == 1 && zo.unfinished().unwrap().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    worker.abort();
    assert_eq!(b.view(job).await.state, JobState::Running);
    let worker = b.worker(&zo, 1);
    b.pass_until(job, Duration::from_secs(10), |s| matches!(s, JobState::Done(_))).await;
    let reply = b.reply(&zo, job).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.steps, reply.usage.input), ("42", 1, 10));
    assert_eq!(model.asked().len(), 1);
    worker.abort();
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_jobs_back_and_ends_no_run() {
    let b = Bench::new();
    let (log, hang) = (Log::default(), Arc::new(AtomicBool::new(true)));
    let zo = b.zo(&mailing()).skill(mail(&log, &hang)).build().await.unwrap();
    let job = b.submit(&zo, "go").await;
    let cx = b.cx.child();
    let worker = b.worker_of(&zo, Arc::new(b.pool.clone()), 4, cx.clone());
    when(|| log.lock().unwrap().len() == 1).await;
    cx.cancel().cancel();
    soon(worker).await.unwrap().unwrap();
    assert_eq!(b.view(job).await.state, JobState::Ready, "without a lease having run out");
    assert_eq!(zo.unfinished().unwrap().len(), 1);
    let later = b.submit(&zo, "later").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(b.view(later).await.state, JobState::Ready, "nobody works any more");
    hang.store(false, Ordering::SeqCst);
    let worker = b.worker(&zo, 4);
    assert_eq!(statuses(&b.reply(&zo, job).await.unwrap()), [ToolStatus::Unknown]);
    assert_eq!(b.reply(&zo, later).await.unwrap().text, "answer to later");
    worker.abort();
}

#[tokio::test]
async fn a_cancelled_job_ends_its_run() {
    let b = Bench::new();
    let (log, hang) = (Log::default(), Arc::new(AtomicBool::new(true)));
    let zo = b.zo(&mailing()).skill(mail(&log, &hang)).build().await.unwrap();
    let job = b.submit(&zo, "go").await;
    let worker = b.worker(&zo, 4);
    when(|| log.lock().unwrap().len() == 1).await;
    assert_eq!(b.pool.cancel(&b.cx, &[job]).await.unwrap(), 1);
    b.pass_until(job, Duration::from_secs(2), |s| *s == JobState::Cancelled).await;
    assert_eq!(b.reply(&zo, job).await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(zo.unfinished().unwrap().is_empty());
    worker.abort();
}

#[tokio::test]
async fn a_lost_lease_stops_the_run_and_leaves_it() {
    for unreachable in [false, true] {
        let b = Bench::new();
        let (log, hang) = (Log::default(), Arc::new(AtomicBool::new(true)));
        let zo = b.zo(&mailing()).skill(mail(&log, &hang)).build().await.unwrap();
        let job = b.submit(&zo, "go").await;
        let pool = Arc::new(Broken { pool: b.pool.clone(), deaf: AtomicBool::new(unreachable), mute: false });
        let worker = b.worker_of(&zo, pool.clone(), 4, b.cx.child());
        when(|| log.lock().unwrap().len() == 1).await;
        hang.store(false, Ordering::SeqCst);
        if unreachable {
            for _ in 0..100 {
                b.clock.advance(Duration::from_secs(1));
                tokio::time::sleep(Duration::from_millis(1)).await;
                if !zo.unfinished().unwrap().is_empty() {
                    break;
                }
            }
            assert_eq!(zo.unfinished().unwrap().len(), 1, "stopped without having been told");
            pool.deaf.store(false, Ordering::SeqCst);
        } else {
            b.pool.reopen(&b.cx);
        }
        // The same worker takes it up again, once it has let go of it.
        b.pass_until(job, Duration::from_secs(5), |s| matches!(s, JobState::Done(_))).await;
        let reply = b.reply(&zo, job).await.unwrap();
        assert_eq!(statuses(&reply), [ToolStatus::Unknown]);
        assert_eq!(b.view(job).await.attempts, 2);
        assert_eq!(log.lock().unwrap().len(), 1);
        worker.abort();
    }
}

#[tokio::test]
async fn errors_that_pass_are_tried_again_and_others_are_for_good() {
    let b = Bench::new();
    let down = || {
        let e = Error::new(ErrorKind::Unavailable, "model", "down for a moment");
        Turn::Fail(e.with_retry_after(Duration::from_secs(70)))
    };
    let bad = Turn::Fail(Error::new(ErrorKind::Invalid, "model", "no such model"));
    let model = Scripted::new([down(), Turn::text("up again"), bad]);
    let zo = b.zo(&model).build().await.unwrap();
    let worker = b.worker(&zo, 1);
    let job = b.submit(&zo, "go").await;
    soon(async {
        while b.view(job).await.state != JobState::Waiting {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    b.clock.advance(Duration::from_secs(69));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(b.view(job).await.state, JobState::Waiting, "not before the provider wants it");
    b.clock.advance(Duration::from_secs(2));
    assert_eq!(b.reply(&zo, job).await.unwrap().text, "up again");
    assert_eq!(b.view(job).await.attempts, 2);

    // The provider is asked more slowly for a while after it was down: time has to pass.
    let job = b.submit(&zo, "go").await;
    b.pass_until(job, Duration::from_secs(5), |s| matches!(s, JobState::Dead { .. })).await;
    let e = b.reply(&zo, job).await.unwrap_err();
    assert!(e.message().contains("no such model"), "{e}");
    assert_eq!(b.view(job).await.attempts, 1);
    // What is no question is no reason to stop working.
    let junk = b.pool.submit(&b.cx, vec![NewJob::new(POOLED_ASK, json!({"id": 7}))]).await.unwrap()[0].id();
    assert!(b.reply(&zo, junk).await.unwrap_err().message().contains("does not hold a question"));
    let nobody = JobId(99);
    assert_eq!(b.reply(&zo, nobody).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!worker.is_finished());
    worker.abort();
}

#[tokio::test]
async fn the_same_question_under_the_same_key_is_one_job() {
    let b = Bench::new();
    let model = Scripted::by(|r| Turn::text(&asked(r)));
    let zo = b.zo(&model).build().await.unwrap();
    let cx = b.cx.clone().with_idempotency_key("firing 7");
    let asks = || ["a", "a", "b"].map(|t| Ask::new("", t));
    let first = zo.submit_all(&cx, &b.pool, asks()).await.unwrap();
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 3, "one after the other they are three");
    assert_eq!(zo.submit_all(&cx, &b.pool, asks()).await.unwrap(), first);
    let worker = b.worker(&zo, 4);
    let mut replies = Vec::new();
    for job in &first {
        replies.push(b.reply(&zo, *job).await.unwrap());
    }
    // Even when all is done and the pool makes new jobs of them: their runs have their answers.
    let again = zo.submit_all(&cx, &b.pool, asks()).await.unwrap();
    assert!(again.iter().all(|job| !first.contains(job)));
    for (job, reply) in again.iter().zip(&replies) {
        assert_eq!(b.reply(&zo, *job).await.unwrap(), *reply);
    }
    assert_eq!(model.asked().len(), 3);
    let keyless = zo.submit_all(&b.cx, &b.pool, asks()).await.unwrap();
    assert!(keyless.iter().all(|job| !again.contains(job)));
    worker.abort();
}

#[tokio::test]
async fn a_run_that_waits_for_an_approval_takes_no_place() {
    let b = Bench::new();
    let (log, hang) = (Log::default(), Arc::default());
    let model = Scripted::by(|r| match r.messages.last().unwrap().role {
        Role::Tool => Turn::text(&r.messages.last().unwrap().results().next().unwrap().content.clone()),
        _ if asked(r) == "small talk" => Turn::text("hello"),
        _ => Turn::calls([("1", "mail", json!({"to": asked(r)}))]),
    });
    let build = async || {
        let asks = Permissions::default().rule(Rule::ask().tool("mail").because("it cannot be taken back"));
        b.zo(&model).permissions(asks).skill(mail(&log, &hang)).build().await.unwrap()
    };
    let zo = build().await;
    let worker = b.worker(&zo, 1);
    let (yes, no, off, host) = (
        b.submit(&zo, "yes").await,
        b.submit(&zo, "no").await,
        b.submit(&zo, "off").await,
        b.submit(&zo, "host").await,
    );
    let talk = b.submit(&zo, "small talk").await;
    assert_eq!(b.reply(&zo, talk).await.unwrap().text, "hello", "one at a time, and four wait");
    let of = |zo: &Zo, text: &str| {
        let all = zo.approvals().unwrap();
        all.into_iter().find(|a| a.call.args["to"] == text).unwrap()
    };
    // A restart, an hour.
    worker.abort();
    assert!(worker.await.is_err());
    drop(zo);
    let zo = build().await;
    let worker = b.worker(&zo, 1);
    for _ in 0..180 {
        b.clock.advance(Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(b.view(yes).await.attempts, 2, "waiting costs no attempts");
    assert_eq!(model.asked().len(), 5, "and asks nobody");

    zo.approve(&of(&zo, "yes"), "ada").await.unwrap();
    b.pass_until(yes, Duration::from_millis(1_100), |s| matches!(s, JobState::Done(_))).await;
    assert_eq!(b.reply(&zo, yes).await.unwrap().text, "sent");
    zo.deny(&of(&zo, "no"), "not now", "ada").await.unwrap();
    b.pass_until(no, Duration::from_millis(1_100), |s| matches!(s, JobState::Done(_))).await;
    assert!(b.reply(&zo, no).await.unwrap().text.contains("not now"));
    // The host may take it up by itself.
    let run = zo.approve(&of(&zo, "host"), "ada").await.unwrap();
    let resumed = zo.resume(&run).reply().await.unwrap();
    b.pass_until(host, Duration::from_millis(1_100), |s| matches!(s, JobState::Done(_))).await;
    assert_eq!(b.reply(&zo, host).await.unwrap(), resumed);
    b.pool.cancel(&b.cx, &[off]).await.unwrap();
    b.pass_until(off, Duration::from_secs(2), |s| *s == JobState::Cancelled).await;
    assert!(zo.approvals().unwrap().is_empty() && zo.unfinished().unwrap().is_empty());
    assert_eq!(*log.lock().unwrap(), ["yes", "host"]);
    worker.abort();
}

/// A tool that hands its questions to the pool, and does not wait.
fn fan(b: &Bench, zo: &Arc<OnceLock<Zo>>, asks: Vec<Ask>, jobs: &Arc<Mutex<Vec<JobId>>>) -> RawTool {
    let (pool, zo, jobs) = (b.pool.clone(), zo.clone(), jobs.clone());
    tool("fan", move |cx: Cx, _| {
        let (pool, zo, jobs, asks) = (pool.clone(), zo.clone(), jobs.clone(), asks.clone());
        async move {
            let new = zo.get().unwrap().submit_all(&cx, &pool, asks).await?;
            *jobs.lock().unwrap() = new;
            Ok(ToolOutput::text("handed out"))
        }
    })
    .effect(Effect::Idempotent)
}

fn fanning() -> Scripted {
    Scripted::by(|r| match (asked(r).as_str(), r.messages.last().unwrap().role.clone()) {
        (_, Role::Tool) => Turn::text(&r.messages.last().unwrap().results().next().unwrap().content.clone()),
        ("fan out", _) => Turn::calls([("1", "fan", json!({}))]),
        (text, _) => Turn::calls([("1", "mail", json!({"to": text}))]),
    })
}

#[tokio::test]
async fn a_pooled_child_may_not_do_what_its_parent_may_not() {
    let b = Bench::new();
    let (log, hang) = (Log::default(), Arc::default());
    let (cell, jobs) = (Arc::new(OnceLock::new()), Arc::default());
    let fan = fan(&b, &cell, vec![Ask::new("", "the boss")], &jobs);
    let zo = b.zo(&fanning()).skill(mail(&log, &hang)).skill(fan).build().await.unwrap();
    cell.set(zo.clone()).unwrap();
    let no_mail = Permissions::default().rule(Rule::deny().tool("mail"));
    let parent = Ask::new("c", "fan out").permissions(no_mail).scope("user/7");
    assert_eq!(zo.ask_with(&b.cx, parent).await.unwrap().text, "handed out");
    let job = jobs.lock().unwrap()[0];
    assert_eq!(b.view(job).await.job.tenant, "user/7", "it is about the same person");
    let worker = b.worker(&zo, 1);
    let reply = b.reply(&zo, job).await.unwrap();
    assert_eq!(statuses(&reply), [ToolStatus::Denied], "{reply:?}");
    let free = b.submit(&zo, "the boss").await;
    assert_eq!(b.reply(&zo, free).await.unwrap().text, "sent", "it was the parent's permissions");
    assert_eq!(log.lock().unwrap().len(), 1);
    worker.abort();
}

#[tokio::test]
async fn pooled_children_spend_from_their_parents_ledgers() {
    let b = Bench::new();
    let (log, hang) = (Log::default(), Arc::default());
    let (cell, jobs) = (Arc::new(OnceLock::new()), Arc::default());
    let asks = (0..50).map(|n| Ask::new("", format!("mail {n}"))).collect();
    let fan = fan(&b, &cell, asks, &jobs);
    let zo = b.zo(&fanning()).skill(mail(&log, &hang)).skill(fan).build().await.unwrap();
    cell.set(zo.clone()).unwrap();
    drop(zo.open_ledger("team", Limits::none().steps(1_000)).await.unwrap());
    // Two steps are its own; the children have the other twenty, and it is over before they begin.
    let parent = Ask::new("c", "fan out").ledger("team").limits(Limits::none().steps(22));
    let parent = zo.ask_with(&b.cx, parent).await.unwrap();
    let (of_latest, jobs) = (jobs.clone(), jobs.lock().unwrap().clone());
    let worker = b.worker(&zo, 16);
    let mut replies = zo.pooled_replies(&b.cx, Arc::new(b.pool.clone()), &jobs).await;
    let (mut steps, mut refused) = (0, 0);
    while let Some((_, reply)) = soon(replies.next()).await {
        match reply {
            Ok(reply) => steps += reply.steps,
            Err(e) => {
                assert!(e.message().contains("steps"), "{e}");
                refused += 1;
            }
        }
    }
    let ledgers: HashMap<String, _> = zo.ledgers().unwrap().into_iter().map(|l| (l.id.clone(), l)).collect();
    let shared = &ledgers[&format!("pool/{}", parent.run)];
    assert_eq!(shared.limits.steps, Some(21), "what was left when it asked");
    assert_eq!(shared.spent.steps, 21, "and no more, for all fifty together");
    assert_eq!(ledgers["team"].spent.steps, 2 + 21);
    assert!(refused >= 29 && steps <= 21, "{refused} refused, {steps} steps");
    worker.abort();

    // An agent that does not know the ledgers does not work without them.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = b.zo_in(&fanning(), elsewhere.path()).skill(mail(&log, &hang)).build().await.unwrap();
    let ask = Ask::new("", "mail x").ledger("team");
    let job = zo.submit_all(&b.cx, &b.pool, [ask]).await.unwrap()[0];
    zo.ask_with(&b.cx, Ask::new("d", "fan out").limits(Limits::none().steps(9))).await.unwrap();
    let child = of_latest.lock().unwrap()[0];
    let worker = b.worker(&other, 1);
    assert!(b.reply(&zo, job).await.unwrap_err().message().contains("team"));
    assert!(b.reply(&zo, child).await.unwrap_err().message().contains("ledger \"pool/"));
    worker.abort();
}

#[tokio::test]
async fn what_no_worker_could_hold_to_is_refused() {
    let b = Bench::new();
    let zo = b.zo(&mailing()).build().await.unwrap();
    let rich = b.cx.clone().with_budget(zo_core::Budget::new(Limits::none().steps(3)));
    let kind = async |cx: &Cx, ask| zo.submit_all(cx, &b.pool, [ask]).await.unwrap_err().kind();
    assert_eq!(kind(&rich, Ask::new("", "x")).await, ErrorKind::Unsupported);
    assert_eq!(kind(&b.cx, Ask::new("", "")).await, ErrorKind::Invalid);
    assert_eq!(kind(&b.cx, Ask::new("", "x").persona("nobody")).await, ErrorKind::NotFound);
    let e = zo.work(&rich, Arc::new(b.pool.clone()), Worker::new("w", ["zo.ask"]), 1).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert!(b.pool.query(&b.cx, &JobQuery::default()).await.unwrap().is_empty());
}

/// A pool that cannot be told some things.
#[derive(Debug)]
struct Broken {
    pool: RamPool,
    /// No sign of life gets through, and no second attempt is given.
    deaf: AtomicBool,
    /// No outcome does.
    mute: bool,
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "pool", "not reachable")
}

#[async_trait]
impl ComputeBackend for Broken {
    fn capabilities(&self) -> PoolCapabilities {
        self.pool.capabilities()
    }
    async fn submit(&self, cx: &Cx, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        self.pool.submit(cx, jobs).await
    }
    async fn claim(&self, cx: &Cx, worker: &Worker, max: usize) -> Result<Vec<Lease>> {
        let leases = self.pool.claim(cx, worker, max).await?;
        // The first is given, and then nothing is heard of it.
        if leases.iter().any(|l| l.token.attempt > 1) {
            soon(async {
                while self.deaf.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
        }
        Ok(leases)
    }
    async fn heartbeat(&self, cx: &Cx, beats: &[Beat]) -> Result<Vec<LeaseState>> {
        if self.deaf.load(Ordering::SeqCst) {
            return Err(down());
        }
        self.pool.heartbeat(cx, beats).await
    }
    async fn finish(&self, cx: &Cx, outcomes: Vec<(LeaseToken, Outcome)>) -> Result<Vec<Finished>> {
        if self.mute { Err(down()) } else { self.pool.finish(cx, outcomes).await }
    }
    async fn cancel(&self, cx: &Cx, jobs: &[JobId]) -> Result<usize> {
        self.pool.cancel(cx, jobs).await
    }
    async fn query(&self, cx: &Cx, query: &JobQuery) -> Result<Vec<JobView>> {
        self.pool.query(cx, query).await
    }
    async fn events(&self, cx: &Cx, from: u64) -> Result<BoxStream<Result<JobEvent>>> {
        self.pool.events(cx, from).await
    }
    async fn tick(&self, cx: &Cx) -> Result<Option<Timestamp>> {
        self.pool.tick(cx).await
    }
}
