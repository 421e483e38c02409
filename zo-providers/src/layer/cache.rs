//! Answers that were given before.

use super::{
    Layer,
    watch::{End, Watcher, watch},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Debug},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zo_traits::{
    Accumulator, BoxStream, Cx, Error, ErrorKind, FinishReason, Provider, Request, Response, Result,
    StreamEvent, Usage, async_trait, stream_of,
};

const OP: &str = "layer.cache";
/// How long one waits for another who asks the same. That one's reader may be in no hurry.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests under way beyond which those that are over are looked for and forgotten.
const FLIGHTS: usize = 1024;

/// The name of a request: SHA-256 of all that decides its answer.
pub type CacheKey = [u8; 32];

/// Where answers are kept. Called on the caller's task, so it should be quick.
pub trait CacheStore: Send + Sync + Debug + 'static {
    /// What was put under `key` last, if it is still there.
    fn get(&self, key: &CacheKey) -> Option<Vec<u8>>;
    /// Keeps `answer`, which is JSON, for as long as it likes.
    fn put(&self, key: CacheKey, answer: Vec<u8>);
}

/// Gives the answer that was given before to the very same request (model, messages, tools, options), of the same provider.
///
/// Only complete answers are kept: neither errors, nor those that were cut, filtered or left before their end. An answer out
/// of the cache costs nothing, and its token counts are zero. Who asks what somebody else is just asking waits for that answer
/// (30 s at most, by the caller's clock).
///
/// An answer that is drawn by chance is drawn once; keep those that should differ out with [`when`](Cache::when). All callers
/// share the answers; [`apart`](Cache::apart) parts them.
///
/// ```
/// use zo_providers::{Offline, layer::{Cache, LayerExt}};
/// let cache = Cache::new(64 << 20).when(|request| request.temperature == Some(0.0));
/// let provider = Offline::new().layer(cache.clone());
/// assert_eq!(cache.hits(), 0);
/// # let _ = provider;
/// ```
#[derive(Clone)]
pub struct Cache {
    store: Arc<dyn CacheStore>,
    when: Option<When>,
    apart: Option<Whose>,
    flights: Arc<Mutex<HashMap<CacheKey, Weak<Semaphore>>>>,
    hits: Arc<AtomicU64>,
}

type When = Arc<dyn Fn(&Request) -> bool + Send + Sync>;
type Whose = Arc<dyn Fn(&Cx) -> String + Send + Sync>;

impl Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("store", &self.store)
            .field("hits", &self.hits())
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache in memory of at most `bytes` bytes of answers; what was not used for longest goes first. Clones share it.
    pub fn new(bytes: usize) -> Self {
        Self::over(RamCache { most: bytes, state: Mutex::default() })
    }

    /// A cache over a store of your own.
    pub fn over(store: impl CacheStore) -> Self {
        Self {
            store: Arc::new(store),
            when: None,
            apart: None,
            flights: Arc::default(),
            hits: Arc::default(),
        }
    }

    /// Only these requests are looked up and kept.
    #[must_use]
    pub fn when(mut self, when: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(when));
        self
    }

    /// Callers for whom this says different things do not share answers: tenants, users.
    #[must_use]
    pub fn apart(mut self, whose: impl Fn(&Cx) -> String + Send + Sync + 'static) -> Self {
        self.apart = Some(Arc::new(whose));
        self
    }

    /// How many answers came out of the cache.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    fn key(&self, next: &dyn Provider, cx: &Cx, request: &Request) -> Result<CacheKey> {
        let mut request = std::borrow::Cow::Borrowed(request);
        // How it travels makes no other answer.
        if request.whole {
            request.to_mut().whole = false;
        }
        let whose = self.apart.as_ref().map(|whose| whose(cx));
        let all = serde_json::to_vec(&(next.id(), whose, &*request))
            .map_err(|e| Error::new(ErrorKind::Invalid, OP, format_args!("no JSON: {e}")))?;
        Ok(hmac_sha256::Hash::hash(&all))
    }

    fn hit(&self, key: &CacheKey) -> Option<BoxStream<Result<StreamEvent>>> {
        // A store of the host's may hold anything: what cannot be read is not there.
        let mut answer: Response = serde_json::from_slice(&self.store.get(key)?).ok()?;
        answer.usage = Usage::default();
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(stream_of(answer.into_events().into_iter().map(Ok)))
    }

    /// The turn of whoever asks for `key`.
    async fn turn(&self, cx: &Cx, key: CacheKey) -> Result<Option<OwnedSemaphorePermit>> {
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if flights.len() > FLIGHTS {
                flights.retain(|_, flight| flight.strong_count() > 0);
            }
            let flight = flights.get(&key).and_then(Weak::upgrade);
            flight.unwrap_or_else(|| {
                let flight = Arc::new(Semaphore::new(1));
                flights.insert(key, Arc::downgrade(&flight));
                flight
            })
        };
        if let Ok(permit) = flight.clone().try_acquire_owned() {
            return Ok(Some(permit));
        }
        let waited = cx.child().with_timeout(PATIENCE);
        match waited.race(OP, flight.acquire_owned()).await {
            Ok(permit) => Ok(permit.ok()),
            // Whoever asks now has waited long enough, unless it was the caller's own time that ran out.
            Err(_) => cx.check(OP).map(|()| None),
        }
    }
}

