//! A raw HTTP/1.1 server for tests: real sockets, answers cut into pieces of any size.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What to answer.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Sizes of the pieces, in turn.
    pub pieces: Vec<usize>,
    /// After this many bytes of body: what to do instead of going on.
    pub then: Option<(usize, Then)>,
    /// Wait before the head.
    pub delay: Duration,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Then {
    /// Close the connection.
    Close,
    /// Keep it open and say nothing.
    Silence,
    /// Wait 20 ms, send so many bytes more, then keep it open and say nothing.
    Late(usize),
    /// A keep-alive comment every 20 ms, this many times, and then the rest.
    Pings(usize),
}

impl Answer {
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("content-type".into(), kind.into())],
            body: body.into(),
            pieces: vec![usize::MAX],
            then: None,
            delay: Duration::ZERO,
        }
    }

    pub fn sse(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "text/event-stream", body)
    }

    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "application/json", body)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn pieces(mut self, sizes: &[usize]) -> Self {
        self.pieces = sizes.to_vec();
        self
    }

    /// Closes the connection instead of answering.
    pub fn hang_up(mut self) -> Self {
        self.status = 0;
        self
    }

    pub fn then(mut self, after: usize, then: Then) -> Self {
        self.then = Some((after, then));
        self
    }
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub head: String,
    pub body: Vec<u8>,
}

/// The server. It ends with the runtime that it was started on.
pub struct Server {
    pub base: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections accepted so far.
    pub accepted: Arc<AtomicUsize>,
    /// Connections whose other side hung up.
    pub closed: Arc<AtomicUsize>,
}

type Rule = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

impl Server {
    /// Answers every request alike.
    pub async fn always(answer: Answer) -> Self {
        Self::by(move |_| Some(answer.clone())).await
    }

    /// Answers by the first part of the path: `/<case>/...`.
    pub async fn cases(cases: HashMap<String, Answer>) -> Self {
        Self::by(move |asked| {
            let path = asked.line.split(' ').nth(1)?;
            cases.get(path.split('/').nth(1)?).cloned()
        })
        .await
    }

    pub async fn by(rule: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (asked, accepted, closed) = (Arc::default(), Arc::default(), Arc::default());
        let server = Self { base, asked, accepted, closed };
        let (asked, accepted, closed) =
            (server.asked.clone(), server.accepted.clone(), server.closed.clone());
        let rule: Arc<Rule> = Arc::new(rule);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (asked, closed, rule) = (asked.clone(), closed.clone(), rule.clone());
                tokio::spawn(async move {
                    let _ = serve(socket, &asked, &*rule).await;
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until that many connections are closed.
    pub async fn until_closed(&self, n: usize) -> bool {
        for _ in 0..200 {
            if self.closed.load(Ordering::SeqCst) >= n {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

async fn serve(mut socket: TcpStream, asked: &Mutex<Vec<Asked>>, rule: &Rule) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            if buffer.first() == Some(&0x16) {
                // A TLS handshake, for which this server has no ear.
                socket.write_all(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n").await?;
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
        let length = head
            .lines()
            .filter_map(|l| l.split_once(':'))
            .find(|(k, _)| k.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, v)| v.trim().parse::<usize>().unwrap());
        while buffer.len() < head_end + length {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = buffer[head_end..head_end + length].to_vec();
        buffer.drain(..head_end + length);
        let request = Asked { line: head.lines().next().unwrap_or_default().to_owned(), head, body };
        let answer = rule(&request).unwrap_or_else(|| Answer::json(404, "{}"));
        asked.lock().unwrap().push(request);
        if answer.status == 0 || !send(&mut socket, answer).await? {
            return Ok(());
        }
    }
}

/// Sends; says whether the connection may go on.
async fn send(socket: &mut TcpStream, answer: Answer) -> std::io::Result<bool> {
    if !answer.delay.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(answer.delay) => {}
            gone = silence(socket) => return gone,
        }
    }
    let mut head = format!("HTTP/1.1 {} X\r\ntransfer-encoding: chunked\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes()).await?;
    let (mut rest, mut sent, mut n) = (&answer.body[..], 0usize, 0usize);
    let mut then = answer.then;
    loop {
        if let Some((after, what)) = then
            && sent >= after
        {
            match what {
                Then::Close => return Ok(false),
                Then::Silence => return silence(socket).await,
                Then::Late(more) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let piece = &rest[..more.min(rest.len())];
                    socket.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                    socket.write_all(piece).await?;
                    socket.write_all(b"\r\n").await?;
                    return silence(socket).await;
                }
                Then::Pings(count) => {
                    for _ in 0..count {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        socket.write_all(b"8\r\n: ping\n\n\r\n").await?;
                    }
                }
            }
            then = None;
        }
        if rest.is_empty() {
            break;
        }
        let mut size = answer.pieces[n % answer.pieces.len()].min(rest.len());
        if let Some((after, _)) = then {
            size = size.min(after - sent);
        }
        n += 1;
        let (piece, tail) = rest.split_at(size);
        let mut frame = format!("{size:x}\r\n").into_bytes();
        frame.extend_from_slice(piece);
        frame.extend_from_slice(b"\r\n");
        socket.write_all(&frame).await?;
        sent += size;
        rest = tail;
    }
    socket.write_all(b"0\r\n\r\n").await?;
    Ok(true)
}

/// Waits for the other side to hang up.
async fn silence(socket: &mut TcpStream) -> std::io::Result<bool> {
    let mut scratch = [0u8; 64];
    while socket.read(&mut scratch).await? > 0 {}
    Ok(false)
}

/// The folder of a corpus, or `None` after saying so.
pub fn corpus(name: &str) -> Option<std::path::PathBuf> {
    let root = std::env::var_os("ZO_CORPUS").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpus").into(),
        std::path::PathBuf::from,
    );
    // The kept-aside data may be given as the corpus itself.
    let found = [root.join(name), root.clone()].into_iter().find(|p| p.join("manifest.jsonl").exists());
    if found.is_none() {
        println!("SKIPPED: no corpus `{name}` in {} (set ZO_CORPUS)", root.display());
    }
    found
}
