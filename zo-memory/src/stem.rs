//! Word stems: the Porter2 algorithm for English (Snowball's `english`, as of its version 3).
//!
//! Works on lower-case ASCII words; anything else stays as it is.

/// Reduces `word` to its stem, in place.
pub(crate) fn stem(word: &mut String) {
    if word.len() <= 2 || !word.bytes().all(|b| b.is_ascii_lowercase()) {
        return;
    }
    if let Some(special) = special(word) {
        special.clone_into(word);
        return;
    }
    let mut stemmer = Stemmer::new(word.as_bytes());
    stemmer.run();
    word.clear();
    word.extend(stemmer.word.iter().map(|b| char::from(b.to_ascii_lowercase())));
}

/// Words with a stem of their own.
fn special(word: &str) -> Option<&'static str> {
    Some(match word {
        "skis" => "ski",
        "skies" | "sky" => "sky",
        "dying" => "die",
        "lying" => "lie",
        "tying" => "tie",
        "idly" => "idl",
        "gently" => "gentl",
        "ugly" => "ugli",
        "early" => "earli",
        "only" => "onli",
        "singly" => "singl",
        "news" => "news",
        "howe" => "howe",
        "atlas" => "atlas",
        "cosmos" => "cosmos",
        "bias" => "bias",
        "andes" => "andes",
        _ => return None,
    })
}

struct Stemmer {
    /// A `y` that stands for a consonant is an upper-case `Y`.
    word: Vec<u8>,
    /// Where the regions R1 and R2 begin.
    r1: usize,
    r2: usize,
}

