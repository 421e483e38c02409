use zo_skills::skill;

struct S;

impl S {
    /// Adds.
    #[skill(crate = zo_skills)]
    async fn add(&self, a: i64) -> i64 {
        a
    }
}

fn main() {}
