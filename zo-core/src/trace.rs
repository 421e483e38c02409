//! Spans of a run, by the names of the OpenTelemetry conventions for generative AI ([`VERSION`], which are still in
//! development).
//!
//! `invoke_agent` is a run, `chat` an answer of the model, `execute_tool` a tool call. They say which, how long and how much.
//! What was said, arguments and results are never in them, and so no secret is.

use crate::{Reply, journal::Header};
use tracing::{Span, field::Empty, info_span};
use zo_traits::{Error, Response, ToolCall, ToolResult, Usage};

/// The version of the OpenTelemetry semantic conventions by which spans are named.
pub const VERSION: &str = "1.41.0";

/// A run.
pub(crate) fn invoke_agent(header: &Header, provider: &str) -> Span {
    info_span!(
        "invoke_agent",
        otel.name = %format_args!("invoke_agent {}", header.persona.as_deref().unwrap_or("zo")),
        otel.kind = "internal",
        otel.status_code = Empty,
        gen_ai.operation.name = "invoke_agent",
        gen_ai.provider.name = provider,
        gen_ai.agent.name = header.persona.as_deref().unwrap_or("zo"),
        gen_ai.agent.id = header.run.as_str(),
        gen_ai.conversation.id = header.conversation.as_str(),
        gen_ai.request.model = header.model.as_str(),
        gen_ai.response.finish_reasons = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        error.type = Empty,
    )
}

/// An answer of the model.
pub(crate) fn chat(provider: &str, model: &str, conversation: &str, max_tokens: Option<u32>) -> Span {
    info_span!(
        "chat",
        otel.name = %format_args!("chat {model}"),
        otel.kind = "client",
        otel.status_code = Empty,
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = provider,
        gen_ai.conversation.id = conversation,
        gen_ai.request.model = model,
        gen_ai.request.max_tokens = max_tokens,
        gen_ai.response.model = Empty,
        gen_ai.response.id = Empty,
        gen_ai.response.finish_reasons = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        gen_ai.usage.cache_read.input_tokens = Empty,
        gen_ai.usage.cache_creation.input_tokens = Empty,
        error.type = Empty,
    )
}

/// A tool call.
pub(crate) fn execute_tool(call: &ToolCall) -> Span {
    info_span!(
        "execute_tool",
        otel.name = %format_args!("execute_tool {}", call.name),
        otel.kind = "internal",
        otel.status_code = Empty,
        gen_ai.operation.name = "execute_tool",
        gen_ai.tool.name = call.name.as_str(),
        gen_ai.tool.call.id = call.id.as_str(),
        gen_ai.tool.type = "function",
        error.type = Empty,
    )
}

fn usage(span: &Span, usage: &Usage) {
    span.record("gen_ai.usage.input_tokens", usage.input);
    span.record("gen_ai.usage.output_tokens", usage.output);
}

fn failed(span: &Span, what: &str) {
    span.record("error.type", what);
    span.record("otel.status_code", "ERROR");
}

/// How a run came out.
pub(crate) fn ran(span: &Span, outcome: &Result<Reply, Error>) {
    if span.is_disabled() {
        return;
    }
    match outcome {
        Ok(reply) => {
            span.record("gen_ai.response.finish_reasons", reply.finish.as_str());
            usage(span, &reply.usage);
        }
        Err(e) => failed(span, e.kind().as_str()),
    }
}

/// What the model answered.
pub(crate) fn answered(span: &Span, outcome: Result<&Response, &Error>) {
    if span.is_disabled() {
        return;
    }
    match outcome {
        Ok(answer) => {
            span.record("gen_ai.response.finish_reasons", answer.finish.as_str());
            if let Some(model) = &answer.model {
                span.record("gen_ai.response.model", model.as_str());
            }
            if let Some(id) = &answer.id {
                span.record("gen_ai.response.id", id.as_str());
            }
            usage(span, &answer.usage);
            span.record("gen_ai.usage.cache_read.input_tokens", answer.usage.cache_read);
            span.record("gen_ai.usage.cache_creation.input_tokens", answer.usage.cache_write);
        }
        Err(e) => failed(span, e.kind().as_str()),
    }
}

/// How a tool call came out.
pub(crate) fn called(span: &Span, result: &ToolResult) {
    if result.is_error() {
        failed(span, result.status.as_str());
    }
}
