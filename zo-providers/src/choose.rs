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
/// 3. A server on this machine: Ollama at port 11434 (or at `OLLAMA_HOST`), LM Studio at 1234, llama.cpp at 8080. All are asked at once and
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
    pick(cx, lookup, |_| false).await
}

/// `kept` says of a variable that it is none, but a key in the vault.
async fn pick(
    cx: &Cx,
    lookup: impl Fn(&str) -> Option<String> + Send,
    kept: impl Fn(&str) -> bool + Send,
) -> Result<Chosen> {
    cx.check(OP)?;
    let set = |name: &str| lookup(name).and_then(trimmed);
    let wish = Wish { model: set("ZO_MODEL") };
    if let Some(name) = set("ZO_PROVIDER") {
        return explicit(cx, &name, &wish, &set).await;
    }
    for row in crate::DIALECTS.iter().filter(|row| !row.by_name_only && !row.is_local()) {
        let (key, base) = (env(&set, &row.key_env), env(&set, &row.base_env));
        match (key, base) {
            // A key to a place that nobody named opens nothing.
            (Some(_), None) if row.base_url.is_empty() => {}
            (Some(key), base) => {
                let from = match kept(&row.key_env) {
                    true => "its key is in the vault".to_owned(),
                    false => format!("{} is set", row.key_env),
                };
                return hosted(row, Some(key), base, &wish, &from);
            }
            (None, Some(base)) if row.id == "openai" => return keyless(cx, row, &base, &wish).await,
            _ => {}
        }
    }
    if let Some(found) = probe::local(cx, &wish, set("OLLAMA_HOST").map(local_address)).await? {
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

/// As [`from_env`], and where the environment has no key, the keys of `user` in `vault` are looked at, by the id of the
/// provider and without a name of their own. Reading a vault is a matter of microseconds once it is open.
///
/// # Errors
/// As [`from_env`]; as [`Vault::get`](crate::Vault::get) when the vault cannot be read.
#[cfg(feature = "vault")]
pub async fn from_env_and_vault(cx: &Cx, vault: &crate::Vault, user: &str) -> Result<Chosen> {
    let keys = keys(vault, user)?;
    let set = |name: &str| std::env::var(name).ok().and_then(trimmed);
    let lookup = |name: &str| set(name).or_else(|| Some(keys.get(name)?.expose().to_owned()));
    pick(cx, lookup, |name| keys.contains_key(name) && set(name).is_none()).await
}

/// The keys of `user` by the variables that would hold them.
#[cfg(feature = "vault")]
fn keys(vault: &crate::Vault, user: &str) -> Result<std::collections::HashMap<&'static str, crate::Secret>> {
    let mut have = vault.list(Some(user))?;
    have.retain(|info| info.key.name().is_empty());
    let mut keys = std::collections::HashMap::new();
    // In the order of the rows: of two that share a variable, the first gives it its name.
    for row in crate::DIALECTS.iter().filter(|row| !row.key_env.is_empty()) {
        if let Some(info) = have.iter().find(|info| info.key.provider() == row.id)
            && !keys.contains_key(row.key_env.as_str())
        {
            keys.insert(row.key_env.as_str(), vault.get(&info.key)?);
        }
    }
    Ok(keys)
}

/// A value without white space around it, in the same memory: it may be a key, and each copy is one more.
fn trimmed(mut value: String) -> Option<String> {
    value.truncate(value.trim_end().len());
    let blank = value.len() - value.trim_start().len();
    value.drain(..blank);
    (!value.is_empty()).then_some(value)
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

/// `OLLAMA_HOST` as its own programs read it: the scheme, the host and the port may be missing, an IPv6 address may stand there
/// without brackets, a path may follow. Where it listens to everybody it is found on this machine.
fn local_address(address: String) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("http", &address));
    let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (login, place) = place.split_at(place.rfind('@').map_or(0, |at| at + 1));
    let (host, port) = match place.rsplit_once(':') {
        _ if place.parse::<std::net::Ipv6Addr>().is_ok() => (format!("[{place}]"), ""),
        Some((host, port)) if !port.contains(']') => (host.to_owned(), port),
        _ => (place.to_owned(), ""),
    };
    let host = match &*host {
        "" | "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    let port = match port {
        "" if address.contains("://") => String::new(),
        "" => ":11434".to_owned(),
        port => format!(":{port}"),
    };
    format!("{scheme}://{login}{host}{port}{}", path.trim_end_matches('/'))
}

