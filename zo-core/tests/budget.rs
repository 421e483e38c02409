//! Allowances hold: under fifty children at once, across restarts, and whatever a provider reports within what it was allowed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use zo_core::{
    Ask, BoxStream, Budget, Capabilities, Cx, Effect, Error, ErrorKind, FinishReason, Ledger, Limits,
    Message, Overspent, Part, Permissions, Persona, Price, Provider, Reply, Request, Response, Result, Role,
    RunEvent, Spend, StreamEvent, ToolCall, ToolOutput, ToolStatus, Usage, Zo, ZoBuilder, async_trait,
    stream_of,
};
use zo_testkit::{RawTool, Scripted, Strict, Turn, tool};

const PRICE: Price =
    Price { input: 3_000_000, output: 15_000_000, cache_read: 300_000, cache_write: 3_750_000 };

type Rule = Arc<dyn Fn(&Request) -> Message + Send + Sync>;

/// A provider that takes its time and all that it is allowed: every answer is as long as the request permits.
#[derive(Clone)]
struct Greedy {
    rule: Rule,
    pause: Duration,
    /// Says that the whole prompt was written to the cache, which costs more.
    caches: bool,
    max_output: Option<u32>,
    /// What it took: calls, prompt tokens, completion tokens, money.
    taken: Arc<[AtomicU64; 4]>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl std::fmt::Debug for Greedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Greedy")
    }
}

impl Greedy {
    fn by(rule: impl Fn(&Request) -> Message + Send + Sync + 'static) -> Self {
        Self {
            rule: Arc::new(rule),
            pause: Duration::from_millis(2),
            caches: false,
            max_output: None,
            taken: Arc::default(),
            seen: Arc::default(),
        }
    }

    fn took(&self) -> Spend {
        let [calls, input, output, money] = [0, 1, 2, 3].map(|i| self.taken[i].load(Ordering::SeqCst));
        Spend::steps(calls).plus(Spend::tokens(input + output)).plus(Spend::microusd(money))
    }
}

#[async_trait]
impl Provider for Greedy {
    fn id(&self) -> &str {
        "greedy"
    }

    fn capabilities(&self, _: &str) -> Capabilities {
        let mut c = Capabilities::default();
        (c.tools, c.parallel_tools, c.max_output) = (true, true, self.max_output);
        c
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.race("greedy", tokio::time::sleep(self.pause)).await?;
        // English text of open models: some 4.4 bytes a token, and a frame.
        let bytes: usize = request.messages.iter().map(|m| m.to_text().len()).sum();
        let input = bytes as u64 / 4 + 4 * request.messages.len() as u64;
        let output = request.max_tokens.map_or(200, u64::from);
        let message = (self.rule)(request);
        let calls = message.tool_calls().next().is_some();
        let finish = if calls { FinishReason::ToolCalls } else { FinishReason::Stop };
        let mut answer = Response::new(message, finish);
        answer.usage = Usage::new(input, output);
        if self.caches {
            answer.usage.cache_write = input;
        }
        let cost = PRICE.cost(&answer.usage);
        for (sum, n) in self.taken.iter().zip([1, input, output, cost]) {
            sum.fetch_add(n, Ordering::SeqCst);
        }
        self.seen.lock().unwrap().push(request.clone());
        Ok(stream_of(answer.into_events().into_iter().map(Ok)))
    }
}

fn calls(name: &str, args: Value) -> Message {
    Message { role: Role::Assistant, parts: vec![Part::ToolCall(ToolCall::new("1", name, args))] }
}

fn steps(r: &Request) -> usize {
    let last = r.messages.iter().rposition(|m| m.role == Role::User).unwrap();
    r.messages[last..].iter().filter(|m| m.role == Role::Tool).count()
}

fn asked(r: &Request, what: &str) -> bool {
    r.messages.iter().any(|m| m.role == Role::User && m.to_text().starts_with(what))
}

fn builder(model: impl Provider, dir: &Path) -> ZoBuilder {
    Zo::builder().provider(model).file(dir.join("z")).recall_limit(0).price("", PRICE)
}

/// The end of the process, as far as the store is concerned.
async fn close(zo: Zo) {
    let store = zo.store().unwrap().clone();
    drop(zo);
    store.close().await.unwrap();
}

fn overspent(e: &Error) -> Overspent {
    assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
    e.source_as::<Overspent>().unwrap_or_else(|| panic!("{e} has no cause")).clone()
}

async fn row(zo: &Zo, id: &str) -> Ledger {
    zo.store().unwrap().write(|_| Ok(())).await.unwrap();
    zo.ledgers().unwrap().into_iter().find(|l| l.id == id).unwrap()
}

fn quick(name: &str, ran: &Arc<AtomicUsize>) -> RawTool {
    let ran = ran.clone();
    tool(name, move |_, _| {
        ran.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(ToolOutput::text("seen"))
        }
    })
    .effect(Effect::Pure)
}

