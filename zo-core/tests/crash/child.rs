//! The life of the victim: it takes up what was interrupted, then asks in several conversations at once, and says a line for
//! everything that it was promised. Its tools leave a record of their own outside of the store.

use crate::tokens;
use serde_json::json;
use std::{
    fmt::Display,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use zo_core::{
    Approval, Ask, BoxStream, Capabilities, Cursor, Cx, Effect, Error, ErrorKind, FinishReason, Limits,
    Message, Overspent, Part, Permissions, Persona, Price, Provider, Reply, Request, Response, Result, Role,
    RunEvent, RunId, RunStream, StreamEvent, ToolCall, ToolChoice, ToolOutput, ToolResult, ToolStatus, Touch,
    Usage, Zo, async_trait, memory::StoreTranscript, permission::Rule, store::Store,
};
use zo_testkit::{RawTool, Scripted, Strict, Turn, kill, tool};

pub(crate) const LEDGER: &str = "team";
pub(crate) const MODEL: &str = "model-of-the-test";
pub(crate) const CONVERSATIONS: u64 = 4;
/// Most answers of a run with limits of its own.
pub(crate) const STEPS: u64 = 7;

/// Names of the tools by their effect, three each.
pub(crate) const PURE: [&str; 3] = ["look", "calc", "report"];
pub(crate) const IDEMPOTENT: [&str; 3] = ["note", "put", "sync"];
pub(crate) const AT_MOST_ONCE: [&str; 3] = ["pay", "mail", "wire"];

/// What one child is to do. Given to it as JSON.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Orders {
    pub(crate) dir: PathBuf,
    pub(crate) round: u32,
    pub(crate) chance: u64,
    /// Where it dies: what is written, when, the how-manieth time.
    pub(crate) point: Option<(String, String, u32)>,
    /// Conversations are kept elsewhere than in the journal's own commit.
    pub(crate) elsewhere: bool,
    /// Summaries are made without a model.
    pub(crate) plain: bool,
    /// Only what was interrupted is carried to its end.
    pub(crate) finish: bool,
}

/// Something that the host was promised, or saw; one line.
macro_rules! say {
    ($($arg:tt)*) => {{
        let line = format!("! {}\n", format_args!($($arg)*));
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }};
}

