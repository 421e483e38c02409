//! Any text as a sum: a number that reads back as itself, or a mistake that says where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_skills::fuzzing::calculate;

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

fuzz_target!(|text: &str| {
    match calculate(text) {
        Ok(shown) => {
            let x = number(&shown);
            assert!(x.is_finite(), "{shown}");
            let again = calculate(&shown).unwrap_or_else(|e| panic!("{shown:?} cannot be read back: {e}"));
            assert!(near(number(&again), x), "{shown} reads back as {again}");
            // Parentheses around the whole change nothing, where no polite words stand outside them.
            if !text.contains(|c: char| c.is_alphabetic() || matches!(c, '=' | '?'))
                && let Ok(inside) = calculate(&format!("({text})"))
            {
                assert_eq!(inside, shown, "in parentheses");
            }
        }
        Err(mistake) => {
            assert!(mistake.contains("character") && mistake.len() < 4_000, "{mistake}");
        }
    }
});
