//! What is asked of one argument of a call, and two answers to it: does it *surely* hold, and *may* it hold?
//!
//! The arguments come from a model that may have been talked into something. So a yes is given only to what is written
//! plainly, and what has several readings, or cannot be read, is taken for the worst one. Between the two answers lies all
//! that a person should look at.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A condition on one argument of a tool call.
///
/// The argument is named by a field or by a JSON Pointer (RFC 6901), in which `*` stands for every item of a list
/// (`/edits/*/path`). Where there are several, or the argument is a list, all must hold for a *surely*, and one is enough for a
/// *may*.
///
/// In a pattern `*` stands for any characters, none and `/` included, and `?` for one. It is about the whole text, never a
/// part of it, and it is not a regular expression.
///
/// An argument that is missing, `null`, an empty list or of another type never surely holds, and always may.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Arg {
    /// The argument: a field name, or a JSON Pointer if it begins with `/`.
    pub at: String,
    /// What is asked of it.
    pub is: Test,
    /// To leave it out, or to give `null`, is harmless: that surely holds for what an allow asks for, and cannot hold for
    /// what is denied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// What can be asked of an argument.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Test {
    /// A text of this pattern, which may be any text. For paths, commands and addresses use the others: `*` takes
    /// everything, `; rm -rf /` and `/../../` included.
    Text(String),
    /// A path of this pattern, once `.`, `..`, doubled separators and backslashes are resolved. Nothing is looked up on a
    /// disk: links and other names of one file are not seen, which is what a sandbox is for. Who is denied what is in a
    /// folder is denied the folder and those around it as well.
    Path {
        /// The pattern; relative to `base` if it does not begin with `/`.
        pattern: String,
        /// The folder that relative paths start from. Without it a relative path cannot be compared with an absolute
        /// pattern, nor the other way around.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<String>,
    },
    /// A command line that is one plain command of this pattern. One with any character that means something to a shell
    /// (quotes and line ends included), with `..` in a path or with an option that the pattern does not spell out is not
    /// plain: `git *` covers `git status` and neither `git status; sh` nor `git -c core.pager=sh log`. A denied command is
    /// also found behind another (`env rm`) and under a path (`/bin/rm`); but what a program may be made to do has no
    /// end, so rather deny all commands *unless* they are some.
    Command(String),
    /// An `http` or `https` address whose host has this pattern: `*.example.org`.
    Host(String),
    /// Exactly this JSON value. The order of keys is of no matter; `1` and `1.0` are different, but may be meant to be the
    /// same.
    Value(Value),
}

impl Arg {
    fn new(at: impl Into<String>, is: Test) -> Self {
        Self { at: at.into(), is, optional: false }
    }

    /// [`Test::Text`].
    pub fn text(at: impl Into<String>, pattern: impl Into<String>) -> Self {
        Self::new(at, Test::Text(pattern.into()))
    }

    /// [`Test::Path`] without a base.
    pub fn path(at: impl Into<String>, pattern: impl Into<String>) -> Self {
        Self::new(at, Test::Path { pattern: pattern.into(), base: None })
    }

    /// [`Test::Path`], relative paths starting from `base`.
    pub fn path_in(base: impl Into<String>, at: impl Into<String>, pattern: impl Into<String>) -> Self {
        Self::new(at, Test::Path { pattern: pattern.into(), base: Some(base.into()) })
    }

    /// [`Test::Command`].
    pub fn command(at: impl Into<String>, pattern: impl Into<String>) -> Self {
        Self::new(at, Test::Command(pattern.into()))
    }

    /// [`Test::Host`].
    pub fn host(at: impl Into<String>, pattern: impl Into<String>) -> Self {
        Self::new(at, Test::Host(pattern.into()))
    }

    /// [`Test::Value`].
    pub fn value(at: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(at, Test::Value(value.into()))
    }

