//! Base64 (RFC 4648, sections 4 and 5), both alphabets.

#[cfg(feature = "vault")]
use zeroize::Zeroizing;

/// The digits of section 4.
pub(crate) const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// The digits of section 5, safe in URLs and file names.
pub(crate) const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn digit(digits: &[u8; 64], value: u32) -> u8 {
    digits.get((value & 63) as usize).copied().unwrap_or(b'A')
}

/// The digits that `bytes` fully decide wherever the text that holds them is encoded, when `before` bytes (modulo 3) come
/// first. What the neighbours decide too, up to a digit at each side, is left out.
pub(super) fn inner(bytes: &[u8], before: usize, digits: &[u8; 64], out: &mut Vec<u8>) {
    // Six bits at a time, beginning at the first digit that lies wholly within.
    let skip = match before % 3 {
        0 => 0,
        1 => 4,
        _ => 2,
    };
    let (mut bits, mut have, mut skip) = (0u32, 0u32, skip);
    for byte in bytes {
        bits = (bits << 8 | u32::from(*byte)) & 0xffff;
        have += 8 - skip;
        skip = 0;
        while have >= 6 {
            have -= 6;
            out.push(digit(digits, bits >> have));
        }
    }
}

/// Standard base64 with padding.
#[cfg(feature = "vault")]
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for at in 0..4 {
            out.push(if at <= group.len() { digit(STANDARD, bits >> (18 - 6 * at)).into() } else { '=' });
        }
    }
    out
}

/// The bytes of a base64 text of either alphabet, padded or not. `None` for anything that [`encode`] would not have written
/// but for the alphabet and the padding: no white space, no bits that mean nothing.
#[cfg(feature = "vault")]
pub(crate) fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if digits.len() % 4 == 1 || (padding != 0 && (padding > 2 || !text.len().is_multiple_of(4))) {
        return None;
    }
    let mut out = Zeroizing::new(Vec::with_capacity(digits.len() / 4 * 3 + 2));
    let (mut bits, mut have) = (0u32, 0u32);
    for byte in digits.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have & 0xff) as u8);
        }
    }
    (bits & ((1 << have) - 1) == 0).then_some(out)
}

#[cfg(all(test, feature = "vault"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc() {
        for (text, want) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(text.as_bytes()), want);
            assert_eq!(*decode(want).unwrap(), text.as_bytes());
            assert_eq!(*decode(want.trim_end_matches('=')).unwrap(), text.as_bytes());
        }
        assert_eq!(*decode("-_+/").unwrap(), [0xfb, 0xff, 0xbf]);
        for bad in ["Z", "Zh==", "Zm9=", "Zm8==", "Zg=", "Z g=", "Zg==\n", "=", "===="] {
            assert!(decode(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_inner_digits_are_there_wherever_it_stands() {
        let key = b"sk-\xfa\xffcanary~?>";
        for before in 0..7usize {
            for after in 0..4usize {
                for byte in [0u8, 0x55, 0xff] {
                    let text = [vec![byte; before], key.to_vec(), vec![byte; after]].concat();
                    let mut digits = Vec::new();
                    inner(key, before, STANDARD, &mut digits);
                    let digits = String::from_utf8(digits).unwrap();
                    assert!(digits.len() >= key.len() * 8 / 6 - 1);
                    assert!(encode(&text).contains(&digits), "{before} {after}");
                }
            }
        }
    }
}