/// What came of fifty children.
struct Fanned {
    model: Greedy,
    results: Vec<Result<Reply>>,
    ran: usize,
    budget: Budget,
    ledger: Ledger,
    /// The most that was spent or set aside at any moment that was looked at.
    most: Spend,
}

/// A parent whose tool starts fifty children at once, which look at things as long as they may.
async fn fan(limits: Limits, caches: bool) -> Fanned {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Greedy::by(|r| {
        if asked(r, "fan") {
            return if steps(r) == 0 { calls("fan", json!({})) } else { Message::assistant("all told") };
        }
        if steps(r) < 8 { calls("look", json!({"n": steps(r)})) } else { Message::assistant("done") }
    });
    model.caches = caches;
    let handle: Arc<OnceLock<Zo>> = Arc::default();
    let results: Arc<Mutex<Vec<Result<Reply>>>> = Arc::default();
    let ran = Arc::new(AtomicUsize::new(0));
    let (fan_zo, fan_results) = (handle.clone(), results.clone());
    let fan = tool("fan", move |cx: Cx, _| {
        let (zo, results) = (fan_zo.get().unwrap().clone(), fan_results.clone());
        async move {
            let tasks: Vec<_> = (0..50)
                .map(|n| {
                    let (zo, cx) = (zo.clone(), cx.clone());
                    tokio::spawn(async move {
                        zo.ask_with(&cx, Ask::new(format!("child/{n}"), format!("child {n}"))).await
                    })
                })
                .collect();
            for task in tasks {
                let reply = task.await.unwrap();
                results.lock().unwrap().push(reply);
            }
            Ok(ToolOutput::text("fanned"))
        }
    })
    .effect(Effect::Pure);
    let zo = builder(model.clone(), dir.path()).skill(fan).skill(quick("look", &ran)).build().await.unwrap();
    let _ = handle.set(zo.clone());
    let budget = zo.open_ledger("team", limits).await.unwrap();
    let watched = budget.clone();
    let most: Arc<Mutex<Spend>> = Arc::default();
    let seen = most.clone();
    let watch = tokio::spawn(async move {
        loop {
            let now = watched.spent();
            {
                let mut most = seen.lock().unwrap();
                most.steps = most.steps.max(now.steps);
                most.tokens = most.tokens.max(now.tokens);
                most.microusd = most.microusd.max(now.microusd);
                most.tool_calls = most.tool_calls.max(now.tool_calls);
                most.millis = most.millis.max(now.millis);
            }
            tokio::task::yield_now().await;
        }
    });
    let _ = zo.ask_with(&Cx::new(""), Ask::new("parent", "fan out").ledger("team")).await;
    watch.abort();
    let ledger = row(&zo, "team").await;
    let results = std::mem::take(&mut *results.lock().unwrap());
    let most = *most.lock().unwrap();
    assert_eq!(results.len(), 50);
    Fanned { model, results, ran: ran.load(Ordering::SeqCst), budget, ledger, most }
}

impl Fanned {
    fn refusals(&self, limit: &str) -> usize {
        let mut n = 0;
        for e in self.results.iter().filter_map(|r| r.as_ref().err()) {
            let why = overspent(e);
            assert_eq!(why.limit, limit, "{e}");
            assert!(!why.by.is_empty() && e.message().contains("spent on:"), "{e}");
            n += 1;
        }
        n
    }
}

