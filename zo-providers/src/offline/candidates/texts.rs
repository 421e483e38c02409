//! Texts: names, quotations, dates, codes and clauses.

use super::*;

/// How much the word before a piece speaks for a slot.
pub(super) fn preposition(slot: &Slot<'_>, word: &str) -> f32 {
    let named = |any: &[&str]| slot.named(any);
    match word {
        "from"
            if named(&[
                "from",
                "origin",
                "start",
                "source",
                "base",
                "departure",
                "sender",
                "starting",
                "begin",
                "pickup",
                "current",
                "first",
                "initial",
            ]) =>
        {
            2.0
        }
        "from" if named(&["to", "destination", "end", "target", "arrival"]) => -1.5,
        "to" | "into" | "towards" | "until" | "till"
            if named(&[
                "to",
                "destination",
                "end",
                "target",
                "arrival",
                "recipient",
                "dest",
                "ending",
                "new",
                "final",
                "second",
                "dropoff",
            ]) =>
        {
            2.0
        }
        "to" | "into" if named(&["from", "origin", "start", "source", "base", "departure"]) => -1.5,
        "between" if named(&["from", "origin", "start", "source", "first", "1"]) => 1.0,
        "in" | "at" | "near" | "around" | "within" | "nearby" if slot.hint == Hint::Place => 1.6,
        "of" | "for" | "from" | "to" if slot.hint == Hint::Place => 0.8,
        "by" | "starring" | "featuring" if slot.hint == Hint::Person => 1.6,
        "of" | "for" | "with" | "to" | "player" if slot.hint == Hint::Person => 0.6,
        "in" | "at" | "near" if slot.hint == Hint::Person => -0.8,
        "on" | "at" | "in" | "for" if matches!(slot.hint, Hint::Date | Hint::Time | Hint::DateTime) => 0.4,
        "called" | "named" | "titled" if named(&["name", "title"]) => 2.0,
        "about" | "on" | "regarding" if slot.hint == Hint::Free => 0.9,
        _ => 0.0,
    }
}

pub(super) fn base(hint: Hint, look: Look) -> Option<f32> {
    Some(match (hint, look) {
        (Hint::Email, Look::Email) | (Hint::Url, Look::Url) => 3.0,
        (Hint::Email | Hint::Url | Hint::Date | Hint::DateTime | Hint::Time, _) => return None,
        (Hint::Free, Look::Quoted) => 2.2,
        (Hint::Free, Look::Name) => 0.5,
        (Hint::Free, Look::Chunk) => 0.3,
        (Hint::Place, Look::Name) => 1.2,
        (Hint::Place, Look::Quoted) => 0.8,
        (Hint::Place | Hint::Person, Look::Chunk) => 0.0,
        (Hint::Person, Look::Name) => 1.2,
        (Hint::Person, Look::Quoted) => 1.1,
        (Hint::Id, Look::Id) => 1.6,
        (Hint::Id, Look::Quoted) => 1.4,
        (Hint::Id, Look::Name) => 0.3,
        (Hint::Id, Look::Chunk) => 0.0,
        (Hint::Language | Hint::Currency, Look::Name) => 0.5,
        (Hint::Language | Hint::Currency, _) => return None,
        (Hint::Expression, Look::Quoted) => 1.5,
        (Hint::Expression, _) => return None,
        (_, Look::Quoted) => 1.6,
        (_, Look::Name) => 0.9,
        (_, Look::Id) => 0.5,
        (_, Look::Chunk) => 0.35,
        (_, Look::Email | Look::Url) => 0.5,
    })
}

