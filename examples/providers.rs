//! Models without the agent, and what can be put around them: `cargo run --example providers -- "your question"`.
//!
//! It runs without a key, with rules in place of a model; set e.g. `OPENAI_API_KEY` to talk to a real one, and
//! `ZO_PROFILES` to a file of providers of your own (rows as in `zo-providers/src/dialects.json`).

use std::{future::poll_fn, io::Write, time::Duration};
use zo_core::{
    Budget, Cx, ErrorKind, Limits, Message, Provider, ProviderExt, Request, Result, StreamEvent,
    providers::{
        Dialect, Offline, Remote, from_env,
        layer::{Concurrency, Fallback, LayerExt, RateLimit, Retry, SpendLimit, Trace},
        models,
    },
};

#[tokio::main]
async fn main() -> Result<()> {
    let cx = Cx::new("providers").with_timeout(Duration::from_secs(120));
    let question = std::env::args().nth(1).unwrap_or_else(|| "What can you do?".into());

    // What the environment offers, or a provider of your own, which is one row of data.
    let (first, model) = match std::env::var("ZO_PROFILES") {
        Ok(file) => {
            let rows = std::fs::read_to_string(&file).map_err(|e| {
                zo_core::Error::new(ErrorKind::NotFound, "example", format_args!("{file}: {e}"))
            })?;
            let row = Dialect::read(&rows)?.remove(0);
            let key = std::env::var(&row.key_env).ok().map(Into::into);
            println!("{} at {}", row.id, row.base_url);
            (std::sync::Arc::new(Remote::new(&row, key)) as std::sync::Arc<dyn Provider>, row.default_model)
        }
        Err(_) => {
            let chosen = from_env(&cx).await?;
            println!("{}", chosen.why);
            (chosen.provider, chosen.model)
        }
    };

    // Each layer is a provider around a provider; the last is the outermost.
    let day = Budget::new(Limits::none().microusd(500_000).tokens(200_000));
    let careful = first.layer(RateLimit::new()).layer(Concurrency::new(8)).layer(
        Retry::new().on_retry(|r| eprintln!("try {} failed, again in {:?}: {}", r.attempt, r.wait, r.error)),
    );
    let provider = Fallback::new(careful)
        .then_model(Offline::new(), "")
        .on_fall(|f| eprintln!("{} could not: {}", f.from, f.error))
        .layer(SpendLimit::new(day.clone()))
        .layer(Trace);

    let can = provider.capabilities(&model);
    println!("{}: context {:?} tokens, price {:?}", provider.id(), can.context_window, can.price);
    match provider.models(&cx).await {
        Ok(all) => println!("{} models on offer", all.len()),
        Err(e) => println!("no list of models: {e}"),
    }
    println!("{} models known by name\n", models::all().count());

    // Streamed, and dropped at any time: dropping closes the connection.
    let request = Request::new(&model, [Message::user(&question)]);
    let mut stream = provider.stream(&cx, &request).await?;
    while let Some(event) = poll_fn(|task| stream.as_mut().poll_next(task)).await {
        match event? {
            StreamEvent::Delta { text, .. } => {
                print!("{text}");
                let _ = std::io::stdout().flush();
            }
            StreamEvent::Finish(why) => println!("\n({})", why.as_str()),
            _ => {}
        }
    }
    drop(stream);

    // Or whole.
    let answer = provider.complete(&cx, &request).await?;
    println!("{} tokens in, {} out; spent so far: {}", answer.usage.input, answer.usage.output, day.spent());
    Ok(())
}
