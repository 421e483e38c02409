//! A bot that must not spend money on its own. It wants to pay, waits, the program "restarts", a person decides, it goes on:
//! `cargo run --example approvals`. To decide without being asked: `cargo run --example approvals -- yes` (or `no`).
//!
//! It runs without a key, with rules in place of a model; set e.g. `OPENAI_API_KEY` to talk to a real one.

use std::{io::Write, path::Path};
use zo_core::{Error, ErrorKind, Permissions, Result, Zo, permission::Rule, skill};

/// Pay an amount of money.
// If the machine dies while it runs, it is not run again: money does not go twice.
#[skill(effect = "at_most_once")]
async fn pay(
    /// Amount in euros
    amount: f64,
) -> String {
    println!("   [pay is running: {amount} euros leave the account]");
    format!("Paid {amount} euros.")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let file = std::env::temp_dir().join(format!("approvals-{}.zo", std::process::id()));

    let zo = open(&file).await?;
    println!("> Please pay the amount of 25 euros");
    let reply = zo.ask("shop", "Please pay the amount of 25 euros").await?;
    // Nothing was paid. The run is parked: it is on the disk, and takes no task, no memory and no tokens.
    println!("parked: {}, waiting for {} decision(s)\n", reply.is_parked(), reply.approvals.len());
    drop(zo); // Now the file is all that is left. The answer may come in a minute or next week.

    println!("-- the program starts again --");
    let zo = open(&file).await?;
    for question in zo.approvals()? {
        println!("It wants to run {} {} ({})", question.call.name, question.call.args, question.why);
        // The decision is about this call with these arguments, once.
        let run = if yes()? {
            zo.approve(&question, "you").await?
        } else {
            zo.deny(&question, "that is too much", "you").await?
        };
        println!("\nIt says: {}", zo.resume(&run).reply().await?.text);
    }
    drop(zo);
    // A bot keeps its file; this example does not.
    let _ = std::fs::remove_file(file);
    Ok(())
}

async fn open(file: &Path) -> Result<Zo> {
    let careful = Permissions::default().rule(Rule::ask().tool("pay").because("it costs money"));
    Zo::builder().file(file).skill(pay()).permissions(careful).build().await
}

/// The argument, or what is typed. No answer is a no.
fn yes() -> Result<bool> {
    let mut answer = std::env::args().nth(1).unwrap_or_default();
    if answer.is_empty() {
        print!("Allow it? [y/N] ");
        let typed = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
        typed.map_err(|e| Error::new(ErrorKind::Unavailable, "example.input", e))?;
    }
    Ok(answer.trim().to_lowercase().starts_with('y'))
}
