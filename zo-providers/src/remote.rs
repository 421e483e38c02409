//! Providers behind HTTP: a wire, an address, a key and a row of quirks.

use crate::{
    Dialect, Family, Secret, Timeouts,
    http::Http,
    models::Models,
    wire::{self, anthropic, gemini, ollama, openai_chat, openai_responses, zo},
};
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use zo_traits::{
    BoxStream, Capabilities, Cx, Error, ErrorKind, ModelInfo, Provider, Request, Result, StreamEvent,
    async_trait,
};

/// A provider behind HTTP. What it speaks is its row's [`Family`]; what is special about it stands in its row, too.
///
/// Makes no connection before the first call, then keeps up connections for the next ones.
///
/// ```
/// use zo_providers::{Dialect, Remote};
/// let openai = Remote::openai("sk-...").default_model("gpt-5-mini");
/// let claude = Remote::anthropic("sk-ant-...").header("anthropic-beta", "context-1m-2025-08-07");
/// let groq = Remote::new(Dialect::named("groq").unwrap(), Some("gsk-...".into()));
/// let mine = Remote::compatible("my-server", "http://127.0.0.1:8080/v1", None);
/// assert!(!format!("{openai:?}").contains("sk-"));
/// # let _ = (claude, groq, mine);
/// ```
pub struct Remote {
    pub(crate) row: Arc<Dialect>,
    pub(crate) http: Http,
    default_model: String,
    models: Arc<Models>,
    /// The caller set the time limits.
    own_timeouts: bool,
    /// The first model that the server listed, for callers who name none.
    first: Mutex<Option<String>>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the row only the name: an address may hold a password.
        f.debug_struct("Remote")
            .field("id", &self.row.id)
            .field("http", &self.http)
            .field("default_model", &self.default_model)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// A provider by its row.
    pub fn new(row: &Dialect, key: Option<Secret>) -> Self {
        let mut http = Http::new(&row.base_url, &row.key_header, key);
        for (name, value) in &row.headers {
            http.add_plain_header(name, value);
        }
        Self {
            default_model: row.default_model.clone(),
            row: Arc::new(row.clone()),
            http,
            models: Arc::new(Models::builtin()),
            own_timeouts: false,
            first: Mutex::new(None),
        }
        .settle()
    }

    fn named(id: &str, key: Option<Secret>) -> Self {
        match Dialect::named(id) {
            Some(row) => Self::new(row, key),
            None => Self::new(&Dialect::default(), key),
        }
    }

    /// OpenAI over chat completions.
    pub fn openai(key: impl Into<Secret>) -> Self {
        Self::named("openai", Some(key.into()))
    }

    /// OpenAI over the Responses API: reasoning goes back to the model, encrypted, so that it thinks on where it stopped.
    /// Nothing is stored at OpenAI.
    pub fn openai_responses(key: impl Into<Secret>) -> Self {
        Self::named("openai-responses", Some(key.into()))
    }

    /// Anthropic's Messages API, version `2023-06-01`.
    pub fn anthropic(key: impl Into<Secret>) -> Self {
        Self::named("anthropic", Some(key.into()))
    }

    /// Google's Gemini.
    pub fn gemini(key: impl Into<Secret>) -> Self {
        Self::named("gemini", Some(key.into()))
    }

    /// Ollama on this machine, at its usual port.
    pub fn ollama() -> Self {
        Self::named("ollama", None)
    }

    /// Zo Computer: an agent with tools and a memory of its own. It takes no tools and remembers its conversations.
    pub fn zo(key: impl Into<Secret>) -> Self {
        Self::named("zo", Some(key.into()))
    }

    /// Any server that speaks chat completions: `id` names it (a [row](Dialect::named) of that name lends its quirks),
    /// `base_url` ends before `/chat/completions`.
    pub fn compatible(id: impl Into<String>, base_url: &str, key: Option<Secret>) -> Self {
        let id = id.into();
        let mut row =
            Dialect::named(&id).filter(|row| row.family == Family::Chat).cloned().unwrap_or_default();
        (row.id, row.default_model) = (id, String::new());
        Self::new(&row, key).base_url(base_url)
    }