// --- Fifty children -----------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_children_share_steps() {
    let f = fan(Limits::none().steps(120), false).await;
    assert!(f.refusals("steps") > 0);
    assert!(f.most.steps <= 120 && f.model.took().steps <= 120);
    assert_eq!(f.model.took().steps, 120, "and all of it can be used");
    assert_eq!((f.ledger.spent.steps, f.budget.spent().steps), (120, 120));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_children_share_tokens() {
    let f = fan(Limits::none().tokens(60_000), false).await;
    assert!(f.refusals("tokens") > 0);
    let took = f.model.took();
    assert!(f.most.tokens <= 60_000 && took.tokens <= 60_000, "{} {}", f.most.tokens, took.tokens);
    assert_eq!((f.ledger.spent.tokens, f.budget.spent().tokens), (took.tokens, took.tokens));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_children_share_money() {
    let f = fan(Limits::none().microusd(1_500_000), false).await;
    assert!(f.refusals("money") > 0);
    let took = f.model.took();
    assert!(
        f.most.microusd <= 1_500_000 && took.microusd <= 1_500_000,
        "{} {}",
        f.most.microusd,
        took.microusd
    );
    assert_eq!((f.ledger.spent.microusd, f.budget.spent().microusd), (took.microusd, took.microusd));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_children_share_money_when_the_prompt_goes_to_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let f = fan(Limits::none().microusd(1_500_000), true).await;
    assert!(f.most.microusd <= 1_500_000 && f.model.took().microusd <= 1_500_000);
    // One call whose prompt is nearly all that it costs: written to the cache, it is a quarter dearer.
    let mut model = Greedy::by(|_| Message::assistant("ok"));
    model.caches = true;
    let zo = builder(model.clone(), dir.path()).build().await.unwrap();
    for tokens in (8_000..26_000).step_by(250) {
        let cap = tokens * 3 + 300;
        let text = "lorem ipsum dolor sit ".repeat(16_000 / 5);
        let ask = Ask::new(format!("c{tokens}"), text).limits(Limits::none().microusd(cap));
        let before = model.took().microusd;
        let _ = zo.ask_with(&Cx::new(""), ask).await;
        let cost = model.took().microusd - before;
        assert!(cost <= cap, "a call of {cost} under a cap of {cap}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_children_share_tool_calls() {
    let f = fan(Limits::none().tool_calls(90), false).await;
    // A refused call is told to the model.
    assert!(f.results.iter().all(Result::is_ok));
    let refused = f.results.iter().flatten().flat_map(|r| &r.messages).flat_map(Message::results);
    let refused: Vec<_> = refused.filter(|r| r.status == ToolStatus::Denied).collect();
    assert!(!refused.is_empty() && refused[0].content.contains("tool calls budget"), "{refused:?}");
    assert!(f.most.tool_calls <= 90);
    assert_eq!(f.ran, 89, "and the fan itself");
    assert_eq!((f.ledger.spent.tool_calls, f.budget.spent().tool_calls), (90, 90));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_children_share_wall_time() {
    let dir = tempfile::tempdir().unwrap();
    let model =
        Greedy::by(|r| if asked(r, "fan") { calls("fan", json!({})) } else { calls("wait", json!({})) });
    let (handle, begun): (Arc<OnceLock<Zo>>, Arc<AtomicUsize>) = Default::default();
    let (inside, count) = (handle.clone(), begun.clone());
    let fan = tool("fan", move |cx: Cx, _| {
        let zo = inside.get().unwrap().clone();
        async move {
            let asks = (0..50).map(|n| Ask::new(format!("child/{n}"), "wait"));
            Ok(format!("{}", zo.spawn_all(&cx, asks, 50).in_order().await.len()).into())
        }
    });
    let wait = tool("wait", move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    });
    let limits = Limits::none().wall(Duration::from_millis(500));
    let zo = builder(model, dir.path()).skill(fan).skill(wait.effect(Effect::Pure)).limits(limits);
    let zo = zo.build().await.unwrap();
    let _ = handle.set(zo.clone());
    let from = std::time::Instant::now();
    let e = zo.ask("c", "fan").await.unwrap_err();
    assert_eq!(overspent(&e).limit, "time");
    assert!(from.elapsed() < Duration::from_secs(20) && begun.load(Ordering::SeqCst) > 0);
    // Time passes for all of them at once: it is counted once, and over for all when it is over.
    let spent = overspent(&e).spent.millis;
    assert!((400..5_000).contains(&spent), "{spent} ms of 500");
    let _ = handle;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_delegated_tasks_share_the_limits_of_their_parent() {
    let dir = tempfile::tempdir().unwrap();
    let model = Greedy::by(|r| {
        if asked(r, "delegate") {
            if steps(r) > 0 {
                return Message::assistant("all told");
            }
            let call = |n| {
                Part::ToolCall(ToolCall::new(
                    format!("{n}"),
                    "ask_reader",
                    json!({"task": format!("child {n}")}),
                ))
            };
            return Message { role: Role::Assistant, parts: (0..50).map(call).collect() };
        }
        if steps(r) < 6 { calls("look", json!({"n": steps(r)})) } else { Message::assistant("done") }
    });
    let ran = Arc::new(AtomicUsize::new(0));
    let zo = builder(model.clone(), dir.path())
        .skill(quick("look", &ran))
        .max_parallel_tools(50)
        .persona(
            Persona::new("reader", "You read.")
                .description("Reads.")
                .limits(Limits::none().tokens(1_000_000)),
        )
        .build()
        .await
        .unwrap();
    let ask = Ask::new("parent", "delegate").limits(Limits::none().tokens(50_000).tool_calls(120));
    let _ = zo.ask_with(&Cx::new(""), ask).await;
    assert!(model.took().tokens <= 50_000, "{}", model.took().tokens);
    assert!(ran.load(Ordering::SeqCst) + 50 <= 120);
}

// --- What is refused, and how -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_tight_moment_does_not_cut_every_later_answer() {
    let dir = tempfile::tempdir().unwrap();
    let handle: Arc<OnceLock<Budget>> = Arc::default();
    let budget = handle.clone();
    let model = Greedy::by(move |r| match steps(r) {
        0 => {
            // Somebody else has set nearly all of it aside, for a moment.
            let budget = budget.get().unwrap().clone();
            let left = budget.remaining().tokens.unwrap();
            let held = budget.reserve(Spend::tokens(left - 600)).unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(150)).await;
                drop(held);
            });
            calls("look", json!({}))
        }
        1 => calls("look", json!({"again": true})),
        _ => Message::assistant("done"),
    });
    let slow = tool("look", |_, call| async move {
        if !call.args["again"].is_null() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(ToolOutput::text("seen"))
    })
    .effect(Effect::Pure);
    let zo = builder(model.clone(), dir.path()).skill(slow).build().await.unwrap();
    let _ = handle.set(zo.open_ledger("team", Limits::none().tokens(100_000)).await.unwrap());
    zo.ask_with(&Cx::new(""), Ask::new("c", "go").ledger("team")).await.unwrap();
    let most: Vec<_> = model.seen.lock().unwrap().iter().map(|r| r.max_tokens.unwrap()).collect();
    assert!(most[2] >= 4_096, "there is room again: {most:?}");
}

