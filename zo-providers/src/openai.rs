//! OpenAI, and everything that speaks its chat completions.

use crate::{
    Dialect, Secret, Timeouts,
    dialect::SchemaField,
    http::{Auth, Http},
    wire::openai_chat::{Chat, encode},
};
use serde_json::Value;
use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
};
use zo_traits::{
    BoxStream, Capabilities, Cx, Error, ErrorKind, ModelInfo, Provider, Request, Result, StreamEvent,
    async_trait,
};

/// OpenAI's chat completions, and every server that speaks them: hosted ones by [`Dialect`], local ones by their address.
///
/// Makes no connection before the first call, then keeps up connections for the next ones.
///
/// ```
/// use zo_providers::{Dialect, OpenAi};
/// let openai = OpenAi::new("sk-...").default_model("gpt-5-mini");
/// let groq = OpenAi::dialect(Dialect::named("groq").unwrap(), Some("gsk-...".into()));
/// let local = OpenAi::compatible("my-server", "http://127.0.0.1:8080/v1", None);
/// assert_eq!(format!("{openai:?}").contains("sk-"), false);
/// # let _ = (groq, local);
/// ```
#[derive(Debug)]
pub struct OpenAi {
    id: Cow<'static, str>,
    dialect: Dialect,
    http: Http,
    default_model: String,
    /// The caller set the time limits.
    own_timeouts: bool,
    /// The first model that the server listed, for callers who name none.
    first: Mutex<Option<String>>,
}

impl OpenAi {
    /// OpenAI itself.
    pub fn new(key: impl Into<Secret>) -> Self {
        Self::dialect(Dialect::named("openai").unwrap_or(&Dialect::PLAIN), Some(key.into()))
    }

    /// A provider by its row.
    pub fn dialect(row: &Dialect, key: Option<Secret>) -> Self {
        Self {
            id: Cow::Borrowed(row.id),
            dialect: *row,
            http: Http::new(row.base_url, Auth::Bearer, key),
            default_model: row.default_model.to_owned(),
            own_timeouts: false,
            first: Mutex::new(None),
        }
        .settle()
    }

    /// A server on a machine like this one loads its model and reads the prompt at its leisure.
    fn settle(self) -> Self {
        // The plain row has no address: it is nobody's.
        let row = self.dialect.is_local() && !self.dialect.base_url.is_empty();
        if self.own_timeouts {
            return self;
        }
        let timeouts = if row || self.http.is_loopback() { Timeouts::LOCAL } else { Timeouts::default() };
        Self { http: self.http.with(|h| h.timeouts = timeouts), ..self }
    }

    /// Any compatible server: `id` names it (a [row](Dialect::named) of that name lends its quirks), `base_url` ends before
    /// `/chat/completions`.
    pub fn compatible(id: impl Into<String>, base_url: &str, key: Option<Secret>) -> Self {
        let id = id.into();
        let mut row = *Dialect::named(&id).unwrap_or(&Dialect::PLAIN);
        row.default_model = "";
        Self { id: Cow::Owned(id), ..Self::dialect(&row, key) }.base_url(base_url)
    }

    /// Another address. A query behind it (`?api-version=...`) goes along with every request.
    #[must_use]
    pub fn base_url(self, url: &str) -> Self {
        Self { http: self.http.with(|h| h.set_base(url)), ..self }.settle()
    }

    /// The model for requests that name none. Without one it is the first that the server lists, except for models that by
    /// their name are for embeddings, speech or pictures.
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

    async fn model<'a>(&'a self, cx: &Cx, asked: &'a str) -> Result<Cow<'a, str>> {
        if let Some(named) = [asked, &self.default_model].into_iter().find(|m| !m.is_empty()) {
            return Ok(Cow::Borrowed(named));
        }
        if let Some(first) = &*self.first.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Cow::Owned(first.clone()));
        }
        let listed = crate::choose::first_chatting(self.models(cx).await?).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "provider.models",
                format_args!("{} lists no model to talk to, and the request names none", self.id),
            )
        })?;
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(listed.id.clone());
        Ok(Cow::Owned(listed.id))
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn id(&self) -> &str {
        &self.id
    }

    /// What the wire and the provider can do. Context window and prices are not known from the name.
    fn capabilities(&self, _model: &str) -> Capabilities {
        let mut c = Capabilities::default();
        c.tools = true;
        c.parallel_tools = !self.dialect.is_local();
        c.structured = self.dialect.schema == SchemaField::JsonSchema && self.dialect.id != Dialect::PLAIN.id;
        c
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.check("provider.stream")?;
        let model = self.model(cx, &request.model).await?;
        let mut dialect = self.dialect;
        if self.http.base != dialect.base_url {
            dialect.mid_system = false;
            dialect.media = None;
        }
        let body = encode(request, &model, &dialect, &self.id)?;
        let codec = Chat::new(self.id.clone())
            .keep_reasoning(self.dialect.replay_reasoning)
            .keep_details(self.dialect.replay_details);
        self.http.events(cx, "/chat/completions", body, codec).await
    }

    async fn models(&self, cx: &Cx) -> Result<Vec<ModelInfo>> {
        let bytes = self.http.get(cx, "provider.models", "/models").await?;
        let list: Value = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(
                ErrorKind::Corrupt,
                "provider.models",
                format_args!("the list of models is no JSON: {e}"),
            )
        })?;
        // Together answers with the bare list.
        let items =
            list.get("data").or_else(|| list.get("models")).unwrap_or(&list).as_array().ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "provider.models", "the answer holds no list of models")
            })?;
        Ok(items.iter().filter_map(|item| self.info(item)).collect())
    }
}

impl OpenAi {
    fn info(&self, item: &Value) -> Option<ModelInfo> {
        let text = |key: &str| item.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        let mut info = ModelInfo::new(text("id").or_else(|| text("model"))?);
        info.name =
            text("display_name").or_else(|| text("name")).filter(|n| *n != info.id).map(str::to_owned);
        info.capabilities = self.capabilities(&info.id);
        info.capabilities.context_window =
            ["context_length", "context_window", "max_context_length", "max_model_len"]
                .iter()
                .find_map(|key| item.get(key).and_then(Value::as_u64))
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0);
        Some(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn local_servers_have_more_time_for_the_first_byte() {
        let (quick, slow) = (Duration::from_secs(60), Duration::from_secs(600));
        let of = |p: &OpenAi| p.http.timeouts.first_byte;
        for (url, want) in [
            ("http://127.0.0.1:8080/v1", slow),
            ("http://localhost:1/v1", slow),
            ("http://[::1]:1/v1?x=1", slow),
            ("https://example.com/v1", quick),
            ("nonsense", quick),
        ] {
            assert_eq!(of(&OpenAi::compatible("mine", url, None)), want, "{url}");
        }
        for row in crate::DIALECTS.iter().filter(|d| d.family == crate::Family::Chat) {
            assert_eq!(
                of(&OpenAi::dialect(row, None)),
                if row.is_local() { slow } else { quick },
                "{}",
                row.id
            );
        }
        assert_eq!(of(&OpenAi::compatible("ollama", "http://10.0.0.7:11434/v1", None)), slow);
        let own = OpenAi::new("k").timeouts(Timeouts::default()).base_url("http://127.0.0.1:1/v1");
        assert_eq!(of(&own), quick, "the caller's own limits stay");
    }
}
