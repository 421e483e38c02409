//! The provider of last resort: rules instead of a model.
//!
//! [`Offline`] is what an agent talks to when there is no key and no local model. It has no weights, reads no clock and
//! opens no connection; the same request always gives the same answer. It picks tools by the words that a message and a
//! tool have in common, fills arguments from what the message says, and repeats what tools and memories say. It never
//! pretends to be a language model: where its rules end, it says so and says how to configure one.
//!
//! Work is bounded whatever the input: see the caps in the modules below.

mod answer;
mod candidates;
mod clause;
mod decide;
mod extract;
mod fill;
mod lexicon;
mod places;
mod route;
mod schema;
mod slot;
mod turn;
mod words;

use answer::{
    ask, from_facts, from_instructions, from_results, is_question, is_statement_about_user, no_model,
    small_talk,
};
use decide::{Decision, decide};
use extract::Evidence;
use serde_json::Value;
use turn::Turn;
use zo_traits::{
    BoxStream, Capabilities, Cx, FinishReason, ModelInfo, PartKind, Provider, Request, Result, StreamEvent,
    ToolChoice, ToolSpec, Usage, async_trait, stream_of,
};

/// Name of its one model.
const MODEL: &str = "rules";

/// Rules in place of a model: the honest default when no provider is configured.
///
/// * Calls tools that a message clearly asks for, with arguments taken from the message and checked against the tool's
///   schema. When a required argument was not said, it asks for it by name.
/// * Answers from tool results and from recalled facts, in their words.
/// * Says plainly that no model is configured when it has no answer.
///
/// Token counts are estimates: one token per four bytes of message text, tool name and description, and of the answer.
///
/// ```
/// # // Hidden set-up only; the provider needs none.
/// # use zo_traits::{Cx, Message, ProviderExt, Request, ToolSpec};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let schema = serde_json::json!({"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]});
/// let calculator = ToolSpec::new("calculator", "Evaluates an arithmetic expression.", schema);
/// let request = Request::new("", [Message::user("What is 17 times 23?")]).tools([calculator]);
/// let answer = zo_providers::Offline::new().complete(&Cx::default(), &request).await?;
/// let call = answer.message.tool_calls().next().expect("a call");
/// assert_eq!(call.args, serde_json::json!({"expression": "17 * 23"}));
/// # Ok::<(), zo_traits::Error>(()) }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Offline;

impl Offline {
    /// The provider. It has no settings.
    pub fn new() -> Self {
        Self
    }
}

/// What will be said.
enum Reply {
    Words(String),
    Calls(Vec<(String, serde_json::Map<String, Value>)>),
}

#[async_trait]
impl Provider for Offline {
    fn id(&self) -> &str {
        "offline"
    }

    fn capabilities(&self, _model: &str) -> Capabilities {
        let mut out = Capabilities::default();
        out.tools = true;
        out.parallel_tools = true;
        out
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.check("offline.stream")?;
        let events = events(request);
        let cx = cx.clone();
        let mut ended = false;
        let checked = events.into_iter().map_while(move |event| {
            if ended {
                return None;
            }
            match cx.check("offline.stream") {
                Ok(()) => Some(Ok(event)),
                Err(e) => {
                    ended = true;
                    Some(Err(e))
                }
            }
        });
        Ok(stream_of(checked))
    }

    async fn models(&self, _cx: &Cx) -> Result<Vec<ModelInfo>> {
        let mut model = ModelInfo::new(MODEL);
        model.name = Some("Simple rules, no language model".to_owned());
        model.capabilities = self.capabilities(MODEL);
        Ok(vec![model])
    }
}

/// The whole answer as events.
fn events(request: &Request) -> Vec<StreamEvent> {
    let turn = Turn::new(request);
    let next_id = turn.next_id;
    let mut out = vec![StreamEvent::Start { id: None, model: Some(MODEL.to_owned()) }];
    let mut written = 0;
    let finish = match reply(request, &turn) {
        Reply::Words(words) => {
            let most = request
                .max_tokens
                .map_or(usize::MAX, |t| usize::try_from(t).unwrap_or(usize::MAX).saturating_mul(4));
            let shown = words::cut(&words, most);
            written = shown.len();
            out.push(StreamEvent::PartStart { index: 0, kind: PartKind::Text });
            out.extend(pieces(shown).map(|text| StreamEvent::Delta { index: 0, text: text.to_owned() }));
            out.push(StreamEvent::PartEnd { index: 0, replay: None });
            if shown.len() < words.len() { FinishReason::Length } else { FinishReason::Stop }
        }
        Reply::Calls(calls) => {
            for ((index, n), (name, args)) in (0u32..).zip(next_id..).zip(calls) {
                let args = Value::Object(args).to_string();
                written += name.len() + args.len();
                out.push(StreamEvent::PartStart {
                    index,
                    kind: PartKind::ToolCall { id: format!("offline_{n}"), name },
                });
                out.push(StreamEvent::Delta { index, text: args });
                out.push(StreamEvent::PartEnd { index, replay: None });
            }
            FinishReason::ToolCalls
        }
    };
    out.push(StreamEvent::Usage(Usage::new(input_tokens(request), tokens(written))));
    out.push(StreamEvent::Finish(finish));
    out
}