#[tokio::test]
async fn a_child_cannot_widen_what_its_parent_has() {
    let dir = tempfile::tempdir().unwrap();
    let model = Greedy::by(|r| {
        if asked(r, "parent") {
            return if steps(r) == 0 { calls("start", json!({})) } else { Message::assistant("told") };
        }
        if steps(r) < 20 { calls("look", json!({"n": steps(r)})) } else { Message::assistant("done") }
    });
    let handle: Arc<OnceLock<Zo>> = Arc::default();
    let inside = handle.clone();
    let errors: Arc<Mutex<Vec<Error>>> = Arc::default();
    let seen = errors.clone();
    let start = tool("start", move |cx: Cx, _| {
        let (zo, errors) = (inside.get().unwrap().clone(), seen.clone());
        async move {
            let ask = Ask::new("child", "child").limits(Limits::none().steps(1_000)).max_steps(1_000);
            let e = zo.ask_with(&cx, ask).await.unwrap_err();
            errors.lock().unwrap().push(e);
            let ledger = Ask::new("child2", "child").ledger("rich");
            let e = zo.ask_with(&cx, ledger).await.unwrap_err();
            errors.lock().unwrap().push(e);
            Ok(ToolOutput::text("tried"))
        }
    })
    .effect(Effect::Pure);
    let zo = builder(model.clone(), dir.path())
        .skill(start)
        .skill(quick("look", &Arc::default()))
        .limits(Limits::none().steps(5))
        .build()
        .await
        .unwrap();
    let _ = handle.set(zo.clone());
    zo.open_ledger("rich", Limits::none().steps(1_000_000)).await.unwrap();
    let e = zo.ask("c", "parent").await.unwrap_err();
    assert_eq!(overspent(&e).limit, "steps");
    let errors = errors.lock().unwrap();
    assert_eq!(overspent(&errors[0]).limits.steps, Some(5));
    assert_eq!(errors[1].kind(), ErrorKind::Invalid);
    assert_eq!(model.took().steps, 5);
}

#[tokio::test]
async fn wall_time_that_is_used_up_is_a_refusal_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let model = Greedy::by(|r| {
        if steps(r) < 30 { calls("look", json!({"n": steps(r)})) } else { Message::assistant("x") }
    });
    let slow = tool("look", |_, _| async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        Ok(ToolOutput::text("seen"))
    })
    .effect(Effect::Pure);
    let zo = builder(model, dir.path())
        .skill(slow)
        .limits(Limits::none().wall(Duration::from_millis(300)))
        .build()
        .await
        .unwrap();
    let e = zo.ask("c", "go").await.unwrap_err();
    assert_eq!(overspent(&e).limit, "time");
}

#[tokio::test]
async fn a_price_that_is_not_known_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let model = Greedy::by(|_| Message::assistant("ok"));
    let zo = builder(model, dir.path()).build().await.unwrap();
    let ask = Ask::new("c", "go").model("dear").limits(Limits::none().microusd(5));
    let mut stream = zo.stream_with(&Cx::new(""), ask);
    let mut warned = 0;
    while let Some(event) = stream.next().await {
        if let RunEvent::Warning(e) = event.unwrap() {
            assert!(e.message().contains("price"), "{e}");
            warned += 1;
        }
    }
    assert_eq!(warned, 1);
}

