//! The laws of the contract, on a real file and in RAM.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Debug;
use zo_memory::{Memory, RamTranscript, StoreTranscript};
use zo_store::Store;
use zo_traits::{
    Cx, Forget, MemoryId, MemoryStore, Message, NewMemory, Recall, Recalled, Result, Scope, Transcript,
    async_trait,
};

/// Something in a file of its own; the folder goes with it.
#[derive(Debug)]
struct OnDisk<T> {
    inner: T,
    _folder: tempfile::TempDir,
}

fn store() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Store::open(folder.path().join("zo.db")).unwrap(), folder)
}

async fn memory_on_disk() -> OnDisk<Memory> {
    let (store, _folder) = store();
    OnDisk { inner: Memory::new(store).await.unwrap(), _folder }
}

async fn transcript_on_disk() -> OnDisk<StoreTranscript> {
    let (store, _folder) = store();
    OnDisk { inner: StoreTranscript::new(store).await.unwrap(), _folder }
}

#[async_trait]
impl<T: MemoryStore + Debug> MemoryStore for OnDisk<T> {
    async fn remember(&self, cx: &Cx, scope: &Scope, items: Vec<NewMemory>) -> Result<Vec<MemoryId>> {
        self.inner.remember(cx, scope, items).await
    }
    async fn recall(&self, cx: &Cx, scope: &Scope, query: &Recall) -> Result<Vec<Recalled>> {
        self.inner.recall(cx, scope, query).await
    }
    async fn forget(&self, cx: &Cx, scope: &Scope, what: &Forget) -> Result<usize> {
        self.inner.forget(cx, scope, what).await
    }
}

#[async_trait]
impl<T: Transcript + Debug> Transcript for OnDisk<T> {
    async fn append(
        &self,
        cx: &Cx,
        conversation: &str,
        at: Option<u64>,
        messages: &[Message],
    ) -> Result<u64> {
        self.inner.append(cx, conversation, at, messages).await
    }
    async fn read(&self, cx: &Cx, conversation: &str, from: u64, limit: usize) -> Result<Vec<Message>> {
        self.inner.read(cx, conversation, from, limit).await
    }
    async fn len(&self, cx: &Cx, conversation: &str) -> Result<u64> {
        self.inner.len(cx, conversation).await
    }
    async fn conversations(&self, cx: &Cx, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.inner.conversations(cx, after, limit).await
    }
    async fn delete(&self, cx: &Cx, conversation: &str) -> Result<bool> {
        self.inner.delete(cx, conversation).await
    }
}

mod memory_on_disk {
    zo_testkit::memory_laws!(super::memory_on_disk());
}

mod memory_in_ram {
    zo_testkit::memory_laws!(async { super::Memory::in_memory().await.unwrap() });
}

mod transcript_on_disk {
    zo_testkit::transcript_laws!(super::transcript_on_disk());
}

mod transcript_in_a_store_in_ram {
    zo_testkit::transcript_laws!(async {
        super::StoreTranscript::new(super::Store::in_memory().unwrap()).await.unwrap()
    });
}

mod transcript_in_ram {
    zo_testkit::transcript_laws!(async { super::RamTranscript::default() });
}
