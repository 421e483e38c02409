//! The names of the surrounding module are the user's own.
#![deny(warnings)]
#![allow(dead_code)]

mod user {
    pub struct Result;
    pub struct String;
    pub struct Vec;
    pub struct Option;
    pub struct Box;
    pub struct Ok;
    pub struct Some;
    pub trait Into {}
    pub trait Send {}
    pub trait Sync {}
    pub trait Clone {}
    pub mod std {}
    pub mod core {}
    pub mod serde {}
    pub mod schemars {}
    pub mod zo_core {}
    pub fn skill_fn() {}
    pub fn into_tool_result() {}

    /// Doubles.
    #[zo_skills::skill(crate = ::zo_skills)]
    pub async fn double(cx: ::zo_skills::Cx, n: i64, name: ::std::string::String) -> i64 {
        let _ = (cx, name);
        n * 2
    }

    /// Doubles, and may fail.
    #[zo_skills::skill(effect = "pure", crate = ::zo_skills)]
    pub fn fallible(n: i64, args: ::std::option::Option<i64>, call: i64) -> ::zo_skills::Result<i64> {
        ::zo_skills::Result::Ok(n * 2 + call + args.unwrap_or(0))
    }
}

/// Has an argument of its own name.
#[zo_skills::skill(crate = zo_skills)]
async fn weather(weather: String) -> String {
    weather
}

fn main() {
    let _ = weather();
    let _: zo_skills::FnSkill = user::double();
    let _: zo_skills::FnSkill = user::fallible();
}
