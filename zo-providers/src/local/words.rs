//! The words of a model: text to tokens and back, by what the file says of them.
//!
//! Marks that steer a model (`<|im_start|>`) are read as such only where the template wrote them, never where a user or a tool
//! did: their text comes in as ordinary words.

use super::gguf::{Head, corrupt, integer, unsupported};
use candle_core::quantized::gguf_file::Value;
use std::collections::HashMap;
use tokenizers::{
    PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};
use toktrie::{TokRxInfo, TokTrie};
use zo_traits::{Error, ErrorKind, Result};

/// Largest vocabulary: four times the biggest in use.
const MAX_WORDS: usize = 1 << 20;

/// How a text is cut before words are looked for, by `tokenizer.ggml.pre`. After `llama-vocab.cpp` of llama.cpp.
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a piece of a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The template wrote it: marks are marks.
    Template,
    /// Anybody else did.
    Other,
}

/// Text to tokens and back.
pub(super) struct Words {
    tokenizer: Tokenizer,
    /// What each token writes; nothing for a mark.
    bytes: Vec<Vec<u8>>,
    /// Marks, longest first.
    marks: Vec<(String, u32)>,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    first: Option<u32>,
    add_first: bool,
    /// Spaces are kept as `▁`, and a text begins with one.
    pieces: bool,
    longest: usize,
    pub(super) first_text: String,
    pub(super) end_text: String,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Words").field("count", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// `llama_token_type` of llama.cpp.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

/// Marks with which families end a turn, where the file names one of them only.
const ENDS: [&str; 9] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<EOT>",
];

