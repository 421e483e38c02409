//! Numbers for numeric slots, one by one and in lists.

use super::*;

pub(super) fn numeric(slot: &Slot<'_>, value: f64) -> Value {
    if slot.kind == Kind::Integer && value.fract() == 0.0 && value.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53, as just checked")]
        return Value::from(value as i64);
    }
    if value.fract() == 0.0 && value.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53, as just checked")]
        return Value::from(value as i64);
    }
    Value::from(value)
}

/// The value that a number with a percent sign has for this slot: 5 where percent is asked for, else 0.05.
pub(super) fn percent(slot: &Slot<'_>, value: f64) -> f64 {
    if slot.kind == Kind::Integer
        || (slot.speaks_of(&["percentage", "percent", "%", "0 to 100", "percentile"])
            && !slot.speaks_of(&["sum to 1", "between 0 and 1", "decimal"]))
    {
        value
    } else {
        // Avoids 0.07000000000000001.
        format!("{:.12}", value / 100.0).parse().unwrap_or(value / 100.0)
    }
}

/// Names of slots that say how many.
pub(super) const COUNTS: &[&str] =
    &["count", "limit", "num", "number", "top", "max", "n", "quantity", "size", "results"];

pub(super) fn number_score(
    f: &Filling<'_, '_>,
    slots: &[Slot<'_>],
    i: usize,
    slot: &Slot<'_>,
    n: &Number,
    rank: usize,
) -> f32 {
    let text = &f.evidence.text;
    let year_like = n.value.fract() == 0.0
        && (1500.0..=2100.0).contains(&n.value)
        && !n.money
        && !n.percent
        && n.to == n.from + 1
        && !text.word(n.from).contains(',');
    let wants_year = (slot.named(&["year"]) || slot.hint == Hint::Date || about_a_year(slot))
        && !slot.speaks_of(&["years", "number of"])
        || slot.named(&["year"]) && slot.name_words().ends_with("year");
    let mut score = 0.15 + f.context(slot, n.from, n.to);
    let about: Vec<Stem> = slot.name.iter().chain(&slot.about).map(|(s, _)| *s).collect();
    if n.unit != 0 {
        let fit = unit_fit(n.unit, &about);
        score += 1.4 * fit;
        // "for 2 people": what is counted is said.
        if fit > 0.0 && slot.named(COUNTS) {
            score += 0.8;
        }
        if unit_clash(n.unit, &about) {
            score -= 1.5;
        }
    }
    let prep = f.before(n.from);
    if year_like && wants_year {
        score += 2.2;
    } else if wants_year {
        score -= 1.5;
    } else if year_like
        && ["in", "since", "year", "of", "by", "from", "until"].contains(&prep.as_str())
        && !slot.speaks_of(&["year", "date"])
    {
        score -= 1.2;
    }
    if n.percent {
        score += if slot.speaks_of(&[
            "percent",
            "percentage",
            "rate",
            "ratio",
            "probability",
            "confidence",
            "level",
            "discount",
            "tax",
            "yield",
            "return",
            "interest",
            "frequency",
            "humidity",
            "contribution",
            "fraction",
            "volume",
        ]) {
            1.2
        } else {
            -0.6
        };
    }
    if n.money {
        score += if slot.speaks_of(&[
            "amount",
            "price",
            "cost",
            "budget",
            "salary",
            "income",
            "payment",
            "principal",
            "investment",
            "invested",
            "balance",
            "loan",
            "value",
            "fee",
            "revenue",
            "money",
            "sales",
            "profit",
            "fund",
            "cash",
            "paid",
            "payout",
            "expense",
            "expenses",
            "total",
            "dollars",
            "usd",
            "deposit",
            "rent",
            "equity",
        ]) {
            1.2
        } else {
            -0.6
        };
    }
    if n.weak {
        score -= 0.3;
        if n.value == 1.0 {
            score -= 0.8;
        }
    }
    let counts = slot.named(COUNTS);
    if counts
        && ([
            "top", "first", "last", "next", "only", "find", "get", "list", "show", "fetch", "limit",
            "latest", "most",
        ]
        .contains(&prep.as_str())
            || text.word(n.to).ends_with('s'))
    {
        score += if n.weak || n.unit != 0 { 1.7 } else { 0.6 };
    }
    if let (
        "to" | "than" | "least" | "most" | "over" | "under" | "above" | "below" | "maximum" | "minimum"
        | "within" | "between" | "from" | "up",
        _,
    ) = (prep.as_str(), 0)
    {
        let most = ["to", "under", "below", "maximum", "most", "within", "up"].contains(&prep.as_str())
            || (prep == "than" && text.any(n.from.saturating_sub(2), &["less", "fewer", "cheaper"]));
        if slot.named(&["max", "maximum", "end", "to", "upper", "limit"]) && most {
            score += 1.0;
        }
        if slot.named(&["min", "minimum", "start", "from", "lower"]) && !most {
            score += 1.0;
        }
    }
    // Numbers mostly come in the order in which the parameters stand.
    let place = slots
        .iter()
        .take(i)
        .filter(|s| matches!(s.kind, Kind::Integer | Kind::Number) && s.required == slot.required)
        .count();
    score - 0.06 * f32::from(u8::try_from(place.abs_diff(rank)).unwrap_or(u8::MAX).min(10))
}

/// Does the description say that the number is a year?
fn about_a_year(slot: &Slot<'_>) -> bool {
    ["the year", "specific year", "calendar year"].iter().any(|cue| slot.words.contains(cue))
        && !slot.speaks_of(&["rate", "per", "amount", "cost", "revenue", "value"])
}

pub(super) fn in_range<'f>(f: &'f Filling<'_, '_>) -> impl Iterator<Item = &'f Number> {
    f.evidence.numbers.iter().filter(|n| f.inside(n.from, n.to)).take(96)
}

