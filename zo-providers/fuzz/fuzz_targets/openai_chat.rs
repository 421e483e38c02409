//! Any bytes as an answer of chat completions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_providers::wire::openai_chat::Chat;
use zo_providers_fuzz::answer;

fuzz_target!(|data: &[u8]| {
    answer(data, &["finish_reason", "[DONE]"], |mode| {
        Chat::new("openai").keep_reasoning(mode & 0x40 != 0).keep_details(mode & 0x80 != 0)
    });
});
