//! All skill folders below some roots.

use super::{Problem, Rule, SkillFolder, source};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};
use zo_traits::Skill;

/// How deep below a root a skill may lie: roots are laid out as `skills/`, `plugins/*/skills/`, `<owner>/<repo>/skills/`.
const MAX_DEPTH: usize = 8;
/// Most folders that are looked into below one root.
const MAX_FOLDERS: usize = 100_000;
/// Folders in which nobody keeps skills and which are large.
const SKIPPED: [&str; 4] = [".git", "node_modules", "target", "__pycache__"];

/// What [`load_skills`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Loaded {
    /// The skills, in the order of their roots, then of their paths. No two have one name.
    pub skills: Vec<SkillFolder>,
    /// What did not load, and why. [`SkillFolder::warnings`] has the rest.
    pub problems: Vec<Problem>,
}

/// Loads every skill folder at or below `roots`.
///
/// A folder with a `SKILL.md` is a skill and is not searched for further ones. Of two skills with one name the first
/// counts, in the order of the roots, and the other is a problem. Links are followed within their root only. Folders
/// `.git`, `node_modules`, `target` and `__pycache__` are passed over.
///
/// Reads the disk: call it before the host serves anybody, or on a blocking thread.
///
/// ```
/// # let tmp = tempfile::tempdir().unwrap();
/// # for (name, text) in [("a", "---\nname: a\ndescription: d\n---\n"), ("b", "half")] {
/// #     std::fs::create_dir(tmp.path().join(name)).unwrap();
/// #     std::fs::write(tmp.path().join(name).join("SKILL.md"), text).unwrap();
/// # }
/// # let root = tmp.path().to_owned();
/// let loaded = zo_skills::load_skills([root]);
/// for problem in &loaded.problems {
///     eprintln!("{problem}");
/// }
/// assert_eq!((loaded.skills.len(), loaded.problems.len()), (1, 1));
/// ```
pub fn load_skills(roots: impl IntoIterator<Item = PathBuf>) -> Loaded {
    let mut out = Loaded::default();
    let mut names: HashMap<String, PathBuf> = HashMap::new();
    let mut seen = HashSet::new();
    for root in roots {
        let mut search = Search { root: PathBuf::new(), seen: &mut seen, found: Vec::new(), looked: 0 };
        match root.canonicalize() {
            Ok(real) if real.is_dir() => {
                search.root = real;
                search.look(&root, 0, &mut out.problems);
            }
            _ => {
                let say = "there is no such folder: check the path, or take it off the list";
                out.problems.push(Problem::new(&root, None, Rule::NotFound, say));
            }
        }
        for dir in search.found {
            match SkillFolder::load(&dir) {
                Ok(skill) => {
                    let name = &skill.manifest().name;
                    if let Some(first) = names.get(name) {
                        let say = format!("`{name}` is already in {}: rename one of them", first.display());
                        out.problems.push(Problem::new(skill.file(), None, Rule::DuplicateName, say));
                        continue;
                    }
                    names.insert(name.clone(), dir);
                    out.skills.push(skill);
                }
                Err(problem) => out.problems.push(problem),
            }
        }
    }
    out
}

struct Search<'a> {
    root: PathBuf,
    /// Real paths that were looked into, so that links cannot lead in circles and no folder counts twice.
    seen: &'a mut HashSet<PathBuf>,
    found: Vec<PathBuf>,
    looked: usize,
}

impl Search<'_> {
    fn look(&mut self, dir: &Path, depth: usize, problems: &mut Vec<Problem>) {
        let real = match dir.canonicalize() {
            Ok(real) => real,
            Err(e) => return problems.push(io(dir, &e)),
        };
        if !real.starts_with(&self.root) {
            let say = "the link leads out of its root: add the folder that it leads to as a root of its own";
            return problems.push(Problem::new(dir, None, Rule::SymlinkEscape, say));
        }
        if !self.seen.insert(real) {
            return;
        }
        self.looked += 1;
        if self.looked > MAX_FOLDERS {
            if self.looked == MAX_FOLDERS + 1 {
                let say =
                    format!("more than {MAX_FOLDERS} folders: name the folders that hold the skills instead");
                problems.push(Problem::new(&self.root, None, Rule::TooMany, say));
            }
            return;
        }
        if source::find(dir).is_ok() {
            self.found.push(dir.to_owned());
            return;
        }
        if depth >= MAX_DEPTH {
            return;
        }
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) => return problems.push(io(dir, &e)),
        };
        let mut inside: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .filter(|e| !SKIPPED.iter().any(|s| e.file_name() == *s))
            .filter(|e| match e.file_type() {
                Ok(t) if t.is_symlink() => e.path().is_dir(),
                Ok(t) => t.is_dir(),
                Err(_) => false,
            })
            .map(|e| e.path())
            .collect();
        inside.sort();
        for dir in inside {
            self.look(&dir, depth + 1, problems);
        }
    }
}

fn io(path: &Path, e: &std::io::Error) -> Problem {
    Problem::new(path, None, Rule::Io, format_args!("cannot be read ({e}): check its permissions"))
}
