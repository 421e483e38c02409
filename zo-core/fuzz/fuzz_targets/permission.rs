//! Any permissions, tool and arguments: they are judged in good time, no stricter part is outvoted, and a plain deny holds.
//!
//! Input: three JSON texts one after the other (permissions, tool, arguments), or else bytes from which they are built. The
//! input as it is is also read as a cursor, as a persona and as a list of personas.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};
use zo_core::{
    Cursor, Effect, Permissions, Persona, Personas, Preset, ToolSpec, Verdict,
    permission::{Arg, Rule, Test},
};

/// Longer than all of it may take, on a slow and busy machine.
const MOST_TIME: Duration = Duration::from_secs(5);

const NAMES: [&str; 7] = ["shell", "read_file", "write_file", "", "*", "*_file", "?hell"];
const SCOPES: [&str; 8] =
    ["files:read", "files:write", "files:*", "shell:execute", "settings:manage", "integrations:x", "*", ""];
const FIELDS: [&str; 8] = ["path", "command", "url", "/edits/*/path", "/a~1b", "/0", "", "/"];
const KEYS: [&str; 7] = ["path", "command", "url", "edits", "a/b", "0", ""];
const PATTERNS: [&str; 12] = [
    "keys/*",
    "/home/me/**",
    "git *",
    "rm *",
    "*.example.org",
    "*",
    "../x",
    "C:\\a\\*",
    "git -c *",
    "10.*",
    "K\u{212a}?",
    "a*b*c*d*",
];
const TEXTS: [&str; 16] = [
    "keys/id",
    "work/../keys/id",
    "/home/me/a",
    "git status",
    "git status; sh",
    "/bin/rm -rf /",
    "https://a.example.org/x",
    "http://2130706433/",
    "https://a@b.example.org\\@c",
    "",
    "..",
    "C:x",
    "k\u{301}ey",
    "file:///etc",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u{130}s",
];
const PRESETS: [Preset; 4] = [Preset::AllAccess, Preset::Workspace, Preset::ReadOnly, Preset::ChatOnly];

/// Makes values out of bytes; at their end everything is small.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()].clone()
    }

    fn value(&mut self, depth: u8) -> Value {
        match self.byte() % if depth == 0 { 6 } else { 9 } {
            0 => Value::Null,
            1 => json!(self.byte() % 2 == 0),
            2 => json!([1, -1, 0][usize::from(self.byte() % 3)]),
            3 => json!(1.0),
            4 | 5 => json!(self.pick(&TEXTS)),
            6 => (0..self.byte() % 4).map(|_| self.value(depth - 1)).collect(),
            _ => Value::Object(self.object(depth - 1)),
        }
    }

    fn object(&mut self, depth: u8) -> Map<String, Value> {
        (0..self.byte() % 5).map(|_| (self.pick(&KEYS).to_owned(), self.value(depth))).collect()
    }

    fn verdict(&mut self) -> Verdict {
        self.pick(&[Verdict::Allow, Verdict::Ask, Verdict::Deny])
    }

    fn arg(&mut self) -> Arg {
        let (at, pattern) = (self.pick(&FIELDS), self.pick(&PATTERNS));
        let arg = match self.byte() % 6 {
            0 => Arg::text(at, pattern),
            1 => Arg::path(at, pattern),
            2 => Arg::path_in(self.pick(&["/home/me", "", "rel", "C:\\"]), at, pattern),
            3 => Arg::command(at, pattern),
            4 => Arg::host(at, pattern),
            _ => Arg::value(at, self.value(2)),
        };
        if self.byte() % 4 == 0 { arg.or_missing() } else { arg }
    }

    fn rule(&mut self) -> Rule {
        let mut rule = Rule::new(self.verdict());
        let what = self.byte();
        if what % 2 == 0 {
            rule = rule.tool(self.pick(&NAMES));
        }
        if what % 8 < 2 {
            rule = rule.scope(self.pick(&SCOPES));
        }
        for _ in 0..(what >> 4) % 3 {
            rule = rule.when(self.arg());
        }
        for _ in 0..what >> 6 {
            rule = rule.unless(self.arg());
        }
        rule
    }

    fn permissions(&mut self, depth: u8) -> Permissions {
        let mut p = match self.byte() % 4 {
            0 => Permissions::preset(self.pick(&PRESETS)),
            1 => Permissions::default().scopes((0..self.byte() % 4).map(|_| self.pick(&SCOPES))),
            _ => Permissions::default(),
        };
        p = p.otherwise(self.verdict()).ungranted(self.verdict()).undeclared(self.verdict());
        for _ in 0..self.byte() % 5 {
            p = p.rule(self.rule());
        }
        if depth > 0 && self.byte() % 4 == 0 { p.within(Arc::new(self.permissions(depth - 1))) } else { p }
    }

    fn spec(&mut self) -> ToolSpec {
        let effects = [Effect::Pure, Effect::Idempotent, Effect::AtMostOnce];
        let mut spec = ToolSpec::new(self.pick(&NAMES), "It does.", json!({"type": "object"}))
            .effect(self.pick(&effects));
        for _ in 0..self.byte() % 3 {
            spec = spec.scope(self.pick(&SCOPES));
        }
        spec
    }
}

