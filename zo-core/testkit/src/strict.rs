//! A provider that is as picky as the pickiest: it checks every request before another one sees it.

use crate::rules::{self, Violation};
use std::sync::{Arc, Mutex, PoisonError};
use zo_traits::{
    BoxStream, Capabilities, Cx, Error, ErrorKind, ModelInfo, Provider, Request, Result, StreamEvent,
    async_trait,
};

/// Passes on to `P` what obeys the rules that all providers share ([`rules::check`]). Anything else it refuses with
/// [`ErrorKind::Invalid`], as a provider does with a 400, and keeps on record. Clones share the record.
///
/// ```
/// use zo_testkit::{Scripted, Strict, Turn};
/// use zo_traits::{Cx, ErrorKind, Message, ProviderExt, Request};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let model = Strict::new(Scripted::new([Turn::text("hello")]));
/// let refused = model.complete(&Cx::default(), &Request::new("m", [Message::user(" ")])).await;
/// assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
/// assert_eq!(model.violations()[0].rule, "blank-text");
/// assert!(model.complete(&Cx::default(), &Request::new("m", [Message::user("hi")])).await.is_ok());
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Strict<P> {
    inner: P,
    violations: Arc<Mutex<Vec<Violation>>>,
}

impl<P> Strict<P> {
    /// Stands before `inner`.
    pub fn new(inner: P) -> Self {
        Self { inner, violations: Arc::default() }
    }

    /// The provider behind it.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// All violations so far, oldest first.
    pub fn violations(&self) -> Vec<Violation> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl<P: Provider> Provider for Strict<P> {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn capabilities(&self, model: &str) -> Capabilities {
        self.inner.capabilities(model)
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        if let Err(found) = rules::check(request) {
            let said: Vec<_> = found.iter().map(Violation::to_string).collect();
            self.violations.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
            return Err(Error::new(
                ErrorKind::Invalid,
                "strict.stream",
                format_args!("400: {}", said.join("; ")),
            ));
        }
        self.inner.stream(cx, request).await
    }

    async fn models(&self, cx: &Cx) -> Result<Vec<ModelInfo>> {
        self.inner.models(cx).await
    }
}
