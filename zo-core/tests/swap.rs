//! Any part can be replaced by something of the host's own that knows `zo-traits` alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use zo_core::Zo;
use zo_traits::{
    BoxStream, Cx, FinishReason, Forget, MemoryId, MemoryStore, Message, NewMemory, Provider, Recall,
    Recalled, Request, Response, Result, Scope, StreamEvent, Timestamp, Transcript, async_trait, stream_of,
};

#[derive(Debug)]
struct Parrot;

#[async_trait]
impl Provider for Parrot {
    fn id(&self) -> &str {
        "parrot"
    }
    async fn stream(&self, _: &Cx, r: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        let all: Vec<_> = r.messages.iter().map(Message::to_text).collect();
        let answer = Response::new(Message::assistant(all.join(" | ")), FinishReason::Stop);
        Ok(stream_of(answer.into_events().into_iter().map(Ok)))
    }
}

#[derive(Debug)]
struct OneFact;

#[async_trait]
impl MemoryStore for OneFact {
    async fn remember(&self, _: &Cx, _: &Scope, items: Vec<NewMemory>) -> Result<Vec<MemoryId>> {
        Ok(items.iter().map(|_| MemoryId(1)).collect())
    }
    async fn recall(&self, _: &Cx, _: &Scope, _: &Recall) -> Result<Vec<Recalled>> {
        Ok(vec![Recalled::new(MemoryId(1), "a fact", 1.0, Timestamp(0))])
    }
    async fn forget(&self, _: &Cx, _: &Scope, _: &Forget) -> Result<usize> {
        Ok(0)
    }
}

/// A transcript that always says the same and keeps nothing.
#[derive(Debug)]
struct Fixed;

#[async_trait]
impl Transcript for Fixed {
    async fn append(&self, _: &Cx, _: &str, _: Option<u64>, m: &[Message]) -> Result<u64> {
        Ok(2 + m.len() as u64)
    }
    async fn read(&self, _: &Cx, _: &str, from: u64, limit: usize) -> Result<Vec<Message>> {
        let all = [Message::user("before"), Message::assistant("yes")];
        Ok(all.into_iter().skip(from as usize).take(limit).collect())
    }
    async fn len(&self, _: &Cx, _: &str) -> Result<u64> {
        Ok(2)
    }
    async fn conversations(&self, _: &Cx, _: Option<&str>, _: usize) -> Result<Vec<String>> {
        Ok(vec![])
    }
    async fn delete(&self, _: &Cx, _: &str) -> Result<bool> {
        Ok(false)
    }
}

#[tokio::test]
async fn every_part_can_be_swapped() {
    // One slot takes a value, a shared one and an erased one.
    let shared: Arc<dyn Provider> = Arc::new(Parrot);
    let boxed: Box<dyn MemoryStore> = Box::new(OneFact);
    let zo = Zo::builder().provider(shared).memory(boxed).transcript(Fixed).build().await.unwrap();
    let reply = zo.ask("c", "now").await.unwrap();
    assert!(
        reply.text.starts_with(&format!("before | yes | now | {}", zo_core::MEMORIES_HEADING)),
        "{}",
        reply.text
    );
    assert!(reply.text.ends_with("\n- a fact"), "{}", reply.text);
}