    /// Another address. A query behind it (`?api-version=...`) goes along with every request. The version of the API at the
    /// end of the path may be left out where there is but one (Anthropic's `/v1`, Gemini's `/v1beta`).
    #[must_use]
    pub fn base_url(mut self, url: &str) -> Self {
        let url = match self.row.family {
            Family::Anthropic => with_version(url, "/v1"),
            Family::Gemini => with_version(url, "/v1beta"),
            _ => Cow::Borrowed(url),
        };
        self.http = self.http.with(|h| h.set_base(&url));
        if !self.row.base_url.is_empty() && self.http.base != self.row.base_url {
            // What stands elsewhere under the same name may be any server. Without an address the row speaks of any.
            let row = Arc::make_mut(&mut self.row);
            (row.mid_system, row.media) = (false, None);
        }
        self.settle()
    }

    /// A server on a machine like this one loads its model and reads the prompt at its leisure.
    fn settle(self) -> Self {
        if self.own_timeouts {
            return self;
        }
        let local = self.row.is_local() || self.http.is_loopback();
        let timeouts = if local { Timeouts::LOCAL } else { Timeouts::default() };
        Self { http: self.http.with(|h| h.timeouts = timeouts), ..self }
    }

    /// The model for requests that name none. Without one it is the row's, else the first that the server lists, except for
    /// models that by their name are for embeddings, speech or pictures.
    #[must_use]
    pub fn default_model(mut self, model: impl Into<String>) -> Self {
        self.default_model = model.into();
        self
    }

    /// Other time limits than those that go with the address.
    #[must_use]
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        Self { http: self.http.with(|h| h.timeouts = timeouts), own_timeouts: true, ..self }
    }

    /// One more header on every request. Its value is treated like a key: it appears in no log and no error
    /// (one of less than 6 bytes cannot be told from ordinary words there).
    #[must_use]
    pub fn header(self, name: &str, value: impl Into<Secret>) -> Self {
        Self { http: self.http.with(|h| h.add_header(name, value.into())), ..self }
    }

    /// Other knowledge of models than what is [built in](Models::builtin).
    #[must_use]
    pub fn models_known(mut self, models: impl Into<Arc<Models>>) -> Self {
        self.models = models.into();
        self
    }

    pub(crate) fn known(&self, model: &str) -> Option<crate::models::Known> {
        // One provider, two wires.
        self.models.known(self.row.id.strip_suffix("-responses").unwrap_or(&self.row.id), model)
    }

    async fn model<'a>(&'a self, cx: &Cx, asked: &'a str) -> Result<Cow<'a, str>> {
        if let Some(named) = [asked, &self.default_model].into_iter().find(|m| !m.is_empty()) {
            return Ok(Cow::Borrowed(named));
        }
        // Its server has a default of its own, set by its owner.
        if self.row.family == Family::Zo {
            return Ok(Cow::Borrowed(""));
        }
        if let Some(first) = &*self.first.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Cow::Owned(first.clone()));
        }
        let listed = crate::choose::first_chatting(self.models(cx).await?).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "provider.models",
                format_args!("{} lists no model to talk to, and the request names none", self.row.id),
            )
        })?;
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(listed.id.clone());
        Ok(Cow::Owned(listed.id))
    }

    /// What the wire and the row tell of any model.
    fn wire_capabilities(&self, model: &str) -> Capabilities {
        let mut c = match self.row.family {
            Family::Anthropic => anthropic::capabilities(model),
            _ => Capabilities::default(),
        };
        c.tools = self.row.family != Family::Zo;
        c.parallel_tools = c.tools && !self.row.is_local();
        c.structured |= match self.row.family {
            Family::Chat => {
                self.row.schema == crate::SchemaField::JsonSchema && Dialect::named(&self.row.id).is_some()
            }
            Family::Anthropic => false,
            _ => true,
        };
        c
    }
}

/// `url` with `version` at the end of its path, if that names none.
fn with_version<'u>(url: &'u str, version: &str) -> Cow<'u, str> {
    let (address, query) = url.split_once('?').map_or((url, None), |(a, q)| (a, Some(q)));
    let address = address.trim_end_matches('/');
    let last = address.rsplit('/').next().unwrap_or_default();
    let named = last.strip_prefix('v').is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    if named {
        return Cow::Borrowed(url);
    }
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    Cow::Owned(format!("{address}{version}{query}"))
}