#[tokio::test]
async fn absurd_prices_and_reports_do_not_overflow() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|_| {
        let mut answer = Response::new(Message::assistant("ok"), FinishReason::Stop);
        answer.usage = Usage::new(u64::MAX, u64::MAX);
        Turn::Answer(answer)
    });
    let dear = Price { input: u64::MAX, output: u64::MAX, cache_read: u64::MAX, cache_write: u64::MAX };
    let zo = Zo::builder()
        .provider(model)
        .file(dir.path().join("z"))
        .recall_limit(0)
        .price("", dear)
        .build()
        .await
        .unwrap();
    zo.open_ledger("team", Limits::none().steps(100)).await.unwrap();
    for n in 0..3 {
        let reply = zo.ask_with(&Cx::new(""), Ask::new(format!("c{n}"), "go").ledger("team")).await.unwrap();
        assert_eq!(reply.microusd, u64::MAX);
    }
    let ledger = row(&zo, "team").await;
    assert_eq!((ledger.spent.microusd, ledger.spent.tokens, ledger.spent.steps), (u64::MAX, u64::MAX, 3));
    let e = zo
        .ask_with(&Cx::new(""), Ask::new("d", "go").limits(Limits::none().microusd(1_000)))
        .await
        .unwrap_err();
    assert_eq!(overspent(&e).limit, "money");
}

// --- Retries, failures, summaries ---------------------------------------------------------------------------------------

#[tokio::test]
async fn what_a_broken_answer_cost_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut events: Vec<_> = Response::new(Message::assistant("half an ans"), FinishReason::Stop)
        .into_events()
        .into_iter()
        .filter(|e| !matches!(e, StreamEvent::Finish { .. }))
        .map(Ok)
        .collect();
    events.push(Ok(StreamEvent::Usage(Usage::new(1_000, 500))));
    events.push(Err(Error::new(ErrorKind::Unavailable, "model", "the line broke")));
    let model =
        Scripted::new([Turn::calls([("1", "look", json!({}))]), Turn::Events(events), Turn::text("done")]);
    let zo = builder(model, dir.path()).skill(quick("look", &Arc::default())).build().await.unwrap();
    let budget = zo.open_ledger("team", Limits::none().tokens(100_000)).await.unwrap();
    zo.ask_with(&Cx::new(""), Ask::new("c", "go").ledger("team")).await.unwrap_err();
    assert!(budget.spent().tokens >= 1_515, "{:?}", budget.spent());
    let ledger = row(&zo, "team").await;
    assert!(
        ledger.spent.tokens >= budget.spent().tokens,
        "{} of {}",
        ledger.spent.tokens,
        budget.spent().tokens
    );
}

#[tokio::test]
async fn calls_that_a_rate_limit_refused_are_counted_alike_in_ram_and_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let n = AtomicUsize::new(0);
    let model = Scripted::by(move |_| {
        if n.fetch_add(1, Ordering::SeqCst) < 4 {
            let e = Error::new(ErrorKind::RateLimited, "model", "slow down");
            return Turn::Fail(e.with_retry_after(Duration::from_millis(1)));
        }
        Turn::text("done")
    });
    let zo = builder(model, dir.path()).build().await.unwrap();
    let budget = zo.open_ledger("team", Limits::none().steps(3)).await.unwrap();
    let reply = zo.ask_with(&Cx::new(""), Ask::new("c", "go").ledger("team")).await;
    assert!(reply.is_ok(), "one answer is one model call, however long the door was shut: {reply:?}");
    assert_eq!(row(&zo, "team").await.spent.steps, budget.spent().steps);
}

#[tokio::test]
async fn summaries_stay_inside_the_cap() {
    let summaries = Arc::new(AtomicUsize::new(0));
    let (count, turn) = (summaries.clone(), AtomicUsize::new(0));
    let mut model = Greedy::by(move |r| {
        if r.messages[0].to_text().starts_with("You write the notes with") {
            count.fetch_add(1, Ordering::SeqCst);
            return Message::assistant("NOTES");
        }
        calls("look", json!({"n": turn.fetch_add(1, Ordering::SeqCst)}))
    });
    model.max_output = Some(100);
    let look = tool("look", |_, c| async move {
        Ok(ToolOutput::text(format!("{} {}", c.args, "lorem ipsum dolor sit ".repeat(300))))
    })
    .effect(Effect::Pure);
    for cap in (10_000..60_000).step_by(2_500) {
        let before = model.took().tokens;
        let zo = Zo::builder()
            .provider(model.clone())
            .context_tokens(4_000)
            .max_steps(1_000)
            .recall_limit(0)
            .skill(look.clone())
            .build()
            .await
            .unwrap();
        let e = zo.ask_with(&Cx::new(""), Ask::new("c", "go").limits(Limits::none().tokens(cap))).await;
        assert_eq!(overspent(&e.unwrap_err()).limit, "tokens");
        let took = model.took().tokens - before;
        assert!(took <= cap, "{took} of {cap}");
    }
    assert!(summaries.load(Ordering::SeqCst) > 10);
}

