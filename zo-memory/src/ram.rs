//! Conversations in RAM, for agents without a file.

use crate::transcript::check_length;
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use zo_traits::{Cx, Message, Result, Transcript, async_trait};

/// Conversations that live as long as the last clone. It keeps the laws of [`Transcript`] but, naturally, for the life of
/// the process only.
#[derive(Debug, Clone, Default)]
pub struct RamTranscript(Arc<Mutex<BTreeMap<String, Vec<Message>>>>);

impl RamTranscript {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transcript for RamTranscript {
    async fn append(
        &self,
        cx: &Cx,
        conversation: &str,
        at: Option<u64>,
        messages: &[Message],
    ) -> Result<u64> {
        cx.check("transcript.append")?;
        let mut all = self.lock();
        let len = all.get(conversation).map_or(0, Vec::len) as u64;
        check_length(conversation, at, len)?;
        if messages.is_empty() {
            return Ok(len);
        }
        all.entry(conversation.to_owned()).or_default().extend_from_slice(messages);
        Ok(len + messages.len() as u64)
    }

    async fn read(&self, cx: &Cx, conversation: &str, from: u64, limit: usize) -> Result<Vec<Message>> {
        cx.check("transcript.read")?;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let all = self.lock();
        let Some(messages) = all.get(conversation) else { return Ok(Vec::new()) };
        Ok(messages.iter().skip(from).take(limit).cloned().collect())
    }

    async fn len(&self, cx: &Cx, conversation: &str) -> Result<u64> {
        cx.check("transcript.len")?;
        Ok(self.lock().get(conversation).map_or(0, Vec::len) as u64)
    }

    async fn conversations(&self, cx: &Cx, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        cx.check("transcript.conversations")?;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.lock();
        Ok(all.range::<str, _>((start, Bound::Unbounded)).take(limit).map(|(name, _)| name.clone()).collect())
    }

    async fn delete(&self, cx: &Cx, conversation: &str) -> Result<bool> {
        cx.check("transcript.delete")?;
        Ok(self.lock().remove(conversation).is_some())
    }
}
