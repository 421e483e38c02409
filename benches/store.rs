//! Durable commits of `zo-store`: one writer, fifty at once, and plain redb with a commit for each write beside them; on the
//! disk of this machine, and on one whose sync takes a millisecond, as a usual SSD's does.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use redb::{Database, TableDefinition, backends::FileBackend};
use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    time::Duration,
};
use zo_core::store::{Options, StorageBackend, Store, Table};

const ROWS: Table = Table::new("bench.rows");
const PLAIN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bench.rows");
/// Writes that each writer does in one measured pass.
const EACH: u64 = 20;

/// A file whose every sync takes a little longer.
#[derive(Debug)]
struct Slow {
    file: FileBackend,
    sync: Duration,
}

impl Slow {
    fn create(path: &Path, sync: Duration) -> Self {
        let file: File =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path).unwrap();
        Self { file: FileBackend::new(file).unwrap(), sync }
    }
}

impl StorageBackend for Slow {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if !self.sync.is_zero() {
            std::thread::sleep(self.sync);
        }
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn commits(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (disk, sync) in [("this_disk", Duration::ZERO), ("sync_1ms", Duration::from_millis(1))] {
        let mut group = c.benchmark_group(format!("durable_commits/{disk}"));
        group.sample_size(20);
        for writers in [1u64, 50] {
            let file = Slow::create(&dir.path().join(format!("zo-{disk}-{writers}")), sync);
            let store = Store::open_with_backend(file, Options::default()).unwrap();
            group.throughput(Throughput::Elements(writers * EACH));
            let mut n = 0u64;
            group.bench_function(BenchmarkId::new("zo_writers", writers), |b| {
                b.to_async(&runtime).iter(|| {
                    let store = store.clone();
                    n += writers * EACH;
                    async move {
                        let mut tasks = tokio::task::JoinSet::new();
                        for writer in 0..writers {
                            let store = store.clone();
                            tasks.spawn(async move {
                                for i in 0..EACH {
                                    let key = (n + writer * EACH + i).to_be_bytes();
                                    store.write(move |tx| tx.put(ROWS, &key, &[7; 200])).await.unwrap();
                                }
                            });
                        }
                        tasks.join_all().await;
                    }
                });
            });
        }
        let plain =
            Database::builder().create_with_backend(Slow::create(&dir.path().join(disk), sync)).unwrap();
        let mut n = 0u64;
        group.throughput(Throughput::Elements(EACH));
        group.bench_function("redb_commit_each", |b| {
            b.iter(|| {
                for _ in 0..EACH {
                    n += 1;
                    let tx = plain.begin_write().unwrap();
                    tx.open_table(PLAIN)
                        .unwrap()
                        .insert(n.to_be_bytes().as_slice(), [7u8; 200].as_slice())
                        .unwrap();
                    tx.commit().unwrap();
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, commits);
criterion_main!(benches);