#[async_trait]
impl Layer for Cache {
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        if self.when.as_ref().is_some_and(|when| !when(request)) {
            return next.stream(cx, request).await;
        }
        cx.check(OP)?;
        let key = self.key(next, cx, request)?;
        if let Some(hit) = self.hit(&key) {
            return Ok(hit);
        }
        let turn = self.turn(cx, key).await?;
        // Somebody may have got it meanwhile.
        if let Some(hit) = self.hit(&key) {
            return Ok(hit);
        }
        let stream = next.stream(cx, request).await?;
        let keeper =
            Keeper { store: self.store.clone(), key, answer: Some(Accumulator::default()), _turn: turn };
        Ok(watch(stream, keeper))
    }
}

/// Folds an answer and keeps it at its end.
struct Keeper {
    store: Arc<dyn CacheStore>,
    key: CacheKey,
    answer: Option<Accumulator>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Watcher for Keeper {
    fn event(&mut self, event: &StreamEvent) {
        if self.answer.as_mut().is_some_and(|answer| answer.push(event.clone()).is_err()) {
            self.answer = None;
        }
    }

    fn end(self, how: End<'_>) {
        let (End::Finished, Some(Ok(answer))) = (how, self.answer.map(Accumulator::finish)) else { return };
        // Its own provider's fold of `into_events` must be the answer again.
        if matches!(answer.finish, FinishReason::Stop | FinishReason::ToolCalls)
            && let Ok(bytes) = serde_json::to_vec(&answer)
        {
            self.store.put(self.key, bytes);
        }
    }
}

/// The least recently used go first.
struct RamCache {
    most: usize,
    state: Mutex<Ram>,
}

#[derive(Default)]
struct Ram {
    /// Answers, and when they were used last.
    kept: HashMap<CacheKey, (Arc<[u8]>, u64)>,
    order: BTreeMap<u64, CacheKey>,
    now: u64,
    bytes: usize,
}

impl Debug for RamCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "RamCache({} answers, {} of {} bytes)", state.kept.len(), state.bytes, self.most)
    }
}

/// What an answer takes besides its bytes.
const OVERHEAD: usize = 160;

