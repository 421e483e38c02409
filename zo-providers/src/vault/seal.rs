//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): sealing and opening bytes under a 256-bit key.

use chacha20poly1305::{AeadInOut as _, KeyInit as _, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;
use zo_traits::{Error, ErrorKind, Result};

/// Bytes that sealing adds: a nonce before, a tag after.
pub(super) const OVERHEAD: usize = NONCE + 16;
const NONCE: usize = 24;

/// A 256-bit key, zeroed when it is dropped.
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// A new key from the operating system's randomness.
    pub(super) fn random() -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        random(&mut *key)?;
        Ok(Self(key))
    }

    pub(super) fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes: [u8; 32]| Self(Zeroizing::new(bytes)))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `nonce ‖ ciphertext ‖ tag` of `plain`, bound to `context`. The nonce is random: at 192 bits none comes twice.
    pub(super) fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let text = out.get_mut(NONCE..).unwrap_or_default();
        let tag = XChaCha20Poly1305::new((&*self.0).into())
            .encrypt_inout_detached(&XNonce::from(nonce), context, text.into())
            .map_err(|_| Error::new(ErrorKind::Invalid, "vault.seal", "too much to encrypt at once"))?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// What was sealed, or `None` when key, context or bytes are not those of then.
    pub(super) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (text, tag) = rest.split_last_chunk::<16>()?;
        let mut plain = Zeroizing::new(text.to_vec());
        XChaCha20Poly1305::new((&*self.0).into())
            .decrypt_inout_detached(
                &XNonce::from(*nonce),
                context,
                plain.as_mut_slice().into(),
                &(*tag).into(),
            )
            .ok()?;
        Some(plain)
    }
}

/// Fills `bytes` from the operating system.
pub(super) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|e| {
        Error::new(
            ErrorKind::Unavailable,
            "vault.random",
            format_args!("the system gives no random numbers: {e}"),
        )
    })
}

/// Joins `parts` so that no two lists of parts are the same bytes.
pub(super) fn context(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.len() + 8).sum());
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_the_draft() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1.
        let key = Key::new(Zeroizing::new(std::array::from_fn(|n| 0x80 + n as u8)));
        let nonce: Vec<u8> = (0x40..0x58).collect();
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let cipher = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
                      ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
                      21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49";
        let bytes: Vec<u8> = (0..cipher.len() / 2)
            .map(|n| u8::from_str_radix(&cipher[2 * n..2 * n + 2], 16).unwrap())
            .collect();
        let plain = key.open(&aad, &[nonce, bytes].concat()).unwrap();
        assert!(plain.starts_with(b"Ladies and Gentlemen of the class of '99"));
        assert!(plain.ends_with(b"sunscreen would be it."));
    }

    #[test]
    fn only_the_same_key_context_and_bytes_open_it() {
        let (key, other) = (Key::random().unwrap(), Key::random().unwrap());
        let sealed = key.seal(b"a", b"secret").unwrap();
        assert_eq!(sealed.len(), 6 + OVERHEAD);
        assert_eq!(*key.open(b"a", &sealed).unwrap(), b"secret");
        assert!(key.open(b"b", &sealed).is_none() && other.open(b"a", &sealed).is_none());
        for n in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[n] ^= 1;
            assert!(key.open(b"a", &bad).is_none());
            assert!(key.open(b"a", &sealed[..n]).is_none());
        }
        assert_ne!(sealed, key.seal(b"a", b"secret").unwrap(), "a nonce came twice");
        assert_ne!(context(&[b"ab", b"c"]), context(&[b"a", b"bc"]));
    }
}
