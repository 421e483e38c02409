//! The servers, their wires, and what they cannot do.

use std::{env, time::Duration};
use zo_providers::{Dialect, Family, Remote};
use zo_traits::{Cx, Message, Request};

/// The one key that aimock takes.
pub(crate) const KEY: &str = "test-key";

/// A server that was written by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// Says what `tests/aimock` tells it to.
    Aimock,
    /// Has a model of its own.
    Llama,
}

/// A server and a wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) server: Server,
    pub(crate) name: &'static str,
    make: fn(&str, &str) -> Remote,
}

pub(crate) const AIMOCK_CHAT: Wire = Wire {
    server: Server::Aimock,
    name: "chat",
    make: |url, key| Remote::compatible("aimock", &format!("{url}/v1"), Some(key.into())),
};
pub(crate) const AIMOCK_RESPONSES: Wire = Wire {
    server: Server::Aimock,
    name: "responses",
    make: |url, key| Remote::openai_responses(key).base_url(&format!("{url}/v1")),
};
pub(crate) const AIMOCK_ANTHROPIC: Wire =
    Wire { server: Server::Aimock, name: "anthropic", make: |url, key| Remote::anthropic(key).base_url(url) };
pub(crate) const AIMOCK_GEMINI: Wire =
    Wire { server: Server::Aimock, name: "gemini", make: |url, key| Remote::gemini(key).base_url(url) };
pub(crate) const AIMOCK_OLLAMA: Wire = Wire {
    server: Server::Aimock,
    name: "ollama",
    make: |url, key| Remote::new(Dialect::named("ollama").unwrap(), Some(key.into())).base_url(url),
};
pub(crate) const LLAMA_CHAT: Wire = Wire {
    server: Server::Llama,
    name: "chat",
    make: |url, _| Remote::compatible("llamacpp", &format!("{url}/v1"), None),
};
pub(crate) const LLAMA_RESPONSES: Wire = Wire {
    server: Server::Llama,
    name: "responses",
    make: |url, _| {
        let mut row = Dialect::named("llamacpp").unwrap().clone();
        row.family = Family::Responses;
        Remote::new(&row, None).base_url(&format!("{url}/v1"))
    },
};
pub(crate) const LLAMA_ANTHROPIC: Wire =
    Wire { server: Server::Llama, name: "anthropic", make: |url, key| Remote::anthropic(key).base_url(url) };

/// All wires of aimock.
pub(crate) const AIMOCK: [Wire; 5] =
    [AIMOCK_CHAT, AIMOCK_RESPONSES, AIMOCK_ANTHROPIC, AIMOCK_GEMINI, AIMOCK_OLLAMA];

/// What a server cannot do on a wire (`*`: on any), and why it is not asked to.
pub(crate) const CANNOT: &[(Server, &str, &str, &str)] = &[
    (Server::Aimock, "gemini", "models", "has no list of models under /v1beta"),
    (Server::Aimock, "gemini", "embeddings", "knows embedContent, not batchEmbedContents"),
    (Server::Aimock, "anthropic", "embeddings", "the wire has none"),
    (Server::Aimock, "ollama", "usage", "sends prompt_eval_count and eval_count as zero"),
    (Server::Aimock, "ollama", "reasoning", "calls it reasoning_content, where Ollama calls it thinking"),
    (
        Server::Aimock,
        "ollama",
        "embeddings",
        "answers /api/embed in the manner of /api/embeddings, with one vector",
    ),
    (Server::Aimock, "ollama", "length", "knows no done_reason but stop"),
    (Server::Aimock, "*", "count_tokens", "has no such path on any wire"),
    (Server::Aimock, "*", "stop_text", "says what it is told to, whatever the request"),
    (Server::Llama, "*", "reasoning", "the model does not reason"),
    (Server::Llama, "*", "image", "the model has no eyes"),
    (Server::Llama, "*", "embeddings", "is not started with --embeddings"),
    (Server::Llama, "*", "parallel_calls", "so small a model makes one call at a time"),
    (Server::Llama, "*", "unknown_model", "serves its one model under any name"),
    (Server::Llama, "*", "bad_key", "is started without keys and takes any"),
    (Server::Llama, "*", "server_error", "cannot be made to fail"),
    (Server::Llama, "*", "cut_answer", "cannot be made to break off"),
    (Server::Llama, "responses", "structured", "does not read text.format"),
    (Server::Llama, "anthropic", "structured", "does not read output_config.format"),
    (Server::Llama, "chat", "count_tokens", "the wire does not count ahead"),
    (Server::Llama, "responses", "stop_text", "the wire has none"),
    (Server::Llama, "responses", "length", "says `completed` of an answer that was cut at max_output_tokens"),
];

/// A server that is up, and the wire to speak to it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) wire: Wire,
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// Sets the requests of one test apart in aimock's journal.
    pub(crate) test: String,
}

impl Row {
    /// The row for one scenario, if the server is there and can do it; else says why not.
    pub(crate) fn ready(wire: Wire, scenario: &str) -> Option<Self> {
        let (variable, script) = match wire.server {
            Server::Aimock => ("ZO_AIMOCK_URL", "scripts/aimock-server"),
            Server::Llama => ("ZO_LLAMA_URL", "scripts/llama-server"),
        };
        let Ok(url) = env::var(variable) else {
            println!("SKIPPED: {variable} is not set; {script} prints an address for it");
            return None;
        };
        let cannot = CANNOT.iter().find(|(server, name, what, _)| {
            *server == wire.server && (*name == "*" || *name == wire.name) && *what == scenario
        });
        if let Some((server, _, what, why)) = cannot {
            println!("SKIPPED: {server:?} over {}: {what}: {why}", wire.name);
            return None;
        }
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let test = format!("{}-{scenario}-{}-{}", wire.name, std::process::id(), now.as_nanos());
        Some(Self { wire, url, test })
    }

    pub(crate) fn is_mock(&self) -> bool {
        self.wire.server == Server::Aimock
    }

    pub(crate) fn remote(&self) -> Remote {
        self.remote_at(&self.url, KEY)
    }

    pub(crate) fn remote_at(&self, url: &str, key: &str) -> Remote {
        (self.wire.make)(url, key).header("x-test-id", self.test.as_str())
    }

    pub(crate) fn model(&self) -> &'static str {
        match self.wire.server {
            Server::Aimock => "mock-1",
            Server::Llama => "smollm2-135m",
        }
    }

    pub(crate) fn ask(&self, text: &str) -> Request {
        let mut r = Request::new(self.model(), [Message::system("Be brief."), Message::user(text)]);
        (r.max_tokens, r.temperature) = (Some(24), Some(0.0));
        r
    }

    /// Text that aimock answers with an error in the words of the wire's own provider.
    pub(crate) fn error(&self, what: &str) -> Request {
        self.ask(&format!("{what}, {}", self.wire.name))
    }

    pub(crate) fn cx(&self) -> Cx {
        Cx::new("servers").with_timeout(Duration::from_secs(110))
    }
}
