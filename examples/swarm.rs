//! Many small agents at once, one allowance for all of them: `cargo run --example swarm`.
//!
//! It runs without a key, with rules in place of a model; set e.g. `OPENAI_API_KEY` to talk to a real one.

use zo_core::{Ask, Cx, Limits, Persona, Result, Zo, skills::calculator};

#[tokio::main]
async fn main() -> Result<()> {
    let file = std::env::temp_dir().join(format!("swarm-{}.zo", std::process::id()));
    // A persona is who an agent is: what it is told, which tools it has, how often it may ask the model.
    let clerk =
        Persona::new("clerk", "You calculate, and say only the result.").tools(["calculate"]).max_steps(4);
    let clown = Persona::new("clown", "You answer with a joke.").tools([""; 0]).max_steps(1);
    let zo = Zo::builder().file(&file).skill(calculator()).persona(clerk).persona(clown).build().await?;
    println!("{}\n", zo.model_choice());

    // What all of them together may use. It is on the disk: a restart does not refill it.
    zo.open_ledger("swarm", Limits::none().steps(60)).await?;
    let asks = (1..=40).map(|n| {
        let (who, what) = if n % 4 == 0 {
            ("clown", "Hello!".into())
        } else {
            ("clerk", format!("What is {n} times {n}?"))
        };
        Ask::new(format!("desk/{n}"), what).persona(who).ledger("swarm")
    });

    // Eight at a time; the results come as they are ready, with the number of the question.
    let mut swarm = zo.spawn_all(&Cx::new("swarm"), asks, 8);
    let (mut answers, mut refusals) = (0, 0);
    while let Some((n, result)) = swarm.next().await {
        match result {
            Ok(reply) => {
                answers += 1;
                if answers <= 5 {
                    println!("{:>2}: {}", n + 1, reply.text.lines().next().unwrap_or_default());
                }
            }
            // The first that is refused says why; there is no point in the rest.
            Err(e) => {
                refusals += 1;
                if refusals == 1 {
                    println!("...\n{:>2}: {e}", n + 1);
                    println!("    cancelling the {} that are left", swarm.left());
                    swarm.cancel();
                }
            }
        }
    }
    println!("{answers} answers, {refusals} refused or cancelled");
    for ledger in zo.ledgers()?.iter().filter(|l| l.id == "swarm") {
        println!("spent: {}", ledger.spent);
    }
    drop(zo);
    // A bot keeps its file; this example does not.
    let _ = std::fs::remove_file(file);
    Ok(())
}
