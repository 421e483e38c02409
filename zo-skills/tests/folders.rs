//! Folders on a real disk: what loads, what is refused, and what it says.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, path::Path};
use zo_skills::{Cx, Error, ErrorKind, Rule, Skill, SkillFolder, load_skills};

fn error(dir: impl AsRef<Path>) -> Error {
    SkillFolder::load(dir).unwrap_err().into()
}

fn put(root: &Path, dir: &str, text: impl AsRef<[u8]>) {
    fs::create_dir_all(root.join(dir)).unwrap();
    fs::write(root.join(dir).join("SKILL.md"), text).unwrap();
}

fn skill(name: &str) -> String {
    format!("---\nname: {name}\ndescription: What {name} does.\n---\nDo {name}.\n")
}

fn rules(problems: &[zo_skills::Problem]) -> Vec<Rule> {
    problems.iter().map(|p| p.rule).collect()
}

#[test]
fn one_bad_folder_keeps_nothing_from_loading() {
    let tmp = tempfile::tempdir().unwrap();
    put(tmp.path(), "a", skill("a"));
    put(tmp.path(), "deep/er/b", skill("b"));
    put(tmp.path(), "half", "---\nname: half\ndescr");
    put(tmp.path(), "nul", "---\nname: nul\ndescription: a\0b\n---\n");
    put(tmp.path(), "latin", b"---\nname: latin\ndescription: caf\xe9\n---\n");
    put(tmp.path(), "plain", "# Just text\n");
    put(tmp.path(), "nodesc", "---\nname: nodesc\nlicense: MIT\n---\nx\n");
    put(tmp.path(), "large", "x".repeat(1024 * 1024 + 1));
    put(tmp.path(), "node_modules/c", skill("c"));
    put(tmp.path(), "a/nested", skill("nested"));
    fs::create_dir_all(tmp.path().join("dir/SKILL.md")).unwrap();

    let loaded = load_skills([tmp.path().to_owned(), tmp.path().join("absent")]);
    let names: Vec<_> = loaded.skills.iter().map(|s| s.manifest().name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    use Rule::*;
    let expected = [NotAFile, Unclosed, TooLarge, Encoding, DescMissing, NulByte, NoFrontmatter, NotFound];
    assert_eq!(rules(&loaded.problems), expected);
    let said: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert!(said[1].contains("half") && said[1].contains("SKILL.md:1: [UNCLOSED] "), "{}", said[1]);
    assert!(
        said[3].contains("SKILL.md:3: [ENCODING] ") && said[3].contains("save the file as UTF-8"),
        "{}",
        said[3]
    );
    assert!(said[5].contains("SKILL.md:3: [NUL_BYTE] "), "{}", said[5]);
}

#[test]
fn of_two_with_one_name_the_first_root_wins() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(one.path(), "x", skill("x"));
    put(two.path(), "x", skill("x").replace("What", "Not what"));
    put(two.path(), "y", skill("y"));
    let loaded = load_skills([one.path().to_owned(), two.path().to_owned()]);
    let found: Vec<_> = loaded.skills.iter().map(|s| s.manifest().description.as_str()).collect();
    assert_eq!(found, ["What x does.", "What y does."]);
    assert_eq!(rules(&loaded.problems), [Rule::DuplicateName]);
    assert!(loaded.problems[0].message.contains(&*one.path().join("x").to_string_lossy()));
    // One folder named twice is one skill, not two.
    let twice = load_skills([one.path().to_owned(), one.path().join("x"), one.path().join(".")]);
    assert_eq!((twice.skills.len(), twice.problems.len()), (1, 0));
}

