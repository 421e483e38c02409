//! Answers recorded once and played ever after: tests of an agent that need neither network nor key.

use super::{
    Layer,
    watch::{End, Watcher, watch},
};
use crate::Leaks;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use zo_traits::{
    BoxStream, Cx, Error, ErrorKind, Provider, Request, Result, StreamEvent, async_trait, stream_of,
};

const OP: &str = "cassette";

/// Records what a provider answers into a file, or plays it from there.
///
/// The file holds one JSON text a line, a request and the very events (or the error) of its answer, so that it can be read,
/// compared and committed. Known secrets ([`leaks`](Cassette::leaks)) are taken out before anything is written; keys
/// themselves never come this far down. An answer that nobody read to its end is not recorded.
///
/// An answer is found by the whole of its request. A request that was recorded several times gets its answers in order, each
/// once; one that was not is an error that says how it differs from the nearest that was.
///
/// ```
/// use zo_providers::{Offline, layer::{Cassette, LayerExt}};
/// use zo_traits::{Cx, Message, ProviderExt, Request};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let file = std::env::temp_dir().join(format!("zo-doc-{}.jsonl", std::process::id()));
/// let request = Request::new("", [Message::user("What is 2 plus 3?")]);
/// let live = Offline::new().layer(Cassette::record(&file)?);
/// let said = live.complete(&Cx::default(), &request).await?;
///
/// let played = Offline::new().layer(Cassette::replay(&file)?);
/// assert_eq!(played.complete(&Cx::default(), &request).await?, said);
/// # std::fs::remove_file(file).unwrap();
/// # Ok::<(), zo_traits::Error>(()) }).unwrap();
/// ```
pub struct Cassette {
    tape: Arc<Tape>,
    leaks: Leaks,
    matching: Option<Change>,
    asks: bool,
}

type Change = Box<dyn Fn(&mut Request) + Send + Sync>;

struct Tape {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    /// What was recorded, in order.
    all: Vec<Recorded>,
    /// Places in `all` that are still to be played, by the request.
    waiting: HashMap<[u8; 32], std::collections::VecDeque<usize>>,
}

#[derive(Serialize, Deserialize)]
struct Recorded {
    request: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<StreamEvent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Serialize, Deserialize)]
struct Failure {
    kind: ErrorKind,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl From<&Error> for Failure {
    fn from(e: &Error) -> Self {
        let wait = e.retry_after().map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Self { kind: e.kind(), message: e.message().to_owned(), retry_after_ms: wait }
    }
}

impl Failure {
    fn to_error(&self) -> Error {
        let e = Error::new(self.kind.clone(), OP, &self.message);
        match self.retry_after_ms {
            Some(ms) => e.with_retry_after(Duration::from_millis(ms)),
            None => e,
        }
    }
}

impl fmt::Debug for Cassette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cassette")
            .field("path", &self.tape.path)
            .field("asks", &self.asks)
            .finish_non_exhaustive()
    }
}

impl Cassette {
    /// Asks the provider and records its answers in a new file, in place of an old one.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the file cannot be made.
    pub fn record(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // Always at the end of what is there by now: another may be recording at the same place.
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.and_then(|file| file.set_len(0).map(|()| file)).map_err(|e| unavailable(path, &e))?;
        Ok(Self::new(path, State { file: Some(file), ..State::default() }, true))
    }

    /// Plays what is in the file. The provider is never asked.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such file, [`ErrorKind::Corrupt`], with the line, when it is no cassette.
    pub fn replay(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self::new(path, load(path)?, false))
    }

    /// Plays what is in the file, asks for what is not, and adds that to the file, which need not be there yet.
    ///
    /// # Errors
    /// As [`record`](Cassette::record) and [`replay`](Cassette::replay).
    pub fn auto(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut state = match load(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => State::default(),
            loaded => loaded?,
        };
        let file = OpenOptions::new().append(true).create(true).open(path);
        state.file = Some(file.map_err(|e| unavailable(path, &e))?);
        Ok(Self::new(path, state, true))
    }

    fn new(path: &Path, state: State, asks: bool) -> Self {
        let tape = Tape { path: path.to_owned(), state: Mutex::new(state) };
        Self { tape: Arc::new(tape), leaks: Leaks::default(), matching: None, asks }
    }

    /// Secrets to take out of what is recorded. They are taken out of requests before these are compared, too, so that a
    /// recording can be played where the secret is another or not there.
    #[must_use]
    pub fn leaks(mut self, leaks: Leaks) -> Self {
        self.leaks = leaks;
        self
    }

    /// Changes requests before they are recorded and compared, to take out what differs each time: a date, a path.
    #[must_use]
    pub fn matching(mut self, change: impl Fn(&mut Request) + Send + Sync + 'static) -> Self {
        self.matching = Some(Box::new(change));
        self
    }

    /// The request as it is recorded.
    fn shown(&self, request: &Request) -> Result<Value> {
        let mut request = self.leaks.scrub_request(request);
        if let Some(change) = &self.matching {
            change(request.to_mut());
        }
        serde_json::to_value(&*request)
            .map_err(|e| Error::new(ErrorKind::Invalid, OP, format_args!("no JSON: {e}")))
    }
}

