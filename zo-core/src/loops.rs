//! Finds a model that goes round in circles: the same call with the same result, over and over.
//!
//! What is compared is the tool's name, its arguments whatever the order of their keys, and all that the model saw of the
//! result. A call whose result changes (a job that is being waited for) is no repetition. Memory is bounded: a call is
//! remembered while fewer than [`MEMORY`] others were seen after it, so circles of up to that many calls are found.
//!
//! The fingerprints are stored with a run, so how they are computed is fixed for good: FNV-1a, 64 bits.

use crate::{digest::Fnv, toolbox::READ_ON};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use zo_traits::{MediaSource, ToolCall, ToolResult};

/// How many different calls are remembered.
const MEMORY: usize = 64;

/// What is done about a model that repeats itself.
///
/// A *repetition* is the same tool called with the same arguments and answering the same. Calls of one turn that are equal
/// count once, since the model had no answer yet to learn from.
///
/// ```
/// use zo_core::LoopPolicy;
///
/// assert_eq!(LoopPolicy::default(), LoopPolicy::new(3, 6));
/// let patient = LoopPolicy::new(3, 0); // the model is told, the run goes on
/// assert_eq!(LoopPolicy::OFF.nudge_at, 0);
/// # let _ = patient;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LoopPolicy {
    /// From this time on, the result tells the model that it repeats itself. Every time among the last calls counts,
    /// whatever happened in between. 0: never. Default 3.
    pub nudge_at: u32,
    /// At this time the run is stopped. Only times count between which nothing new happened, that is, no call whose
    /// answer had not been seen before: tests that are run again after each change, with the same outcome, go on.
    /// 0: never. Default 6.
    pub stop_at: u32,
}

impl LoopPolicy {
    /// Repetition is nobody's business.
    pub const OFF: Self = Self::new(0, 0);

    /// A word to the model from the `nudge_at`th time on, the end of the run at the `stop_at`th; 0 is never.
    pub const fn new(nudge_at: u32, stop_at: u32) -> Self {
        Self { nudge_at, stop_at }
    }
}

impl Default for LoopPolicy {
    fn default() -> Self {
        Self::new(3, 6)
    }
}

/// What a [`LoopPolicy`] says of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing to say.
    Fine,
    /// Tell the model.
    Nudge {
        /// How often it has made this call and got this result.
        times: u32,
    },
    /// End the run.
    Stop {
        /// How often it has made this call and got this result, without anything new in between.
        times: u32,
    },
}

/// The last calls of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Loops {
    /// Fingerprint; times seen; times seen since anything new. The one seen last stands last.
    seen: Vec<(u64, u32, u32)>,
}

impl Loops {
    /// Takes note of a call and its result, as the model is going to see it but without any [`nudge`].
    #[cfg(test)]
    pub(crate) fn saw(&mut self, policy: &LoopPolicy, call: &ToolCall, result: &ToolResult) -> Verdict {
        self.note(policy, fingerprint(call, result))
    }

    /// Takes note of the calls of one turn in call order. Of equal ones the first counts; the others get its verdict.
    pub(crate) fn saw_turn<'a>(
        &mut self,
        policy: &LoopPolicy,
        calls: impl IntoIterator<Item = (&'a ToolCall, &'a ToolResult)>,
    ) -> Vec<Verdict> {
        let mut verdicts: Vec<(u64, Verdict)> = Vec::new();
        for (call, result) in calls {
            let print = fingerprint(call, result);
            let before = verdicts.iter().find(|(p, _)| *p == print).map(|(_, v)| *v);
            verdicts.push((print, before.unwrap_or_else(|| self.note(policy, print))));
        }
        verdicts.into_iter().map(|(_, v)| v).collect()
    }

    fn note(&mut self, policy: &LoopPolicy, print: u64) -> Verdict {
        let entry = match self.seen.iter().position(|(p, ..)| *p == print) {
            Some(at) => {
                let (p, times, stale) = self.seen.remove(at);
                (p, times.saturating_add(1), stale.saturating_add(1))
            }
            None => {
                // Something new: whatever was repeated before led somewhere.
                self.seen.iter_mut().for_each(|(_, _, stale)| *stale = 0);
                // What is read from outside may be longer than what was written.
                let surplus = (self.seen.len() + 1).saturating_sub(MEMORY);
                self.seen.drain(..surplus);
                (print, 1, 0)
            }
        };
        self.seen.push(entry);
        let (_, times, stale) = entry;
        // It was seen once at least before what came after the last news.
        let stuck = if stale == 0 { 1 } else { stale.saturating_add(1) };
        let reached = |limit: u32, n: u32| limit != 0 && n >= limit;
        if reached(policy.stop_at, stuck) {
            Verdict::Stop { times: stuck }
        } else if reached(policy.nudge_at, times) {
            Verdict::Nudge { times }
        } else {
            Verdict::Fine
        }
    }
}

