//! Kills and power losses: nothing acknowledged is lost, and what shared a closure comes together or not at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use zo_store::{Options, Scan, Store, Table, Urgency, fault::FaultDisk};
use zo_testkit::kill::Victim;
use zo_traits::ErrorKind;

const LEFT: Table = Table::new("crash.left");
const RIGHT: Table = Table::new("crash.right");

/// Every write makes the same key in both tables.
fn check(store: &Store, acked: &BTreeSet<u64>, at: &str) -> BTreeSet<u64> {
    let keys = |table| -> BTreeSet<u64> {
        let rows = store.read(|s| s.collect(table, &Scan::all())).unwrap_or_else(|e| panic!("{at}: {e}"));
        for (k, v) in &rows {
            assert!(v.chunks(8).all(|c| c == k), "{at}: a value is not what was written");
        }
        rows.iter().map(|(k, _)| u64::from_be_bytes(k[..].try_into().unwrap())).collect()
    };
    let (left, right) = (keys(LEFT), keys(RIGHT));
    assert_eq!(left, right, "{at}: half of a write is there");
    let lost: Vec<_> = acked.difference(&left).collect();
    assert!(lost.is_empty(), "{at}: acknowledged and lost: {lost:?}");
    left
}

async fn put(store: &Store, n: u64, words: usize) -> zo_traits::Result<()> {
    store
        .write(move |tx| {
            let key = n.to_be_bytes();
            tx.put(LEFT, &key, &key.repeat(words))?;
            tx.put(RIGHT, &key, &key.repeat(words % 7))
        })
        .await
}

