//! Anthropic.

use crate::{
    Dialect, Secret, Timeouts,
    http::{Auth, Http},
    wire::anthropic::{FAMILY, Messages, capabilities, encode},
};
use serde::Deserialize;
use zo_traits::{
    BoxStream, Capabilities, Cx, Error, ErrorKind, ModelInfo, Provider, Request, Result, StreamEvent,
    async_trait,
};

/// Anthropic's Messages API, version `2023-06-01`.
///
/// Makes no connection before the first call, then keeps up connections for the next ones.
///
/// ```
/// use zo_providers::Anthropic;
/// let claude = Anthropic::new("sk-ant-...").header("anthropic-beta", "context-1m-2025-08-07");
/// assert!(!format!("{claude:?}").contains("sk-ant"));
/// ```
#[derive(Debug)]
pub struct Anthropic {
    http: Http,
    default_model: String,
}

impl Anthropic {
    /// Anthropic with a key.
    pub fn new(key: impl Into<Secret>) -> Self {
        let row = Dialect::named(FAMILY).unwrap_or(&Dialect::PLAIN);
        let mut http = Http::new(row.base_url, Auth::XApiKey, Some(key.into()));
        http.add_header("anthropic-version", Secret::new("2023-06-01"));
        Self { http, default_model: row.default_model.to_owned() }
    }

    /// Another address, with or without `/v1` at its end. A query behind it goes along with every request.
    #[must_use]
    pub fn base_url(self, url: &str) -> Self {
        let (address, query) = url.split_once('?').map_or((url, None), |(a, q)| (a, Some(q)));
        let address = address.trim_end_matches('/');
        let mut base = if address.ends_with("/v1") { address.to_owned() } else { format!("{address}/v1") };
        if let Some(query) = query {
            base.push('?');
            base.push_str(query);
        }
        Self { http: self.http.with(|h| h.set_base(&base)), ..self }
    }

    /// The model for requests that name none.
    #[must_use]
    pub fn default_model(mut self, model: impl Into<String>) -> Self {
        self.default_model = model.into();
        self
    }

    /// Other time limits.
    #[must_use]
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        Self { http: self.http.with(|h| h.timeouts = timeouts), ..self }
    }

    /// One more header on every request. Its value is treated like a key: it appears in no log and no error
    /// (one of less than 6 bytes cannot be told from ordinary words there).
    #[must_use]
    pub fn header(self, name: &str, value: impl Into<Secret>) -> Self {
        Self { http: self.http.with(|h| h.add_header(name, value.into())), ..self }
    }
}

#[async_trait]
impl Provider for Anthropic {
    fn id(&self) -> &str {
        FAMILY
    }

    /// What a model's name tells.
    fn capabilities(&self, model: &str) -> Capabilities {
        capabilities(if model.is_empty() { &self.default_model } else { model })
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.check("provider.stream")?;
        let model = if request.model.is_empty() { &self.default_model } else { &request.model };
        let body = encode(request, model)?;
        self.http.events(cx, "/messages", body, Messages::new()).await
    }

    async fn models(&self, cx: &Cx) -> Result<Vec<ModelInfo>> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            id: String,
            #[serde(default)]
            display_name: Option<String>,
        }
        let bytes = self.http.get(cx, "provider.models", "/models?limit=1000").await?;
        let list: List = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(
                ErrorKind::Corrupt,
                "provider.models",
                format_args!("the list of models cannot be read: {e}"),
            )
        })?;
        Ok(list
            .data
            .into_iter()
            .map(|item| {
                let mut info = ModelInfo::new(item.id);
                info.capabilities = capabilities(&info.id);
                info.name = item.display_name;
                info
            })
            .collect())
    }
}
