//! What these servers brought to light and the providers do not do yet.

use super::{
    chaos::Attempts,
    journal,
    jumping::Jumping,
    rows::{AIMOCK, AIMOCK_CHAT, Row},
};
use std::time::Duration;
use zo_providers::layer::{LayerExt, RateLimit, Retry};
use zo_traits::{Clock, ProviderExt};

/// A connection that was made for this request and closed without an answer is no connection that was kept too long: the
/// server may have done the work, and whether to ask again is for the retry layer to say.
#[tokio::test]
async fn a_fresh_connection_that_closes_is_asked_once() {
    let Some(row) = Row::ready(AIMOCK_CHAT, "fresh") else { return };
    let remote = row.remote().header("x-aimock-chaos-disconnect", "1");
    remote.complete(&row.cx(), &row.ask("Name three colours.")).await.unwrap_err();
    assert_eq!(journal::of(&row).await.len(), 1);
}

/// A server that counts in UTF-16, as those in JavaScript do, may send one half of a character in one piece and the other
/// half in the next, each escaped. Its own clients put them together again.
#[tokio::test]
async fn halves_of_a_character_are_joined() {
    let mut wrong = Vec::new();
    for row in AIMOCK.iter().filter_map(|wire| Row::ready(*wire, "halves")) {
        let answer = row.remote().complete(&row.cx(), &row.ask("Cut a character in two.")).await;
        let text = answer.map(|a| a.message.to_text()).unwrap_or_else(|e| e.to_string());
        if text != "ab🎨cd🎨" {
            wrong.push((row.wire.name, text));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The refusal says `Retry-After: 7` and, in the manner of OpenAI, that no token is left and that all are back in six minutes.
/// Who asks again after seven seconds is welcome.
#[tokio::test]
async fn a_refusal_that_names_its_time_is_believed() {
    let Some(row) = Row::ready(AIMOCK_CHAT, "believed") else { return };
    let clock = Jumping::new();
    let provider =
        row.remote().layer(Attempts::new(&clock)).layer(RateLimit::default()).layer(Retry::default());
    let (cx, ask) = (clock.cx(), row.ask("Please come back in seven seconds."));
    let answer = clock.drive(provider.complete(&cx, &ask)).await.unwrap();
    assert_eq!(answer.message.to_text(), "Here I am again.");
    let waited = clock.monotonic();
    assert!((Duration::from_secs(7)..Duration::from_secs(20)).contains(&waited), "{waited:?}");
}
