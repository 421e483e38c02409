//! Skills that are folders with a `SKILL.md`, as the [Agent Skills specification](https://agentskills.io/specification)
//! lays them out.
//!
//! Promises: a file with a readable description loads, whatever else is wrong with it, and says what is; a file beyond
//! repair is one [`Problem`] with its path, line, rule and fix, and keeps nothing else from loading; no file costs more
//! than its bounds (1 MiB, 64 KiB of frontmatter, 16 levels); nothing outside the folder is read; nothing is run.

mod card;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod problem;
mod repair;
mod set;
mod source;
mod yaml;

pub use problem::{Problem, Rule};
pub use set::{Loaded, load_skills};

use crate::fn_skill::no_such_tool;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use zo_traits::{
    Cx, Error, ErrorKind, Result, Skill, SkillManifest, ToolCall, ToolOutput, ToolSpec, async_trait,
};

/// A folder with a `SKILL.md`: instructions that a model is shown when it takes up the skill.
///
/// Loading reads the frontmatter; the body is read again from disk each time it is asked for, so an edit of it shows at once.
/// The folder's scripts are not run and offered as no tools.
///
/// ```
/// use zo_skills::{Skill, SkillFolder};
/// # let tmp = tempfile::tempdir().unwrap();
/// # let dir = tmp.path().join("pdf");
/// # std::fs::create_dir(&dir).unwrap();
/// # std::fs::write(dir.join("SKILL.md"), "---\nname: pdf\ndescription: Reads PDF files.\n---\nUse pdftotext.\n").unwrap();
/// let skill = SkillFolder::load(&dir)?;
/// assert_eq!(skill.manifest().description, "Reads PDF files.");
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(skill.instructions(&Default::default()).await?, "Use pdftotext.");
/// # Ok::<(), zo_skills::Error>(()) })?;
/// # Ok::<(), zo_skills::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SkillFolder {
    manifest: SkillManifest,
    dir: PathBuf,
    /// Where the folder really was when it was loaded.
    home: PathBuf,
    file: PathBuf,
    license: Option<String>,
    compatibility: Option<String>,
    allowed_tools: Vec<String>,
    warnings: Vec<Problem>,
}

impl SkillFolder {
    /// Loads the skill in `dir`.
    ///
    /// # Errors
    /// One [`Problem`], which `?` turns into an [`Error`]: [`ErrorKind::NotFound`] without a `SKILL.md`,
    /// [`ErrorKind::Denied`] when it is a link that leads out of the folder, [`ErrorKind::Invalid`] when it cannot be
    /// understood.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, Problem> {
        let dir = dir.as_ref();
        let file = source::find(dir)?;
        let home = source::home(dir)?;
        let source = source::read(&home, &file)?;
        let first_line = source.first_line;
        let at =
            |(rule, line, say): card::Finding| Problem::new(&file, line.map(|l| l + first_line), rule, say);
        let card = card::read(source.front(), &folder_name(dir)).map_err(at)?;
        let mut warnings: Vec<Problem> =
            source.warnings.iter().map(|(rule, say)| Problem::new(&file, Some(1), *rule, say)).collect();
        warnings.extend(card.warnings.into_iter().map(at));
        let mut manifest = card.manifest;
        manifest.has_instructions = !source.body().trim().is_empty();
        if !manifest.has_instructions {
            let say =
                "there is nothing after the frontmatter: write the instructions below its closing `---`";
            warnings.push(Problem::new(&file, None, Rule::EmptyBody, say));
        }
        Ok(Self {
            manifest,
            dir: dir.to_owned(),
            home,
            file,
            license: card.license,
            compatibility: card.compatibility,
            allowed_tools: card.allowed_tools,
            warnings,
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its `SKILL.md`.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The licence, as its author wrote it.
    pub fn license(&self) -> Option<&str> {
        self.license.as_deref()
    }

    /// What the skill needs around it, in its author's words.
    pub fn compatibility(&self) -> Option<&str> {
        self.compatibility.as_deref()
    }

    /// Tools that the author would like to see allowed, e.g. `Bash(git:*)`. A wish: it widens no policy.
    pub fn allowed_tools(&self) -> &[String] {
        &self.allowed_tools
    }

    /// What is wrong with the folder without keeping it from loading.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

#[async_trait]
impl Skill for SkillFolder {
    fn manifest(&self) -> &SkillManifest {
        &self.manifest
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        Arc::from([])
    }

    async fn instructions(&self, cx: &Cx) -> Result<String> {
        let home = self.home.clone();
        let file = home.join(self.file.file_name().unwrap_or_default());
        let read =
            move || source::read(&home, &file).map(|s| s.body().trim().to_owned()).map_err(Error::from);
        cx.race("skill.instructions", async move {
            // A disk may be slow; outside a runtime there is nobody to hold up.
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => match runtime.spawn_blocking(read).await {
                    Ok(text) => text,
                    Err(e) => Err(Error::new(ErrorKind::Unavailable, "skill.instructions", e)),
                },
                Err(_) => read(),
            }
        })
        .await?
        .map_err(|e| e.with_op("skill.instructions"))
    }

    async fn call(&self, _cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        Err(no_such_tool(&self.manifest.name, &call.name))
    }
}

/// The folder's own name, also of `.` and `..`.
fn folder_name(dir: &Path) -> String {
    let real = || dir.canonicalize().ok();
    let name = dir.file_name().map(|n| n.to_owned()).or_else(|| real()?.file_name().map(|n| n.to_owned()));
    name.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}
