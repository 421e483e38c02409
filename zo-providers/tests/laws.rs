//! The laws of a provider, run on this crate's over a real socket, and on the test kit's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Answer, Server, Then};
use zo_providers::Remote;
use zo_testkit::laws::provider::Subject;
use zo_traits::{Message, Provider, Request};

const CHAT: &str = concat!(
    "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
    "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hel\"}}]}\n\n",
    ": ping\n\n",
    "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n",
    "data: [DONE]\n\n",
);

const MESSAGES: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"c\",\"usage\":{\"input_tokens\":3}}}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

/// Where the first event ends.
fn first_event() -> usize {
    CHAT.find("\n\n").unwrap() + 2
}

fn subject(provider: impl Provider) -> Subject {
    Subject::new(provider, Request::new("m", [Message::user("hello")]))
}

async fn openai(answer: Answer) -> Subject {
    subject(Remote::compatible("test", &Server::always(answer).await.base, Some("sk-law-0123456789".into())))
}

async fn anthropic(answer: Answer) -> Subject {
    subject(Remote::anthropic("sk-law-0123456789").base_url(&Server::always(answer).await.base))
}

mod chat_completions {
    use super::*;
    zo_testkit::provider_laws!(openai(Answer::sse(CHAT).pieces(&[1, 30, 400])));
}

mod chat_completions_whole {
    use super::*;
    zo_testkit::provider_laws!(openai(Answer::json(
        200,
        r#"{"id":"c","choices":[{"message":{"content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#
    )));
}

mod chat_completions_silent {
    use super::*;
    zo_testkit::hanging_provider_laws!(openai(Answer::sse(CHAT).then(0, Then::Silence)));
}

mod chat_completions_silent_half_way {
    use super::*;
    zo_testkit::hanging_provider_laws!(openai(Answer::sse(CHAT).then(250, Then::Silence)));
}

mod chat_completions_of_pings_only {
    use super::*;
    zo_testkit::hanging_provider_laws!(openai(Answer::sse(CHAT).then(first_event(), Then::Pings(1_000_000))));
}

mod messages {
    use super::*;
    zo_testkit::provider_laws!(anthropic(Answer::sse(MESSAGES).pieces(&[3, 1, 900])));
}

mod messages_silent_half_way {
    use super::*;
    zo_testkit::hanging_provider_laws!(anthropic(Answer::sse(MESSAGES).then(300, Then::Silence)));
}

mod scripted {
    use super::*;
    use zo_testkit::{Scripted, Turn};
    zo_testkit::provider_laws!(async {
        subject(Scripted::by(|_| {
            Turn::calls([("a", "f", serde_json::json!({})), ("b", "f", serde_json::json!({"x": 1}))])
        }))
    });
}

mod scripted_silent {
    use super::*;
    use zo_testkit::{Scripted, Turn};
    zo_testkit::hanging_provider_laws!(async { subject(Scripted::by(|_| Turn::Hang)) });
}

mod offline {
    use super::*;
    zo_testkit::provider_laws!(async { subject(zo_providers::Offline::new()) });
}