/// Words that occur once in the world.
fn nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let round = ROUND.load(Ordering::Relaxed);
    format!("#r{round}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

static ROUND: AtomicU32 = AtomicU32::new(0);

#[derive(Clone)]
struct Chance(Arc<AtomicU64>);

impl Chance {
    fn below(&self, n: u64) -> u64 {
        let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }

    fn percent(&self, n: u64) -> bool {
        self.below(100) < n
    }
}

/// The rounds of calls that the model makes for a question of this kind; then it answers.
fn rounds(kind: u64) -> &'static [&'static [&'static str]] {
    match kind {
        0 => &[&["look", "note", "pay"], &["pay", "mail"]],
        1 => &[&["wire", "look"], &["put"]],
        2 => &[&["ask_clerk", "note"]],
        3 => &[&["report"], &["calc", "report"]],
        4 => &[&["sync", "mail"], &["sync"], &["sync", "pay"]],
        6 => &[&["look", "calc", "report", "note", "put", "sync", "pay", "mail", "wire"]],
        7 => &[&["ask_clerk", "look"], &["mail"]],
        // Those of the clerk.
        10 => &[&["pay", "note"]],
        11 => &[&["wire"], &["pay"]],
        _ => &[],
    }
}

/// The question in a text: its name and kind.
pub(crate) fn question(text: &str) -> Option<(&str, u64)> {
    let (name, kind) = text.split_once("[[")?.1.split_once("]]")?.0.split_once(' ')?;
    Some((name, kind.parse().ok()?))
}

fn model(request: &Request) -> Turn {
    let system = request.messages.first().filter(|m| m.role == Role::System).map(Message::to_text);
    if system.is_some_and(|s| s.starts_with("You write the notes")) {
        return answer(request, vec![Part::text("Notes: much was asked and done.")]);
    }
    let last =
        request.messages.iter().rposition(|m| m.role == Role::User && question(&m.to_text()).is_some());
    let Some(last) = last else {
        say!("BROKEN the question is not in the request");
        kill::die();
    };
    let text = request.messages[last].to_text();
    let (name, kind) = question(&text[text.rfind("[[").unwrap()..]).unwrap();
    let round = request.messages[last..].iter().filter(|m| m.role == Role::Tool).count();
    let mut parts = vec![Part::text(format!("{} for {name}", nonce()))];
    match rounds(kind).get(round) {
        Some(names) if request.tool_choice != ToolChoice::None => {
            for (i, tool) in names.iter().enumerate() {
                let args = match *tool {
                    "ask_clerk" => {
                        json!({"task": format!("[[{name}.{i} {}]]", if kind == 7 { 11 } else { 10 })})
                    }
                    _ => json!({"account": format!("a{}", i % 2)}),
                };
                parts.push(Part::ToolCall(ToolCall::new(format!("c{i}"), *tool, args)));
            }
        }
        _ => {
            let words = if kind == 5 { 120 } else { 5 };
            parts.push(Part::text("and so it was done. ".repeat(words)));
        }
    }
    answer(request, parts)
}

fn answer(request: &Request, parts: Vec<Part>) -> Turn {
    let calls = parts.iter().any(|p| matches!(p, Part::ToolCall(_)));
    let reason = if calls { FinishReason::ToolCalls } else { FinishReason::Stop };
    let mut answer = Response::new(Message { role: Role::Assistant, parts }, reason);
    let bytes: usize = request.messages.iter().map(|m| serde_json::to_string(m).unwrap().len()).sum();
    answer.usage = Usage::new(bytes as u64 / 4, 30);
    Turn::Answer(answer)
}

/// Says aloud what a strict provider refused.
#[derive(Debug)]
struct Loud(Strict<Scripted>);

#[async_trait]
impl Provider for Loud {
    fn id(&self) -> &str {
        "loud"
    }

    fn capabilities(&self, model: &str) -> Capabilities {
        self.0.capabilities(model)
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        let before = self.0.violations().len();
        let stream = self.0.stream(cx, request).await;
        for violation in self.0.violations().iter().skip(before) {
            say!("INVALID {violation}");
        }
        stream
    }
}

/// A tool whose effect in the world is a line with its idempotency key.
fn acts(name: &'static str, effect: Effect, dir: &Path) -> RawTool {
    let dir = dir.to_owned();
    let body = move |cx: Cx, _| {
        let record = dir.join("outside");
        async move {
            let (key, nonce) = (cx.idempotency_key().unwrap().to_owned(), nonce());
            let mut out = OpenOptions::new().create(true).append(true).open(record).unwrap();
            out.write_all(format!("{key} {name} {nonce}\n").as_bytes()).unwrap();
            tokio::time::sleep(Duration::from_micros(300)).await;
            Ok(ToolOutput::text(format!("receipt {nonce}")))
        }
    };
    tool(name, body).effect(effect)
}

fn reads(name: &str, words: usize) -> RawTool {
    tool(name, move |_, _| async move { Ok(format!("seen {}{}", nonce(), " and more".repeat(words)).into()) })
        .effect(Effect::Pure)
}

async fn open(orders: &Orders) -> Result<Zo> {
    let dir = &orders.dir;
    let store = Store::open(dir.join("bot.zo"))?;
    let clerk = Persona::new("clerk", "You are the clerk.")
        .description("Does the paperwork")
        .tools(["pay", "note", "wire"]);
    let mut builder = Zo::builder()
        .provider(Loud(Strict::new(Scripted::by_unrecorded(model))))
        .model(MODEL)
        .price(MODEL, Price { input: 3_000_000, output: 15_000_000, ..Price::default() })
        .store(store.clone())
        .system("You are a bot in a test.")
        .recall_limit(0)
        .memory_tools(false)
        .keep_runs(1_000_000)
        .max_steps(9)
        .max_tool_output(1_024)
        .history_tokens(900)
        .context_tokens(2_500)
        .summaries(!orders.plain)
        .permissions(Permissions::default().rule(Rule::ask().tool("wire").because("it is a lot")))
        .persona(clerk)
        .skill(reads("look", 3))
        .skill(reads("calc", 0).touch(Touch::reads("account").arg("account")))
        .skill(reads("report", 600))
        .skill(acts("note", Effect::Idempotent, dir))
        .skill(acts("put", Effect::Idempotent, dir).touch(Touch::writes("account").arg("account")))
        .skill(acts("sync", Effect::Idempotent, dir).serial())
        .skill(acts("pay", Effect::AtMostOnce, dir).touch(Touch::writes("account").arg("account")))
        .skill(acts("mail", Effect::AtMostOnce, dir).max_parallel(1))
        .skill(acts("wire", Effect::AtMostOnce, dir));
    if orders.elsewhere {
        builder = builder.transcript(StoreTranscript::new(store).await?);
    }
    if let Some((what, when, mut nth)) = orders.point.clone() {
        let left = std::sync::Mutex::new(());
        let hits = AtomicU32::new(0);
        nth = nth.max(1);
        builder = builder.probe(move |w, t| {
            if w == what && t == when {
                let _one = left.lock().unwrap();
                if hits.fetch_add(1, Ordering::SeqCst) + 1 == nth {
                    say!("at {what} {when}");
                    kill::die();
                }
            }
        });
    }
    builder.build().await
}

/// What must not happen.
fn broken(what: impl Display, e: &Error) {
    say!("BROKEN {what}: {e}");
}

struct Life {
    zo: Zo,
    chance: Chance,
    orders: Orders,
    next: AtomicU64,
}

pub(crate) fn live(orders: &Orders) {
    ROUND.store(orders.round, Ordering::Relaxed);
    // The harness has begun a line.
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let zo = match open(orders).await {
            Ok(zo) => zo,
            Err(e) => return broken("open", &e),
        };
        let chance = Chance(Arc::new(AtomicU64::new(orders.chance)));
        let life = Arc::new(Life { zo, chance, orders: orders.clone(), next: AtomicU64::new(0) });
        let limits = Limits::none().steps(1_000_000).tokens(1_000_000_000).microusd(1_000_000_000);
        let team = match life.zo.open_ledger(LEDGER, limits).await {
            Ok(team) => team,
            Err(e) => return broken("ledger", &e),
        };
        life.take_up().await;
        if orders.finish {
            // What has a parent is taken up by it, or is left alone when it is over.
            for _ in 0..8 {
                life.take_up().await;
            }
            say!("finished");
            return;
        }
        let mut tasks = tokio::task::JoinSet::new();
        for c in 0..CONVERSATIONS {
            let life = life.clone();
            tasks.spawn(async move {
                loop {
                    life.ask(c).await;
                }
            });
        }
        tasks.spawn(async move {
            loop {
                life.steer().await;
            }
        });
        tasks.join_all().await;
        drop(team);
    });
}

