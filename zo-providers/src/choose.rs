//! Picks a provider for a host that has not chosen one.

use crate::{Dialect, Offline};
use std::sync::Arc;
use zo_traits::{Cx, Error, ErrorKind, ModelInfo, Provider, Result};

/// A provider that was picked, and why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Chosen {
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// The model to ask for.
    pub model: String,
    /// Which it is and why, in words for the user. Never holds a key.
    pub why: String,
}

/// Picks a provider by the environment of this process.
///
/// 1. `ZO_PROVIDER` names one: a [`Dialect`], or `offline`. `ZO_MODEL` names the model, whichever provider it will be.
/// 2. The first key in the environment, in the order of [`DIALECTS`](crate::DIALECTS): `ANTHROPIC_API_KEY`, `OPENAI_API_KEY`
///    (at `OPENAI_BASE_URL`, if set; that address alone is a server without a key), `GROQ_API_KEY` and so on.
/// 3. A server on this machine: Ollama at port 11434, LM Studio at 1234, llama.cpp at 8080. All are asked at once and
///    have 150 ms; the first in this order that lists a model to talk to wins (not one for embeddings, speech or pictures,
///    which is seen by its name).
/// 4. [`Offline`].
///
/// # Errors
/// An explicit setting that cannot be honoured, with what to do about it: it is never passed over in silence.
pub async fn from_env(cx: &Cx) -> Result<Chosen> {
    from_lookup(cx, |name| std::env::var(name).ok()).await
}

/// As [`from_env`], with another environment. Used by hosts with settings of their own, and by tests.
///
/// # Errors
/// As [`from_env`].
pub async fn from_lookup(cx: &Cx, lookup: impl Fn(&str) -> Option<String> + Send) -> Result<Chosen> {
    cx.check(OP)?;
    let set = |name: &str| lookup(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
    let wish = Wish { model: set("ZO_MODEL") };
    if let Some(name) = set("ZO_PROVIDER") {
        return explicit(cx, &name, &wish, &set).await;
    }
    for row in crate::DIALECTS {
        let (key, base) = (env(&set, row.key_env), env(&set, row.base_env));
        match (key, base) {
            (Some(key), base) => {
                let from = format!("{} is set", row.key_env);
                return hosted(row, Some(key), base, &wish, &from);
            }
            (None, Some(base)) if row.id == "openai" => return keyless(cx, row, &base, &wish).await,
            _ => {}
        }
    }
    if let Some(found) = probe::local(cx, &wish).await? {
        return Ok(found);
    }
    Ok(Chosen {
        provider: Arc::new(Offline::new()),
        model: String::new(),
        why: "offline rules, no model: no key is in the environment and no local model server answers. Set one of \
              ANTHROPIC_API_KEY, OPENAI_API_KEY and the like, or start Ollama, LM Studio or llama.cpp."
            .into(),
    })
}

const OP: &str = "provider.choose";

struct Wish {
    model: Option<String>,
}

impl Wish {
    fn words(&self) -> &'static str {
        if self.model.is_some() { ", the model is named by ZO_MODEL" } else { "" }
    }
}

fn env(set: &impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    if name.is_empty() { None } else { set(name) }
}

async fn explicit(cx: &Cx, name: &str, wish: &Wish, set: &impl Fn(&str) -> Option<String>) -> Result<Chosen> {
    if name == "offline" {
        let why = "offline rules, no model: ZO_PROVIDER says so".into();
        return Ok(Chosen { provider: Arc::new(Offline::new()), model: String::new(), why });
    }
    let Some(row) = Dialect::named(name) else {
        let known: Vec<_> = crate::DIALECTS.iter().map(|d| d.id).collect();
        return Err(Error::new(
            ErrorKind::Invalid,
            OP,
            format_args!(
                "ZO_PROVIDER is {name:?}, which is unknown. Known are offline, {}.",
                known.join(", ")
            ),
        ));
    };
    let base = env(set, row.base_env);
    if row.is_local() {
        return probe::named(cx, row, wish).await;
    }
    match (env(set, row.key_env), base) {
        (Some(key), base) => hosted(row, Some(key), base, wish, "ZO_PROVIDER names it"),
        (None, Some(base)) if row.id == "openai" => keyless(cx, row, &base, wish).await,
        (None, _) => Err(Error::new(
            ErrorKind::Unauthorized,
            OP,
            format_args!(
                "ZO_PROVIDER is {name}, but {0} is not set. Set {0}, or unset ZO_PROVIDER.",
                row.key_env
            ),
        )),
    }
}

