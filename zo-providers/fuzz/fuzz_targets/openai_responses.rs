//! Any bytes as an answer of the Responses API.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_providers::wire::openai_responses::Responses;
use zo_providers_fuzz::answer;

fuzz_target!(|data: &[u8]| {
    answer(data, &["response.completed", "response.incomplete"], |_| Responses::new("openai-responses"));
});
