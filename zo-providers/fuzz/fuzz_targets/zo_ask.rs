//! Any bytes as an answer of Zo's `/zo/ask`, and as its list of models.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_providers::wire::zo::{Ask, models};
use zo_providers_fuzz::answer;

fuzz_target!(|data: &[u8]| {
    answer(data, &["End"], |mode| {
        Ask::new((mode & 0x40 != 0).then(|| "con_1".into())).structured(mode & 0x80 != 0)
    });
    let Some((_, body)) = data.split_first_chunk::<2>() else { return };
    if let Ok(list) = models(body) {
        assert!(list.iter().all(|m| !m.id.is_empty()));
        assert!(list.len() <= body.len());
    }
});
