//! The byte order mark that may stand before a text, in pieces of any size.

pub(super) const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// How much of the mark has been seen at the very start.
#[derive(Debug, Default)]
pub(super) struct Bom {
    /// Bytes of it that matched.
    seen: u8,
    /// The question is settled.
    past: bool,
}

impl Bom {
    /// What is left of `bytes` behind the mark. What turns out to be none, though it began like one, goes to `line`.
    pub(super) fn skip<'b>(&mut self, mut bytes: &'b [u8], line: &mut Vec<u8>) -> &'b [u8] {
        while !self.past {
            match bytes {
                [] => break,
                [first, tail @ ..] if BOM.get(usize::from(self.seen)) == Some(first) => {
                    self.seen += 1;
                    self.past = usize::from(self.seen) == BOM.len();
                    bytes = tail;
                }
                _ => self.none(line),
            }
        }
        bytes
    }

    /// The bytes are over, or go on otherwise: what was held back is the start of a line.
    pub(super) fn none(&mut self, line: &mut Vec<u8>) {
        if !self.past {
            line.extend_from_slice(BOM.get(..usize::from(self.seen)).unwrap_or_default());
            self.past = true;
        }
    }
}
