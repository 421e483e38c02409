//! Finished and unfinished runs, told again from the journal: for those who come late, for debugging, and to try another way
//! from any step on.

use crate::{
    Reply, RunEvent, RunId, Step, approval,
    driver::{Frames, View, back, view},
    inner::Inner,
    journal::{End, Entry, Header, Recorded, Setup, has_ended, parse_entry},
};
use serde::{Deserialize, Serialize};
use zo_traits::{
    Cx, Error, ErrorKind, Message, Part, Request, Response, Result, ToolChoice, ToolOutput, ToolResult,
};

/// A run on record, gone through again without asking a model or running a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunReplay {
    /// The run.
    pub run: RunId,
    /// Its conversation.
    pub conversation: String,
    /// What was asked.
    pub input: String,
    /// One for each answer of the model.
    pub steps: Vec<ReplayStep>,
    /// What the run left, as far as it came.
    pub reply: Reply,
    /// The run that this one was forked from, and how many of its steps they share.
    pub forked: Option<(RunId, u32)>,
}

/// One answer of the model and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplayStep {
    /// The request, as it was sent.
    pub request: Request,
    /// The answer.
    pub answer: Response,
    /// How its tool calls ended, in the order in which they did.
    pub results: Vec<ToolResult>,
}

/// Goes through a run again, and checks that each request comes out as it was sent.
pub(crate) async fn replay(inner: &Inner, run: &RunId) -> Result<RunReplay> {
    let (header, rows) = inner.journal.rows(run)?;
    let cx = Cx::new(run.as_str()).with_clock(inner.clock.clone());
    let setup = |digest: Option<&str>| -> Result<Setup> {
        let found = digest.map(|d| inner.journal.read_setup(d)).transpose()?.flatten();
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "zo.replay",
                "the run was recorded by a version that did not keep its setup",
            )
        })
    };
    let mut recorded = Recorded::new(header.clone());
    let mut now = setup(header.setup.as_deref())?;
    let stuff = back(inner, &cx, &header, recorded.compaction.as_ref(), recorded.machine.messages()).await?;
    recorded.machine.reserve_ids(&stuff.history);
    let own = recorded.machine.messages();
    let mut seen = view(&header, &now, stuff, recorded.shortened, own);
    let mut steps: Vec<ReplayStep> = Vec::new();
    for (at, row) in rows {
        let entry = parse_entry(&row)?;
        match &entry {
            Entry::Model { answer, heard, request, .. } => {
                recorded.hear(*heard)?;
                let number = steps.len() + 1;
                let asked = request_of(&mut seen, &recorded, request.as_deref(), number)?;
                steps.push(ReplayStep {
                    request: asked,
                    answer: answer.clone().into_owned(),
                    results: Vec::new(),
                });
            }
            Entry::Tool { result } => {
                if let Some(step) = steps.last_mut() {
                    step.results.push(result.clone().into_owned());
                }
            }
            Entry::Resumed { setup: Some(digest) } => now = setup(Some(digest))?,
            _ => {}
        }
        let again = matches!(
            &entry,
            Entry::Compacted { .. } | Entry::Shortened { .. } | Entry::Resumed { setup: Some(_) }
        );
        recorded.next = at.saturating_add(1);
        recorded.apply(entry)?;
        if again {
            let stuff =
                back(inner, &cx, &header, recorded.compaction.as_ref(), recorded.machine.messages()).await?;
            let own = recorded.machine.messages();
            seen = view(&header, &now, stuff, recorded.shortened, own);
        }
    }
    let input = header.input();
    let (conversation, forked) = (header.conversation, header.forked);
    let reply = reply(&recorded, run, Vec::new());
    Ok(RunReplay { run: run.clone(), conversation, input, steps, reply, forked })
}

/// The request of the next answer.
fn request_of(seen: &mut View, recorded: &Recorded, sent: Option<&str>, number: usize) -> Result<Request> {
    seen.catch_up(recorded.machine.messages());
    let last = matches!(recorded.machine.step(), Step::Model { last: true });
    let choice = if last && recorded.machine.steps() > 0 { ToolChoice::None } else { ToolChoice::Auto };
    let nudged = seen.prepare(choice);
    let digest = seen.digest(&Frames::default());
    let request = seen.request.clone();
    seen.sent(nudged);
    if sent.is_some_and(|sent| sent != digest) {
        return Err(Error::new(
            ErrorKind::Conflict,
            "zo.replay",
            format_args!(
                "the request of step {number} does not come out as it was sent (digest {digest}, recorded {}): the \
                 conversation before the run was changed, or this version of zo makes requests differently",
                sent.unwrap_or_default()
            ),
        ));
    }
    Ok(request)
}

/// Events, each with its entry.
pub(crate) type Told = Vec<(u32, Result<RunEvent>)>;

/// What a run leaves, as its record tells.
fn reply(recorded: &Recorded, run: &RunId, approvals: Vec<crate::Approval>) -> Reply {
    Reply::of(run, &recorded.machine, recorded.microusd, approvals)
}

