//! One suite of scenarios against servers that others wrote, on every wire that they speak.
//!
//! * aimock (`scripts/aimock-server`, address in `ZO_AIMOCK_URL`): answers from `tests/aimock`, on five wires, with faults on
//!   request. What it was asked stands in its journal, so that a test can count.
//! * llama.cpp (`scripts/llama-server`, address in `ZO_LLAMA_URL`): a real, small model, on three wires.
//!
//! A test whose server is not there says that it was skipped; what a server cannot do stands in [`rows::CANNOT`], with the reason.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "servers/chaos.rs"]
mod chaos;
#[path = "servers/defects.rs"]
mod defects;
#[path = "servers/journal.rs"]
mod journal;
#[path = "common/jumping.rs"]
mod jumping;
#[path = "servers/rows.rs"]
mod rows;
#[path = "servers/scenarios.rs"]
mod scenarios;
#[path = "servers/tap.rs"]
mod tap;

use rows::Row;

/// A test for each scenario, for one server and wire.
macro_rules! suite {
    ($($module:ident: $row:expr;)*) => {$(
        mod $module {
            suite!(@ $row; plain conversation tool_call parallel_calls structured usage reasoning image models embeddings
                count_tokens unknown_model bad_key context_overflow server_error cut_answer cancellation drop_closes stop_text
                length);
        }
    )*};
    (@ $row:expr; $($scenario:ident)*) => {$(
        #[tokio::test]
        async fn $scenario() {
            if let Some(row) = crate::Row::ready($row, stringify!($scenario)) {
                crate::scenarios::$scenario(&row).await;
            }
        }
    )*};
}

suite! {
    aimock_chat: crate::rows::AIMOCK_CHAT;
    aimock_responses: crate::rows::AIMOCK_RESPONSES;
    aimock_anthropic: crate::rows::AIMOCK_ANTHROPIC;
    aimock_gemini: crate::rows::AIMOCK_GEMINI;
    aimock_ollama: crate::rows::AIMOCK_OLLAMA;
    llama_chat: crate::rows::LLAMA_CHAT;
    llama_responses: crate::rows::LLAMA_RESPONSES;
    llama_anthropic: crate::rows::LLAMA_ANTHROPIC;
}
