//! The crash campaign: a process at work is killed, at every named write of its journal and at random, again and again over
//! one file. After each kill a reader that shares no code with the agent looks whether anything that was acknowledged is lost,
//! whether anything happened twice that must not, and whether what is left makes sense.
//!
//! 2,000 kills; with `ZO_NIGHTLY` set, ten times as many. `ZO_CRASH_KILLS` sets how many each of the eight tests makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

mod child;
mod reader;

use child::Orders;
use reader::{Acks, Book, Counts};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};
use zo_testkit::kill::Victim;

/// Kills of one test.
const KILLS: usize = 250;
/// Kills over one file.
const LIFE: usize = 50;
const WHAT: [&str; 12] = [
    "begin",
    "model",
    "claimed",
    "tool",
    "said",
    "asked",
    "parked",
    "resumed",
    "compacted",
    "charge",
    "appending",
    "end",
];
const WHEN: [&str; 3] = ["queue", "queued", "durable"];

/// The words in a text that occur once in the world.
fn tokens(text: &str) -> Vec<&str> {
    text.match_indices("#r")
        .map(|(at, _)| {
            let rest = &text[at..];
            let end = rest[2..].find(|c: char| !c.is_ascii_digit() && c != '_').map_or(rest.len(), |e| e + 2);
            &rest[..end]
        })
        .collect()
}

#[test]
#[ignore = "the victim of the campaign"]
fn victim() {
    let Ok(orders) = std::env::var("ZO_CRASH_ORDERS") else { return };
    child::live(&serde_json::from_str(&orders).unwrap());
}

fn spawn(orders: &Orders) -> Victim {
    Victim::respawn("victim", &[("ZO_CRASH_ORDERS", serde_json::to_string(orders).unwrap())])
}

#[derive(Debug, Default)]
struct Tally {
    random: usize,
    named: BTreeMap<String, usize>,
    /// Died of itself, or lived too long for its point.
    missed: usize,
    acks: usize,
    acks_done: usize,
    acks_said: usize,
    parked: usize,
    resumed: usize,
    counts: Counts,
}

struct Campaign {
    seed: u64,
    tally: Tally,
    round: u32,
    points: Vec<(String, String)>,
}

