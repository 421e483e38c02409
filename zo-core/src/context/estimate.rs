//! How many tokens a request is, without the model's tokenizer: a measured guess per family of models, corrected by what
//! the provider reports.
//!
//! # Units
//! [`message`](Estimator::message), [`tools`](Estimator::tools) and [`request`](Estimator::request) give *base* tokens:
//! they depend on the model's name and the content alone, so they can be kept beside a message for ever and added up.
//! [`corrected`](Estimator::corrected) turns a sum of them into the tokens that the provider will count, going by what it
//! reported before; [`base`](Estimator::base) is the way back, for limits that are given in tokens.
//!
//! # Accuracy
//! On texts kept out of the fit the base estimate is off by 4 to 7 % on average (p95 14 to 24 %); on foreign ones (other
//! domains, 17 languages) by 9 to 15 % (p95 21 to 32 %), where bytes / 4 is off by some 30 % (p95 62 to 94 %). See
//! `scripts/measure-tokens`.

use super::weights::{self, Pass, Table};
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use zo_traits::{Media, MediaSource, Message, Part, Request, Text, ToolSpec};

/// Most models whose corrections are remembered.
const MAX_MODELS: usize = 256;
/// Bounds of a correction: beyond them it is not the tokenizer that is wrong, but the report.
const RATIO: (f64, f64) = (0.5, 3.0);
/// A report further off than this is nonsense: a proxy that leaves out what was cached, a mock.
const NONSENSE: (f64, f64) = (0.2, 5.0);
/// Base tokens at which a report counts half: in a small request the frame weighs more than the text.
const HALF_WEIGHT: f64 = 400.0;
/// Least share that a report of a long request has in the correction.
const LEAST_SHARE: f64 = 0.25;
/// How far the count may lie above the estimate before anything was reported: it covers an estimate that is a third too low.
/// The lowest single text that was measured was 22 to 50 % too low, by family; a conversation averages over many.
const FIRST_MARGIN: f64 = 0.5;
/// And at least, however well reports agree.
const LEAST_MARGIN: f64 = 0.1;

/// What a family of models counts alike.
#[derive(Debug)]
struct Family {
    table: &'static Table,
    /// Per message, and per request.
    message: u64,
    request: u64,
    /// Per tool call, and per result.
    call: u64,
    /// Per request with tools, per tool, and of the tools' JSON in thousandths.
    tools: u64,
    tool: u64,
    tools_scale: u64,
    /// Per image.
    image: u64,
}

// Tables: measured on tokenizers. Frames and tools: from the usage that providers reported in some 200 recorded exchanges.
// Images: what the makers document for one of a usual size (OpenAI 85 to 1,105; Anthropic width x height / 750, at most
// 1,600; Gemini 258 a tile, 1,120 since Gemini 3).

/// The chat frames of open models: `<|im_start|>role\n ... <|im_end|>\n` and the like.
const OPEN: Family = Family {
    table: &weights::LLAMA,
    message: 5,
    request: 5,
    call: 12,
    tools: 120,
    tool: 8,
    tools_scale: 1_000,
    image: 1_300,
};
/// Tools are shown to these as short type declarations, not as JSON.
const OPENAI: Family = Family {
    table: &weights::GPT,
    message: 4,
    request: 3,
    call: 8,
    tools: 15,
    tool: 6,
    tools_scale: 600,
    image: 1_100,
};
static GPT: Family = OPENAI;
static GPT_4: Family = Family { table: &weights::GPT_4, ..OPENAI };
/// With a system text of its own before everything.
static GPT_OSS: Family = Family { request: 65, ..OPENAI };
/// Tools bring a long system text of Anthropic's with them: 346 tokens documented for Claude 4, about 480 in later ones.
static CLAUDE: Family = Family {
    table: &weights::CLAUDE,
    message: 4,
    request: 4,
    call: 30,
    tools: 470,
    tool: 40,
    tools_scale: 1_000,
    image: 1_600,
};
static GEMINI: Family = Family {
    table: &weights::GEMINI,
    message: 1,
    request: 0,
    call: 8,
    tools: 10,
    tool: 6,
    tools_scale: 600,
    image: 1_120,
};
/// Its template tells the date.
static LLAMA: Family = Family { request: 25, ..OPEN };
static QWEN: Family = Family { table: &weights::QWEN, ..OPEN };
static MISTRAL: Family = Family { table: &weights::MISTRAL, message: 2, request: 1, tools: 10, ..OPEN };
static DEEPSEEK: Family = Family { table: &weights::DEEPSEEK, message: 3, request: 0, tools: 230, ..OPEN };
static OTHER: Family = OPEN;

