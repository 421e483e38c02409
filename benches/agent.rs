//! Framework time of the agent loop, with a provider that answers at once: what zo itself costs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use zo_core::{Effect, Role, Zo};
use zo_testkit::{Scripted, Turn, tool};

/// Tool round trips in one run.
const TRIPS: u64 = 16;

fn round_trips(c: &mut Criterion) {
    let mut group = c.benchmark_group("agent");
    let current = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let multi =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Asked from outside the runtime's workers, each tool is a hop to another thread and back.
    for (name, runtime, inside) in [
        ("current_thread", current(), false),
        ("multi_thread_in_a_task", multi(), true),
        ("multi_thread_from_outside", multi(), false),
    ] {
        let model = Scripted::by_unrecorded(|r| {
            if r.messages.iter().filter(|m| m.role == Role::Tool).count() as u64 == TRIPS {
                Turn::text("done")
            } else {
                Turn::calls([("call", "add", json!({"a": 1, "b": 2}))])
            }
        });
        let schema = json!({"type": "object", "required": ["a", "b"],
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}});
        let add = tool("add", |_, call| async move {
            Ok((call.args["a"].as_i64().unwrap() + call.args["b"].as_i64().unwrap()).into())
        });
        let zo = runtime.block_on(async {
            Zo::builder()
                .provider(model)
                .recall_limit(0)
                .memory_tools(false)
                .skill(add.schema(schema).effect(Effect::Pure))
                .build()
                .await
                .unwrap()
        });
        let mut n = 0u64;
        group.throughput(Throughput::Elements(TRIPS));
        group.bench_function(format!("tool_round_trip/{name}"), |b| {
            b.to_async(&runtime).iter(|| {
                n += 1;
                let (zo, conversation) = (zo.clone(), n.to_string());
                let work = async move {
                    zo.ask(&conversation, "go").await.unwrap();
                    zo.transcript().unwrap().delete(&zo_core::Cx::default(), &conversation).await.unwrap();
                };
                async move { if inside { tokio::spawn(work).await.unwrap() } else { work.await } }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
