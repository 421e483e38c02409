//! Which tool calls of one turn may run beside which: those that touch the same thing, one of them changing it, run one
//! after another in call order; all others run at the same time.
//!
//! Promises: two calls in each other's way are never out at the same time, and the earlier one goes first; calls in nobody's
//! way are ready at once; no call waits for one that comes after it, so there is no deadlock; each call is given out
//! once. Where two things cannot be told apart, they are taken for one: the price is some time, never a lost update.
//!
//! Paths are compared by their text alone (nothing is looked up, so a symbolic link is not seen through), with case,
//! separated by `/`. `.`, `..`, empty parts and a slash at the end do not count.

use serde_json::{Number, Value};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
};
use zo_traits::{ToolCall, ToolSpec, Touch};

/// Longest name of a thing, in bytes, that is compared; a longer one stands for everything of its kind.
const MAX_KEY: usize = 1024;

/// Most things that a tool may say it touches; one that says more runs alone. Bounds the work for a hostile tool list.
const MAX_TOUCHES: usize = 8;

/// The calls of one turn, and who waits for whom.
#[derive(Debug)]
pub(crate) struct Lanes {
    calls: Vec<Lane>,
    /// May begin and have not been given out. In call order.
    free: BTreeSet<usize>,
    /// How many have not ended.
    open: usize,
}

#[derive(Debug, Default)]
struct Lane {
    /// How many earlier calls it still waits for.
    waits: usize,
    /// Later calls that wait for it.
    holds: Vec<usize>,
    done: bool,
}

impl Lanes {
    /// Orders `calls`, each with what its tool says of itself. A call without a tool does nothing and is in nobody's way,
    /// but for a serial one, which is in everybody's.
    ///
    /// Compares every two calls: at most [`MAX_CALLS`](crate::MAX_CALLS) are meant.
    pub(crate) fn new<'a>(calls: impl IntoIterator<Item = (&'a ToolCall, Option<&'a ToolSpec>)>) -> Self {
        let claims: Vec<Claim<'_>> = calls.into_iter().map(|(call, spec)| Claim::of(call, spec)).collect();
        let mut lanes: Vec<Lane> = Vec::with_capacity(claims.len());
        for (at, claim) in claims.iter().enumerate() {
            let mut lane = Lane::default();
            for (earlier, other) in lanes.iter_mut().zip(&claims) {
                if claim.conflicts(other) {
                    earlier.holds.push(at);
                    lane.waits += 1;
                }
            }
            lanes.push(lane);
        }
        let free = lanes.iter().enumerate().filter(|(_, l)| l.waits == 0).map(|(i, _)| i).collect();
        Self { open: lanes.len(), calls: lanes, free }
    }

    /// Indices of calls that may begin now and were not given out before, in call order.
    pub(crate) fn ready(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.free).into_iter().collect()
    }

    /// The call at `index` has ended, or will never run; what waited for it alone is ready next. Saying it again changes
    /// nothing.
    pub(crate) fn done(&mut self, index: usize) {
        let Some(lane) = self.calls.get_mut(index) else { return };
        if std::mem::replace(&mut lane.done, true) {
            return;
        }
        self.open -= 1;
        self.free.remove(&index);
        for later in std::mem::take(&mut lane.holds) {
            let Some(lane) = self.calls.get_mut(later) else { continue };
            lane.waits -= 1;
            if lane.waits == 0 && !lane.done {
                self.free.insert(later);
            }
        }
    }

    /// Has every call ended?
    #[cfg(test)]
    pub(crate) fn is_over(&self) -> bool {
        self.open == 0
    }
}

/// What one call lays its hands on.
#[derive(Debug)]
enum Claim<'a> {
    /// Runs alone.
    All,
    These(Vec<Thing<'a>>),
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Thing<'a> {
    what: &'a str,
    write: bool,
    key: Key<'a>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    /// Everything of the kind.
    Any,
    /// One thing by its name. Text and number of the same digits are one name.
    Name(Cow<'a, str>),
    Path(Path),
}

impl<'a> Claim<'a> {
    fn of(call: &'a ToolCall, spec: Option<&'a ToolSpec>) -> Self {
        match spec {
            None => Self::These(Vec::new()),
            Some(spec) if spec.serial || spec.touches.len() > MAX_TOUCHES => Self::All,
            Some(spec) => {
                let things: HashSet<Thing<'a>> =
                    spec.touches.iter().map(|touch| Thing::of(touch, &call.args)).collect();
                Self::These(things.into_iter().collect())
            }
        }
    }

    fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => true,
            (Self::These(a), Self::These(b)) => a.iter().any(|a| b.iter().any(|b| a.conflicts(b))),
        }
    }
}