/// What can be read is written again without loss.
fn keeps<T: Serialize + DeserializeOwned + PartialEq + Debug>(it: &T) {
    let text = serde_json::to_string(it).expect("it can be written");
    let again: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(&again, it, "{text}");
}

/// A value that a deny names plainly, and that a call gives exactly so.
fn plain(test: &Test, given: &Value) -> bool {
    match (test, given) {
        (Test::Value(want), given) => want == given,
        (Test::Text(pattern), Value::String(text)) => !pattern.contains(['*', '?']) && pattern == text,
        _ => false,
    }
}

/// A deny of exactly this tool, with nothing but conditions that plainly hold, at plain fields.
fn denies(p: &Permissions, spec: &ToolSpec, args: &Value) -> bool {
    let field = |arg: &Arg| (!arg.at.starts_with('/')).then(|| args.get(&arg.at)).flatten();
    let here = p.rules.iter().any(|rule| {
        rule.verdict == Verdict::Deny
            && rule.tool.as_ref().is_none_or(|tool| *tool == spec.name || tool == "*")
            && rule.scope.is_none()
            && rule.unless.is_empty()
            && rule.when.iter().all(|arg| field(arg).is_some_and(|given| plain(&arg.is, given)))
    });
    here || p.within.as_ref().is_some_and(|outer| denies(outer, spec, args))
}

fn judge(p: &Permissions, spec: &ToolSpec, args: &Value) {
    let checked = p.check().is_ok();
    let verdict = p.decide(spec, Some(args));
    let (again, why) = p.explain(spec, Some(args));
    assert_eq!(again, verdict);
    let reasons = p.rules.iter().any(|rule| rule.because.is_some()) || p.within.is_some();
    assert!(reasons || !why.is_empty(), "a verdict without a reason");
    let best = p.decide(spec, None);
    assert_eq!(p.explain(spec, None).0, best);
    assert!(best <= verdict, "the best to hope for is {best:?}, and a call got {verdict:?}: {p:?}");
    if denies(p, spec, args) {
        assert_eq!(verdict, Verdict::Deny, "denied plainly, {p:?} {args}");
    }
    // The order of rules is of no matter, and a rule more that restricts loosens nothing.
    let mut other = p.clone();
    other.rules.reverse();
    assert_eq!(other.decide(spec, Some(args)), verdict, "the order of rules counts: {p:?}");
    if let Some(outer) = &p.within {
        assert!(verdict >= outer.decide(spec, Some(args)), "an inner one outvotes the outer");
    }
    assert_eq!(p.clone().rule(Rule::deny()).decide(spec, Some(args)), Verdict::Deny);
    let named = p.clone().rule(Rule::deny().tool(&*spec.name));
    let exactly = !spec.name.contains('*') && !spec.name.contains('?');
    assert!(!exactly || named.decide(spec, Some(args)) == Verdict::Deny);
    for (field, given) in args.as_object().into_iter().flatten() {
        if field.is_empty() || field.starts_with('/') {
            continue;
        }
        let exact = p.clone().rule(Rule::deny().when(Arg::value(field, given.clone())));
        assert_eq!(exact.decide(spec, Some(args)), Verdict::Deny, "field {field:?} of {args}");
        if let Value::String(text) = given {
            let exact = p.clone().rule(Rule::deny().when(Arg::text(field, text)));
            assert_eq!(exact.decide(spec, Some(args)), Verdict::Deny, "field {field:?} of {args}");
        }
    }
    assert!(p.clone().within(Arc::new(p.clone())).decide(spec, Some(args)) == verdict, "twice the same");
    keeps(p);
    assert_eq!(p.clone().within(Arc::new(p.clone())).check().is_ok(), checked);
}

fuzz_target!(|data: &[u8]| {
    let begun = Instant::now();
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(cursor) = text.parse::<Cursor>() {
            assert_eq!(cursor.to_string().parse::<Cursor>().expect("it was written"), cursor);
            keeps(&cursor);
        }
        if let Ok(persona) = serde_json::from_str::<Persona>(text) {
            let _ = (persona.check(), persona.offers("read_file"), persona.offers(""));
            keeps(&persona);
        }
        if let Ok(all) = Personas::from_json(text) {
            assert!(all.iter().all(|p| p.check().is_ok() && all.get(&p.name) == Some(p)));
            assert!(all.require("no such one").is_err());
        }
    }
    let mut texts = serde_json::Deserializer::from_slice(data).into_iter::<Value>();
    let (p, spec, args) = (|| {
        let p: Permissions = serde_json::from_value(texts.next()?.ok()?).ok()?;
        let spec: ToolSpec = serde_json::from_value(texts.next()?.ok()?).ok()?;
        Some((p, spec, texts.next()?.ok()?))
    })()
    .unwrap_or_else(|| {
        let mut source = Source(data);
        let (p, spec) = (source.permissions(2), source.spec());
        (p, spec, Value::Object(source.object(3)))
    });
    judge(&p, &spec, &args);
    assert!(begun.elapsed() < MOST_TIME, "took {:?}", begun.elapsed());
});
