//! Keeps known secrets out of what leaves the process: prompts, logs, tool output, child environments.
//!
//! [`Leaks`] knows the secrets in use and replaces each by `[secret NAME]`. A secret is found
//! * as it is, also when a line break and the indentation after it were put in between,
//! * escaped in JSON (`\"`, `\/`, `\u0041`, `\n`) or percent-encoded, whatever share of its characters was escaped, with digits
//!   in either case, and with `+` for a space,
//! * in base64, standard or safe for URLs, padded or not, in lines or not, also when other bytes were encoded with it
//!   (`user:key`); of the digits that it shares with them, one at each end may be left, which tells four bits at most,
//! * in hexadecimal, in either case.
//!
//! Base64 and hexadecimal are found within JSON and percent-encoding too, not within each other; JSON in a string of JSON up to
//! five levels deep. What it cannot find: a secret
//! that somebody set out to hide (spelled backwards, encrypted, packed, word by word), parts of one, and one that is split over
//! two parts of a message. It is a net below the promise that no secret gets there, not the promise.
//!
//! One pass for the plain text, and one more each if it holds a `%` or a `\`. A text without secrets is neither copied nor
//! changed.

mod base64;
mod env;
mod find;
mod guises;
mod message;
mod stream;

pub use env::clean_env;
pub use stream::{LeakStream, Scrubbed};
#[cfg(feature = "vault")]
pub(crate) use {base64::decode as base64_decode, base64::encode as base64_encode};

use crate::Secret;
use find::Finder;
use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};
use zo_traits::{Error, ErrorKind, Result};

/// Shortest secret that can be told from ordinary text, in bytes.
const SHORTEST: usize = 8;
/// Longest secret that is looked for, in bytes.
const LONGEST: usize = 64 << 10;

/// The secrets that must not get out. Cheap to clone; clones share what they know.
///
/// Each new secret makes the index anew, which takes tens of milliseconds at a thousand of them: add them early, and give each
/// user an own set, or one could learn by trying whether a guess is another's secret.
///
/// ```
/// use zo_providers::{Leaks, Secret};
/// let leaks = Leaks::default();
/// leaks.add("github", &Secret::new("ghp_canary_0123456789"))?;
/// assert_eq!(leaks.scrub("token=ghp_canary_0123456789;"), "token=[secret github];");
/// // base64 of "x:ghp_canary_0123456789"
/// assert_eq!(leaks.scrub("Basic eDpnaHBfY2FuYXJ5XzAxMjM0NTY3ODk="), "Basic eDp[secret github]k=");
/// # Ok::<(), zo_traits::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Leaks(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    secrets: Vec<(Arc<str>, Secret)>,
    /// Their SHA-256: adding one again is what each request does.
    digests: HashSet<[u8; 32]>,
    /// Made when it is needed first after a change.
    index: Option<Arc<Index>>,
}

/// What a scan needs, shared by all that run at the same time.
struct Index {
    finder: Finder,
    /// What stands for each secret.
    marks: Vec<Box<str>>,
}

impl fmt::Debug for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            known.secrets.iter().map(|(name, _)| name.clone()).collect()
        };
        f.debug_list().entries(names.iter().map(|name| self.scrub(name))).finish()
    }
}

