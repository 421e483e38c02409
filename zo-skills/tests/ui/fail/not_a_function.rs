use zo_skills::skill;

/// A struct.
#[skill(crate = zo_skills)]
struct S;

fn main() {}
