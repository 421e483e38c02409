//! Spans by the OpenTelemetry conventions for generative AI ([`SEMCONV`], which are still in development).

use super::{
    Layer,
    watch::{End, Watcher, watch},
};
use tracing::{Instrument, Span, field::Empty, info_span};
use zo_traits::{BoxStream, Cx, Error, Provider, Request, Result, StreamEvent, Usage, async_trait};

/// The version of the OpenTelemetry semantic conventions by which spans are named.
pub const SEMCONV: &str = "1.41.0";

/// A `chat` span for each request, open until the answer ends: which model, how long, how many tokens, how it ended. What
/// was said is never in it, and so no secret is.
///
/// The agent of `zo-core` makes these spans itself; this is for programs that call a provider on their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trace;

fn failed(span: &Span, e: &Error) {
    span.record("error.type", e.kind().as_str());
    span.record("otel.status_code", "ERROR");
}

#[async_trait]
impl Layer for Trace {
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        let span = info_span!(
            "chat",
            otel.name = %format_args!("chat {}", request.model),
            otel.kind = "client",
            otel.status_code = Empty,
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = next.id(),
            gen_ai.conversation.id = cx.run(),
            gen_ai.request.model = request.model.as_str(),
            gen_ai.request.max_tokens = request.max_tokens,
            gen_ai.request.temperature = request.temperature.map(f64::from),
            gen_ai.response.model = Empty,
            gen_ai.response.id = Empty,
            gen_ai.response.finish_reasons = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty,
            gen_ai.usage.cache_creation.input_tokens = Empty,
            error.type = Empty,
        );
        match next.stream(cx, request).instrument(span.clone()).await {
            Ok(stream) if span.is_disabled() => Ok(stream),
            Ok(stream) => Ok(watch(stream, Recorder { span, usage: Usage::default() })),
            Err(e) => {
                failed(&span, &e);
                Err(e)
            }
        }
    }
}

struct Recorder {
    span: Span,
    usage: Usage,
}

impl Watcher for Recorder {
    fn event(&mut self, event: &StreamEvent) {
        match event {
            StreamEvent::Start { id, model } => {
                if let Some(id) = id {
                    self.span.record("gen_ai.response.id", id.as_str());
                }
                if let Some(model) = model {
                    self.span.record("gen_ai.response.model", model.as_str());
                }
            }
            StreamEvent::Usage(usage) => self.usage = *usage,
            StreamEvent::Finish(reason) => {
                self.span.record("gen_ai.response.finish_reasons", reason.as_str());
            }
            _ => {}
        }
    }

    fn end(self, how: End<'_>) {
        self.span.record("gen_ai.usage.input_tokens", self.usage.input);
        self.span.record("gen_ai.usage.output_tokens", self.usage.output);
        self.span.record("gen_ai.usage.cache_read.input_tokens", self.usage.cache_read);
        self.span.record("gen_ai.usage.cache_creation.input_tokens", self.usage.cache_write);
        match how {
            End::Finished => {}
            End::Failed(e) => failed(&self.span, e),
            End::Dropped => {
                self.span.record("error.type", "dropped");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerExt;
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
    use zo_testkit::{Scripted, Turn};
    use zo_traits::{ErrorKind, Message, ProviderExt};

    type Fields = BTreeMap<String, String>;

    /// The fields of every span.
    #[derive(Clone, Default)]
    struct Spans(Arc<Mutex<Vec<Fields>>>);

    struct Into<'a>(&'a mut Fields);

    impl Visit for Into<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.insert(field.name().into(), format!("{value:?}"));
        }
    }

    impl Subscriber for Spans {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let all = &mut self.0.lock().unwrap();
            let mut fields = Fields::new();
            span.record(&mut Into(&mut fields));
            all.push(fields);
            Id::from_u64(all.len() as u64)
        }
        fn record(&self, span: &Id, values: &Record<'_>) {
            let at = usize::try_from(span.into_u64()).unwrap() - 1;
            values.record(&mut Into(self.0.lock().unwrap().get_mut(at).unwrap()));
        }
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[tokio::test]
    async fn an_answer_is_a_span_without_its_words() {
        let spans = Spans::default();
        let _guard = tracing::subscriber::set_default(spans.clone());
        let script = Scripted::new([
            Turn::text("unspeakable"),
            Turn::Fail(Error::new(ErrorKind::Timeout, "t", "unspeakable")),
            Turn::text("unspeakable"),
        ]);
        let provider = script.layer(Trace);
        let (cx, request) = (Cx::new("run-7"), Request::new("m", [Message::user("unspeakable")]));
        provider.complete(&cx, &request).await.unwrap();
        provider.complete(&cx, &request).await.unwrap_err();
        drop(provider.stream(&cx, &request).await.unwrap());
        let all = &*spans.0.lock().unwrap();
        let of =
            |n: usize, field: &str| all.get(n).unwrap().get(field).map(|v| v.trim_matches('"').to_owned());
        assert_eq!(of(0, "otel.name").as_deref(), Some("chat m"));
        assert_eq!(of(0, "gen_ai.usage.input_tokens").as_deref(), Some("10"));
        assert_eq!(of(0, "gen_ai.response.finish_reasons").as_deref(), Some("stop"));
        assert_eq!((of(0, "error.type"), of(0, "gen_ai.conversation.id").as_deref()), (None, Some("run-7")));
        assert_eq!(of(1, "error.type").as_deref(), Some("timeout"));
        assert_eq!(of(2, "error.type").as_deref(), Some("dropped"));
        assert!(!format!("{all:?}").contains("unspeakable"));
    }
}
