//! Skills that every agent can use, offline and without permission.

mod arithmetic;
mod calculator;
mod number;

pub use calculator::calculator;

/// [`calculator`]'s parser, for the fuzz targets alone.
///
/// # Errors
/// What is wrong with the expression.
#[cfg(fuzzing)]
pub fn calculate(text: &str) -> Result<String, String> {
    arithmetic::evaluate(text).map_err(|e| e.to_string())
}
