//! Spans: named by the conventions, with counts and outcomes, and without a word of what was said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use zo_core::{Effect, Error, ErrorKind, ToolOutput, Zo};
use zo_testkit::{Scripted, Turn, tool};

type Fields = BTreeMap<String, String>;

/// Keeps every span with its fields and its parent.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    all: Vec<(String, Fields, Option<usize>)>,
    stack: Vec<u64>,
}

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("zo_core")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut state = self.0.lock().unwrap();
        let mut fields = Fields::new();
        span.record(&mut Into(&mut fields));
        let parent = state.stack.last().map(|id| *id as usize - 1);
        state.all.push((span.metadata().name().into(), fields, parent));
        Id::from_u64(state.all.len() as u64)
    }
    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut Into(&mut self.0.lock().unwrap().all[span.into_u64() as usize - 1].1));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().stack.push(span.into_u64());
    }
    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().stack.pop();
    }
}

#[test]
fn a_run_its_answers_and_its_tools_are_spans() {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(spans.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let model = Scripted::new([
            Turn::calls([("1", "look", json!({"secret": "hunter2"})), ("2", "fails", json!({}))]),
            Turn::text("hunter2 is what I saw"),
            Turn::Fail(Error::new(ErrorKind::Unauthorized, "x", "hunter2")),
        ]);
        let look = tool("look", |_, _| async { Ok(ToolOutput::text("hunter2")) }).effect(Effect::Pure);
        let fails = tool("fails", |_, _| async { Err(Error::new(ErrorKind::NotFound, "x", "hunter2")) })
            .effect(Effect::Pure);
        let zo = Zo::builder().provider(model).model("m1").skill(look).skill(fails).build().await.unwrap();
        zo.ask("c", "what is hunter2?").await.unwrap();
        zo.ask("c", "and now?").await.unwrap_err();
    });
    let state = spans.0.lock().unwrap();
    let names: Vec<_> = state.all.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(
        names,
        ["invoke_agent", "chat", "execute_tool", "execute_tool", "chat", "invoke_agent", "chat"]
    );
    let parents: Vec<_> = state.all.iter().map(|(.., parent)| *parent).collect();
    assert_eq!(parents, [None, Some(0), Some(0), Some(0), Some(0), None, Some(5)]);
    let field = |i: usize, name: &str| state.all[i].1.get(name).map(String::as_str);
    assert_eq!(field(0, "gen_ai.operation.name"), Some("invoke_agent"));
    assert_eq!(field(0, "gen_ai.conversation.id"), Some("c"));
    assert_eq!(
        (field(0, "gen_ai.usage.input_tokens"), field(1, "gen_ai.usage.input_tokens")),
        (Some("20"), Some("10"))
    );
    assert_eq!(
        (field(1, "gen_ai.provider.name"), field(1, "gen_ai.request.model")),
        (Some("scripted"), Some("m1"))
    );
    assert_eq!(
        (field(1, "otel.name"), field(1, "gen_ai.response.finish_reasons")),
        (Some("chat m1"), Some("tool_calls"))
    );
    assert_eq!((field(2, "gen_ai.tool.name"), field(2, "gen_ai.tool.call.id")), (Some("look"), Some("1")));
    assert_eq!((field(2, "error.type"), field(3, "error.type")), (None, Some("error")));
    assert_eq!(
        (field(5, "error.type"), field(6, "error.type")),
        (Some("unauthorized"), Some("unauthorized"))
    );
    let all = format!("{:?}", state.all);
    assert!(!all.contains("hunter2"), "a span says what was said: {all}");
}
