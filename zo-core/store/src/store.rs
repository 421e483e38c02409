//! The handle.

use crate::{
    BackupReport, Options, Snapshot, StorageBackend, Table, Tx, Urgency, fail,
    job::{Closure, OP as WRITE},
    open, schema,
    writer::{Shared, Writer},
};
use redb::{Database, ReadableDatabase};
use std::{
    collections::HashSet,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::{self, JoinHandle, Thread, ThreadId},
};
use tokio::sync::{oneshot, watch};
use zo_traits::{Error, ErrorKind, Result};

/// A handle of an open store. Clones are one store; the last one to go closes it.
///
/// Closing is synchronous: when the drop of the last handle returns, everything that was queued is committed, the writer
/// thread has ended and the file can be opened again. The exception is a last handle that a write closure holds, which is
/// dropped on the writer thread itself: that thread then closes the store a moment later.
///
/// It needs no runtime: any executor can poll its futures.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    /// Taken only by `close` and `drop`, when no other handle is left to see it.
    db: Option<Arc<Database>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    writer: ThreadId,
    path: Option<PathBuf>,
    claims: Claims,
}

type Claims = Arc<Mutex<HashSet<&'static str>>>;

/// The exclusive right to a domain of an open store, until it is dropped. See [`Store::claim`].
#[derive(Debug)]
#[must_use = "dropping a claim gives it up"]
pub struct Claim {
    domain: &'static str,
    claims: Claims,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(self.domain);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at `path`, or creates it there, readable by its owner alone. The folder must exist.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is open already; [`ErrorKind::Corrupt`] when the file is damaged or not a store;
    /// [`ErrorKind::Unsupported`] when a newer version wrote it; [`ErrorKind::NotFound`] without the folder; those of the
    /// disk.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// [`open`](Store::open) with options.
    ///
    /// # Errors
    /// As [`open`](Store::open).
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref();
        Self::start(open::file(path, &options)?, options, Some(path.to_owned()))
    }

    /// A store that lives in RAM and goes with its last handle.
    ///
    /// # Errors
    /// When the writer thread cannot be started.
    pub fn in_memory() -> Result<Self> {
        Self::open_with_backend(redb::backends::InMemoryBackend::new(), Options::default())
    }

    /// A store on a storage of the caller's, e.g. [`fault`](crate::fault).
    ///
    /// # Errors
    /// As [`open`](Store::open).
    pub fn open_with_backend(backend: impl StorageBackend, options: Options) -> Result<Self> {
        Self::start(open::backend(backend, &options)?, options, None)
    }

    fn start(db: Database, options: Options, path: Option<PathBuf>) -> Result<Self> {
        let db = Arc::new(db);
        let shared = Arc::new(Shared::new(&options));
        let writer = Writer::new(db.clone(), shared.clone());
        let thread = thread::Builder::new()
            .name("zo-store".into())
            .spawn(move || writer.run())
            .map_err(|e| fail::io_error("store.open", e))?;
        let writer = thread.thread().id();
        let thread = Mutex::new(Some(thread));
        Ok(Self(Arc::new(Handle { db: Some(db), shared, thread, writer, path, claims: Claims::default() })))
    }

    /// Queues `f`; resolves when what it wrote is durably committed, power loss included, with what it returned.
    ///
    /// Closures run one after another on one thread, so what one reads is what it writes on; they must be short and must
    /// not wait. `f` **may run more than once**, so it must have no effect but through its [`Tx`]. It must decide before
    /// it writes: when it returns an error or panics after it wrote, its writes vanish and the writes that shared its
    /// commit are done again without it.
    ///
    /// # Errors
    /// Those of `f`; a panic of `f`; [`ErrorKind::Unavailable`] when the disk is full or failed: whether the write took
    /// place is then known after reopening.
    ///
    /// # Cancel safety
    /// Dropping the future before it was polled does nothing; dropping it later **does not cancel** the write once it is
    /// queued.
    pub async fn write<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        // Nobody waits when the future was dropped; the write stands all the same.
        self.queue(Urgency::Now, f, |result| drop(reply.send(result))).await?;
        answer.await.unwrap_or_else(|_| Err(fail::closed(WRITE)))
    }

    /// Queues `work` behind everything queued before it, and resolves as soon as it is in the queue; that waits only while
    /// the queue is full. `done` is called with the outcome after the commit, when what `work` wrote is durable.
    ///
    /// For what must be written but what nobody has to wait for. The order of the queue is the order of the writes,
    /// whatever their [`Urgency`]: a commit takes along all that was queued before what it was made for, so after a crash
    /// a prefix of the queue is there. An urgent write that was acknowledged thus stands for every write queued before it;
    /// but each of those may have failed for reasons of its own, which its `done` is told.
    ///
    /// What [`write`](Store::write) says about its closure is true of `work` too. `done` is called once, on the writer
    /// thread, in the order of the queue; it must be quick and must not wait; a panic in it is contained. It is also called
    /// when the commit failed. Dropping the last handle commits what is queued and calls `done` before it returns.
    ///
    /// ```
    /// use zo_store::{Store, Table, Urgency};
    /// const LOG: Table = Table::new("example.log");
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let store = Store::in_memory()?;
    /// store.queue(Urgency::Soon, |tx| tx.put(LOG, b"1", b"began"), |outcome| assert!(outcome.is_ok())).await?;
    /// store.write(|tx| tx.put(LOG, b"2", b"promised")).await?; // one commit for both
    /// assert_eq!(store.sequence(), 1);
    /// # zo_traits::Result::<()>::Ok(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the store is closed. Failures of the write itself go to `done`.
    ///
    /// # Cancel safety
    /// Dropping the future before it resolved queues nothing and never calls `done`; after that the write stands.
    pub async fn queue<T, F, D>(&self, urgency: Urgency, work: F, done: D) -> Result<()>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
        D: FnOnce(Result<T>) + Send + 'static,
    {
        let queue = &self.0.shared.queue;
        // First the room: what was never queued must not be told about.
        queue.room().await?;
        queue.push(urgency, Box::new(Closure::new(work, done)));
        Ok(())
    }

    /// [`queue`](Store::queue) that never waits, for a drop, a poll function or a `done`: it queues beyond
    /// [`Options::max_queue`] rather than lose a write. Nothing holds its callers back, so it is not for a stream of
    /// writes; those who wait for room wait until what exceeds the bound is committed too.
    pub fn queue_unbounded<T, F, D>(&self, urgency: Urgency, work: F, done: D)
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
        D: FnOnce(Result<T>) + Send + 'static,
    {
        self.0.shared.queue.squeeze(urgency, Box::new(Closure::new(work, done)));
    }

    /// Commits what is queued without further lingering. It returns at once, and can be called from anywhere, a poll
    /// function or a `done` included.
    pub fn hurry(&self) {
        self.0.shared.queue.hurry();
    }

    /// [`write`](Store::write) for callers that are not async. It blocks the thread until the commit is durable: use
    /// [`write`](Store::write) where other tasks share the thread.
    ///
    /// # Errors
    /// As [`write`](Store::write); [`ErrorKind::Invalid`] inside a write closure, where it would wait for itself.
    pub fn write_blocking<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        if thread::current().id() == self.0.writer {
            return Err(Error::new(
                ErrorKind::Invalid,
                WRITE,
                "a write closure must not write through the store: use its transaction",
            ));
        }
        block_on(self.write(f))
    }

    /// A consistent view of what is committed now.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn snapshot(&self) -> Result<Snapshot> {
        const OP: &str = "store.read";
        let db = self.0.db.as_ref().ok_or_else(|| fail::closed(OP))?;
        fail::guarded(OP, || db.begin_read().map_err(|e| fail::transaction(OP, e))).map(Snapshot::new)
    }

    /// What `f` reads in one snapshot.
    ///
    /// # Errors
    /// Those of the disk; those of `f`.
    pub fn read<T>(&self, f: impl FnOnce(&Snapshot) -> Result<T>) -> Result<T> {
        f(&self.snapshot()?)
    }

    /// The number of the last commit that wrote to `table`, and news of every later one. Commits count from 1 since the
    /// store was opened; 0 means none since then. The number rises before the writes of that commit return.
    pub fn watch(&self, table: Table) -> watch::Receiver<u64> {
        self.0.shared.watch(table)
    }

    /// Number of commits since the store was opened.
    pub fn sequence(&self) -> u64 {
        self.0.shared.sequence()
    }

    /// Copies a snapshot into a new store file at `to` while writes go on. The copy appears under its name only when it is
    /// whole and synced. A file that is there already is never replaced.
    ///
    /// The work is done on a thread of its own; dropping the future does not stop it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when `to` exists; those of the disk. Nothing is left behind then.
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<BackupReport> {
        let (store, to) = (self.clone(), to.as_ref().to_owned());
        off_thread("store.backup", move || crate::backup::run(store, &to)).await
    }

    /// Makes sure that the tables of `domain` are of schema `version`: sets it where there is none, runs `migrate` with the
    /// older version in the same commit where there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the file's version is newer; those of `migrate`, which then changed nothing.
    pub async fn require_schema(
        &self,
        domain: &'static str,
        version: u32,
        mut migrate: impl FnMut(&mut Tx<'_>, u32) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        // Mostly it is there already: then nothing has to be committed.
        if self.read(|s| schema::current(s, domain))? == Some(version) {
            return Ok(());
        }
        self.write(move |tx| schema::require(tx, domain, version, &mut migrate)).await
    }

    /// Takes the exclusive right to `domain` among all users of this open store: for a part that keeps state in RAM beside
    /// its tables, so that two of its kind cannot work on the same tables at once.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while somebody holds it.
    pub fn claim(&self, domain: &'static str) -> Result<Claim> {
        let claims = self.0.claims.clone();
        if !claims.lock().unwrap_or_else(PoisonError::into_inner).insert(domain) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "store.claim",
                format_args!("{domain:?} of this store is in use by another part of this program"),
            ));
        }
        Ok(Claim { domain, claims })
    }

    /// Gives this handle back. If it is the last, everything queued is committed, the store is closed and its file
    /// released, and errors of that are reported, which a drop keeps to itself.
    ///
    /// # Errors
    /// Those of the disk. What was acknowledged is durable all the same.
    pub async fn close(self) -> Result<()> {
        let Some(handle) = Arc::into_inner(self.0) else { return Ok(()) };
        off_thread("store.close", move || handle.close()).await
    }
}

impl Handle {
    fn close(mut self) -> Result<()> {
        const OP: &str = "store.close";
        let Some(db) = self.end() else { return Ok(()) };
        fail::guarded(OP, || db.close().map_err(|e| fail::database(OP, e)))
    }

    /// Ends the writer thread; returns the database if nobody else holds it.
    fn end(&mut self) -> Option<Database> {
        self.shared.queue.shut();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread::current().id() != self.writer
        {
            // A panic of the writer was reported to whoever waited for it.
            let _ = thread.join();
        }
        self.db.take().and_then(Arc::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let db = self.end();
        let _ = fail::guarded("store.close", || {
            drop(db);
            Ok(())
        });
    }
}

/// Runs `work` on a thread of its own: what blocks for long must not block a runtime, which may not be Tokio's.
async fn off_thread<T: Send + 'static>(
    op: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    thread::Builder::new()
        .name("zo-store-io".into())
        .spawn(move || {
            let _ = reply.send(work());
        })
        .map_err(|e| fail::io_error(op, e))?;
    answer.await.unwrap_or_else(|_| Err(fail::closed(op)))
}

/// Polls `future` on this thread, parked between polls.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut task = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut task) {
            return out;
        }
        thread::park();
    }
}
