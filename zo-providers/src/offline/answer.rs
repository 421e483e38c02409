//! Answers in words: from tool results, from facts, or that no model is there.

use super::{
    turn::Turn,
    words::{self, Text, cut, is_generic},
};
use zo_traits::{ToolResult, ToolSpec, ToolStatus};

/// Longest result that is repeated whole, in bytes.
const MAX_RESULT: usize = 4_000;
/// Of a longer result than this, in bytes, what answers the question is put first.
const LONG_RESULT: usize = 700;

/// What the results of this turn's calls say. `asked` is the question that they are for.
pub(super) fn from_results(results: &[&ToolResult], asked: &Text<'_>) -> String {
    match results {
        [] => "The tools gave no result.".to_owned(),
        [one] => match gist(one, asked) {
            Some(gist) => {
                format!("{gist}\n\nThat is from the answer of `{}`, which is:\n{}", one.name, sentence(one))
            }
            None => sentence(one),
        },
        many => {
            let line =
                |r: &&ToolResult| format!("- {}: {}", r.name, gist(r, asked).unwrap_or_else(|| sentence(r)));
            many.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    }
}

/// The lines of a long result that hold most of what was asked for, in their words and order. None if it is short, or
/// if nothing in it stands out.
fn gist(result: &ToolResult, asked: &Text<'_>) -> Option<String> {
    let said = result.content.trim();
    if said.len() < LONG_RESULT || !matches!(result.status, ToolStatus::Ok) {
        return None;
    }
    let mut wanted: Vec<words::Stem> = Vec::new();
    for token in asked.tokens.iter().take(200) {
        if !token.stop && token.stem != 0 && !is_generic(token.stem) && !wanted.contains(&token.stem) {
            wanted.push(token.stem);
        }
    }
    let sentences = cut(said, 16 * MAX_RESULT).split_inclusive(['.', '!', '?', '\n']);
    let mut best: Vec<(usize, usize, &str)> = Vec::new();
    let mut count = 0;
    for (at, sentence) in sentences.map(str::trim).filter(|s| s.len() > 3).enumerate().take(2_000) {
        count = at + 1;
        let mut has: Vec<words::Stem> = Vec::new();
        words::each_word(cut(sentence, 1_000), |w| has.push(words::stem(w)));
        let hits = wanted.iter().filter(|w| has.contains(w)).count();
        if hits > 0 {
            best.push((hits, at, sentence));
        }
    }
    best.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let most = best.first()?.0;
    best.retain(|b| b.0 == most);
    // Words that every line has tell nothing apart.
    if best.len() > 3 && 3 * best.len() > count {
        return None;
    }
    best.truncate(3);
    best.sort_by_key(|b| b.1);
    Some(best.into_iter().map(|b| cut(b.2, 600)).collect::<Vec<_>>().join("\n"))
}

fn sentence(result: &ToolResult) -> String {
    let said = result.content.trim();
    let name = &result.name;
    let why = if said.is_empty() { ".".to_owned() } else { format!(": {}", brief(said)) };
    match &result.status {
        ToolStatus::Ok if said.is_empty() => format!("`{name}` is done."),
        ToolStatus::Ok => brief(said),
        ToolStatus::Denied => format!("`{name}` was not allowed{why}"),
        ToolStatus::Cancelled => format!("`{name}` was cancelled{why}"),
        ToolStatus::Unknown => format!("It is not known whether `{name}` happened{why}"),
        _ => format!("`{name}` failed{why}"),
    }
}

fn brief(text: &str) -> String {
    if text.len() <= MAX_RESULT {
        return text.to_owned();
    }
    format!("{}\n(cut here: the result has {} bytes)", cut(text, MAX_RESULT), text.len())
}

/// The instructions of a skill that was activated but for which no further tool fits.
pub(super) fn from_instructions(results: &[&ToolResult]) -> String {
    let said = results.iter().map(|r| sentence(r)).collect::<Vec<_>>().join("\n");
    let gist = cut(&said, 800);
    let more = if gist.len() < said.len() { "\n..." } else { "" };
    format!(
        "The skill says:\n\n{gist}{more}\n\nFollowing it takes a language model, and none is configured. {}",
        HOW
    )
}

/// Which arguments of a tool are missing.
pub(super) fn ask(tool: &ToolSpec, missing: &[String]) -> String {
    let list: Vec<String> = missing.iter().take(12).map(|m| format!("`{m}`")).collect();
    format!(
        "I would use `{}` for that, but I still need: {}. Please say it in so many words.",
        tool.name,
        list.join(", ")
    )
}

const HOW: &str = "To configure one, set ANTHROPIC_API_KEY or OPENAI_API_KEY (or OPENAI_BASE_URL for a compatible \
    server), or run Ollama on this machine.";

/// That there is no model, how to get one, and what can be done without.
pub(super) fn no_model(tools: &[&ToolSpec]) -> String {
    let mut out = format!(
        "I can't answer that: no language model is configured, and I only follow simple rules. {HOW}"
    );
    out.push_str(&offer(tools));
    out
}

fn offer(tools: &[&ToolSpec]) -> String {
    // What the first few do, and the names of some more.
    let line = |(at, tool): (usize, &&ToolSpec)| {
        let name = format!("`{}`", cut(&tool.name, 64));
        let about = tool.description.split(['\n', '.']).next().unwrap_or("").trim();
        if at >= 4 || about.is_empty() || about.len() > 90 { name } else { format!("{name} ({about})") }
    };
    let names: Vec<String> = tools.iter().take(12).enumerate().map(line).collect();
    if names.is_empty() {
        return String::new();
    }
    let more = tools.len() - names.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        " Without one I can still use these tools when a request names what they need: {}{rest}.",
        names.join(", ")
    )
}