/// Pieces of a few words each, so that a reader sees a stream.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .char_indices()
            .filter(|(_, c)| c.is_whitespace())
            .map(|(at, c)| at + c.len_utf8())
            .find(|end| *end >= 16)
            .unwrap_or(rest.len())
            .min(words::cut(rest, 512).len().max(1));
        let (piece, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = tail;
        Some(piece)
    })
}

fn tokens(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(4)).unwrap_or(u64::MAX)
}

fn input_tokens(request: &Request) -> u64 {
    let said = request.messages.iter().flat_map(|m| &m.parts).map(|p| match p {
        zo_traits::Part::Text(t) => t.text.len(),
        zo_traits::Part::ToolResult(r) => r.content.len(),
        zo_traits::Part::ToolCall(c) => c.name.len() + 16,
        _ => 0,
    });
    let said: usize = said.sum();
    let offered: usize = request.tools.iter().map(|t| t.name.len() + t.description.len()).sum();
    tokens(said.saturating_add(offered))
}

fn reply(request: &Request, turn: &Turn<'_>) -> Reply {
    let activated = !turn.calls.is_empty() && turn.calls.iter().all(|c| activates_skill(&c.name));
    let may_go_on = activated && turn.rounds == 1;
    if !turn.results.is_empty() && !may_go_on {
        return Reply::Words(from_results(&turn.results));
    }
    let (tools, must): (Vec<&ToolSpec>, bool) = match &request.tool_choice {
        ToolChoice::None => (Vec::new(), false),
        ToolChoice::Required => (request.tools.iter().collect(), true),
        ToolChoice::Tool(name) => (request.tools.iter().filter(|t| t.name == *name).collect(), true),
        _ => (request.tools.iter().collect(), false),
    };
    let message = turn.message.as_ref();
    let evidence = Evidence::new(message, turn.today);
    if activated {
        let rest: Vec<&ToolSpec> = tools.into_iter().filter(|t| !activates_skill(&t.name)).collect();
        return match decide(&evidence, &rest, false) {
            Decision::Call(calls) => named(&rest, calls),
            _ => Reply::Words(from_instructions(&turn.results)),
        };
    }
    if message.trim().is_empty() && !must {
        return Reply::Words(no_model(&tools));
    }
    if !must && let Some(words) = small_talk(&evidence.text, &tools) {
        return Reply::Words(words);
    }
    let fact = from_facts(turn, &evidence.text).filter(|_| is_question(&evidence.text));
    let personal = (0..evidence.text.tokens.len())
        .any(|i| evidence.text.any(i, &["my", "i", "me", "mine", "our", "i'm"]));
    if let Some((share, words)) = &fact
        && *share >= 0.6
        && personal
        && !must
        && evidence.expression.is_none()
    {
        return Reply::Words(words.clone());
    }
    let asking = is_question(&evidence.text);
    let fitting: Vec<&ToolSpec> =
        tools.iter().copied().filter(|t| must || !(asking && keeps_facts(t))).collect();
    match decide(&evidence, &fitting, must) {
        Decision::Call(calls) => named(&fitting, calls),
        Decision::Ask(tool, missing) => match (fact, fitting.get(tool)) {
            (Some((_, words)), _) => Reply::Words(words),
            (None, Some(spec)) => Reply::Words(ask(spec, &missing)),
            (None, None) => Reply::Words(no_model(&tools)),
        },
        Decision::Nothing => {
            if is_statement_about_user(&evidence.text)
                && let Some(keeper) = fitting.iter().find(|t| keeps_facts(t))
                && let Decision::Call(calls) = decide(&evidence, std::slice::from_ref(keeper), true)
            {
                return named(std::slice::from_ref(keeper), calls);
            }
            Reply::Words(fact.map_or_else(|| no_model(&tools), |(_, words)| words))
        }
    }
}

fn named(tools: &[&ToolSpec], calls: Vec<(usize, serde_json::Map<String, Value>)>) -> Reply {
    let calls = calls.into_iter().filter_map(|(at, args)| tools.get(at).map(|t| (t.name.clone(), args)));
    Reply::Calls(calls.collect())
}

/// Does a tool of this name only disclose instructions, after which another tool may be needed?
fn activates_skill(name: &str) -> bool {
    matches!(name, "use_skill" | "activate_skill" | "load_skill")
}

/// Does it keep what the user says?
fn keeps_facts(tool: &ToolSpec) -> bool {
    matches!(tool.name.as_str(), "remember" | "memorize" | "save_memory" | "add_memory" | "store_memory")
}
