//! `Arc<T>` and `Box<T>` forwarding, so that `impl Trait` arguments take owned, shared and erased implementations alike.
//! Every method is forwarded, provided ones included: a wrapper must never fall back to a default. The lint below fails
//! the build when one is forgotten.
#![deny(clippy::missing_trait_methods)]

use crate::*;
use std::{sync::Arc, time::Duration};

macro_rules! forward {
    ($($ptr:ident),*) => {$(
        #[async_trait]
        impl<T: Provider + ?Sized> Provider for $ptr<T> {
            fn id(&self) -> &str { (**self).id() }
            fn capabilities(&self, model: &str) -> Capabilities { (**self).capabilities(model) }
            async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
                (**self).stream(cx, request).await
            }
            async fn models(&self, cx: &Cx) -> Result<Vec<ModelInfo>> { (**self).models(cx).await }
            async fn count_tokens(&self, cx: &Cx, request: &Request) -> Result<u64> {
                (**self).count_tokens(cx, request).await
            }
        }

        #[async_trait]
        impl<T: Skill + ?Sized> Skill for $ptr<T> {
            fn manifest(&self) -> &SkillManifest { (**self).manifest() }
            fn tools(&self) -> Arc<[ToolSpec]> { (**self).tools() }
            async fn instructions(&self, cx: &Cx) -> Result<String> { (**self).instructions(cx).await }
            async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> { (**self).call(cx, call).await }
        }

        #[async_trait]
        impl<T: MemoryStore + ?Sized> MemoryStore for $ptr<T> {
            async fn remember(&self, cx: &Cx, scope: &Scope, items: Vec<NewMemory>) -> Result<Vec<MemoryId>> {
                (**self).remember(cx, scope, items).await
            }
            async fn recall(&self, cx: &Cx, scope: &Scope, query: &Recall) -> Result<Vec<Recalled>> {
                (**self).recall(cx, scope, query).await
            }
            async fn forget(&self, cx: &Cx, scope: &Scope, what: &Forget) -> Result<usize> {
                (**self).forget(cx, scope, what).await
            }
        }

        #[async_trait]
        impl<T: Transcript + ?Sized> Transcript for $ptr<T> {
            async fn append(&self, cx: &Cx, conversation: &str, at: Option<u64>, messages: &[Message]) -> Result<u64> {
                (**self).append(cx, conversation, at, messages).await
            }
            async fn read(&self, cx: &Cx, conversation: &str, from: u64, limit: usize) -> Result<Vec<Message>> {
                (**self).read(cx, conversation, from, limit).await
            }
            async fn len(&self, cx: &Cx, conversation: &str) -> Result<u64> { (**self).len(cx, conversation).await }
            async fn conversations(&self, cx: &Cx, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
                (**self).conversations(cx, after, limit).await
            }
            async fn delete(&self, cx: &Cx, conversation: &str) -> Result<bool> {
                (**self).delete(cx, conversation).await
            }
        }

        #[async_trait]
        impl<T: Embedder + ?Sized> Embedder for $ptr<T> {
            fn space(&self) -> &str { (**self).space() }
            fn dimensions(&self) -> usize { (**self).dimensions() }
            async fn embed(&self, cx: &Cx, inputs: &[&str]) -> Result<Vec<Vec<f32>>> { (**self).embed(cx, inputs).await }
        }

        #[async_trait]
        impl<T: Scheduler + ?Sized> Scheduler for $ptr<T> {
            async fn put(&self, cx: &Cx, schedule: &Schedule) -> Result<Scheduled> { (**self).put(cx, schedule).await }
            async fn get(&self, cx: &Cx, id: &str) -> Result<Scheduled> { (**self).get(cx, id).await }
            async fn list(&self, cx: &Cx, after: Option<&str>, limit: usize) -> Result<Vec<Scheduled>> {
                (**self).list(cx, after, limit).await
            }
            async fn remove(&self, cx: &Cx, id: &str) -> Result<bool> { (**self).remove(cx, id).await }
            async fn claim_due(&self, cx: &Cx, limit: usize) -> Result<Vec<Firing>> {
                (**self).claim_due(cx, limit).await
            }
            async fn ack(&self, cx: &Cx, firing: &Firing) -> Result<()> { (**self).ack(cx, firing).await }
            async fn next_due(&self, cx: &Cx) -> Result<Option<Timestamp>> { (**self).next_due(cx).await }
        }

        #[async_trait]
        impl<T: ComputeBackend + ?Sized> ComputeBackend for $ptr<T> {
            fn capabilities(&self) -> PoolCapabilities { (**self).capabilities() }
            async fn submit(&self, cx: &Cx, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
                (**self).submit(cx, jobs).await
            }
            async fn claim(&self, cx: &Cx, worker: &Worker, max: usize) -> Result<Vec<Lease>> {
                (**self).claim(cx, worker, max).await
            }
            async fn heartbeat(&self, cx: &Cx, beats: &[Beat]) -> Result<Vec<LeaseState>> {
                (**self).heartbeat(cx, beats).await
            }
            async fn finish(&self, cx: &Cx, outcomes: Vec<(LeaseToken, Outcome)>) -> Result<Vec<Finished>> {
                (**self).finish(cx, outcomes).await
            }
            async fn cancel(&self, cx: &Cx, jobs: &[JobId]) -> Result<usize> { (**self).cancel(cx, jobs).await }
            async fn query(&self, cx: &Cx, query: &JobQuery) -> Result<Vec<JobView>> { (**self).query(cx, query).await }
            async fn events(&self, cx: &Cx, from: u64) -> Result<BoxStream<Result<JobEvent>>> {
                (**self).events(cx, from).await
            }
            async fn tick(&self, cx: &Cx) -> Result<Option<Timestamp>> { (**self).tick(cx).await }
        }

        #[async_trait]
        impl<T: Browser + ?Sized> Browser for $ptr<T> {
            async fn open(&self, cx: &Cx) -> Result<Box<dyn Page>> { (**self).open(cx).await }
        }

        #[async_trait]
        impl<T: Page + ?Sized> Page for $ptr<T> {
            async fn act(&self, cx: &Cx, action: &Action) -> Result<serde_json::Value> {
                (**self).act(cx, action).await
            }
            async fn snapshot(&self, cx: &Cx, what: &SnapshotOptions) -> Result<Snapshot> {
                (**self).snapshot(cx, what).await
            }
            async fn screenshot(&self, cx: &Cx, what: &ScreenshotOptions) -> Result<Vec<u8>> {
                (**self).screenshot(cx, what).await
            }
        }

        #[async_trait]
        impl<T: Clock + ?Sized> Clock for $ptr<T> {
            fn now(&self) -> Timestamp { (**self).now() }
            fn monotonic(&self) -> Duration { (**self).monotonic() }
            async fn sleep(&self, d: Duration) { (**self).sleep(d).await }
        }
    )*};
}
forward!(Arc, Box);