/// What is appended to a result to make the model notice.
pub(crate) fn nudge(times: u32) -> String {
    format!(
        "\n[This is call number {times} of the same tool with the same arguments, and the result is the same as before. \
         Making it again will not change it: use what you have, try another way, or say what keeps you.]"
    )
}

fn fingerprint(call: &ToolCall, result: &ToolResult) -> u64 {
    let mut hash = Print::default();
    hash.text(&call.name);
    hash.json(&call.args);
    hash.text(result.status.as_str());
    hash.content(&result.content);
    for media in &result.media {
        hash.text(&media.media_type);
        let source = match &media.source {
            MediaSource::Base64(data) => data.as_str(),
            MediaSource::Url(url) => url.as_str(),
            _ => "",
        };
        hash.text(source);
    }
    hash.0.value()
}

/// What a fingerprint is taken of. Every item is preceded by its length or its kind, so that no two different calls give the
/// same bytes.
#[derive(Default)]
struct Print(Fnv);

impl Print {
    fn write(&mut self, bytes: &[u8]) {
        self.0.add(bytes);
    }

    /// In the same order on every machine.
    fn number(&mut self, n: u64) {
        self.write(&n.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.write(text.as_bytes());
    }

    /// The text of a result. Where the whole of a long one is kept is named after the call, and so never the same twice:
    /// that name is left out.
    fn content(&mut self, text: &str) {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(READ_ON) {
            self.text(before);
            // A name is a quoted text without line ends.
            rest =
                after.strip_prefix('"').and_then(|name| name.split_once('"')).map_or(after, |(_, rest)| rest);
        }
        self.text(rest);
    }

    fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.write(b"n"),
            Value::Bool(false) => self.write(b"f"),
            Value::Bool(true) => self.write(b"t"),
            Value::Number(n) => self.json_number(n),
            Value::String(text) => {
                self.write(b"s");
                self.text(text);
            }
            Value::Array(items) => {
                self.write(b"a");
                self.number(items.len() as u64);
                items.iter().for_each(|item| self.json(item));
            }
            Value::Object(map) => {
                self.write(b"o");
                self.number(map.len() as u64);
                // Whether a map is sorted depends on a feature of serde_json that anybody may switch on.
                let mut fields: Vec<(&String, &Value)> = map.iter().collect();
                fields.sort_unstable_by_key(|(key, _)| *key);
                for (key, value) in fields {
                    self.text(key);
                    self.json(value);
                }
            }
        }
    }

    /// JSON does not tell 7 from 7.0.
    fn json_number(&mut self, n: &Number) {
        let float = n.as_f64().unwrap_or(f64::NAN);
        if let Some(i) = n.as_i64() {
            self.write(b"i");
            self.write(&i.to_le_bytes());
        } else if let Some(u) = n.as_u64() {
            self.write(b"u");
            self.number(u);
        } else if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 {
            self.write(b"i");
            #[allow(clippy::cast_possible_truncation)] // whole and within 2^53
            self.write(&(float as i64).to_le_bytes());
        } else {
            self.write(b"d");
            self.number(float.to_bits());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::HashSet;
    use zo_traits::{Media, ToolStatus};

    fn pair(name: &str, args: Value, out: &str) -> (ToolCall, ToolResult) {
        let call = ToolCall::new(format!("id-{out}"), name, args);
        let result = ToolResult::new(&call, ToolStatus::Ok, out);
        (call, result)
    }

    /// What the default policy says of calls named by letters, each with the same result every time.
    fn run(letters: &str) -> Vec<Verdict> {
        let mut loops = Loops::default();
        let see = |c: char| {
            let (call, result) = pair(&c.to_string(), json!({}), "same");
            loops.saw(&LoopPolicy::default(), &call, &result)
        };
        letters.chars().map(see).collect()
    }

    #[test]
    fn the_third_time_is_told_and_the_sixth_ends_it() {
        use Verdict::{Fine, Nudge, Stop};
        let expected = [
            Fine,
            Fine,
            Nudge { times: 3 },
            Nudge { times: 4 },
            Nudge { times: 5 },
            Stop { times: 6 },
            Stop { times: 7 },
        ];
        assert_eq!(run("aaaaaaa"), expected);
    }

    #[test]
    fn circles_of_several_calls_end_too() {
        for (circle, len) in [("ab", 2), ("abc", 3), ("abcdefghij", 10)] {
            let got = run(&circle.repeat(6));
            let stop = got.iter().position(|v| matches!(v, Verdict::Stop { .. }));
            assert_eq!(stop, Some(5 * len), "{circle}: {got:?}");
            assert_eq!(got[2 * len], Verdict::Nudge { times: 3 });
        }
        let wide: String = (0..60).map(|n| char::from(b'!' + n)).collect();
        assert!(matches!(run(&wide.repeat(6))[300], Verdict::Stop { times: 6 }));
        let too_wide: String = (0..65).map(|n| char::from(b'!' + n)).collect();
        assert!(run(&too_wide.repeat(9)).iter().all(|v| *v == Verdict::Fine), "beyond memory");
    }

    #[test]
    fn work_that_gets_on_is_told_but_not_stopped() {
        // The tests `t` say the same after each of nine different changes.
        let got = run("t1t2t3t4t5t6t7t8t9t");
        assert!(!got.iter().any(|v| matches!(v, Verdict::Stop { .. })), "{got:?}");
        assert_eq!(got.last(), Some(&Verdict::Nudge { times: 10 }));
        // And when the changes repeat themselves as well, that is a circle.
        assert!(run(&"t1t2".repeat(6)).iter().any(|v| matches!(v, Verdict::Stop { .. })));
    }

    #[test]
    fn a_result_that_changes_is_no_loop() {
        let mut loops = Loops::default();
        for n in 0..1_000 {
            let (call, result) = pair("poll", json!({"job": 7}), &format!("{n} % done"));
            assert_eq!(loops.saw(&LoopPolicy::default(), &call, &result), Verdict::Fine);
        }
        assert_eq!(loops.seen.len(), MEMORY, "memory is bounded");
    }

    #[test]
    fn limits_are_as_stated_and_zero_is_never() {
        let (call, result) = pair("a", json!({}), "x");
        let first = |policy: LoopPolicy| {
            let mut loops = Loops::default();
            (1..500).map(|_| loops.saw(&policy, &call, &result)).position(|v| v != Verdict::Fine)
        };
        assert_eq!(first(LoopPolicy::OFF), None);
        assert_eq!(first(LoopPolicy::new(0, 200)), Some(199), "farther than memory is wide");
        assert_eq!(first(LoopPolicy::new(1, 0)), Some(0));
        assert_eq!(first(LoopPolicy::new(0, 1)), Some(0));
        let json = serde_json::to_string(&LoopPolicy::default()).unwrap();
        assert_eq!(json, r#"{"nudge_at":3,"stop_at":6}"#);
        assert_eq!(serde_json::from_str::<LoopPolicy>("{}").unwrap(), LoopPolicy::default());
    }

    #[test]
    fn equal_calls_of_one_turn_count_once() {
        let mut loops = Loops::default();
        let (call, result) = pair("a", json!({}), "x");
        let turn = vec![(&call, &result); 50];
        assert_eq!(loops.saw_turn(&LoopPolicy::default(), turn.clone()), [Verdict::Fine; 50]);
        loops.saw_turn(&LoopPolicy::default(), turn.clone());
        assert_eq!(loops.saw_turn(&LoopPolicy::default(), turn), [Verdict::Nudge { times: 3 }; 50]);
    }

    #[test]
    fn what_the_model_cannot_tell_apart_is_the_same() {
        let print = |args: Value, out: &str| {
            let (call, result) = pair("t", args, out);
            fingerprint(&call, &result)
        };
        let text = |t: &str| serde_json::from_str::<Value>(t).unwrap();
        assert_eq!(print(text(r#"{"a":1,"b":[2,{"c":3,"d":4}]}"#), "x"), {
            print(text(r#"{"b":[2.0,{"d":4,"c":3}],"a":1.0}"#), "x")
        });
        let different = [
            (json!({"a": 1}), "x"),
            (json!({"a": 1}), "y"),
            (json!({"a": 2}), "x"),
            (json!({"a": "1"}), "x"),
            (json!({"a": 1.5}), "x"),
            (json!({"a": [1]}), "x"),
            (json!({"a": null}), "x"),
            (json!({"a": true}), "x"),
            (json!({"a": false}), "x"),
            (json!({"b": 1}), "x"),
            (json!({}), "x"),
            (json!([["a"], []]), "x"),
            (json!([[], ["a"]]), "x"),
            (json!(["a", "b"]), "x"),
            (json!(["ab", ""]), "x"),
            (json!(u64::MAX), "x"),
            (json!(i64::MIN), "x"),
            (json!(9_007_199_254_740_993_u64), "x"),
            (json!(9_007_199_254_740_992_u64), "x"),
        ];
        let prints: HashSet<u64> = different.iter().map(|(args, out)| print(args.clone(), out)).collect();
        assert_eq!(prints.len(), different.len());

        let (call, result) = pair("t", json!({}), "x");
        let mut others = vec![fingerprint(&call, &result)];
        let mut failed = result.clone();
        failed.status = ToolStatus::Error;
        others.push(fingerprint(&call, &failed));
        for data in ["aGk=", "aGo="] {
            let mut shown = result.clone();
            shown.media.push(Media {
                media_type: "image/png".into(),
                source: MediaSource::Base64(data.into()),
                name: None,
            });
            others.push(fingerprint(&call, &shown));
        }
        others.sort_unstable();
        others.dedup();
        assert_eq!(others.len(), 4);
    }

    #[test]
    fn a_long_result_is_the_same_wherever_it_is_kept() {
        let long = "line\n".repeat(1_000);
        let print = |id: &str, text: &str| {
            let call = ToolCall::new(id, "t", json!({}));
            let shown = crate::toolbox::clip(text, 300, Some(&crate::toolbox::output_id("run", id)));
            assert!(shown.contains(id));
            fingerprint(&call, &ToolResult::new(&call, ToolStatus::Ok, shown))
        };
        assert_eq!(print("call-1", &long), print("call-2", &long));
        assert_ne!(print("call-1", &long), print("call-2", &format!("{long}more")));
    }

    #[test]
    fn fingerprints_stay_what_they_were() {
        // Those of a run that was stored must be found again by every later version.
        let (call, result) =
            pair("weather", json!({"city": "Rome", "days": 3, "at": [1.5, null, true]}), "21 C");
        assert_eq!(fingerprint(&call, &result), GOLDEN);
        let mut loops = Loops::default();
        loops.saw(&LoopPolicy::default(), &call, &result);
        loops.saw(&LoopPolicy::default(), &call, &result);
        let stored = serde_json::to_string(&loops).unwrap();
        assert_eq!(stored, format!("[[{GOLDEN},2,1]]"));
        let mut back: Loops = serde_json::from_str(&stored).unwrap();
        assert_eq!(back, loops);
        assert_eq!(back.saw(&LoopPolicy::default(), &call, &result), Verdict::Nudge { times: 3 });
    }

    /// As a program in another language computes it from the rules above.
    const GOLDEN: u64 = 4660652748475349234;

    #[test]
    fn a_stored_memory_that_is_too_long_is_cut() {
        let mut loops = Loops { seen: (0..100_000).map(|n| (n, u32::MAX, u32::MAX)).collect() };
        let (call, result) = pair("a", json!({}), "x");
        loops.saw(&LoopPolicy::OFF, &call, &result);
        assert_eq!(loops.seen.len(), MEMORY);
        let last = loops.seen[0].0;
        assert_eq!(loops.note(&LoopPolicy::OFF, last), Verdict::Fine, "no overflow");
    }

    proptest! {
        /// Any circle ends at its sixth round, and never before.
        #[test]
        fn every_circle_ends(circle in prop::collection::vec(0..20u8, 1..30), before in prop::collection::vec(0..40u8, 0..40)) {
            let mut loops = Loops::default();
            let mut see = |n: u8| {
                let (call, result) = pair(&n.to_string(), json!({}), "same");
                loops.saw(&LoopPolicy::new(0, 6), &call, &result)
            };
            // New things end with something new.
            before.iter().chain([&200]).for_each(|n| { see(*n); });
            let rounds = 6 + 1;
            let stop = circle.iter().cycle().take(circle.len() * rounds).position(|n| matches!(see(*n), Verdict::Stop { .. }));
            prop_assert!(stop.is_some(), "{circle:?}");
        }

        #[test]
        fn counting_is_counting(letters in prop::collection::vec(0..6u8, 1..200)) {
            let mut loops = Loops::default();
            let mut known = HashSet::new();
            let mut news = 0;
            for (at, n) in letters.iter().enumerate() {
                let (call, result) = pair(&n.to_string(), json!({}), "same");
                let got = loops.saw(&LoopPolicy::new(1, 0), &call, &result);
                let times = letters[..=at].iter().filter(|m| *m == n).count();
                prop_assert_eq!(got, Verdict::Nudge { times: u32::try_from(times).unwrap() });
                if known.insert(*n) { news = at + 1; }
                let stale = letters[news..=at].iter().filter(|m| *m == n).count();
                let entry = loops.seen.last().unwrap();
                prop_assert_eq!(entry.2, u32::try_from(stale).unwrap_or(0));
            }
        }
    }
}
