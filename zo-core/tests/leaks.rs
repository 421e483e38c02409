//! Known secrets reach no model, no event and no file.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use zo_core::{
    Error, ErrorKind, RunEvent, ToolOutput, Zo,
    providers::{Leaks, Secret},
};
use zo_testkit::{Scripted, Turn, tool};

const KEY: &str = "ghp_canary_0123456789abcdef";

#[tokio::test]
async fn a_secret_that_a_tool_prints_goes_nowhere() {
    let leaks = Leaks::default();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bot.zo");
    let script =
        Scripted::new([Turn::calls([("1", "env", json!({})), ("2", "fail", json!({}))]), Turn::text("done")]);
    let env = tool("env", |_, _| async {
        Ok(ToolOutput::text(format!("GITHUB_TOKEN={KEY}")).with_data(json!({"token": KEY})))
    });
    let fail = tool("fail", |_, _| async {
        Err(Error::new(ErrorKind::Denied, "t", KEY).with_model_text(format!("bad key {KEY}")))
    });
    let zo = Zo::builder()
        .provider(script.clone())
        .leaks(leaks.clone())
        .skill(env)
        .skill(fail)
        .file(&file)
        .build()
        .await
        .unwrap();
    // It becomes known while the agent runs.
    leaks.add("github", &Secret::new(KEY)).unwrap();
    let mut stream = zo.stream("c", format!("what is {KEY}?"));
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            // It repeats what the user said, and that is his.
            RunEvent::Done(reply) => assert_eq!(reply.text, "done"),
            event => events.push(format!("{event:?}")),
        }
    }
    let told = events.join("\n");
    assert!(told.contains("[secret github]") && !told.contains(KEY), "{told}");
    let asked = script.asked();
    assert_eq!(asked.len(), 2);
    for asked in asked {
        let sent = serde_json::to_string(&asked.request).unwrap();
        assert!(!sent.contains(KEY) && sent.contains("what is [secret github]?"), "{sent}");
    }
    drop(zo);
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(13 + KEY.len()).any(|w| w == format!("GITHUB_TOKEN={KEY}").as_bytes()));
}

#[tokio::test]
async fn neither_files_nor_causes_carry_one_out() {
    use zo_core::{Media, MediaSource};
    let leaks = Leaks::default();
    leaks.add("github", &Secret::new(KEY)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bot.zo");
    let script = Scripted::new([
        Turn::calls([("1", "shot", json!({})), ("2", "fail", json!({}))]),
        Turn::text("done"),
    ]);
    let shot = tool("shot", |_, _| async {
        let mut output = ToolOutput::text("here it is");
        for data in [KEY.to_owned(), "aGVsbG8=".into()] {
            let source = MediaSource::Base64(data);
            output.media.push(Media { media_type: "text/plain".into(), source, name: None });
        }
        Ok(output)
    });
    let fail = tool("fail", |_, _| async {
        Err(Error::new(ErrorKind::Denied, "t", "no").with_source(std::io::Error::other(format!("bad {KEY}"))))
    });
    let zo = Zo::builder()
        .provider(script.clone())
        .leaks(leaks)
        .skill(shot)
        .skill(fail)
        .file(&file)
        .build()
        .await
        .unwrap();
    let mut stream = zo.stream("c", "go");
    let mut told = String::new();
    while let Some(event) = stream.next().await {
        told += &format!("{:?}\n", event.unwrap());
    }
    assert!(!told.contains(KEY) && told.contains("left out"), "{told}");
    drop(zo);
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(KEY.len()).any(|w| w == KEY.as_bytes()), "it is in the file");
    assert!(bytes.windows(8).any(|w| w == b"aGVsbG8="), "harmless files stay");
}
