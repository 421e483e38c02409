//! The house plan, checked: which crate may know which, and how much each brings along.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

/// Every arrow that may exist, from a crate to what it may use. `zo-testkit` may be used by anyone's tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("zo-traits", &[]),
    ("zo-testkit", &["zo-traits"]),
    ("zo-store", &["zo-traits"]),
    ("zo-providers", &["zo-traits"]),
    ("zo-skills", &["zo-traits", "zo-skills-macros"]),
    ("zo-skills-macros", &[]),
    ("zo-browser", &["zo-traits"]),
    ("zo-memory", &["zo-traits", "zo-store"]),
    ("zo-pool", &["zo-traits", "zo-store"]),
    (
        "zo-core",
        &["zo-traits", "zo-store", "zo-providers", "zo-skills", "zo-memory", "zo-browser", "zo-pool"],
    ),
    ("zo-server", &["zo-core"]),
    ("zo-examples", &["zo-core", "zo-server"]),
    ("zo-benches", &["zo-core", "zo-server", "zo-testkit"]),
];

fn cargo(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .unwrap();
    assert!(out.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn only_the_arrows_of_the_plan_exist() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"])).unwrap();
    let plan: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut crates = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        crates.insert(name.to_owned());
        let allowed = plan.get(name).unwrap_or_else(|| panic!("{name} is not in the plan"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if !plan.contains_key(to) {
                continue;
            }
            let dev = dependency["kind"] == "dev";
            let ok = allowed.contains(&to) || (dev && (to == "zo-testkit" || to == name));
            assert!(ok, "{name} -> {to} is not an arrow of the plan");
        }
    }
    let planned: BTreeSet<String> = plan.keys().map(|s| (*s).to_owned()).collect();
    assert_eq!(crates, planned, "the crates of the workspace are those of the plan");
}

#[test]
fn nothing_else_grows_at_the_top() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let listed = Command::new("git").args(["ls-tree", "--name-only", "HEAD"]).current_dir(root).output();
    // Outside a checkout (a published crate, an export) there is no tree to look at.
    let Ok(listed) = listed.map(|o| String::from_utf8(o.stdout).unwrap()) else { return };
    let plan = [
        "Cargo.toml",
        "Cargo.lock",
        "zo-core",
        "zo-providers",
        "zo-skills",
        "zo-memory",
        "zo-browser",
        "zo-pool",
        "examples",
        "benches",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        ".ci",
        "scripts",
        ".gitignore",
        "clippy.toml",
        "rustfmt.toml",
        ".config",
    ];
    for name in listed.lines() {
        assert!(plan.contains(&name), "{name} does not belong at the top");
    }
}

/// Third-party crates that a build of `package` pulls in, without those of the workspace.
fn third_party(package: &str, flags: &[&str]) -> usize {
    let mut args =
        vec!["tree", "--locked", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"];
    args.extend(flags);
    args.extend(["--target", "x86_64-unknown-linux-gnu"]);
    let tree = cargo(&args);
    let all: BTreeSet<&str> = tree
        .lines()
        .map(|l| l.trim_end_matches(" (*)"))
        .filter(|l| !l.is_empty() && !l.starts_with("zo-"))
        .collect();
    println!("{package} {flags:?}: {}", all.len());
    all.len()
}

#[test]
fn the_dependency_trees_stay_small() {
    assert!(third_party("zo-traits", &[]) <= 20);
    assert!(third_party("zo-core", &["--no-default-features"]) <= 28);
    assert!(third_party("zo-core", &[]) <= 120);
}