    /// To leave it out is [harmless](Arg::optional).
    #[must_use]
    pub fn or_missing(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Is it beyond doubt that it holds?
    pub(super) fn surely(&self, args: &Value) -> bool {
        let found = self.find(args);
        !found.is_empty() && found.into_iter().all(|v| self.each(v, true))
    }

    /// Is it not beyond doubt that it does not hold?
    pub(super) fn may(&self, args: &Value) -> bool {
        let found = self.find(args);
        found.is_empty() || found.into_iter().any(|v| self.each(v, false))
    }

    /// Does it hold, or may it, whatever the arguments are?
    pub(super) fn is_anything(&self) -> bool {
        let all = |pattern: &str| !pattern.is_empty() && pattern.bytes().all(|b| b == b'*');
        !self.optional && matches!(&self.is, Test::Text(p) if all(p))
    }

    /// What is wrong with it, if something is.
    pub(super) fn fault(&self) -> Option<String> {
        if self.at.is_empty() {
            return Some("a condition names no argument".to_owned());
        }
        let bad = |what: &str| Some(format!("the condition on {:?}: {what}", self.at));
        match &self.is {
            Test::Path { base: Some(base), .. } if !is_absolute(base) => bad("its base is not absolute"),
            Test::Path { pattern, base } if path_pattern(pattern, base.as_deref()).is_none() => {
                bad("its path has no single meaning")
            }
            Test::Command(p) if !p.chars().all(|c| is_plain(c) || matches!(c, '*' | '?')) => {
                bad("its command is not a plain one, so no command can match it")
            }
            Test::Host(p) if !p.chars().all(|c| is_host(c) || matches!(c, '*' | '?')) => {
                bad("its pattern is not that of a host")
            }
            _ => None,
        }
    }

    fn each(&self, value: Option<&Value>, sure: bool) -> bool {
        match (value, &self.is) {
            (None | Some(Value::Null), test)
                if !matches!((test, value), (Test::Value(Value::Null), Some(_))) =>
            {
                self.optional == sure
            }
            (Some(value), Test::Value(want)) => value == want || (!sure && may_mean(value, want)),
            // What surely holds may hold, whatever became of the text in the comparison that finds more.
            (Some(Value::String(text)), test) => test.holds(text, true) || (!sure && test.holds(text, false)),
            // One reading is a yes only for who fears it.
            _ => !sure,
        }
    }

    /// What the argument is: one value, each item of a list, nothing where something is missing.
    fn find<'v>(&self, args: &'v Value) -> Vec<Option<&'v Value>> {
        let mut found = vec![Some(args)];
        match self.at.strip_prefix('/') {
            None => found = vec![args.get(&self.at)],
            Some(path) => {
                for token in path.split('/') {
                    let token = token.replace("~1", "/").replace("~0", "~");
                    found = found.into_iter().flat_map(|value| step(value, &token)).collect();
                }
            }
        }
        if matches!(self.is, Test::Value(_)) {
            return found;
        }
        found
            .into_iter()
            .flat_map(|value| match value {
                Some(Value::Array(items)) if !items.is_empty() => items.iter().map(Some).collect(),
                other => vec![other],
            })
            .collect()
    }
}

fn step<'v>(value: Option<&'v Value>, token: &str) -> Vec<Option<&'v Value>> {
    match value {
        Some(Value::Array(items)) if token == "*" => items.iter().map(Some).collect(),
        Some(Value::Array(items)) => vec![token.parse().ok().and_then(|n: usize| items.get(n))],
        Some(value) => vec![value.get(token)],
        None => vec![None],
    }
}

/// Might a lenient tool take one for the other?
fn may_mean(value: &Value, want: &Value) -> bool {
    match (value, want) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => fold(a) == fold(b),
        (Value::Bool(_), Value::Bool(_)) => false,
        // Of two lists or objects some part differs, and a part might be meant to be the same.
        _ => true,
    }
}

impl Test {
    fn holds(&self, text: &str, sure: bool) -> bool {
        match self {
            Self::Text(pattern) if sure => glob(pattern, text),
            Self::Text(pattern) => glob(&fold(pattern), &fold(text)),
            Self::Path { pattern, base } => path(pattern, base.as_deref(), text, sure),
            Self::Command(pattern) => command(pattern, text, sure),
            Self::Host(pattern) => host(pattern, text, sure),
            Self::Value(_) => !sure,
        }
    }
}

/// For comparisons that had better find too much.
fn fold(text: &str) -> String {
    text.trim().to_lowercase()
}

/// Does the whole text have this pattern? Takes at most the product of their lengths.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Behind the last star, and where in the text what it stands for ends.
    let mut star = None;
    loop {
        let rest = text.clone();
        let matches = match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text = rest;
                star = Some((pattern.clone(), text.clone()));
                continue;
            }
            (Some('?'), Some(_)) => true,
            (Some(p), Some(t)) => p == t,
            (Some(_), None) => return false,
            (None, Some(_)) => false,
        };
        if !matches {
            let Some((behind, at)) = &mut star else { return false };
            if at.next().is_none() {
                return false;
            }
            (pattern, text) = (behind.clone(), at.clone());
        }
    }
}

fn is_absolute(path: &str) -> bool {
    path.starts_with(['/', '\\']) || drive(path)
}

/// `C:` in front?
fn drive(path: &str) -> bool {
    let mut chars = path.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':')
}

