//! Everything in a message that could become an argument, found once and then handed out by [`super::fill`].

pub(super) mod date;
pub(super) mod expression;
pub(super) mod literal;
pub(super) mod number;
pub(super) mod span;

use super::words::Text;
use date::{Day, When};
use expression::Expression;
use literal::Literal;
use number::Number;
use span::{Look, Span};

/// What a message holds.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) text: Text<'a>,
    pub(super) whens: Vec<When>,
    pub(super) numbers: Vec<Number>,
    pub(super) spans: Vec<Span>,
    /// Which tokens stand in quotation marks, the marks included.
    pub(super) quoted: Vec<bool>,
    /// Lists and objects in brackets, as JSON or Python write them.
    pub(super) literals: Vec<Literal>,
    pub(super) expression: Option<Expression>,
    /// The little words are those of another language than English.
    pub(super) foreign: bool,
}

/// A message that stands in quotation marks as a whole, without them.
fn unquoted(message: &str) -> &str {
    let inner = message.trim().strip_prefix('"').and_then(|m| m.strip_suffix('"'));
    inner.filter(|m| !m.contains('"') && m.contains(' ')).unwrap_or(message)
}

/// Little words of German, French, Spanish, Portuguese, Italian, Dutch, Indonesian, Vietnamese and Turkish that English
/// has not.
const FOREIGN: &str = "der die das den dem ein eine einen und ist sind nicht ich mir mich du wie wo für mit auf von zu \
    wird kann bitte le les des est une dans pour je vous nous avec sur qui quel quelle el los las una que por para con \
    como está es cuál dónde quiero o os um uma não em como você il lo gli che di per sono della vorrei het een van voor \
    naar hoe niet yang dan di ini itu saya untuk dengan apakah berapa ada bisa tôi của là và có cho một không bir ve bu \
    için nasıl nerede";

/// Is a message in another language that is written in Latin letters?
fn is_foreign(text: &Text<'_>) -> bool {
    let (mut foreign, mut english) = (0usize, 0usize);
    for i in 0..text.tokens.len().min(60) {
        let word = text.word(i);
        let stop = text.tokens.get(i).is_some_and(|t| t.mark.is_none() && t.stop);
        english += usize::from(stop);
        let lower = word.to_lowercase();
        foreign += usize::from(!stop && FOREIGN.split_whitespace().any(|w| w == lower));
    }
    foreign >= 2 && foreign > english
}

impl<'a> Evidence<'a> {
    /// Reads `message`; `today` is the day that the conversation states for today.
    pub(super) fn new(message: &'a str, today: Option<Day>) -> Self {
        let text = Text::new(unquoted(message));
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
        let mut quoted = vec![false; text.tokens.len()];
        for span in spans.iter().filter(|s| s.look == Look::Quoted) {
            let from = span.from.saturating_sub(1);
            quoted.iter_mut().take(span.to + 1).skip(from).for_each(|q| *q = true);
        }
        let literals = literal::find(&text);
        let expression = expression::find(text.full);
        let foreign = is_foreign(&text);
        Self { text, whens, numbers, spans, quoted, literals, expression, foreign }
    }
}
