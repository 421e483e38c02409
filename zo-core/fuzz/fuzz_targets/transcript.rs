//! Any JSON as history on disk: what can be read is written again without loss, as often as one likes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use zo_core::{Machine, Reply};
use zo_traits::{Accumulator, Message, Part, Request, Response, StreamEvent};

fn keeps<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &str) -> Option<T> {
    let read: T = serde_json::from_str(text).ok()?;
    let written = serde_json::to_string(&read).expect("what was read can be written");
    let again: T = serde_json::from_str(&written).expect("what was written can be read");
    assert_eq!(again, read, "{written}");
    assert_eq!(serde_json::to_string(&again).expect("again"), written);
    Some(read)
}

fuzz_target!(|text: &str| {
    // A key that stands twice counts once, as it does in everything that we write.
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let text = &value.to_string();
    if let Some(part) = keeps::<Part>(text)
        && let Part::Unknown(value) = &part
    {
        assert_eq!(serde_json::to_value(&part).expect("a value"), *value, "an unknown part is kept whole");
    }
    if let Some(message) = keeps::<Message>(text) {
        let _ = (message.to_text(), message.tool_calls().count(), message.results().count());
    }
    keeps::<Vec<Message>>(text);
    keeps::<Request>(text);
    keeps::<Vec<StreamEvent>>(text);
    if let Some(response) = keeps::<Response>(text) {
        // What a cache replays is what it kept, apart from parts that no model says.
        let said = |part: &Part| !matches!(part, Part::Media(_) | Part::ToolResult(_) | Part::Unknown(_));
        let mut expected = response.clone();
        expected.message.parts.retain(said);
        expected.message.role = zo_traits::Role::Assistant;
        let mut fold = Accumulator::default();
        for event in response.into_events() {
            fold.push(event).expect("a kept answer obeys the grammar");
        }
        assert_eq!(fold.finish().expect("a kept answer is whole"), expected);
    }
    keeps::<Reply>(text);
    if let Ok(machine) = serde_json::from_str::<Machine>(text) {
        let written = serde_json::to_string(&machine).expect("what was read can be written");
        assert_eq!(serde_json::from_str::<Machine>(&written).expect("what was written can be read"), machine);
    }
});