impl Campaign {
    fn chance(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn run(mut self) -> Tally {
        let nightly = if std::env::var_os("ZO_NIGHTLY").is_some() { 10 } else { 1 };
        let kills = std::env::var("ZO_CRASH_KILLS").map_or(KILLS * nightly, |n| n.parse().unwrap());
        println!("seed {}", self.seed);
        let mut left = kills;
        let mut world = 0;
        while left > 0 {
            let life = left.min(LIFE);
            self.world(world, life);
            left -= life;
            world += 1;
        }
        self.tally
    }

    /// One file, from its beginning to the end of all its runs.
    fn world(&mut self, n: usize, kills: usize) {
        let dir = tempfile::tempdir().unwrap();
        let (elsewhere, plain) = (n % 2 == 1, n % 4 == 2);
        let mut acks = Acks::default();
        let mut killed = 0;
        while killed < kills {
            let mut orders = self.orders(dir.path(), elsewhere, plain);
            let named = self.chance() % 100 < 65;
            if named {
                // Those that were hit least come first.
                let can = |what: &str| (what != "appending" || elsewhere) && (what != "charge" || !plain);
                let hits = |p: &(String, String)| {
                    self.tally.named.get(&format!("{} {}", p.0, p.1)).copied().unwrap_or(0)
                };
                self.points.sort_by_key(hits);
                let some = self.chance() as usize % 6;
                let (what, when) = self.points.iter().filter(|p| can(&p.0)).nth(some).cloned().unwrap();
                let nth = [1, 1, 2, 3, 5][self.chance() as usize % 5];
                orders.point = Some((what, when, nth));
            }
            let lines = match &orders.point {
                Some((what, when, _)) => {
                    let remains = spawn(&orders).wait(Duration::from_millis(900));
                    let at = format!("! at {what} {when}");
                    match remains.ended {
                        Some(_) if remains.lines.contains(&at) => {
                            killed += 1;
                            *self.tally.named.entry(format!("{what} {when}")).or_default() += 1;
                        }
                        Some(status) => panic!("the child ended by itself: {status}: {:#?}", remains.lines),
                        None => {
                            killed += 1;
                            self.tally.missed += 1;
                        }
                    }
                    remains.lines
                }
                None => {
                    let time = Duration::from_micros(4_000 + self.chance() % 70_000);
                    let remains = spawn(&orders).wait(time);
                    assert!(remains.ended.is_none(), "the child ended by itself: {:#?}", remains.lines);
                    killed += 1;
                    self.tally.random += 1;
                    remains.lines
                }
            };
            self.take(&lines, &mut acks, &orders);
            self.look(dir.path(), &acks, &orders, false);
        }
        let mut orders = self.orders(dir.path(), elsewhere, plain);
        orders.finish = true;
        let remains = spawn(&orders).wait(Duration::from_secs(60));
        assert_eq!(remains.lines.iter().filter(|l| *l == "! finished").count(), 1, "{:#?}", remains.lines);
        self.take(&remains.lines, &mut acks, &orders);
        let counts = self.look(dir.path(), &acks, &orders, true);
        self.sum(&acks, counts);
    }

    fn orders(&mut self, dir: &Path, elsewhere: bool, plain: bool) -> Orders {
        self.round += 1;
        let (dir, round, chance) = (dir.to_owned(), self.round, self.chance());
        Orders { dir, round, chance, point: None, elsewhere, plain, finish: false }
    }

    fn take(&self, lines: &[String], acks: &mut Acks, orders: &Orders) {
        for line in lines {
            if let Some(bad) = acks.take(line) {
                panic!("round {} ({:?}): {bad}\n{lines:#?}", self.round, orders.point);
            }
        }
    }

    /// Reads a copy: the child is to recover from what the kill left, not from what a reader made of it.
    fn look(&self, dir: &Path, acks: &Acks, orders: &Orders, all_over: bool) -> Counts {
        let file = dir.join("bot.zo");
        if !file.exists() {
            assert!(acks.started.is_empty());
            return Counts::default();
        }
        let copy = dir.join("copy.zo");
        std::fs::copy(&file, &copy).unwrap();
        let outside = std::fs::read_to_string(dir.join("outside")).unwrap_or_default();
        let (problems, counts) = Book::read(&copy).check(acks, &outside, all_over);
        let shown: Vec<_> = problems.iter().take(20).collect();
        assert!(
            problems.is_empty(),
            "round {}, killed at {:?}, elsewhere {}: {} problems: {shown:#?}",
            self.round,
            orders.point,
            orders.elsewhere,
            problems.len()
        );
        counts
    }

    fn sum(&mut self, acks: &Acks, c: Counts) {
        let t = &mut self.tally;
        t.acks +=
            acks.started.len() + acks.did.len() + acks.done.len() + acks.asked.len() + acks.decided.len();
        t.acks += acks.said.len() + acks.abandoned.len();
        t.acks_done += acks.done.len();
        t.acks_said += acks.said.len();
        t.parked += acks.parked;
        t.resumed += acks.resumed;
        let s = &mut t.counts;
        s.runs += c.runs;
        s.ended += c.ended;
        s.children += c.children;
        s.entries += c.entries;
        s.gaps += c.gaps;
        s.unknown += c.unknown;
        s.effects += c.effects;
        s.repeats += c.repeats;
        s.compactions += c.compactions;
        s.spilled += c.spilled;
        s.said += c.said;
    }
}

/// One eighth of the campaign.
fn campaign(n: u64) {
    let begun = Instant::now();
    let seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n + 1) ^ u64::from(std::process::id());
    let points =
        WHAT.iter().flat_map(|what| WHEN.map(|when| ((*what).to_owned(), when.to_owned()))).collect();
    let tally = Campaign { seed, tally: Tally::default(), round: 0, points }.run();
    let named: usize = tally.named.values().sum();
    let kills = tally.random + tally.missed + named;
    println!(
        "{kills} kills in {:?}: {named} at {} named points, {} at random ({} of them in wait for a point). {} acknowledgements, \
         none lost: {} runs of {} on record ended aloud, {} words of {}, {} parked, {} resumed. {} effects at most once, none twice; \
         {} others repeated; {} outcomes unknown. {} sub-agents, {} summaries, {} long outputs, {} entries, {} numbers left out.",
        begun.elapsed(),
        tally.named.len(),
        tally.random + tally.missed,
        tally.missed,
        tally.acks,
        tally.acks_done,
        tally.counts.runs,
        tally.acks_said,
        tally.counts.said,
        tally.parked,
        tally.resumed,
        tally.counts.effects,
        tally.counts.repeats,
        tally.counts.unknown,
        tally.counts.children,
        tally.counts.compactions,
        tally.counts.spilled,
        tally.counts.entries,
        tally.counts.gaps,
    );
    println!("{:?}", tally.named);
    if kills < KILLS {
        return;
    }
    // A campaign in which nothing happened shows nothing.
    assert!(named * 10 >= kills * 4, "too few kills at named points: {named} of {kills}");
    for what in WHAT {
        for when in WHEN {
            let hits = tally.named.get(&format!("{what} {when}")).copied().unwrap_or_default();
            assert!(hits >= 2, "{what} {when} was hit {hits} times");
        }
    }
    let c = tally.counts;
    for (what, n) in [
        ("ended aloud", tally.acks_done),
        ("words", tally.acks_said),
        ("parked", tally.parked),
        ("resumed", tally.resumed),
        ("sub-agents", c.children),
        ("unknown outcomes", c.unknown),
        ("repeated effects", c.repeats),
        ("summaries", c.compactions),
        ("long outputs", c.spilled),
    ] {
        assert!(n > 5, "{what}: {n}; too few to mean anything");
    }
}

macro_rules! campaigns {
    ($($name:ident $n:literal)*) => {$(
        #[test]
        fn $name() {
            campaign($n);
        }
    )*};
}

campaigns!(kills_1 1 kills_2 2 kills_3 3 kills_4 4 kills_5 5 kills_6 6 kills_7 7 kills_8 8);
