//! What aimock was asked, in its own words.

use super::rows::{KEY, Row};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One request that the server saw.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    /// The request as chat completions, whatever wire it came over.
    pub(crate) body: Value,
    pub(crate) response: Outcome,
}

/// How the server answered.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    /// 0: not at all.
    pub(crate) status: u16,
    /// The fault that struck, if one did.
    #[serde(rename = "chaosAction")]
    pub(crate) chaos: Option<String>,
}

impl Entry {
    /// What the user said last.
    pub(crate) fn text(&self) -> String {
        let messages = self.body["messages"].as_array().expect("messages");
        match &messages.iter().rev().find(|m| m["role"] == "user").expect("a user")["content"] {
            Value::String(text) => text.clone(),
            parts => parts.as_array().unwrap().iter().filter_map(|p| p["text"].as_str()).collect(),
        }
    }
}

/// The requests of the row's test, in the order in which they came.
pub(crate) async fn of(row: &Row) -> Vec<Entry> {
    let address = row.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /__aimock/journal?testId={} HTTP/1.0\r\nhost: {address}\r\nx-api-key: {KEY}\r\n\r\n",
        row.test
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {head}"))
}
