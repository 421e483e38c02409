use zo_skills::skill;

struct Opaque;

/// Returns something that is no output.
#[skill(crate = zo_skills)]
fn opaque() -> Opaque {
    Opaque
}

fn main() {}