impl Leaks {
    /// From now on `secret` is replaced by `[secret NAME]`. Adding a secret that is known changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a secret of less than 8 bytes, which cannot be told from ordinary words, of more than
    /// 64 KiB, or with more than 80 bytes of white space at a line break.
    pub fn add(&self, name: &str, secret: &Secret) -> Result<()> {
        let refused = |why: &str| {
            Err(Error::new(ErrorKind::Invalid, "leaks.add", format_args!("secret {name:?}: {why}")))
        };
        let len = secret.expose().len();
        if len < SHORTEST {
            return refused(
                "shorter than 8 bytes, it cannot be told from ordinary words and is not looked for",
            );
        }
        if len > LONGEST {
            return refused("longer than 64 KiB");
        }
        if guises::longest_break(secret.expose()) > guises::WRAP {
            return refused("more than 80 bytes of white space at a line break");
        }
        let digest = hmac_sha256::Hash::hash(secret.expose().as_bytes());
        if self.0.read().unwrap_or_else(PoisonError::into_inner).digests.contains(&digest) {
            return Ok(());
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.digests.insert(digest) {
            // A name goes where the secret would have gone: on one line, and short.
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            known.secrets.push((name.into(), secret.clone()));
            known.index = None;
        }
        Ok(())
    }

    /// How many secrets are known.
    pub fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).secrets.len()
    }

    /// Is no secret known?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn index(&self) -> Arc<Index> {
        if let Some(index) = &self.0.read().unwrap_or_else(PoisonError::into_inner).index {
            return index.clone();
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &known.index {
            return index.clone();
        }
        let words: Vec<_> = (0u32..)
            .zip(&known.secrets)
            .flat_map(|(n, (_, secret))| guises::of(secret.expose()).into_iter().map(move |guise| (guise, n)))
            .collect();
        let words: Vec<(&[u8], u32)> = words.iter().map(|(guise, n)| (guise.as_slice(), *n)).collect();
        let finder = Finder::new(&words);
        // A mark must not give away what it or another mark stands for: a key put in the place of a name is the usual accident.
        let mark = |name: &str| {
            [format!("[secret {name}]"), "[secret]".into()]
                .into_iter()
                .find(|mark| finder.all(mark.as_bytes()).0.is_empty())
                .unwrap_or_else(|| "***".into())
                .into()
        };
        let marks = known.secrets.iter().map(|(name, _)| mark(name)).collect();
        let index = Arc::new(Index { finder, marks });
        known.index = Some(index.clone());
        index
    }

    /// `text` without any known secret.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.index().scrub(text.as_bytes()) {
            None => Cow::Borrowed(text),
            // Secrets begin and end where characters do; should a view ever disagree, nothing is lost but a character.
            Some(bytes) => Cow::Owned(match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
            }),
        }
    }

    /// `bytes` without any known secret. For what may not be text.
    pub fn scrub_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.index().scrub(bytes).map_or(Cow::Borrowed(bytes), Cow::Owned)
    }

    /// Does `bytes` hold a known secret?
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        !self.index().finder.all(bytes).0.is_empty()
    }
}

impl Index {
    fn mark(&self, secret: u32) -> &[u8] {
        self.marks.get(secret as usize).map_or(b"[secret]", |mark| mark.as_bytes())
    }

    /// `text` with its secrets replaced, or `None` when it has none.
    fn scrub(&self, text: &[u8]) -> Option<Vec<u8>> {
        let (found, _) = self.finder.all(text);
        (!found.is_empty()).then(|| self.replace(text, &found))
    }

