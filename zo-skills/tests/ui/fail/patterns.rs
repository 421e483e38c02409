use zo_skills::{Cx, skill};

/// Takes a tuple apart.
#[skill(crate = zo_skills)]
async fn pair((a, b): (i64, i64), _: u8, ref c: u8) -> i64 {
    a + b
}

/// Context in the wrong place.
#[skill(crate = zo_skills)]
async fn late(a: i64, cx: Cx) -> i64 {
    a
}

fn main() {}