#[cfg(unix)]
#[test]
fn links_stay_inside() {
    use std::os::unix::fs::symlink;
    let (tmp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(outside.path(), "secret", skill("secret"));
    fs::create_dir(tmp.path().join("leak")).unwrap();
    symlink(outside.path().join("secret/SKILL.md"), tmp.path().join("leak/SKILL.md")).unwrap();
    symlink(outside.path().join("secret"), tmp.path().join("out")).unwrap();
    symlink(tmp.path(), tmp.path().join("circle")).unwrap();
    put(tmp.path(), "real", skill("real"));
    symlink(tmp.path().join("real"), tmp.path().join("same")).unwrap();
    fs::create_dir(tmp.path().join("inner")).unwrap();
    fs::write(tmp.path().join("inner/text.md"), skill("inner")).unwrap();
    symlink("text.md", tmp.path().join("inner/SKILL.md")).unwrap();

    let loaded = load_skills([tmp.path().to_owned()]);
    let names: Vec<_> = loaded.skills.iter().map(|s| s.manifest().name.as_str()).collect();
    assert_eq!(names, ["inner", "real"]);
    assert_eq!(rules(&loaded.problems), [Rule::SymlinkEscape, Rule::SymlinkEscape], "{:?}", loaded.problems);
    let e = error(tmp.path().join("leak"));
    assert_eq!(e.kind(), ErrorKind::Denied);
    // A link that leads nowhere.
    fs::create_dir(tmp.path().join("gone")).unwrap();
    symlink("nowhere", tmp.path().join("gone/SKILL.md")).unwrap();
    assert_eq!(error(tmp.path().join("gone")).kind(), ErrorKind::NotFound);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_instead_of_waited_for() {
    let tmp = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo").arg(tmp.path().join("SKILL.md")).status();
    if !made.is_ok_and(|s| s.success()) {
        println!("skipped: no mkfifo here");
        return;
    }
    let e = error(tmp.path());
    assert!(e.to_string().contains("[NOT_A_FILE]"), "{e}");
}

#[tokio::test]
async fn the_body_is_read_when_asked_for() {
    let tmp = tempfile::tempdir().unwrap();
    put(tmp.path(), "x", skill("x"));
    let x = SkillFolder::load(tmp.path().join("x")).unwrap();
    assert!(x.tools().is_empty() && x.manifest().has_instructions);
    assert_eq!(x.instructions(&Cx::default()).await.unwrap(), "Do x.");
    put(tmp.path(), "x", skill("x").replace("Do x.", "\n\nDo it better.\n"));
    assert_eq!(x.instructions(&Cx::default()).await.unwrap(), "Do it better.");
    put(tmp.path(), "x", "---\nname: x\n");
    assert_eq!(x.instructions(&Cx::default()).await.unwrap_err().kind(), ErrorKind::Invalid);
    fs::remove_file(tmp.path().join("x/SKILL.md")).unwrap();
    assert_eq!(x.instructions(&Cx::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn errors_carry_kind_place_and_fix() {
    let tmp = tempfile::tempdir().unwrap();
    assert_eq!(error(tmp.path().join("none")).kind(), ErrorKind::NotFound);
    assert_eq!(error(tmp.path()).kind(), ErrorKind::NotFound);
    put(tmp.path(), "x", "---\nname: x\nmetadata:\n  - {a: [}\n---\n");
    let e = error(tmp.path().join("x"));
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert!(e.to_string().contains("[DESC_MISSING]") && e.to_string().contains("write `description:"), "{e}");
    put(tmp.path(), "y", "---\nname: y\ndescription: a: b\nlicense: @me\n---\n");
    let y = SkillFolder::load(tmp.path().join("y")).unwrap();
    let repaired: Vec<_> =
        y.warnings().iter().filter(|w| w.rule == Rule::YamlRepaired).map(|w| w.line).collect();
    assert_eq!(repaired, [Some(3), Some(4)]);
    assert_eq!(y.license(), Some("@me"));
}

#[test]
fn a_thousand_folders() {
    let tmp = tempfile::tempdir().unwrap();
    for n in 0..1000 {
        put(tmp.path(), &format!("s{n}"), skill(&format!("s{n}")) + &"text\n".repeat(1000));
    }
    let start = std::time::Instant::now();
    let loaded = load_skills([tmp.path().to_owned()]);
    println!("1000 skills of 5 KB: {:?}", start.elapsed());
    assert_eq!((loaded.skills.len(), loaded.problems.len()), (1000, 0));
}

#[cfg(unix)]
#[test]
fn a_folder_that_becomes_a_link_to_elsewhere_is_not_read() {
    let tmp = tempfile::tempdir().unwrap();
    let (mine, other) = (tmp.path().join("mine"), tmp.path().join("other"));
    for dir in [&mine, &other] {
        std::fs::create_dir(dir).unwrap();
        let name = dir.file_name().unwrap().to_str().unwrap();
        std::fs::write(dir.join("SKILL.md"), format!("---\nname: {name}\ndescription: d\n---\nof {name}\n"))
            .unwrap();
    }
    let skill = SkillFolder::load(&mine).unwrap();
    let read = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(skill.instructions(&Cx::default()))
    };
    assert_eq!(read().unwrap(), "of mine");
    std::fs::rename(&mine, tmp.path().join("away")).unwrap();
    std::os::unix::fs::symlink(&other, &mine).unwrap();
    assert_eq!(read().unwrap_err().kind(), ErrorKind::Denied);
}
