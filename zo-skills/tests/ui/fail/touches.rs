use zo_skills::skill;

/// No such parameter.
#[skill(writes("file", path = "pth"), crate = zo_skills)]
fn a(path: String, text: String) {
    let _ = (path, text);
}

/// No such parameter at the start of a pointer, and none at all.
#[skill(reads("account", arg = "/from/id"), crate = zo_skills)]
fn b() {}

/// Neither a path nor an argument.
#[skill(reads("file", file = "path"), crate = zo_skills)]
fn c(path: String) {
    let _ = path;
}

/// Without a kind.
#[skill(writes(path = "path"), crate = zo_skills)]
fn d(path: String) {
    let _ = path;
}

/// Of an empty kind.
#[skill(writes(""), crate = zo_skills)]
fn e() {}

/// Two in one.
#[skill(writes("file", path = "a", path = "b"), crate = zo_skills)]
fn f(a: String, b: String) {
    let _ = (a, b);
}

/// Not a text.
#[skill(writes("file", path = path), crate = zo_skills)]
fn g(path: String) {
    let _ = path;
}

/// Beside a default.
#[skill(writes("file", path = "pat"), crate = zo_skills)]
fn h(#[serde(default)] path: String) {
    let _ = path;
}

fn main() {}
