//! Slots: the leaves of a tool's schema that want a value, with what their names and descriptions say about it.

use super::{
    schema::{self, Kind},
    words::{self, Stem, cut, stem},
};
use serde_json::Value;

/// What a text slot is about, as far as its name and description tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    Date,
    DateTime,
    Time,
    Email,
    Url,
    Expression,
    Id,
    Place,
    Person,
    Language,
    Currency,
    /// Words of the user's own: a message, a note, a query.
    Free,
    Other,
}

/// A path step into the first item of an array.
pub(super) const FIRST: &str = "\0";

/// A leaf that wants a value.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    /// Property names from the root; [`FIRST`] steps into an array.
    pub(super) path: Vec<&'a str>,
    /// Resolved schema of the leaf (of its items, for an array).
    pub(super) node: &'a Value,
    /// The leaf as it stands in the schema.
    pub(super) whole: &'a Value,
    pub(super) kind: Kind,
    /// Takes a list of [`kind`](Slot::kind).
    pub(super) list: bool,
    /// It and all objects around it are required.
    pub(super) required: bool,
    /// Name and description, lower-cased.
    pub(super) words: String,
    /// Length of the name in [`words`](Slot::words).
    name_len: usize,
    /// Words of the name, with weights that fall when other slots share them.
    pub(super) name: Vec<(Stem, f32)>,
    /// Words of the description, likewise.
    pub(super) about: Vec<(Stem, f32)>,
    pub(super) hint: Hint,
}

const MAX_SLOTS: usize = 64;

impl<'a> Slot<'a> {
    /// The property's own name.
    pub(super) fn label(&self) -> &'a str {
        self.path.iter().rev().find(|p| **p != FIRST).copied().unwrap_or("")
    }

    /// The name, lower-cased, words apart.
    pub(super) fn name_words(&self) -> &str {
        self.words.get(..self.name_len).unwrap_or("")
    }

    /// Does the name hold one of these words?
    pub(super) fn named(&self, any: &[&str]) -> bool {
        self.name_words().split(' ').any(|w| any.contains(&w))
    }

    /// Does the name or description hold one of these words?
    pub(super) fn speaks_of(&self, any: &[&str]) -> bool {
        any.iter().any(|a| has_word(&self.words, a))
    }

    /// How much a word of the message points at this slot: by its name, or less, by its description.
    pub(super) fn pull(&self, word: Stem) -> f32 {
        let weight = |list: &[(Stem, f32)]| list.iter().find(|(s, _)| *s == word).map_or(0.0, |(_, w)| *w);
        (3.0 * weight(&self.name)).max(1.1 * weight(&self.about))
    }

    /// The value to use when nothing was said: the schema's default, or the one that the description states.
    pub(super) fn default(&self) -> Option<Value> {
        if let Some(value) =
            self.whole.get("default").or_else(|| self.node.get("default")).filter(|v| !v.is_null())
        {
            return Some(value.clone());
        }
        if let Some(only) = self.node.get("const") {
            return Some(only.clone());
        }
        let about = self.whole.get("description").or_else(|| self.node.get("description"))?.as_str()?;
        let at = ["default is ", "defaults to ", "default to ", "default value is ", "default: "]
            .iter()
            .find_map(|cue| find_ignore_case(about, cue).map(|at| at + cue.len()))?;
        let stated = cut(about.get(at..)?, 60);
        let stated = match stated.chars().next()? {
            quote @ ('\'' | '"' | '`') => stated.get(1..)?.split(quote).next()?,
            _ => stated.split([' ', ',', ';', ')']).next()?.trim_end_matches('.'),
        };
        match self.kind {
            Kind::Boolean => stated.to_ascii_lowercase().parse().ok().map(Value::Bool),
            Kind::Integer => stated.parse::<i64>().ok().map(Value::from),
            Kind::Number => stated.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from),
            Kind::Text
                if !stated.is_empty()
                    && stated.len() < 40
                    && about.get(at..)?.starts_with(['\'', '"', '`']) =>
            {
                Some(Value::from(stated))
            }
            _ => None,
        }
    }
}

/// Position of an ASCII `needle` in `text`, whatever the case.
pub(super) fn find_ignore_case(text: &str, needle: &str) -> Option<usize> {
    let (text, needle) = (text.as_bytes(), needle.as_bytes());
    text.windows(needle.len().max(1)).position(|w| w.eq_ignore_ascii_case(needle))
}

