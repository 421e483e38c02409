//! Any bytes as an answer of Ollama's `/api/chat`, and as what a server says of its models.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_providers::wire::ollama::{OllamaChat, models, shown};
use zo_providers_fuzz::answer;

fuzz_target!(|data: &[u8]| {
    answer(data, &["done"], |mode| OllamaChat::new().turn(usize::from(mode)));
    let Some((_, body)) = data.split_first_chunk::<2>() else { return };
    if let Ok(list) = models(body) {
        assert!(list.iter().all(|m| !m.id.is_empty()));
        assert!(list.len() <= body.len());
    }
    let _ = shown(body);
});