pub(super) fn numbers(
    f: &Filling<'_, '_>,
    slots: &[Slot<'_>],
    i: usize,
    slot: &Slot<'_>,
    out: &mut Vec<Candidate>,
) {
    let operands = f.evidence.expression.as_ref().is_some();
    let wanted =
        slots.iter().filter(|s| s.required && matches!(s.kind, Kind::Integer | Kind::Number)).count();
    let enough = in_range(f).filter(|n| !n.weak).count() >= wanted.max(1);
    let mut next = 0;
    for n in in_range(f) {
        let rank = next;
        next += usize::from(!(n.weak && enough));
        let mut score = number_score(f, slots, i, slot, n, rank);
        // "two numbers, 45 and 60": the numeral only counts them.
        if n.weak && enough && (slot.required || !slot.named(COUNTS)) {
            score -= 1.6;
        }
        if operands {
            score += 0.4;
        }
        let value = if n.percent { percent(slot, n.value) } else { n.value };
        if slot.kind == Kind::Integer && value.fract() != 0.0 {
            continue;
        }
        out.push(Candidate {
            slot: i,
            from: n.from,
            to: n.to,
            score,
            value: numeric(slot, value),
            shared: false,
            list: 0,
        });
    }
}

pub(super) fn number_lists(
    f: &Filling<'_, '_>,
    slots: &[Slot<'_>],
    i: usize,
    slot: &Slot<'_>,
    out: &mut Vec<Candidate>,
) {
    let all: Vec<&Number> = in_range(f).collect();
    let mut at = 0;
    let mut rank = 0;
    let lists =
        slots.iter().take(i).filter(|s| s.list && matches!(s.kind, Kind::Integer | Kind::Number)).count();
    while let Some(first) = all.get(at) {
        let group: Vec<&&Number> = all.iter().skip(at).take_while(|n| n.group == first.group).collect();
        let (from, to) = (first.from, group.last().map_or(first.to, |n| n.to));
        let values: Vec<f64> =
            group.iter().map(|n| if n.percent { percent(slot, n.value) } else { n.value }).collect();
        at += group.len();
        if slot.kind == Kind::Integer && values.iter().any(|v| v.fract() != 0.0) {
            continue;
        }
        let mut score = f.context(slot, from, to) + 0.2 + if group.len() > 1 { 1.2 } else { -0.4 };
        score -= 0.3 * f32::from(u8::try_from(lists.abs_diff(rank)).unwrap_or(u8::MAX).min(4));
        rank += usize::from(group.len() > 1);
        let value = Value::Array(values.into_iter().map(|v| numeric(slot, v)).collect());
        out.push(Candidate { slot: i, from, to, score, value, shared: false, list: 0 });
    }
    // Numbers that stand apart, each with its own words, for the only list that there is.
    let only = slots.iter().filter(|s| matches!(s.kind, Kind::Integer | Kind::Number)).count() == 1;
    if only
        && all.len() > 1
        && let (Some(first), Some(last)) = (all.first(), all.last())
    {
        let ok = |v: f64| slot.kind != Kind::Integer || v.fract() == 0.0;
        if all.iter().all(|n| ok(n.value)) && all.iter().any(|n| n.group != first.group) {
            let value = Value::Array(
                all.iter()
                    .map(|n| numeric(slot, if n.percent { percent(slot, n.value) } else { n.value }))
                    .collect(),
            );
            out.push(Candidate {
                slot: i,
                from: first.from,
                to: last.to,
                score: 0.5,
                value,
                shared: false,
                list: 0,
            });
        }
    }
}