/// Is `word` in lower-cased `text`, whole?
pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|h| h.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|t| t.chars().next());
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// All slots of an object schema, at most 64.
pub(super) fn slots(root: &Value) -> Vec<Slot<'_>> {
    let mut out = Vec::new();
    object(root, schema::resolve(root, root), &mut Vec::new(), true, &mut out);
    share(&mut out);
    out
}

fn object<'a>(
    root: &'a Value,
    node: &'a Value,
    path: &mut Vec<&'a str>,
    required: bool,
    out: &mut Vec<Slot<'a>>,
) {
    if path.len() > schema::DEPTH {
        return;
    }
    let Some(properties) = node.get("properties").and_then(Value::as_object) else { return };
    // What is required, in the order in which the list of it stands: objects themselves have none.
    let order = node.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let order = order.get(..order.len().min(MAX_SLOTS)).unwrap_or(&[]);
    let mut properties: Vec<(&String, &Value)> = properties.iter().take(4 * MAX_SLOTS).collect();
    properties.sort_by_key(|(name, _)| {
        order.iter().position(|n| n.as_str() == Some(name.as_str())).unwrap_or(usize::MAX)
    });
    for (name, whole) in properties {
        if out.len() >= MAX_SLOTS {
            return;
        }
        path.push(name);
        leaf(root, whole, path, required && schema::is_required(node, name), out);
        path.pop();
    }
}

fn leaf<'a>(
    root: &'a Value,
    whole: &'a Value,
    path: &mut Vec<&'a str>,
    required: bool,
    out: &mut Vec<Slot<'a>>,
) {
    let node = schema::resolve(root, whole);
    match schema::kind(node) {
        Kind::Object if node.get("properties").is_some() => object(root, node, path, required, out),
        Kind::Object | Kind::Null => {
            // Nothing says what goes in; it is only reported as missing.
            if required {
                out.push(make(path, whole, node, Kind::Object, false, required));
            }
        }
        Kind::Array => {
            let item = node.get("items").map_or(&Value::Null, |i| schema::resolve(root, i));
            match schema::kind(item) {
                Kind::Object if item.get("properties").is_some() => {
                    path.push(FIRST);
                    object(root, item, path, required, out);
                    path.pop();
                }
                // A list of points: lists of numbers.
                Kind::Array => {
                    if required {
                        out.push(make(path, whole, item, Kind::Array, true, required));
                    }
                }
                kind => out.push(make(path, whole, item, kind, true, required)),
            }
        }
        kind => out.push(make(path, whole, node, kind, false, required)),
    }
}

fn make<'a>(
    path: &[&'a str],
    whole: &'a Value,
    node: &'a Value,
    kind: Kind,
    list: bool,
    required: bool,
) -> Slot<'a> {
    let label = path.iter().rev().find(|p| **p != FIRST).copied().unwrap_or("");
    let about =
        whole.get("description").or_else(|| node.get("description")).and_then(Value::as_str).unwrap_or("");
    let about = cut(about, 600);
    let mut words = String::with_capacity(label.len() + about.len() + 8);
    words::each_word(cut(label, 128), |w| {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(&w.to_lowercase());
    });
    let name_len = words.len();
    words.push_str(" : ");
    words.push_str(&about.to_lowercase());
    let mut name = Vec::new();
    words::each_word(cut(label, 128), |w| {
        name.push((stem(w), if words::is_generic(stem(w)) { 0.5 } else { 1.0 }))
    });
    // Examples ("such as ...", "e.g. ...") are not what the slot is about.
    let head = ["e.g", "such as", "for example", "for instance", "default", "format of", "(options"]
        .iter()
        .filter_map(|cue| find_ignore_case(about, cue))
        .min()
        .and_then(|at| about.get(..at))
        .unwrap_or(about);
    let about = words::stems(cut(head, 240), 24)
        .into_iter()
        .map(|s| (s, if words::is_generic(s) { 0.4 } else { 1.0 }));
    let about = about.collect();
    let mut slot = Slot {
        path: path.to_vec(),
        node,
        whole,
        kind,
        list,
        required,
        words,
        name_len,
        name,
        about,
        hint: Hint::Other,
    };
    slot.hint = hint(&slot);
    slot
}

