//! A small agent that calculates, remembers, is dropped, and still knows: `cargo run --example quickstart`.
//! To ask something else: `cargo run --example quickstart -- "What is 17 times 23?"`.

use std::path::Path;
use zo_core::{Result, RunEvent, Zo, skills::calculator};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let question = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let file = std::env::temp_dir().join(format!("quickstart-{}.zo", std::process::id()));
    let zo = open(&file).await?;
    println!("{}\n", zo.model_choice());
    if !question.is_empty() {
        return say(&zo, "today", &question).await;
    }
    say(&zo, "today", "Remember that my cat is called Miso.").await?;
    say(&zo, "today", "What is 17 times 23?").await?;
    drop(zo); // Now the file is all that is left.
    say(&open(&file).await?, "tomorrow", "What is my cat called?").await
}

async fn open(file: &Path) -> Result<Zo> {
    Zo::builder().file(file).skill(calculator()).build().await
}

async fn say(zo: &Zo, conversation: &str, text: &str) -> Result<()> {
    println!("> {text}");
    let mut run = zo.stream(conversation, text);
    while let Some(event) = run.next().await {
        match event? {
            RunEvent::Text(text) => print!("{text}"),
            RunEvent::ToolStarted(call) => println!("[{} {}]", call.name, call.args),
            RunEvent::Done(_) => println!("\n"),
            _ => {}
        }
    }
    Ok(())
}
