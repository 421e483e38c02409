//! A chain of providers: when one cannot answer, the next is asked.
//!
//! Promises:
//! * **Nothing is emitted twice.** The next is asked only while no content of an answer has come.
//! * **A mistake is not passed around.** A wrong request, a cancellation, a refusal by a policy and a prompt that is too long
//!   end the chain (the last one only where no later model is known to hold more).
//! * **Nobody waits for the dead.** Who fails several times in a row is passed over for a while; then one request goes and
//!   looks.
//! * **Nothing is hidden.** When all fail, the error names each and what it said.

use super::peek::{self, Opened};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use zo_traits::{
    BoxStream, Capabilities, Cx, Error, ErrorKind, ModelInfo, Provider, Request, Result, StreamEvent,
    async_trait,
};

const OP: &str = "provider.fallback";
/// The most of one provider's words in the error about all of them, in characters.
const MAX_WORDS: usize = 300;

/// Providers in order of preference.
///
/// The next one is asked on [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout) (unless it is the
/// caller's own deadline), [`RateLimited`](ErrorKind::RateLimited), [`Exhausted`](ErrorKind::Exhausted),
/// [`Unauthorized`](ErrorKind::Unauthorized), [`NotFound`](ErrorKind::NotFound), [`Unsupported`](ErrorKind::Unsupported) and
/// [`Corrupt`](ErrorKind::Corrupt) before any content. Not on [`Denied`](ErrorKind::Denied): it is also what a budget or a
/// policy of the host says, and a chain must not be a way around them; [`also_on`](Fallback::also_on) can add it.
///
/// [`id`](Provider::id), [`capabilities`](Provider::capabilities) and [`count_tokens`](Provider::count_tokens) are those of the
/// first: it answers nearly always, and an agent that sized its context by the smallest model of the chain would pay for a
/// rare failure every day. A later model that is too small says so, as [`ContextOverflow`](ErrorKind::ContextOverflow) in the
/// error about all.
///
/// ```
/// use zo_providers::{Offline, layer::Fallback};
/// let provider = Fallback::new(Offline::new())
///     .then_model(Offline::new(), "rules")
///     .on_fall(|f| eprintln!("{} failed, {} is asked: {}", f.from, f.to, f.error));
/// ```
#[derive(Clone)]
pub struct Fallback {
    chain: Vec<Arc<Link>>,
    failures: u32,
    rest: Duration,
    also: Option<May>,
    on_fall: Option<OnFall>,
    on_answer: Option<OnAnswer>,
}

type May = Arc<dyn Fn(&Error) -> bool + Send + Sync>;
type OnFall = Arc<dyn Fn(&Fall<'_>) + Send + Sync>;
type OnAnswer = Arc<dyn Fn(&Answered<'_>) + Send + Sync>;

/// One provider that could not answer, and the one that is asked instead.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Fall<'a> {
    /// Id of the one that could not.
    pub from: &'a str,
    /// Id of the one that is asked now.
    pub to: &'a str,
    /// What the first said.
    pub error: &'a Error,
}

/// Who answered.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Answered<'a> {
    /// Its place in the chain; 0 is the first.
    pub place: usize,
    /// Its id.
    pub provider: &'a str,
    /// The model that it was asked for; may be empty.
    pub model: &'a str,
}

#[derive(Debug)]
struct Link {
    provider: Arc<dyn Provider>,
    /// What it is asked for, if not for what the request says.
    model: Option<String>,
    breaker: Mutex<Breaker>,
}

