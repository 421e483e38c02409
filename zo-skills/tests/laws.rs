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

mod attribute_with_touches {
    use zo_skills::skill;

    /// Copies a file.
    #[skill(
        effect = "idempotent",
        reads("file", path = "from"),
        writes("file", path = "to"),
        scopes("files:read", "files:write"),
        timeout = "30s",
        max_parallel = 4,
        crate = zo_skills
    )]
    fn copy(from: String, to: String) -> String {
        format!("{from} -> {to}")
    }

    zo_testkit::skill_laws!(async { copy() });
}

mod folder {
    use zo_skills::SkillFolder;

    const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/law");

    zo_testkit::skill_laws!(async { SkillFolder::load(DIR).unwrap() });
}

mod empty_folder {
    use zo_skills::SkillFolder;

    const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/empty");

    zo_testkit::skill_laws!(async { SkillFolder::load(DIR).unwrap() });
}

#[cfg(feature = "builtin")]
mod calculator {
    zo_testkit::skill_laws!(async { zo_skills::calculator() });
}
