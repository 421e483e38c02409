//! Any text as frontmatter: what is read is no larger or deeper than the text allows, and a repair invents nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use zo_skills::fuzzing::{MAX_DEPTH, parse, repair};

/// Nodes and depth.
fn size(value: &Value) -> (usize, usize) {
    let inner = |all: &mut dyn Iterator<Item = &Value>| {
        all.map(size).fold((1, 1), |(n, d), (m, e)| (n + m, d.max(e + 1)))
    };
    match value {
        Value::Array(items) => inner(&mut items.iter()),
        Value::Object(map) => inner(&mut map.values()),
        _ => (1, 0),
    }
}

/// Letters and digits of all texts in `map`, keys included.
fn said(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Array(items) => items.iter().for_each(|v| said(v, out)),
        Value::Object(map) => map.iter().for_each(|(k, v)| {
            out.push_str(k);
            said(v, out);
        }),
        _ => {}
    }
}

fuzz_target!(|text: &str| {
    // As frontmatter comes: its line ends are LF already, and there is no NUL.
    let text = &text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "");
    let lines = text.lines().count().max(1);
    match parse(text) {
        Ok(value) => {
            let (nodes, depth) = size(&value);
            assert!(nodes <= text.len() + 1, "{nodes} nodes");
            assert!(depth <= MAX_DEPTH, "{depth} deep");
        }
        Err(line) => assert!(line <= lines, "line {line} of {lines}"),
    }
    let (fields, told) = repair(text);
    assert!(told.iter().all(|l| *l < lines), "{told:?} of {lines} lines");
    let whole = Value::Object(fields);
    let (nodes, depth) = size(&whole);
    assert!(nodes <= text.len() + 1, "{nodes} nodes");
    assert!(depth <= 2 * MAX_DEPTH + 1, "{depth} deep");
    // Without escapes, what was read stands in the text: nothing is multiplied or made up.
    if !text.contains('\\') {
        let mut read = String::new();
        said(&whole, &mut read);
        let letters = |t: &str| t.chars().filter(|c| c.is_alphanumeric()).count();
        assert!(
            letters(&read) <= letters(text) + 4 * text.matches(['?', ':', '*']).count(),
            "more than was written"
        );
    }
    // Plain lines cost nobody anything, whatever stands below them.
    if let Ok(Value::Object(good)) = parse("name: pdf\ndescription: Reads.") {
        let (fields, _) = repair(&format!("name: pdf\ndescription: Reads.\n# end\n{}", text.trim_start()));
        let kept = |map: &Map<String, Value>| map.contains_key("name") && map.contains_key("description");
        assert!(kept(&good) && (kept(&fields)), "a field above the damage was lost: {fields:?}");
    }
});