impl Words {
    pub(super) fn new(head: &Head) -> Result<Self> {
        let texts: Vec<&str> =
            head.tokens()?
                .iter()
                .map(|v| {
                    if let Value::String(s) = v {
                        Ok(s.as_str())
                    } else {
                        Err(corrupt("a word is not a text"))
                    }
                })
                .collect::<Result<_>>()?;
        if texts.len() > MAX_WORDS {
            return Err(corrupt(format_args!("there are {} words, more than {MAX_WORDS}", texts.len())));
        }
        let kinds = match head.list("tokenizer.ggml.token_type") {
            Ok(kinds) => kinds.iter().map(|k| integer(k).unwrap_or(1)).collect(),
            Err(_) => vec![1; texts.len()],
        };
        if kinds.len() != texts.len() {
            return Err(corrupt("the words and their kinds are not as many"));
        }
        let model = head.text("tokenizer.ggml.model")?;
        let pieces = match model {
            "gpt2" => false,
            "llama" => true,
            other => {
                return Err(unsupported(format_args!(
                    "the tokenizer is {other:?}; known are gpt2 and llama"
                )));
            }
        };
        let tokenizer =
            if pieces { by_score(head, &texts, &kinds)? } else { by_merges(head, &texts, &kinds)? };
        let letters = if pieces { HashMap::new() } else { letters() };
        let bytes: Vec<_> = texts.iter().zip(&kinds).map(|(t, k)| written(t, *k, pieces, &letters)).collect();
        let mut marks: Vec<_> = (0u32..)
            .zip(texts.iter().zip(&kinds))
            .filter(|(_, (t, k))| matches!(**k, CONTROL | USER_DEFINED | UNKNOWN) && !t.is_empty())
            .map(|(n, (t, _))| ((*t).to_owned(), n))
            .collect();
        marks.sort_by_key(|(t, _)| std::cmp::Reverse(t.len()));
        let word = |key: &str| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{key}");
            if !head.has(&key) {
                return Ok(None);
            }
            let n = head.number(&key)?;
            let n = u32::try_from(n).ok().filter(|n| (*n as usize) < texts.len());
            n.map(Some).ok_or_else(|| corrupt(format_args!("{key} names no word")))
        };
        let (first, end) = (word("bos_token_id")?, word("eos_token_id")?);
        let mut ends: Vec<u32> =
            [end, word("eot_token_id")?, word("eom_token_id")?].into_iter().flatten().collect();
        ends.extend(marks.iter().filter(|(t, _)| ENDS.contains(&t.as_str())).map(|(_, n)| *n));
        ends.dedup();
        if ends.is_empty() {
            return Err(corrupt("no word ends an answer"));
        }
        let pre = head.text("tokenizer.ggml.pre").unwrap_or_default();
        let text = |n: Option<u32>| {
            n.and_then(|n| texts.get(n as usize)).map(|t| (*t).to_owned()).unwrap_or_default()
        };
        Ok(Self {
            add_first: head
                .flag("tokenizer.ggml.add_bos_token")
                .unwrap_or(pieces || matches!(pre, "llama3" | "llama-v3" | "llama-bpe")),
            longest: bytes.iter().map(Vec::len).max().unwrap_or(1).max(1),
            first_text: text(first),
            end_text: text(end),
            tokenizer,
            bytes,
            marks,
            ends,
            first,
            pieces,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Longest thing that one token can write, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn ends(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// What `token` writes.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// Texts begin with a space that is not theirs.
    pub(super) fn begins_with_space(&self) -> bool {
        self.pieces
    }

    /// A prompt, with the token before everything if this model has one.
    pub(super) fn prompt(&self, pieces: &[(From, &str)]) -> Result<Vec<u32>> {
        let mut out = self.encode(pieces, true)?;
        if let Some(first) = self.first
            && self.add_first
            && out.first() != Some(&first)
        {
            out.insert(0, first);
        }
        Ok(out)
    }

    /// What stands within an answer, marks being marks.
    pub(super) fn inner(&self, text: &str) -> Result<Vec<u32>> {
        self.encode(&[(From::Template, text)], false)
    }

    fn encode(&self, pieces: &[(From, &str)], begins: bool) -> Result<Vec<u32>> {
        let (mut out, mut text) = (Vec::new(), String::new());
        for &(from, text_of) in pieces {
            let mut rest = text_of;
            while from == From::Template
                && let Some((at, mark, token)) = self.mark(rest)
            {
                text.push_str(rest.get(..at).unwrap_or_default());
                self.push(&mut text, begins, &mut out)?;
                out.push(token);
                rest = rest.get(at + mark.len()..).unwrap_or_default();
            }
            text.push_str(rest);
        }
        self.push(&mut text, begins, &mut out)?;
        Ok(out)
    }

    /// The first mark in `text`, the longest where several begin.
    fn mark(&self, text: &str) -> Option<(usize, &str, u32)> {
        text.char_indices().find_map(|(at, _)| {
            let rest = text.get(at..)?;
            self.marks
                .iter()
                .find(|(mark, _)| rest.starts_with(mark))
                .map(|(mark, n)| (at, mark.as_str(), *n))
        })
    }

    /// `text` with every mark in it between `open` and `close`, which are taken out of it before.
    pub(super) fn guard(&self, text: &str, open: char, close: char) -> String {
        let text = text.replace([open, close], "");
        let (mut out, mut rest) = (String::with_capacity(text.len()), text.as_str());
        while let Some((at, mark, _)) = self.mark(rest) {
            out.push_str(rest.get(..at).unwrap_or_default());
            out.push(open);
            out.push_str(mark);
            out.push(close);
            rest = rest.get(at + mark.len()..).unwrap_or_default();
        }
        out + rest
    }

    fn push(&self, text: &mut String, begins: bool, out: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let given = if self.pieces {
            let space = if begins && out.is_empty() { "▁" } else { "" };
            format!("{space}{}", text.replace(' ', "▁"))
        } else {
            std::mem::take(text)
        };
        text.clear();
        let encoded = self.tokenizer.encode_fast(given, false).map_err(|e| {
            Error::new(ErrorKind::Invalid, super::OP, format_args!("a text cannot be cut into words: {e}"))
        })?;
        out.extend(encoded.get_ids());
        Ok(())
    }

    /// The words as the grammar's engine wants them.
    pub(super) fn trie(&self) -> TokTrie {
        let words: Vec<Vec<u8>> = self
            .bytes
            .iter()
            .enumerate()
            .map(|(n, bytes)| {
                if bytes.is_empty() || self.ends.iter().any(|e| *e as usize == n) {
                    [&[TokTrie::SPECIAL_TOKEN_MARKER], format!("<{n}>").as_bytes()].concat()
                } else {
                    bytes.clone()
                }
            })
            .collect();
        let end = self.ends.first().copied().unwrap_or_default();
        TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words).with_eos_tokens(&self.ends)
    }
}

/// The words that a text may be made of. A mark is none of them, so that no text can be cut into one.
fn plain<'a>(texts: &[&'a str], kinds: &[u64]) -> HashMap<&'a str, u32> {
    let all = texts.iter().copied().zip(0u32..).zip(kinds);
    all.filter(|(_, kind)| !matches!(**kind, CONTROL | USER_DEFINED | UNUSED)).map(|(word, _)| word).collect()
}

fn owned(vocabulary: &HashMap<&str, u32>) -> Vocab {
    vocabulary.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect()
}