#[tokio::test]
async fn a_summary_that_costs_more_than_is_left_is_not_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let model = Greedy::by(|_| Message::assistant("NOTES"));
    let zo = builder(model.clone(), dir.path()).history_tokens(2_000).build().await.unwrap();
    let past: Vec<Message> = (0..20)
        .flat_map(|n| {
            [Message::user(format!("{n} {}", "lorem ipsum dolor sit ".repeat(80))), Message::assistant("yes")]
        })
        .collect();
    zo.transcript().unwrap().append(&Cx::new(""), "c", None, &past).await.unwrap();
    let ask = Ask::new("c", "and now?").limits(Limits::none().tokens(1_500));
    let _ = zo.ask_with(&Cx::new(""), ask).await;
    assert!(model.took().tokens <= 1_500, "{} tokens under a cap of 1,500", model.took().tokens);
}

// --- Restarts -----------------------------------------------------------------------------------------------------------

/// Runs that look for ever, restarted after each error or after `n` answers.
async fn restarts(limits: Limits, pause: Duration) -> (Greedy, usize, Vec<Ledger>, ErrorKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Greedy::by(|r| calls("look", json!({"n": steps(r)})));
    model.pause = pause;
    model.max_output = Some(1_000);
    let ran = Arc::new(AtomicUsize::new(0));
    let mut rows = Vec::new();
    for round in 0..40 {
        let zo = builder(model.clone(), dir.path())
            .max_steps(10_000)
            .skill(quick("look", &ran))
            .build()
            .await
            .unwrap();
        zo.open_ledger("team", limits).await.unwrap();
        let mut stream = match zo.unfinished().unwrap().first() {
            None => zo.stream_with(&Cx::new(""), Ask::new("c", "go").ledger("team")),
            Some(u) => zo.resume(&u.run),
        };
        let mut answers = 0;
        let mut ended = None;
        while let Some(event) = stream.next().await {
            match event {
                Ok(RunEvent::Usage(_)) => answers += 1,
                Err(e) => ended = Some(e),
                _ => {}
            }
            if answers == 3 {
                break;
            }
        }
        drop(stream);
        let ledger = row(&zo, "team").await;
        if let Some(last) = rows.last() {
            let last: &Ledger = last;
            assert!(
                ledger.spent.minus(last.spent).plus(last.spent) == ledger.spent,
                "never less than before"
            );
        }
        rows.push(ledger);
        close(zo).await;
        if let Some(e) = ended {
            assert!(round > 1, "{e}");
            return (model, ran.load(Ordering::SeqCst), rows, e.kind());
        }
    }
    panic!("it never ended: {:?}, took {:?}", rows.last(), model.took());
}

#[tokio::test]
async fn a_restart_does_not_refill_steps_tokens_and_money() {
    let fast = Duration::from_millis(1);
    let (model, .., rows, e) = restarts(Limits::none().steps(20), fast).await;
    assert_eq!(e, ErrorKind::Denied);
    assert!(model.took().steps <= 20 && rows.last().unwrap().spent.steps >= model.took().steps);
    let (model, .., rows, e) = restarts(Limits::none().tokens(40_000), fast).await;
    assert_eq!(e, ErrorKind::Denied);
    assert!(model.took().tokens <= 40_000, "{:?} {:?}", model.took(), rows.last());
    let (model, .., rows, e) = restarts(Limits::none().microusd(500_000), fast).await;
    assert_eq!(e, ErrorKind::Denied);
    assert!(model.took().microusd <= 500_000, "{:?} {:?}", model.took(), rows.last());
}

#[tokio::test]
async fn a_restart_does_not_refill_wall_time() {
    let (_, _, rows, _) =
        restarts(Limits::none().wall(Duration::from_millis(300)), Duration::from_millis(20)).await;
    let spent = rows.last().unwrap().spent.millis;
    assert!((200..=400).contains(&spent), "{spent}");
}