impl<'a> Thing<'a> {
    fn of(touch: &'a Touch, args: &'a Value) -> Self {
        let key = touch.arg.as_deref().and_then(|arg| named(args, arg)).map_or(Key::Any, |name| {
            match (name.len() <= MAX_KEY, touch.path) {
                (false, _) => Key::Any,
                (true, false) => Key::Name(name),
                (true, true) => Path::of(&name).map_or(Key::Any, Key::Path),
            }
        });
        Self { what: &touch.what, write: touch.write, key }
    }

    fn conflicts(&self, other: &Self) -> bool {
        (self.write || other.write) && self.what == other.what && self.key.overlaps(&other.key)
    }
}

impl Key<'_> {
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Name(a), Self::Name(b)) => a == b,
            (Self::Path(a), Self::Path(b)) => a.overlaps(b),
            // One tool takes it for a path, so it is one.
            (Self::Path(path), Self::Name(name)) | (Self::Name(name), Self::Path(path)) => {
                Path::of(name).is_none_or(|name| name.overlaps(path))
            }
        }
    }
}

/// The argument called `arg`, a field or a JSON Pointer, if it names something: a text or a number.
fn named<'a>(args: &'a Value, arg: &str) -> Option<Cow<'a, str>> {
    let value = if arg.starts_with('/') { args.pointer(arg) } else { args.get(arg) };
    match value? {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(n) => Some(Cow::Owned(digits(n))),
        _ => None,
    }
}

/// One text for one number: JSON writes 7 also as 7.0.
fn digits(n: &Number) -> String {
    match n.as_f64() {
        // Up to 2^53 every whole number is an f64 of its own.
        Some(f) if !n.is_i64() && !n.is_u64() && f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0 => {
            format!("{}", f + 0.0)
        }
        _ => n.to_string(),
    }
}

/// A path as its text tells it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Path {
    /// Empty for a relative path, `/` for an absolute one, `~` or `~name` for one in a home folder.
    root: String,
    /// The parts below the root, each with a slash after it: then a folder's text is the beginning of the texts of all
    /// that is in it, and of no other.
    below: String,
}