/// Remembers failures in a row.
#[derive(Debug, Default)]
struct Breaker {
    failed: u32,
    /// Passed over until then.
    until: Duration,
    /// Somebody looks whether it is back.
    probed: bool,
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Fallback {
    /// Begins with `provider`, which is asked for the model that the request names.
    pub fn new(provider: impl Provider) -> Self {
        let chain = Vec::new();
        let (failures, rest) = (5, Duration::from_secs(30));
        Self { chain, failures, rest, also: None, on_fall: None, on_answer: None }.link(provider, None)
    }

    /// Then `other`, asked for the model that the request names.
    #[must_use]
    pub fn then(self, other: impl Provider) -> Self {
        self.link(other, None)
    }

    /// Then `other`, asked for `model` whatever the request names.
    #[must_use]
    pub fn then_model(self, other: impl Provider, model: impl Into<String>) -> Self {
        self.link(other, Some(model.into()))
    }

    fn link(mut self, provider: impl Provider, model: Option<String>) -> Self {
        self.chain.push(Arc::new(Link { provider: Arc::new(provider), model, breaker: Mutex::default() }));
        self
    }

    /// A provider that failed `failures` times in a row (at least one) is passed over for `rest`. 5 times, 30 s.
    #[must_use]
    pub fn breaker(mut self, failures: u32, rest: Duration) -> Self {
        (self.failures, self.rest) = (failures.max(1), rest);
        self
    }

    /// Asks the next on these errors, too. Cancellation and a deadline that has passed always end the chain.
    #[must_use]
    pub fn also_on(mut self, may: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.also = Some(Arc::new(may));
        self
    }

    /// Called each time the next is asked.
    #[must_use]
    pub fn on_fall(mut self, hook: impl Fn(&Fall<'_>) + Send + Sync + 'static) -> Self {
        self.on_fall = Some(Arc::new(hook));
        self
    }

    /// Called when the first content of an answer has come.
    #[must_use]
    pub fn on_answer(mut self, hook: impl Fn(&Answered<'_>) + Send + Sync + 'static) -> Self {
        self.on_answer = Some(Arc::new(hook));
        self
    }

    fn first(&self) -> Option<&Link> {
        self.chain.first().map(|link| &**link)
    }

    /// May another provider do better?
    fn falls(&self, cx: &Cx, e: &Error) -> bool {
        use ErrorKind as K;
        let elsewhere = matches!(
            e.kind(),
            K::Unavailable
                | K::Timeout
                | K::RateLimited
                | K::Exhausted
                | K::Unauthorized
                | K::NotFound
                | K::Unsupported
                | K::Corrupt
        );
        let also = || self.also.as_ref().is_some_and(|also| also(e));
        e.kind() != K::Cancelled && cx.check(OP).is_ok() && (elsewhere || also())
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn model<'a>(&'a self, request: &'a Request) -> &'a str {
        self.model.as_deref().unwrap_or(&request.model)
    }

    /// Lets a request through, or says for how long it is passed over.
    fn admit(&self, now: Duration, failures: u32) -> Result<Ask<'_>, Duration> {
        let mut breaker = self.lock();
        let open = breaker.failed >= failures;
        if open && (breaker.probed || now < breaker.until) {
            // While somebody looks, the others have no better idea than to wait a moment.
            return Err(breaker.until.saturating_sub(now).max(Duration::from_secs(1)));
        }
        breaker.probed = open;
        Ok(Ask { link: self, probe: open })
    }

    async fn open(&self, cx: &Cx, request: &Request) -> Result<Opened> {
        let Some(model) = self.model.as_ref().filter(|model| **model != request.model) else {
            return peek::open(&*self.provider, cx, request).await;
        };
        let mut own = request.clone();
        own.model.clone_from(model);
        peek::open(&*self.provider, cx, &own).await
    }
}

/// A request that was let through. Dropping it says nothing about the provider.
struct Ask<'a> {
    link: &'a Link,
    probe: bool,
}

impl Ask<'_> {
    fn settle(self, now: Duration, rest: Duration, outcome: Result<(), &Error>) {
        use ErrorKind as K;
        let mut breaker = self.link.lock();
        match outcome.map_err(Error::kind) {
            Err(
                K::Unavailable | K::Timeout | K::RateLimited | K::Exhausted | K::Unauthorized | K::Corrupt,
            ) => {
                breaker.failed = breaker.failed.saturating_add(1);
                breaker.until = now.saturating_add(rest);
            }
            Err(K::Cancelled) => {}
            // Who finds fault with a request is alive.
            _ => breaker.failed = 0,
        }
    }
}

impl Drop for Ask<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.link.lock().probed = false;
        }
    }
}

#[async_trait]
impl Provider for Fallback {
    fn id(&self) -> &str {
        self.first().map_or("fallback", |link| link.provider.id())
    }

