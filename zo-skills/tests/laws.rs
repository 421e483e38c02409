//! The laws of a skill over every kind that this crate makes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod closure {
    use zo_skills::{Effect, skill_fn};

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Args {
        text: String,
        times: Option<u8>,
    }

    zo_testkit::skill_laws!(async {
        skill_fn("echo", "Says it again.", |_cx, Args { text, times }| async move {
            Ok(text.repeat(times.unwrap_or(1).into()))
        })
        .effect(Effect::Pure)
        .triggers(["again", "repeat"])
    });
}

mod closure_of_a_list {
    zo_testkit::skill_laws!(async {
        zo_skills::skill_fn(
            "sum up",
            "Adds numbers.",
            |_cx, n: Vec<i64>| async move { Ok(n.iter().sum::<i64>()) },
        )
    });
}

mod attribute {
    use zo_skills::{Cx, Result, skill};

    /// Adds two integers.
    #[skill(effect = "pure", crate = zo_skills)]
    async fn add(_cx: Cx, a: i64, b: i64) -> Result<i64> {
        Ok(a + b)
    }

    zo_testkit::skill_laws!(async { add() });
}

mod folder {
    use zo_skills::SkillFolder;

    fn make() -> SkillFolder {
        // Left in the temporary folder of the machine: the laws read it after this returns.
        let dir = tempfile::Builder::new().prefix("law-").disable_cleanup(true).tempdir().unwrap();
        let text =
            "---\nname: law\ndescription: A skill.\ntriggers: [a, b]\nmetadata: {x: {y: 1}}\n---\n# Do\n";
        std::fs::write(dir.path().join("SKILL.md"), text).unwrap();
        SkillFolder::load(dir.path()).unwrap()
    }

    zo_testkit::skill_laws!(async { make() });
}

mod empty_folder {
    use zo_skills::SkillFolder;

    fn make() -> SkillFolder {
        let dir = tempfile::Builder::new().prefix("law-").disable_cleanup(true).tempdir().unwrap();
        std::fs::write(dir.path().join("SKILL.md"), "---\ndescription: A skill.\n---\n").unwrap();
        SkillFolder::load(dir.path()).unwrap()
    }

    zo_testkit::skill_laws!(async { make() });
}

#[cfg(feature = "builtin")]
mod calculator {
    zo_testkit::skill_laws!(async { zo_skills::calculator() });
}