/// Joined to the base and without `.`, `..` and doubled separators: `/a/b`, or `a/b`, or `../a`.
fn resolve(path: &str, base: Option<&str>, separators: &[char]) -> String {
    let whole = match base {
        Some(base) if !is_absolute(path) => format!("{base}/{path}"),
        _ => path.to_owned(),
    };
    let rooted = whole.starts_with(separators);
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split(separators) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

const SEPARATORS: &[char] = &['/', '\\'];

/// The pattern of a path, resolved; `None` when it has no single meaning.
fn path_pattern(pattern: &str, base: Option<&str>) -> Option<String> {
    let climbs = pattern.split(SEPARATORS).any(|part| part == "..");
    (!climbs && base.is_none_or(is_absolute)).then(|| resolve(pattern, base, SEPARATORS))
}

fn path(pattern: &str, base: Option<&str>, text: &str, sure: bool) -> bool {
    // What a tool might expand or decode has more readings than can be compared.
    let odd = |c: char| c.is_control() || matches!(c, '$' | '`' | '%' | '{' | '}');
    let drive_relative = drive(text) && !text.get(2..).is_some_and(|rest| rest.starts_with(SEPARATORS));
    if text.is_empty()
        || text.starts_with('~')
        || text.contains(odd)
        || text.contains("://")
        || text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
        || text.trim() != text
        || drive_relative
    {
        return !sure;
    }
    let Some(pattern) = path_pattern(pattern, base) else { return !sure };
    let one = |separators: &[char]| {
        let path = resolve(text, base, separators);
        if path == ".." || path.starts_with("../") {
            return !sure;
        }
        let anywhere = pattern.starts_with(['*', '?']);
        if !anywhere && is_absolute(&path) != is_absolute(&pattern) {
            return !sure;
        }
        if sure {
            return glob(&pattern, &path);
        }
        let (pattern, path) = (fold(&pattern), fold(&path));
        glob(&pattern, &path) || is_around(&path, &pattern)
    };
    // A backslash separates on one system and is a letter on another.
    if sure { one(&['/']) && one(SEPARATORS) } else { one(&['/']) || one(SEPARATORS) }
}

/// Is `path` a folder around all that the pattern can mean?
fn is_around(path: &str, pattern: &str) -> bool {
    let plain = pattern.split(['*', '?']).next().unwrap_or_default();
    let within =
        if plain.len() == pattern.len() { plain } else { plain.rsplit_once('/').map_or("", |(p, _)| p) };
    match path {
        // Behind a star there is no folder to be around of.
        _ if pattern.starts_with(['*', '?']) => false,
        "/" => pattern.starts_with('/'),
        "." => !pattern.starts_with('/'),
        _ => within == path || within.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')),
    }
}

/// Characters that mean only themselves to every shell, spaces between words aside.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '.' | '/' | ':' | ',' | '@' | '+' | '-' | '=')
}

/// Longer command lines are nobody's plain command.
const MAX_COMMAND: usize = 1024;

fn command(pattern: &str, text: &str, sure: bool) -> bool {
    let climbs = text.split([' ', '/', '=', ':', ',']).any(|part| part == "..");
    if text.len() > MAX_COMMAND || !text.chars().all(is_plain) || climbs {
        return !sure;
    }
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    if sure {
        let spelled =
            |option: &&&str| pattern.split(' ').any(|word| word.starts_with('-') && glob(word, option));
        let options = words.iter().filter(|word| word.starts_with('-'));
        return glob(pattern, &words.join(" ")) && options.clone().count() == options.filter(spelled).count();
    }
    let pattern = fold(pattern);
    // `rm *` is about `rm` too.
    let bare = pattern.strip_suffix(" *").unwrap_or(&pattern);
    let mut rest = words.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        for name in [*first, first.rsplit('/').next().unwrap_or(first)] {
            let line = fold(&[&[name], behind].concat().join(" "));
            if glob(&pattern, &line) || glob(bare, &line) {
                return true;
            }
        }
        rest = behind;
    }
    words.is_empty()
}

fn is_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

fn host(pattern: &str, text: &str, sure: bool) -> bool {
    let Some(host) = plain_host(text) else { return !sure };
    let pattern = pattern.to_ascii_lowercase();
    // An address in digits has many spellings.
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.chars().all(|c| c.is_ascii_digit()) || last.starts_with("0x");
    match (number, sure) {
        (true, true) => host == pattern,
        (true, false) => true,
        (false, _) => glob(&pattern, &host),
    }
}

/// The host of an address that every parser reads alike, in lower case.
fn plain_host(text: &str) -> Option<String> {
    if !text.chars().all(|c| c.is_ascii_graphic() && c != '\\') {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let host = host.strip_suffix('.').unwrap_or(host);
    let good = !host.is_empty() && host.chars().all(is_host) && port.chars().all(|c| c.is_ascii_digit());
    good.then(|| host.to_ascii_lowercase())
}
