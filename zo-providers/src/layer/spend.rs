//! A bound on what may be spent.

use super::{
    Layer, estimate,
    watch::{End, Watcher, watch},
};
use zo_traits::{
    BoxStream, Budget, Cx, ErrorKind, Price, Provider, Request, Reservation, Result, Spend, StreamEvent,
    Usage, async_trait,
};

/// Spends from a [`Budget`]: a request takes one step, its tokens, and what they cost by the price that the provider's
/// [capabilities](Provider::capabilities) state. What it may cost at most is set aside before it is sent and replaced by what
/// it did cost, so that many at once cannot go beyond the limits together. An answer that was cut is charged with what it is
/// known to have used, at least its prompt; so is a call that timed out or was dropped before its answer began, for the model may
/// have been at work all the while.
///
/// The agent of `zo-core` keeps its own books; this is for programs that call a provider themselves, and for a cap over
/// everything that goes through one provider.
///
/// ```
/// use zo_providers::{Offline, layer::{LayerExt, SpendLimit}};
/// use zo_traits::{Budget, Limits};
/// let month = Budget::new(Limits::none().microusd(20_000_000));
/// let capped = Offline::new().layer(SpendLimit::new(month.clone()));
/// # let _ = capped;
/// ```
#[derive(Debug, Clone)]
pub struct SpendLimit {
    budget: Budget,
}

impl SpendLimit {
    /// Everything that goes through this layer is spent from `budget`.
    pub fn new(budget: Budget) -> Self {
        Self { budget }
    }
}

fn spend(price: Option<&Price>, usage: &Usage) -> Spend {
    let cost = price.map_or(0, |p| p.cost(usage));
    Spend::steps(1).plus(Spend::tokens(usage.total())).plus(Spend::microusd(cost))
}

#[async_trait]
impl Layer for SpendLimit {
    /// # Errors
    /// [`ErrorKind::Denied`](zo_traits::ErrorKind::Denied), with [`Overspent`](zo_traits::Overspent) as its source, before
    /// anything is sent; else as the provider's.
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        let can = next.capabilities(&request.model);
        let (price, prompt) = (can.price, estimate::prompt(request));
        // Who does not say how long the answer may be gets one as long as the model makes them.
        let answer = match (request.max_tokens, can.max_output) {
            (None, Some(most)) => most.into(),
            _ => estimate::total(request).saturating_sub(prompt),
        };
        let most = Usage::new(prompt, answer);
        let what = if request.model.is_empty() { next.id() } else { &request.model };
        let held = self.budget.reserve_on(what, spend(price.as_ref(), &most))?;
        let bill = Bill { held, price, usage: Usage::new(prompt, 0), counted: false, bytes: 0 };
        let mut sent = Sent(Some(bill));
        match next.stream(cx, request).await {
            Ok(stream) => match sent.0.take() {
                Some(bill) => Ok(watch(stream, bill)),
                None => Ok(stream),
            },
            Err(e) => {
                // Nothing was produced, and unless nobody waited for it, nothing will be: what was set aside comes back.
                if !matches!(e.kind(), ErrorKind::Cancelled | ErrorKind::Timeout | ErrorKind::Corrupt) {
                    sent.0 = None;
                }
                Err(e)
            }
        }
    }
}

/// What an answer costs so far.
struct Bill {
    held: Reservation,
    price: Option<Price>,
    usage: Usage,
    /// The provider counted.
    counted: bool,
    /// Bytes of the answer.
    bytes: u64,
}

/// A request that is under way. Who drops it has it billed.
struct Sent(Option<Bill>);

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(bill) = self.0.take() {
            bill.end(End::Dropped);
        }
    }
}

impl Watcher for Bill {
    fn event(&mut self, event: &StreamEvent) {
        match event {
            // Some servers send zeros where they did not count.
            StreamEvent::Usage(usage) if usage.total() > 0 => (self.usage, self.counted) = (*usage, true),
            StreamEvent::Delta { text, .. } => self.bytes = self.bytes.saturating_add(text.len() as u64),
            _ => {}
        }
    }