pub(super) fn texts(
    f: &Filling<'_, '_>,
    slots: &[Slot<'_>],
    i: usize,
    slot: &Slot<'_>,
    out: &mut Vec<Candidate>,
) {
    whens(f, i, slot, out);
    if slot.hint == Hint::Expression {
        if let Some(e) = &f.evidence.expression {
            out.push(Candidate {
                slot: i,
                from: 0,
                to: 0,
                score: 4.0,
                value: json!(e.text),
                shared: true,
                list: 0,
            });
        } else if let Some((from, to)) = clause::formula(&f.evidence.text, f.range.clone()) {
            out.push(Candidate {
                slot: i,
                from,
                to,
                score: 3.0,
                value: json!(f.evidence.text.span(from, to)),
                shared: false,
                list: 0,
            });
        }
    } else if let Some(e) = &f.evidence.expression
        && slot.speaks_of(&["expression", "formula", "equation", "calculation", "arithmetic"])
    {
        out.push(Candidate {
            slot: i,
            from: 0,
            to: 0,
            score: 3.6,
            value: json!(e.text),
            shared: true,
            list: 0,
        });
    } else if let Some(op) = f.evidence.expression.as_ref().and_then(|e| e.operator)
        && slot.named(&["operator", "operation", "op"])
    {
        out.push(Candidate { slot: i, from: 0, to: 0, score: 2.5, value: json!(op), shared: true, list: 0 });
    }
    stated(f, i, slot, out);
    for found in clause::clauses(f, slot) {
        out.push(Candidate {
            slot: i,
            from: found.from,
            to: found.to,
            score: found.score,
            value: json!(found.text),
            shared: false,
            list: 0,
        });
    }
    let known = out.len();
    if slot.hint == Hint::Currency || slot.hint == Hint::Language {
        known_words(f, i, slot, out);
        if out.len() > known {
            return;
        }
    }
    if slot.hint == Hint::Language
        && slot.required
        && slot.speaks_of(&["written", "source", "original", "text is"])
        && is_english(f)
    {
        out.push(Candidate {
            slot: i,
            from: 0,
            to: 0,
            score: 0.5,
            value: json!(coded(slot, "English")),
            shared: true,
            list: 0,
        });
    }
    // A description that lists the values leaves little room for others.
    let listed = quoted_examples(slot) >= 3;
    let alone = slots.iter().filter(|s| s.kind == Kind::Text && s.required).count() <= 1;
    for span in f.evidence.spans.iter().filter(|s| f.inside(s.from, s.to)) {
        let Some(base) = base(slot.hint, span.look) else { continue };
        let (from, to) = trim(f, slot, span.from, span.to, span.look);
        if from >= to {
            continue;
        }
        if span.look != Look::Quoted && span::is_empty_talk(&f.evidence.text, from, to) {
            continue;
        }
        let context = f.context(slot, from, to);
        let prep = preposition(slot, &f.before(from));
        let own = f.own(from, to)
            * match span.look {
                Look::Chunk => 1.3,
                Look::Name => 0.5,
                _ => 0.0,
            };
        let mut score = base + context.min(3.0) + prep - own;
        if matches!(slot.hint, Hint::Place | Hint::Person)
            && span.look == Look::Chunk
            && prep <= 0.0
            && context < 1.0
        {
            score -= 1.0;
        }
        if span.look == Look::Chunk && !slot.required && context < 1.2 && prep <= 0.0 {
            continue;
        }
        score += kinship(f, slots, i, from, to);
        if span.look == Look::Name && slot.hint == Hint::Person && to - from >= 2 {
            score += 0.7;
        }
        if span.look == Look::Chunk && to - from == 1 && verbish(f.evidence.text.word(from)) {
            score -= 0.7;
        }
        // "last 3 days" is a number, not a name.
        let counted = |t: usize| f.evidence.numbers.iter().any(|n| n.from == t && !n.weak);
        if span.look == Look::Chunk && slot.hint != Hint::Free && (from..span.to).any(counted) {
            score -= 1.0;
        }
        if listed && !slot.required && span.look != Look::Quoted {
            score -= 1.0;
        }
        if span.look == Look::Chunk
            && ["in", "of", "for", "about", "with", "on", "like", "by", "to", "from", "at"]
                .contains(&f.before(from).as_str())
        {
            score += 0.4;
        }
        score -= 0.01 * weight(from.min(60));
        if alone && span.look == Look::Name {
            score += 0.2;
        }
        let text = if span.look == Look::Quoted {
            f.evidence.text.span(from, to)
        } else {
            span::value(&f.evidence.text, from, to)
        };
        if text.is_empty() {
            continue;
        }
        if span.look == Look::Chunk && (from..to).any(|t| f.evidence.text.is(t, "of")) {
            score += 0.5;
        }
        let (before, text_before) =
            (f.before(from), |n: usize| from >= n && f.evidence.text.is(from - n, "name"));
        if slot.hint == Hint::Person
            && (before == "i'm" || (before == "am" && from >= 2) || (before == "is" && text_before(2)))
        {
            score += if slot.named(&["user", "my", "sender", "customer"]) { 2.0 } else { -0.5 };
        }
        let place = slot.hint == Hint::Place && matches!(span.look, Look::Name | Look::Chunk | Look::Quoted);
        let fuller = place
            .then(|| {
                if places::wants_region(&slot.words) {
                    places::with_region(text)
                } else {
                    places::long_name(text)
                }
            })
            .flatten();
        let wants_state = slot.named(&["state", "province"]) && !slot.named(&["city", "location"]);
        if place && wants_state && region_of(f, slot, i, span, score, out) {
            continue;
        }
        if place && slot.required && slot.named(&["country"]) {
            country_of(i, span, text, score, out);
        }
        let text = coded(slot, fuller.unwrap_or_else(|| without_kind(slot, text)));
        out.push(Candidate { slot: i, from, to, score, value: json!(text), shared: false, list: span.list });
        if slot.hint == Hint::Place
            && span.look == Look::Name
            && !slot.named(&["state", "country", "city", "county", "district", "province"])
                | slot.words.contains("state)")
                | slot.words.contains("city and state")
                | slot.words.contains("city, ")
            && let Some((from, to)) = address(f, span)
        {
            let value = json!(f.evidence.text.span(from, to));
            out.push(Candidate { slot: i, from, to, score: score + 0.3, value, shared: false, list: 0 });
        }
    }
    if slot.named(&["path", "file", "filename", "filepath", "files"]) {
        for span in f.evidence.spans.iter().filter(|s| s.to == s.from + 1 && f.inside(s.from, s.to)) {
            let word = f.evidence.text.word(span.from);
            if span::is_file(word) || (word.contains('/') && span.look == Look::Id) {
                let score = 2.6 + f.context(slot, span.from, span.to).min(2.0);
                out.push(Candidate {
                    slot: i,
                    from: span.from,
                    to: span.to,
                    score,
                    value: json!(word),
                    shared: false,
                    list: 0,
                });
            }
        }
    }
    // A number as text: "ticket 12345".
    let counts = slot.named(&["number", "num", "count", "quantity"]);
    if slot.hint == Hint::Id || counts {
        for n in in_range(f).filter(|n| !n.weak || counts) {
            let context = f.context(slot, n.from, n.to);
            if context > 1.5 {
                let digits = n.value.to_string();
                let text = if n.weak { digits.as_str() } else { f.evidence.text.span(n.from, n.to) };
                out.push(Candidate {
                    slot: i,
                    from: n.from,
                    to: n.to,
                    score: context - 0.3,
                    value: json!(text),
                    shared: false,
                    list: 0,
                });
            }
        }
    }
}

/// "Denver, Colorado" and "12 Hill Street, Leeds, UK" as one place: tokens of a name and of those that follow after
/// commas, and the number of the house in front. Not a list of places.
fn address(f: &Filling<'_, '_>, first: &Span) -> Option<(usize, usize)> {
    const STREETS: &[&str] = &[
        "street",
        "st",
        "avenue",
        "ave",
        "road",
        "rd",
        "boulevard",
        "blvd",
        "lane",
        "ln",
        "drive",
        "way",
        "square",
        "place",
        "court",
        "highway",
        "parkway",
    ];
    let text = &f.evidence.text;
    let is_list = first.list != 0
        && f.evidence
            .spans
            .iter()
            .filter(|s| s.list == first.list && s.from > first.from)
            .any(|s| s.from >= 1 && text.any(s.from - 1, &["and", "or", "&"]));
    let mut to = first.to;
    while !is_list
        && to < first.from + 24
        && text.mark(to, ',')
        && let Some(next) = f.evidence.spans.iter().find(|s| s.look == Look::Name && s.from == to + 1)
        && next.to <= f.range.end
    {
        to = next.to;
    }
    let street = (first.from..first.to).any(|i| text.any(i, STREETS));
    let number = first.from.checked_sub(1).filter(|i| street && text.tokens.get(*i).is_some_and(|t| t.digit));
    let from = number.unwrap_or(first.from);
    (from < first.from || to > first.to).then_some((from, to))
}

/// "Camden District" for a slot that asks for a district: its kind is known.
fn without_kind<'t>(slot: &Slot<'_>, text: &'t str) -> &'t str {
    let Some((head, kind)) = text.rsplit_once(' ') else { return text };
    let kind = kind.to_ascii_lowercase().replace('-', "");
    let same = matches!(kind.as_str(), "district" | "subdistrict" | "county" | "province" | "prefecture")
        && slot.name_words().replace(' ', "").contains(&kind);
    if same { head } else { text }
}

/// The state that a name is, or that the city of that name is in.
fn region_of(
    f: &Filling<'_, '_>,
    slot: &Slot<'_>,
    i: usize,
    span: &Span,
    score: f32,
    out: &mut Vec<Candidate>,
) -> bool {
    let text = span::value(&f.evidence.text, span.from, span.to);
    let Some((name, code)) = places::state(text) else { return false };
    let itself = name.eq_ignore_ascii_case(text) || code == text;
    if !itself && !slot.required {
        return false;
    }
    let coded =
        slot.speaks_of(&["abbreviation", "abbreviated", "code", "two-letter", "postal", "ca", "ny", "tx"]);
    let value = if itself && !coded {
        json!(text)
    } else if coded {
        json!(code)
    } else {
        json!(name)
    };
    let score = if itself { score + 0.8 } else { 1.4 };
    out.push(Candidate { slot: i, from: span.from, to: span.to, score, value, shared: !itself, list: 0 });
    true
}

/// The country of a well-known city, for who must have one.
fn country_of(i: usize, span: &Span, city: &str, score: f32, out: &mut Vec<Candidate>) {
    if let Some(country) = places::country(city) {
        let score = score.min(1.3);
        out.push(Candidate {
            slot: i,
            from: span.from,
            to: span.to,
            score,
            value: json!(country),
            shared: true,
            list: 0,
        });
    }
}

/// "Louvre Museum" goes to `museum`, not to `location`: a piece that holds the name of a slot is that slot's.
pub(super) fn kinship(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, from: usize, to: usize) -> f32 {
    let joined = |slot: &Slot<'_>| slot.name_words().replace(' ', "");
    // "Ton Pao Subdistrict" is the sub-district's, not the district's.
    let last = f.evidence.text.word(to.saturating_sub(1)).to_ascii_lowercase().replace('-', "");
    if to - from >= 2 && last.len() > 6 && slots.get(i).is_some_and(|s| joined(s).starts_with(&last)) {
        return 1.5;
    }
    let holds = |slot: &Slot<'_>| {
        to - from >= 2
            && (from..to).any(|t| {
                let stem = f.evidence.text.stem(t);
                !is_generic(stem) && slot.name.iter().any(|(s, w)| *s == stem && *w >= 0.9)
            })
    };
    if slots.get(i).is_some_and(holds) {
        1.5
    } else if slots.iter().enumerate().any(|(j, s)| j != i && s.kind == Kind::Text && !s.list && holds(s)) {
        -1.0
    } else {
        0.0
    }
}

