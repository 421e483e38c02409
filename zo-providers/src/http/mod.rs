//! HTTP for the providers: one connection pool each, time limits on the caller's clock, and the key, which is put in at
//! the last moment as a sensitive header.
//!
//! Promises: no URL and no key in any error; redirects are not followed, so a key goes nowhere but where it was meant to;
//! dropping a call or a stream closes its connection; an answer read to its end leaves the connection for the next.

mod stream;
pub(crate) mod tls;

use crate::{
    Secret,
    layer::{Headroom, HeadroomSink},
    wire::{Codec, Decoder, fault},
};
use bytes::Bytes;
use reqwest::{
    Body, Client, Method, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use std::{
    collections::VecDeque,
    error::Error as _,
    fmt,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};
use stream::{EventStream, Reader};
use zo_traits::{BoxStream, Cx, Error, ErrorKind, Result, StreamEvent, stream_of};

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection, TLS included. Measured by the machine's clock, whatever the caller's. 10 s.
    pub connect: Duration,
    /// From the start of the call to the first byte of the answer's body. 60 s; 600 s for servers that run models locally
    /// ([`Dialect::is_local`](crate::Dialect::is_local) rows) or stand at a loopback address, which may load the model first
    /// and read the prompt without a graphics card.
    pub first_byte: Duration,
    /// Between two pieces of the answer; keep-alive comments and pings count as pieces. 180 s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(180),
        }
    }
}

impl Timeouts {
    /// For servers that run models locally.
    pub(crate) const LOCAL: Self = Self {
        connect: Duration::from_secs(10),
        first_byte: Duration::from_secs(600),
        idle: Duration::from_secs(180),
    };
}

/// Most bytes of one answer, streamed or whole.
const MAX_BODY: usize = 64 << 20;
/// How much of an error's body is read, in bytes.
const MAX_ERROR: usize = 64 << 10;

/// What hyper calls a connection that ended before the first byte of an answer.
const STALE: &str = "connection closed before message completed";
/// How soon that must be to be the fault of a connection that was kept too long.
const STALE_WITHIN: Duration = Duration::from_millis(250);

/// One API: an address, a key, a pool.
pub(crate) struct Http {
    pub(crate) base: String,
    pub(crate) key: Option<Secret>,
    pub(crate) timeouts: Timeouts,
    /// The header that carries the key; `authorization` carries it as a bearer token.
    key_header: String,
    headers: Vec<Header>,
    client: OnceLock<Client>,
    /// What every request carries.
    head: OnceLock<HeaderMap>,
    /// Connections that were left for others, as far as can be seen from here.
    kept: Arc<AtomicUsize>,
    /// The path that was asked for first, mostly the only one, and its address.
    url: OnceLock<(Box<str>, Url)>,
}

/// One call of the API.
struct Call<'c> {
    op: &'static str,
    method: Method,
    path: &'c str,
    body: Option<Bytes>,
    timeouts: Timeouts,
}

/// A body whose connection is kept for others once it is read to its end.
pub(crate) struct Kept {
    body: Body,
    kept: Arc<AtomicUsize>,
}

/// A header on every request.
struct Header {
    name: String,
    value: Secret,
    /// It stands in a public table.
    plain: bool,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The base URL may hold a password; the host is enough to tell instances apart.
        let host = Url::parse(&self.base).ok().and_then(|u| u.host_str().map(str::to_owned));
        f.debug_struct("Http").field("host", &host).field("timeouts", &self.timeouts).finish_non_exhaustive()
    }
}

