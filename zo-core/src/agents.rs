//! Agents that run on their own: one, or thousands at a time, with their results as they come.
//!
//! A spawned run is a task of its own. It goes on while nobody looks, and ends with the last handle of its [`Zo`]; with a file
//! it is then among the unfinished ones.

use crate::{Ask, Cursor, Reply, RunId, RunStream, Zo, driver::Run, inner::Inner};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BufferUnordered};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
};
use tokio::task::AbortHandle;
use zo_traits::{Cx, Error, ErrorKind, Message, Result, Stream};

/// The tasks of one agent. Dropped with its last handle, which ends them.
#[derive(Debug, Default)]
pub(crate) struct Agents(Mutex<Tasks>);

#[derive(Debug, Default)]
struct Tasks {
    next: u64,
    all: HashMap<u64, AbortHandle>,
}

impl Agents {
    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets work go on by itself until it is done or the agent is dropped.
    ///
    /// `work` takes what strikes it from the list when it is dropped, so that no further future is put around it, which would
    /// hold it twice.
    fn go<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, work: impl FnOnce(Forget) -> F) {
        let mut tasks = self.tasks();
        tasks.next += 1;
        let n = tasks.next;
        let forget = Forget(Arc::downgrade(self), n);
        // Under the lock: the task cannot be forgotten before it is known.
        let task = tokio::spawn(work(forget));
        tasks.all.insert(n, task.abort_handle());
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let tasks = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.all.values().for_each(AbortHandle::abort);
    }
}

/// Strikes a task from the list when it ends, however it ends.
struct Forget(Weak<Agents>, u64);

impl Drop for Forget {
    fn drop(&mut self) {
        if let Some(agents) = self.0.upgrade() {
            let mut tasks = agents.tasks();
            tasks.all.remove(&self.1);
            if tasks.all.len() * 4 < tasks.all.capacity() {
                tasks.all.shrink_to_fit();
            }
        }
    }
}

/// A run that goes on by itself. Dropping this does not end it.
pub struct Agent {
    run: RunId,
    conversation: String,
    cx: Cx,
    inner: Arc<Inner>,
    outcome: tokio::sync::oneshot::Receiver<Result<Reply>>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("run", &self.run).field("conversation", &self.conversation).finish()
    }
}

impl Agent {
    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Its conversation.
    pub fn conversation(&self) -> &str {
        &self.conversation
    }

    /// What happens in it, from `cursor` on. See [`Zo::attach`].
    pub fn events(&self, cursor: Cursor) -> RunStream {
        RunStream::attach(&self.inner, &self.run, cursor)
    }

    /// Says something to it. See [`Zo::say`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] and [`ErrorKind::Conflict`] when it is over.
    pub async fn say(&self, text: impl Into<String>) -> Result<()> {
        match self.inner.journal.log_of(&self.run) {
            Some(log) => log.say(Message::user(text)).await,
            None => Err(Error::new(ErrorKind::NotFound, "agent.say", "the run is over")),
        }
    }

    /// Ends it and everything that it started.
    pub fn cancel(&self) {
        self.cx.cancel().cancel();
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Those of the run; [`ErrorKind::Unavailable`] when it was ended with its agent.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the run going.
    pub async fn reply(self) -> Result<Reply> {
        self.outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "agent", "the run was ended with its agent, or it crashed")
}

impl Zo {
    /// Starts a run that goes on by itself, and comes back as soon as it has its turn in its conversation. Everything about it
    /// can be followed with [`attach`](Zo::attach).
    ///
    /// # Errors
    /// As [`ask`](Zo::ask), as far as they come before the model is asked.
    pub async fn spawn(&self, cx: &Cx, ask: Ask) -> Result<Agent> {
        let cx = cx.child();
        let run = Box::pin(Run::start(self.inner.clone(), &cx, ask, None)).await?;
        Ok(self.let_go(cx, run))
    }

    /// Takes an interrupted or parked run up again and lets it go on by itself.
    ///
    /// # Errors
    /// As [`resume`](Zo::resume), as far as they come before the model is asked.
    pub async fn spawn_resumed(&self, cx: &Cx, run: &RunId) -> Result<Agent> {
        let cx = cx.child();
        let run = Box::pin(Run::resume(self.inner.clone(), &cx, run, None)).await?;
        Ok(self.let_go(cx, run))
    }

    fn let_go(&self, cx: Cx, run: Box<Run>) -> Agent {
        let (id, conversation) = (run.id().clone(), run.log().conversation.clone());
        let (tell, outcome) = tokio::sync::oneshot::channel();
        self.agents.go(move |forget| async move {
            let _forget = forget;
            // Nobody may be waiting.
            let _ = tell.send(run.drive().await);
        });
        Agent { run: id, conversation, cx, inner: self.inner.clone(), outcome }
    }

    /// Asks many things, at most `at_once` at the same time (at least one). The results come as the runs end, each with the
    /// number of its question; [`Spawned::in_order`] gives them in the order of the questions. Dropping the stream, or
    /// cancelling `cx`, ends what is left.
    pub fn spawn_all(&self, cx: &Cx, asks: impl IntoIterator<Item = Ask>, at_once: usize) -> Spawned {
        let (inner, cx) = (self.inner.clone(), cx.child());
        let runs: Vec<Running> = asks
            .into_iter()
            .enumerate()
            .map(|(i, ask)| {
                let (inner, cx) = (inner.clone(), cx.clone());
                let run = async move {
                    let mut task = AbortOnDrop(tokio::spawn(async move { inner.ask(&cx, ask).await }));
                    (i, (&mut task.0).await.unwrap_or_else(|e| Err(gone().with_source(e))))
                };
                run.boxed()
            })
            .collect();
        Spawned {
            left: runs.len(),
            running: futures_util::stream::iter(runs).buffer_unordered(at_once.max(1)),
            cx,
        }
    }

    /// Asks many things at the same time; answers in the order of the questions. Dropping the future stops them all.
    pub async fn ask_all<C, T>(&self, asks: impl IntoIterator<Item = (C, T)>) -> Vec<Result<Reply>>
    where
        C: Into<String>,
        T: Into<String>,
    {
        let asks = asks.into_iter().map(|(conversation, text)| Ask::new(conversation, text));
        self.spawn_all(&Cx::new(""), asks, usize::MAX).in_order().await
    }
}

type Running = BoxFuture<'static, (usize, Result<Reply>)>;

/// Many runs under way: a stream of their results as they end, with the number of the question.
pub struct Spawned {
    left: usize,
    running: BufferUnordered<futures_util::stream::Iter<std::vec::IntoIter<Running>>>,
    cx: Cx,
}

impl fmt::Debug for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Spawned {
    /// The next result; `None` when all are there.
    ///
    /// # Cancel safety
    /// Dropping this future loses nothing; call again.
    pub async fn next(&mut self) -> Option<(usize, Result<Reply>)> {
        StreamExt::next(self).await
    }

    /// How many results are still to come.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Ends all that are still under way.
    pub fn cancel(&self) {
        self.cx.cancel().cancel();
    }

    /// Waits for all that are still to come, and gives them in the order of the questions.
    pub async fn in_order(self) -> Vec<Result<Reply>> {
        let all: BTreeMap<usize, Result<Reply>> = self.collect().await;
        all.into_values().collect()
    }
}

impl Stream for Spawned {
    type Item = (usize, Result<Reply>);

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.running.poll_next_unpin(task);
        if let Poll::Ready(Some(_)) = &next {
            self.left -= 1;
        }
        next
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