impl Life {
    /// Decides what waits, tells what is known, and continues what was interrupted.
    async fn take_up(self: &Arc<Self>) {
        match self.zo.approvals() {
            Ok(all) => {
                for approval in all {
                    self.decide(&approval).await;
                }
            }
            Err(e) => return broken("approvals", &e),
        }
        let left = match self.zo.unfinished() {
            Ok(left) => left,
            Err(e) => return broken("unfinished", &e),
        };
        let mut tasks = tokio::task::JoinSet::new();
        for u in &left {
            if let Some(e) = &u.damaged {
                broken(format_args!("damaged {}", u.run), e);
                continue;
            }
            for call in &u.unknown {
                if self.chance.percent(50) {
                    self.supply(&u.run, call).await;
                }
            }
        }
        for u in &left {
            if u.parent.as_ref().is_some_and(|p| left.iter().any(|o| o.run == *p)) {
                continue;
            }
            if !self.orders.finish && self.chance.percent(12) {
                // The next question of the conversation settles it.
                continue;
            }
            if self.chance.percent(5) {
                self.abandon(&u.run).await;
                continue;
            }
            let (life, run) = (self.clone(), u.run.clone());
            tasks.spawn(async move {
                let stream = life.zo.resume(&run);
                life.follow(stream, None).await;
            });
        }
        tasks.join_all().await;
    }

    async fn abandon(&self, run: &RunId) {
        match self.zo.abandon(run).await {
            Ok(()) => say!("abandoned {run}"),
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            Err(e) => broken("abandon", &e),
        }
    }

    /// The truth about a call that was in flight, from the record outside.
    async fn supply(&self, run: &RunId, call: &ToolCall) {
        let key = format!("{run}/{}", call.id);
        let record = std::fs::read_to_string(self.orders.dir.join("outside")).unwrap_or_default();
        let done = record.lines().find(|l| l.split(' ').next() == Some(&key));
        let (status, text, nonce) = match done.and_then(|l| l.split(' ').nth(2)) {
            Some(nonce) => (ToolStatus::Ok, format!("supplied receipt {nonce}"), nonce.to_owned()),
            None => {
                let nonce = nonce();
                (ToolStatus::Error, format!("supplied: it did not happen {nonce}"), nonce)
            }
        };
        match self.zo.supply(run, ToolResult::new(call, status, text)).await {
            Ok(()) => say!("did {run} {} {nonce}", call.id),
            // It was given up before, and only its end was not on record.
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            Err(e) => broken("supply", &e),
        }
    }

    async fn decide(&self, a: &Approval) -> Option<RunId> {
        let no = self.chance.percent(12);
        let decided =
            if no { self.zo.deny(a, "not today", "ada").await } else { self.zo.approve(a, "ada").await };
        match decided {
            Ok(root) => {
                say!("decided {} {} {}", a.run, a.call.id, if no { "deny" } else { "allow" });
                Some(root)
            }
            // Somebody else was faster, or the run is over.
            Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => None,
            Err(e) => {
                broken("decide", &e);
                None
            }
        }
    }

