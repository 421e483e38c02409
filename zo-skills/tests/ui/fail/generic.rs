use zo_skills::skill;

/// Shows anything.
#[skill(crate = zo_skills)]
async fn show<T: std::fmt::Debug>(it: T) -> String {
    format!("{it:?}")
}

/// Shows anything else.
#[skill(crate = zo_skills)]
async fn show_impl(it: impl std::fmt::Debug) -> String {
    format!("{it:?}")
}

/// Has a lifetime.
#[skill(crate = zo_skills)]
async fn borrow<'a>(it: &'a str) -> String {
    it.to_string()
}

fn main() {}
