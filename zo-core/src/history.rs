//! Reading a conversation back.

use zo_traits::{Cx, Message, Result, Transcript};

/// Most messages before a run that are read back. A conversation gets a summary long before it has so many.
pub(crate) const MAX_MESSAGES: u64 = 4_096;

/// The messages `[from, to)`.
pub(crate) async fn read(
    cx: &Cx,
    transcript: &dyn Transcript,
    conversation: &str,
    from: u64,
    to: u64,
) -> Result<Vec<Message>> {
    let n = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    if n == 0 { Ok(Vec::new()) } else { transcript.read(cx, conversation, from, n).await }
}