/// A lone word that is rather what happens than what it happens to.
pub(super) fn verbish(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    (lower.len() > 4 && (lower.ends_with("ed") || lower.ends_with("ing")))
        || matches!(
            lower.as_str(),
            "found"
                | "made"
                | "least"
                | "given"
                | "held"
                | "known"
                | "located"
                | "based"
                | "want"
                | "looking"
                | "including"
                | "currently"
                | "happening"
                | "available"
                | "taken"
                | "built"
        )
}

/// Is the message in English, by its little words?
pub(super) fn is_english(f: &Filling<'_, '_>) -> bool {
    f.evidence.text.tokens.iter().filter(|t| t.mark.is_none() && t.stop).count() >= 3
}

/// Codes where the description asks for codes.
pub(super) fn coded(slot: &Slot<'_>, text: &str) -> String {
    let code = match slot.hint {
        Hint::Currency => currency_code(text),
        Hint::Language if slot.speaks_of(&["code", "iso", "en"]) => language_code(text),
        _ => None,
    };
    code.unwrap_or(text).to_owned()
}

/// Names of currencies and languages, capitalised or not.
pub(super) fn known_words(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let text = &f.evidence.text;
    let mut at = f.range.start;
    while at < f.range.end {
        let found = (1..=2usize).rev().find_map(|len| {
            let words = text.span(at, at + len);
            let known = match slot.hint {
                Hint::Currency => currency_code(words).map(str::to_owned),
                _ => language_code(words).map(|_| coded(slot, words)),
            };
            known.filter(|_| at + len <= f.range.end).map(|k| (len, k))
        });
        match found {
            Some((len, known)) => {
                let counted = at > 0 && f.evidence.numbers.iter().any(|n| n.to == at || n.from == at + len);
                let source = if slot.hint == Hint::Currency && counted {
                    if slot.named(&["from", "base", "source"]) {
                        1.5
                    } else if slot.named(&["to", "target"]) {
                        -1.0
                    } else {
                        0.0
                    }
                } else {
                    0.0
                };
                let score =
                    2.2 + source + preposition(slot, &f.before(at)) + 0.3 * f.context(slot, at, at + len)
                        - 0.01 * weight(at.min(60));
                out.push(Candidate {
                    slot: i,
                    from: at,
                    to: at + len,
                    score,
                    value: json!(known),
                    shared: false,
                    list: 0,
                });
                at += len;
            }
            None => at += 1,
        }
    }
}