impl Path {
    /// `None` when the text does not tell where it leads: it climbs above its root, or has a backslash, which separates on
    /// some systems and not on others.
    fn of(text: &str) -> Option<Self> {
        if text.contains('\\') {
            return None;
        }
        let (root, rest) = match text.split_once('/') {
            Some(("", rest)) => ("/", rest),
            Some((home, rest)) if home.starts_with('~') => (home, rest),
            None if text.starts_with('~') => (text, ""),
            _ => ("", text),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in rest.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        let mut below = String::with_capacity(rest.len() + 1);
        for part in parts {
            below.push_str(part);
            below.push('/');
        }
        Some(Self { root: root.to_owned(), below })
    }

    /// Is it the same, or is one in the other? Roots of two kinds may be anywhere in each other.
    fn overlaps(&self, other: &Self) -> bool {
        let both = self.below.len().min(other.below.len());
        self.root != other.root || self.below.as_bytes().get(..both) == other.below.as_bytes().get(..both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Instant;

    fn spec(touches: impl IntoIterator<Item = Touch>) -> ToolSpec {
        touches.into_iter().fold(ToolSpec::new("t", "d", json!({"type": "object"})), ToolSpec::touch)
    }

    fn serial() -> ToolSpec {
        let mut spec = spec([]);
        spec.serial = true;
        spec
    }

    fn call(args: Value) -> ToolCall {
        ToolCall::new("c", "t", args)
    }

    /// Must the second of two calls wait for the first?
    fn waits(a: (&Value, &ToolSpec), b: (&Value, &ToolSpec)) -> bool {
        let (x, y) = (call(a.0.clone()), call(b.0.clone()));
        let mut there = Lanes::new([(&x, Some(a.1)), (&y, Some(b.1))]);
        let mut back = Lanes::new([(&y, Some(b.1)), (&x, Some(a.1))]);
        let (there, back) = (there.ready().len(), back.ready().len());
        assert_eq!(there, back, "being in the way is mutual");
        there == 1
    }

    fn paths_meet(a: &str, b: &str) -> bool {
        let edit = spec([Touch::writes("file").path("path")]);
        waits((&json!({"path": a}), &edit), (&json!({"path": b}), &edit))
    }

    #[test]
    fn paths_are_compared_by_their_text() {
        for (a, b) in [
            ("a", "a"),
            ("a/b", "./a//b/"),
            ("a/b", "a/x/../b"),
            ("a", "a/b/c"),
            ("/a/b/c", "/a"),
            ("/", "/etc/passwd"),
            ("", "a"),
            (".", "a/b"),
            ("a/..", "b"),
            ("~/a", "~/a/b"),
            ("~", "~/a"),
            // Where these are to each other, nobody can tell.
            ("a", "/somewhere/a"),
            ("a", "/b"),
            ("~/a", "/home/me/a"),
            ("~/a", "a"),
            ("~me/a", "~/a"),
            // Above the root.
            ("../a", "b"),
            ("a/../../b", "c"),
            ("/../a", "/b"),
            ("~/..", "~/b"),
            ("a\\b", "c"),
        ] {
            assert!(paths_meet(a, b), "{a:?} and {b:?}");
        }
        for (a, b) in [
            ("a", "b"),
            ("a/b", "a/bc"),
            ("a", "A"),
            ("/a/b", "/a/c"),
            ("/a", "/ab/a"),
            ("a/../b", "a"),
            ("~/a", "~/b"),
            ("a/...", "a/.b"),
        ] {
            assert!(!paths_meet(a, b), "{a:?} and {b:?}");
        }
        let long = "x".repeat(MAX_KEY);
        assert!(!paths_meet(&long, "b") && paths_meet(&format!("{long}x"), "b"), "too long to be compared");
    }

    #[test]
    fn only_the_same_thing_in_a_writers_hands_is_in_the_way() {
        let (read, write) = (spec([Touch::reads("file").path("p")]), spec([Touch::writes("file").path("p")]));
        let (a, b) = (json!({"p": "a"}), json!({"p": "b"}));
        assert!(!waits((&a, &read), (&a, &read)), "readers share");
        assert!(waits((&a, &read), (&a, &write)));
        assert!(waits((&a, &write), (&a, &write)));
        assert!(!waits((&a, &write), (&b, &write)));
        let other = spec([Touch::writes("account").arg("p")]);
        assert!(!waits((&a, &write), (&a, &other)), "of another kind");
        let whole = spec([Touch::writes("file")]);
        assert!(waits((&a, &read), (&json!({}), &whole)), "a tool that names no thing touches them all");
        let as_name = spec([Touch::writes("file").arg("p")]);
        assert!(waits((&json!({"p": "a/b"}), &as_name), (&a, &write)), "a name where the other has a path");
        assert!(!waits((&json!({"p": "c"}), &as_name), (&a, &write)));
        let none = spec([]);
        assert!(!waits((&a, &none), (&a, &whole)));
        assert!(waits((&a, &serial()), (&a, &none)), "alone is alone");
        let two = spec([Touch::reads("file").path("p"), Touch::writes("file").path("to")]);
        assert!(waits((&json!({"p": "x", "to": "a"}), &two), (&a, &read)));
        assert!(!waits((&json!({"p": "a", "to": "x"}), &two), (&a, &read)));
        let many = spec((0..=MAX_TOUCHES).map(|i| Touch::reads(format!("k{i}"))));
        assert!(waits((&a, &many), (&a, &none)), "whoever touches too much runs alone");
    }

    #[test]
    fn an_argument_that_names_nothing_touches_everything() {
        let pay = spec([Touch::writes("account").arg("from")]);
        let known = json!({"from": "savings"});
        for args in [
            json!({}),
            json!({"from": null}),
            json!({"from": ["savings"]}),
            json!({"from": true}),
            json!({"From": "x"}),
            json!("{\"from\": broken"),
            json!([]),
            json!(null),
        ] {
            assert!(waits((&args, &pay), (&known, &pay)), "{args}");
        }
        for (a, b, same) in [
            (json!(7), json!("7"), true),
            (json!(7), json!(7.0), true),
            (json!(-0.0), json!(0), true),
            (json!(7), json!(7.5), false),
            (json!("savings "), json!("savings"), false),
            (json!(u64::MAX), json!(u64::MAX - 1), false),
        ] {
            assert_eq!(waits((&json!({"from": a}), &pay), (&json!({"from": b}), &pay)), same, "{a} and {b}");
        }
        let deep = spec([Touch::writes("account").arg("/to/0/id")]);
        let to = |id: &str| json!({"to": [{"id": id}]});
        assert!(waits((&to("a"), &deep), (&to("a"), &deep)) && !waits((&to("a"), &deep), (&to("b"), &deep)));
    }

    #[test]
    fn a_call_without_a_tool_is_in_nobodys_way() {
        let (c, whole) = (call(json!({})), spec([Touch::writes("file")]));
        let mut lanes = Lanes::new([(&c, Some(&whole)), (&c, None), (&c, Some(&whole))]);
        assert_eq!(lanes.ready(), [0, 1]);
        lanes.done(1);
        assert_eq!(lanes.ready(), [0usize; 0]);
        lanes.done(0);
        lanes.done(0);
        assert_eq!(lanes.ready(), [2]);
        lanes.done(99);
        assert!(!lanes.is_over());
        lanes.done(2);
        assert!(lanes.is_over() && Lanes::new([]).is_over());
    }

    #[test]
    fn a_call_that_never_runs_holds_nobody_and_is_not_given_out() {
        let (a, b) = (spec([Touch::writes("x")]), spec([Touch::writes("x"), Touch::writes("y")]));
        let (c, y) = (call(json!({})), spec([Touch::writes("y")]));
        let mut lanes = Lanes::new([(&c, Some(&a)), (&c, Some(&b)), (&c, Some(&y))]);
        lanes.done(1);
        assert_eq!(lanes.ready(), [0, 2]);
        lanes.done(0);
        assert_eq!(lanes.ready(), [0usize; 0]);
        let mut lanes = Lanes::new([(&c, Some(&a)), (&c, Some(&a))]);
        lanes.done(0);
        assert_eq!(lanes.ready(), [1], "the first could have begun but was given up before");
    }

    #[test]
    fn the_worst_turn_costs_little() {
        let touches: Vec<Touch> =
            (0..MAX_TOUCHES).map(|i| Touch::reads("file").path(format!("p{i}"))).collect();
        let spec = spec(touches);
        // Equal but for the last bytes, as long as may be, and none in another's way: everything is compared to its end.
        let long = "d/".repeat(MAX_KEY / 2 - 8);
        let calls: Vec<ToolCall> = (0..crate::MAX_CALLS)
            .map(|n| {
                let field = |i| (format!("p{i}"), json!(format!("{long}{n:03}-{i:02}")));
                call(Value::Object((0..MAX_TOUCHES).map(field).collect()))
            })
            .collect();
        let mut write = spec.clone();
        write.touches.iter_mut().for_each(|t| t.write = true);
        let start = Instant::now();
        let mut lanes = Lanes::new(calls.iter().map(|c| (c, Some(&write))));
        let took = start.elapsed();
        println!("{} calls of {MAX_TOUCHES} paths each: {took:?}", calls.len());
        assert_eq!(lanes.ready().len(), calls.len());
        assert!(took.as_secs() < 5, "{took:?}");
        let huge = call(json!({"p0": "../".repeat(1 << 20), "p1": "a/".repeat(1 << 20)}));
        let start = Instant::now();
        let mut lanes = Lanes::new((0..crate::MAX_CALLS).map(|_| (&huge, Some(&write))));
        assert_eq!(lanes.ready(), [0]);
        assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
    }

    /// Calls over few kinds and few names, so that they often meet.
    fn turns() -> impl Strategy<Value = Vec<(ToolCall, Option<ToolSpec>)>> {
        let name = prop_oneof![
            Just(json!("a")),
            Just(json!("a/b")),
            Just(json!("a/../c")),
            Just(json!("/a")),
            Just(json!("..")),
            Just(json!(7)),
            Just(json!(null)),
            "[./a~]{0,6}".prop_map(Value::String),
        ];
        let touch = (any::<bool>(), 0..4u8, 0..3u8).prop_map(|(write, what, how)| {
            let touch =
                if write { Touch::writes(format!("k{what}")) } else { Touch::reads(format!("k{what}")) };
            match how {
                0 => touch,
                1 => touch.arg("x"),
                _ => touch.path("x"),
            }
        });
        let tool = prop_oneof![
            1 => Just(None),
            1 => Just(Some(serial())),
            12 => prop::collection::vec(touch, 0..3).prop_map(|touches| Some(spec(touches))),
        ];
        prop::collection::vec((name.prop_map(|x| call(json!({"x": x}))), tool), 0..24)
    }

    proptest! {
        #[test]
        fn order_where_it_matters_and_nowhere_else(turn in turns(), picks in prop::collection::vec(any::<(u8, bool)>(), 64)) {
            let claims: Vec<Claim<'_>> = turn.iter().map(|(c, s)| Claim::of(c, s.as_ref())).collect();
            let meet = |a: usize, b: usize| claims[a].conflicts(&claims[b]);
            let mut lanes = Lanes::new(turn.iter().map(|(c, s)| (c, s.as_ref())));
            let (mut out, mut ended) = (Vec::<usize>::new(), vec![false; turn.len()]);
            let (mut given, mut dropped) = (vec![0; turn.len()], vec![false; turn.len()]);
            let mut picks = picks.into_iter().cycle();
            while !lanes.is_over() {
                let ready = lanes.ready();
                prop_assert!(ready.is_sorted());
                for at in ready {
                    given[at] += 1;
                    out.push(at);
                }
                for at in 0..turn.len() {
                    let held = (0..at).any(|earlier| meet(earlier, at) && !ended[earlier]);
                    let begun = given[at] == 1;
                    // Begins exactly when all that is in its way and comes before it has ended.
                    prop_assert!(dropped[at] || begun != held, "{at} of {turn:?}");
                }
                for (n, a) in out.iter().enumerate() {
                    for b in &out[..n] {
                        prop_assert!(!meet(*a, *b), "{a} beside {b} in {turn:?}");
                    }
                }
                let (pick, skip) = picks.next().unwrap();
                prop_assert!(!out.is_empty(), "a deadlock in {turn:?}");
                // Now and then a call that waits is given up.
                let waiting = (0..turn.len()).find(|at| given[*at] == 0 && !ended[*at]);
                let at = match waiting {
                    Some(at) if skip && pick % 4 == 0 => {
                        dropped[at] = true;
                        at
                    }
                    _ => out.swap_remove(usize::from(pick) % out.len()),
                };
                ended[at] = true;
                lanes.done(at);
            }
            prop_assert!(lanes.ready().is_empty());
            for at in 0..turn.len() {
                prop_assert_eq!(given[at], i32::from(!dropped[at]));
            }
        }

        #[test]
        fn a_normal_path_is_the_path(parts in prop::collection::vec("[a-c]{1,2}", 1..5), noise in prop::collection::vec(0..4u8, 5), up in any::<bool>()) {
            let plain = parts.join("/");
            let mut noisy = String::from(if up { "zz/../" } else { "./" });
            for (part, noise) in parts.iter().zip(&noise) {
                noisy.push_str(part);
                noisy.push_str(["/", "//", "/./", "/y/../"][usize::from(*noise)]);
            }
            prop_assert_eq!(Path::of(&plain), Path::of(&noisy));
            prop_assert_eq!(Path::of(&format!("/{plain}")), Path::of(&format!("/{noisy}")));
            // The meaning of overlap, said in another way.
            let split: Vec<&String> = parts.iter().collect();
            let (a, b) = (Path::of(&plain).unwrap(), Path::of("a/b").unwrap());
            let common = split.iter().zip(["a", "b"]).all(|(x, y)| *x == y);
            prop_assert_eq!(a.overlaps(&b), common);
        }
    }
}