/// An address as it may be shown: without a login and what is asked of it.
#[cfg(feature = "http")]
fn shown(address: &str) -> String {
    let address = address.split('?').next().unwrap_or_default();
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = place.rsplit('@').next().unwrap_or_default();
    format!("{scheme}{}{host}{path}", if scheme.is_empty() { "" } else { "://" })
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
        let known: Vec<_> = crate::DIALECTS.iter().map(|d| d.id.as_str()).collect();
        return Err(Error::new(
            ErrorKind::Invalid,
            OP,
            format_args!(
                "ZO_PROVIDER is {name:?}, which is unknown. Known are offline, {}.",
                known.join(", ")
            ),
        ));
    };
    let base = env(set, &row.base_env);
    if row.is_local() {
        return probe::named(cx, row, base.map(local_address), wish).await;
    }
    match (env(set, &row.key_env), base) {
        (Some(key), base) => hosted(row, Some(key), base, wish, "ZO_PROVIDER names it"),
        (None, Some(base)) if is_openai(row) => keyless(cx, row, &base, wish).await,
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

/// OpenAI, over either of its wires.
fn is_openai(row: &Dialect) -> bool {
    row.base_env == "OPENAI_BASE_URL"
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
        Some(base) if is_openai(row) && base.trim_end_matches('/') != row.base_url => String::new(),
        _ => row.default_model.clone(),
    });
    if base.is_none() && row.base_url.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            OP,
            format_args!("{} has no address of its own: set {} ({})", row.id, row.base_env, row.note),
        ));
    }
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
    use super::{Arc, Dialect, Provider, Result};

    #[cfg(feature = "http")]
    pub(super) fn provider(
        row: &'static Dialect,
        key: Option<String>,
        base: Option<String>,
        model: &str,
    ) -> Result<Arc<dyn Provider>> {
        let made = crate::Remote::new(row, key.map(crate::Secret::new)).default_model(model);
        Ok(Arc::new(match base {
            Some(base) => made.base_url(&base),
            None => made,
        }))
    }

    #[cfg(not(feature = "http"))]
    pub(super) fn provider(
        row: &'static Dialect,
        _: Option<String>,
        _: Option<String>,
        _: &str,
    ) -> Result<Arc<dyn Provider>> {
        use super::{Error, ErrorKind, OP};
        let why =
            format_args!("{} is asked for, but zo-providers was built without its feature `http`", row.id);
        Err(Error::new(ErrorKind::Unsupported, OP, why))
    }
}