/// Byte pairs by the merges of the file (GPT-2 and what came from it).
fn by_merges(head: &Head, texts: &[&str], kinds: &[u64]) -> Result<Tokenizer> {
    let vocabulary = plain(texts, kinds);
    let mut merges = Vec::new();
    for merge in head.list("tokenizer.ggml.merges")? {
        let pair = if let Value::String(s) = merge { s.split_once(' ') } else { None };
        let Some((a, b)) = pair else { return Err(corrupt("a merge is not of two words")) };
        if [a, b, &format!("{a}{b}")].iter().all(|w| vocabulary.contains_key(w)) {
            merges.push((a.to_owned(), b.to_owned()));
        }
    }
    let pre = head.text("tokenizer.ggml.pre").unwrap_or("gpt-2");
    let model = BPE::builder()
        .vocab_and_merges(owned(&vocabulary), merges)
        .ignore_merges(matches!(pre, "llama3" | "llama-v3" | "llama-bpe"))
        .build()
        .map_err(|e| corrupt(format_args!("the merges: {e}")))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(cutter(pre)?));
    Ok(tokenizer)
}

fn cutter(pre: &str) -> Result<Sequence> {
    let regex = match pre {
        "gpt-2" | "gpt2" | "default" | "olmo" | "jais" | "mpt" | "dbrx" => None,
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => None,
        "llama3" | "llama-v3" | "llama-bpe" | "smaug-bpe" | "lfm2" => Some(LLAMA3),
        "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "hunyuan" | "megrez" => Some(QWEN2),
        other => {
            return Err(unsupported(format_args!("texts are cut by the rule {other:?}, which is not known")));
        }
    };
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    if matches!(pre, "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone") {
        steps.push(Digits::new(true).into());
    }
    if let Some(regex) = regex {
        let pattern = SplitPattern::Regex(regex.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        steps.push(split.map_err(|e| unsupported(format_args!("a rule that cuts texts: {e}")))?.into());
    }
    steps.push(ByteLevel::new(false, false, regex.is_none()).into());
    Ok(Sequence::new(steps))
}

/// SentencePiece: two neighbours become one word where they make one, the one with the highest score first. The same as byte
/// pairs with a merge for every way to cut a word in two.
fn by_score(head: &Head, texts: &[&str], kinds: &[u64]) -> Result<Tokenizer> {
    let scores = head.list("tokenizer.ggml.scores")?;
    if scores.len() != texts.len() {
        return Err(corrupt("the words and their scores are not as many"));
    }
    let vocabulary = plain(texts, kinds);
    let mut merges = Vec::new();
    for ((text, score), _) in texts.iter().zip(scores).zip(kinds).filter(|(_, k)| **k == NORMAL) {
        let Value::F32(score) = score else { return Err(corrupt("a score is not a number")) };
        for (at, _) in text.char_indices().skip(1) {
            let (a, b) = text.split_at(at);
            if let (Some(a_id), Some(b_id)) = (vocabulary.get(a), vocabulary.get(b)) {
                merges.push((*score, *a_id, *b_id, (a.to_owned(), b.to_owned())));
            }
        }
    }
    merges.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    let unknown = head.number("tokenizer.ggml.unknown_token_id").unwrap_or(0);
    let unknown = usize::try_from(unknown).ok().and_then(|n| texts.get(n)).copied().unwrap_or("<unk>");
    let model = BPE::builder()
        .vocab_and_merges(owned(&vocabulary), merges.into_iter().map(|m| m.3).collect::<Vec<_>>())
        .unk_token(unknown.to_owned())
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(|e| corrupt(format_args!("the words: {e}")))?;
    Ok(Tokenizer::new(model))
}

/// The letters that stand for bytes in the words of GPT-2: printable ones for themselves, the others from U+0100 on.
fn letters() -> HashMap<char, u8> {
    let plain = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let own = (0..=u8::MAX).filter(|b| plain(*b)).map(|b| (char::from(b), b));
    let moved = ('\u{100}'..).zip((0..=u8::MAX).filter(|b| !plain(*b)));
    own.chain(moved).collect()
}

fn written(text: &str, kind: u64, pieces: bool, letters: &HashMap<char, u8>) -> Vec<u8> {
    match kind {
        UNKNOWN | CONTROL | UNUSED => Vec::new(),
        USER_DEFINED => text.as_bytes().to_vec(),
        BYTE => {
            let hex = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
            hex.and_then(|h| u8::from_str_radix(h, 16).ok()).into_iter().collect()
        }
        _ if pieces => text.replace('▁', " ").into_bytes(),
        _ => text
            .chars()
            .map(|c| letters.get(&c).copied())
            .collect::<Option<_>>()
            .unwrap_or_else(|| text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::gguf_file::{Content, VersionedMagic};

    fn words(model: &str, pre: &str, list: &[(&str, i32, f32)], merges: &[&str]) -> Result<Words> {
        let text = |t: &str| Value::String(t.into());
        let metadata = HashMap::from([
            ("tokenizer.ggml.model", text(model)),
            ("tokenizer.ggml.pre", text(pre)),
            ("tokenizer.ggml.tokens", Value::Array(list.iter().map(|w| text(w.0)).collect())),
            ("tokenizer.ggml.token_type", Value::Array(list.iter().map(|w| Value::I32(w.1)).collect())),
            ("tokenizer.ggml.scores", Value::Array(list.iter().map(|w| Value::F32(w.2)).collect())),
            ("tokenizer.ggml.merges", Value::Array(merges.iter().map(|m| text(m)).collect())),
            ("tokenizer.ggml.eos_token_id", Value::U32(0)),
            ("tokenizer.ggml.unknown_token_id", Value::U32(1)),
        ]);
        let metadata = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let magic = VersionedMagic::GgufV3;
        let content = Content { magic, metadata, tensor_infos: HashMap::new(), tensor_data_offset: 0 };
        Words::new(&Head { content })
    }

    fn back(words: &Words, tokens: &[u32]) -> String {
        String::from_utf8(tokens.iter().flat_map(|t| words.bytes(*t)).copied().collect()).unwrap()
    }

    #[test]
    fn pieces_join_by_score() {
        let list = [
            ("</s>", 3, 0.0),
            ("<unk>", 2, 0.0),
            ("▁", 1, -9.0),
            ("a", 1, -9.0),
            ("b", 1, -9.0),
            ("c", 1, -9.0),
            ("ab", 1, -2.0),
            ("bc", 1, -1.0),
            ("▁a", 1, -3.0),
            ("</", 1, -4.0),
            ("s>", 1, -4.0),
            ("<", 1, -9.0),
            ("/", 1, -9.0),
            ("s", 1, -9.0),
            (">", 1, -9.0),
            ("<0xC3>", 6, 0.0),
            ("<0xA9>", 6, 0.0),
        ];
        let words = words("llama", "default", &list, &[]).unwrap();
        // `bc` has the better score than `ab`.
        assert_eq!(words.prompt(&[(From::Other, "abc a")]).unwrap(), [8, 7, 8]);
        assert_eq!(back(&words, &[8, 7, 8]), " abc a");
        let e = words.inner("é").unwrap();
        assert_eq!((e.as_slice(), back(&words, &e)), (&[15, 16][..], "é".to_owned()));
        assert_eq!(words.inner("a</s>").unwrap(), [3, 0]);
        assert_eq!(words.encode(&[(From::Other, "</s>")], false).unwrap(), [9, 10], "a user's is no mark");
    }

    #[test]
    fn texts_are_cut_before_they_are_joined() {
        let mut list: Vec<(String, i32)> = letters().keys().map(|c| (c.to_string(), 1)).collect();
        list.sort();
        list.insert(0, ("<|end|>".into(), 3));
        list.extend([("12".to_owned(), 1), ("Ġ1".to_owned(), 1)]);
        let list: Vec<_> = list.iter().map(|(t, k)| (t.as_str(), *k, 0.0)).collect();
        let tokens =
            |pre: &str, text: &str| words("gpt2", pre, &list, &["1 2", "Ġ 1"]).unwrap().inner(text).unwrap();
        assert_eq!(tokens("gpt-2", "12").len(), 1);
        assert_eq!(tokens("smollm", "12").len(), 2, "digits are apart");
        assert_eq!(tokens("qwen2", "12").len(), 2);
        assert_eq!(tokens("llama-bpe", "12").len(), 1);
        for pre in ["gpt-2", "smollm", "qwen2", "llama-bpe"] {
            let words = words("gpt2", pre, &list, &["1 2"]).unwrap();
            for text in ["Grüße, 漢字!\r\n\t  it's 1234 — ok  ", " \n\n x", "\u{0}\u{7f}"] {
                assert_eq!(back(&words, &words.inner(text).unwrap()), text, "{pre}");
            }
        }
        assert_eq!(words("gpt2", "new", &list, &[]).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(words("gpt2", "gpt-2", &list, &["1"]).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(words("wordpiece", "", &list, &[]).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