    fn capabilities(&self, model: &str) -> Capabilities {
        self.first().map_or_else(Capabilities::default, |link| link.provider.capabilities(model))
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.check(OP)?;
        let mut said: Vec<(&Link, Error)> = Vec::new();
        // Once a prompt was too long: the window that was too small for it.
        let mut too_small: Option<u32> = None;
        for (place, link) in self.chain.iter().enumerate() {
            let window = link.provider.capabilities(link.model(request)).context_window;
            if too_small.is_some_and(|known| window.is_none_or(|w| w <= known)) {
                continue;
            }
            let ask = match link.admit(cx.clock().monotonic(), self.failures) {
                Ok(ask) => ask,
                Err(wait) => {
                    let error = Error::new(
                        ErrorKind::Unavailable,
                        OP,
                        format_args!("passed over, since it failed {} times in a row", self.failures),
                    );
                    said.push((link, error.with_retry_after(wait)));
                    continue;
                }
            };
            if let (Some(hook), Some((from, error))) = (&self.on_fall, said.last()) {
                hook(&Fall { from: from.provider.id(), to: link.provider.id(), error });
            }
            let error = match link.open(cx, request).await {
                Ok(mut opened) => {
                    ask.settle(cx.clock().monotonic(), self.rest, Ok(()));
                    let (provider, model) = (link.provider.id(), link.model(request));
                    if let Some(hook) = &self.on_answer {
                        hook(&Answered { place, provider, model });
                    }
                    if place > 0 {
                        name(&mut opened, model);
                    }
                    return Ok(opened.into_stream());
                }
                Err(e) => e,
            };
            if cx.check(OP).is_err() {
                // The caller gave up; that is nobody's failure.
                return Err(error);
            }
            ask.settle(cx.clock().monotonic(), self.rest, Err(&error));
            let overflow = error.kind() == ErrorKind::ContextOverflow;
            let goes_on = self.falls(cx, &error) || (overflow && window.is_some());
            if overflow {
                too_small = window.or(too_small);
            }
            said.push((link, error));
            if !goes_on {
                break;
            }
        }
        Err(all_failed(said))
    }

    async fn models(&self, cx: &Cx) -> Result<Vec<ModelInfo>> {
        let (mut all, mut said) = (Vec::<ModelInfo>::new(), Vec::new());
        for link in &self.chain {
            let listed = match &link.model {
                // It is asked for this one, whatever else it has.
                Some(model) => {
                    let mut info = ModelInfo::new(model);
                    info.capabilities = link.provider.capabilities(model);
                    vec![info]
                }
                None => match link.provider.models(cx).await {
                    Ok(listed) => listed,
                    Err(e) => {
                        cx.check(OP)?;
                        said.push((&**link, e));
                        continue;
                    }
                },
            };
            let known: std::collections::HashSet<String> = all.iter().map(|m| m.id.clone()).collect();
            all.extend(listed.into_iter().filter(|m| !known.contains(&m.id)));
        }
        if said.is_empty() || !all.is_empty() { Ok(all) } else { Err(all_failed(said)) }
    }

    async fn count_tokens(&self, cx: &Cx, request: &Request) -> Result<u64> {
        match self.first() {
            Some(link) => link.provider.count_tokens(cx, request).await,
            None => Err(Error::new(ErrorKind::Unsupported, OP, "the chain is empty")),
        }
    }
}

/// Makes the start of an answer name the model, where the provider does not.
fn name(opened: &mut Opened, asked: &str) {
    if asked.is_empty() {
        return;
    }
    match opened.head.front_mut() {
        Some(StreamEvent::Start { model: Some(_), .. }) => {}
        Some(StreamEvent::Start { model, .. }) => *model = Some(asked.to_owned()),
        _ => opened.head.push_front(StreamEvent::Start { id: None, model: Some(asked.to_owned()) }),
    }
}

/// One error for all: of the kind that helps most, which is that of the one to which it is worth coming back soonest; else a
/// prompt that can be shortened; else what the last one said, since it ended the chain.
fn all_failed(mut said: Vec<(&Link, Error)>) -> Error {
    if said.len() == 1
        && let Some((_, only)) = said.pop()
    {
        return only;
    }
    let again = said
        .iter()
        .map(|(_, e)| e)
        .filter(|e| e.is_retryable())
        .min_by_key(|e| e.retry_after().unwrap_or_default());
    let longer = || said.iter().map(|(_, e)| e).find(|e| e.kind() == ErrorKind::ContextOverflow);
    let Some(best) = again.or_else(longer).or_else(|| said.last().map(|(_, e)| e)) else {
        return Error::new(ErrorKind::Unavailable, OP, "no provider could be asked");
    };
    let words: Vec<String> = said
        .iter()
        .map(|(link, e)| {
            let text: String = e.message().chars().take(MAX_WORDS).collect();
            format!("{}: {} ({})", link.provider.id(), text, e.kind())
        })
        .collect();
    let all = Error::new(best.kind(), OP, format_args!("nobody could answer: {}", words.join("; ")))
        .with_model_text(best.model_text())
        .with_source(best.clone());
    match best.retry_after() {
        Some(wait) => all.with_retry_after(wait),
        None => all,
    }
}