    fn end(mut self, how: End<'_>) {
        // A count that came before the end does not know what followed it.
        if !self.counted || !matches!(how, End::Finished) {
            self.usage.output = self.usage.output.max(self.bytes.div_ceil(4));
        }
        self.held.settle(spend(self.price.as_ref(), &self.usage));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerExt;
    use zo_testkit::{Scripted, Turn};
    use zo_traits::{Error, Limits, Message, PartKind, ProviderExt};

    /// What it answers is longer than anybody reserved by guessing.
    #[derive(Debug)]
    struct Long;

    #[async_trait]
    impl Provider for Long {
        fn id(&self) -> &str {
            "long"
        }
        fn capabilities(&self, _: &str) -> zo_traits::Capabilities {
            let mut all = zo_traits::Capabilities::default();
            all.max_output = Some(8_000);
            all
        }
        async fn stream(&self, _: &Cx, _: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
            let end = StreamEvent::Finish(zo_traits::FinishReason::Length);
            Ok(zo_traits::stream_of([Ok(StreamEvent::Usage(Usage::new(10, 8_000))), Ok(end)]))
        }
    }

    #[tokio::test]
    async fn many_at_once_that_name_no_length_stay_within_it() {
        let budget = Budget::new(Limits::none().tokens(20_000));
        let provider = Long.layer(SpendLimit::new(budget.clone()));
        let request = Request::new("m", [Message::user("hello")]);
        let cx = Cx::default();
        let mut open = Vec::new();
        for _ in 0..20 {
            open.extend(provider.stream(&cx, &request).await.ok());
        }
        for mut stream in open {
            while std::future::poll_fn(|task| stream.as_mut().poll_next(task)).await.is_some() {}
        }
        assert!(budget.spent().tokens <= 20_000, "{}", budget.spent().tokens);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waited_for_costs_its_prompt() {
        let budget = Budget::new(Limits::none());
        let script = Scripted::new([
            Turn::Hang,
            Turn::Fail(Error::new(ErrorKind::Timeout, "t", "slow")),
            Turn::Fail(Error::new(ErrorKind::RateLimited, "t", "busy")),
        ]);
        let provider = script.layer(SpendLimit::new(budget.clone()));
        let request = Request::new("m", [Message::user("x".repeat(400))]);
        let cx = Cx::default();
        // Sent whole, an answer has no first byte until it is done; who gives up then has been billed all the same.
        let mut call = provider.stream(&cx, &request);
        std::future::poll_fn(|task| {
            assert!(call.as_mut().poll(task).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(call);
        assert_eq!((budget.spent().tokens, budget.spent().steps), (100, 1));
        assert!(provider.stream(&cx, &request).await.is_err());
        assert_eq!(budget.spent().tokens, 200);
        assert!(provider.stream(&cx, &request).await.is_err());
        assert_eq!(budget.spent().tokens, 200, "what was refused costs nothing");
    }

    #[tokio::test]
    async fn a_count_of_nothing_is_no_count() {
        let budget = Budget::new(Limits::none());
        let script = Scripted::new([Turn::Events(vec![
            Ok(StreamEvent::PartStart { index: 0, kind: PartKind::Text }),
            Ok(StreamEvent::Delta { index: 0, text: "x".repeat(40) }),
            Ok(StreamEvent::PartEnd { index: 0, replay: None }),
            Ok(StreamEvent::Usage(Usage::default())),
            Ok(StreamEvent::Finish(zo_traits::FinishReason::Stop)),
        ])]);
        let provider = script.layer(SpendLimit::new(budget.clone()));
        let request = Request::new("m", [Message::user("hello")]);
        provider.complete(&Cx::default(), &request).await.unwrap();
        assert_eq!(budget.spent().tokens, 2 + 10);
    }

    #[tokio::test]
    async fn it_charges_what_was_used_and_refuses_what_would_go_beyond() {
        let budget = Budget::new(Limits::none().tokens(1100));
        let cut = || {
            Turn::Events(vec![
                Ok(StreamEvent::PartStart { index: 0, kind: PartKind::Text }),
                Ok(StreamEvent::Delta { index: 0, text: "x".repeat(40) }),
                Err(Error::new(ErrorKind::Corrupt, "t", "cut")),
            ])
        };
        let script = Scripted::new([
            Turn::text("hi"),
            Turn::Fail(Error::new(ErrorKind::Unavailable, "t", "no")),
            cut(),
            Turn::text("never"),
        ]);
        let provider = script.clone().layer(SpendLimit::new(budget.clone()));
        let request = Request::new("m", [Message::user("hello")]);
        let cx = Cx::default();
        provider.complete(&cx, &request).await.unwrap();
        assert_eq!((budget.spent().tokens, budget.spent().steps), (15, 1));
        provider.complete(&cx, &request).await.unwrap_err();
        assert_eq!(budget.spent().tokens, 15, "nothing was produced");
        provider.complete(&cx, &request).await.unwrap_err();
        assert_eq!(budget.spent().tokens, 15 + 2 + 10, "prompt and what came");
        budget.record(Spend::tokens(100));
        let e = provider.complete(&cx, &request).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
        assert!(e.source_as::<zo_traits::Overspent>().is_some());
        assert_eq!(script.asked().len(), 3, "it was not sent");
    }
}