    /// Follows a run to its end, through its approvals, and says aloud what it was seen to do.
    async fn follow(&self, mut stream: RunStream, asked: Option<(&str, &str)>) {
        loop {
            let mut run = stream.run().map(ToString::to_string).unwrap_or_default();
            let parked = loop {
                match stream.next().await {
                    Some(Ok(event)) => {
                        if let RunEvent::Started(id) = &event {
                            run = id.to_string();
                            match asked {
                                Some((conversation, name)) => say!("started {run} {conversation} {name}"),
                                None => say!("resumed {run}"),
                            }
                        }
                        if let Some(reply) = self.seen(&run, event) {
                            break reply;
                        }
                    }
                    Some(Err(e)) => return self.failed(&run, &e).await,
                    None => return,
                }
            };
            match self.go_on(&parked).await {
                Some(run) => stream = self.zo.resume(&run),
                None => return,
            }
        }
    }

    /// Decides what a parked run waits for; gives the run to resume.
    async fn go_on(&self, reply: &Reply) -> Option<RunId> {
        for approval in &reply.approvals {
            self.decide(approval).await;
        }
        reply.is_parked().then(|| reply.run.clone())
    }

    /// `Some` at the end.
    fn seen(&self, run: &str, event: RunEvent) -> Option<Reply> {
        match event {
            RunEvent::ToolFinished { result, .. } => {
                if let (ToolStatus::Ok, Some(nonce)) = (&result.status, tokens(&result.content).first()) {
                    say!("did {run} {} {nonce}", result.id);
                }
            }
            RunEvent::Approval(a) => say!("asked {} {}", a.run, a.call.id),
            RunEvent::Compacted { .. } => say!("compacted {run}"),
            RunEvent::Done(reply) => {
                self.over(&reply);
                return Some(reply);
            }
            _ => {}
        }
        None
    }

    fn over(&self, reply: &Reply) {
        if reply.is_parked() {
            say!("parked {}", reply.run);
        } else {
            let text = tokens(&reply.text);
            say!("done {} {}", reply.run, text.first().unwrap_or(&"none"));
        }
    }

    async fn failed(&self, run: &str, e: &Error) {
        if e.source_as::<Overspent>().is_some() {
            say!("overspent {run}");
            return self.abandon(&RunId::from(run)).await;
        }
        // It was settled by the next question, or taken up by somebody else; or another one waits for a decision.
        if e.kind() != ErrorKind::Conflict {
            broken(format_args!("run {run}"), e);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn kind(&self) -> u64 {
        let what = self.orders.point.as_ref().map_or("", |(what, ..)| what);
        match what {
            "asked" | "parked" if self.chance.percent(70) => [1, 6, 7][self.chance.below(3) as usize],
            "compacted" | "charge" if self.chance.percent(60) => 5,
            _ => self.chance.below(8),
        }
    }

    async fn ask(self: &Arc<Self>, c: u64) {
        let name = format!("q{}_{}", self.orders.round, self.next.fetch_add(1, Ordering::Relaxed));
        let conversation = format!("c{c}");
        let kind = self.kind();
        let mut ask = Ask::new(&conversation, format!("[[{name} {kind}]] Please.")).ledger(LEDGER);
        if kind.is_multiple_of(2) {
            ask = ask.limits(Limits::none().steps(STEPS));
        }
        let asked = Some((conversation.as_str(), name.as_str()));
        match c {
            0 | 1 => self.follow(self.zo.stream_with(&Cx::new(""), ask), asked).await,
            2 => match self.zo.spawn(&Cx::new(""), ask).await {
                Ok(agent) => self.follow(agent.events(Cursor::start()), asked).await,
                Err(e) => self.failed(&name, &e).await,
            },
            _ => match self.zo.ask_with(&Cx::new(""), ask).await {
                Ok(reply) => {
                    self.over(&reply);
                    if let Some(run) = self.go_on(&reply).await {
                        self.follow(self.zo.resume(&run), None).await;
                    }
                }
                Err(e) => self.failed(&name, &e).await,
            },
        }
        // Whatever may wait in the way of the next question.
        if let Ok(all) = self.zo.approvals() {
            for a in all.iter().filter(|a| a.conversation == conversation) {
                self.decide(a).await;
            }
        }
    }

    /// Says something to whoever is at work.
    async fn steer(&self) {
        tokio::time::sleep(Duration::from_micros(500 + self.chance.below(3_000))).await;
        let conversation = format!("c{}", self.chance.below(CONVERSATIONS));
        let word = nonce();
        match self.zo.say(&conversation, format!("By the way: {word}.")).await {
            Ok(run) => say!("said {run} {conversation} {word}"),
            Err(e)
                if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Unavailable) => {
            }
            Err(e) => broken("say", &e),
        }
    }
}