/// Looks for model servers on this machine.
#[cfg(feature = "http")]
mod probe {
    use super::{Chosen, Cx, Dialect, Error, ErrorKind, OP, Result, Wish, first_chatting, make};
    use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};
    use zo_traits::ModelInfo;

    /// How long all of them have together.
    const PATIENCE: Duration = Duration::from_millis(150);

    type Listed<'a> = Pin<Box<dyn Future<Output = Option<ModelInfo>> + Send + 'a>>;

    pub(super) async fn local(cx: &Cx, wish: &Wish, ollama: Option<String>) -> Result<Option<Chosen>> {
        let rows = ["ollama", "lmstudio", "llamacpp"].into_iter().filter_map(Dialect::named);
        let places = rows.map(|row| match &ollama {
            Some(base) if row.id == "ollama" => (row, base.clone()),
            _ => (row, row.base_url.clone()),
        });
        at(cx, wish, &places.collect::<Vec<_>>()).await
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

    pub(super) async fn named(
        cx: &Cx,
        row: &'static Dialect,
        base: Option<String>,
        wish: &Wish,
    ) -> Result<Chosen> {
        let address = base.as_deref().unwrap_or(&row.base_url);
        let model = wish.model.as_deref().unwrap_or_default();
        let provider = make::provider(row, None, base.clone(), model)?;
        let patient = cx.child().with_timeout(Duration::from_secs(2));
        let listed = provider.models(&patient).await.map_err(|e| {
            cx.check(OP).err().unwrap_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    OP,
                    format_args!(
                        "ZO_PROVIDER is {}, but nothing useful answers at {} ({}). Start it, or unset ZO_PROVIDER.",
                        row.id,
                        super::shown(address),
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
        Ok(Chosen { provider: make::provider(row, None, base, &model)?, model, why })
    }
}

#[cfg(not(feature = "http"))]
mod probe {
    use super::{Chosen, Cx, Dialect, Result, Wish, make};

    pub(super) async fn local(_: &Cx, _: &Wish, _: Option<String>) -> Result<Option<Chosen>> {
        Ok(None)
    }

    pub(super) async fn named(
        _: &Cx,
        row: &'static Dialect,
        base: Option<String>,
        wish: &Wish,
    ) -> Result<Chosen> {
        let model = wish.model.clone().unwrap_or_default();
        Ok(Chosen { provider: make::provider(row, None, base, &model)?, model, why: String::new() })
    }
}

#[cfg(all(test, feature = "http"))]
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
            assert_eq!(
                (c.provider.id(), c.model.as_str()),
                (id, &*Dialect::named(id).unwrap().default_model)
            );
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

    #[test]
    fn ollama_stands_where_its_own_programs_look_for_it() {
        for (host, want) in [
            ("", "http://127.0.0.1:11434"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            (":11500", "http://127.0.0.1:11500"),
            ("box", "http://box:11434"),
            ("box/ollama/", "http://box:11434/ollama"),
            ("box:80/ollama", "http://box:80/ollama"),
            ("::1", "http://[::1]:11434"),
            ("[::1]", "http://[::1]:11434"),
            ("[::]:99", "http://[::1]:99"),
            ("::", "http://[::1]:11434"),
            ("fe80::7/x", "http://[fe80::7]:11434/x"),
            ("https://box/", "https://box"),
            ("https://me:pw@box:1/a", "https://me:pw@box:1/a"),
            ("http://[::]:1", "http://[::1]:1"),
        ] {
            assert_eq!(local_address(host.into()), want, "{host}");
        }
    }

    #[tokio::test]
    async fn an_address_is_told_without_its_password() {
        let set = [("ZO_PROVIDER", "ollama"), ("OLLAMA_HOST", "http://me:hunter2@127.0.0.1:9/a?t=hunter2")];
        let e = pick(&set).await.unwrap_err();
        assert!(e.message().contains("at http://127.0.0.1:9/a (") && !e.message().contains("hunter2"), "{e}");
    }

    #[tokio::test]
    async fn the_address_counts_for_both_wires_of_openai() {
        let base = lists("tiny", Duration::ZERO);
        let c = pick(&[("ZO_PROVIDER", "openai-responses"), ("OPENAI_BASE_URL", &base)]).await.unwrap();
        assert_eq!((c.provider.id(), c.model.as_str()), ("openai-responses", "tiny"));
        let set = [("ZO_PROVIDER", "openai-responses"), ("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", &base)];
        let c = pick(&set).await.unwrap();
        assert!(c.model.is_empty() && c.why.contains("OPENAI_BASE_URL"), "{}", c.why);
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

    #[cfg(feature = "vault")]
    #[tokio::test]
    async fn a_key_from_the_vault_is_called_one_and_is_the_providers_own() {
        use crate::{KeyName, Scope, Secret, Unlock, Vault};
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::create(dir.path().join("v"), &Unlock::Key(Unlock::random_key().unwrap())).unwrap();
        for (name, value) in [
            (KeyName::new("alice", "openai-responses"), "sk-responses"),
            (KeyName::new("alice", "openai"), "sk-chat"),
            (KeyName::new("alice", "openai").named("work"), "sk-work"),
            (KeyName::new("bob", "anthropic"), "sk-ant-bob"),
        ] {
            vault.put(&name, &Secret::new(value), &Scope::default()).unwrap();
        }
        let keys = keys(&vault, "alice").unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys.get("OPENAI_API_KEY").unwrap().expose(), "sk-chat");
        let lookup = |name: &str| Some(keys.get(name)?.expose().to_owned());
        let c = super::pick(&Cx::new("t"), lookup, |name| keys.contains_key(name)).await.unwrap();
        assert_eq!(c.provider.id(), "openai");
        assert!(c.why.contains("vault") && !c.why.contains("OPENAI_API_KEY is set"), "{}", c.why);
        assert_eq!(trimmed("\n a b\t ".into()).as_deref(), Some("a b"));
        assert_eq!(trimmed(" \n".into()), None);
    }

    #[tokio::test]
    async fn a_cancelled_context_picks_nothing() {
        let cx = Cx::new("t");
        cx.cancel().cancel();
        assert_eq!(from_lookup(&cx, |_| None).await.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
