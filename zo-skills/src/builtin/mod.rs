//! Skills that every agent can use, offline and without permission.

mod arithmetic;
mod calculator;
mod number;

pub use calculator::calculator;
