//! Layers: a provider over a provider.
//!
//! A [`Layer`] sees every request on its way to the next provider and every answer on its way back. [`LayerExt::layer`] puts
//! one around a provider; what comes out is a provider again. The layer named last is the outermost.
//!
//! What a layer does not concern itself with goes through untouched, because [`Layered`] is the only place that forwards,
//! and the lint below fails the build when it forgets a method of [`Provider`]. A layer of your own has one method to write:
//!
//! ```
//! use zo_providers::layer::{Layer, LayerExt};
//! use zo_traits::{BoxStream, Cx, Provider, ProviderExt, Request, Result, StreamEvent, async_trait};
//!
//! /// Never lets a request ask for more than so many tokens.
//! #[derive(Debug)]
//! struct Short(u32);
//!
//! #[async_trait]
//! impl Layer for Short {
//!     async fn stream(
//!         &self,
//!         next: &dyn Provider,
//!         cx: &Cx,
//!         request: &Request,
//!     ) -> Result<BoxStream<Result<StreamEvent>>> {
//!         let mut request = request.clone();
//!         request.max_tokens = Some(request.max_tokens.map_or(self.0, |n| n.min(self.0)));
//!         next.stream(cx, &request).await
//!     }
//! }
//!
//! let provider = zo_providers::Offline::new().layer(Short(100));
//! assert_eq!(provider.id(), "offline");
//! ```

mod cache;
mod cassette;
mod concurrency;
mod estimate;
mod fallback;
mod headroom;
mod hedge;
mod limit;
mod meter;
mod peek;
mod retry;
mod scrub;
mod spend;
mod trace;
mod watch;

pub use cache::{Cache, CacheKey, CacheStore};
pub use cassette::Cassette;
pub use concurrency::Concurrency;
pub use fallback::*;
pub use headroom::{Headroom, HeadroomSink, Window};
pub use hedge::Hedge;
pub use limit::RateLimit;
pub use retry::{Retry, Retrying};
pub use scrub::Scrub;
pub use spend::SpendLimit;
pub use trace::{SEMCONV, Trace};

use std::{fmt::Debug, sync::Arc};
use zo_traits::{
    BoxStream, Capabilities, Cx, ModelInfo, Provider, Request, Result, StreamEvent, async_trait,
};

/// What stands between a caller and a provider. See the [module](self).
#[async_trait]
pub trait Layer: Send + Sync + Debug + 'static {
    /// Answers `request`, mostly by asking `next`.
    ///
    /// # Errors
    /// As [`Provider::stream`], whose contract holds here too: `Err` means that nothing was produced.
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>>;

    /// What `model` can do.
    fn capabilities(&self, next: &dyn Provider, model: &str) -> Capabilities {
        next.capabilities(model)
    }

    /// The models on offer.
    ///
    /// # Errors
    /// As [`Provider::models`].
    async fn models(&self, next: &dyn Provider, cx: &Cx) -> Result<Vec<ModelInfo>> {
        next.models(cx).await
    }

    /// Prompt tokens that `request` would be.
    ///
    /// # Errors
    /// As [`Provider::count_tokens`].
    async fn count_tokens(&self, next: &dyn Provider, cx: &Cx, request: &Request) -> Result<u64> {
        next.count_tokens(cx, request).await
    }
}

/// A provider with a layer around it. Made by [`LayerExt::layer`].
#[derive(Debug, Clone)]
pub struct Layered {
    layer: Arc<dyn Layer>,
    next: Arc<dyn Provider>,
}

/// Puts layers around providers.
pub trait LayerExt: Provider + Sized {
    /// This provider with `layer` around it.
    fn layer(self, layer: impl Layer) -> Layered {
        Layered { layer: Arc::new(layer), next: Arc::new(self) }
    }
}
impl<P: Provider> LayerExt for P {}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Layered {
    fn id(&self) -> &str {
        self.next.id()
    }

    fn capabilities(&self, model: &str) -> Capabilities {
        self.layer.capabilities(&*self.next, model)
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        self.layer.stream(&*self.next, cx, request).await
    }

    async fn models(&self, cx: &Cx) -> Result<Vec<ModelInfo>> {
        self.layer.models(&*self.next, cx).await
    }

    async fn count_tokens(&self, cx: &Cx, request: &Request) -> Result<u64> {
        self.layer.count_tokens(&*self.next, cx, request).await
    }
}
