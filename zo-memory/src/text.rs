//! From text to the terms that the index holds.
//!
//! A word is a run of letters and digits; letters are lower-cased and lose their accents; English words are reduced to
//! their stems. Scripts that are written without spaces (Han, Kana, Thai, ...) and Hangul are indexed as pairs of
//! neighbouring letters and as single ones. A term is at most [`MAX_TERM`] bytes: a longer word is cut and ends in a hash.
//!
//! The terms of a text are part of the format of the index: a change here needs a rebuild of every store's index.

use crate::stem::stem;

/// Most bytes of a term.
pub const MAX_TERM: usize = 64;

/// What is left of a word that is too long, before its hash of sixteen digits.
const CUT: usize = 40;

/// Calls `each` with every term of a text that is to be found, in order, repeated ones repeatedly.
pub fn index_terms(text: &str, mut each: impl FnMut(&str)) {
    tokens(text, true, &mut |term, _| each(term));
}

/// The terms that a question looks for, in order, repeated ones repeatedly: without those of stop words (`the`, `is`,
/// `what`) unless there are no others. At most `limit`.
pub fn query_terms(text: &str, limit: usize) -> Vec<String> {
    let (mut terms, mut stops) = (Vec::new(), Vec::new());
    tokens(text, false, &mut |term, stop| {
        let list = if stop { &mut stops } else { &mut terms };
        if list.len() < limit {
            list.push(term.to_owned());
        }
    });
    if terms.is_empty() { stops } else { terms }
}

/// How a letter takes part in words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    /// Of a script without spaces: no telling where a word ends.
    Unspaced,
    /// A picture that is a word.
    Symbol,
    /// Belongs to the letter before it and adds nothing.
    Mark,
    Apostrophe,
    Gap,
}

fn kind(c: char) -> Kind {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => Kind::Letter,
        '\'' | '\u{2019}' | '\u{2bc}' | '\u{ff07}' => Kind::Apostrophe,
        '\0'..='\u{7f}' => Kind::Gap,
        '\u{300}'..='\u{36f}' | '\u{200c}' | '\u{200d}' | '\u{ad}' | '\u{fe00}'..='\u{fe0f}' => Kind::Mark,
        // Thai, Lao, Myanmar, Khmer; Kana, Bopomofo, Hangul, Han and its extensions.
        '\u{e01}'..='\u{edf}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17dd}'
        | '\u{3005}'..='\u{3007}'
        | '\u{3041}'..='\u{30fa}'
        | '\u{30fc}'..='\u{312f}'
        | '\u{31a0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}'
        | '\u{20000}'..='\u{3ffff}' => Kind::Unspaced,
        '\u{2600}'..='\u{27bf}' | '\u{1f300}'..='\u{1faff}' => Kind::Symbol,
        c if c.is_alphanumeric() => Kind::Letter,
        _ => Kind::Gap,
    }
}

/// Every term, and whether it is of a stop word. `index` adds the single letters beside the pairs.
fn tokens(text: &str, index: bool, each: &mut dyn FnMut(&str, bool)) {
    let mut word = String::new();
    let mut before: Option<char> = None;
    let mut alone = false;
    let mut term = String::new();
    // The end is a gap too.
    for c in text.chars().chain([' ']) {
        let kind = kind(c);
        if kind == Kind::Mark {
            continue;
        }
        if kind != Kind::Unspaced && before.is_some() {
            // A question of one letter looks for the letter; pairs say more where there are some.
            if alone && !index {
                each(single(&mut term, before), false);
            }
            before = None;
        }
        if !matches!(kind, Kind::Letter | Kind::Apostrophe) && !word.is_empty() {
            finish(&mut word, each);
        }
        match kind {
            Kind::Letter => fold(c, &mut word),
            // Inside of a word it belongs to it: don't, o'clock.
            Kind::Apostrophe if !word.is_empty() => word.push('\''),
            Kind::Unspaced => {
                if index {
                    each(single(&mut term, Some(c)), false);
                }
                if let Some(first) = before {
                    term.clear();
                    term.extend([first, c]);
                    each(&term, false);
                }
                alone = before.is_none();
                before = Some(c);
            }
            Kind::Symbol => each(single(&mut term, Some(c)), false),
            _ => {}
        }
    }
}

