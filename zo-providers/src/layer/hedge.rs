//! Asks a second time when an answer is slow to begin, and takes the one that begins first.
//!
//! Promises: one answer comes out, the other's connection is closed; what is hedged stays a fraction of all requests, so that
//! a provider that is slow because it is busy does not get twice the load; and it never spends what the budget does not have.

use super::{Layer, estimate, peek};
use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};
use zo_traits::{
    BoxStream, Cx, Provider, Request, Reservation, Result, Spend, StreamEvent, Usage, async_trait,
};

/// At most so many hedges at once out of what was saved up.
const SAVED: f64 = 5.0;
/// What the budget books them on.
const LABEL: &str = "hedge";

/// If no content has come after a while, sends the request once more, to the same provider or [to](Hedge::to) another one;
/// the first content wins and the other call is dropped, which closes its connection.
///
/// The dropped call may have been billed. Where the [`Cx`] has a [`Budget`](zo_traits::Budget), the most that it can cost is
/// reserved first (no room, no hedge), and the prompt of the dropped one is booked under `hedge`.
///
/// ```
/// use std::time::Duration;
/// use zo_providers::{Offline, layer::{Hedge, LayerExt}};
/// let provider = Offline::new().layer(Hedge::new(Duration::from_secs(8)).max_hedged_fraction(0.05));
/// ```
#[derive(Clone)]
pub struct Hedge {
    after: Duration,
    fraction: f64,
    other: Option<(Arc<dyn Provider>, Option<String>)>,
    credit: Arc<Mutex<f64>>,
    hook: Option<Hook>,
}

type Hook = Arc<dyn Fn(&Request) + Send + Sync>;

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("after", &self.after)
            .field("fraction", &self.fraction)
            .field("other", &self.other)
            .finish_non_exhaustive()
    }
}

impl Hedge {
    /// Sends a request again when nothing of its answer has come `after` it was sent; a tenth of all requests at most.
    pub fn new(after: Duration) -> Self {
        Self { after, fraction: 0.1, other: None, credit: Arc::new(Mutex::new(1.0)), hook: None }
    }

    /// Sends the second one to `other`.
    #[must_use]
    pub fn to(mut self, other: impl Provider) -> Self {
        self.other = Some((Arc::new(other), None));
        self
    }

    /// Sends the second one to `other`, asked for `model`.
    #[must_use]
    pub fn to_model(mut self, other: impl Provider, model: impl Into<String>) -> Self {
        self.other = Some((Arc::new(other), Some(model.into())));
        self
    }

    /// So many of all requests at most are sent twice, from 0 (never) to 1; one more at the beginning. 0.1.
    #[must_use]
    pub fn max_hedged_fraction(mut self, fraction: f64) -> Self {
        self.fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        let first = if self.fraction > 0.0 { 1.0 } else { 0.0 };
        self.credit = Arc::new(Mutex::new(first));
        self
    }

    /// Called each time a request is sent twice.
    #[must_use]
    pub fn on_hedge(mut self, hook: impl Fn(&Request) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    fn earn(&self) {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        *credit = (*credit + self.fraction).min(SAVED);
    }

    /// Whether a second request may be sent; what is set aside for it.
    fn allowed(&self, cx: &Cx, provider: &dyn Provider, request: &Request) -> Option<Option<Reservation>> {
        let most = self.cost(provider, request, estimate::total(request));
        let held = match cx.budget() {
            Some(budget) => Some(budget.reserve_on(LABEL, most).ok()?),
            None => None,
        };
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        // Sums of tenths are not quite what they should be.
        (*credit > 1.0 - 1e-9).then(|| {
            *credit -= 1.0;
            held
        })
    }

    fn cost(&self, provider: &dyn Provider, request: &Request, tokens: u64) -> Spend {
        let prompt = estimate::prompt(request).min(tokens);
        let price = provider.capabilities(&request.model).price;
        let money = price.map_or(0, |p| p.cost(&Usage::new(prompt, tokens.saturating_sub(prompt))));
        Spend::steps(1).plus(Spend::tokens(tokens)).plus(Spend::microusd(money))
    }
}

/// What a hedge costs in any case. Booked when this is dropped.
struct Booked(Option<Reservation>, Spend);

impl Drop for Booked {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.settle(self.1);
        }
    }
}

type Call<'a> = Pin<Box<dyn Future<Output = Result<peek::Opened>> + Send + 'a>>;

#[async_trait]
impl Layer for Hedge {
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        self.earn();
        let mut first: Call<'_> = Box::pin(peek::open(next, cx, request));
        let mut late = cx.clock().sleep(self.after);
        let early = poll_fn(|task| {
            if let Poll::Ready(done) = first.as_mut().poll(task) {
                return Poll::Ready(Some(done));
            }
            late.as_mut().poll(task).map(|()| None)
        });
        if let Some(done) = early.await {
            return done.map(peek::Opened::into_stream);
        }
        drop(late);
        let (other, model) = match &self.other {
            Some((other, model)) => (&**other, model.as_ref()),
            None => (next, None),
        };
        let again = model.map(|model| {
            let mut own = request.clone();
            own.model.clone_from(model);
            own
        });
        let again = again.as_ref().unwrap_or(request);
        let Some(held) = self.allowed(cx, other, again) else {
            return first.await.map(peek::Opened::into_stream);
        };
        if let Some(hook) = &self.hook {
            hook(again);
        }
        // Both prompts are read by now, whether anybody waits for an answer or not; whose answer goes on is booked by who
        // reads it.
        let _booked = Booked(held, self.cost(other, again, estimate::prompt(again)));
        let mut calls: [Option<Call<'_>>; 2] = [Some(first), Some(Box::pin(peek::open(other, cx, again)))];
        let mut failed = [None, None];
        let won = poll_fn(|task| {
            for (call, failed) in calls.iter_mut().zip(&mut failed) {
                let Some(Poll::Ready(done)) = call.as_mut().map(|call| call.as_mut().poll(task)) else {
                    continue;
                };
                *call = None;
                match done {
                    Ok(opened) => return Poll::Ready(Some(opened)),
                    Err(e) => *failed = Some(e),
                }
            }
            if calls.iter().all(Option::is_none) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match won {
            Some(opened) => Ok(opened.into_stream()),
            None => {
                let [first, second] = failed;
                Err(first.or(second).unwrap_or_else(|| zo_traits::Error::cancelled("layer.hedge")))
            }
        }
    }
}