impl Family {
    /// By the words that are in models' names, wherever a gateway puts them (`anthropic/claude-...`). Of the unknown ones
    /// the frame is an open model's.
    fn of(model: &str) -> &'static Self {
        let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
        if has(&["claude"]) {
            &CLAUDE
        } else if has(&["gemini", "gemma"]) {
            &GEMINI
        } else if has(&["qwen", "qwq", "qvq"]) {
            &QWEN
        } else if has(&["deepseek"]) {
            &DEEPSEEK
        } else if has(&["mistral", "mixtral", "ministral", "codestral", "devstral", "pixtral", "magistral"]) {
            &MISTRAL
        } else if has(&["gpt-4-", "gpt-3", "gpt-35"]) || name == "gpt-4" {
            &GPT_4
        } else if has(&["gpt-oss"]) {
            &GPT_OSS
        } else if has(&["gpt", "codex"]) || is_o_series(&name) {
            &GPT
        } else if has(&["llama"]) {
            &LLAMA
        } else {
            &OTHER
        }
    }

    fn text(&self, text: &str) -> u64 {
        let mut pass = Pass::new(self.table);
        pass.feed(text.as_bytes());
        tokens(&pass)
    }

    fn json(&self, value: &impl Serialize) -> u64 {
        let mut pass = Pass::new(self.table);
        // A pass takes every byte; only a map without text keys fails, and JSON has none.
        let _ = serde_json::to_writer(&mut pass, value);
        tokens(&pass)
    }

    fn media(&self, media: &Media) -> u64 {
        let bytes = match &media.source {
            MediaSource::Base64(data) => data.len() as u64 / 4 * 3,
            _ => 0,
        };
        let kind = media.media_type.split('/').next().unwrap_or_default();
        match kind {
            "image" => self.image,
            // 32 tokens a second (Gemini), at 16 kB a second (128 kbit/s).
            "audio" => 100 + bytes / 500,
            // 263 tokens a second (Gemini), at 250 kB a second.
            "video" => 1_000 + bytes / 950,
            "text" => 20 + bytes / 3,
            // A page of a PDF is some 2,000 tokens (Anthropic: 1,500 to 3,000) and rarely under 20 kB.
            _ => 2_000 + bytes / 10,
        }
    }

    /// Text, or where it is hidden what stands for it.
    fn replayed(&self, text: &Text) -> u64 {
        match &text.replay {
            Some(replay) if text.text.is_empty() => self.json(&replay.data),
            _ => self.text(&text.text),
        }
    }

    fn part(&self, part: &Part) -> u64 {
        match part {
            Part::Text(t) | Part::Refusal(t) => self.text(&t.text),
            Part::Reasoning(t) => self.replayed(t),
            Part::Media(m) => self.media(m),
            Part::ToolCall(c) => self.call + self.text(&c.name) + self.json(&c.args),
            Part::ToolResult(r) => {
                let media: u64 = r.media.iter().map(|m| self.media(m)).sum();
                self.call + self.text(&r.content) + media
            }
            Part::Opaque(r) => self.json(&r.data),
            Part::Unknown(v) => self.json(v),
            other => self.json(other),
        }
    }

    fn message(&self, message: &Message) -> u64 {
        message.parts.iter().fold(self.message, |sum, p| sum.saturating_add(self.part(p)))
    }

    fn tools(&self, tools: &[ToolSpec]) -> u64 {
        if tools.is_empty() {
            return 0;
        }
        let each = |t: &ToolSpec| {
            let schema = self.json(t.input.as_ref()).saturating_mul(self.tools_scale) / 1_000;
            self.tool + self.text(&t.name) + self.text(&t.description) + schema
        };
        tools.iter().map(each).fold(self.tools, u64::saturating_add)
    }
}