    fn replace(&self, text: &[u8], found: &[find::Found]) -> Vec<u8> {
        let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
        for f in found {
            out.extend_from_slice(text.get(at..f.start).unwrap_or_default());
            out.extend_from_slice(self.mark(f.secret));
            at = f.end;
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "sk-canary/77+f1=c0ffee";

    fn leaks() -> Leaks {
        let leaks = Leaks::default();
        leaks.add("test", &Secret::new(KEY)).unwrap();
        leaks
    }

    #[test]
    fn the_mark_says_which_and_the_rest_stays() {
        let leaks = leaks();
        leaks.add("ot\nher", &Secret::new("another-secret")).unwrap();
        assert_eq!(
            leaks.scrub(&format!("a {KEY}, b another-secret c")),
            "a [secret test], b [secret other] c"
        );
        assert!(matches!(leaks.scrub("nothing here"), Cow::Borrowed(_)));
        assert_eq!(format!("{leaks:?}"), r#"["test", "other"]"#);
        assert_eq!(leaks.scrub_bytes(&[b"\xff", KEY.as_bytes()].concat()).as_ref(), b"\xff[secret test]");
    }

    #[test]
    fn a_mark_holds_no_secret_itself() {
        let leaks = Leaks::default();
        leaks.add("sk-canary-the-first", &Secret::new("sk-canary-the-second")).unwrap();
        leaks.add("k", &Secret::new("sk-canary-the-first")).unwrap();
        leaks.add("x", &Secret::new("[secret k]")).unwrap();
        for text in ["<sk-canary-the-second>", "<sk-canary-the-first>", "<[secret k]>"] {
            let clean = leaks.scrub(text).into_owned();
            assert!(!clean.contains("canary") && !clean.contains("[secret k]"), "{clean}");
            assert!(matches!(leaks.scrub(&clean), Cow::Borrowed(_)), "{clean}");
        }
        assert!(!format!("{leaks:?}").contains("canary"), "{leaks:?}");
    }

    /// A file with a key in it, read by a tool that answers in JSON, in a log that is JSON: as agents see it every day.
    #[test]
    fn it_reads_through_json_within_json() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMIIEcanary\"77\"/f1\n-----END PRIVATE KEY-----";
        let leaks = Leaks::default();
        leaks.add("pem", &Secret::new(pem)).unwrap();
        let mut text = pem.to_owned();
        for depth in 0..=5 {
            let whole = format!("x {text} y");
            assert_eq!(leaks.scrub(&whole), "x [secret pem] y", "{depth}");
            for size in [1, 2, 3, 7] {
                let mut stream = LeakStream::new(&leaks);
                let mut out: Vec<u8> =
                    whole.as_bytes().chunks(size).flat_map(|piece| stream.push(piece)).collect();
                out.extend(stream.finish());
                assert_eq!(String::from_utf8(out).unwrap(), "x [secret pem] y", "{depth} by {size}");
            }
            text = serde_json::to_string(&text).unwrap().trim_matches('"').to_owned();
        }
        let backslashes = "\\".repeat(1 << 20);
        let began = std::time::Instant::now();
        assert!(matches!(leaks.scrub(&backslashes), Cow::Borrowed(_)));
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }

    #[test]
    fn what_cannot_be_told_from_words_is_refused() {
        let leaks = Leaks::default();
        let e = leaks.add("pin", &Secret::new("1234567")).unwrap_err();
        assert!(
            e.message().contains("pin")
                && e.message().contains("8 bytes")
                && !e.message().contains("1234567")
        );
        assert!(leaks.add("x", &Secret::new("a".repeat(LONGEST + 1))).is_err());
        assert!(leaks.add("x", &Secret::new(format!("abcd\n{}efgh", " ".repeat(80)))).is_err());
        assert!(leaks.is_empty());
        leaks.add("x", &Secret::new("a".repeat(LONGEST))).unwrap();
        leaks.add("x", &Secret::new(format!("abcd\n{}efgh", " ".repeat(79)))).unwrap();
        assert_eq!(leaks.len(), 2);
    }

    #[test]
    fn clones_share_what_they_know() {
        let leaks = Leaks::default();
        let other = leaks.clone();
        assert_eq!(other.scrub(KEY), KEY);
        leaks.add("late", &Secret::new(KEY)).unwrap();
        leaks.add("again", &Secret::new(KEY)).unwrap();
        assert_eq!(other.scrub(KEY), "[secret late]");
    }

    #[test]
    fn many_secrets_with_one_beginning_cost_no_more() {
        // What would be quadratic is not: a text of nothing but beginnings of secrets.
        let leaks = Leaks::default();
        for n in 0..200 {
            leaks.add("k", &Secret::new(format!("{}{n:03}", "ab".repeat(2_000)))).unwrap();
        }
        let text = "ab".repeat(1 << 18);
        let began = std::time::Instant::now();
        assert!(matches!(leaks.scrub(&text), Cow::Borrowed(_)));
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    /// Percent-encodes the bytes for which `which` says so.
    fn percent(text: &str, which: impl Fn(usize) -> bool, upper: bool) -> String {
        text.bytes()
            .enumerate()
            .map(|(n, b)| match (which(n) || !b.is_ascii() || b == b'%', upper) {
                (false, _) => char::from(b).to_string(),
                (true, true) => format!("%{b:02X}"),
                (true, false) => format!("%{b:02x}"),
            })
            .collect()
    }

    /// JSON-escapes, with `\u` for the characters for which `which` says so.
    fn json(text: &str, which: impl Fn(usize) -> bool) -> String {
        let mut out = String::new();
        for (n, c) in text.chars().enumerate() {
            if which(n) {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|u| out += &format!("\\u{u:04x}"));
            } else {
                out.extend(matches!(c, '"' | '\\').then_some('\\'));
                out.push(c);
            }
        }
        out
    }

    fn plain_base64(bytes: &[u8], digits: &[u8; 64]) -> String {
        bytes
            .chunks(3)
            .flat_map(|g| {
                let bits = g.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - g.len()));
                (0..=g.len()).map(move |at| char::from(digits[(bits >> (18 - 6 * at) & 63) as usize]))
            })
            .collect()
    }

    fn guise(key: &str, kind: u8, mask: u32) -> String {
        let bit = |n: usize| mask >> (n % 32) & 1 == 1;
        match kind % 9 {
            0 => key.to_owned(),
            1 => percent(key, bit, mask & 1 == 0),
            2 => json(key, bit),
            3 => key.bytes().map(|b| format!("{b:02x}")).collect(),
            4 => key.bytes().map(|b| format!("{b:02X}")).collect(),
            k => {
                let around = [
                    vec![b'~'; mask as usize % 3],
                    key.as_bytes().to_vec(),
                    vec![b'!'; mask as usize / 3 % 3],
                ];
                let digits = if k % 2 == 0 { base64::STANDARD } else { base64::URL_SAFE };
                let text = plain_base64(&around.concat(), digits);
                if k < 7 {
                    return text;
                }
                let lines: Vec<&[u8]> = text.as_bytes().chunks(1 + mask as usize % 76).collect();
                String::from_utf8(lines.join(&b"\r\n  "[..])).unwrap()
            }
        }
    }

