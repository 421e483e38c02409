//! Writes that nobody waits for: when they are committed, in which order, and who is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use zo_store::{
    Options, Scan, Store, Table, Tx,
    Urgency::{Now, Soon},
    fault::FaultDisk,
};
use zo_traits::{Error, ErrorKind, Result};

const A: Table = Table::new("queue.a");
/// Longer than any test may take.
const NEVER: Duration = Duration::from_secs(3600);
/// Longer than anything that is to happen soon takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn lingering(linger: Duration) -> (Store, FaultDisk) {
    let disk = FaultDisk::new();
    let options = Options::default().idle_linger(linger);
    (Store::open_with_backend(disk.clone(), options).unwrap(), disk)
}

fn no() -> Error {
    Error::new(ErrorKind::Invalid, "test", "no")
}

/// Writes its number under the number of rows so far: the keys are the order of the commits.
fn append(n: u64) -> impl FnMut(&mut Tx<'_>) -> Result<u64> + Send + 'static {
    move |tx| {
        let at = tx.len(A)?;
        tx.put(A, &at.to_be_bytes(), &n.to_be_bytes())?;
        Ok(n)
    }
}

fn appended(store: &Store) -> Vec<u64> {
    let rows = store.read(|s| s.collect(A, &Scan::all())).unwrap();
    rows.iter().map(|(_, v)| u64::from_be_bytes(v[..].try_into().unwrap())).collect()
}

type Told = (u64, Result<u64>);

fn tell(to: &Sender<Told>, n: u64) -> impl FnOnce(Result<u64>) + Send + 'static {
    let to = to.clone();
    move |result| to.send((n, result)).unwrap()
}

fn all(told: &Receiver<Told>) -> Vec<Told> {
    told.try_iter().collect()
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(out) => Some(out),
        Poll::Pending => None,
    }
}

/// Occupies the writer until the sender is dropped.
fn gate(store: &Store) -> Sender<()> {
    let (open, closed) = mpsc::channel::<()>();
    let (began, begin) = mpsc::channel();
    store.queue_unbounded(
        Now,
        move |_| {
            let _ = began.send(());
            let _ = closed.recv();
            Ok(())
        },
        |_| {},
    );
    begin.recv().unwrap();
    open
}

#[tokio::test]
async fn the_order_of_the_queue_is_the_order_of_the_writes_whatever_their_urgency() {
    let (store, _) = lingering(Duration::from_millis(1));
    let (to, told) = mpsc::channel();
    for n in 0..2000u64 {
        match n % 7 {
            0 | 5 => store.queue(Now, append(n), tell(&to, n)).await.unwrap(),
            3 => store.queue_unbounded(Soon, append(n), tell(&to, n)),
            6 if n % 5 == 0 => {
                assert_eq!(store.write(append(n)).await.unwrap(), n);
                to.send((n, Ok(n))).unwrap();
            }
            _ => store.queue(Soon, append(n), tell(&to, n)).await.unwrap(),
        }
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    store.write(|_| Ok(())).await.unwrap();
    assert_eq!(appended(&store), (0..2000).collect::<Vec<_>>());
    let told: Vec<u64> = all(&told)
        .into_iter()
        .map(|(n, result)| result.map(|m| assert_eq!(m, n)).map(|()| n))
        .collect::<Result<_>>()
        .unwrap();
    assert_eq!(told, (0..2000).collect::<Vec<_>>(), "each is told once, in order");
}

#[tokio::test]
async fn an_urgent_write_takes_along_what_was_queued_before_it_in_one_commit() {
    let (store, disk) = lingering(NEVER);
    store.write(append(0)).await.unwrap();
    for round in 1..20u64 {
        let (commits, syncs) = (store.sequence(), disk.counts().syncs);
        let (to, told) = mpsc::channel();
        // Never as many as before: company that does not come back is not waited for either.
        for n in 0..round % 5 {
            store.queue(Soon, append(n), tell(&to, n)).await.unwrap();
        }
        assert_eq!((store.sequence(), disk.counts().syncs), (commits, syncs), "nothing is committed yet");
        store.write(append(99)).await.unwrap();
        assert_eq!((store.sequence(), disk.counts().syncs), (commits + 1, syncs + 1));
        assert_eq!(all(&told).len() as u64, round % 5, "whoever was before it was told before it");
    }
}

#[tokio::test]
async fn a_writer_with_company_that_can_wait_never_lingers() {
    let options = Options::default().linger(SOON).idle_linger(NEVER);
    let store = Store::open_with_backend(FaultDisk::new(), options).unwrap();
    let start = Instant::now();
    for n in 0..30u64 {
        for _ in 0..[5, 0, 2][n as usize % 3] {
            store.queue(Soon, append(n), |_| {}).await.unwrap();
        }
        store.write(append(n)).await.unwrap();
    }
    assert!(start.elapsed() < SOON);
}

#[test]
fn what_can_wait_waits_and_not_for_longer_than_it_may() {
    let (store, _) = lingering(Duration::from_millis(30));
    let (to, told) = mpsc::channel();
    for n in 0..6 {
        let start = Instant::now();
        store.queue_unbounded(Soon, append(n), tell(&to, n));
        told.recv_timeout(SOON).unwrap().1.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(30), "it had time for company");
        // Into each way in which the writer sleeps: right after a commit, and after a long while.
        std::thread::sleep(Duration::from_millis([0, 20, 100][n as usize % 3]));
    }
    // A stream of them does not put the commit off.
    let (to, told) = mpsc::channel();
    let start = Instant::now();
    let mut n = 0;
    while told.try_recv().is_err() {
        assert!(start.elapsed() < SOON, "put off for ever");
        store.queue_unbounded(Soon, append(n), tell(&to, n));
        n += 1;
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(n > 1);
}

#[test]
fn hurry_ends_the_wait_and_means_nothing_to_what_comes_later() {
    let (store, _) = lingering(NEVER);
    let (to, told) = mpsc::channel();
    for round in 0..3 {
        // With nothing queued.
        store.hurry();
        for n in 0..4 {
            store.queue_unbounded(Soon, append(n), tell(&to, n));
        }
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "committed before it was told to");
        store.hurry();
        for _ in 0..4 {
            told.recv_timeout(SOON).unwrap().1.unwrap();
        }
        assert_eq!(store.sequence(), round + 1);
    }
}