/// A provider with a key. No connection is made.
fn hosted(
    row: &'static Dialect,
    key: Option<String>,
    base: Option<String>,
    wish: &Wish,
    because: &str,
) -> Result<Chosen> {
    // An address of one's own may be any server: what OpenAI would answer with is no guess for it.
    let model = wish.model.clone().unwrap_or_else(|| match &base {
        Some(base) if row.id == "openai" && base.trim_end_matches('/') != row.base_url => String::new(),
        _ => row.default_model.to_owned(),
    });
    let at = if base.is_some() { format!(" at the address in {}", row.base_env) } else { String::new() };
    let why = format!("{}{at}: {because}{}", row.id, wish.words());
    Ok(Chosen { provider: make::provider(row, key, base, &model)?, model, why })
}

/// OpenAI's wire at an address of one's own, without a key.
async fn keyless(cx: &Cx, row: &'static Dialect, base: &str, wish: &Wish) -> Result<Chosen> {
    let mut chosen = hosted(row, None, Some(base.to_owned()), wish, "it is set, and no key")?;
    if chosen.model.is_empty() {
        let patient = cx.child().with_timeout(std::time::Duration::from_secs(2));
        let listed = chosen.provider.models(&patient).await.map_err(|e| {
            Error::new(
                e.kind(),
                OP,
                format_args!(
                    "{} is set, but no list of models comes from there ({}). Start the server, correct the address, or \
                     name a model in ZO_MODEL.",
                    row.base_env,
                    e.message()
                ),
            )
        })?;
        chosen.model = first_chatting(listed).map(|m| m.id).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                OP,
                format_args!("the server in {} lists no model to talk to. Load one there.", row.base_env),
            )
        })?;
    }
    Ok(chosen)
}

/// The first model in a list to talk to, by its name: lists also hold those that turn text into numbers, speech or pictures.
pub(crate) fn first_chatting(listed: Vec<ModelInfo>) -> Option<ModelInfo> {
    const OTHER: &[&str] = &["embed", "whisper", "tts", "dall-e", "moderation", "rerank", "image"];
    listed.into_iter().find(|model| {
        let id = model.id.to_ascii_lowercase();
        !OTHER.iter().any(|word| id.contains(word))
    })
}

/// Builds providers, as far as they are compiled in.
mod make {
    use super::{Arc, Dialect, Error, ErrorKind, OP, Provider, Result};
    use crate::dialect::Family;

    pub(super) fn provider(
        row: &'static Dialect,
        key: Option<String>,
        base: Option<String>,
        model: &str,
    ) -> Result<Arc<dyn Provider>> {
        match row.family {
            #[cfg(feature = "openai")]
            Family::Chat => {
                let made = crate::OpenAi::dialect(row, key.map(crate::Secret::new)).default_model(model);
                Ok(Arc::new(match base {
                    Some(base) => made.base_url(&base),
                    None => made,
                }))
            }
            #[cfg(feature = "anthropic")]
            Family::Anthropic => {
                let made = crate::Anthropic::new(key.unwrap_or_default()).default_model(model);
                Ok(Arc::new(match base {
                    Some(base) => made.base_url(&base),
                    None => made,
                }))
            }
            #[allow(unreachable_patterns)] // Reached when a feature is off.
            family => {
                let feature = if family == Family::Anthropic { "anthropic" } else { "openai" };
                let _ = (key, base, model);
                Err(Error::new(
                    ErrorKind::Unsupported,
                    OP,
                    format_args!(
                        "{} is asked for, but zo-providers was built without its feature `{feature}`",
                        row.id
                    ),
                ))
            }
        }
    }
}