impl CacheStore for RamCache {
    fn get(&self, key: &CacheKey) -> Option<Vec<u8>> {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, used) = state.kept.get_mut(key)?;
        state.now += 1;
        state.order.remove(used);
        state.order.insert(state.now, *key);
        *used = state.now;
        Some(answer.to_vec())
    }

    fn put(&self, key: CacheKey, answer: Vec<u8>) {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let size = answer.len() + OVERHEAD;
        if size > self.most {
            return;
        }
        state.now += 1;
        if let Some((old, used)) = state.kept.insert(key, (answer.into(), state.now)) {
            state.order.remove(&used);
            state.bytes -= old.len() + OVERHEAD;
        }
        state.order.insert(state.now, key);
        state.bytes += size;
        while state.bytes > self.most
            && let Some((_, oldest)) = state.order.pop_first()
        {
            if let Some((gone, _)) = state.kept.remove(&oldest) {
                state.bytes -= gone.len() + OVERHEAD;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerExt;
    use zo_testkit::{Scripted, Turn};
    use zo_traits::{Message, ProviderExt};

    fn ask(text: &str) -> Request {
        Request::new("m", [Message::user(text)])
    }

    #[tokio::test]
    async fn the_same_request_is_asked_once() {
        let script = Scripted::new([
            Turn::Fail(Error::new(ErrorKind::Unavailable, "t", "no")),
            Turn::text("one"),
            Turn::text("two"),
            Turn::text("three"),
        ]);
        let cache = Cache::new(1 << 20).apart(|cx| cx.run().to_owned());
        let provider = script.clone().layer(cache.clone());
        let cx = Cx::new("ada");
        provider.complete(&cx, &ask("a")).await.unwrap_err();
        let first = provider.complete(&cx, &ask("a")).await.unwrap();
        let again = provider.complete(&cx, &ask("a")).await.unwrap();
        assert_eq!((first.message, first.finish), (again.message, again.finish));
        assert_eq!((first.usage.total() > 0, again.usage.total(), cache.hits()), (true, 0, 1));
        let mut whole = ask("a");
        whole.whole = true;
        provider.complete(&cx, &whole).await.unwrap();
        assert_eq!((cache.hits(), script.asked().len()), (2, 2));
        let other = provider.complete(&Cx::new("bob"), &ask("a")).await.unwrap();
        assert_eq!(other.message.to_text(), "two", "another's");
        // Left before its end.
        drop(provider.stream(&cx, &ask("b")).await.unwrap());
        assert_eq!(script.asked().len(), 4);
        assert!(
            provider.complete(&cx, &ask("b")).await.is_err(),
            "nothing was kept of it, and the script is over"
        );
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_waits_for_the_answer() {
        let script = Scripted::new([Turn::text("one")]);
        let provider = script.clone().layer(Cache::new(1 << 20));
        let (cx, request) = (Cx::default(), ask("a"));
        let mut first = provider.stream(&cx, &request).await.unwrap();
        let second = tokio::spawn({
            let provider = provider.clone();
            async move { provider.complete(&Cx::default(), &ask("a")).await }
        });
        tokio::task::yield_now().await;
        while std::future::poll_fn(|task| first.as_mut().poll_next(task)).await.is_some() {}
        assert_eq!(second.await.unwrap().unwrap().message.to_text(), "one");
        assert_eq!(script.asked().len(), 1);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let ram = RamCache { most: 3 * (OVERHEAD + 10), state: Mutex::default() };
        let key = |n: u8| [n; 32];
        for n in 0..3 {
            ram.put(key(n), vec![n; 10]);
        }
        assert!(ram.get(&key(0)).is_some());
        ram.put(key(3), vec![3; 10]);
        assert!(ram.get(&key(1)).is_none() && ram.get(&key(0)).is_some() && ram.get(&key(2)).is_some());
        ram.put(key(2), vec![9; 5]);
        assert_eq!(ram.get(&key(2)), Some(vec![9; 5]));
        ram.put(key(4), vec![0; 10_000]);
        assert!(ram.get(&key(4)).is_none() && ram.get(&key(3)).is_some(), "too large is not kept");
        let state = ram.state.lock().unwrap();
        assert_eq!((state.kept.len(), state.order.len()), (3, 3));
        assert_eq!(state.bytes, 3 * OVERHEAD + 25);
    }
}