/// Words that several slots share point at none of them in particular.
fn share(slots: &mut [Slot<'_>]) {
    let names: Vec<Vec<Stem>> = slots.iter().map(|s| s.name.iter().map(|(w, _)| *w).collect()).collect();
    let abouts: Vec<Vec<Stem>> = slots.iter().map(|s| s.about.iter().map(|(w, _)| *w).collect()).collect();
    let count = |all: &[Vec<Stem>], word: Stem| -> f32 {
        let n = all.iter().filter(|words| words.contains(&word)).count();
        f32::from(u8::try_from(n.max(1)).unwrap_or(u8::MAX))
    };
    for slot in slots {
        slot.name.iter_mut().for_each(|(word, weight)| *weight /= count(&names, *word));
        slot.about.iter_mut().for_each(|(word, weight)| *weight /= count(&abouts, *word));
    }
}

fn hint(slot: &Slot<'_>) -> Hint {
    match slot.node.get("format").and_then(Value::as_str) {
        Some("date") => return Hint::Date,
        Some("date-time") => return Hint::DateTime,
        Some("time" | "partial-time") => return Hint::Time,
        Some("email" | "idn-email") => return Hint::Email,
        Some("uri" | "url" | "iri") => return Hint::Url,
        Some("uuid") => return Hint::Id,
        _ => {}
    }
    const PLACES: &[&str] = &[
        "city",
        "location",
        "place",
        "state",
        "country",
        "region",
        "address",
        "destination",
        "origin",
        "town",
        "county",
        "venue",
        "locations",
        "cities",
        "district",
        "province",
        "area",
        "airport",
        "loc",
        "where",
        "neighborhood",
    ];
    const PEOPLE: &[&str] = &[
        "author",
        "artist",
        "director",
        "directed",
        "actor",
        "player",
        "person",
        "user",
        "username",
        "singer",
        "composer",
        "writer",
        "recipient",
        "contact",
        "cast",
        "starring",
        "employee",
        "owner",
        "politician",
        "celebrity",
        "doctor",
        "customer",
    ];
    const FREE: &[&str] = &[
        "text",
        "message",
        "content",
        "body",
        "query",
        "question",
        "prompt",
        "sentence",
        "note",
        "keyword",
        "keywords",
        "topic",
        "search",
        "statement",
        "phrase",
        "subject",
        "summary",
        "task",
        "fact",
        "memory",
        "input",
        "todo",
        "reminder",
        "q",
    ];
    let first =
        slot.words.get(slot.name_len..).unwrap_or("").split(['.', ';']).next().unwrap_or("").to_owned();
    let about = |any: &[&str]| any.iter().any(|w| has_word(&first, w));
    if slot.named(&["datetime", "timestamp"])
        || (slot.named(&["date", "time"]) && slot.words.contains("iso-8601"))
        || slot.words.contains("yyyy-mm-dd hh:mm")
    {
        Hint::DateTime
    } else if slot.named(&["date", "day", "birthday", "checkin", "checkout", "deadline"])
        && !slot.named(&["days"])
        || about(&["date"]) && !slot.named(FREE)
    {
        Hint::Date
    } else if slot.named(&["time", "hour"]) && !slot.named(&["zone", "format", "frame", "period", "unit"]) {
        Hint::Time
    } else if slot.named(&["email", "mail"]) {
        Hint::Email
    } else if slot.named(&["url", "uri", "link", "website", "webpage"]) {
        Hint::Url
    } else if slot.named(&["expression", "formula", "equation", "expr"])
        || (slot.named(&["function"])
            && slot.speaks_of(&[
                "derivative",
                "integral",
                "integrate",
                "calculate",
                "x",
                "polynomial",
                "mathematical",
            ]))
        || slot.named(&["polynomial"])
        || about(&["mathematical expression", "arithmetic expression"])
    {
        Hint::Expression
    } else if slot.named(&["language", "lang", "languages"]) {
        Hint::Language
    } else if slot.named(&["currency", "currencies"]) || about(&["currency code", "currency"]) {
        Hint::Currency
    } else if slot.named(PLACES) {
        Hint::Place
    } else if slot.named(PEOPLE) && !slot.named(&["id", "type"]) {
        Hint::Person
    } else if slot.named(&[
        "id",
        "uuid",
        "identifier",
        "number",
        "code",
        "key",
        "docket",
        "isbn",
        "sku",
        "ticket",
        "ip",
        "phone",
        "token",
    ]) {
        Hint::Id
    } else if slot.named(FREE) {
        Hint::Free
    } else if about(PLACES) && !about(&["name of the player", "team"]) {
        Hint::Place
    } else if about(PEOPLE) && slot.named(&["name"]) {
        Hint::Person
    } else {
        Hint::Other
    }
}
