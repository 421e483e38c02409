//! An HTTP client for skills: keys go in on the way out, and do not come back.

use super::{
    Injector,
    inject::{host_of, parse_url},
    name::is_loopback,
};
use crate::{
    Secret, Timeouts,
    http::{tls, transport},
};
use reqwest::{
    Client, Method, Response, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};
use zo_traits::{Cx, Error, ErrorKind, Result};

const OP: &str = "vault.http";
/// Most bytes of an answer.
const MAX_BODY: usize = 8 << 20;

/// Headers that are the client's own: they say where a request goes and where it ends.
const RESERVED: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "accept-encoding",
    "expect",
];

/// A request of a skill. Its headers may hold `{{secret:NAME}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpRequest {
    /// `GET`, `POST`, ...
    pub method: String,
    /// An http or https URL. `{{secret:NAME}}` in it is for keys marked [`in_url`](super::Scope::in_url).
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body; may be empty.
    pub body: Vec<u8>,
    /// Fill keys into the body, too: those marked [`in_body`](super::Scope::in_body). Off by default, since a body often holds
    /// text that somebody else wrote.
    pub fill_body: bool,
}

impl HttpRequest {
    /// A request without headers or body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), ..Self::default() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With `{{secret:NAME}}` in the body filled in.
    #[must_use]
    pub fn fill_body(mut self) -> Self {
        self.fill_body = true;
        self
    }
}

/// An answer, without any known secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpResponse {
    /// HTTP status, also those of failures and redirects.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// Sends requests in which an [`Injector`] has put the keys, and scrubs the answers, so that a service that echoes what it gets
/// hands no key to the model.
///
/// Redirects are not followed: a key goes where it was meant to. Answers of more than 8 MiB, and compressed ones (which were
/// not asked for, and cannot be looked through), are errors. Cheap to clone.
///
/// Dropping a call closes its connection. The HTTP library keeps its own copy of headers and body until they are sent, which is
/// not zeroed.
#[derive(Clone)]
pub struct VaultHttp {
    injector: Injector,
    timeouts: Timeouts,
    max_body: usize,
    clients: Arc<[OnceLock<Client>; 4]>,
}

impl fmt::Debug for VaultHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultHttp").field("injector", &self.injector).finish_non_exhaustive()
    }
}

impl VaultHttp {
    /// A client for the keys of `injector`.
    pub fn new(injector: Injector) -> Self {
        Self { injector, timeouts: Timeouts::default(), max_body: MAX_BODY, clients: Arc::default() }
    }

