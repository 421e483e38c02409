//! The one thread that writes: it packs the closures that wait into one durable commit.

use crate::{
    Options, Table, Tx, fail,
    job::{Job, OP},
    queue::Queue,
};
use redb::Database;
use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use zo_traits::Error;

/// What handles and the writer thread share.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    news: Mutex<News>,
    failed: Mutex<Option<Error>>,
}

#[derive(Default)]
struct News {
    sequence: u64,
    tables: HashMap<&'static str, watch::Sender<u64>>,
}

impl Shared {
    pub(crate) fn new(options: &Options) -> Self {
        Self { queue: Queue::new(options), news: Mutex::default(), failed: Mutex::default() }
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing can be written any more.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn watch(&self, table: Table) -> watch::Receiver<u64> {
        self.news().tables.entry(table.0).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.news().sequence
    }

    fn announce(&self, tables: &[Table]) {
        let mut news = self.news();
        news.sequence += 1;
        let sequence = news.sequence;
        for table in tables {
            // Without a watcher there is no entry, but one that comes later wants to know too.
            let sender = news.tables.entry(table.0).or_insert_with(|| watch::Sender::new(0));
            sender.send_replace(sequence);
        }
    }
}

pub(crate) struct Writer {
    db: Arc<Database>,
    shared: Arc<Shared>,
}

enum Attempt {
    /// Durable.
    Done,
    /// This one failed after it wrote; nothing was committed.
    FailedAt(usize),
    /// The engine failed.
    Broken(Error),
}

impl Writer {
    pub(crate) fn new(db: Arc<Database>, shared: Arc<Shared>) -> Self {
        Self { db, shared }
    }

    pub(crate) fn run(self) {
        let mut batch = VecDeque::new();
        while self.shared.queue.take(&mut batch) {
            self.process(&mut batch);
        }
        // The database may have to be released here, when the last handle was dropped on this very thread.
        let db = self.db;
        let _ = fail::guarded("store.close", || {
            drop(db);
            Ok(())
        });
    }

    fn process(&self, batch: &mut VecDeque<Box<dyn Job>>) {
        while !batch.is_empty() {
            let decided = match self.attempt(batch.make_contiguous()) {
                Attempt::Done => batch.len(),
                Attempt::FailedAt(at) => {
                    // Those before it never saw it: they go again without it, then it runs alone for its final result. If
                    // one of them now fails where it did not before, each goes alone, so the work stays bounded.
                    let (before, rest) = batch.make_contiguous().split_at_mut(at);
                    if !before.is_empty() {
                        match self.attempt(before) {
                            Attempt::Done => {}
                            Attempt::FailedAt(_) => {
                                for i in 0..at {
                                    if let Some(Attempt::Broken(e)) =
                                        before.get_mut(i..=i).map(|one| self.attempt(one))
                                    {
                                        settle(batch.drain(..i), None);
                                        return self.give_up(batch, e);
                                    }
                                }
                            }
                            Attempt::Broken(e) => return self.give_up(batch, e),
                        }
                    }
                    if let Some(Attempt::Broken(e)) = rest.get_mut(..1).map(|one| self.attempt(one)) {
                        settle(batch.drain(..at), None);
                        return self.give_up(batch, e);
                    }
                    at + 1
                }
                Attempt::Broken(e) => return self.give_up(batch, e),
            };
            settle(batch.drain(..decided), None);
        }
    }

    /// One transaction over `jobs`.
    fn attempt(&self, jobs: &mut [Box<dyn Job>]) -> Attempt {
        if let Some(e) = self.shared.failure() {
            return Attempt::Broken(e);
        }
        let txn = match fail::guarded(OP, || self.db.begin_write().map_err(|e| fail::transaction(OP, e))) {
            Ok(txn) => txn,
            Err(e) => return Attempt::Broken(e),
        };
        let mut tx = Tx::new(&txn);
        let mut end = Attempt::Done;
        for (at, job) in jobs.iter_mut().enumerate() {
            tx.begin();
            let ok = job.run(&mut tx);
            if let Some(e) = tx.take_broken() {
                end = Attempt::Broken(e);
                break;
            }
            if !ok && tx.is_dirty() {
                end = Attempt::FailedAt(at);
                break;
            }
        }
        let written = tx.into_written();
        // Without a write there is nothing to sync.
        let commit = matches!(end, Attempt::Done) && !written.is_empty();
        let finish = || {
            if commit {
                txn.commit().map_err(|e| fail::commit(OP, e))
            } else {
                txn.abort().map_err(|e| fail::storage(OP, e))
            }
        };
        match fail::guarded(OP, finish) {
            Ok(()) if commit => {
                self.shared.announce(&written);
                end
            }
            Ok(()) => end,
            // The first failure says more than the one that it led to.
            Err(_) if matches!(end, Attempt::Broken(_)) => end,
            Err(e) => Attempt::Broken(e),
        }
    }

    /// The engine failed: nobody in the batch can be told that his write stands, and nothing more can be written.
    fn give_up(&self, batch: &mut VecDeque<Box<dyn Job>>, e: Error) {
        let mut failed = self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let later = Error::new(
            e.kind(),
            OP,
            format_args!("the store must be reopened, because of an earlier failure: {}", e.message()),
        )
        .with_source(e.clone());
        failed.get_or_insert(later);
        drop(failed);
        settle(batch.drain(..), Some(&e));
    }
}

fn settle(jobs: impl Iterator<Item = Box<dyn Job>>, failed: Option<&Error>) {
    for job in jobs {
        // The closure, its result and their drops are the caller's code.
        let _ = catch_unwind(AssertUnwindSafe(|| job.settle(failed)));
    }
}