#[test]
fn a_hurry_while_the_writer_is_busy_counts_too() {
    let (store, _) = lingering(NEVER);
    let (to, told) = mpsc::channel();
    let open = gate(&store);
    store.queue_unbounded(Soon, append(1), tell(&to, 1));
    store.hurry();
    drop(open);
    told.recv_timeout(SOON).unwrap().1.unwrap();
}

#[test]
fn more_than_a_batch_is_committed_at_once_and_whole() {
    let options = Options::default().idle_linger(NEVER).max_batch(4);
    let store = Store::open_with_backend(FaultDisk::new(), options).unwrap();
    let (to, told) = mpsc::channel();
    for n in 0..4 {
        store.queue_unbounded(Soon, append(n), tell(&to, n));
    }
    for _ in 0..4 {
        told.recv_timeout(SOON).unwrap().1.unwrap();
    }
    // Two batches and a half: a hurry is for all that is queued.
    let open = gate(&store);
    for n in 4..14 {
        store.queue_unbounded(Soon, append(n), tell(&to, n));
    }
    store.hurry();
    drop(open);
    for _ in 4..14 {
        told.recv_timeout(SOON).unwrap().1.unwrap();
    }
    assert_eq!(appended(&store), (0..14).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_last_handle_commits_what_still_lingers_and_tells() {
    for close in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zo.db");
        let options = Options::default().idle_linger(NEVER);
        let store = Store::open_with(&path, options).unwrap();
        let (to, told) = mpsc::channel();
        for n in 0..50 {
            store.queue(Soon, append(n), tell(&to, n)).await.unwrap();
        }
        assert!(all(&told).is_empty());
        if close {
            store.close().await.unwrap()
        } else {
            drop(store)
        }
        let told: Vec<u64> = all(&told).into_iter().map(|(_, result)| result.unwrap()).collect();
        assert_eq!(told, (0..50).collect::<Vec<_>>());
        assert_eq!(appended(&Store::open(&path).unwrap()), (0..50).collect::<Vec<_>>());
    }
}

#[test]
fn a_done_may_hold_the_last_handle_and_queue_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zo.db");
    let store = Store::open_with(&path, Options::default().idle_linger(NEVER)).unwrap();
    let (to, told) = mpsc::channel();
    let held = store.clone();
    store.queue_unbounded(Soon, append(1), move |_| {
        // Without another handle it is this thread that closes the store, after this write.
        held.queue_unbounded(Soon, append(2), tell(&to, 2));
        held.hurry();
    });
    store.hurry();
    drop(store);
    assert_eq!(told.recv_timeout(SOON).unwrap().1.unwrap(), 2);
    let start = Instant::now();
    let store = loop {
        match Store::open(&path) {
            Ok(store) => break store,
            Err(e) => assert!(e.kind() == ErrorKind::Conflict && start.elapsed() < SOON, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(appended(&store), [1, 2]);
}

#[tokio::test]
async fn one_that_fails_harms_no_other_and_a_panicking_done_neither() {
    let (store, _) = lingering(NEVER);
    let (to, told) = mpsc::channel();
    for n in 0..100u64 {
        let work = move |tx: &mut Tx<'_>| match n % 6 {
            1 => Err(no()),
            2 => append(n)(tx).and(Err(no())),
            3 => panic!("before"),
            4 => {
                append(n)(tx)?;
                panic!("after");
            }
            _ => append(n)(tx),
        };
        let tell = tell(&to, n);
        let done = move |result| {
            tell(result);
            assert!(n % 4 != 0, "a careless caller");
        };
        store.queue(Soon, work, done).await.unwrap();
    }
    store.write(append(100)).await.unwrap();
    let kept = |n: &u64| matches!(n % 6, 0 | 5);
    assert_eq!(appended(&store), (0..100).filter(kept).chain([100]).collect::<Vec<_>>());
    let told = all(&told);
    assert!(told.iter().map(|(n, _)| *n).eq(0..100), "each is told once, in order");
    for (n, result) in told {
        match (n % 6, result) {
            (0 | 5, result) => assert_eq!(result.unwrap(), n),
            (1 | 2, result) => assert_eq!(result.unwrap_err().message(), "no"),
            (_, result) => assert!(result.unwrap_err().message().contains("panicked")),
        }
    }
}

#[tokio::test]
async fn when_the_engine_breaks_everybody_is_told_once() {
    let (store, disk) = lingering(NEVER);
    let (to, told) = mpsc::channel();
    store.write(append(0)).await.unwrap();
    for n in 0..10 {
        store.queue(Soon, append(n), tell(&to, n)).await.unwrap();
    }
    disk.fail_sync(1);
    store.write(append(10)).await.unwrap_err();
    for n in 10..20 {
        store.queue(Soon, append(n), tell(&to, n)).await.unwrap();
    }
    store.hurry();
    for n in 20..30 {
        store.queue_unbounded(if n < 25 { Now } else { Soon }, append(n), tell(&to, n));
    }
    drop(store);
    drop(to);
    let told: Vec<Told> = told.iter().collect();
    assert!(told.iter().map(|(n, _)| *n).eq(0..30), "{told:?}");
    for (_, result) in told {
        let e = result.unwrap_err();
        assert!(e.kind() == ErrorKind::Unavailable && e.message().contains("reopened"), "{e}");
    }
}

#[tokio::test]
async fn a_full_queue_is_committed_rather_than_waited_for() {
    let options = Options::default().idle_linger(NEVER).max_queue(3);
    let store = Store::open_with_backend(FaultDisk::new(), options).unwrap();
    let work = async {
        for n in 0..100 {
            store.queue(Soon, append(n), |_| {}).await.unwrap();
        }
        store.write(append(100)).await.unwrap();
    };
    tokio::time::timeout(SOON, work).await.expect("those who linger keep out who would end it");
    assert_eq!(appended(&store), (0..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_bound_holds_for_those_who_wait_and_comes_back_after_it_was_exceeded() {
    let options = Options::default().idle_linger(NEVER).max_queue(2);
    let store = Store::open_with_backend(FaultDisk::new(), options).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    for round in 0..3u64 {
        let open = gate(&store);
        let queue = |n: u64| {
            let told = told.clone();
            Box::pin(store.queue(Soon, append(n), move |result| told.lock().unwrap().push(result.unwrap())))
        };
        for n in 0..2 {
            poll_once(queue(round * 10 + n).as_mut()).expect("there is room").unwrap();
        }
        let (mut dropped, mut kept) = (queue(666), queue(round * 10 + 5));
        assert!(poll_once(dropped.as_mut()).is_none(), "there is no room");
        assert!(poll_once(kept.as_mut()).is_none());
        for n in 2..5 {
            let told = told.clone();
            store.queue_unbounded(Soon, append(round * 10 + n), move |result| {
                told.lock().unwrap().push(result.unwrap());
            });
        }
        assert!(poll_once(kept.as_mut()).is_none());
        drop(dropped);
        drop(open);
        tokio::time::timeout(SOON, kept).await.expect("there is room again").unwrap();
        store.write(|_| Ok(())).await.unwrap();
    }
    let expected: Vec<u64> = (0..3).flat_map(|round| round * 10..round * 10 + 6).collect();
    assert_eq!(appended(&store), expected, "what was dropped before it had room is not there");
    assert_eq!(*told.lock().unwrap(), expected, "nor is anybody told of it");
}

#[test]
fn a_closure_is_gone_before_its_answer_is_told() {
    let (store, _) = lingering(NEVER);
    let alive = Arc::new(());
    let (in_work, in_done) = (alive.clone(), alive.clone());
    let (to, told) = mpsc::channel();
    store.queue_unbounded(
        Soon,
        move |tx| {
            let _ = &in_work;
            append(0)(tx)
        },
        move |_| {
            to.send(Arc::strong_count(&in_done)).unwrap();
        },
    );
    store.hurry();
    assert_eq!(told.recv_timeout(SOON).unwrap(), 2, "the closure is dropped before its answer is told");
    drop(store);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn no_wake_up_is_ever_missed() {
    // Every thread waits for its own write, so one bell that is not heard stops it for good.
    let options = Options::default().idle_linger(NEVER);
    let store = Store::open_with_backend(FaultDisk::new(), options).unwrap();
    std::thread::scope(|threads| {
        for thread in 0..4u64 {
            let store = &store;
            threads.spawn(move || {
                let (to, told) = mpsc::channel();
                for n in 0..1500u64 {
                    let urgency = if (n + thread) % 3 == 0 { Now } else { Soon };
                    store.queue_unbounded(urgency, |tx| tx.put(A, b"", b"").map(|()| 0), tell(&to, n));
                    if urgency == Soon {
                        store.hurry();
                    }
                    assert_eq!(told.recv_timeout(SOON).expect("the writer sleeps").0, n);
                }
            });
        }
    });
}