    /// With other time limits.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        // The limit for connecting is the client's.
        self.clients = Arc::default();
        self
    }

    /// With another limit on answers, in bytes.
    #[must_use]
    pub fn with_max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sends `request` and returns the scrubbed answer, whatever its status.
    ///
    /// # Errors
    /// As [`Injector::headers`]; [`ErrorKind::Invalid`] for what is no request, or one that sets a header that is the client's
    /// own; [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout), [`Cancelled`](ErrorKind::Cancelled);
    /// [`Corrupt`](ErrorKind::Corrupt) for an answer that was cut or is too large; [`Unsupported`](ErrorKind::Unsupported) for
    /// a compressed one.
    pub async fn send(&self, cx: &Cx, request: HttpRequest) -> Result<HttpResponse> {
        cx.check(OP)?;
        let sent = self.start(cx, request).await;
        match sent {
            Ok(response) => self.finish(cx, response).await,
            Err(e) => Err(e),
        }
        .map_err(|e| self.scrub(e))
    }

    async fn start(&self, cx: &Cx, request: HttpRequest) -> Result<Response> {
        let method =
            Method::from_bytes(request.method.as_bytes()).map_err(|_| invalid("the method is none"))?;
        let url = self.injector.url(&request.url)?;
        let url = parse_url(url.expose())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("the URL holds a user name or a password; put it into a header"));
        }
        let host = host_of(&url)?;
        let content_type =
            request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str()));
        let content_type = content_type.map(|(_, value)| value.clone()).unwrap_or_default();
        let headers = headers(self.injector.headers(&host, url.scheme(), request.headers)?)?;
        let body = if request.fill_body {
            let text = std::str::from_utf8(&request.body)
                .map_err(|_| invalid("a body that is no text cannot have secrets filled in"))?;
            self.injector.body(&host, url.scheme(), &content_type, text)?.expose().as_bytes().to_vec()
        } else {
            request.body
        };
        let mut out = self.client(&url)?.request(method, url).headers(headers);
        if !body.is_empty() {
            out = out.body(body);
        }
        let wait = self.timeouts.first_byte;
        match limited(cx, wait, out.send()).await? {
            Some(sent) => sent.map_err(|e| transport(OP, e)),
            None => Err(Error::new(ErrorKind::Timeout, OP, format_args!("no answer within {wait:?}"))),
        }
    }

    async fn finish(&self, cx: &Cx, mut response: Response) -> Result<HttpResponse> {
        if response
            .headers()
            .get_all(CONTENT_ENCODING)
            .iter()
            .any(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                OP,
                "the answer is compressed, though it should not be, and cannot be searched for secrets",
            ));
        }
        let leaks = self.injector.leaks();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                (leaks.scrub(name.as_str()).into_owned(), leaks.scrub(&value).into_owned())
            })
            .collect();
        let mut body = Vec::new();
        let wait = self.timeouts.idle;
        loop {
            let piece = limited(cx, wait, response.chunk()).await?.ok_or_else(|| {
                Error::new(ErrorKind::Timeout, OP, format_args!("the answer fell silent for {wait:?}"))
            })?;
            let cut = |e| {
                Error::new(
                    ErrorKind::Corrupt,
                    OP,
                    format_args!("the answer was cut: {}", transport(OP, e).message()),
                )
            };
            let Some(piece) = piece.map_err(cut)? else { break };
            if piece.len() > self.max_body.saturating_sub(body.len()) {
                let most = self.max_body;
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    OP,
                    format_args!("the answer is larger than {most} bytes"),
                ));
            }
            body.extend_from_slice(&piece);
        }
        let body = match leaks.scrub_bytes(&body) {
            std::borrow::Cow::Borrowed(_) => body,
            std::borrow::Cow::Owned(clean) => clean,
        };
        Ok(HttpResponse { status: response.status().as_u16(), headers, body })
    }

    fn client(&self, url: &Url) -> Result<&Client> {
        let (secure, local) = (url.scheme() == "https", url.host_str().is_some_and(is_loopback));
        let [plain, tls, local_plain, local_tls] = &*self.clients;
        let slot = match (secure, local) {
            (false, false) => plain,
            (true, false) => tls,
            (false, true) => local_plain,
            (true, true) => local_tls,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::config(secure)?)
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.timeouts.connect)
            .user_agent(concat!("zo/", env!("CARGO_PKG_VERSION")));
        if local {
            // A proxy cannot know this machine's own ports.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| transport(OP, e))?;
        Ok(slot.get_or_init(|| client))
    }

    /// The same error without any secret in its words.
    fn scrub(&self, e: Error) -> Error {
        match self.injector.leaks().scrub(e.message()) {
            std::borrow::Cow::Borrowed(_) => e,
            std::borrow::Cow::Owned(clean) => Error::new(e.kind(), e.op(), clean),
        }
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::Invalid, OP, what).with_model_text(what)
}

fn headers(filled: Vec<(String, Secret)>) -> Result<HeaderMap> {
    let mut out = HeaderMap::with_capacity(filled.len());
    for (name, value) in filled {
        let bad = |what: &str| invalid(&format!("{what}: {:?}", name.chars().take(64).collect::<String>()));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("no name of a header"))?;
        if RESERVED.contains(&header.as_str()) {
            return Err(bad("this header is the client's own"));
        }
        let mut value = HeaderValue::from_str(value.expose())
            .map_err(|_| bad("characters that no header can hold (a line end?) in the value of"))?;
        value.set_sensitive(true);
        out.append(header, value);
    }
    Ok(out)
}

/// `work` under the caller's context, for `limit` at most by the caller's clock; `None` when that has passed.
async fn limited<F: Future>(cx: &Cx, limit: Duration, work: F) -> Result<Option<F::Output>> {
    let mut work = pin!(work);
    let mut timer = cx.clock().sleep(limit);
    cx.race(
        OP,
        std::future::poll_fn(|task| {
            if let Poll::Ready(done) = work.as_mut().poll(task) {
                return Poll::Ready(Some(done));
            }
            timer.as_mut().poll(task).map(|()| None)
        }),
    )
    .await
}