/// `o1`, `o3-mini`, `o4-mini-2025-04-16`.
fn is_o_series(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next() == Some(b'o')
        && letters.next().is_some_and(|b| b.is_ascii_digit())
        && letters.next().is_none_or(|b| b == b'-')
}

/// What reports said about one model.
#[derive(Debug, Clone, Copy)]
struct Calibration {
    /// Natural logarithm of the tokens reported per base token, averaged: later reports count more.
    log: f64,
    /// How far reports lie from it, averaged.
    spread: f64,
    reports: u32,
}

/// A model, the tools of its requests, and their tokens.
type Counted = (String, Arc<[ToolSpec]>, u64);

/// Estimates tokens; one per agent, shared by its runs.
#[derive(Debug, Default)]
pub(crate) struct Estimator {
    models: Mutex<HashMap<String, Calibration>>,
    /// The tools that were last counted, for which model: the same for many runs.
    tools: Mutex<Option<Counted>>,
}

impl Estimator {
    /// Base tokens of a message. Linear in its bytes, without a copy of them.
    pub(crate) fn message(&self, model: &str, message: &Message) -> u64 {
        Family::of(model).message(message)
    }

    /// Base tokens of every message, in order.
    pub(crate) fn messages(&self, model: &str, messages: &[Message]) -> Vec<u64> {
        let family = Family::of(model);
        messages.iter().map(|m| family.message(m)).collect()
    }

    /// Base tokens of a text without a message around it.
    pub(crate) fn text(&self, model: &str, text: &str) -> u64 {
        Family::of(model).text(text)
    }

    /// Base tokens of tools on offer.
    pub(crate) fn tools(&self, model: &str, tools: &Arc<[ToolSpec]>) -> u64 {
        let mut last = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, counted, n)) = &*last
            && of == model
            && Arc::ptr_eq(counted, tools)
        {
            return *n;
        }
        let n = Family::of(model).tools(tools);
        *last = Some((model.to_owned(), tools.clone(), n));
        n
    }

    /// Base tokens of a request without its messages and tools: its frame and the schema of its answer.
    pub(crate) fn frame(&self, model: &str, request: &Request) -> u64 {
        let family = Family::of(model);
        family.request + request.output_schema.as_deref().map_or(0, |s| family.json(s))
    }

    /// Base tokens of a request.
    #[cfg(test)]
    pub(crate) fn request(&self, model: &str, request: &Request) -> u64 {
        let family = Family::of(model);
        let frame = self.frame(model, request).saturating_add(family.tools(&request.tools));
        request.messages.iter().fold(frame, |sum, m| sum.saturating_add(family.message(m)))
    }

    /// Takes note that a request of `base` tokens was counted as `reported` ones by the provider (all prompt tokens, those
    /// from a cache included). A report of nothing, or of nonsense, is ignored; no single one moves the correction far once
    /// there were others.
    pub(crate) fn observe(&self, model: &str, base: u64, reported: u64) {
        if base == 0 || reported == 0 {
            return;
        }
        let ratio = reported as f64 / base as f64;
        if !(NONSENSE.0..=NONSENSE.1).contains(&ratio) {
            return;
        }
        let log = ratio.clamp(RATIO.0, RATIO.1).ln();
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= MAX_MODELS && !models.contains_key(model) {
            // Names of models may come from outside; whose calibration is lost gets it back with the next report.
            models.clear();
        }
        let weight = base as f64 / (base as f64 + HALF_WEIGHT);
        let known =
            models.entry(model.to_owned()).or_insert(Calibration { log: 0.0, spread: 0.0, reports: 0 });
        let share = weight * (1.0 / f64::from(known.reports + 1)).max(LEAST_SHARE);
        let off = log - known.log;
        // The first report has nothing to be compared with.
        if known.reports > 0 {
            known.spread += share * (off.abs() - known.spread);
        }
        known.log += share * off;
        known.reports = known.reports.saturating_add(1);
    }

    /// The tokens that the provider will count for `base` ones.
    pub(crate) fn corrected(&self, model: &str, base: u64) -> u64 {
        scale(base, self.calibration(model).map_or(1.0, |c| c.log.exp()))
    }

    /// The base tokens that the provider will count as `tokens`.
    pub(crate) fn base(&self, model: &str, tokens: u64) -> u64 {
        scale(tokens, self.calibration(model).map_or(1.0, |c| (-c.log).exp()))
    }

    /// More than the provider will count for `base` tokens, as far as can be told: for reservations. Half as much again
    /// before anything was reported, a tenth when the reports agree.
    pub(crate) fn upper(&self, model: &str, base: u64) -> u64 {
        let (ratio, margin) = match self.calibration(model) {
            None => (1.0, FIRST_MARGIN),
            Some(c) => {
                // Each report halves what is left of the first margin.
                let doubt = FIRST_MARGIN / f64::from(1 << c.reports.min(16));
                (c.log.exp(), (3.0 * c.spread).max(doubt).clamp(LEAST_MARGIN, FIRST_MARGIN))
            }
        };
        scale(base, ratio * (1.0 + margin)).saturating_add(32)
    }

    fn calibration(&self, model: &str) -> Option<Calibration> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).get(model).copied()
    }
}

