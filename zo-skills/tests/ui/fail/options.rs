use zo_skills::skill;

/// Wrong effect.
#[skill(effect = "write", crate = zo_skills)]
fn a() {}

/// Wrong name.
#[skill(name = "no blanks", crate = zo_skills)]
fn b() {}

/// Unknown option.
#[skill(efect = "pure", crate = zo_skills)]
fn c() {}

/// Twice.
#[skill(serial, serial, crate = zo_skills)]
fn d() {}

/// Not text.
#[skill(triggers(pdf), crate = zo_skills)]
fn e() {}

/// A name that no provider takes.
#[skill(crate = zo_skills)]
fn größe() {}

/// Unsafe.
#[skill(crate = zo_skills)]
unsafe fn f() {}

fn main() {}
