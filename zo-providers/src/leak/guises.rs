//! In which spellings a secret is looked for.

use super::base64;
use zeroize::Zeroizing;

/// Longest run of white space at a line break that may lie within a secret, in bytes.
pub(super) const WRAP: usize = 80;

/// Every spelling that is searched for literally. Percent-encoding and JSON escapes are not among them: the text is read
/// through them instead (`View`), so that any mixture of escaped and plain characters is found.
pub(super) fn of(secret: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let bytes = secret.as_bytes();
    let room = bytes.len() * 2 + 8;
    let mut out: Vec<Zeroizing<Vec<u8>>> = Vec::with_capacity(10);
    let mut add = |fill: &mut dyn FnMut(&mut Vec<u8>)| {
        // Made large enough at once: growing would leave copies behind.
        let mut guise = Zeroizing::new(Vec::with_capacity(room));
        fill(&mut guise);
        if !out.contains(&guise) {
            out.push(guise);
        }
    };
    add(&mut |out| unwrapped(bytes, out));
    if secret.contains(' ') {
        // A form's spelling of a space (application/x-www-form-urlencoded).
        add(&mut |out| {
            unwrapped(bytes, out);
            out.iter_mut().filter(|b| **b == b' ').for_each(|b| *b = b'+');
        });
    }
    for digits in [base64::STANDARD, base64::URL_SAFE] {
        for before in 0..3 {
            add(&mut |out| base64::inner(bytes, before, digits, out));
        }
    }
    for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
        add(&mut |out| {
            for byte in bytes {
                let digit = |at: u8| digits.get(usize::from(at)).copied().unwrap_or(b'0');
                out.extend([digit(byte >> 4), digit(byte & 15)]);
            }
        });
    }
    out
}

/// `bytes` as a scan reads them: without line ends and what indents the line after them.
fn unwrapped(bytes: &[u8], out: &mut Vec<u8>) {
    let mut breaking = false;
    for byte in bytes {
        match byte {
            b'\n' | b'\r' => breaking = true,
            b' ' | b'\t' if breaking => {}
            other => {
                breaking = false;
                out.push(*other);
            }
        }
    }
}

/// Longest run of white space at a line break in `secret`, in bytes.
pub(super) fn longest_break(secret: &str) -> usize {
    let (mut most, mut run) = (0usize, 0usize);
    for byte in secret.bytes() {
        run = match byte {
            b'\n' | b'\r' => run + 1,
            b' ' | b'\t' if run > 0 => run + 1,
            _ => 0,
        };
        most = most.max(run);
    }
    most
}