fn is_vowel(b: u8) -> bool {
    matches!(b, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

impl Stemmer {
    fn new(word: &[u8]) -> Self {
        let mut marked = word.to_vec();
        let mut after_vowel = true;
        for b in &mut marked {
            if *b == b'y' && after_vowel {
                *b = b'Y';
            }
            after_vowel = is_vowel(*b);
        }
        // Stems that would be cut too short: general, communism, interval.
        const WHOLE: [&[u8]; 9] =
            [b"arsen", b"commun", b"emerg", b"gener", b"inter", b"later", b"organ", b"past", b"univers"];
        let prefix = WHOLE.into_iter().find(|p| marked.starts_with(p));
        let r1 = prefix.map_or_else(|| Self::region(&marked, 0), <[u8]>::len);
        let r2 = Self::region(&marked, r1);
        Self { word: marked, r1, r2 }
    }

    /// Behind the first consonant that follows a vowel, from `start` on.
    fn region(word: &[u8], start: usize) -> usize {
        let rest = word.get(start..).unwrap_or_default();
        rest.windows(2)
            .position(|pair| matches!(pair, [a, b] if is_vowel(*a) && !is_vowel(*b)))
            .map_or(word.len(), |at| start + at + 2)
    }

    fn ends(&self, suffix: &str) -> bool {
        self.word.ends_with(suffix.as_bytes())
    }

    /// The first of `suffixes` that the word ends with: list longer ones first.
    fn suffix<'s>(&self, suffixes: &[&'s str]) -> Option<&'s str> {
        suffixes.iter().copied().find(|s| self.ends(s))
    }

    fn stem_len(&self, suffix: &str) -> usize {
        self.word.len().saturating_sub(suffix.len())
    }

    fn at(&self, index: usize) -> Option<u8> {
        self.word.get(index).copied()
    }

    fn before(&self, suffix: &str) -> Option<u8> {
        self.stem_len(suffix).checked_sub(1).and_then(|i| self.at(i))
    }

    fn cut(&mut self, suffix: &str) {
        self.word.truncate(self.stem_len(suffix));
    }

    fn replace(&mut self, suffix: &str, with: &str) {
        self.cut(suffix);
        self.word.extend_from_slice(with.as_bytes());
    }

    fn has_vowel(&self, end: usize) -> bool {
        self.word.iter().take(end).any(|b| is_vowel(*b))
    }

    /// Does the part before `end` end in a short syllable?
    fn short_syllable(&self, end: usize) -> bool {
        let part = self.word.get(..end).unwrap_or_default();
        match part {
            [a, b] => is_vowel(*a) && !is_vowel(*b),
            [.., a, b, c] => {
                !is_vowel(*a) && is_vowel(*b) && !is_vowel(*c) && !matches!(c, b'w' | b'x' | b'Y')
            }
            _ => false,
        }
    }

    fn run(&mut self) {
        self.step_1a();
        let whole = matches!(
            self.word.as_slice(),
            b"inning"
                | b"outing"
                | b"canning"
                | b"herring"
                | b"earring"
                | b"evening"
                | b"proceed"
                | b"exceed"
                | b"succeed"
        );
        if whole {
            return;
        }
        self.step_1b();
        self.step_1c();
        self.step_2();
        self.step_3();
        self.step_4();
        self.step_5();
    }

    fn step_1a(&mut self) {
        match self.suffix(&["sses", "ied", "ies", "us", "ss", "s"]) {
            Some(s @ "sses") => self.replace(s, "ss"),
            Some(s @ ("ied" | "ies")) => {
                let with = if self.stem_len(s) > 1 { "i" } else { "ie" };
                self.replace(s, with);
            }
            Some(s @ "s") if self.has_vowel(self.word.len().saturating_sub(2)) => self.cut(s),
            _ => {}
        }
    }

    fn step_1b(&mut self) {
        match self.suffix(&["eedly", "ingly", "edly", "eed", "ing", "ed"]) {
            Some(s @ ("eed" | "eedly")) if self.stem_len(s) >= self.r1 => self.replace(s, "ee"),
            Some("eed" | "eedly") => {}
            Some(s) if self.has_vowel(self.stem_len(s)) => {
                self.cut(s);
                if self.suffix(&["at", "bl", "iz"]).is_some() {
                    self.word.push(b'e');
                } else if self.suffix(&["bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt"]).is_some() {
                    // But not of add, egg and off.
                    if !matches!(self.word.as_slice(), [b'a' | b'e' | b'o', _, _]) {
                        self.word.pop();
                    }
                } else if self.r1 >= self.word.len() && self.short_syllable(self.word.len()) {
                    self.word.push(b'e');
                }
            }
            _ => {}
        }
    }

    fn step_1c(&mut self) {
        if let [_, .., before, last @ (b'y' | b'Y')] = self.word.as_mut_slice()
            && !is_vowel(*before)
        {
            *last = b'i';
        }
    }

    fn step_2(&mut self) {
        const RULES: [(&str, &str); 23] = [
            ("ational", "ate"),
            ("fulness", "ful"),
            ("iveness", "ive"),
            ("ization", "ize"),
            ("ousness", "ous"),
            ("biliti", "ble"),
            ("lessli", "less"),
            ("tional", "tion"),
            ("alism", "al"),
            ("aliti", "al"),
            ("ation", "ate"),
            ("entli", "ent"),
            ("fulli", "ful"),
            ("iviti", "ive"),
            ("ogist", "og"),
            ("ousli", "ous"),
            ("abli", "able"),
            ("alli", "al"),
            ("anci", "ance"),
            ("ator", "ate"),
            ("enci", "ence"),
            ("izer", "ize"),
            ("bli", "ble"),
        ];
        if let Some((s, with)) = RULES.into_iter().find(|(s, _)| self.ends(s)) {
            if self.stem_len(s) >= self.r1 {
                self.replace(s, with);
            }
        } else if self.ends("ogi") {
            if self.stem_len("ogi") >= self.r1 && self.before("ogi") == Some(b'l') {
                self.replace("ogi", "og");
            }
        } else if self.ends("li")
            && self.stem_len("li") >= self.r1
            && self.before("li").is_some_and(|b| b"cdeghkmnrt".contains(&b))
        {
            self.cut("li");
        }
    }

    fn step_3(&mut self) {
        const RULES: [(&str, &str); 9] = [
            ("ational", "ate"),
            ("tional", "tion"),
            ("alize", "al"),
            ("ative", ""),
            ("icate", "ic"),
            ("iciti", "ic"),
            ("ical", "ic"),
            ("ness", ""),
            ("ful", ""),
        ];
        if let Some((s, with)) = RULES.into_iter().find(|(s, _)| self.ends(s)) {
            let region = if s == "ative" { self.r2 } else { self.r1 };
            if self.stem_len(s) >= region {
                self.replace(s, with);
            }
        }
    }

    fn step_4(&mut self) {
        const SUFFIXES: [&str; 18] = [
            "ement", "able", "ance", "ence", "ible", "ment", "ant", "ate", "ent", "ion", "ism", "iti", "ive",
            "ize", "ous", "al", "er", "ic",
        ];
        if let Some(s) = self.suffix(&SUFFIXES) {
            let allowed = s != "ion" || matches!(self.before(s), Some(b's' | b't'));
            if allowed && self.stem_len(s) >= self.r2 {
                self.cut(s);
            }
        }
    }

    fn step_5(&mut self) {
        let len = self.word.len().saturating_sub(1);
        if self.ends("e") {
            if len >= self.r2 || (len >= self.r1 && !self.short_syllable(len)) {
                self.word.pop();
            }
        } else if self.ends("ll") && len >= self.r2 {
            self.word.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stemmed(word: &str) -> String {
        let mut word = word.to_owned();
        stem(&mut word);
        word
    }

    #[test]
    fn words_of_the_published_sample() {
        for (word, expected) in [
            ("consigned", "consign"),
            ("consignment", "consign"),
            ("consistency", "consist"),
            ("consistently", "consist"),
            ("consolation", "consol"),
            ("consolatory", "consolatori"),
            ("consolidated", "consolid"),
            ("conspicuously", "conspicu"),
            ("conspiracy", "conspiraci"),
            ("knackeries", "knackeri"),
            ("knavish", "knavish"),
            ("knightly", "knight"),
            ("knitting", "knit"),
            ("knives", "knive"),
            ("hopping", "hop"),
            ("hoping", "hope"),
            ("ties", "tie"),
            ("cries", "cri"),
            ("by", "by"),
            ("say", "say"),
            ("gas", "gas"),
            ("this", "this"),
            ("gaps", "gap"),
            ("kiwis", "kiwi"),
            ("luxuriated", "luxuri"),
            ("proceeding", "proceed"),
            ("generously", "generous"),
            ("evenings", "evening"),
            ("adding", "add"),
            ("biologist", "biolog"),
            ("international", "internat"),
            ("communism", "communism"),
            ("rational", "ration"),
            ("relational", "relat"),
            ("analogies", "analog"),
            ("controlling", "control"),
            ("allergies", "allergi"),
            ("allergic", "allerg"),
            ("youth", "youth"),
            ("enjoyed", "enjoy"),
        ] {
            assert_eq!(stemmed(word), expected, "{word}");
        }
    }

    #[test]
    fn other_words_stay() {
        for word in ["", "a", "is", "naïve", "日本", "b2b", "x86"] {
            assert_eq!(stemmed(word), word);
        }
    }

    #[test]
    fn no_word_makes_it_stumble() {
        let letters = b"aeysldgitnonu";
        let mut n: u64 = 1;
        for _ in 0..50_000 {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word: String =
                (0..1 + n % 9).map(|i| char::from(letters[((n >> (5 * i + 8)) % 13) as usize])).collect();
            assert!(stemmed(&word).len() <= word.len() + 1, "{word}");
        }
    }
}