fn single(term: &mut String, c: Option<char>) -> &str {
    term.clear();
    term.extend(c);
    term
}

/// Makes a term of the word and clears it.
fn finish(word: &mut String, each: &mut dyn FnMut(&str, bool)) {
    while word.ends_with('\'') {
        word.pop();
    }
    if word.ends_with("'s") {
        word.truncate(word.len() - 2);
    }
    word.retain(|c| c != '\'');
    if !word.is_empty() {
        let stop = STOP_WORDS.binary_search(&word.as_str()).is_ok();
        stem(word);
        shorten(word);
        each(word, stop);
    }
    word.clear();
}

fn shorten(word: &mut String) {
    if word.len() > MAX_TERM {
        let hash = hash(word.as_bytes());
        let mut end = CUT;
        while !word.is_char_boundary(end) {
            end -= 1;
        }
        word.truncate(end);
        word.push_str(&format!("#{hash:016x}"));
    }
}

/// FNV-1a of 64 bits: the same in every version and on every machine, as a format needs it.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// Adds `c` in lower case and without accents.
fn fold(c: char, word: &mut String) {
    if c.is_ascii() {
        word.push(c.to_ascii_lowercase());
        return;
    }
    // Full-width forms of ASCII lie apart by a constant.
    if let '\u{ff01}'..='\u{ff5e}' = c {
        word.extend(char::from_u32(u32::from(c) - 0xfee0).map(|c| c.to_ascii_lowercase()));
        return;
    }
    for c in c.to_lowercase() {
        if kind(c) == Kind::Mark {
            continue;
        }
        match FOLDS.iter().find(|(letters, _)| letters.contains(c)) {
            Some((_, plain))
                if ('\u{df}'..'\u{530}').contains(&c) || ('\u{1e00}'..'\u{1f00}').contains(&c) =>
            {
                word.push_str(plain);
            }
            _ => word.push(c),
        }
    }
}

/// Letters with accents and what they are without (the decompositions of Unicode, and the usual spellings of the few
/// letters that have none).
const FOLDS: [(&str, &str); 46] = [
    ("àáâãäåāăąǎǟǡǻȁȃȧḁạảấầẩẫậắằẳẵặ", "a"),
    ("èéêëēĕėęěȅȇȩḕḗḙḛḝẹẻẽếềểễệ", "e"),
    ("ìíîïĩīĭįǐȉȋḭḯỉịı", "i"),
    ("òóôõöōŏőơǒǫǭȍȏȫȭȯȱṍṏṑṓọỏốồổỗộớờởỡợø", "o"),
    ("ùúûüũūŭůűųưǔǖǘǚǜȕȗṳṵṷṹṻụủứừửữự", "u"),
    ("ýÿŷȳẏẙỳỵỷỹ", "y"),
    ("çćĉċčḉ", "c"),
    ("ñńņňǹṅṇṉṋŉ", "n"),
    ("śŝşšșṡṣṥṧṩẛſ", "s"),
    ("źżžẑẓẕ", "z"),
    ("ďḋḍḏḑḓđð", "d"),
    ("ĝğġģǧǵḡ", "g"),
    ("ĺļľḷḹḻḽłŀ", "l"),
    ("ŕŗřȑȓṙṛṝṟ", "r"),
    ("ţťțṫṭṯṱẗŧ", "t"),
    ("ĥȟḣḥḧḩḫẖħ", "h"),
    ("ĵǰ", "j"),
    ("ķǩḱḳḵ", "k"),
    ("ŵẁẃẅẇẉẘ", "w"),
    ("ḃḅḇ", "b"),
    ("ḟ", "f"),
    ("ḿṁṃ", "m"),
    ("ṕṗ", "p"),
    ("ṽṿ", "v"),
    ("ẋẍ", "x"),
    ("ß", "ss"),
    ("æǣǽ", "ae"),
    ("œ", "oe"),
    ("þ", "th"),
    ("ŋ", "ng"),
    ("ά", "α"),
    ("έ", "ε"),
    ("ή", "η"),
    ("ίϊΐ", "ι"),
    ("ό", "ο"),
    ("ύϋΰ", "υ"),
    ("ώ", "ω"),
    ("ς", "σ"),
    ("ѐёӗ", "е"),
    ("йѝӣӥ", "и"),
    ("ўӯӱӳ", "у"),
    ("ӑӓ", "а"),
    ("ӧ", "о"),
    ("ї", "і"),
    ("ѓ", "г"),
    ("ќ", "к"),
];

