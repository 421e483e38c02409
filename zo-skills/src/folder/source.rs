//! A `SKILL.md` as bytes: read within bounds, decoded, and cut into frontmatter and body.

use super::{Problem, Rule};
use std::{
    fs::{self, File},
    io::{ErrorKind as Io, Read},
    path::{Path, PathBuf},
};

/// Most bytes of a `SKILL.md`.
pub(crate) const MAX_FILE: u64 = 1024 * 1024;
/// Most bytes of its frontmatter.
pub(crate) const MAX_FRONTMATTER: usize = 64 * 1024;

/// A `SKILL.md`, decoded and cut. Line ends are `\n`.
pub(crate) struct Source {
    text: String,
    /// Byte ranges within `text`.
    front: std::ops::Range<usize>,
    body: usize,
    /// Line of the file on which the frontmatter's first line stands, from 1.
    pub(crate) first_line: usize,
    pub(crate) warnings: Vec<(Rule, &'static str)>,
}

impl Source {
    pub(crate) fn front(&self) -> &str {
        self.text.get(self.front.clone()).unwrap_or_default()
    }

    pub(crate) fn body(&self) -> &str {
        self.text.get(self.body..).unwrap_or_default()
    }
}

/// The `SKILL.md` of a folder, in whatever case its name is written.
pub(crate) fn find(dir: &Path) -> Result<PathBuf, Problem> {
    let usual = dir.join("SKILL.md");
    if fs::symlink_metadata(&usual).is_ok() {
        return Ok(usual);
    }
    let names = fs::read_dir(dir).into_iter().flatten().filter_map(|e| Some(e.ok()?.file_name()));
    let mut like_it: Vec<_> = names.filter(|n| n.eq_ignore_ascii_case("SKILL.md")).collect();
    like_it.sort();
    match like_it.first() {
        Some(name) => Ok(dir.join(name)),
        None if dir.is_dir() => {
            let say = "there is no SKILL.md in this folder: add one, or take the folder off the list";
            Err(Problem::new(dir, None, Rule::NotFound, say))
        }
        None => Err(Problem::new(dir, None, Rule::NotFound, "there is no such folder: check the path")),
    }
}

/// Where `dir` really is. Found once, when a skill is loaded: a folder that is later replaced by a link to another place is not
/// the skill that was loaded.
pub(crate) fn home(dir: &Path) -> Result<PathBuf, Problem> {
    dir.canonicalize().map_err(|e| unreadable(dir, &e))
}

fn unreadable(file: &Path, e: &std::io::Error) -> Problem {
    match e.kind() {
        Io::NotFound => {
            let say = "the file is gone: restore it, or take the skill off the list";
            Problem::new(file, None, Rule::NotFound, say)
        }
        _ => Problem::new(file, None, Rule::Io, format_args!("cannot be read ({e}): check its permissions")),
    }
}

/// Reads a `SKILL.md`, which must be a regular file inside `home`.
pub(crate) fn read(home: &Path, file: &Path) -> Result<Source, Problem> {
    let bad = |rule, say: &str| Problem::new(file, None, rule, say);
    let io = |e: std::io::Error| unreadable(file, &e);
    let real = file.canonicalize().map_err(io)?;
    if !real.starts_with(home) {
        return Err(bad(
            Rule::SymlinkEscape,
            "the link leads out of the skill's folder: put the file itself into the folder",
        ));
    }
    // Opening a pipe would wait for a writer, so the kind is looked at first.
    let meta = fs::metadata(&real).map_err(io)?;
    if !meta.is_file() {
        return Err(bad(Rule::NotAFile, "SKILL.md must be an ordinary file"));
    }
    let too_large = || {
        bad(
            Rule::TooLarge,
            "larger than 1 MiB: move details into files beside it, which are read only when needed",
        )
    };
    if meta.len() > MAX_FILE {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // Bounded again: it may grow while it is read.
    File::open(&real).map_err(io)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(too_large());
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        Problem::new(file, Some(line), Rule::Encoding, "not UTF-8: save the file as UTF-8")
    })?;
    cut(text).map_err(|(line, rule, say)| Problem::new(file, line, rule, say))
}

type Cut = (Option<usize>, Rule, &'static str);

/// Cuts a decoded file into frontmatter and body.
pub(crate) fn cut(mut text: String) -> Result<Source, Cut> {
    let mut warnings = Vec::new();
    if let Some(at) = text.find('\0') {
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        return Err((Some(line), Rule::NulByte, "holds a NUL byte: remove it, or save the file as UTF-8"));
    }
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
        warnings.push((Rule::Bom, "begins with a byte order mark: save it as UTF-8 without one"));
    }
    if text.contains('\r') {
        text = text.replace("\r\n", "\n").replace('\r', "\n");
        warnings.push((Rule::Crlf, "has Windows line ends: save it with LF"));
    }
    let lead = text.len() - text.trim_start().len();
    let mut first_line = 2;
    if lead > 0 {
        first_line += text.get(..lead).unwrap_or_default().matches('\n').count();
        text.drain(..lead);
        warnings.push((Rule::LeadingWhitespace, "begins with blank lines: let `---` be its first line"));
    }
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').map(|line| {
        let start = at;
        at += line.len();
        (start, at, line.trim_end())
    });
    let front_start = match lines.next() {
        Some((_, end, "---")) => end,
        _ => {
            let say = "does not begin with a line `---`: write `---`, then `name:` and `description:` lines, then `---`";
            return Err((Some(1), Rule::NoFrontmatter, say));
        }
    };
    let Some((front_end, body, _)) = lines.find(|(_, _, line)| *line == "---" || *line == "...") else {
        let say =
            "the frontmatter has no end: close it with a line `---` (or wait until the file is written)";
        return Err((Some(first_line - 1), Rule::Unclosed, say));
    };
    if front_end - front_start > MAX_FRONTMATTER {
        let say =
            "the frontmatter is larger than 64 KiB: keep it short and move the rest below its closing `---`";
        return Err((Some(first_line - 1), Rule::FrontmatterTooLarge, say));
    }
    Ok(Source { front: front_start..front_end, body, text, first_line, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> (String, String, usize) {
        let s = cut(text.to_owned()).map_err(|e| format!("{e:?}")).unwrap();
        (s.front().to_owned(), s.body().to_owned(), s.first_line)
    }

    #[test]
    fn fences() {
        assert_eq!(ok("---\na: 1\n---\nbody\n"), ("a: 1\n".into(), "body\n".into(), 2));
        assert_eq!(ok("---  \na: |\n  ---\n  x\n...\t\nb"), ("a: |\n  ---\n  x\n".into(), "b".into(), 2));
        assert_eq!(ok("\u{feff}\r\n---\ra: 1\r\n---"), ("a: 1\n".into(), String::new(), 3));
        assert_eq!(ok("---\n---\n"), (String::new(), String::new(), 2));
        let rule = |t: &str| cut(t.to_owned()).err().map(|e| e.1);
        assert_eq!(rule("----\na: 1\n----\n"), Some(Rule::NoFrontmatter));
        assert_eq!(rule(""), Some(Rule::NoFrontmatter));
        assert_eq!(rule("---\nname: x\n"), Some(Rule::Unclosed));
        assert_eq!(rule("---\n ---\n"), Some(Rule::Unclosed), "an indented fence is no fence");
        assert_eq!(cut("---\na: b\n---\nx\0".into()).err().map(|e| e.0), Some(Some(4)));
    }
}
