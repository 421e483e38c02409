//! Counts of cases that passed and failed, held against those that are known to fail.
#![allow(unreachable_pub)]

use std::collections::{BTreeMap, HashMap};

/// Counts by group, and what failed.
#[derive(Default)]
pub struct Tally {
    groups: BTreeMap<String, (usize, usize)>,
    failed: Vec<(String, String)>,
}

impl Tally {
    /// A case: it passed if nothing is wrong with it.
    pub fn add(&mut self, group: &str, id: &str, why: Vec<String>) {
        let entry = self.groups.entry(group.to_owned()).or_default();
        if why.is_empty() {
            entry.0 += 1;
        } else {
            entry.1 += 1;
            self.failed.push((id.to_owned(), why.join("; ")));
        }
    }

    /// Prints the counts and fails on everything that is not known to fail.
    pub fn judge(self) {
        let known: HashMap<&str, &str> = include_str!("../known-failures.txt")
            .lines()
            .filter(|l| !l.starts_with('#'))
            .filter_map(|l| l.split_once(char::is_whitespace))
            .collect();
        let (mut passed, mut failed) = (0, 0);
        for (group, (p, f)) in &self.groups {
            println!("{group}: {p} passed, {f} failed");
            (passed, failed) = (passed + p, failed + f);
        }
        println!("all: {passed} passed, {failed} failed");
        let new: Vec<_> = self.failed.iter().filter(|(id, _)| !known.contains_key(id.as_str())).collect();
        for (id, why) in &self.failed {
            println!(
                "  {id}: {why}{}",
                known.get(id.as_str()).map(|k| format!(" (known: {k})")).unwrap_or_default()
            );
        }
        assert!(passed > 0, "nothing was tested");
        assert!(new.is_empty(), "{} cases fail that are not known to: {new:#?}", new.len());
    }
}