/// A short reply to a greeting or to thanks.
pub(super) fn small_talk(text: &Text<'_>, tools: &[&ToolSpec]) -> Option<String> {
    let words: Vec<usize> = (0..text.tokens.len().min(12))
        .filter(|i| text.tokens.get(*i).is_some_and(|t| t.mark.is_none()))
        .collect();
    let first = *words.first()?;
    if words.len() > 5 || text.tokens.len() > 12 {
        return None;
    }
    let kind = |w: &str| {
        matches!(
            w.to_lowercase().as_str(),
            "there"
                | "again"
                | "zo"
                | "everyone"
                | "all"
                | "you"
                | "so"
                | "very"
                | "much"
                | "a"
                | "lot"
                | "to"
                | "morning"
                | "evening"
                | "afternoon"
                | "night"
                | "day"
                | "bot"
                | "agent"
                | "assistant"
                | "for"
                | "the"
                | "help"
                | "that"
                | "are"
                | "how"
                | "is"
                | "it"
                | "going"
        )
    };
    if !words.iter().skip(1).all(|i| kind(text.word(*i)) || text.any(*i, &["hello", "hi", "thanks", "thank"]))
    {
        return None;
    }
    if text.any(first, &["thanks", "thank", "thx", "cheers"]) {
        return Some("You are welcome.".to_owned());
    }
    if text.any(first, &["bye", "goodbye"]) || (text.is(first, "good") && text.any(first + 1, &["night"])) {
        return Some("Goodbye.".to_owned());
    }
    let good = text.is(first, "good") && text.any(first + 1, &["morning", "evening", "afternoon", "day"]);
    let well = text.is(first, "how") && text.is(first + 1, "are") && text.is(first + 2, "you");
    if good || well || text.any(first, &["hello", "hi", "hey", "howdy", "greetings"]) {
        return Some(format!(
            "Hello. No language model is configured, so I only follow simple rules. {HOW}{}",
            offer(tools)
        ));
    }
    None
}

/// Answers to several questions of one message, one line each, where facts answer at least one.
pub(super) fn from_facts_each(turn: &Turn<'_>, text: &Text<'_>) -> Option<String> {
    let questions: Vec<&str> = cut(text.full, 2_000)
        .split_inclusive('?')
        .filter_map(|q| q.trim().strip_suffix('?'))
        .map(|q| q.rsplit(['.', '!', '\n']).next().unwrap_or(q).trim())
        .filter(|q| !q.is_empty())
        .take(6)
        .collect();
    if questions.len() < 2 {
        return None;
    }
    let mut answered = 0;
    let lines: Vec<String> = questions
        .iter()
        .map(|q| match from_facts(turn, &Text::new(q)).filter(|(share, _)| *share >= 0.6) {
            Some((_, fact)) => {
                answered += 1;
                format!("- {fact}")
            }
            None => format!("- I don't know an answer to: {q}?"),
        })
        .collect();
    (answered > 0).then(|| lines.join("\n"))
}