/// Takes words off both ends of a piece that name the slot rather than fill it: "Thai food" for `food_type`.
pub(super) fn trim(
    f: &Filling<'_, '_>,
    slot: &Slot<'_>,
    mut from: usize,
    mut to: usize,
    look: Look,
) -> (usize, usize) {
    if look != Look::Chunk {
        return (from, to);
    }
    let text = &f.evidence.text;
    let names = |i: usize| slot.name.iter().any(|(s, _)| *s == text.stem(i));
    let tool = |i: usize| f.tool_words.contains(&text.stem(i)) || is_generic(text.stem(i));
    while from + 1 < to && (names(from) || tool(from) || span::is_imperative(text, from)) {
        from += 1;
    }
    while from + 1 < to && (names(to - 1) || tool(to - 1)) {
        to -= 1;
    }
    (from, to)
}

/// Values that the description itself names, found in the message.
pub(super) fn stated(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    if matches!(
        slot.hint,
        Hint::Date | Hint::DateTime | Hint::Email | Hint::Url | Hint::Expression | Hint::Place | Hint::Person
    ) {
        return;
    }
    let about = slot
        .whole
        .get("description")
        .or_else(|| slot.node.get("description"))
        .and_then(Value::as_str)
        .unwrap_or("");
    for option in examples(words::cut(about, 600)) {
        if let Some((from, to)) = locate(f, option) {
            let clear = f.own(from, to) < 1.0 || slot.required;
            let score = if clear { 2.4 } else { 1.2 }
                + 0.4 * f.context(slot, from, to)
                + preposition(slot, &f.before(from));
            out.push(Candidate { slot: i, from, to, score, value: json!(option), shared: false, list: 0 });
        }
    }
}