#[tokio::test]
async fn calls_of_unknown_outcome_count_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let mail = |hang: bool| {
        let begun = begun.clone();
        tool("mail", move |_, _| {
            begun.fetch_add(1, Ordering::SeqCst);
            async move {
                if hang {
                    std::future::pending::<()>().await;
                }
                Ok(ToolOutput::text("sent"))
            }
        })
        .effect(Effect::AtMostOnce)
    };
    let three =
        || Turn::calls([("1", "mail", json!({})), ("2", "mail", json!({})), ("3", "mail", json!({}))]);
    let model = Scripted::new([three(), three(), Turn::text("done")]);
    let zo1 = builder(model.clone(), dir.path()).skill(mail(true)).build().await.unwrap();
    let mut stream = zo1.stream_with(&Cx::new(""), Ask::new("c", "go").limits(Limits::none().tool_calls(3)));
    while begun.load(Ordering::SeqCst) < 3 {
        tokio::select! {
            _ = stream.next() => {}
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    drop(stream);
    close(zo1).await;
    let zo2 = builder(model, dir.path()).skill(mail(false)).build().await.unwrap();
    let run = zo2.unfinished().unwrap()[0].run.clone();
    zo2.resume(&run).reply().await.unwrap();
    assert_eq!(begun.load(Ordering::SeqCst), 3, "three mails may go out, and three did or may have");
}

#[tokio::test]
async fn a_run_that_crashes_at_its_model_call_does_not_spend_without_end() {
    for limits in [Limits::none().tokens(50_000), Limits::none().microusd(500_000), Limits::none().steps(20)]
    {
        let dir = tempfile::tempdir().unwrap();
        let started = Arc::new(AtomicUsize::new(0));
        let count = started.clone();
        // It answers once; then each answer is lost: the process dies while it comes.
        let model = Scripted::by(move |r| {
            if steps(r) == 0 {
                return Turn::calls([("1", "look", json!({}))]);
            }
            count.fetch_add(1, Ordering::SeqCst);
            Turn::Hang
        });
        let mut ended = None;
        for _ in 0..100 {
            let zo = builder(model.clone(), dir.path())
                .skill(quick("look", &Arc::default()))
                .build()
                .await
                .unwrap();
            let mut stream = match zo.unfinished().unwrap().first() {
                None => zo.stream_with(&Cx::new(""), Ask::new("c", "go").limits(limits)),
                Some(u) => zo.resume(&u.run),
            };
            let before = started.load(Ordering::SeqCst);
            while ended.is_none() && started.load(Ordering::SeqCst) == before {
                tokio::select! {
                    event = stream.next() => if let Some(Err(e)) = event { ended = Some(e) },
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
            drop(stream);
            close(zo).await;
            if ended.is_some() {
                break;
            }
        }
        let calls = started.load(Ordering::SeqCst);
        let e =
            ended.unwrap_or_else(|| panic!("{limits:?}: {calls} calls whose answers were lost, and no end"));
        overspent(&e);
        assert!(calls <= 30, "{calls}");
    }
}

#[tokio::test]
async fn a_fork_is_not_refilled_by_resuming_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = Greedy::by(|r| calls("look", json!({"n": steps(r)})));
    let zo = builder(model.clone(), dir.path())
        .limits(Limits::none().steps(4))
        .max_steps(1_000)
        .skill(quick("look", &Arc::default()))
        .build()
        .await
        .unwrap();
    overspent(&zo.ask("c", "go").await.unwrap_err());
    let run = zo.unfinished().unwrap()[0].run.clone();
    let fork = zo.fork(&run, 1, "d").await.unwrap();
    let before = model.took().steps;
    for _ in 0..5 {
        overspent(&zo.resume(&fork).reply().await.unwrap_err());
    }
    let took = model.took().steps - before;
    assert!(took <= 4, "{took} model calls under a limit of 4");
}

// --- Named ledgers ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_named_ledger_is_shared_by_runs_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let model = Greedy::by(|_| Message::assistant("ok"));
    for id in ["team", "550e8400e29b41d4a716446655440000"] {
        let before = model.took().steps;
        let mut refused = 0;
        for _ in 0..3 {
            let zo = builder(model.clone(), dir.path()).build().await.unwrap();
            let budget = zo.open_ledger(id, Limits::none().steps(10)).await.unwrap();
            let asks = (0..8).map(|n| {
                let zo = zo.clone();
                async move { zo.ask_with(&Cx::new(""), Ask::new(format!("{id}/{n}"), "go").ledger(id)).await }
            });
            for reply in futures_all(asks).await {
                if let Err(e) = reply {
                    assert_eq!(overspent(&e).limit, "steps");
                    refused += 1;
                }
            }
            assert_eq!(
                budget.spent().steps,
                model.took().steps - before,
                "the handle tells what was spent: {id}"
            );
            assert_eq!(row(&zo, id).await.spent.steps, model.took().steps - before);
            close(zo).await;
        }
        assert_eq!((model.took().steps - before, refused), (10, 14), "{id}");
    }
}

async fn futures_all<T: Send + 'static>(
    all: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = all.map(tokio::spawn).collect();
    let mut out = Vec::new();
    for task in tasks {
        out.push(task.await.unwrap());
    }
    out
}

#[tokio::test]
async fn a_ledger_that_does_not_exist_is_an_error_whatever_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let zo = builder(Greedy::by(|_| Message::assistant("ok")), dir.path()).build().await.unwrap();
    for id in ["nobody's", "550e8400e29b41d4a716446655440000"] {
        let reply = zo.ask_with(&Cx::new(""), Ask::new("c", "go").ledger(id)).await;
        assert_eq!(reply.map(|r| r.text).unwrap_err().kind(), ErrorKind::NotFound, "{id}");
    }
}

