use zo_skills::skill;

#[skill(crate = zo_skills)]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

fn main() {}
