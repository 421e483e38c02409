//! A digest that is the same on every machine and in every release: FNV-1a, 64 bits. It finds accidents, not forgeries.

use serde::Serialize;
use std::io;

#[derive(Debug, Clone)]
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds the JSON of a value, and a mark between it and the next.
    pub(crate) fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Writing into the digest cannot fail, and a value that is no JSON adds nothing but the mark.
        let _ = serde_json::to_writer(&mut *self, value);
        self.add(&[0xff]);
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }

    pub(crate) fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

impl io::Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_published_one() {
        let digest = |bytes: &[u8]| {
            let mut fnv = Fnv::default();
            fnv.add(bytes);
            fnv.hex()
        };
        assert_eq!(digest(b""), "cbf29ce484222325");
        assert_eq!(digest(b"a"), "af63dc4c8601ec8c");
        assert_eq!(digest(b"foobar"), "85944171f73967e8");
    }
}
