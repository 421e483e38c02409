//! The spellings under which a model may stand in the table, the likeliest first.
//!
//! Only what says nothing about the model is taken off an id: dates, version stamps, `latest`. `gpt-5-nano` is not `gpt-5`,
//! and four digits (`-2512`, `-0613`) are left alone, because at some providers they part generations of different price.

/// How often something is taken off.
const ROUNDS: usize = 3;
/// OpenRouter's variants: the same model under another price or with other limits.
const VARIANTS: [&str; 8] =
    [":batch", ":exacto", ":extended", ":floor", ":free", ":nitro", ":online", ":thinking"];

/// An id to look up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spelling<'a> {
    pub(super) id: &'a str,
    /// A mark that changes price and limits was taken off.
    pub(super) variant: bool,
}

/// The spellings of `model` at `provider`.
pub(super) fn spellings<'a>(provider: &str, model: &'a str) -> impl Iterator<Item = Spelling<'a>> {
    let bare = model
        .strip_prefix(provider)
        .and_then(|rest| rest.strip_prefix('/'))
        .or_else(|| model.strip_prefix("models/"))
        .filter(|rest| !rest.is_empty());
    let router = provider == "openrouter";
    [Some(model), bare].into_iter().flatten().flat_map(move |id| {
        std::iter::successors(Some(Spelling { id, variant: false }), move |s| shorter(*s, router))
            .take(1 + ROUNDS)
    })
}

fn shorter(from: Spelling<'_>, router: bool) -> Option<Spelling<'_>> {
    if router
        && let Some(id) = VARIANTS.iter().find_map(|v| from.id.strip_suffix(v)).filter(|id| !id.is_empty())
    {
        return Some(Spelling { id, variant: true });
    }
    unstamped(from.id).map(|id| Spelling { id, ..from })
}

/// `model` without the stamp at its end, if it has one.
fn unstamped(model: &str) -> Option<&str> {
    // The longest stamp, a date, has ten characters.
    let borders = model.char_indices().rev().take(11).filter(|(_, c)| matches!(c, '-' | '.' | ':' | '@'));
    borders
        .filter(|(at, border)| model.get(at + 1..).is_some_and(|rest| is_stamp(*border, rest)))
        .find_map(|(at, _)| model.get(..at).filter(|id| !id.is_empty()))
}

fn is_stamp(border: char, text: &str) -> bool {
    match text.as_bytes() {
        b"latest" => true,
        b"default" => border == '@',
        [b'0', b'0', b'1'..=b'9'] => true,
        [b'v', b'1'..=b'9', b':', b'0'..=b'9'] => true,
        [y @ .., b'-', m1, m2, b'-', d1, d2] => is_date(y, &[*m1, *m2], &[*d1, *d2]),
        [y1, y2, y3, y4, m1, m2, d1, d2] => is_date(&[*y1, *y2, *y3, *y4], &[*m1, *m2], &[*d1, *d2]),
        _ => false,
    }
}

fn is_date(year: &[u8], month: &[u8], day: &[u8]) -> bool {
    [year, month, day].iter().all(|part| part.iter().all(u8::is_ascii_digit))
        && matches!(year, [b'2', b'0', b'2' | b'3', _])
        && matches!(month, [b'0', b'1'..=b'9'] | [b'1', b'0'..=b'2'])
        && matches!(day, [b'0', b'1'..=b'9'] | [b'1' | b'2', _] | [b'3', b'0' | b'1'])
}
