//! A browser for agents: pages that are read as text and acted on by data.

use crate::{Cx, Result};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Debug;

/// Opens isolated pages.
///
/// # What an implementation owes
/// Dropping the last page and the browser leaves no process, thread, profile folder or port behind, also when the host is
/// killed.
#[async_trait]
pub trait Browser: Send + Sync + Debug + 'static {
    /// A new page in a context of its own (own cookies, own storage).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when no browser can be started, with what to install.
    async fn open(&self, cx: &Cx) -> Result<Box<dyn Page>>;
}

/// One tab. Dropping it closes it.
///
/// Every action waits until its target is there, visible, stable, enabled and receives events, within the deadline of its
/// [`Cx`].
#[async_trait]
pub trait Page: Send + Sync + Debug + 'static {
    /// Performs one action. Actions are data, so that they can be logged, approved, queued and replayed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an element that is gone,
    /// [`ErrorKind::Denied`](crate::ErrorKind::Denied) by the network policy,
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), saying which of the conditions was not met.
    async fn act(&self, cx: &Cx, action: &Action) -> Result<Value>;

    /// The page as text for a model.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the page has crashed or was closed.
    async fn snapshot(&self, cx: &Cx, what: &SnapshotOptions) -> Result<Snapshot>;

    /// The page as a picture: PNG bytes.
    ///
    /// # Errors
    /// As [`snapshot`](Page::snapshot).
    async fn screenshot(&self, cx: &Cx, what: &ScreenshotOptions) -> Result<Vec<u8>>;
}

/// Something to do on a page. `element` is a ref from the last snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// Go to a URL.
    Goto {
        /// Where.
        url: String,
    },
    /// Go back in the history.
    Back,
    /// Click.
    Click {
        /// What.
        element: String,
    },
    /// Click twice.
    DoubleClick {
        /// What.
        element: String,
    },
    /// Move the pointer over it.
    Hover {
        /// What.
        element: String,
    },
    /// Replace the value of a field.
    Fill {
        /// Which field.
        element: String,
        /// The new value.
        text: String,
    },
    /// Type key by key at the focus.
    Type {
        /// What to type.
        text: String,
    },
    /// Press a key or a chord, e.g. `Enter`, `Control+A`.
    Press {
        /// Which.
        key: String,
    },
    /// Choose options of a `select`.
    Select {
        /// Which.
        element: String,
        /// Values or labels.
        values: Vec<String>,
    },
    /// Tick or untick.
    Check {
        /// What.
        element: String,
        /// Ticked?
        on: bool,
    },
    /// Drag one element onto another.
    Drag {
        /// From.
        element: String,
        /// To.
        onto: String,
    },
    /// Scroll by CSS pixels.
    Scroll {
        /// To the right.
        dx: f64,
        /// Down.
        dy: f64,
    },
    /// Wait until a text is on the page.
    WaitFor {
        /// The text.
        text: String,
    },
    /// Answer an open dialog.
    Dialog {
        /// Accept it?
        accept: bool,
        /// Text for a prompt.
        text: Option<String>,
    },
    /// Give a file to a file field.
    Upload {
        /// Which field.
        element: String,
        /// Paths on the host, within what was granted.
        files: Vec<String>,
    },
    /// Run JavaScript; the result is its JSON value.
    Eval {
        /// Source of an expression.
        js: String,
    },
}

/// How much of a page a snapshot shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SnapshotOptions {
    /// Only what can be acted on.
    pub interactive_only: bool,
    /// Only what is inside this element.
    pub within: Option<String>,
    /// Most characters; what is left out is said.
    pub max_chars: Option<usize>,
}

/// What a screenshot shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ScreenshotOptions {
    /// The whole page, not just the viewport.
    pub full_page: bool,
    /// Only this element.
    pub element: Option<String>,
}

/// A page as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its URL.
    pub url: String,
    /// Its title.
    pub title: String,
    /// Indented accessibility tree with element refs.
    pub tree: String,
    /// Something was left out.
    pub truncated: bool,
}