/// How many values the description gives in quotation marks.
fn quoted_examples(slot: &Slot<'_>) -> usize {
    let about = slot.words.as_str();
    about.matches('\'').count().max(about.matches('"').count()).max(about.matches('`').count()) / 2
}

/// Quoted words of a description, and its lists after "e.g." and "options".
pub(super) fn examples(about: &str) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::new();
    let mut rest = about;
    while let Some(at) = rest.find(['\'', '"', '`', '‘', '“']) {
        let before = rest.get(..at).and_then(|h| h.chars().next_back());
        let quote = rest.get(at..).and_then(|t| t.chars().next()).unwrap_or('\'');
        let Some(body) = rest.get(at + quote.len_utf8()..) else { break };
        let close = match quote {
            '‘' => '’',
            '“' => '”',
            q => q,
        };
        if before.is_some_and(char::is_alphanumeric) {
            rest = body;
            continue;
        }
        let Some(end) = body.find(close) else { break };
        if let Some(word) = body.get(..end).filter(|w| (2..=40).contains(&w.len())) {
            out.push(word.trim_end_matches(','));
        }
        rest = body.get(end + close.len_utf8()..).unwrap_or("");
    }
    for cue in ["e.g.", "options:", "options are", "can be", "one of", "such as", "like", "either"] {
        if let Some(at) = crate::offline::slot::find_ignore_case(about, cue)
            && let Some(tail) = about.get(at + cue.len()..)
        {
            let tail = tail.split(['.', ')', ';']).next().unwrap_or("");
            out.extend(
                tail.split([',', '/'])
                    .flat_map(|w| w.split(" or "))
                    .map(|w| w.trim().trim_start_matches("or ").trim_matches(['\'', '"', ':', ' ']))
                    .filter(|w| (3..=24).contains(&w.len()) && w.split(' ').count() <= 2 && *w != "etc"),
            );
        }
    }
    out.retain(|w| !w.contains(['\'', '"']) && !words::stems(w, 4).is_empty());
    out.truncate(40);
    out
}

