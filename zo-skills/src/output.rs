//! What a function may return to become the result of a tool.

use serde::Serialize;
use zo_traits::{Error, ErrorKind, Result, ToolOutput};

/// Any serializable value as the output of a tool: compact JSON for the model, the same as data for the host.
///
/// ```
/// use zo_skills::{Json, ToolOutput};
/// #[derive(serde::Serialize)]
/// struct Found { hits: u32 }
/// let out = ToolOutput::try_from(Json(Found { hits: 3 }))?;
/// assert_eq!(out.text, r#"{"hits":3}"#);
/// # Ok::<(), zo_skills::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> TryFrom<Json<T>> for ToolOutput {
    type Error = Error;

    /// Fails with [`ErrorKind::Invalid`] for what JSON cannot hold, such as a map whose keys are not text.
    fn try_from(Json(value): Json<T>) -> Result<Self> {
        match serde_json::to_value(value) {
            Ok(value) => Ok(value.into()),
            Err(e) => Err(Error::new(ErrorKind::Invalid, "skill.output", format_args!("not JSON: {e}"))),
        }
    }
}

/// What a skill function may return: `T`, `Json<S>`, `Result<T, E>` or `Result<Json<S>, E>`, where `T: Into<ToolOutput>`
/// (text, numbers, `bool`, `()`, JSON), `S: Serialize` and `E: Into<Error>`.
///
/// `Kind` only tells the four apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "a skill cannot return `{Self}`",
    label = "neither `Into<ToolOutput>` nor a `Result` of it with `E: Into<zo Error>`",
    note = "return text, a number, `()`, `serde_json::Value`, `ToolOutput`, `Json(..)` of something serializable, or a `Result` of these"
)]
pub trait IntoToolResult<Kind> {
    /// The result as the caller of a tool gets it.
    ///
    /// # Errors
    /// The function's own, or that its value cannot be put as JSON.
    fn into_tool_result(self) -> Result<ToolOutput>;
}

/// Tells the shapes of [`IntoToolResult`] apart.
#[doc(hidden)]
#[allow(missing_debug_implementations, unnameable_types)]
pub mod kind {
    pub struct Plain;
    pub struct AsJson;
    pub struct Fallible<K>(std::marker::PhantomData<K>);
}

// The message above says more than the list of what `ToolOutput` is made from, which differs from one build to the next.
#[diagnostic::do_not_recommend]
impl<T: Into<ToolOutput>> IntoToolResult<kind::Plain> for T {
    fn into_tool_result(self) -> Result<ToolOutput> {
        Ok(self.into())
    }
}

impl<T: Serialize> IntoToolResult<kind::AsJson> for Json<T> {
    fn into_tool_result(self) -> Result<ToolOutput> {
        self.try_into()
    }
}

impl<T: IntoToolResult<K>, E: Into<Error>, K> IntoToolResult<kind::Fallible<K>> for Result<T, E> {
    fn into_tool_result(self) -> Result<ToolOutput> {
        self.map_err(Into::into)?.into_tool_result()
    }
}