#[async_trait]
impl Provider for Remote {
    fn id(&self) -> &str {
        &self.row.id
    }

    /// What is known of the model by its name ([`Models`]), else what the wire can do.
    fn capabilities(&self, model: &str) -> Capabilities {
        let model = if model.is_empty() { &self.default_model } else { model };
        match self.known(model) {
            Some(known) => {
                // There, false means not known to.
                let mut c = known.capabilities;
                c.tools |= self.row.family != Family::Zo;
                c
            }
            None => self.wire_capabilities(model),
        }
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.check("provider.stream")?;
        let model = &*self.model(cx, &request.model).await?;
        let (row, http) = (&*self.row, &self.http);
        let (body, whole) = (wire::encode(request, model, row)?, request.whole);
        match row.family {
            Family::Chat => {
                let (keep, details) = (row.replay_reasoning, row.replay_details);
                let codec = openai_chat::Chat::new(row.id.clone()).keep_reasoning(keep).keep_details(details);
                http.events(cx, "/chat/completions", body, whole, |_| codec).await
            }
            Family::Responses => {
                http.events(cx, "/responses", body, whole, |_| {
                    openai_responses::Responses::new(row.id.clone())
                })
                .await
            }
            Family::Anthropic => {
                let ask = |body| http.events(cx, "/messages", body, whole, |_| anthropic::Messages::new());
                match ask(body).await {
                    // Without them the conversation goes on; with them it would be refused for ever.
                    Err(e) if anthropic::refuses_thoughts(&e) => match anthropic::without_thoughts(request) {
                        Some(bare) => ask(wire::encode(&bare, model, row)?).await,
                        None => Err(e),
                    },
                    done => done,
                }
            }
            Family::Gemini => {
                let how = if whole { "generateContent" } else { "streamGenerateContent?alt=sse" };
                http.events(cx, &gemini_path(model, how), body, whole, |_| gemini::Generate::new()).await
            }
            Family::Ollama => {
                let codec = ollama::OllamaChat::new().turn(request.messages.len());
                http.events(cx, "/api/chat", body, whole, |_| codec).await
            }
            Family::Zo => {
                let id = |head: &HeaderMap| Some(head.get("x-conversation-id")?.to_str().ok()?.to_owned());
                let structured = request.output_schema.is_some();
                http.events(cx, "/zo/ask", body, whole, |head| zo::Ask::new(id(head)).structured(structured))
                    .await
            }
        }
    }

    async fn models(&self, cx: &Cx) -> Result<Vec<ModelInfo>> {
        const OP: &str = "provider.models";
        let path = match self.row.family {
            Family::Chat | Family::Responses => "/models",
            Family::Anthropic => "/models?limit=1000",
            Family::Gemini => "/models?pageSize=1000",
            Family::Ollama => "/api/tags",
            Family::Zo => "/models/available",
        };
        let read = match self.row.family {
            Family::Gemini => gemini::models,
            Family::Ollama => ollama::models,
            Family::Zo => zo::models,
            Family::Chat | Family::Responses | Family::Anthropic => list,
        };
        let mut listed = self.http.get(cx, OP, path, read).await?;
        for info in &mut listed {
            // What the server says of its own model counts most.
            let said = std::mem::replace(&mut info.capabilities, self.capabilities(&info.id));
            let c = &mut info.capabilities;
            c.context_window = said.context_window.or(c.context_window);
            c.max_output = said.max_output.or(c.max_output);
            c.price = said.price.or(c.price);
            c.tools |= said.tools;
            c.parallel_tools |= said.parallel_tools;
            c.structured |= said.structured;
            c.vision |= said.vision;
            c.audio |= said.audio;
            c.reasoning |= said.reasoning;
        }
        Ok(listed)
    }

