//! What is wrong with a skill folder, where, and how to fix it.

use std::{
    fmt,
    path::{Path, PathBuf},
};
use zo_traits::{Error, ErrorKind};

/// Something wrong with a skill folder: where it is, which rule it breaks and what to do about it.
///
/// `Display` is `path:line: [rule] message`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file or folder.
    pub path: PathBuf,
    /// Line in it, from 1, where one can be named.
    pub line: Option<usize>,
    /// The rule that is broken.
    pub rule: Rule,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(path: &Path, line: Option<usize>, rule: Rule, message: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": [{}] {}", self.rule, self.message)
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let kind = match problem.rule {
            Rule::NotFound => ErrorKind::NotFound,
            Rule::SymlinkEscape => ErrorKind::Denied,
            Rule::Io => ErrorKind::Unavailable,
            Rule::DuplicateName => ErrorKind::Conflict,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, "skill.load", &problem).with_source(problem)
    }
}

macro_rules! rules {
    ($($(#[$meta:meta])* $variant:ident = $code:literal,)*) => {
        /// A rule that a skill folder can break. The first group keeps a skill from loading, the second only warns.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule { $($(#[$meta])* $variant,)* }

        impl Rule {
            /// Its stable code, e.g. `DESC_MISSING`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

rules! {
    /// There is no such folder, or no `SKILL.md` in it.
    NotFound = "NOT_FOUND",
    /// The file system refused.
    Io = "IO",
    /// `SKILL.md` is a pipe, a device or a folder.
    NotAFile = "NOT_A_FILE",
    /// A symbolic link leads out of the folder.
    SymlinkEscape = "SYMLINK_ESCAPE",
    /// `SKILL.md` is larger than 1 MiB.
    TooLarge = "TOO_LARGE",
    /// Not UTF-8.
    Encoding = "ENCODING",
    /// Holds a NUL byte.
    NulByte = "NUL_BYTE",
    /// Does not begin with a line `---`.
    NoFrontmatter = "NO_FRONTMATTER",
    /// The frontmatter has no end: perhaps the file is still being written.
    Unclosed = "UNCLOSED",
    /// The frontmatter is larger than 64 KiB.
    FrontmatterTooLarge = "FRONTMATTER_TOO_LARGE",
    /// The frontmatter is not YAML and could not be repaired.
    InvalidYaml = "INVALID_YAML",
    /// The frontmatter is not a list of `key: value` lines.
    NotMapping = "NOT_MAPPING",
    /// No description, by which a model could choose the skill.
    DescMissing = "DESC_MISSING",
    /// Another skill of this name came first.
    DuplicateName = "DUPLICATE_NAME",
    /// A root holds more than may be looked through.
    TooMany = "TOO_MANY",

    /// The YAML was wrong but its meaning was clear.
    YamlRepaired = "YAML_REPAIRED",
    /// The YAML was wrong; only some of its fields could be read.
    YamlSalvaged = "YAML_SALVAGED",
    /// An alias or merge key was ignored.
    YamlAlias = "YAML_ALIAS",
    /// No name; the folder's stands in.
    NameFromDir = "NAME_FROM_DIR",
    /// The name is not the folder's.
    NameDirMismatch = "NAME_DIR_MISMATCH",
    /// The name has more than 64 characters.
    NameTooLong = "NAME_TOO_LONG",
    /// The name has upper case.
    NameUppercase = "NAME_UPPERCASE",
    /// The name has something other than letters, digits and single inner hyphens.
    NameBadChars = "NAME_BAD_CHARS",
    /// The description is not text.
    DescNotString = "DESC_NOT_STRING",
    /// The description has more than 1024 characters.
    DescTooLong = "DESC_TOO_LONG",
    /// Characters that a reader does not see but a model does.
    HiddenUnicode = "HIDDEN_UNICODE",
    /// A field that the specification does not know.
    UnknownField = "UNKNOWN_FIELD",
    /// Nothing after the frontmatter.
    EmptyBody = "EMPTY_BODY",
    /// Begins with a byte order mark.
    Bom = "BOM",
    /// Windows or old Macintosh line ends.
    Crlf = "CRLF",
    /// Blank lines before the frontmatter.
    LeadingWhitespace = "LEADING_WHITESPACE",
    /// More or longer triggers than are kept.
    TriggersCut = "TRIGGERS_CUT",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