/// The fact that answers a question, if one does: the share of the question's telling words that it holds, and the fact
/// turned towards the user.
pub(super) fn from_facts(turn: &Turn<'_>, text: &Text<'_>) -> Option<(f32, String)> {
    let weigh = |word: &str| {
        let stem = words::stem(word);
        let saying = matches!(
            word.to_ascii_lowercase().as_str(),
            "say"
                | "said"
                | "tell"
                | "told"
                | "mention"
                | "mentioned"
                | "remember"
                | "recall"
                | "remind"
                | "earlier"
        );
        if words::is_stop(stem) || saying {
            return None;
        }
        Some((stem, if is_generic(stem) { 0.6 } else { 1.0 }))
    };
    let mut wanted: Vec<(words::Stem, f32)> = Vec::new();
    for i in 0..text.tokens.len().min(200) {
        words::each_word(text.word(i), |w| {
            if let Some(pair) = weigh(w).filter(|(s, _)| !wanted.iter().any(|(k, _)| k == s)) {
                wanted.push(pair);
            }
        });
    }
    let total: f32 = wanted.iter().map(|(_, w)| w).sum();
    if total <= 0.0 {
        return None;
    }
    let mut best: Option<(f32, f32, &str)> = None;
    let recalled = turn.memories.iter().map(|f| (0.001f32, *f));
    for (bonus, fact) in recalled.chain(turn.earlier.iter().map(|f| (0.0, *f))) {
        let mut has: Vec<words::Stem> = Vec::new();
        words::each_word(cut(fact, 1_000), |w| has.push(words::stem(w)));
        let mut hit = 0.0f32;
        for (stem, weight) in &wanted {
            if has.contains(stem) {
                hit += weight;
            } else if super::lexicon::synonyms(*stem).iter().any(|s| has.contains(s)) {
                hit += 0.6 * weight;
            }
        }
        let share = hit / total;
        // Of equals the one that says least besides.
        let value = share + bonus - 0.0005 * f32::from(u16::try_from(has.len()).unwrap_or(u16::MAX).min(400));
        if best.is_none_or(|(v, ..)| value > v) {
            best = Some((value, share, fact));
        }
    }
    let (_, share, fact) = best?;
    (share >= 0.5).then(|| (share, turned(fact)))
}

/// The fact as said to the one who said it: *my* becomes *your*. Left as it is where both sides occur in it.
fn turned(fact: &str) -> String {
    let fact = ["remember that ", "remember: ", "remember ", "note that ", "please remember that "]
        .iter()
        .find_map(|cue| {
            fact.get(..cue.len()).filter(|h| h.eq_ignore_ascii_case(cue)).and_then(|_| fact.get(cue.len()..))
        })
        .unwrap_or(fact)
        .trim();
    let mut out = String::with_capacity(fact.len() + 8);
    let second = fact
        .split(|c: char| !c.is_alphanumeric())
        .any(|w| matches!(w.to_lowercase().as_str(), "you" | "your" | "yours"));
    if second {
        out.push_str(fact);
    } else {
        let mut previous = String::new();
        for piece in fact.split_inclusive(' ') {
            let word = piece.trim_matches(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’');
            let lower = word.to_lowercase().replace('’', "'");
            let new = match lower.as_str() {
                "my" => "your",
                "mine" => "yours",
                "me" | "i" => "you",
                "i'm" => "you're",
                "i've" => "you've",
                "i'd" => "you'd",
                "i'll" => "you'll",
                "myself" => "yourself",
                "am" if previous == "i" => "are",
                "was" if previous == "i" => "were",
                _ => word,
            };
            out.push_str(&if word.is_empty() { piece.to_owned() } else { piece.replacen(word, new, 1) });
            previous = lower;
        }
    }
    let mut chars = out.chars();
    let capital =
        chars.next().map(|c| c.to_uppercase().chain(chars.clone()).collect::<String>()).unwrap_or_default();
    let capital = capital.trim_end().to_owned();
    if capital.ends_with(['.', '!', '?']) { capital } else { capital + "." }
}

/// Does a message ask something?
pub(super) fn is_question(text: &Text<'_>) -> bool {
    let ends = text.tokens.iter().rev().find(|t| t.mark != Some('\n')).is_some_and(|t| t.mark == Some('?'));
    // "Tell me what ...", "remind me where ..."
    let told = text.any(0, &["tell", "remind"])
        && text.is(1, "me")
        && text.any(2, &["what", "who", "where", "when", "which", "how", "whose"]);
    ends || told
        || text.any(
            0,
            &[
                "what", "what's", "who", "who's", "whose", "where", "where's", "when", "when's", "which",
                "why", "how", "do", "does", "did", "is", "are", "am", "can", "could",
            ],
        )
}

/// Does a message state something about the user?
pub(super) fn is_statement_about_user(text: &Text<'_>) -> bool {
    if is_question(text) || text.tokens.len() < 3 {
        return false;
    }
    text.any(0, &["my", "our", "i'm", "i've"])
        || (text.any(0, &["i", "we"])
            && text.any(
                1,
                &[
                    "am", "are", "live", "like", "love", "hate", "prefer", "have", "work", "was", "moved",
                    "speak", "study", "own", "use", "always", "never", "usually", "drink", "eat", "play",
                ],
            ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_turned_towards_the_user() {
        assert_eq!(turned("my cat is called Miso"), "Your cat is called Miso.");
        assert_eq!(turned("I am 42 and I'm happy"), "You are 42 and you're happy.");
        assert_eq!(turned("you told me my code"), "You told me my code.");
    }
}