/// Words that say little about what is looked for, sorted. Apostrophes are gone by the time they are compared.
#[rustfmt::skip]
const STOP_WORDS: [&str; 159] = [
    "a", "about", "above", "after", "again", "against", "all", "also", "am", "an", "and", "any", "are",
    "arent", "as", "at", "be", "because", "been", "before", "being", "below", "between", "both", "but",
    "by", "can", "cannot", "cant", "could", "couldnt", "did", "didnt", "do", "does", "doesnt", "doing",
    "dont", "down", "during", "each", "ever", "few", "for", "from", "further", "had", "hadnt", "has",
    "hasnt", "have", "havent", "having", "he", "her", "here", "hers", "herself", "him", "himself", "his",
    "how", "i", "id", "if", "im", "in", "into", "is", "isnt", "it", "its", "itself", "ive", "just", "me",
    "might", "more", "most", "must", "my", "myself", "no", "nor", "not", "now", "of", "off", "on", "once",
    "only", "or", "other", "our", "ours", "ourselves", "out", "over", "own", "same", "shall", "she",
    "should", "shouldnt", "so", "some", "such", "than", "that", "the", "their", "theirs", "them",
    "themselves", "then", "there", "these", "they", "theyre", "this", "those", "through", "to", "too",
    "under", "until", "up", "upon", "us", "very", "was", "wasnt", "we", "were", "werent", "weve", "what",
    "when", "where", "which", "while", "who", "whom", "whose", "why", "will", "with", "wont", "would",
    "wouldnt", "you", "youd", "youll", "your", "youre", "yours", "yourself", "yourselves", "youve",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn indexed(text: &str) -> Vec<String> {
        let mut terms = vec![];
        index_terms(text, |t| terms.push(t.to_owned()));
        terms
    }

    #[test]
    fn words_are_folded_and_stemmed() {
        assert_eq!(
            indexed("Running, RUNS; runner's café CAFÉ cafe\u{301}"),
            ["run", "run", "runner", "cafe", "cafe", "cafe"]
        );
        assert_eq!(indexed("Straße Ærø Ｆｕｌｌ１２"), ["strass", "aero", "full12"]);
        assert_eq!(indexed("don't rock ’n’ roll 'quoted'"), ["dont", "rock", "n", "roll", "quot"]);
        assert_eq!(indexed("Ёлка ЕЛКА Άνθρωπος"), ["елка", "елка", "ανθρωποσ"]);
        assert_eq!(indexed("snake_case b2b 3.14 C++"), ["snake", "case", "b2b", "3", "14", "c"]);
        assert_eq!(indexed(" \n\t.,;!?— "), [""; 0]);
    }

    #[test]
    fn scripts_without_spaces_become_pairs() {
        assert_eq!(indexed("東京都"), ["東", "京", "東京", "都", "京都"]);
        assert_eq!(query_terms("東京都", 9), ["東京", "京都"]);
        assert_eq!(query_terms("都", 9), ["都"]);
        assert_eq!(query_terms("X線 and 猫, 犬!", 9), ["x", "線", "猫", "犬"]);
        assert_eq!(query_terms("カタカナー", 9).len(), 4);
        assert_eq!(indexed("party 🎉🎉"), ["parti", "🎉", "🎉"]);
    }

    #[test]
    fn stop_words_go_unless_they_are_all_there_is() {
        assert_eq!(query_terms("What is the name of her dog?", 9), ["name", "dog"]);
        assert_eq!(query_terms("Who are you?", 9), ["who", "are", "you"]);
        assert_eq!(query_terms("one two three", 2).len(), 2);
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn a_long_word_is_cut_and_stays_itself() {
        let (a, b) = ("x".repeat(70), "x".repeat(71));
        let (ta, tb) = (indexed(&a), indexed(&b));
        assert_ne!(ta, tb);
        assert!(ta[0].len() <= MAX_TERM);
        assert_eq!(ta, query_terms(&a, 9));
        assert!(indexed(&"é".repeat(5000))[0].len() <= MAX_TERM);
        assert!(indexed(&"ж".repeat(5000))[0].len() <= MAX_TERM);
    }
}
