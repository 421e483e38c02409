//! Any bytes as an answer with embeddings: what is taken is whole, of one length, finite, and no larger than what came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_providers::wire::embed::{counted, ollama_embeddings, openai_embeddings, unit};
use zo_traits::{ErrorKind, Result, Usage};

type Read = Result<(Vec<Vec<f32>>, Usage)>;

fn sane(body: &[u8], read: fn(&[u8]) -> Read) {
    let (vectors, usage) = match read(body) {
        Ok(read) => read,
        Err(e) => return assert!(!matches!(e.kind(), ErrorKind::Cancelled | ErrorKind::Other(_)), "{e}"),
    };
    assert_eq!(read(body).expect("again"), (vectors.clone(), usage));
    let numbers: usize = vectors.iter().map(Vec::len).sum();
    assert!(numbers <= body.len(), "{numbers} numbers out of {} bytes", body.len());
    let dimensions = vectors.first().map_or(1, Vec::len);
    assert!(dimensions > 0);
    for vector in &vectors {
        assert_eq!(vector.len(), dimensions);
        assert!(vector.iter().all(|x| x.is_finite()));
        let scaled = unit(vector.clone());
        let length: f64 = scaled.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        assert!(
            (length - 1.0).abs() < 1e-3 || vector.iter().all(|x| *x == 0.0),
            "length {length} of {vector:?}"
        );
    }
    let n = vectors.len();
    assert!(counted(vectors.clone(), n).is_ok() && counted(vectors, n + 1).is_err());
    // A body that was read does not end before its last byte.
    let text = body.trim_ascii_end();
    let (cut, _) = text.split_at(text.len() / 2);
    assert!(read(cut).is_err(), "half a body was taken for whole");
}

fuzz_target!(|data: &[u8]| {
    sane(data, openai_embeddings);
    sane(data, ollama_embeddings);
});