    async fn count_tokens(&self, cx: &Cx, request: &Request) -> Result<u64> {
        const OP: &str = "provider.count_tokens";
        cx.check(OP)?;
        let model = &*self.model(cx, &request.model).await?;
        let (row, http) = (&*self.row, &self.http);
        match row.family {
            Family::Responses => {
                let body = openai_responses::count_body(request, model, row, &row.id)?;
                http.post(cx, OP, "/responses/input_tokens", body, openai_responses::counted).await
            }
            Family::Anthropic => {
                let body = anthropic::count_body(request, model)?;
                http.post(cx, OP, "/messages/count_tokens", body, anthropic::counted).await
            }
            Family::Gemini => {
                let body = gemini::count_body(request, model)?;
                http.post(cx, OP, &gemini_path(model, "countTokens"), body, gemini::counted).await
            }
            Family::Chat | Family::Ollama | Family::Zo => Err(Error::new(
                ErrorKind::Unsupported,
                OP,
                format_args!("the wire of {} counts no tokens ahead", row.id),
            )),
        }
    }
}

/// Tuned models carry their kind in front of their name.
pub(crate) fn gemini_path(model: &str, how: &str) -> String {
    let kind = if model.contains('/') { "" } else { "models/" };
    // An id is no place for what steers a URL.
    let model: String = model.chars().filter(|c| c.is_ascii_alphanumeric() || "-._/@".contains(*c)).collect();
    format!("/{kind}{}:{how}", model.trim_start_matches('/').replace("..", "."))
}

/// A list of models as OpenAI, Anthropic and those like them give it.
fn list(bytes: &[u8]) -> Result<Vec<ModelInfo>> {
    const OP: &str = "provider.models";
    let list: Value = serde_json::from_slice(bytes).map_err(|e| {
        Error::new(ErrorKind::Corrupt, OP, format_args!("the list of models is no JSON: {e}"))
    })?;
    // Together answers with the bare list.
    let items = list.get("data").or_else(|| list.get("models")).unwrap_or(&list).as_array();
    let items =
        items.ok_or_else(|| Error::new(ErrorKind::Corrupt, OP, "the answer holds no list of models"))?;
    Ok(items.iter().filter_map(info).collect())
}

fn info(item: &Value) -> Option<ModelInfo> {
    let text = |key: &str| item.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let count = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| item.get(key).and_then(Value::as_u64));
        found.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
    };
    let mut info = ModelInfo::new(text("id").or_else(|| text("model"))?);
    info.name = text("display_name").or_else(|| text("name")).filter(|n| *n != info.id).map(str::to_owned);
    let c = &mut info.capabilities;
    c.context_window = count(&[
        "context_length",
        "context_window",
        "max_context_length",
        "max_model_len",
        "max_input_tokens",
    ]);
    c.max_output = count(&["max_completion_tokens", "max_output_length", "max_tokens"]);
    Some(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn local_servers_have_more_time_for_the_first_byte() {
        let (quick, slow) = (Duration::from_secs(60), Duration::from_secs(600));
        let of = |p: &Remote| p.http.timeouts.first_byte;
        for (url, want) in [
            ("http://127.0.0.1:8080/v1", slow),
            ("http://localhost:1/v1", slow),
            ("http://[::1]:1/v1?x=1", slow),
            ("https://example.com/v1", quick),
            ("nonsense", quick),
        ] {
            assert_eq!(of(&Remote::compatible("mine", url, None)), want, "{url}");
        }
        for row in crate::DIALECTS.iter() {
            assert_eq!(of(&Remote::new(row, None)), if row.is_local() { slow } else { quick }, "{}", row.id);
        }
        assert_eq!(of(&Remote::ollama().base_url("http://10.0.0.7:11434")), slow);
        let own = Remote::openai("k").timeouts(Timeouts::default()).base_url("http://127.0.0.1:1/v1");
        assert_eq!(of(&own), quick, "the caller's own limits stay");
    }

    #[test]
    fn versions_are_added_where_they_are_missing() {
        for (url, want) in [
            ("http://h", "http://h/v1"),
            ("http://h/", "http://h/v1"),
            ("http://h/v1/", "http://h/v1/"),
            ("http://h/v1beta?x=1", "http://h/v1beta?x=1"),
            ("http://h/vault?x=1", "http://h/vault/v1?x=1"),
        ] {
            assert_eq!(with_version(url, "/v1"), want);
        }
        assert_eq!(gemini_path("gemini-2.5-pro", "x"), "/models/gemini-2.5-pro:x");
        assert_eq!(gemini_path("tunedModels/a?b#c/../d", "x"), "/tunedModels/abc/./d:x");
    }
}
