//! What the attacks share: futures that are polled by hand, models that answer by rule or when told, tools that stand still,
//! a store that is slow.

use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};
use tokio::sync::Semaphore;
use zo_core::{
    BoxStream, Capabilities, Cx, Effect, Error, Message, Provider, Request, Result, Role, RunEvent, RunId,
    StreamEvent, Unfinished, Zo, ZoBuilder, async_trait,
    store::{Options, Store, Table, fault::FaultDisk},
    stream_of,
};
pub(crate) use zo_testkit::polled;
use zo_testkit::{RawTool, Scripted, Turn, tool};

/// Polls `work` once and keeps it.
pub(crate) async fn poll_once<F: Future>(mut work: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|task| match work.as_mut().poll(task) {
        Poll::Ready(out) => Poll::Ready(Some(out)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// For what must come to an end: far more time than it takes on a busy machine.
pub(crate) async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it hangs")
}

/// Waits until it is so.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// An agent over the file in `dir`.
pub(crate) fn zo(model: impl Provider, dir: &Path) -> ZoBuilder {
    Zo::builder().provider(model).file(dir.join("z")).recall_limit(0)
}

/// Opens an agent as soon as the one before has let go of the file: tasks that were aborted end a little later.
pub(crate) async fn reopened(make: impl Fn() -> ZoBuilder) -> Zo {
    within(async {
        loop {
            if let Ok(zo) = make().build().await {
                return zo;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// The texts of a conversation.
pub(crate) async fn texts(zo: &Zo, conversation: &str) -> Vec<String> {
    zo.history(conversation).await.unwrap().iter().map(Message::to_text).collect()
}

/// What the tools of a conversation gave.
pub(crate) async fn results(zo: &Zo, conversation: &str) -> Vec<String> {
    let history = zo.history(conversation).await.unwrap();
    history.iter().flat_map(|m| m.results().map(|r| r.content.clone())).collect()
}

/// The unfinished runs of a conversation.
pub(crate) fn left_in(zo: &Zo, conversation: &str) -> Vec<Unfinished> {
    zo.unfinished().unwrap().into_iter().filter(|u| u.conversation == conversation).collect()
}

/// A model that calls `name` once for each question "go" and answers all else in words.
pub(crate) fn calls_once(name: &'static str) -> Scripted {
    Scripted::by_unrecorded(move |r| {
        let questions = r.messages.iter().filter(|m| m.role == Role::User && m.to_text() == "go").count();
        let called = r.messages.iter().filter(|m| m.role == Role::Tool).count();
        if called < questions { Turn::calls([("1", name, json!({}))]) } else { Turn::text("ok") }
    })
}

/// A tool that gives "seen".
pub(crate) fn look() -> RawTool {
    tool("look", |_, _| async { Ok("seen".into()) })
}

/// A tool that never returns and must not be repeated.
pub(crate) fn hang(name: &str) -> RawTool {
    tool(name, |_, _| std::future::pending()).effect(Effect::AtMostOnce)
}

/// Asks "go" and drops the run in the middle of its first tool call.
pub(crate) async fn interrupted(zo: &Zo, conversation: &str) -> RunId {
    let mut stream = zo.stream(conversation, "go");
    while !matches!(within(stream.next()).await.unwrap().unwrap(), RunEvent::ToolStarted(_)) {}
    let run = stream.run().unwrap().clone();
    drop(stream);
    assert_eq!(left_in(zo, conversation).iter().map(|u| &u.run).collect::<Vec<_>>(), [&run]);
    run
}

/// What was paid for, and how often.
#[derive(Debug, Clone, Default)]
pub(crate) struct Till(Arc<Mutex<BTreeMap<String, u32>>>);

impl Till {
    /// A tool `pay` that must not be repeated.
    pub(crate) fn pay(&self) -> RawTool {
        let till = self.clone();
        tool("pay", move |_, call| {
            let what = call.args["for"].as_str().unwrap_or_default().to_owned();
            *till.0.lock().unwrap().entry(what).or_default() += 1;
            async { Ok("paid".into()) }
        })
        .effect(Effect::AtMostOnce)
    }

    /// How often `what` was paid for.
    pub(crate) fn paid(&self, what: &str) -> u32 {
        self.0.lock().unwrap().get(what).copied().unwrap_or_default()
    }
}

/// Tools that stand still until they are let through.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    open: Arc<Semaphore>,
    came: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn shut() -> Self {
        Self { open: Arc::new(Semaphore::new(0)), came: Arc::default() }
    }

    /// A tool that gives "seen" when it was let through.
    pub(crate) fn tool(&self, name: &str) -> RawTool {
        let gate = self.clone();
        tool(name, move |_, _| {
            let gate = gate.clone();
            async move {
                gate.came.fetch_add(1, SeqCst);
                gate.open.acquire().await.unwrap().forget();
                Ok("seen".into())
            }
        })
    }

    /// Waits until there were `n` calls so far.
    pub(crate) async fn reached(&self, n: usize) {
        until(|| self.came.load(SeqCst) >= n).await;
    }

    /// Lets so many calls through.
    pub(crate) fn let_through(&self, n: usize) {
        self.open.add_permits(n);
    }
}

pub(crate) type Events = BoxStream<Result<StreamEvent>>;
type Answering = Pin<Box<dyn Future<Output = Result<Events>> + Send>>;

/// A model whose calls are futures of the test's: given the number of the call.
#[derive(Clone)]
pub(crate) struct Fed {
    answer: Arc<dyn Fn(usize) -> Answering + Send + Sync>,
    calls: Arc<AtomicUsize>,
}

impl Fed {
    pub(crate) fn new<F, Fut>(answer: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Events>> + Send + 'static,
    {
        Self { answer: Arc::new(move |n| Box::pin(answer(n))), calls: Arc::default() }
    }
}

impl fmt::Debug for Fed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fed")
    }
}

#[async_trait]
impl Provider for Fed {
    fn id(&self) -> &str {
        "fed"
    }

    fn capabilities(&self, _: &str) -> Capabilities {
        let mut all = Capabilities::default();
        (all.tools, all.parallel_tools) = (true, true);
        all
    }

    async fn stream(&self, _: &Cx, _: &Request) -> Result<Events> {
        (self.answer)(self.calls.fetch_add(1, SeqCst)).await
    }
}

/// A scripted answer as a stream.
pub(crate) fn whole(turn: Turn) -> Result<Events> {
    match turn {
        Turn::Answer(answer) => Ok(stream_of(answer.into_events().into_iter().map(Ok::<_, Error>))),
        other => panic!("{other:?} is no answer"),
    }
}

/// A store of so long a queue on a disk whose speed the test sets.
pub(crate) fn slow_store(queue: usize) -> (FaultDisk, Store) {
    let disk = FaultDisk::new();
    let store = Store::open_with_backend(disk.clone(), Options::default().max_queue(queue)).unwrap();
    (disk, store)
}

/// An agent over such a store.
pub(crate) async fn over(store: &Store, model: impl Provider) -> Zo {
    Zo::builder().provider(model).store(store.clone()).recall_limit(0).build().await.unwrap()
}

/// Puts a write of somebody else's into the queue, and leaves it some time to get there.
pub(crate) async fn fill(store: &Store, key: u8, wait: Duration) -> tokio::task::JoinHandle<()> {
    let store = store.clone();
    let write = tokio::spawn(async move {
        store.write(move |tx| tx.put(Table::new("others"), &[key], b"")).await.unwrap();
    });
    tokio::time::sleep(wait).await;
    write
}