    /// What is left of a secret in base64 when up to a digit at each end may stay.
    fn core(key: &str, kind: u8, mask: u32) -> Option<String> {
        let text: String = guise(key, kind, mask).chars().filter(|c| !c.is_whitespace()).collect();
        (kind % 9 >= 5).then(|| text.chars().skip(4).take(text.len().saturating_sub(8)).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 400 } else { 4_000 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_guise_of_any_secret_survives_however_it_is_cut(
            key in "[!-~äß€😀]{8,60}",
            before in "[ -~ä\\n\"\\\\%]{0,30}",
            after in "[ -~ä\\n\"\\\\%]{0,30}",
            kind: u8,
            mask: u32,
            cuts in proptest::collection::vec(1usize..20, 1..12),
        ) {
            let leaks = Leaks::default();
            leaks.add("k", &Secret::new(key.clone())).unwrap();
            let hidden = guise(&key, kind, mask);
            // An escape that is not the secret's own must not swallow its beginning: then it does not stand there.
            let before = before.trim_end_matches(['\\', '%']);
            prop_assume!(!before.ends_with(|c: char| c.is_ascii_hexdigit()) || !before.contains(['%', '\\']));
            let text = format!("{before}{hidden}{after}");
            let clean = leaks.scrub(&text).into_owned();
            prop_assert!(clean.contains("[secret k]"), "{key:?} in {text:?}");
            prop_assert!(!clean.contains(&hidden), "{clean:?}");
            if let Some(core) = core(&key, kind, mask).filter(|core| core.len() > 6) {
                let seen: String = clean.chars().filter(|c| !c.is_whitespace()).collect();
                prop_assert!(!seen.contains(&core), "{core:?} in {clean:?}");
            }

            let mut stream = LeakStream::new(&leaks);
            let (mut rest, mut out) = (text.as_bytes(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                out.extend(stream.push(piece));
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            out.extend(stream.finish());
            prop_assert_eq!(String::from_utf8(out).unwrap(), clean);
        }

        #[test]
        fn text_without_secrets_is_not_changed(
            keys in proptest::collection::vec("[a-z0-9]{8,20}", 1..20),
            text in "[A-Z \\n%\\\\u0-9]{0,300}",
            cuts in proptest::collection::vec(1usize..20, 1..12),
        ) {
            let leaks = Leaks::default();
            for key in &keys {
                leaks.add("k", &Secret::new(format!("q{key}"))).unwrap();
            }
            prop_assert!(matches!(leaks.scrub(&text), Cow::Borrowed(_)));
            let mut stream = LeakStream::new(&leaks);
            let (mut rest, mut out) = (text.as_bytes(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                out.extend(stream.push(piece));
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            out.extend(stream.finish());
            prop_assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    /// `cargo test --release -p zo-providers leak::tests::speed -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        let leaks = Leaks::default();
        for n in 0..50u64 {
            let tail: String = (0..100u64)
                .map(|i| char::from(b'a' + (((n + 7) * (i + 3) * 0x9e37_79b9) >> 7) as u8 % 26))
                .collect();
            leaks.add(&format!("k{n}"), &Secret::new(format!("sk-proj-{tail}"))).unwrap();
        }
        let began = std::time::Instant::now();
        let _ = leaks.scrub("x");
        println!("index of 50 keys of 108 bytes: {:?}", began.elapsed());
        let prose = "The quick brown fox jumps over the lazy dog; 42 of them, in fact.\n".repeat(1 << 14);
        let json = serde_json::to_string(&prose).unwrap();
        let base64 =
            base64::STANDARD.iter().cycle().take(1 << 20).map(|b| char::from(*b)).collect::<String>();
        let starts = "sk-proj-".repeat(1 << 17);
        for (name, text) in
            [("prose", &prose), ("prose as JSON", &json), ("base64", &base64), ("sk-proj-", &starts)]
        {
            let began = std::time::Instant::now();
            for _ in 0..20 {
                assert!(matches!(leaks.scrub(text), Cow::Borrowed(_)));
            }
            println!("{name}: {:?} for {} bytes", began.elapsed() / 20, text.len());
        }
    }
}
