//! Any text as a `SKILL.md`: it loads with what a skill must have, or names the rule and line that it breaks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_skills::fuzzing::{Skill, skill_md};

fuzz_target!(|text: &str| {
    let outcome = skill_md(text, "pdf");
    // Line ends are those of the three systems.
    let lines = text.replace("\r\n", "\n").replace('\r', "\n").matches('\n').count() + 1;
    match &outcome {
        Ok(Skill { manifest, body, lines: told }) => {
            assert!(!manifest.description.trim().is_empty() && !manifest.name.is_empty());
            assert!(manifest.triggers.len() <= 64);
            assert!(manifest.triggers.iter().all(|t| !t.is_empty() && t.chars().count() <= 100));
            assert!(body.len() <= text.len());
            assert!(told.iter().all(|l| (1..=lines).contains(l)), "{told:?} of {lines} lines");
        }
        Err((_, line)) => assert!(line.is_none_or(|l| (1..=lines).contains(&l)), "{line:?} of {lines} lines"),
    }
    // Windows line ends mean the same.
    if !text.contains('\r') {
        let crlf = skill_md(&text.replace('\n', "\r\n"), "pdf");
        assert_eq!(crlf, outcome, "with Windows line ends");
    }
});
