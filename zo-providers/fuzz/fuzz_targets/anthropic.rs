//! Any bytes as an answer of the Messages API.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_providers::wire::anthropic::Messages;
use zo_providers_fuzz::answer;

fuzz_target!(|data: &[u8]| {
    answer(data, &["message_stop"], |_| Messages::new());
});
