//! What the benches share: a mock of a model server on loopback, a reading of what this process has used, and a little
//! statistics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod heap;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Environment variable that turns a bench program into the mock server of its parent.
const SERVER: &str = "ZO_BENCH_SERVER";

/// A mock of an OpenAI-compatible server in a process of its own, so that its CPU is not counted as the client's.
#[derive(Debug)]
pub struct MockServer {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl MockServer {
    /// Call this first in `main`: in the server process it never returns.
    pub fn start() -> Self {
        if std::env::var_os(SERVER).is_some() {
            serve();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(SERVER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, addr: line.trim().parse().unwrap() }
    }

    /// The base URL of this server, at which a stream is of this many chunks of text and comes like this. A tool is called
    /// only if one is on offer.
    pub fn scripted(&self, chunks: usize, pace: Pace) -> String {
        let pace = match pace {
            Pace::Each => "each".to_owned(),
            Pace::Paused(pause) => format!("pause-{}", pause.as_micros()),
            Pace::Whole => "whole".to_owned(),
            Pace::Held => "held".to_owned(),
        };
        format!("http://{}/chunks-{chunks}/{pace}/v1", self.addr)
    }
}

/// How the pieces of a stream come. Each is one chunk of HTTP's chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each is written by itself, one right after the other; what the reader finds depends on who is faster.
    Each,
    /// Each is written by itself, and after each the server sleeps at least so long: the reader is woken for each.
    Paused(Duration),
    /// All are written at once.
    Whole,
    /// All of the text comes, but never the end.
    Held,
}

impl Drop for MockServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers `POST` requests: with a tool call when the conversation has no tool result yet, else with text. Streams where the
/// request asks for it, as its path may say: see [`MockServer::scripted`].
fn serve() -> ! {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    // Ends with its parent, even one that was killed: its standard input closes then.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    loop {
        let (socket, _) = listener.accept().unwrap();
        std::thread::spawn(move || {
            let _ = connection(socket);
        });
    }
}