/// Rounded up, so that a text is never nothing.
fn tokens(pass: &Pass<'_>) -> u64 {
    pass.sum().div_ceil(1_000)
}

/// Rounded up; a float saturates when it is made an integer.
fn scale(n: u64, by: f64) -> u64 {
    (n as f64 * by).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use zo_traits::{ToolCall, ToolResult, ToolStatus};

    const MODELS: [&str; 7] = [
        "gpt-5",
        "claude-sonnet-4-5",
        "gemini-2.5-flash",
        "llama-3.3-70b",
        "qwen2.5-7b",
        "mistral-nemo",
        "deepseek-chat",
    ];

    /// Texts that are in no fit, and what the tokenizers of [`MODELS`] count (`scripts/measure-tokens`).
    #[rustfmt::skip]
    const COUNTED: [(&str, &str, [u64; 7]); 9] = [
        ("English", "Yesterday evening we walked along the river for about two hours, talked about the new house, and forgot to buy bread. My sister called later and said that the train would be late again, so nobody was at the station when she arrived.", [48, 48, 48, 48, 48, 49, 48]),
        ("German", "Gestern Abend sind wir etwa zwei Stunden am Fluss entlanggegangen, haben über das neue Haus gesprochen und vergessen, Brot zu kaufen. Später rief meine Schwester an und sagte, dass der Zug wieder Verspätung habe.", [48, 62, 44, 57, 57, 48, 56]),
        ("Chinese", "昨天晚上我们沿着河边走了大约两个小时，谈到了新房子，结果忘了买面包。后来我姐姐打电话来说火车又要晚点了，所以她到的时候车站没有人。", [49, 70, 38, 53, 36, 51, 34]),
        ("Japanese", "昨日の夜、私たちは川沿いを二時間ほど歩きながら新しい家のことを話し、パンを買うのを忘れてしまいました。", [38, 57, 23, 35, 30, 38, 34]),
        ("Arabic", "مشينا مساء أمس على طول النهر نحو ساعتين وتحدثنا عن البيت الجديد ونسينا أن نشتري الخبز.", [28, 77, 27, 31, 29, 26, 34]),
        ("code", "fn total(items: &[Item]) -> u64 {\n    let mut sum = 0;\n    for item in items {\n        sum += u64::from(item.count) * item.price; // in cents\n    }\n    sum\n}\n\n#[test]\nfn an_empty_list_costs_nothing() {\n    assert_eq!(total(&[]), 0);\n}\n", [74, 85, 92, 73, 75, 77, 75]),
        ("JSON", r##"{"orders":[{"id":48213,"customer":"Ada Example","items":[{"sku":"KX-2041","count":3,"price":12.5},{"sku":"KX-9","count":1,"price":199.0}],"shipped":true,"at":"2025-03-01T10:22:05Z"},{"id":48214,"customer":"Bob Example","items":[],"shipped":false,"at":null}]}"##, [97, 96, 116, 95, 113, 120, 99]),
        ("base64", "bWVhc3VyZWQgdGV4dHMgYXJlIGJldHRlciB0aGFuIGd1ZXNzZXMsIGFuZCBiYXNlNjQgaXMgd2hhdCBhIHRva2VuaXplciBsaWtlcyBsZWFzdCBvZiBhbGwuIFNvIGl0IGlzIGhlcmUu", [87, 86, 86, 96, 96, 103, 90]),
        ("digits", "4821307719 2250981 77 3301 99812345 6 120045 88 7512 309 4471 90021 555 12 78123 4409 31 2 887766 10045", [55, 38, 103, 55, 103, 103, 55]),
    ];

    #[test]
    fn texts_are_counted_about_as_tokenizers_do() {
        let estimator = Estimator::default();
        let mut all = Vec::new();
        for (kind, text, counted) in COUNTED {
            for (model, counted) in MODELS.iter().zip(counted) {
                let off = estimator.text(model, text) as f64 / counted as f64 - 1.0;
                println!("{kind} {model}: {counted}, {:+.0} %", off * 100.0);
                // Short texts, each of its own style; digits vary most, as some count each and some three at a time.
                assert!(off.abs() < 0.45, "{kind} {model}: off by {off}");
                assert!(estimator.upper(model, estimator.text(model, text)) >= counted, "{kind} {model}");
                all.push(off.abs());
            }
        }
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!(mean < 0.15, "{mean}");
    }

    #[test]
    fn families_are_told_by_name() {
        let same = |model: &str, family: &'static Family| std::ptr::eq(Family::of(model), family);
        for (model, family) in [
            ("gpt-4o-mini", &GPT),
            ("openai/gpt-5.2", &GPT),
            ("o3-mini", &GPT),
            ("o1", &GPT),
            ("gpt-4", &GPT_4),
            ("gpt-4-turbo", &GPT_4),
            ("gpt-3.5-turbo", &GPT_4),
            ("openai/gpt-oss-120b", &GPT_OSS),
            ("anthropic/claude-haiku-4.5", &CLAUDE),
            ("us.anthropic.claude-sonnet-4-20250514-v1:0", &CLAUDE),
            ("models/gemini-2.5-pro", &GEMINI),
            ("Qwen/Qwen3-4B", &QWEN),
            ("deepseek-r1-distill-llama-70b", &DEEPSEEK),
            ("meta-llama/Llama-3.3-70B-Instruct", &LLAMA),
            ("mistral-large-latest", &MISTRAL),
            ("", &OTHER),
            ("octopus-7b", &OTHER),
            ("o365", &OTHER),
        ] {
            assert!(same(model, family), "{model}: {:?}", Family::of(model));
        }
    }

    #[test]
    fn every_part_counts_and_sums_add_up() {
        let e = Estimator::default();
        let call = ToolCall::new("c", "search", json!({"q": "weather in Lisbon", "n": 3}));
        let image = |data: &str| Media {
            media_type: "image/png".into(),
            source: MediaSource::Base64(data.into()),
            name: None,
        };
        let mut result = ToolResult::new(&call, ToolStatus::Ok, "sunny");
        let bare = e.message("gpt-5", &Message::tool_results([result.clone()]));
        result.media.push(image(&"A".repeat(4_000_000)));
        let shown = e.message("gpt-5", &Message::tool_results([result]));
        assert_eq!(shown - bare, 1_100, "an image costs the same however large its file");
        let messages = vec![
            Message::system("s"),
            Message::user("u"),
            Message { role: zo_traits::Role::Assistant, parts: vec![Part::ToolCall(call)] },
        ];
        let tools =
            [ToolSpec::new("search", "Searches the web.", json!({"type": "object", "properties": {}}))];
        for model in MODELS {
            let each: u64 = e.messages(model, &messages).iter().sum();
            let request = Request::new(model, messages.clone()).tools(tools.clone());
            assert_eq!(
                e.request(model, &request),
                each + e.tools(model, &request.tools) + e.frame(model, &request)
            );
            assert_eq!(e.tools(model, &Arc::from([])), 0);
        }
        let hidden = Text {
            text: String::new(),
            replay: Some(zo_traits::Replay::new("openai", json!("x".repeat(4_000)))),
        };
        let hidden = Message { role: zo_traits::Role::Assistant, parts: vec![Part::Reasoning(hidden)] };
        assert!(e.message("gpt-5", &hidden) > 100);
    }

    #[test]
    fn reports_correct_the_estimate() {
        let e = Estimator::default();
        assert_eq!(e.corrected("m", 1_000), 1_000);
        assert_eq!(e.upper("m", 1_000), 1_532);
        for _ in 0..20 {
            e.observe("m", 10_000, 13_000);
        }
        let got = e.corrected("m", 10_000);
        assert!((12_900..=13_010).contains(&got), "{got}");
        assert!((9_990..=10_080).contains(&e.base("m", 13_000)));
        let upper = e.upper("m", 10_000);
        assert!((13_000..15_500).contains(&upper), "{upper}");
        // Of another model nothing is known.
        assert_eq!(e.corrected("n", 1_000), 1_000);
    }

    #[test]
    fn no_single_report_moves_much_and_nonsense_nothing() {
        let e = Estimator::default();
        for (base, reported) in
            [(0, 5), (5, 0), (0, 0), (10_000, 3), (3, 10_000), (u64::MAX, 1), (1, u64::MAX)]
        {
            e.observe("m", base, reported);
            assert_eq!(e.corrected("m", 1_000), 1_000, "{base} {reported}");
        }
        for _ in 0..20 {
            e.observe("m", 10_000, 10_000);
        }
        e.observe("m", 10_000, 49_000);
        let got = e.corrected("m", 1_000);
        assert!((1_000..=1_400).contains(&got), "{got}");
        let e = Estimator::default();
        for _ in 0..1_000 {
            e.observe("m", 10_000, 49_000);
        }
        assert!(e.corrected("m", 1_000) <= 3_001, "a correction is bounded");
        assert_eq!(e.upper("m", u64::MAX), u64::MAX);
        // The report of a small request says little.
        let e = Estimator::default();
        e.observe("m", 10, 40);
        assert!(e.corrected("m", 1_000) < 1_100);
    }

    #[test]
    fn reports_that_scatter_widen_the_bound() {
        let (calm, wild) = (Estimator::default(), Estimator::default());
        for i in 0..30 {
            calm.observe("m", 10_000, 12_000);
            wild.observe("m", 10_000, if i % 2 == 0 { 9_000 } else { 15_000 });
        }
        assert!(wild.upper("m", 10_000) > 15_000 && calm.upper("m", 10_000) < 13_500);
    }

    #[test]
    fn names_from_outside_do_not_pile_up() {
        let e = Estimator::default();
        for i in 0..5_000 {
            e.observe(&format!("model-{i}"), 10_000, 11_000);
        }
        assert!(e.models.lock().unwrap().len() <= MAX_MODELS);
    }

    /// `cargo test --release -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn throughput() {
        let e = Estimator::default();
        for (kind, text, _) in COUNTED {
            let text = text.repeat((16 << 20) / text.len());
            let started = std::time::Instant::now();
            let mut sum = 0;
            for _ in 0..8 {
                sum += e.text("gpt-5", std::hint::black_box(&text));
            }
            let speed = 8.0 * text.len() as f64 / started.elapsed().as_secs_f64() / 1e9;
            println!("{kind}: {speed:.2} GB/s ({sum})");
        }
    }
}