/// Looks for model servers on this machine.
#[cfg(feature = "openai")]
mod probe {
    use super::{Chosen, Cx, Dialect, Error, ErrorKind, OP, Result, Wish, first_chatting, make};
    use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};
    use zo_traits::ModelInfo;

    /// How long all of them have together.
    const PATIENCE: Duration = Duration::from_millis(150);

    type Listed<'a> = Pin<Box<dyn Future<Output = Option<ModelInfo>> + Send + 'a>>;

    pub(super) async fn local(cx: &Cx, wish: &Wish) -> Result<Option<Chosen>> {
        let rows = ["ollama", "lmstudio", "llamacpp"].into_iter().filter_map(Dialect::named);
        at(cx, wish, &rows.map(|row| (row, row.base_url.to_owned())).collect::<Vec<_>>()).await
    }

    /// As [`local`], at these addresses.
    pub(super) async fn at(
        cx: &Cx,
        wish: &Wish,
        at: &[(&'static Dialect, String)],
    ) -> Result<Option<Chosen>> {
        let short = cx.child().with_timeout(PATIENCE);
        let mut asked: Vec<(Option<Option<ModelInfo>>, Listed<'_>)> = Vec::new();
        for (row, base) in at {
            let provider = make::provider(row, None, Some(base.clone()), "")?;
            let short = short.clone();
            let ask = async move { first_chatting(provider.models(&short).await.ok()?) };
            asked.push((None, Box::pin(ask)));
        }
        // All run at once; as soon as the first in order is known to have a model, the others do not matter.
        let first = poll_fn(|task| {
            for (known, ask) in asked.iter_mut().filter(|(known, _)| known.is_none()) {
                if let Poll::Ready(model) = ask.as_mut().poll(task) {
                    *known = Some(model);
                }
            }
            for (n, (known, _)) in asked.iter().enumerate() {
                match known {
                    None => return Poll::Pending,
                    Some(Some(model)) => return Poll::Ready(Some((n, model.clone()))),
                    Some(None) => {}
                }
            }
            Poll::Ready(None)
        })
        .await;
        cx.check(OP)?;
        let Some((row, base, model)) = first.and_then(|(n, m)| at.get(n).map(|(row, base)| (row, base, m)))
        else {
            return Ok(None);
        };
        let model = wish.model.clone().unwrap_or(model.id);
        let why = format!(
            "{} on this machine: no key is in the environment, and it answers{}",
            row.id,
            wish.words()
        );
        let provider = make::provider(row, None, Some(base.clone()), &model)?;
        Ok(Some(Chosen { provider, model, why }))
    }

    pub(super) async fn named(cx: &Cx, row: &'static Dialect, wish: &Wish) -> Result<Chosen> {
        let provider = make::provider(row, None, None, wish.model.as_deref().unwrap_or_default())?;
        let patient = cx.child().with_timeout(Duration::from_secs(2));
        let listed = provider.models(&patient).await.map_err(|e| {
            cx.check(OP).err().unwrap_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    OP,
                    format_args!(
                        "ZO_PROVIDER is {}, but nothing useful answers at {} ({}). Start it, or unset ZO_PROVIDER.",
                        row.id,
                        row.base_url,
                        e.message()
                    ),
                )
            })
        })?;
        let model = wish.model.clone().or_else(|| first_chatting(listed).map(|m| m.id)).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                OP,
                format_args!("ZO_PROVIDER is {}, but it has no model to talk to. Load one there.", row.id),
            )
        })?;
        let why = format!("{} on this machine: ZO_PROVIDER names it{}", row.id, wish.words());
        Ok(Chosen { provider: make::provider(row, None, None, &model)?, model, why })
    }
}

#[cfg(not(feature = "openai"))]
mod probe {
    use super::{Chosen, Cx, Dialect, Result, Wish, make};

    pub(super) async fn local(_: &Cx, _: &Wish) -> Result<Option<Chosen>> {
        Ok(None)
    }

    pub(super) async fn named(_: &Cx, row: &'static Dialect, wish: &Wish) -> Result<Chosen> {
        let model = wish.model.clone().unwrap_or_default();
        Ok(Chosen { provider: make::provider(row, None, None, &model)?, model, why: String::new() })
    }
}