impl Http {
    pub(crate) fn new(base: &str, key_header: &str, key: Option<Secret>) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            key: key.filter(|k| !k.is_empty()),
            timeouts: Timeouts::default(),
            key_header: key_header.to_owned(),
            headers: Vec::new(),
            client: OnceLock::new(),
            head: OnceLock::new(),
            kept: Arc::default(),
            url: OnceLock::new(),
        }
    }

    /// Changes the set-up; the pool is made anew.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        self.client = OnceLock::new();
        self.url = OnceLock::new();
        self.head = OnceLock::new();
        self.kept = Arc::default();
        change(&mut self);
        self
    }

    pub(crate) fn set_base(&mut self, base: &str) {
        base.trim_end_matches('/').clone_into(&mut self.base);
    }

    /// Is the server on this machine?
    pub(crate) fn is_loopback(&self) -> bool {
        Url::parse(&self.base).is_ok_and(|url| is_loopback(&url))
    }

    pub(crate) fn add_header(&mut self, name: &str, value: Secret) {
        self.headers.push(Header { name: name.to_owned(), value, plain: false });
    }

    pub(crate) fn add_plain_header(&mut self, name: &str, value: &str) {
        self.headers.push(Header { name: name.to_owned(), value: Secret::new(value), plain: true });
    }

    /// Posts a body and returns the events of the answer. What fails before the first piece of content is an `Err` of this
    /// call, so that it may be retried. An answer that was asked for `whole` comes at its end: it has the longer of the time
    /// limits. `codec` is made after the head of the answer is there.
    pub(crate) async fn events<C: Codec + Unpin + 'static>(
        &self,
        cx: &Cx,
        path: &str,
        body: Vec<u8>,
        whole: bool,
        codec: impl FnOnce(&HeaderMap) -> C,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        const OP: &str = "provider.stream";
        let mut timeouts = self.timeouts;
        if whole {
            timeouts.first_byte = timeouts.first_byte.max(timeouts.idle);
        }
        let asked = cx.clock().monotonic();
        let call = Call { op: OP, method: Method::POST, path, body: Some(body.into()), timeouts };
        let response = self.send(cx, &call).await?;
        let head = response.headers();
        let json = head.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(is_one_json);
        let mut decoder = Decoder::new(codec(head));
        let reader = Reader::new(cx, OP, timeouts, asked, self.body_of(response));
        if json {
            let (bytes, whole) = reader.collect(MAX_BODY).await?;
            if !whole {
                return Err(too_large(OP));
            }
            let mut events = VecDeque::new();
            let failed = decoder.whole(&bytes, &mut events).err().map(|e| self.scrub(e));
            return match failed {
                // What was readable is not lost.
                Some(e) if !events.iter().any(stream::is_content) => Err(e),
                failed => {
                    let items: Vec<_> = events.into_iter().map(Ok).chain(failed.map(Err)).collect();
                    Ok(stream_of(items))
                }
            };
        }
        let mut stream = EventStream::new(reader, decoder, self.secrets());
        stream.begin().await?;
        Ok(Box::pin(stream))
    }

    /// Gets a JSON text and reads it. What `read` quotes of it in an error holds no secret.
    pub(crate) async fn get<T>(
        &self,
        cx: &Cx,
        op: &'static str,
        path: &str,
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        read(&self.whole(cx, op, Method::GET, path, None).await?).map_err(|e| self.scrub(e))
    }

    /// Posts a body and reads the JSON text of the answer, as [`get`](Http::get) does.
    pub(crate) async fn post<T>(
        &self,
        cx: &Cx,
        op: &'static str,
        path: &str,
        body: Vec<u8>,
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        read(&self.whole(cx, op, Method::POST, path, Some(body)).await?).map_err(|e| self.scrub(e))
    }

    async fn whole(
        &self,
        cx: &Cx,
        op: &'static str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let asked = cx.clock().monotonic();
        let call = Call { op, method, path, body: body.map(Bytes::from), timeouts: self.timeouts };
        let response = self.send(cx, &call).await?;
        let (bytes, whole) =
            Reader::new(cx, op, self.timeouts, asked, self.body_of(response)).collect(MAX_BODY).await?;
        if whole { Ok(bytes) } else { Err(too_large(op)) }
    }

    async fn send(&self, cx: &Cx, call: &Call<'_>) -> Result<Response> {
        let began = cx.clock().monotonic();
        // Mostly the connection that an answer was read from to its end.
        let reused = self.kept.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok();
        match self.send_once(cx, call).await {
            // A connection that was kept for reuse and that the server gave up at the same moment. The request came to
            // nothing, or the server would have been slower to say so.
            Err(e)
                if reused
                    && e.kind() == ErrorKind::Unavailable
                    && e.message().contains(STALE)
                    && cx.clock().monotonic().saturating_sub(began) < STALE_WITHIN =>
            {
                self.send_once(cx, call).await
            }
            done => done,
        }
    }

    fn body_of(&self, response: Response) -> Kept {
        Kept { body: reqwest::Body::from(response), kept: self.kept.clone() }
    }

    fn url(&self, op: &'static str, path: &str) -> Result<Url> {
        if let Some((known, url)) = self.url.get()
            && **known == *path
        {
            return Ok(url.clone());
        }
        let url = join(&self.base, path).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, op, "the base URL is no http or https URL, or has a fragment")
        })?;
        // Another path may have been first: then this one is joined each time.
        let _ = self.url.set((path.into(), url.clone()));
        Ok(url)
    }

    async fn send_once(&self, cx: &Cx, call: &Call<'_>) -> Result<Response> {
        let Call { op, method, path, body, timeouts } = call;
        let op = *op;
        cx.check(op)?;
        let url = self.url(op, path)?;
        let asked = cx.clock().monotonic();
        let mut head = self.head(op)?;
        if body.is_some() {
            head.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        }
        let client = self.client(&url)?;
        let mut request = reqwest::Request::new(method.clone(), url);
        *request.headers_mut() = head;
        *request.body_mut() = body.clone().map(Body::from);
        let mut work = pin!(client.execute(request));
        let mut limit = cx.clock().sleep(timeouts.first_byte);
        let sent = cx
            .race(
                op,
                std::future::poll_fn(|task| {
                    if let Poll::Ready(done) = work.as_mut().poll(task) {
                        return Poll::Ready(Some(done));
                    }
                    limit.as_mut().poll(task).map(|()| None)
                }),
            )
            .await?;
        let response = match sent {
            None => return Err(stream::no_first_byte(op, timeouts.first_byte)),
            Some(Err(e)) => return Err(self.scrub(transport(op, e))),
            Some(Ok(response)) => response,
        };
        if let Some(sink) = cx.get::<HeadroomSink>()
            && let Some(headroom) = Headroom::read(|name| text_of(response.headers(), name), cx.clock().now())
        {
            sink.tell(&headroom);
        }
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let reader = Reader::new(cx, op, *timeouts, asked, self.body_of(response));
        let body = match reader.collect(MAX_ERROR).await {
            Ok((body, _)) => body,
            // Cancelled while reading is cancelled; anything else must not hide the status.
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(_) => Vec::new(),
        };
        let mut fault = fault::classify(
            status,
            |name| text_of(&headers, name),
            // Before anything is cut to a length: half a key is a secret, too.
            &blot(&self.secrets(), String::from_utf8_lossy(&body).into_owned()),
            cx.clock().now(),
        );
        if (300..400).contains(&status) {
            fault.message = "the server redirects; redirects are not followed, correct the base URL".into();
        }
        Err(self.scrub(fault.into_error(op)))
    }

    /// What every request carries. Built once: the key is copied once, not with every call.
    fn head(&self, op: &'static str) -> Result<HeaderMap> {
        if let Some(head) = self.head.get() {
            return Ok(head.clone());
        }
        let head = self.build_head(op)?;
        Ok(self.head.get_or_init(|| head).clone())
    }

    fn build_head(&self, op: &'static str) -> Result<HeaderMap> {
        let mut out = HeaderMap::with_capacity(self.headers.len() + 4);
        let mut put = |name: HeaderName, text: &str, what: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| {
                Error::new(
                    ErrorKind::Invalid,
                    op,
                    format_args!("{what} has characters that no header can hold (a line end, quotes of a word processor?)"),
                )
            })?;
            value.set_sensitive(true);
            out.insert(name, value);
            Ok::<_, Error>(())
        };
        if let Some(key) = &self.key {
            if self.key_header.eq_ignore_ascii_case("authorization") {
                let bearer = zeroize::Zeroizing::new(format!("Bearer {}", key.expose()));
                put(AUTHORIZATION, &bearer, "the key")?;
            } else {
                put(header_name(op, &self.key_header)?, key.expose(), "the key")?;
            }
        }
        for Header { name, value, .. } in &self.headers {
            put(header_name(op, name)?, value.expose(), name)?;
        }
        Ok(out)
    }

    fn client(&self, url: &Url) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::config(url.scheme() == "https")?)
            .redirect(redirect::Policy::none())
            // Its repeats are for HTTP/2, and for them it copies each request beforehand.
            .retry(reqwest::retry::never().max_retries_per_request(0))
            .connect_timeout(self.timeouts.connect)
            .user_agent(concat!("zo/", env!("CARGO_PKG_VERSION")));
        if is_loopback(url) {
            // A proxy cannot know this machine's own ports.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| transport("provider.connect", e))?;
        Ok(self.client.get_or_init(|| client))
    }

    fn secrets(&self) -> Vec<Secret> {
        let headers = self.headers.iter().filter(|h| !h.plain).map(|h| &h.value);
        self.key.iter().chain(headers).cloned().collect()
    }

    fn scrub(&self, e: Error) -> Error {
        scrub(&self.secrets(), e)
    }
}