#[async_trait]
impl Layer for Cassette {
    /// # Errors
    /// Those that were recorded; [`ErrorKind::NotFound`] for a request of which there is no recording (left), when the provider
    /// is not to be asked.
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.check(OP)?;
        let shown = self.shown(request)?;
        if let Some(answer) = self.tape.play(&shown) {
            return answer;
        }
        if !self.asks {
            return Err(self.tape.missing(&shown));
        }
        let writer =
            Writer { tape: self.tape.clone(), leaks: self.leaks.clone(), request: shown, events: Vec::new() };
        match next.stream(cx, request).await {
            Ok(stream) => Ok(watch(stream, writer)),
            Err(e) => {
                writer.end(End::Failed(&e));
                Err(e)
            }
        }
    }
}

fn key(request: &Value) -> [u8; 32] {
    hmac_sha256::Hash::hash(request.to_string().as_bytes())
}

fn unavailable(path: &Path, e: &std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, OP, format_args!("{}: {e}", path.display()))
}

fn load(path: &Path) -> Result<State> {
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            let why =
                format_args!("there is no recording at {}: make one with Cassette::record", path.display());
            Error::new(ErrorKind::NotFound, OP, why)
        }
        std::io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Corrupt, OP, format_args!("{} is no text", path.display()))
        }
        _ => unavailable(path, &e),
    })?;
    let mut state = State::default();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let recorded: Recorded = serde_json::from_str(line).map_err(|e| {
            let why = format_args!("line {} of {} is no recording: {e}", n + 1, path.display());
            Error::new(ErrorKind::Corrupt, OP, why)
        })?;
        state.waiting.entry(key(&recorded.request)).or_default().push_back(state.all.len());
        state.all.push(recorded);
    }
    Ok(state)
}

impl Tape {
    fn play(&self, request: &Value) -> Option<Result<BoxStream<Result<StreamEvent>>>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = state.waiting.get_mut(&key(request))?.pop_front()?;
        let Recorded { events, error, .. } = state.all.get(at)?;
        let error = error.as_ref().map(Failure::to_error);
        Some(match error {
            Some(e) if events.is_empty() => Err(e),
            error => {
                let items: Vec<_> = events.iter().cloned().map(Ok).chain(error.map(Err)).collect();
                Ok(stream_of(items))
            }
        })
    }

    /// Why there is no answer.
    fn missing(&self, request: &Value) -> Error {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let nearest = state
            .all
            .iter()
            .enumerate()
            .map(|(n, recorded)| (difference(&recorded.request, request), n))
            .max_by_key(|((alike, _), n)| (*alike, std::cmp::Reverse(*n)));
        let path = self.path.display();
        let why = match nearest {
            Some(((_, None), _)) => {
                format!("this request was asked more often than it was recorded in {path}")
            }
            Some(((_, Some(what)), n)) => {
                format!("this request is not in {path}; the nearest, recording {}, differs in {what}", n + 1)
            }
            None => format!("{path} is empty"),
        };
        Error::new(ErrorKind::NotFound, OP, why)
    }

    fn write(&self, recorded: &Recorded) -> Result<()> {
        let mut line = serde_json::to_vec(recorded)
            .map_err(|e| Error::new(ErrorKind::Invalid, OP, format_args!("no JSON: {e}")))?;
        line.push(b'\n');
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.file {
            Some(file) => file.write_all(&line).map_err(|e| unavailable(&self.path, &e)),
            None => Ok(()),
        }
    }
}

/// How much two requests have in common, and the first thing in which they differ.
fn difference(a: &Value, b: &Value) -> (usize, Option<Cow<'static, str>>) {
    let empty = Vec::new();
    let messages = |v: &'_ Value| v.get("messages").and_then(Value::as_array).cloned().unwrap_or_default();
    let (x, y) = (messages(a), messages(b));
    let same = x.iter().zip(&y).take_while(|(p, q)| p == q).count();
    if same < x.len().max(y.len()) {
        return (same, Some(Cow::Owned(format!("message {}", same + 1))));
    }
    let fields = |v: &Value| v.as_object().map_or(empty.clone(), |o| o.keys().cloned().collect());
    let differs = fields(a).into_iter().chain(fields(b)).find(|key| a.get(key) != b.get(key));
    (same + usize::from(differs.is_none()), differs.map(|key| Cow::Owned(format!("`{key}`"))))
}

