use zo_skills::skill;

/// No unit.
#[skill(timeout = "30", crate = zo_skills)]
fn a() {}

/// No time at all.
#[skill(timeout = 0, crate = zo_skills)]
fn b() {}

/// Not whole.
#[skill(timeout = 1.5, crate = zo_skills)]
fn c() {}

/// Another unit.
#[skill(timeout = "2 days", crate = zo_skills)]
fn d() {}

/// Longer than can be counted.
#[skill(timeout = "99999999999999999999h", crate = zo_skills)]
fn e() {}

/// Nobody gets in.
#[skill(max_parallel = 0, crate = zo_skills)]
fn f() {}

/// More than can be counted.
#[skill(max_parallel = 4294967296, crate = zo_skills)]
fn g() {}

/// A blank in a scope.
#[skill(scopes("files write"), crate = zo_skills)]
fn h() {}

/// Twice.
#[skill(scopes("a"), scopes("b"), crate = zo_skills)]
fn i() {}

fn main() {}
