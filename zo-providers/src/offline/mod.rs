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
mod repeat;
mod route;
mod schema;
mod slot;
mod turn;
mod words;

use answer::{
    ask, from_facts, from_facts_each, from_instructions, from_results, is_question, is_statement_about_user,
    no_model, small_talk,
};
use decide::{Act, decide};
use extract::Evidence;
use serde_json::{Map, Value};
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
///   schema: numbers with units, dates, quotations, names, addresses, enumerations, flags, lists, nested objects. When a
///   required argument was not said, it asks for it by name.
/// * Makes several calls when a message asks for several things, or for one thing of several.
/// * Answers from tool results, from recalled facts and from what the user said before, in their words.
/// * Says plainly that no model is configured when it has no answer, and what the tools on offer could do instead.
/// * Knows English. In other languages it finds names, numbers and quotations, calls a tool only when they are plain, and
///   otherwise says that it has no answer.
///
/// [`choose`](Offline::choose) tells how sure it is. How often it is right is measured by the bench `offline_quality`.
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

    /// What it would do about a request, and how sure it is: the calls that [`stream`](Provider::stream) would make,
    /// without the words that it would say instead.
    ///
    /// For hosts that want to ask before an unsure call, or to send to a model only what the rules are unsure about.
    ///
    /// ```
    /// use zo_traits::{Message, Request, ToolSpec};
    /// let schema = serde_json::json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    /// let weather = ToolSpec::new("get_weather", "Gets the weather of a city.", schema);
    /// let offline = zo_providers::Offline::new();
    /// let sure = offline.choose(&Request::new("", [Message::user("What is the weather in Oslo?")]).tools([weather.clone()]));
    /// let unsure = offline.choose(&Request::new("", [Message::user("Who painted the Night Watch?")]).tools([weather]));
    /// assert!(sure.confidence > unsure.confidence && unsure.calls.is_empty());
    /// ```
    pub fn choose(&self, request: &Request) -> Decision {
        reply(request, &Turn::new(request)).decision
    }
}

/// What [`Offline`] makes of a request.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// The tool that fits best, whether or not it is called.
    pub tool: Option<String>,
    /// Probability that the message asks for that tool and says what it needs, from 0 to 1, by a logistic fit over
    /// wordings in common and arguments found. Calls are made from about 0.38 on, because a call that is not wanted
    /// costs less than a request that is not served. 0 when no tool was considered.
    pub confidence: f32,
    /// Tool names and arguments of the calls, in order. Arguments obey the tools' schemas.
    pub calls: Vec<(String, Map<String, Value>)>,
    /// Required arguments of [`tool`](Decision::tool) that the message does not say, when it asks for them instead of
    /// calling.
    pub missing: Vec<String>,
}

/// What will be said: the decision's calls, or if there are none, words.
struct Reply {
    words: String,
    decision: Decision,
}

impl From<String> for Reply {
    fn from(words: String) -> Self {
        Self { words, decision: Decision::default() }
    }
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
    let Reply { words, decision } = reply(request, &turn);
    let finish = match decision.calls {
        calls if calls.is_empty() => {
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
        calls => {
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
        return from_results(&turn.results, &words::Text::new(&turn.message)).into();
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
        let (act, decision) = considered(&evidence, &rest, false);
        let words =
            if matches!(act, Act::Call(_)) { String::new() } else { from_instructions(&turn.results) };
        return Reply { words, decision };
    }
    if message.trim().is_empty() && !must {
        return no_model(&tools).into();
    }
    if !must && let Some(words) = small_talk(&evidence.text, &tools) {
        return words.into();
    }
    let fact = from_facts(turn, &evidence.text).filter(|_| is_question(&evidence.text));
    let personal = (0..evidence.text.tokens.len())
        .any(|i| evidence.text.any(i, &["my", "i", "me", "mine", "our", "i'm"]));
    if personal
        && !must
        && let Some(words) = from_facts_each(turn, &evidence.text)
        && decide(&evidence, &tools, false).odds < 0.0
    {
        return words.into();
    }
    if let Some((share, words)) = &fact
        && *share >= 0.6
        && personal
        && !must
        && evidence.expression.is_none()
    {
        return words.clone().into();
    }
    let asking = is_question(&evidence.text);
    let fitting: Vec<&ToolSpec> =
        tools.iter().copied().filter(|t| must || !(asking && keeps_facts(t))).collect();
    let (act, mut decision) = considered(&evidence, &fitting, must);
    let words = match act {
        Act::Call(_) => String::new(),
        Act::Ask(tool, missing) => match (fact, fitting.get(tool)) {
            (Some((_, words)), _) => {
                decision.missing.clear();
                words
            }
            (None, Some(spec)) => ask(spec, &missing),
            (None, None) => no_model(&tools),
        },
        Act::Nothing => {
            if is_statement_about_user(&evidence.text)
                && let Some(keeper) = fitting.iter().find(|t| keeps_facts(t))
                && let (Act::Call(_), decision) = considered(&evidence, std::slice::from_ref(keeper), true)
            {
                return Reply { words: String::new(), decision };
            }
            fact.map_or_else(|| no_model(&tools), |(_, words)| words)
        }
    };
    Reply { words, decision }
}

/// Decides about `tools`.
fn considered(evidence: &Evidence<'_>, tools: &[&ToolSpec], must: bool) -> (Act, Decision) {
    let verdict = decide(evidence, tools, must);
    let name = |at: usize| tools.get(at).map(|t| t.name.clone());
    let mut out = Decision {
        tool: verdict.best.and_then(name),
        confidence: 1.0 / (1.0 + (-verdict.odds).exp()),
        ..Decision::default()
    };
    match &verdict.act {
        Act::Call(calls) => {
            out.calls = calls.iter().filter_map(|(at, args)| Some((name(*at)?, args.clone()))).collect();
        }
        Act::Ask(_, missing) => out.missing.clone_from(missing),
        Act::Nothing => {}
    }
    (verdict.act, out)
}

/// Does a tool of this name only disclose instructions, after which another tool may be needed?
fn activates_skill(name: &str) -> bool {
    matches!(name, "use_skill" | "activate_skill" | "load_skill")
}

/// Does it keep what the user says?
fn keeps_facts(tool: &ToolSpec) -> bool {
    matches!(tool.name.as_str(), "remember" | "memorize" | "save_memory" | "add_memory" | "store_memory")
}
