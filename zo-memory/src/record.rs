//! An item as it is stored, and the rows that hold items.

use crate::{
    text,
    varint::{self, corrupt},
};
use serde_json::{Map, Value};
use zo_store::{Read, Table, key::Key};
use zo_traits::{MemoryId, NewMemory, Recalled, Result, Timestamp};

/// (scope u32, number u64) -> [`Record`].
pub(crate) const ITEMS: Table = Table::new("memory.items");
/// (scope u32, hash of text and metadata u64) -> number u64 of the item that was remembered first.
pub(crate) const SEEN: Table = Table::new("memory.seen");

const VERSION: u8 = 1;

pub(crate) fn item_key(scope: u32, number: u64) -> Key {
    Key::new().u32(scope).u64(number)
}

pub(crate) fn seen_key(scope: u32, hash: u64) -> Key {
    Key::new().u32(scope).u64(hash)
}

/// What is the same for everybody who remembers the same: metadata in JSON, which a map without order of insertion makes
/// canonical, and the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(item: &NewMemory) -> Self {
        let metadata = if item.metadata.is_empty() {
            String::new()
        } else {
            sorted(&Value::Object(item.metadata.clone())).to_string()
        };
        let mut body = Vec::with_capacity(metadata.len() + item.text.len() + 5);
        varint::put(&mut body, metadata.len() as u64);
        body.extend_from_slice(metadata.as_bytes());
        body.extend_from_slice(item.text.as_bytes());
        Self(body)
    }

    pub(crate) fn hash(&self) -> u64 {
        text::hash(&self.0)
    }
}

/// The same value with the keys of every object in order: `serde_json` keeps the order of insertion when any crate in the
/// program asks for that.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            Value::Object(entries.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// An item as it is stored: version, id, time, body.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) id: MemoryId,
    pub(crate) at: Timestamp,
    body: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn encode(id: MemoryId, at: Timestamp, body: &Body) -> Vec<u8> {
        let mut row = Vec::with_capacity(body.0.len() + 25);
        row.push(VERSION);
        row.extend_from_slice(&id.0.to_be_bytes());
        row.extend_from_slice(&at.0.to_be_bytes());
        row.extend_from_slice(&body.0);
        row
    }

    pub(crate) fn decode(row: &'a [u8]) -> Result<Self> {
        let damaged = || corrupt("an item");
        let (&[VERSION], rest) = row.split_first_chunk().ok_or_else(damaged)? else { return Err(damaged()) };
        let (id, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (at, body) = rest.split_first_chunk().ok_or_else(damaged)?;
        Ok(Self { id: MemoryId(u128::from_be_bytes(*id)), at: Timestamp(i64::from_be_bytes(*at)), body })
    }

    pub(crate) fn is(&self, body: &Body) -> bool {
        self.body == body.0
    }

    pub(crate) fn hash(&self) -> u64 {
        text::hash(self.body)
    }

    fn parts(&self) -> Result<(&'a [u8], &'a str)> {
        let mut rest = self.body;
        let len = usize::try_from(varint::take(&mut rest)?).unwrap_or(usize::MAX);
        let (metadata, text) = rest.split_at_checked(len).ok_or_else(|| corrupt("an item"))?;
        Ok((metadata, std::str::from_utf8(text).map_err(|_| corrupt("a text"))?))
    }

    pub(crate) fn text(&self) -> Result<&'a str> {
        self.parts().map(|(_, text)| text)
    }

    pub(crate) fn recalled(&self, score: f32) -> Result<Recalled> {
        let (metadata, text) = self.parts()?;
        let mut found = Recalled::new(self.id, text, score, self.at);
        found.metadata = if metadata.is_empty() {
            Map::new()
        } else {
            serde_json::from_slice(metadata).map_err(|e| corrupt("metadata").with_source(e))?
        };
        Ok(found)
    }
}

/// The item `number` of a scope, ranked.
pub(crate) fn load(reads: &impl Read, scope: u32, number: u64, score: f32) -> Result<Option<Recalled>> {
    let mut found = None;
    reads.look(ITEMS, &item_key(scope, number), &mut |row| {
        found = Some(Record::decode(row)?.recalled(score)?);
        Ok(())
    })?;
    Ok(found)
}
