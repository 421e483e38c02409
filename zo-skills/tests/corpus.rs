//! The lenient loader against real and hostile `SKILL.md` files, judged by an oracle.
//!
//! Reads `skills/` of the folder named by `ZO_CORPUS`, else of `../shared/corpus` beside the workspace. A case passes when
//! the verdict (loads or not), the name and the description are the oracle's. Failures must stand in
//! `known-failures.txt` with a reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use zo_skills::{Skill, SkillFolder, load_skills};

fn corpus() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let root = std::env::var_os("ZO_CORPUS").map_or_else(beside, PathBuf::from).join("skills");
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: there is no corpus at {} (set ZO_CORPUS to its folder)", root.display());
    None
}

fn known_failures() -> HashMap<String, String> {
    let text = include_str!("known-failures.txt");
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    lines.map(|l| l.split_once('\t').expect("case, tab, reason")).map(|(c, r)| (c.into(), r.into())).collect()
}

fn verdicts(path: &Path) -> BTreeMap<String, Value> {
    let Ok(text) = fs::read_to_string(path) else {
        println!("skipped: there is no {}", path.display());
        return BTreeMap::new();
    };
    serde_json::from_str(&text).expect("JSON")
}

/// What differs from the oracle, if anything does.
fn judge(file: &Path, expected: &Value) -> Result<(), String> {
    let lenient = &expected["lenient"];
    let start = Instant::now();
    let got = SkillFolder::load(file.parent().expect("a folder"));
    let took = start.elapsed();
    if took > Duration::from_millis(500) {
        return Err(format!("took {took:?}"));
    }
    match (lenient["load"].as_bool(), got) {
        // The oracle only asks that such a file does no harm.
        (None, _) => Ok(()),
        (Some(false), Ok(s)) => {
            Err(format!("loads as `{}`; expected {}", s.manifest().name, lenient["error"]))
        }
        (Some(true), Err(e)) => Err(format!("does not load: {e}")),
        (Some(false), Err(e)) => {
            let (rule, expected) = (e.rule.as_str(), &lenient["error"]);
            if *expected == rule { Ok(()) } else { Err(format!("says {rule}; expected {expected}")) }
        }
        (Some(true), Ok(s)) => {
            let m = s.manifest();
            let expected = (lenient["name"].as_str(), lenient["description"].as_str());
            if (Some(m.name.as_str()), Some(m.description.as_str())) == expected {
                Ok(())
            } else {
                Err(format!("is {:?}: {:?}; expected {expected:?}", m.name, m.description))
            }
        }
    }
}

fn run(group: &str, root: &Path, cases: &BTreeMap<String, Value>) -> Vec<(String, String)> {
    let known = known_failures();
    let (mut passed, mut failed, mut unexpected) = (0, 0, Vec::new());
    for (case, expected) in cases {
        match judge(&root.join(case), expected) {
            Ok(()) => passed += 1,
            Err(why) => {
                failed += 1;
                match known.get(case) {
                    Some(reason) => println!("known failure {group}/{case}: {why} ({reason})"),
                    None => unexpected.push((case.clone(), why)),
                }
            }
        }
    }
    println!("{group}: {passed} passed, {failed} failed");
    unexpected
}

#[test]
fn corpus_lenient() {
    let Some(root) = corpus() else { return };
    let (mut cases, mut unexpected) = (0, Vec::new());
    for (group, folder, file) in
        [("public", "", "expected_verdicts.json"), ("synthetic", "synthetic", "synthetic/expected.json")]
    {
        let all = verdicts(&root.join(file));
        if all.is_empty() {
            continue;
        }
        cases += all.len();
        unexpected.extend(run(group, &root.join(folder), &all));
    }
    println!("all: {} passed, {} failed unexpectedly", cases - unexpected.len(), unexpected.len());
    assert!(cases > 0, "a corpus without cases");
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

/// The oracle's warnings are a second opinion: how many of them are ours too is printed, and must not fall.
#[test]
fn corpus_warnings() {
    let Some(root) = corpus() else { return };
    let (mut same, mut other) = (0usize, BTreeMap::<String, usize>::new());
    for (folder, file) in [("", "expected_verdicts.json"), ("synthetic", "synthetic/expected.json")] {
        for (case, expected) in verdicts(&root.join(file)) {
            let Ok(skill) = SkillFolder::load(root.join(folder).join(&case).parent().unwrap()) else {
                continue;
            };
            let rules = |v: &Value| -> Vec<String> {
                let mut r: Vec<String> =
                    v.as_array().into_iter().flatten().filter_map(|w| Some(w.as_str()?.to_owned())).collect();
                r.sort();
                r.dedup();
                r
            };
            let theirs = rules(&expected["lenient"]["warnings"]);
            let ours = rules(&skill.warnings().iter().map(|w| Value::from(w.rule.as_str())).collect());
            if ours == theirs {
                same += 1;
                continue;
            }
            for w in ours.iter().filter(|w| !theirs.contains(w)) {
                *other.entry(format!("+{w}")).or_default() += 1;
            }
            for w in theirs.iter().filter(|w| !ours.contains(w)) {
                *other.entry(format!("-{w}")).or_default() += 1;
            }
        }
    }
    let differ: usize = other.values().sum();
    println!("warnings: {same} passed, {differ} differ {other:?}");
    assert!(differ * 20 < same, "{other:?}");
}

/// Everything at once, as a host would: one bad folder keeps nothing else from loading.
#[test]
fn corpus_in_one_go() {
    let Some(root) = corpus() else { return };
    let start = Instant::now();
    let loaded = load_skills([root]);
    println!(
        "in one go: {} skills, {} problems, {:?}",
        loaded.skills.len(),
        loaded.problems.len(),
        start.elapsed()
    );
    assert!(loaded.skills.len() > loaded.problems.len(), "{} skills", loaded.skills.len());
    let mut names: Vec<_> = loaded.skills.iter().map(|s| &s.manifest().name).collect();
    names.sort();
    assert!(names.windows(2).all(|w| w[0] != w[1]), "each name once");
    assert!(loaded.skills.iter().all(|s| !s.manifest().description.is_empty()));
}