pub(super) fn whens(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let text = &f.evidence.text;
    let all = || f.evidence.whens.iter().filter(|w| f.inside(w.from, w.to));
    for when in all() {
        let prep = f.before(when.from);
        let mut score = 2.4 + 0.5 * f.context(slot, when.from, when.to) + preposition(slot, &prep)
            - 0.02 * weight(when.from.min(60));
        if ["to", "until", "till", "-", "through"].contains(&prep.as_str())
            && slot.named(&["from", "start", "checkin", "check"])
            && !slot.named(&["out"])
        {
            score -= 1.0;
        }
        let raw = text.span(when.from, when.to);
        let value = match (slot.hint, when.day, when.clock) {
            (Hint::Date, Some(day), _) => day.layout(&slot.words),
            (Hint::Date, None, _) if when.is_day => {
                score -= 0.5;
                raw.to_owned()
            }
            (Hint::Time, _, Some(c)) => {
                if slot.node.get("format").is_some() || slot.words.contains("hh:mm:ss") {
                    format!("{:02}:{:02}:{:02}", c.hour, c.minute, c.second)
                } else if slot.words.contains("am") && slot.speaks_of(&["am", "pm"]) {
                    raw.to_owned()
                } else {
                    format!("{:02}:{:02}", c.hour, c.minute)
                }
            }
            (Hint::DateTime, day, clock) => {
                // The other half stands close by.
                let near = |w: &&crate::offline::extract::date::When| w.from.abs_diff(when.from) <= 8;
                let day = day.or_else(|| all().filter(near).find_map(|w| w.day));
                let clock = clock.or_else(|| all().filter(near).find_map(|w| w.clock));
                let Some(day) = day else { continue };
                let (h, m, s) = clock.map_or((0, 0, 0), |c| (c.hour, c.minute, c.second));
                if slot.words.contains("yyyy-mm-dd hh:mm") {
                    format!("{} {h:02}:{m:02}:{s:02}", day.layout(""))
                } else {
                    format!("{}T{h:02}:{m:02}:{s:02}Z", day.layout(""))
                }
            }
            _ => continue,
        };
        out.push(Candidate {
            slot: i,
            from: when.from,
            to: when.to,
            score,
            value: json!(value),
            shared: slot.hint == Hint::DateTime,
            list: 0,
        });
    }
}

pub(super) fn text_lists(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let text = &f.evidence.text;
    let mut seen: Vec<u32> = Vec::new();
    for span in f.evidence.spans.iter().filter(|s| f.inside(s.from, s.to)) {
        if span.list != 0 && seen.contains(&span.list) {
            continue;
        }
        let members: Vec<_> = if span.list == 0 {
            vec![span]
        } else {
            seen.push(span.list);
            let mut all: Vec<_> =
                f.evidence.spans.iter().filter(|s| s.list == span.list && f.inside(s.from, s.to)).collect();
            all.sort_by_key(|s| s.from);
            all
        };
        let hint = if slot.hint == Hint::Date { Hint::Other } else { slot.hint };
        let Some(base) = base(hint, span.look) else { continue };
        let (Some(first), Some(last)) = (members.first(), members.last()) else { continue };
        let trimmed: Vec<(usize, usize)> =
            members.iter().map(|s| trim(f, slot, s.from, s.to, s.look)).collect();
        let values: Vec<Value> = trimmed
            .iter()
            .filter(|(a, b)| span.look == Look::Quoted || !span::is_empty_talk(text, *a, *b))
            .map(|(a, b)| json!(span::value(text, *a, *b)))
            .collect();
        if values.is_empty() {
            continue;
        }
        let own = if span.look == Look::Chunk { 1.2 * f.own(first.from, last.to) } else { 0.0 };
        let context = f.context(slot, first.from, last.to).max(f.context(slot, first.from, first.to));
        let many = if values.len() > 1 { 1.0 } else { 0.0 };
        if span.look == Look::Chunk && !slot.required && context < 1.0 {
            continue;
        }
        let score = base + context.min(3.0) + many - own - 0.01 * weight(first.from.min(60));
        out.push(Candidate {
            slot: i,
            from: first.from,
            to: last.to,
            score,
            value: Value::Array(values),
            shared: false,
            list: 0,
        });
    }
    // Options that the description names.
    let mut single = Vec::new();
    stated(f, i, slot, &mut single);
    single.sort_by_key(|c| c.from);
    if let (Some(first), Some(last)) = (single.first(), single.last()) {
        let mut values: Vec<Value> = Vec::new();
        for c in &single {
            if !values.contains(&c.value) {
                values.push(c.value.clone());
            }
        }
        out.push(Candidate {
            slot: i,
            from: first.from,
            to: last.to,
            score: 2.1,
            value: Value::Array(values),
            shared: true,
            list: 0,
        });
    }
}