/// The child: it writes from eight tasks and prints each number once it is acknowledged, until it is killed.
#[test]
#[ignore = "the victim of kill_9_loses_nothing_acknowledged"]
fn crash_victim() {
    let Ok(path) = std::env::var("ZO_CRASH_PATH") else { return };
    let from: u64 = std::env::var("ZO_CRASH_FROM").unwrap().parse().unwrap();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(async {
        let store = Store::open(path).unwrap();
        println!("open");
        let tasks: Vec<_> = (0..8)
            .map(|i| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in (from + i..).step_by(8) {
                        put(&store, n, (n % 200) as usize).await.unwrap();
                        let mut out = std::io::stdout().lock();
                        writeln!(out, "ack {n}").and_then(|()| out.flush()).unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zo.db");
    let mut acked = BTreeSet::new();
    let (mut rounds_with_acks, mut reopened) = (0, Duration::ZERO);
    for round in 0..50u64 {
        let env = [
            ("ZO_CRASH_PATH", path.to_str().unwrap().to_owned()),
            ("ZO_CRASH_FROM", (round * 1_000_000).to_string()),
        ];
        let victim = Victim::respawn("crash_victim", &env);
        let lines = if round % 5 == 0 {
            // At any moment, of opening too.
            victim.kill_after(Duration::from_millis(round * 2))
        } else {
            victim.kill_at(&format!("ack {}", round * 1_000_000 + (round * 37) % 400))
        };
        let fresh: Vec<u64> =
            lines.iter().filter_map(|l| l.split_once("ack ")).map(|(_, n)| n.parse().unwrap()).collect();
        rounds_with_acks += usize::from(!fresh.is_empty());
        acked.extend(fresh);
        let start = std::time::Instant::now();
        let store = Store::open(&path).unwrap_or_else(|e| panic!("round {round}: {e}"));
        reopened += start.elapsed();
        check(&store, &acked, &format!("round {round}"));
    }
    assert!(rounds_with_acks >= 35, "only {rounds_with_acks} rounds got as far as an acknowledgement");
    println!(
        "50 kills, {} acknowledged writes, none lost; reopened in {:?} on average",
        acked.len(),
        reopened / 50
    );
}

/// Writes from several tasks until the power goes; returns what was acknowledged.
fn work_until_power_fails(
    runtime: &tokio::runtime::Runtime,
    disk: &FaultDisk,
    from: u64,
    after: u64,
) -> BTreeSet<u64> {
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    let Ok(store) = Store::open_with_backend(disk.clone(), Options::default()) else {
        return BTreeSet::new();
    };
    disk.cut_power_after(after);
    runtime.block_on(async {
        let tasks: Vec<_> = (0..4)
            .map(|i| {
                let (store, acked) = (store.clone(), acked.clone());
                tokio::spawn(async move {
                    for n in (from + i..from + 400).step_by(4) {
                        let words = if n % 50 == 0 { 3000 } else { (n % 60) as usize };
                        match put(&store, n, words).await {
                            Ok(()) => acked.lock().unwrap().insert(n),
                            Err(e) => {
                                assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
                                return;
                            }
                        };
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    drop(store);
    Arc::into_inner(acked).unwrap().into_inner().unwrap()
}

#[test]
fn power_loss_at_any_operation_loses_nothing_acknowledged() {
    let points: u64 = std::env::var("ZO_CRASH_POINTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // A store that grows over the rounds, so that pages are freed and used again.
    let mut base = FaultDisk::new();
    let mut acked = BTreeSet::new();
    drop(Store::open_with_backend(base.clone(), Options::default()).unwrap());
    let (mut done, mut partly) = (0, 0);
    let mut round = 0;
    while done < points {
        let from = round * 1000;
        let disk = FaultDisk::with_image(base.image());
        let fresh = work_until_power_fails(&runtime, &disk, from, round * 7 % 160);
        let expected: BTreeSet<u64> = acked.union(&fresh).copied().collect();
        // Each cut has many possible outcomes.
        for seed in 0..8 {
            let after = FaultDisk::with_image(disk.survivors(round * 8 + seed));
            let store = Store::open_with_backend(after.clone(), Options::default())
                .unwrap_or_else(|e| panic!("round {round} seed {seed}: {e}"));
            let found = check(&store, &expected, &format!("round {round} seed {seed}"));
            partly += usize::from(found.len() > expected.len());
            done += 1;
            if seed == 7 {
                // The store must still be good for writing.
                runtime.block_on(put(&store, from + 999, 5)).unwrap();
                drop(store);
                if round % 3 == 0 {
                    acked = found;
                    acked.insert(from + 999);
                    base = after;
                }
            }
        }
        round += 1;
        if round % 64 == 0 {
            base = FaultDisk::new();
            acked.clear();
        }
    }
    println!("{done} power losses, none lost anything; in {partly} an unacknowledged write survived whole");
    assert!(partly > 0, "the cuts never hit a commit in flight");
}

/// Queues writes of every kind until the power goes and beyond; returns what was reported as durable.
fn queue_until_power_fails(
    runtime: &tokio::runtime::Runtime,
    disk: &FaultDisk,
    round: u64,
    after: u64,
) -> BTreeSet<u64> {
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    let mut options = Options::default().idle_linger(Duration::from_millis(round % 3));
    if round.is_multiple_of(2) {
        options = options.max_batch(5);
    }
    let store = Store::open_with_backend(disk.clone(), options).unwrap();
    disk.cut_power_after(after);
    runtime.block_on(async {
        for n in 0..QUEUED {
            // Some fail after they wrote, which makes the rest of their batch go again.
            let fails = n % 31 == 13;
            let work = move |tx: &mut zo_store::Tx<'_>| {
                let key = n.to_be_bytes();
                tx.put(LEFT, &key, &key.repeat((n % 60) as usize))?;
                tx.put(RIGHT, &key, &key)?;
                if fails { Err(zo_traits::Error::new(ErrorKind::Invalid, "test", "no")) } else { Ok(()) }
            };
            let (acked, told) = (acked.clone(), told.clone());
            let done = move |result: zo_traits::Result<()>| {
                assert!(told.lock().unwrap().insert(n), "told twice");
                if result.is_ok() {
                    acked.lock().unwrap().insert(n);
                }
            };
            match (n + round) % 9 {
                0 => store.queue(Urgency::Now, work, done).await.unwrap(),
                1 => store.queue_unbounded(Urgency::Soon, work, done),
                _ => store.queue(Urgency::Soon, work, done).await.unwrap(),
            }
            match (n * 7 + round) % 40 {
                0 => store.hurry(),
                1 => tokio::time::sleep(Duration::from_micros(1500)).await,
                // The write of nothing waits for all before it.
                2 if store.write(|_| Ok(())).await.is_err() => {}
                _ => {}
            }
        }
    });
    drop(store);
    let told = Arc::into_inner(told).unwrap().into_inner().unwrap();
    assert!(told.into_iter().eq(0..QUEUED), "somebody was never told");
    Arc::into_inner(acked).unwrap().into_inner().unwrap()
}

const QUEUED: u64 = 200;

#[test]
fn power_loss_leaves_a_prefix_of_the_queue_and_all_that_was_reported() {
    let points: u64 = std::env::var("ZO_CRASH_POINTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (mut round, mut some, mut beyond) = (0, 0, 0);
    while round * 8 < points {
        let disk = FaultDisk::new();
        let acked = queue_until_power_fails(&runtime, &disk, round, round * 11 % 300);
        for seed in 0..8 {
            let at = format!("round {round} seed {seed}");
            let after = FaultDisk::with_image(disk.survivors(round * 8 + seed));
            let store =
                Store::open_with_backend(after, Options::default()).unwrap_or_else(|e| panic!("{at}: {e}"));
            let rows = |table| -> Vec<u64> {
                let rows = store.read(|s| s.collect(table, &Scan::all())).unwrap();
                rows.iter().map(|(k, _)| u64::from_be_bytes(k[..].try_into().unwrap())).collect()
            };
            let (left, right) = (rows(LEFT), rows(RIGHT));
            assert_eq!(left, right, "{at}: half of a write is there");
            let good = (0..QUEUED).filter(|n| n % 31 != 13);
            assert!(good.take(left.len()).eq(left.iter().copied()), "{at}: not a prefix: {left:?}");
            assert!(acked.len() <= left.len(), "{at}: reported and lost: {acked:?}, there {left:?}");
            some += usize::from(!left.is_empty() && left.len() < 150);
            beyond += usize::from(left.len() > acked.len());
        }
        round += 1;
    }
    println!("{} power losses; {some} in mid-queue, {beyond} with more than was reported", round * 8);
    assert!(some > 0 && beyond > 0, "the cuts never hit the queue: {some} {beyond}");
}

#[test]
fn a_failed_write_or_sync_at_any_operation_loses_nothing_acknowledged() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for at in 1..60 {
        for sync in [false, true] {
            let disk = FaultDisk::new();
            let store = Store::open_with_backend(disk.clone(), Options::default()).unwrap();
            if sync {
                disk.fail_sync(at)
            } else {
                disk.fail_write(at)
            }
            let mut acked = BTreeSet::new();
            for n in 0..60 {
                match runtime.block_on(put(&store, n, 50)) {
                    Ok(()) => {
                        acked.insert(n);
                    }
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}"),
                }
            }
            drop(store);
            // The process goes on, the disk has recovered; or the power goes as well.
            for image in [disk.image(), disk.survivors(at * 4 + 3)] {
                let store =
                    Store::open_with_backend(FaultDisk::with_image(image), Options::default()).unwrap();
                check(&store, &acked, &format!("at {at}, sync {sync}"));
            }
        }
    }
}

#[test]
fn a_crash_while_the_file_is_made_leaves_nothing_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..12u64 {
        let path = folder.path().join(format!("new-{round}.db"));
        let env = [("ZO_CRASH_PATH", path.to_str().unwrap().to_owned()), ("ZO_CRASH_FROM", "0".to_owned())];
        Victim::respawn("crash_victim", &env).kill_after(Duration::from_millis(round * 3));
        let store = Store::open(&path).unwrap_or_else(|e| panic!("round {round}: {e}"));
        store.write_blocking(|tx| tx.put(LEFT, b"", b"")).unwrap();
    }
}

/// The child: it opens the store, says so, and waits to be killed.
#[test]
#[ignore = "the other process of a_second_process_is_a_conflict"]
fn crash_holder() {
    let Ok(path) = std::env::var("ZO_CRASH_PATH") else { return };
    let _store = Store::open(path).unwrap();
    println!("open");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_second_process_is_a_conflict_until_it_dies() {
    use std::{
        io::BufRead,
        process::{Command, Stdio},
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zo.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash_holder", "--exact", "--nocapture", "--include-ignored"])
        .env("ZO_CRASH_PATH", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("open") {}
    let e = Store::open(Path::new(&path)).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert!(e.message().contains("another process"), "{e}");
    Store::open(&path).unwrap();
}
