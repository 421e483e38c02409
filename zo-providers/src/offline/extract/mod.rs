//! Everything in a message that could become an argument, found once and then handed out by [`super::fill`].

pub(super) mod date;
pub(super) mod expression;
pub(super) mod number;
pub(super) mod span;

use super::words::Text;
use date::{Day, When};
use expression::Expression;
use number::Number;
use span::Span;

/// What a message holds.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) text: Text<'a>,
    pub(super) whens: Vec<When>,
    pub(super) numbers: Vec<Number>,
    pub(super) spans: Vec<Span>,
    pub(super) expression: Option<Expression>,
}

impl<'a> Evidence<'a> {
    /// Reads `message`; `today` is the day that the conversation states for today.
    pub(super) fn new(message: &'a str, today: Option<Day>) -> Self {
        let text = Text::new(message);
        let today = date::stated_today(&text).or(today);
        let whens = date::find(&text, today);
        let mut taken = vec![false; text.tokens.len()];
        for when in &whens {
            taken.iter_mut().take(when.to).skip(when.from).for_each(|t| *t = true);
        }
        let numbers = number::find(&text, &taken);
        for number in numbers.iter().filter(|n| n.weak) {
            taken.iter_mut().take(number.to).skip(number.from).for_each(|t| *t = true);
        }
        let spans = span::find(&text, &taken);
        let expression = expression::find(message);
        Self { text, whens, numbers, spans, expression }
    }
}