/// Collects an answer and writes it down.
struct Writer {
    tape: Arc<Tape>,
    leaks: Leaks,
    request: Value,
    events: Vec<StreamEvent>,
}

impl Watcher for Writer {
    fn event(&mut self, event: &StreamEvent) {
        self.events.push(event.clone());
    }

    fn end(self, how: End<'_>) {
        let error = match how {
            End::Finished => None,
            End::Failed(e) => {
                let kind = match self.leaks.scrub(e.kind().as_str()) {
                    Cow::Borrowed(_) => e.kind(),
                    Cow::Owned(clean) => ErrorKind::Other(clean),
                };
                Some(Failure { kind, message: self.leaks.scrub(e.message()).into_owned(), ..e.into() })
            }
            End::Dropped => return,
        };
        let recorded = Recorded { request: self.request, events: scrub(&self.leaks, self.events), error };
        // The answer is already with the caller; that a tape is full must not take it away.
        if let Err(e) = self.tape.write(&recorded) {
            tracing::error!(error = %e, "an answer was not recorded");
        }
    }
}

/// Takes known secrets out of the texts of an answer, also where one lies across two pieces.
fn scrub(leaks: &Leaks, mut events: Vec<StreamEvent>) -> Vec<StreamEvent> {
    if leaks.is_empty() {
        return events;
    }
    let mut whole: HashMap<u32, String> = HashMap::new();
    for event in &events {
        if let StreamEvent::Delta { index, text } = event {
            whole.entry(*index).or_default().push_str(text);
        }
    }
    whole.retain(|_, text| match leaks.scrub(text) {
        Cow::Borrowed(_) => false,
        Cow::Owned(clean) => {
            *text = clean;
            true
        }
    });
    // A part that held one is one piece from now on.
    let mut done = std::collections::HashSet::new();
    events.retain_mut(|event| match event {
        StreamEvent::Delta { index, text } => match whole.get(index) {
            Some(clean) if done.insert(*index) => {
                text.clone_from(clean);
                true
            }
            Some(_) => false,
            None => true,
        },
        event => {
            // All else is small, and read as it is written.
            if let Ok(mut json) = serde_json::to_value(&*event)
                && leaks.scrub_json(&mut json)
                && let Ok(clean) = serde_json::from_value(json)
            {
                *event = clean;
            }
            true
        }
    });
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Secret, layer::LayerExt};
    use zo_testkit::{Scripted, Turn};
    use zo_traits::{Message, PartKind, ProviderExt};

    fn ask(text: &str) -> Request {
        Request::new("m", [Message::system("be brief"), Message::user(text)])
    }

    #[tokio::test]
    async fn what_was_recorded_is_played_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tape.jsonl");
        let cx = Cx::default();
        let slow =
            Error::new(ErrorKind::RateLimited, "t", "slow down").with_retry_after(Duration::from_secs(3));
        let script = Scripted::new([Turn::text("one"), Turn::text("two"), Turn::Fail(slow)]);
        let live = script.layer(Cassette::record(&file).unwrap());
        let first = live.complete(&cx, &ask("a")).await.unwrap();
        let second = live.complete(&cx, &ask("a")).await.unwrap();
        live.complete(&cx, &ask("b")).await.unwrap_err();
        drop(live.stream(&cx, &ask("c")).await);

        let nobody = Scripted::new([]);
        let played = nobody.clone().layer(Cassette::replay(&file).unwrap());
        assert_eq!(played.complete(&cx, &ask("a")).await.unwrap(), first);
        let e = played.complete(&cx, &ask("b")).await.unwrap_err();
        assert_eq!((e.kind(), e.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(3))));
        assert_eq!(played.complete(&cx, &ask("a")).await.unwrap(), second);
        let e = played.complete(&cx, &ask("a")).await.unwrap_err();
        assert!(e.kind() == ErrorKind::NotFound && e.message().contains("more often"), "{e}");
        let e = played.complete(&cx, &ask("z")).await.unwrap_err();
        assert!(e.message().contains("recording 1, differs in message 2"), "{e}");
        let mut hot = ask("a");
        hot.temperature = Some(1.0);
        let e = played.complete(&cx, &hot).await.unwrap_err();
        assert!(e.message().contains("differs in `temperature`"), "{e}");
        assert_eq!(nobody.asked().len(), 0);
    }

    #[tokio::test]
    async fn secrets_are_not_recorded() {
        const KEY: &str = "sk-canary-0123456789";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tape.jsonl");
        let leaks = Leaks::default();
        leaks.add("mine", &Secret::new(KEY)).unwrap();
        let (a, b) = KEY.split_at(7);
        let delta = |text: &str| Ok(StreamEvent::Delta { index: 0, text: text.into() });
        let script = Scripted::new([Turn::Events(vec![
            Ok(StreamEvent::PartStart { index: 0, kind: PartKind::Text }),
            delta("it is "),
            delta(a),
            delta(b),
            Ok(StreamEvent::PartEnd { index: 0, replay: None }),
            Ok(StreamEvent::Finish(zo_traits::FinishReason::Stop)),
        ])]);
        let live = script.layer(Cassette::record(&file).unwrap().leaks(leaks.clone()));
        let said = live.complete(&Cx::default(), &ask(KEY)).await.unwrap().message.to_text();
        assert!(said.contains(KEY), "the caller has it");
        let tape = std::fs::read_to_string(&file).unwrap();
        assert!(!tape.contains(b) && tape.contains("[secret mine]"), "{tape}");
        // Another secret of that name, elsewhere.
        let other = Leaks::default();
        other.add("mine", &Secret::new("sk-other-987654321")).unwrap();
        let played = Scripted::new([]).layer(Cassette::replay(&file).unwrap().leaks(other));
        let said =
            played.complete(&Cx::default(), &ask("sk-other-987654321")).await.unwrap().message.to_text();
        assert_eq!(said, "it is [secret mine]");
    }

    #[tokio::test]
    async fn nothing_but_texts_keeps_a_secret_either() {
        const KEY: &str = "sk-canary-0123456789";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tape.jsonl");
        let leaks = Leaks::default();
        leaks.add("mine", &Secret::new(KEY)).unwrap();
        let other = Error::new(ErrorKind::Other(format!("bad_key_{KEY}")), "t", KEY);
        let script = Scripted::new([
            Turn::Events(vec![
                Ok(StreamEvent::Start { id: Some(format!("id-{KEY}")), model: Some(KEY.into()) }),
                Ok(StreamEvent::PartStart {
                    index: 0,
                    kind: PartKind::ToolCall { id: format!("call-{KEY}"), name: KEY.into() },
                }),
                Ok(StreamEvent::Delta { index: 0, text: "{}".into() }),
                Ok(StreamEvent::PartEnd { index: 0, replay: None }),
                Ok(StreamEvent::Finish(zo_traits::FinishReason::Other(KEY.into()))),
            ]),
            Turn::Fail(other),
        ]);
        let live = script.layer(Cassette::record(&file).unwrap().leaks(leaks));
        live.complete(&Cx::default(), &ask("a")).await.unwrap();
        live.complete(&Cx::default(), &ask("b")).await.unwrap_err();
        let tape = std::fs::read_to_string(&file).unwrap();
        assert_eq!(tape.lines().count(), 2);
        assert!(!tape.contains("canary"), "{tape}");
        Cassette::replay(&file).unwrap();
    }

    #[tokio::test]
    async fn two_who_record_at_the_same_place_leave_a_whole_tape() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tape.jsonl");
        let cx = Cx::default();
        let one =
            Scripted::new([Turn::text("one"), Turn::text("two")]).layer(Cassette::record(&file).unwrap());
        one.complete(&cx, &ask("a")).await.unwrap();
        let two = Scripted::new([Turn::text("x")]).layer(Cassette::record(&file).unwrap());
        one.complete(&cx, &ask("b")).await.unwrap();
        two.complete(&cx, &ask("c")).await.unwrap();
        let played = Scripted::new([]).layer(Cassette::replay(&file).unwrap());
        for text in ["b", "c"] {
            played.complete(&cx, &ask(text)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn auto_asks_only_for_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tape.jsonl");
        for (round, asked) in [(0, 1), (1, 0)] {
            let script = Scripted::new([Turn::text("one")]);
            let tape = Cassette::auto(&file).unwrap().matching(|r| r.messages.truncate(1));
            let provider = script.clone().layer(tape);
            provider.complete(&Cx::default(), &ask(&format!("at {round}"))).await.unwrap();
            assert_eq!(script.asked().len(), asked);
        }
        std::fs::write(&file, "{}\n").unwrap();
        let e = Cassette::replay(&file).unwrap_err();
        assert!(e.kind() == ErrorKind::Corrupt && e.message().contains("line 1"), "{e}");
        assert_eq!(Cassette::replay(dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
