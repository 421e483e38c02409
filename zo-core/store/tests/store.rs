//! What a store promises to one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use zo_store::{Options, Scan, Store, Table, fault::FaultDisk};
use zo_traits::{Error, ErrorKind, Result};

const A: Table = Table::new("test.a");
const B: Table = Table::new("test.b");

fn no() -> Error {
    Error::new(ErrorKind::Invalid, "test", "no")
}

fn on_disk() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zo.db");
    (folder, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_reopening() {
    let (_folder, path) = on_disk();
    let store = Store::open(&path).unwrap();
    let n = store.write(|tx| tx.put(A, b"k", b"v").map(|()| 7)).await.unwrap();
    assert_eq!(n, 7);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.read(|s| s.get(A, b"k")).unwrap().unwrap(), b"v");
    assert_eq!(
        store.read(|s| s.get(B, b"k")).unwrap(),
        None,
        "a table that was never written reads as empty"
    );
    store.close().await.unwrap();
    Store::open(&path).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_its_owners_alone_and_leaves_no_other() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = on_disk();
    let _store = Store::open(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn without_the_folder_there_is_no_file() {
    let (_folder, path) = on_disk();
    let e = Store::open(path.join("deeper")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    let e = Store::open(path.parent().unwrap()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_closure_takes_no_other_with_it() {
    let disk = FaultDisk::new();
    disk.set_sync_time(Duration::from_millis(2));
    let store = Store::open_with_backend(disk, Options::default()).unwrap();
    let mut tasks = Vec::new();
    for i in 0..200u64 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            store
                .write(move |tx| {
                    match i % 5 {
                        1 => return Err(no()),
                        2 => {
                            tx.put(A, &i.to_be_bytes(), b"must vanish")?;
                            return Err(no());
                        }
                        3 => panic!("before"),
                        4 => {
                            tx.put(A, &i.to_be_bytes(), b"must vanish")?;
                            panic!("after");
                        }
                        _ => {}
                    }
                    tx.put(A, &i.to_be_bytes(), b"")?;
                    Ok(i)
                })
                .await
        }));
    }
    for (i, task) in tasks.into_iter().enumerate() {
        let result = task.await.unwrap();
        match i % 5 {
            0 => assert_eq!(result.unwrap(), i as u64),
            1 | 2 => assert_eq!(result.unwrap_err().message(), "no"),
            _ => assert!(result.unwrap_err().message().contains("panicked"), "a panic is an error"),
        }
    }
    let rows = store.read(|s| s.collect(A, &Scan::all())).unwrap();
    let kept: BTreeSet<u64> =
        rows.iter().map(|(k, _)| u64::from_be_bytes(k[..].try_into().unwrap())).collect();
    assert_eq!(kept, (0..200).step_by(5).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn redoing_a_batch_is_bounded_work() {
    // Closures that succeed at first and fail, after writing, whenever they are run again.
    let disk = FaultDisk::new();
    disk.set_sync_time(Duration::from_millis(5));
    let store = Store::open_with_backend(disk, Options::default()).unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let gate = store.write(|_| {
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    });
    let mut tasks = vec![];
    for i in 0..60u64 {
        let (store, runs) = (store.clone(), runs.clone());
        tasks.push(tokio::spawn(async move {
            let mut mine = 0;
            store
                .write(move |tx| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    mine += 1;
                    tx.put(A, &i.to_be_bytes(), b"")?;
                    if mine > 1 || i == 59 { Err(no()) } else { Ok(()) }
                })
                .await
        }));
    }
    gate.await.unwrap();
    for task in tasks {
        let _ = task.await.unwrap();
    }
    let runs = runs.load(Ordering::Relaxed);
    assert!(runs <= 60 * 4, "{runs} runs of 60 closures");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_sees_those_before_it_in_its_batch() {
    let store = Store::in_memory().unwrap();
    let tasks: Vec<_> = (0..300)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .write(|tx| {
                        let n = tx.get(A, b"n")?.map_or(0, |v| u64::from_be_bytes(v[..].try_into().unwrap()));
                        tx.put(A, b"n", &(n + 1).to_be_bytes())?;
                        Ok(n)
                    })
                    .await
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        assert!(seen.insert(task.await.unwrap().unwrap()), "two closures read the same count");
    }
    assert_eq!(seen, (0..300).collect());
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was() {
    let store = Store::in_memory().unwrap();
    store.write(|tx| tx.put(A, b"1", b"old")).await.unwrap();
    let before = store.snapshot().unwrap();
    store
        .write(|tx| {
            tx.put(A, b"1", b"new")?;
            tx.put(A, b"2", b"")?;
            tx.put(B, b"", b"")
        })
        .await
        .unwrap();
    let copy = before.clone();
    drop(before);
    let (value, len, other) =
        std::thread::spawn(move || (copy.get(A, b"1").unwrap(), copy.len(A).unwrap(), copy.len(B).unwrap()))
            .join()
            .unwrap();
    assert_eq!((value.as_deref(), len, other), (Some(&b"old"[..]), 1, 0));
    assert_eq!(store.read(|s| s.len(A)).unwrap(), 2);
}

#[tokio::test]
async fn a_snapshot_does_not_keep_the_store_open() {
    let (_folder, path) = on_disk();
    let store = Store::open(&path).unwrap();
    store.write(|tx| tx.put(A, b"1", &[1; 1_000_000]).and(tx.put(B, b"1", &[1; 1_000_000]))).await.unwrap();
    drop(store);
    let store = Store::open_with(&path, Options::default().cache_bytes(0)).unwrap();
    let snapshot = store.snapshot().unwrap();
    drop(store);
    Store::open(&path).unwrap();
    assert_eq!(snapshot.get(B, b"1").unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_dropped_future_does_not_cancel_a_queued_write() {
    let (_folder, path) = on_disk();
    let store = Store::open(&path).unwrap();
    for i in 0..50u8 {
        let mut write = Box::pin(store.write(move |tx| tx.put(A, &[i], b"")));
        let _ = futures_poll_once(write.as_mut());
        drop(write);
    }
    drop(store.write(|tx| tx.put(A, b"never polled", b"")));
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.read(|s| s.len(A)).unwrap(), 50);
}

fn futures_poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut task) {
        std::task::Poll::Ready(out) => Some(out),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_free_as_soon_as_the_last_handle_is_gone() {
    let (_folder, path) = on_disk();
    for round in 0..30u8 {
        let store = Store::open(&path).unwrap();
        let clone = store.clone();
        // The closure holds a handle too: it must be gone when the write returns.
        let held = store.clone();
        store
            .write(move |tx| {
                let _ = &held;
                tx.put(A, &[round], b"")
            })
            .await
            .unwrap();
        drop(clone);
        if round % 2 == 0 { drop(store) } else { store.close().await.unwrap() }
    }
    assert_eq!(Store::open(&path).unwrap().read(|s| s.len(A)).unwrap(), 30);
}

#[test]
fn a_last_handle_on_the_writer_thread_closes_the_store_too() {
    let (_folder, path) = on_disk();
    let store = Store::open(&path).unwrap();
    let held = store.clone();
    let mut write = Box::pin(store.write(move |tx| {
        let _ = &held;
        std::thread::sleep(Duration::from_millis(20));
        tx.put(A, b"1", b"")
    }));
    assert!(futures_poll_once(write.as_mut()).is_none());
    drop(write);
    drop(store);
    for _ in 0..2000 {
        match Store::open(&path) {
            Ok(store) => return assert_eq!(store.read(|s| s.len(A)).unwrap(), 1),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the file was never released");
}

#[test]
#[cfg(target_os = "linux")]
fn a_closed_store_keeps_no_file_open() {
    let (_folder, path) = on_disk();
    let open_files = || {
        let handles = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        handles.filter(|f| std::fs::read_link(f.path()).is_ok_and(|target| target == path)).count()
    };
    let store = Store::open(&path).unwrap();
    assert!(open_files() > 0);
    store.write_blocking(|tx| tx.put(A, b"", b"")).unwrap();
    drop(store);
    assert_eq!(open_files(), 0);
}

#[test]
fn a_file_that_is_open_is_a_conflict() {
    let (_folder, path) = on_disk();
    let _store = Store::open(&path).unwrap();
    let e = Store::open(&path).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert!(e.message().contains("open already") && e.message().contains("zo.db"), "{e}");
}

#[test]
fn a_blocking_write_inside_a_closure_is_refused() {
    let store = Store::in_memory().unwrap();
    let inner = store.clone();
    let e = store.write_blocking(move |_| inner.write_blocking(|tx| tx.put(A, b"", b""))).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn watchers_hear_of_the_tables_they_watch() {
    let store = Store::in_memory().unwrap();
    let (mut a, b) = (store.watch(A), store.watch(B));
    assert_eq!(*a.borrow_and_update(), 0);
    store.write(|tx| tx.put(A, b"", b"")).await.unwrap();
    assert!(a.has_changed().unwrap() && !b.has_changed().unwrap());
    assert_eq!(*a.borrow_and_update(), 1);
    store.write(|tx| tx.put(B, b"", b"")).await.unwrap();
    assert_eq!((*a.borrow(), *b.borrow()), (1, 2));
    store.write(|tx| tx.get(A, b"")).await.unwrap();
    let _ = store.write(|tx| tx.put(A, b"", b"").and(Err::<(), _>(no()))).await;
    assert_eq!(store.sequence(), 2, "neither a read nor a failure is a commit");
    assert_eq!(*store.watch(A).borrow(), 1, "a late watcher knows the last commit");
    drop(store);
    assert!(a.changed().await.is_err(), "a closed store ends the watch");
}

#[tokio::test]
async fn a_write_that_changes_nothing_costs_no_sync() {
    let disk = FaultDisk::new();
    let store = Store::open_with_backend(disk.clone(), Options::default()).unwrap();
    store.write(|tx| tx.put(A, b"", b"")).await.unwrap();
    let before = disk.counts().syncs;
    for _ in 0..10 {
        store.write(|tx| tx.get(A, b"")).await.unwrap();
        assert!(!store.write(|tx| tx.delete(A, b"not there")).await.unwrap());
        let _ = store.write(|_| Err::<(), _>(no())).await;
    }
    assert_eq!(disk.counts().syncs, before);
}

#[tokio::test]
async fn schemas_are_set_migrated_and_guarded() {
    let (_folder, path) = on_disk();
    let store = Store::open(&path).unwrap();
    let never = |_: &mut zo_store::Tx<'_>, _| -> Result<()> { panic!("nothing to migrate") };
    store.require_schema("pool", 1, never).await.unwrap();
    store.require_schema("pool", 1, never).await.unwrap();
    store.require_schema("memory", 5, never).await.unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let e = store
        .require_schema("pool", 3, |tx, _| {
            tx.put(A, b"half", b"")?;
            Err(no())
        })
        .await
        .unwrap_err();
    assert_eq!(e.message(), "no");
    assert_eq!(store.read(|s| s.len(A)).unwrap(), 0, "a failed migration changes nothing");
    store
        .require_schema("pool", 3, |tx, from| {
            assert_eq!(from, 1);
            tx.put(A, b"migrated", b"")
        })
        .await
        .unwrap();
    assert_eq!(store.read(|s| s.len(A)).unwrap(), 1);
    let e = store.require_schema("pool", 2, never).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.message().contains("pool") && e.message().contains('3'), "{e}");
}

#[test]
fn a_file_of_another_program_or_a_newer_zo_is_told_apart() {
    let (_folder, path) = on_disk();
    std::fs::write(&path, b"SQLite format 3\0 and so on, for a while, as other files do").unwrap();
    let e = Store::open(&path).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");

    std::fs::remove_file(&path).unwrap();
    let db = redb::Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&str, u64>::new("theirs")).unwrap().insert("x", 1).unwrap();
    txn.commit().unwrap();
    drop(db);
    let e = Store::open(&path).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.message().contains("theirs"), "{e}");
    assert!(redb::Database::open(&path).is_ok(), "it was not touched");

    std::fs::remove_file(&path).unwrap();
    drop(Store::open(&path).unwrap());
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&[u8], &[u8]>::new("zo.schema"))
        .unwrap()
        .insert(&b"zo.store"[..], &2u32.to_be_bytes()[..])
        .unwrap();
    txn.commit().unwrap();
    drop(db);
    let e = Store::open(&path).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64] = 4;
    bytes[192] = 4;
    std::fs::write(&path, bytes).unwrap();
    let e = Store::open(&path).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
}

#[test]
fn an_empty_file_becomes_a_store() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = Store::open(file.path()).unwrap();
    store.write_blocking(|tx| tx.put(A, b"", b"")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_one_moment_while_writes_go_on() {
    let (folder, path) = on_disk();
    let store = Store::open(&path).unwrap();
    store
        .write(|tx| {
            for i in 0..3000u32 {
                tx.put(A, &i.to_be_bytes(), &[7; 900])?;
            }
            tx.put(B, b"empty value", b"")
        })
        .await
        .unwrap();
    let stop = Arc::new(AtomicU64::new(0));
    let writer = {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            let mut n = 0u64;
            while stop.load(Ordering::Relaxed) == 0 {
                n += 1;
                // Two rows that must agree in every snapshot.
                store
                    .write(move |tx| {
                        tx.put(A, b"left", &n.to_be_bytes())?;
                        tx.put(B, b"right", &n.to_be_bytes())
                    })
                    .await
                    .unwrap();
            }
            n
        })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    let to = folder.path().join("copy.db");
    let report = store.backup(&to).await.unwrap();
    stop.store(1, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 1);
    assert_eq!((report.tables, report.rows), (3, 3000 + 1 + 2 + 1));
    assert_eq!(report.file_bytes, to.metadata().unwrap().len());
    let copy = Store::open(&to).unwrap();
    copy.read(|s| {
        assert_eq!(s.get(A, b"left")?, s.get(B, b"right")?);
        assert_eq!(s.len(A)?, 3001);
        s.scan(A, &Scan::all().limit(3000), |_, v| {
            assert_eq!(v, [7; 900]);
            Ok(ControlFlow::Continue(()))
        })
    })
    .unwrap();
    drop(copy);
    let e = store.backup(&to).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    let e = store.backup(folder.path().join("no/folder.db")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    let names: BTreeSet<_> = folder.path().read_dir().unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(names, ["copy.db".into(), "zo.db".into()].into(), "nothing else is left behind");
}

#[tokio::test]
async fn scans_go_both_ways_and_stop_where_told() {
    let store = Store::in_memory().unwrap();
    store
        .write(|tx| {
            for k in ["a", "ab", "abc", "b", "ba", "c"] {
                tx.put(A, k.as_bytes(), b"")?;
            }
            let mut own = vec![];
            tx.scan(A, &Scan::prefix(b"a").reverse(), |k, _| {
                own.push(k.to_vec());
                assert!(tx.contains(A, k)?, "a read inside of a scan");
                assert_eq!(tx.len(B)?, 0);
                Ok(ControlFlow::Continue(()))
            })?;
            assert_eq!(own, [&b"abc"[..], b"ab", b"a"]);
            Ok(())
        })
        .await
        .unwrap();
    let s = store.snapshot().unwrap();
    let keys = |scan: Scan<'_>| -> Vec<String> {
        s.collect(A, &scan).unwrap().into_iter().map(|(k, _)| String::from_utf8(k).unwrap()).collect()
    };
    assert_eq!(keys(Scan::all()).len(), 6);
    assert_eq!(keys(Scan::all().reverse().limit(2)), ["c", "ba"]);
    assert_eq!(keys(Scan::prefix(b"ab")), ["ab", "abc"]);
    assert_eq!(keys(Scan::range(&b"ab"[..]..&b"b"[..])), ["ab", "abc"]);
    assert_eq!(keys(Scan::range(&b"b"[..]..)), ["b", "ba", "c"]);
    assert_eq!(keys(Scan::range(&b"c"[..]..&b"a"[..])), [""; 0], "backwards is empty");
    assert_eq!(keys(Scan::range(&b"a"[..]..&b"a"[..])), [""; 0]);
    assert_eq!(keys(Scan::prefix(b"a").after(b"a")), ["ab", "abc"]);
    assert_eq!(keys(Scan::prefix(b"b").after(b"a")), ["b", "ba"], "never before the start");
    assert_eq!(keys(Scan::all().reverse().after(b"b")), ["abc", "ab", "a"]);
    assert_eq!(keys(Scan::all().limit(0)), [""; 0]);
    let mut seen = 0;
    s.scan(A, &Scan::all(), |k, _| {
        seen += 1;
        Ok(if k == b"abc" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .unwrap();
    assert_eq!(seen, 3);
    assert_eq!(s.scan(A, &Scan::all(), |_, _| Err(no())).unwrap_err().message(), "no");
    assert_eq!(s.first(A, &Scan::prefix(b"b").reverse()).unwrap().unwrap().0, b"ba");
    assert_eq!(s.get_with(A, b"a", |v| Ok(v.len())).unwrap(), Some(0));
    let gone = store.write(|tx| tx.delete_all(A, &Scan::prefix(b"a"))).await.unwrap();
    assert_eq!((gone, store.read(|s| s.len(A)).unwrap()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_a_sync() {
    let disk = FaultDisk::new();
    disk.set_sync_time(Duration::from_millis(1));
    let store = Store::open_with_backend(disk.clone(), Options::default()).unwrap();
    let before = disk.counts().syncs;
    let tasks: Vec<_> = (0..50u64)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..20u64 {
                    store.write(move |tx| tx.put(A, &(i * 1000 + n).to_be_bytes(), &[1; 100])).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let syncs = disk.counts().syncs - before;
    assert!(syncs <= 1000 / 15, "{syncs} syncs for 1000 writes of 50 writers");
    assert_eq!(store.read(|s| s.len(A)).unwrap(), 1000);
}

#[tokio::test]
async fn a_lone_writer_never_lingers() {
    let options = Options::default().linger(Duration::from_secs(5));
    let store = Store::open_with_backend(FaultDisk::new(), options).unwrap();
    let start = std::time::Instant::now();
    for i in 0..20u8 {
        store.write(move |tx| tx.put(A, &[i], b"")).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_writers_wait_not_fail() {
    let options = Options::default().max_queue(3).max_batch(2);
    let store = Store::open_with_backend(FaultDisk::new(), options).unwrap();
    let tasks: Vec<_> = (0..100u8)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.write(move |tx| tx.put(A, &[i], b"")).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.read(|s| s.len(A)).unwrap(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_the_store_asks_to_be_reopened() {
    let disk = FaultDisk::new();
    let store = Store::open_with_backend(disk.clone(), Options::default()).unwrap();
    store.write(|tx| tx.put(A, b"acked", b"")).await.unwrap();
    disk.fail_sync(1);
    let e = store.write(|tx| tx.put(A, b"unsure", b"")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.message().contains("reopened"), "{e}");
    let e = store.write(|tx| tx.put(A, b"later", b"")).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && e.message().contains("reopened"), "{e}");
    drop(store);
    for seed in 0..16 {
        let disk = FaultDisk::with_image(disk.survivors(seed));
        let store = Store::open_with_backend(disk, Options::default()).unwrap();
        assert!(store.read(|s| s.contains(A, b"acked")).unwrap());
        assert!(!store.read(|s| s.contains(A, b"later")).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_nothing_acknowledged_is_lost() {
    for room in [0u64, 1, 4096, 100_000, 1 << 20] {
        let disk = FaultDisk::new();
        let store = Store::open_with_backend(disk.clone(), Options::default()).unwrap();
        disk.set_capacity(Some(disk.image().len() as u64 + room));
        let (mut acked, mut failure) = (0u64, None);
        while failure.is_none() {
            match store.write(move |tx| tx.put(A, &acked.to_be_bytes(), &[1; 60_000])).await {
                Ok(()) => acked += 1,
                Err(e) => failure = Some(e),
            }
        }
        let e = failure.unwrap();
        assert_eq!(e.kind(), ErrorKind::Unavailable);
        assert!(e.message().contains("disk is full"), "{e}");
        assert!(store.write(|tx| tx.put(A, b"", b"")).await.unwrap_err().message().contains("full"));
        drop(store);
        disk.set_capacity(None);
        let store = Store::open_with_backend(disk.clone(), Options::default()).unwrap();
        let rows = store.read(|s| s.len(A)).unwrap();
        assert!(rows == acked || rows == acked + 1, "{rows} rows of {acked} acknowledged");
        store.write(|tx| tx.put(A, b"again", &[1; 60_000])).await.unwrap();
    }
}

#[tokio::test]
async fn a_large_value_comes_back_whole() {
    let (_folder, path) = on_disk();
    let store = Store::open(&path).unwrap();
    let big: Vec<u8> = (0..20_000_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let copy = big.clone();
    store.write(move |tx| tx.put(A, b"big", &copy)).await.unwrap();
    drop(store);
    assert!(Store::open(&path).unwrap().read(|s| s.get(A, b"big")).unwrap().unwrap() == big);
}
