//! Durable commits of `zo-store`: one writer, fifty at once, and plain redb with a commit for each write beside them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use redb::{Database, TableDefinition};
use zo_core::store::{Store, Table};

const ROWS: Table = Table::new("bench.rows");
const PLAIN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bench.rows");
/// Writes that each writer does in one measured pass.
const EACH: u64 = 20;

fn commits(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group("durable_commits");
    group.sample_size(20);
    for writers in [1u64, 50] {
        let store = Store::open(dir.path().join(format!("zo-{writers}"))).unwrap();
        group.throughput(Throughput::Elements(writers * EACH));
        let mut n = 0u64;
        group.bench_function(BenchmarkId::new("zo", writers), |b| {
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
    let plain = Database::create(dir.path().join("plain")).unwrap();
    let mut n = 0u64;
    group.throughput(Throughput::Elements(EACH));
    group.bench_function(BenchmarkId::new("redb", 1), |b| {
        b.iter(|| {
            for _ in 0..EACH {
                n += 1;
                let tx = plain.begin_write().unwrap();
                tx.open_table(PLAIN).unwrap().insert(n.to_be_bytes().as_slice(), [7u8; 200].as_slice()).unwrap();
                tx.commit().unwrap();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