/// The events of a run as the journal tells them, those of entry `from` and later, each with its entry; and the number of the
/// next entry. Where the run is not `live`, the last one says how it stands.
pub(crate) fn events(inner: &Inner, run: &RunId, from: u32, live: bool) -> Result<(Told, u32)> {
    if live && !inner.journal.is_on() {
        return Ok((Vec::new(), 0));
    }
    let (header, rows) = inner.journal.rows(run)?;
    let mut recorded = Recorded::new(header);
    let mut events = Vec::new();
    // As the log counts.
    let mut answer_at = 0;
    if from == 0 {
        events.push((0, Ok(RunEvent::Started(run.clone()))));
    }
    for (at, row) in rows {
        let entry = parse_entry(&row)?;
        let mut told = Vec::new();
        match &entry {
            Entry::Model { answer, .. } => {
                let (mut text, mut reasoning) = (String::new(), String::new());
                for part in &answer.message.parts {
                    match part {
                        Part::Text(t) | Part::Refusal(t) => text.push_str(&t.text),
                        Part::Reasoning(t) => reasoning.push_str(&t.text),
                        _ => {}
                    }
                }
                told.extend((!reasoning.is_empty()).then_some(RunEvent::Reasoning(reasoning)));
                told.extend((!text.is_empty()).then_some(RunEvent::Text(text)));
            }
            Entry::Tool { result } => {
                let (result, output) = (result.clone().into_owned(), ToolOutput::default());
                told.push(RunEvent::ToolFinished { result, output });
            }
            Entry::Said { message, repair: false } => told.push(RunEvent::Said(message.clone().into_owned())),
            Entry::Compacted { compaction: c, .. } => told.push(RunEvent::Compacted {
                messages: c.upto.saturating_sub(c.since),
                before: c.tokens_before,
                after: c.tokens_after,
            }),
            Entry::Asked { call } => {
                if let Some(store) = inner.journal.store() {
                    let found = store.read(|s| approval::find(s, run.as_str(), call, inner.clock.now()))?;
                    told.extend(found.map(|(approval, _)| RunEvent::Approval(approval)));
                }
            }
            _ => {}
        }
        let answered = matches!(&entry, Entry::Model { .. });
        let said = matches!(&entry, Entry::Said { .. });
        recorded.next = at.saturating_add(1);
        recorded.apply(entry)?;
        if answered {
            told.push(RunEvent::Usage(recorded.machine.usage()));
            if let Step::Tools(open) = recorded.machine.step() {
                told.extend(open.into_iter().map(RunEvent::ToolStarted));
            }
        }
        if at >= from {
            events.extend(told.into_iter().map(|event| match event {
                RunEvent::Text(_) | RunEvent::Reasoning(_) | RunEvent::Said(_) => (answer_at, Ok(event)),
                event => (at, Ok(event)),
            }));
        }
        if !said {
            answer_at = at.saturating_add(1);
        }
    }
    if from > recorded.next.saturating_add(1) {
        let message = format_args!("the cursor is of another run: run {run} has {} entries", recorded.next);
        return Err(Error::new(ErrorKind::Invalid, "run.attach", message));
    }
    if !live {
        let last = match recorded.ended.clone() {
            Some(End::Done) => Ok(RunEvent::Done(reply(&recorded, run, Vec::new()))),
            Some(End::Cancelled) => Err(Error::cancelled("run")),
            Some(End::Failed { kind, message }) => Err(Error::new(kind, "run", message)),
            Some(End::Abandoned) => Err(Error::new(ErrorKind::Conflict, "run", "the run was abandoned")),
            None => match inner.journal.pending(run)? {
                waiting if inner.journal.is_parked(run) => Ok(RunEvent::Done(reply(&recorded, run, waiting))),
                _ => Err(Error::new(
                    ErrorKind::Unavailable,
                    "run.attach",
                    "the run was interrupted; resume it",
                )),
            },
        };
        events.push((recorded.next, last));
    }
    Ok((events, answer_at))
}

/// What it takes to begin anew in another conversation after the first `steps` answers of a run, their tools included.
pub(crate) fn fork(inner: &Inner, run: &RunId, steps: u32, conversation: &str, new: RunId) -> Result<Fork> {
    let (mut header, rows) = inner.journal.rows(run)?;
    if conversation == header.conversation {
        let e = Error::new(ErrorKind::Invalid, "zo.fork", "a fork needs a conversation of its own");
        return Err(e);
    }
    let mut recorded = Recorded::new(header.clone());
    let mut kept = Vec::new();
    let mut answers = 0;
    for (_, row) in rows {
        let entry = parse_entry(&row)?;
        match &entry {
            Entry::Model { .. } if answers == steps => break,
            Entry::Model { .. } => answers += 1,
            Entry::End { .. } | Entry::Appending { .. } => break,
            // What is decided is decided for the run that it was decided in.
            Entry::Asked { .. } => continue,
            _ => {}
        }
        recorded.apply(entry)?;
        kept.push(row);
    }
    if answers < steps {
        return Err(Error::new(
            ErrorKind::NotFound,
            "zo.fork",
            format_args!("the run has {answers} steps, not {steps}"),
        ));
    }
    if matches!(recorded.machine.step(), Step::Done(_)) {
        return Err(has_ended().with_op("zo.fork"));
    }
    header.forked = Some((run.clone(), steps));
    header.run = new;
    header.conversation = conversation.to_owned();
    // It spends from nobody's allowance but its own.
    (header.parent, header.depth, header.ledgers) = (None, 0, Vec::new());
    if header.limits != zo_traits::Limits::none() {
        header.ledgers.push(header.run.as_str().to_owned());
    }
    Ok(Fork { header, rows: kept })
}

/// A new run with a past.
pub(crate) struct Fork {
    pub(crate) header: Header,
    pub(crate) rows: Vec<Vec<u8>>,
}

/// The messages of a conversation before a run, for its fork.
pub(crate) async fn before(inner: &Inner, header: &Header, source: &str) -> Result<Vec<Message>> {
    match &inner.transcript {
        Some(t) => {
            let cx = Cx::new("fork").with_clock(inner.clock.clone());
            crate::history::read(&cx, t.as_ref(), source, 0, header.base).await
        }
        None => Ok(Vec::new()),
    }
}
