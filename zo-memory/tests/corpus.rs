//! How well recall does on public conversations and collections: figures, and floors that must not be lost.
//!
//! Reads the folder named by `ZO_CORPUS`, else `../shared/corpus` beside the workspace; says so when there is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde::Deserialize;
use std::{collections::HashMap, path::PathBuf};
use zo_memory::Memory;
use zo_traits::{Cx, MemoryStore, NewMemory, Recall, Scope};

#[derive(Deserialize)]
struct Set {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    id: serde_json::Value,
    docs: Vec<Doc>,
    queries: Vec<Query>,
}

#[derive(Deserialize)]
struct Doc {
    id: serde_json::Value,
    text: String,
    #[serde(default)]
    speaker: String,
}

#[derive(Deserialize)]
struct Query {
    text: String,
    rel: Vec<serde_json::Value>,
    #[serde(default)]
    cat: String,
}

fn corpus() -> Option<PathBuf> {
    let folder = match std::env::var_os("ZO_CORPUS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"),
    };
    let folder = folder.join("memory");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no corpus at {}", folder.display());
    None
}

/// Mean recall at 10 over the queries of a set that can be answered. With `speakers`, a turn is stored as `who: what`, as an
/// agent that keeps a conversation would.
async fn recall_at_10(name: &str, speakers: bool) -> Option<f64> {
    let path = corpus()?.join(format!("{name}.json"));
    let Ok(bytes) = std::fs::read(&path) else {
        println!("skipped: no {}", path.display());
        return None;
    };
    let set: Set = serde_json::from_slice(&bytes).unwrap();
    let memory = Memory::in_memory().await.unwrap();
    let cx = Cx::default();
    let (mut sum, mut queries) = (0.0, 0u32);
    for group in &set.groups {
        let scope = Scope::new(group.id.to_string());
        let items = group.docs.iter().map(|doc| match doc.text.trim() {
            "" => NewMemory::text("-"),
            _ if speakers => NewMemory::text(format!("{}: {}", doc.speaker, doc.text)),
            _ => NewMemory::text(&doc.text),
        });
        let ids = memory.remember(&cx, &scope, items.collect()).await.unwrap();
        // One item may stand for several documents of the same text.
        let mut docs: HashMap<_, Vec<_>> = HashMap::new();
        for (id, doc) in ids.into_iter().zip(&group.docs) {
            docs.entry(id).or_default().push(doc.id.to_string());
        }
        for query in &group.queries {
            if query.rel.is_empty() || query.cat == "adversarial" {
                continue;
            }
            let found = memory.recall(&cx, &scope, &Recall::new(&query.text, 10)).await.unwrap();
            let found: Vec<_> = found.iter().flat_map(|r| &docs[&r.id]).collect();
            let hits = query.rel.iter().filter(|rel| found.contains(&&rel.to_string())).count();
            sum += hits as f64 / query.rel.len() as f64;
            queries += 1;
        }
    }
    let recall = sum / f64::from(queries);
    let how = if speakers { "bm25+speaker" } else { "bm25" };
    println!("{name} {how} recall@10 = {recall:.3} over {queries} queries");
    Some(recall)
}

#[tokio::test]
async fn locomo() {
    for (speakers, floor) in [(false, 0.54), (true, 0.57)] {
        if let Some(recall) = recall_at_10("locomo", speakers).await {
            assert!(recall >= floor, "{recall}");
        }
    }
}

#[tokio::test]
async fn realtalk() {
    for (speakers, floor) in [(false, 0.45), (true, 0.47)] {
        if let Some(recall) = recall_at_10("realtalk", speakers).await {
            assert!(recall >= floor, "{recall}");
        }
    }
}