#[tokio::test]
async fn a_parked_run_uses_up_no_time_and_its_call_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|r| {
        if steps(r) == 0 { Turn::calls([("1", "mail", json!({}))]) } else { Turn::text("done") }
    });
    let ran = Arc::new(AtomicUsize::new(0));
    let zo = builder(model, dir.path())
        .skill(quick("mail", &ran))
        .permissions(Permissions::default().otherwise(zo_core::Verdict::Ask))
        .build()
        .await
        .unwrap();
    let budget =
        zo.open_ledger("team", Limits::none().wall(Duration::from_secs(2)).tool_calls(1)).await.unwrap();
    let reply = zo.ask_with(&Cx::new(""), Ask::new("c", "go").ledger("team")).await.unwrap();
    let mut approvals = reply.approvals;
    assert_eq!(approvals.len(), 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(budget.spent().millis < 200, "{:?}", budget.spent());
    let run = zo.approve(&approvals.remove(0), "me").await.unwrap();
    assert_eq!(zo.resume(&run).reply().await.unwrap().text, "done");
    assert_eq!((ran.load(Ordering::SeqCst), budget.spent().tool_calls), (1, 1));
    assert_eq!(row(&zo, "team").await.spent.tool_calls, 1);
}

// --- Personas and tools -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_child_of_a_limited_persona_is_limited_too() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|r| {
        let system =
            r.messages.iter().find(|m| m.role == Role::System).map(Message::to_text).unwrap_or_default();
        if steps(r) > 0 {
            return Turn::text("done");
        }
        match system.as_str() {
            "You are narrow." => Turn::calls([("1", "ask_wide", json!({"task": "wide task"}))]),
            "You are wide." => Turn::calls([("1", "secret", json!({}))]),
            _ => Turn::calls([("1", "ask_narrow", json!({"task": "narrow task"}))]),
        }
    });
    let model = Strict::new(model);
    let ran = Arc::new(AtomicUsize::new(0));
    let zo = builder(model.clone(), dir.path())
        .skill(quick("secret", &ran))
        .persona(Persona::new("narrow", "You are narrow.").description("Narrow.").tools(["ask_wide"]))
        .persona(Persona::new("wide", "You are wide.").description("Wide."))
        .build()
        .await
        .unwrap();
    zo.ask("c", "go").await.unwrap();
    assert!(model.inner().asked().iter().any(|a| a.request.messages[0].to_text() == "You are wide."));
    assert_eq!(
        ran.load(Ordering::SeqCst),
        0,
        "a persona that is offered ask_wide alone got at the tool secret"
    );
}

#[tokio::test]
async fn a_persona_that_is_gone_after_a_restart_widens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let model = Scripted::new([
        Turn::calls([("1", "look", json!({}))]),
        Turn::Fail(Error::new(ErrorKind::Unavailable, "model", "overloaded")),
        Turn::calls([("2", "secret", json!({}))]),
        Turn::text("done"),
    ]);
    let build = || {
        builder(model.clone(), dir.path()).skill(quick("secret", &ran)).skill(quick("look", &Arc::default()))
    };
    let zo1 =
        build().persona(Persona::new("narrow", "You are narrow.").tools(["look"])).build().await.unwrap();
    zo1.ask_with(&Cx::new(""), Ask::new("c", "go").persona("narrow")).await.unwrap_err();
    close(zo1).await;
    let zo2 = build().build().await.unwrap();
    let run = zo2.unfinished().unwrap()[0].run.clone();
    let _ = zo2.resume(&run).reply().await;
    assert_eq!(ran.load(Ordering::SeqCst), 0, "the run of a persona without the tool secret called it");
}

#[tokio::test]
async fn a_call_that_was_not_on_offer_is_not_run_after_a_crash_either() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let model = Scripted::new([Turn::calls([("1", "secret", json!({}))]), Turn::text("done")]);
    let secret = || {
        let ran = ran.clone();
        tool("secret", move |_, _| {
            ran.fetch_add(1, Ordering::SeqCst);
            async { Ok(ToolOutput::text("told")) }
        })
        .effect(Effect::Idempotent)
    };
    let build = |crash: bool| {
        builder(model.clone(), dir.path())
            .skill(secret())
            .persona(Persona::new("narrow", "You are narrow.").tools(["look"]))
            .probe(move |what, when| {
                if crash && (what, when) == ("tool", "queue") {
                    panic!("the process dies here");
                }
            })
    };
    let zo1 = build(true).build().await.unwrap();
    let run = zo1.clone();
    let died = tokio::spawn(async move {
        run.ask_with(&Cx::new(""), Ask::new("c", "go").persona("narrow")).await.map(|_| ())
    })
    .await;
    assert!(died.is_err(), "{died:?}");
    close(zo1).await;
    let zo2 = build(false).build().await.unwrap();
    let run = zo2.unfinished().unwrap()[0].run.clone();
    zo2.resume(&run).reply().await.unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}
