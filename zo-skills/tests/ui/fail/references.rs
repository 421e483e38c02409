use zo_skills::skill;

/// Measures.
#[skill(crate = zo_skills)]
async fn measure(text: &str, bytes: &[u8], n: &u64, all: &mut Vec<u8>) -> usize {
    text.len()
}

/// Lends.
#[skill(crate = zo_skills)]
fn lend(text: String) -> &str {
    "x"
}

fn main() {}