fn connection(socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut from = BufReader::new(socket.try_clone()?);
    let mut to = socket;
    let json = [answer(Say::Call, false), answer(Say::Text, false)];
    let streamed = [answer(Say::Call, true), answer(Say::Text, true)];
    let mut scripts: HashMap<(String, bool), Script> = HashMap::new();
    loop {
        let (mut length, mut line, mut path) = (0, String::new(), None);
        loop {
            line.clear();
            if from.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            path.get_or_insert_with(|| line.split(' ').nth(1).unwrap_or_default().to_owned());
        }
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut from, &mut body)?;
        let has = |needle: &[u8]| body.windows(needle.len()).any(|w| w == needle);
        let done = has(br#""role":"tool""#);
        let path = path.unwrap_or_default();
        let scripted = path.starts_with("/chunks-");
        let done = done || (scripted && !has(br#""tools":"#));
        if has(br#""stream":true"#) && scripted {
            let call = !done;
            let script =
                scripts.entry((path, call)).or_insert_with_key(|(path, call)| Script::new(path, *call));
            script.play(&mut to)?;
            if script.pace == Pace::Held {
                // Until the reader hangs up.
                from.fill_buf()?;
                return Ok(());
            }
            continue;
        }
        let answers = if has(br#""stream":true"#) { &streamed } else { &json };
        to.write_all(&answers[usize::from(done)])?;
    }
}

/// A stream as the path of its request wants it, ready to be written.
struct Script {
    pace: Pace,
    pieces: Vec<Vec<u8>>,
}

impl Script {
    fn new(path: &str, call: bool) -> Self {
        let (mut chunks, mut pace) = (0, Pace::Each);
        for segment in path.split('/') {
            match segment.split_once('-') {
                Some(("chunks", n)) => chunks = n.parse().unwrap(),
                Some(("pause", n)) => pace = Pace::Paused(Duration::from_micros(n.parse().unwrap())),
                _ if segment == "whole" => pace = Pace::Whole,
                _ if segment == "held" => pace = Pace::Held,
                _ => {}
            }
        }
        let mut deltas = vec![r#""role":"assistant","content":"""#.to_owned()];
        if call {
            let open = r#""tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"add","arguments":""}}]"#;
            deltas.push(open.to_owned());
            for part in [r#"{\"a\":"#, "17,", r#"\"b\":"#, "23}"] {
                deltas.push(format!(r#""tool_calls":[{{"index":0,"function":{{"arguments":"{part}"}}}}]"#));
            }
        } else {
            // The first word is the answer that the benches look for.
            deltas.extend((0..chunks).map(|i| format!(r#""content":" {}""#, 40 + i)));
        }
        let chunk = |inner: &str| {
            let event = format!(
                r#"data: {{"id":"chatcmpl-9Xb2kQvL0aTz4mRd","object":"chat.completion.chunk","created":1763683200,"model":"mock","system_fingerprint":"fp_44709d6fcb",{inner}}}"#
            ) + "\n\n";
            format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
        };
        let choice = |delta: &str, finish: &str| {
            chunk(&format!(
                r#""choices":[{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}]"#
            ))
        };
        let mut pieces = vec![
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec(),
        ];
        pieces.extend(deltas.iter().map(|delta| choice(delta, "null")));
        if pace != Pace::Held {
            pieces.push(choice("", if call { r#""tool_calls""# } else { r#""stop""# }));
            pieces.push(chunk(
                r#""choices":[],"usage":{"prompt_tokens":50,"completion_tokens":12,"total_tokens":62}"#,
            ));
            pieces.push(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n".to_vec());
        }
        if matches!(pace, Pace::Whole | Pace::Held) {
            pieces = vec![pieces.concat()];
        }
        Self { pace, pieces }
    }

    fn play(&self, to: &mut TcpStream) -> std::io::Result<()> {
        for piece in &self.pieces {
            to.write_all(piece)?;
            if let Pace::Paused(pause) = self.pace {
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }
}

#[derive(PartialEq)]
enum Say {
    Call,
    Text,
}

fn answer(what: Say, stream: bool) -> Vec<u8> {
    let call = what == Say::Call;
    let delta = if call {
        r#""role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"add","arguments":"{\"a\":17,\"b\":23}"}}]"#
    } else {
        r#""role":"assistant","content":"The sum of 17 and 23 is 40.""#
    };
    let finish = if call { "tool_calls" } else { "stop" };
    let usage = r#""usage":{"prompt_tokens":50,"completion_tokens":12,"total_tokens":62}"#;
    if !stream {
        let body = format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"mock","choices":[{{"index":0,"message":{{{delta}}},"finish_reason":"{finish}"}}],{usage}}}"#
        );
        return format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes();
    }
    let frame = |inner: &str| {
        format!(
            r#"data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock",{inner}}}"#
        ) + "\n\n"
    };
    let body = [
        frame(&format!(r#""choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":null}}]"#)),
        frame(&format!(r#""choices":[{{"index":0,"delta":{{}},"finish_reason":"{finish}"}}]"#)),
        frame(&format!(r#""choices":[],{usage}"#)),
        "data: [DONE]\n\n".into(),
    ]
    .concat();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// CPU time that all threads of this process have used, those that ended not counted.
pub fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let nanos = tasks.filter_map(|t| {
        let text = std::fs::read_to_string(t.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// How much of this process's CPU time was spent in its own code and how much in the kernel, in clock ticks. Coarse: good for
/// a ratio over seconds, while [`cpu`] is exact.
pub fn cpu_ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The name of the program, in brackets, may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse().unwrap(), fields[12].parse().unwrap())
}

/// The middle one.
pub fn median<T: Copy + Ord>(all: &[T]) -> T {
    percentile(all, 50)
}

/// The value that `p` of a hundred do not exceed.
pub fn percentile<T: Copy + Ord>(all: &[T], p: usize) -> T {
    let mut all = all.to_vec();
    all.sort_unstable();
    all[(all.len() * p / 100).min(all.len() - 1)]
}

/// The time in microseconds.
pub fn micros(d: Duration) -> f64 {
    d.as_secs_f64() * 1e6
}

/// The slope of the line through these points that has the least squares.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let top: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    top / points.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>()
}

/// What the disk of `dir` takes to write 4 KiB over what is there and to sync them (`fdatasync`), 200 times.
pub fn syncs(dir: &Path) -> Vec<Duration> {
    let mut file = std::fs::File::create(dir.join("sync-probe")).unwrap();
    file.write_all(&[1; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let each = |i: u64| {
        let then = Instant::now();
        file.write_all_at(&[i as u8; 4096], i % 256 * 4096).unwrap();
        file.sync_data().unwrap();
        then.elapsed()
    };
    (0..200).map(each).collect()
}

/// Resident memory of this process in KiB.
pub fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
