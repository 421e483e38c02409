//! Files as an API takes them: under the type that they really have, and whole.
//!
//! A history keeps what tools and people gave: pictures with the wrong label, base64 in lines, links to nowhere. An API
//! refuses the whole conversation over one of these, and again each time that it is sent.

use std::borrow::Cow;
use zo_traits::{Error, ErrorKind, Media, MediaSource};

/// A file that can be sent.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    /// Media type, in lower case, without parameters, in its most common spelling.
    pub(crate) kind: Cow<'a, str>,
    pub(crate) source: Source<'a>,
}

#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Standard base64 with padding (RFC 4648, section 4), not empty.
    Bytes(Cow<'a, str>),
    /// An `http` or `https` URL.
    Link(&'a str),
}

/// What can be sent of `media`. `None` for what has no bytes and no link that a server could follow.
pub(crate) fn shown(media: &Media) -> Option<Shown<'_>> {
    let mut kind = kind(&media.media_type);
    let source = match &media.source {
        MediaSource::Base64(data) => Source::Bytes(base64(data)?),
        MediaSource::Url(url) => match url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")) {
            Some(_) => Source::Bytes(base64(url.split_once(";base64,")?.1)?),
            None if starts(url, "https://") || starts(url, "http://") => Source::Link(url),
            None => return None,
        },
        _ => return None,
    };
    if let (Source::Bytes(data), true) = (&source, kind.starts_with("image/"))
        && let Some(real) = picture(data)
    {
        kind = Cow::Borrowed(real);
    }
    Some(Shown { kind, source })
}

/// Why a file that the user sends now does not go to `who`.
pub(crate) fn refused(media: &Media, op: &'static str, who: &str) -> Error {
    let kind = &media.media_type;
    let why = match shown(media) {
        Some(_) => format!("{who} takes no {kind} here"),
        None => format!("the {kind} file is neither whole base64 nor a link that a server can follow"),
    };
    Error::new(ErrorKind::Unsupported, op, why)
}

/// Is it a picture by its label? One that is not taken is told of, even if it is asked about now: the model can say so.
pub(crate) fn is_picture(media: &Media) -> bool {
    starts(media.media_type.trim_start(), "image/")
}

/// Does an ASCII text begin so, in capitals or not?
pub(crate) fn starts(text: &str, with: &str) -> bool {
    text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

fn kind(media_type: &str) -> Cow<'_, str> {
    let bare = media_type.split(';').next().unwrap_or_default().trim();
    let bare = match bare.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(bare.to_ascii_lowercase()),
        false => Cow::Borrowed(bare),
    };
    match &*bare {
        "image/jpg" => Cow::Borrowed("image/jpeg"),
        "audio/x-wav" | "audio/wave" => Cow::Borrowed("audio/wav"),
        "audio/mp3" => Cow::Borrowed("audio/mpeg"),
        _ => bare,
    }
}

/// The kind of a picture by its first bytes, of those kinds that every API with eyes takes.
fn picture(base64: &str) -> Option<&'static str> {
    [("iVBORw0KGgo", "image/png"), ("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp")]
        .into_iter()
        .find(|(start, _)| base64.starts_with(start))
        .map(|(_, kind)| kind)
}

/// Base64 as the standard has it; white space between is taken out.
fn base64(data: &str) -> Option<Cow<'_, str>> {
    if is_base64(data) {
        return Some(Cow::Borrowed(data));
    }
    if !data.bytes().any(|b| b.is_ascii_whitespace()) {
        return None;
    }
    let joined: String = data.split_ascii_whitespace().collect();
    is_base64(&joined).then_some(Cow::Owned(joined))
}

fn is_base64(data: &str) -> bool {
    let digits = data.strip_suffix("==").or_else(|| data.strip_suffix('=')).unwrap_or(data);
    data.len().is_multiple_of(4)
        && !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}