/// The same error without any secret in its words.
fn scrub(secrets: &[Secret], e: Error) -> Error {
    let clean = blot(secrets, e.message().to_owned());
    if clean == e.message() {
        return e;
    }
    let out = Error::new(e.kind(), e.op(), clean);
    match e.retry_after() {
        Some(wait) => out.with_retry_after(wait),
        None => out,
    }
}

fn blot(secrets: &[Secret], text: String) -> String {
    secrets.iter().fold(text, |text, secret| secret.scrub(text))
}

fn header_name(op: &'static str, name: &str) -> Result<HeaderName> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Error::new(ErrorKind::Invalid, op, format_args!("{name:?} is no name of a header")))
}

/// The text of a header.
fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Is the body one JSON text, by its content type? Lines of JSON are many.
fn is_one_json(content_type: &str) -> bool {
    match content_type {
        "application/json" => return true,
        "text/event-stream" => return false,
        _ => {}
    }
    let kind = content_type.to_ascii_lowercase();
    kind.contains("json")
        && !["ndjson", "jsonl", "json-seq", "jsonlines"].iter().any(|many| kind.contains(many))
}

/// The address of `path` below `base`, whose query stays at the end.
fn join(base: &str, path: &str) -> Option<Url> {
    let (address, query) = base.split_once('?').map_or((base, None), |(a, q)| (a, Some(q)));
    let mut url = Url::parse(&format!("{}{path}", address.trim_end_matches('/'))).ok()?;
    if let Some(query) = query.filter(|q| !q.is_empty()) {
        let all = url.query().map_or_else(|| query.to_owned(), |own| format!("{own}&{query}"));
        url.set_query(Some(&all));
    }
    (matches!(url.scheme(), "http" | "https") && !base.contains('#')).then_some(url)
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|h| {
        h == "localhost"
            || h.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

fn too_large(op: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, op, format_args!("the answer is larger than {MAX_BODY} bytes"))
}

/// A failure below HTTP, in words: what happened and its causes, never the URL.
pub(crate) fn transport(op: &'static str, e: reqwest::Error) -> Error {
    let kind = if e.is_timeout() {
        ErrorKind::Timeout
    } else if e.is_builder() {
        ErrorKind::Invalid
    } else {
        ErrorKind::Unavailable
    };
    let e = e.without_url();
    let (mut words, mut cause) = (e.to_string(), e.source());
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = inner.source();
    }
    Error::new(kind, op, words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_the_base_stays_at_the_end() {
        let of = |base: &str, path: &str| join(base, path).map(|u| u.to_string());
        for (base, path, want) in [
            ("http://h/v1", "/models?limit=1", "http://h/v1/models?limit=1"),
            ("http://h/v1/?api-version=2", "/chat", "http://h/v1/chat?api-version=2"),
            ("http://h/v1?a=1", "/models?limit=1", "http://h/v1/models?limit=1&a=1"),
        ] {
            assert_eq!(of(base, path).unwrap(), want);
        }
        assert!(of("http://h/v1#x", "/chat").is_none() && of("ftp://h", "/chat").is_none());
    }
}