#[cfg(all(test, feature = "openai", feature = "anthropic"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        time::{Duration, Instant},
    };

    async fn pick(set: &[(&str, &str)]) -> Result<Chosen> {
        let set: Vec<(String, String)> = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        from_lookup(&Cx::new("t"), |name| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())).await
    }

    /// A server on this machine that lists one model, after `delay`.
    fn lists(model: &'static str, delay: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (mut socket, mut head) = (socket.unwrap(), [0u8; 4096]);
                let _ = socket.read(&mut head);
                std::thread::sleep(delay);
                let body = format!("{{\"data\":[{{\"id\":\"{model}\"}}]}}");
                let _ = write!(
                    socket,
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        base
    }

    #[tokio::test]
    async fn keys_are_taken_in_order() {
        let all = [("GROQ_API_KEY", "gsk-1"), ("OPENAI_API_KEY", "sk-2"), ("ANTHROPIC_API_KEY", "sk-ant-3")];
        for (n, id) in [(3, "anthropic"), (2, "openai"), (1, "groq")] {
            let c = pick(&all[..n]).await.unwrap();
            assert_eq!((c.provider.id(), c.model.as_str()), (id, Dialect::named(id).unwrap().default_model));
            assert!(c.why.contains(id) && c.why.contains("_API_KEY is set"), "{}", c.why);
            assert!(!format!("{c:?}").contains("sk-"), "{c:?}");
        }
        let c = pick(&[("XAI_API_KEY", "k"), ("ZO_MODEL", "grok-9")]).await.unwrap();
        assert_eq!((c.provider.id(), c.model.as_str()), ("xai", "grok-9"));
        assert!(c.why.contains("ZO_MODEL"), "{}", c.why);
    }

    #[tokio::test]
    async fn explicit_settings_are_honoured_or_refused_never_passed_over() {
        let c =
            pick(&[("ZO_PROVIDER", "groq"), ("OPENAI_API_KEY", "a"), ("GROQ_API_KEY", "b")]).await.unwrap();
        assert_eq!(c.provider.id(), "groq");
        let c = pick(&[("ZO_PROVIDER", "offline"), ("OPENAI_API_KEY", "a")]).await.unwrap();
        assert_eq!(c.provider.id(), "offline");
        let e = pick(&[("ZO_PROVIDER", "groq"), ("OPENAI_API_KEY", "a")]).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unauthorized);
        assert!(e.message().contains("GROQ_API_KEY"), "{e}");
        let e = pick(&[("ZO_PROVIDER", "gork")]).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Invalid && e.message().contains("xai"), "{e}");
        let e = pick(&[("ZO_PROVIDER", "vllm")]).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Unavailable && e.message().contains("127.0.0.1:8000"), "{e}");
        let e = pick(&[("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")]).await.unwrap_err();
        assert!(e.message().contains("OPENAI_BASE_URL"), "{e}");
    }

    #[tokio::test]
    async fn the_official_address_keeps_the_default_model() {
        let official = Dialect::named("openai").unwrap();
        for base in ["https://api.openai.com/v1", "https://api.openai.com/v1/"] {
            let c = pick(&[("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", base)]).await.unwrap();
            assert_eq!(c.model, official.default_model);
        }
        let c = pick(&[("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", "https://other/v1")]).await.unwrap();
        assert_eq!(c.model, "");
    }

    #[tokio::test]
    async fn models_that_do_not_talk_are_not_picked() {
        let many = "nomic-embed-text\"},{\"id\":\"Whisper-1\"},{\"id\":\"gpt-image-1\"},{\"id\":\"qwen3";
        let base = lists(many, Duration::ZERO);
        assert_eq!(pick(&[("OPENAI_BASE_URL", &base)]).await.unwrap().model, "qwen3");
        let e = pick(&[("OPENAI_BASE_URL", &lists("bge-reranker", Duration::ZERO))]).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn an_address_alone_is_a_server_without_a_key() {
        let base = lists("tiny", Duration::ZERO);
        let c = pick(&[("OPENAI_BASE_URL", &base)]).await.unwrap();
        assert_eq!((c.provider.id(), c.model.as_str()), ("openai", "tiny"));
        let c = pick(&[("OPENAI_BASE_URL", "http://127.0.0.1:9/v1"), ("ZO_MODEL", "m")]).await.unwrap();
        assert_eq!(c.model, "m", "a named model needs no asking");
    }

    #[tokio::test]
    async fn probes_run_at_once_and_the_first_in_order_wins() {
        let row = |id| Dialect::named(id).unwrap();
        let (slow, quick) = (Duration::from_millis(60), Duration::ZERO);
        let wish = Wish { model: None };
        let at = [
            (row("ollama"), "http://127.0.0.1:9/v1".to_owned()),
            (row("lmstudio"), lists("second", slow)),
            (row("llamacpp"), lists("third", quick)),
        ];
        let c = probe::at(&Cx::new("t"), &wish, &at).await.unwrap().unwrap();
        assert_eq!((c.provider.id(), c.model.as_str()), ("lmstudio", "second"), "not the quickest");
        assert!(c.why.contains("lmstudio on this machine"), "{}", c.why);
        let late = Duration::from_secs(5);
        let at = [
            (row("ollama"), lists("a", late)),
            (row("lmstudio"), lists("b", late)),
            (row("llamacpp"), lists("c", quick)),
        ];
        let began = Instant::now();
        let c = probe::at(&Cx::new("t"), &wish, &at).await.unwrap().unwrap();
        assert_eq!(c.model, "c");
        let nobody = [(row("ollama"), lists("a", late)), (row("lmstudio"), lists("b", late))];
        assert!(probe::at(&Cx::new("t"), &wish, &nobody).await.unwrap().is_none());
        assert!(began.elapsed() < Duration::from_millis(900), "150 ms each: {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_cancelled_context_picks_nothing() {
        let cx = Cx::new("t");
        cx.cancel().cancel();
        assert_eq!(from_lookup(&cx, |_| None).await.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
