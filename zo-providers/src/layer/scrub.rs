//! Known secrets stay away from models.

use super::Layer;
use crate::Leaks;
use zo_traits::{BoxStream, Cx, Provider, Request, Result, StreamEvent, async_trait};

/// Takes [known secrets](Leaks) out of every request before it leaves: out of what users pasted, tools printed and earlier
/// versions of a conversation kept. A request without one is not copied.
#[derive(Debug, Clone)]
pub struct Scrub {
    leaks: Leaks,
}

impl Scrub {
    /// No secret that `leaks` knows, or will know, goes to the provider.
    pub fn new(leaks: Leaks) -> Self {
        Self { leaks }
    }
}

#[async_trait]
impl Layer for Scrub {
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        next.stream(cx, &self.leaks.scrub_request(request)).await
    }

    async fn count_tokens(&self, next: &dyn Provider, cx: &Cx, request: &Request) -> Result<u64> {
        next.count_tokens(cx, &self.leaks.scrub_request(request)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Secret, layer::LayerExt};
    use zo_testkit::{Scripted, Turn};
    use zo_traits::{Message, ProviderExt};

    #[tokio::test]
    async fn the_model_sees_a_name() {
        let leaks = Leaks::default();
        leaks.add("mine", &Secret::new("sk-canary-0123456789")).unwrap();
        let script = Scripted::new([Turn::text("ok")]);
        let provider = script.clone().layer(Scrub::new(leaks));
        let request = Request::new("m", [Message::user("my key is sk-canary-0123456789")]);
        provider.complete(&Cx::default(), &request).await.unwrap();
        let asked = script.asked();
        assert_eq!(
            asked.first().unwrap().request.messages.first().unwrap().to_text(),
            "my key is [secret mine]"
        );
    }
}
