//! Embeddings by a provider's model.

use crate::{
    Family, Remote,
    remote::gemini_path,
    wire::{embed, gemini},
};
use std::{collections::VecDeque, sync::Arc};
use zo_traits::{Cx, Embedder, Error, ErrorKind, Result, async_trait};

const OP: &str = "provider.embed";

/// An [`Embedder`] over a model behind HTTP: OpenAI's embeddings and everything compatible, Gemini, Ollama.
///
/// Texts go in batches, as large as the row allows, one after the other. A text without content is not sent; its vector is all zeros.
///
/// ```no_run
/// # async fn demo() -> zo_traits::Result<()> {
/// use zo_providers::Remote;
/// use zo_traits::{Cx, Embedder};
/// let cx = Cx::default();
/// let embedder = Remote::ollama().embedder(&cx, "nomic-embed-text").await?;
/// let vectors = embedder.embed(&cx, &["a database", "SQL"]).await?;
/// # let _ = vectors; Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RemoteEmbedder {
    remote: Arc<Remote>,
    model: String,
    dimensions: usize,
    /// Asked for, where the model can give fewer than its own.
    asked: Option<u32>,
    space: String,
}

impl Remote {
    /// An embedder over `model`. How long its vectors are is asked of the server, with one word.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on a wire without embeddings (Anthropic, Zo); else what the server says.
    pub async fn embedder(self, cx: &Cx, model: &str) -> Result<RemoteEmbedder> {
        let space = format!("{}/{model}", self.row.id);
        let (remote, model) = (Arc::new(self), model.to_owned());
        let mut made = RemoteEmbedder { remote, model, dimensions: 0, asked: None, space };
        let vectors = made.request(cx, &["word"]).await?;
        made.dimensions = vectors.first().map_or(0, Vec::len);
        Ok(made)
    }

    /// An embedder over `model` whose vectors are to have `dimensions` numbers, for models that shorten them (OpenAI's
    /// `text-embedding-3`, Gemini's). Makes no connection.
    pub fn embedder_of(self, model: &str, dimensions: u32) -> RemoteEmbedder {
        RemoteEmbedder {
            space: format!("{}/{model}@{dimensions}", self.row.id),
            remote: Arc::new(self),
            model: model.to_owned(),
            dimensions: usize::try_from(dimensions).unwrap_or(usize::MAX),
            asked: Some(dimensions),
        }
    }
}

impl RemoteEmbedder {
    async fn request(&self, cx: &Cx, inputs: &[&str]) -> Result<Vec<Vec<f32>>> {
        let (http, model) = (&self.remote.http, &*self.model);
        let vectors = match self.remote.row.family {
            Family::Chat | Family::Responses => {
                let body = embed::openai_body(model, inputs, self.asked, &self.remote.row.embed_dimensions)?;
                http.post(cx, OP, "/embeddings", body, embed::openai_embeddings).await?.0
            }
            Family::Gemini => {
                let body = gemini::encode_embed(model, inputs, self.asked)?;
                let path = gemini_path(model, "batchEmbedContents");
                http.post(cx, OP, &path, body, gemini::embeddings).await?
            }
            Family::Ollama => {
                let body = embed::ollama_body(model, inputs, self.asked)?;
                http.post(cx, OP, "/api/embed", body, embed::ollama_embeddings).await?.0
            }
            Family::Anthropic | Family::Zo => {
                let why = format_args!("{} has no embeddings", self.remote.row.id);
                return Err(Error::new(ErrorKind::Unsupported, OP, why));
            }
        };
        let want = if self.dimensions == 0 { vectors.first().map_or(0, Vec::len) } else { self.dimensions };
        if vectors.len() != inputs.len() || want == 0 || vectors.iter().any(|v| v.len() != want) {
            let why = format_args!(
                "{} texts were sent for vectors of {want} numbers, {} came, the first of {}",
                inputs.len(),
                vectors.len(),
                vectors.first().map_or(0, Vec::len)
            );
            return Err(Error::new(ErrorKind::Corrupt, OP, why));
        }
        Ok(vectors.into_iter().map(embed::unit).collect())
    }
}

#[async_trait]
impl Embedder for RemoteEmbedder {
    fn space(&self) -> &str {
        &self.space
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    async fn embed(&self, cx: &Cx, inputs: &[&str]) -> Result<Vec<Vec<f32>>> {
        cx.check(OP)?;
        let mut out = vec![Vec::new(); inputs.len()];
        let mut rest: VecDeque<(usize, &str)> = VecDeque::new();
        rest.extend(inputs.iter().copied().enumerate());
        rest.retain(|(_, text)| !text.trim().is_empty());
        while !rest.is_empty() {
            let mut bytes = 0usize;
            let row = &self.remote.row;
            let fits = rest.iter().take(row.embed_texts).take_while(|(_, text)| {
                bytes = bytes.saturating_add(text.len());
                bytes <= row.embed_bytes
            });
            let batch: Vec<(usize, &str)> = rest.drain(..fits.count().max(1)).collect();
            let texts: Vec<&str> = batch.iter().map(|(_, text)| *text).collect();
            for ((at, _), vector) in batch.into_iter().zip(self.request(cx, &texts).await?) {
                if let Some(place) = out.get_mut(at) {
                    *place = vector;
                }
            }
        }
        for empty in out.iter_mut().filter(|v| v.is_empty()) {
            empty.resize(self.dimensions, 0.0);
        }
        Ok(out)
    }
}
