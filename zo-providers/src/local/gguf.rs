//! The head of a GGUF file: what the model is, its words, its chat template.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. The engine parses it; here its size is bounded and every
//! value that is used is checked for being there and of its kind.

use candle_core::quantized::gguf_file::{Content, Value};
use std::{
    fmt::Display,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};
use zo_traits::{Error, ErrorKind, Result};

/// Largest head: the biggest vocabularies in use take a third of this. A value takes up to 32 times its size in memory.
const MAX_HEAD: u64 = 32 << 20;

pub(super) fn corrupt(message: impl Display) -> Error {
    Error::new(ErrorKind::Corrupt, super::OP, message)
}

pub(super) fn unsupported(message: impl Display) -> Error {
    Error::new(ErrorKind::Unsupported, super::OP, message)
}

/// The parsed head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) content: Content,
}

impl Head {
    /// Reads the head of the file at `path`; gives the file back for its weights.
    pub(super) fn read(path: &Path) -> Result<(Self, File)> {
        let failed = |e: io::Error| {
            let kind = match e.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, super::OP, format_args!("{}: {e}", path.display())).with_source(e)
        };
        let mut file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::new(
                ErrorKind::Invalid,
                super::OP,
                format_args!("{} is not a file", path.display()),
            ));
        }
        let mut magic = [0; 4];
        let is_gguf = file.read_exact(&mut magic).is_ok() && magic == *b"GGUF";
        if !is_gguf {
            return Err(corrupt(format_args!("{} is not a GGUF file", path.display())));
        }
        file.rewind().map_err(failed)?;
        let mut bounded = BufReader::new(Bounded { file, left: MAX_HEAD });
        let content = Content::read(&mut bounded)
            .map_err(|e| corrupt(format_args!("{} is a broken GGUF file: {e}", path.display())))?;
        Ok((Self { content }, bounded.into_inner().file))
    }

    fn value(&self, key: &str) -> Result<&Value> {
        self.content.metadata.get(key).ok_or_else(|| corrupt(format_args!("the file does not say {key}")))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.content.metadata.contains_key(key)
    }

    pub(super) fn text(&self, key: &str) -> Result<&str> {
        match self.value(key)? {
            Value::String(text) => Ok(text),
            _ => Err(corrupt(format_args!("{key} is not a text"))),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<u64> {
        integer(self.value(key)?).ok_or_else(|| corrupt(format_args!("{key} is not a natural number")))
    }

    pub(super) fn float(&self, key: &str) -> Result<f32> {
        match self.value(key)? {
            Value::F32(v) => Ok(*v),
            Value::F64(v) => Ok(*v as f32),
            _ => Err(corrupt(format_args!("{key} is not a number with a fraction"))),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        if let Value::Bool(v) = self.value(key).ok()? { Some(*v) } else { None }
    }

    pub(super) fn list(&self, key: &str) -> Result<&[Value]> {
        match self.value(key)? {
            Value::Array(values) => Ok(values),
            _ => Err(corrupt(format_args!("{key} is not a list"))),
        }
    }

    /// The words of the model.
    pub(super) fn tokens(&self) -> Result<&[Value]> {
        let tokens = self.list("tokenizer.ggml.tokens")?;
        if tokens.is_empty() { Err(corrupt("the model has no words")) } else { Ok(tokens) }
    }
}

pub(super) fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::U8(v) => Some((*v).into()),
        Value::U16(v) => Some((*v).into()),
        Value::U32(v) => Some((*v).into()),
        Value::U64(v) => Some(*v),
        Value::I8(v) => (*v).try_into().ok(),
        Value::I16(v) => (*v).try_into().ok(),
        Value::I32(v) => (*v).try_into().ok(),
        Value::I64(v) => (*v).try_into().ok(),
        _ => None,
    }
}

/// Reads no more than a bound.
struct Bounded {
    file: File,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("its head is too large"));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(to.len());
        let n = self.file.read(to.get_mut(..most).unwrap_or_default())?;
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
