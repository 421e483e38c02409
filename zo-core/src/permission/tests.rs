//! What an attacker would try, one by one, and laws over arbitrary rules and arguments.

use super::{
    pattern::glob,
    scope::{self, integration},
    *,
};
use Verdict::{Allow, Ask, Deny};
use proptest::prelude::*;
use serde_json::json;
use std::path::{Component, Path, PathBuf};

fn tool(name: &str, scopes: &[&str]) -> ToolSpec {
    let spec = ToolSpec::new(name, "", json!({"type": "object"}));
    scopes.iter().fold(spec, |spec, &s| spec.scope(s))
}

fn verdict(p: &Permissions, args: Value) -> Verdict {
    p.decide(&tool("t", &[]), Some(&args))
}

/// What is allowed only when the condition surely holds, and what is denied when it may.
fn both(arg: Arg, args: &Value) -> (Verdict, Verdict) {
    let allow = Permissions::default().otherwise(Ask).rule(Rule::allow().when(arg.clone()));
    let deny = Permissions::default().rule(Rule::deny().when(arg));
    (verdict(&allow, args.clone()), verdict(&deny, args.clone()))
}

/// True, false, or unclear: then neither allowed nor let through.
const YES: (Verdict, Verdict) = (Allow, Deny);
const NO: (Verdict, Verdict) = (Ask, Allow);
const UNCLEAR: (Verdict, Verdict) = (Ask, Deny);

#[test]
fn the_strictest_rule_wins_in_whatever_order() {
    let spec = tool("shell", &[scope::SHELL_EXECUTE]);
    let rules = [Rule::allow(), Rule::ask().tool("sh*"), Rule::deny().scope("shell:*")];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let p = order.iter().fold(Permissions::default(), |p, &i| p.rule(rules[i].clone()));
        assert_eq!(p.decide(&spec, Some(&json!({}))), Deny);
        assert_eq!(p.decide(&tool("show", &[]), Some(&json!({}))), Ask);
        assert_eq!(p.decide(&tool("add", &[]), Some(&json!({}))), Allow);
    }
}

#[test]
fn presets_hold_what_they_say() {
    assert_eq!(scope::ALL.len(), 19);
    let held = |preset| -> Vec<&str> {
        let p = Permissions::preset(preset);
        let all = scope::ALL.iter().copied();
        all.filter(|s| p.decide(&tool("t", &[s]), None) == Allow).collect()
    };
    assert_eq!(held(Preset::AllAccess).len(), 19);
    assert_eq!(
        held(Preset::Workspace).join(" "),
        "files:read files:write web:search web:browse media:generate media:transcribe settings:read hosting:read \
         commerce:read"
    );
    assert_eq!(held(Preset::ReadOnly).join(" "), "files:read web:search settings:read");
    assert!(held(Preset::ChatOnly).is_empty());
    let pure = tool("add", &[]).effect(Effect::Pure);
    assert_eq!(Permissions::preset(Preset::ChatOnly).decide(&pure, None), Deny, "no tools at all");
    assert_eq!(Permissions::preset(Preset::ReadOnly).decide(&pure, None), Allow);
    let mail = tool("mail", &[&integration("gmail")]);
    assert_eq!(Permissions::preset(Preset::Workspace).decide(&mail, None), Deny);
    let with = Permissions::preset(Preset::Workspace).scope(integration("gmail"));
    assert_eq!(with.decide(&mail, None), Allow);
    assert_eq!(with.decide(&tool("linear", &[&integration("linear")]), None), Deny);
}

#[test]
fn to_write_is_to_read_and_not_the_other_way() {
    let p = Permissions::default().scopes([scope::FILES_WRITE, scope::HOSTING_MANAGE, scope::COMMERCE_READ]);
    for (needed, want) in [
        ("files:read", Allow),
        ("files:write", Allow),
        ("hosting:read", Allow),
        ("commerce:read", Allow),
        ("commerce:manage", Deny),
        ("settings:read", Deny),
        ("files:delete", Deny),
        ("files", Deny),
        ("", Deny),
        (":read", Deny),
    ] {
        assert_eq!(p.decide(&tool("t", &[needed]), None), want, "{needed}");
    }
    assert_eq!(p.decide(&tool("t", &["files:read", "shell:execute"]), None), Deny, "all of them are needed");
    // Who may not read may not write either, for writing brings reading along.
    let blind = Permissions::default().rule(Rule::deny().scope(scope::FILES_READ));
    assert_eq!(blind.decide(&tool("t", &["files:write"]), None), Deny);
    // An allow of one scope is not one of the other that the tool needs as well.
    let some = Permissions::default().otherwise(Ask).rule(Rule::allow().scope("files:*"));
    assert_eq!(some.decide(&tool("t", &["files:write", "shell:execute"]), None), Ask);
    assert_eq!(some.decide(&tool("t", &["files:write", "files:read"]), None), Allow);
    assert_eq!(some.decide(&tool("t", &[]), None), Ask);
}

#[test]
fn no_rule_gives_a_scope_that_is_not_held() {
    let p = Permissions::preset(Preset::ReadOnly).rule(Rule::allow());
    let shell = tool("shell", &[scope::SHELL_EXECUTE]);
    assert_eq!(p.decide(&shell, None), Deny);
    assert_eq!(p.clone().ungranted(Ask).decide(&shell, None), Ask, "unless a person grants it for one call");
    let both = p.ungranted(Ask).rule(Rule::deny().tool("shell"));
    assert_eq!(both.decide(&shell, None), Deny);
}

#[test]
fn a_tool_that_hides_what_it_needs_gains_nothing() {
    let p = Permissions::preset(Preset::ReadOnly);
    let sly = tool("order_pizza", &[]);
    assert_eq!(p.decide(&sly, None), Deny);
    assert_eq!(p.clone().undeclared(Ask).decide(&sly, None), Ask);
    assert_eq!(
        p.rule(Rule::allow().tool("order_pizza")).decide(&sly, None),
        Allow,
        "the host vouches for it"
    );
    assert_eq!(Permissions::default().decide(&sly, None), Allow);
}

#[test]
fn a_child_never_gets_more_than_its_parent() {
    let parent = Arc::new(Permissions::preset(Preset::ReadOnly).rule(Rule::ask().scope("web:*")));
    let child = Permissions::default().rule(Rule::allow()).within(parent.clone());
    assert_eq!(child.decide(&tool("t", &[scope::SHELL_EXECUTE]), None), Deny);
    assert_eq!(child.decide(&tool("t", &[scope::WEB_SEARCH]), None), Ask);
    assert_eq!(child.decide(&tool("t", &[scope::FILES_READ]), None), Allow);
    let own = Permissions::default().rule(Rule::deny().scope("files:*")).within(parent);
    let outermost = Arc::new(Permissions::default().rule(Rule::deny().tool("x")));
    let deep = own.within(outermost);
    assert_eq!(deep.decide(&tool("t", &[scope::FILES_READ]), None), Deny);
    assert_eq!(deep.decide(&tool("t", &[scope::WEB_SEARCH]), None), Ask, "those in between still hold");
    assert_eq!(deep.decide(&tool("x", &[scope::SETTINGS_READ]), None), Deny);
}

#[test]
fn only_what_can_never_be_allowed_is_taken_off_the_offer() {
    let shell = tool("shell", &[]);
    let offer = |p: Permissions| p.decide(&shell, None);
    assert_eq!(offer(Permissions::default().rule(Rule::deny().when(Arg::text("c", "rm*")))), Allow);
    assert_eq!(offer(Permissions::default().rule(Rule::deny().unless(Arg::command("c", "ls")))), Allow);
    assert_eq!(offer(Permissions::default().rule(Rule::deny().when(Arg::text("c", "*")))), Deny);
    assert_eq!(offer(Permissions::default().rule(Rule::deny())), Deny);
    assert_eq!(offer(Permissions::default().rule(Rule::ask())), Ask);
    let list = Permissions::default().otherwise(Deny).rule(Rule::allow().when(Arg::text("c", "ls")));
    assert_eq!(offer(list.clone()), Allow, "there are arguments that are allowed");
    assert_eq!(list.decide(&tool("shell", &[]), Some(&json!({"c": "rm"}))), Deny);
    assert_eq!(offer(Permissions::default().otherwise(Deny)), Deny);
    let some = Permissions::default().otherwise(Deny).rule(Rule::ask().when(Arg::text("c", "ls*")));
    assert_eq!(offer(some.clone()), Ask, "some calls may be asked for");
    assert_eq!(offer(some.rule(Rule::deny().when(Arg::text("c", "rm*")))), Ask);
}

#[test]
fn an_argument_that_is_not_there_or_not_text_is_unclear() {
    let arg = || Arg::text("to", "ada");
    assert_eq!(both(arg(), &json!({"to": "ada"})), YES);
    assert_eq!(both(arg(), &json!({"to": "eve"})), NO);
    for odd in [
        json!({}),
        json!({"to": null}),
        json!({"to": 7}),
        json!({"to": {"name": "eve"}}),
        json!({"to": []}),
        json!({"To": "ada"}),
        json!({"to": [["ada"]]}),
        json!([]),
        json!("ada"),
        json!({"to": ["ada", "eve"]}),
    ] {
        assert_eq!(both(arg(), &odd), UNCLEAR, "{odd}");
    }
    assert_eq!(both(arg(), &json!({"to": ["ada", "ada"]})), YES, "each item of a list");
    assert_eq!(both(arg(), &json!({"to": ["bob", "eve"]})), NO);
    for gone in [json!({}), json!({"to": null})] {
        assert_eq!(both(arg().or_missing(), &gone), (Allow, Allow));
    }
    assert_eq!(both(arg().or_missing(), &json!({"to": 7})), UNCLEAR);
    // For who fears it, case and surrounding space make no difference; for who trusts it, they do.
    assert_eq!(both(arg(), &json!({"to": " ADA"})), UNCLEAR);
}

#[test]
fn pointers_reach_into_lists() {
    let arg = || Arg::path("/edits/*/path", "/srv/*");
    let at = |paths: &[&str]| json!({"edits": paths.iter().map(|p| json!({"path": p})).collect::<Vec<_>>()});
    assert_eq!(both(arg(), &at(&["/srv/a", "/srv/b"])), YES);
    assert_eq!(both(arg(), &at(&["/srv/a", "/etc/passwd"])), UNCLEAR);
    assert_eq!(both(arg(), &at(&["/etc/passwd"])), NO);
    assert_eq!(both(arg(), &at(&[])), UNCLEAR);
    assert_eq!(both(arg(), &json!({"edits": [{"path": "/srv/a"}, {}]})), UNCLEAR);
    assert_eq!(both(Arg::text("/a~1b/0", "x"), &json!({"a/b": ["x"]})), YES);
    assert_eq!(both(Arg::text("/a/1", "x"), &json!({"a": ["x"]})), UNCLEAR);
}

#[test]
fn paths_cannot_be_talked_out_of_a_folder() {
    let arg = || Arg::path_in("/home/me", "path", "work/*");
    let at = |path: &str| both(arg(), &json!({"path": path}));
    for inside in
        ["work/a", "/home/me/work/a", "work/./a//b", "work/x/../a", "./work/a", "/home/me/../me/work/a"]
    {
        assert_eq!(at(inside), YES, "{inside}");
    }
    for outside in [
        "/etc/passwd",
        "work/../../you/a",
        "work/../keys/id",
        "/home/me/work/../../../etc/passwd",
        "workshop/a",
        "../me/works/a",
        "/home/me/work2/a",
        "//etc/passwd",
        "/srv/a",
        "work\\..\\..\\..\\etc\\passwd",
    ] {
        assert_eq!(at(outside), NO, "{outside}");
    }
    for unclear in [
        "work",
        "/home/me/",
        "/",
        ".",
        "/home/me/work/..",
        "WORK/a",
        "etc\\..\\work\\a",
        "work/x\\..\\..\\keys",
        "~/work/a",
        "work/$HOME/a",
        "work/$(id)",
        "work/`id`",
        "work/%2e%2e/keys",
        "work/{a,../../x}",
        "work/a\0.txt",
        "work/a\n",
        " work/a",
        "",
        "file:///etc/passwd",
        "work/../file://x",
        "FILE:/etc/passwd",
        "C:work",
    ] {
        assert_eq!(at(unclear), UNCLEAR, "{unclear:?}");
    }
}

#[test]
fn without_a_base_relative_and_absolute_are_not_compared() {
    let at = |pattern: &str, path: &str| both(Arg::path("p", pattern), &json!({"p": path}));
    assert_eq!(at("/etc/*", "etc/passwd"), UNCLEAR, "the current folder may be /");
    assert_eq!(at("keys/*", "/home/me/keys/id"), UNCLEAR);
    assert_eq!(at("keys/*", "../me/keys/id"), UNCLEAR);
    assert_eq!(at("keys/*", "keys/id"), YES);
    assert_eq!(at("keys/*", "docs/id"), NO);
    assert_eq!(at("*.pem", "/any/where.pem"), YES);
    assert_eq!(at("*.pem", "../x.pem"), UNCLEAR);
    assert_eq!(at("*.pem", "."), NO);
    assert_eq!(at("C:\\work\\*", "c:/work/a"), UNCLEAR);
    assert_eq!(at("C:\\work\\*", "C:\\work\\a"), UNCLEAR, "a backslash may be a letter");
    assert_eq!(at("C:/work/*", "C:/work/a"), YES);
    assert_eq!(at("C:/work/*", "C:/work/../etc"), NO);
}

#[test]
fn a_folder_is_what_is_in_it() {
    let deny = |path: &str| both(Arg::path("p", "/etc/ssl/*"), &json!({"p": path})).1;
    for path in ["/", "/etc", "/etc/", "/etc/ssl", "/etc/ssl/k", "/x/../etc", "/ETC/SSL/K"] {
        assert_eq!(deny(path), Deny, "{path}");
    }
    for path in ["/et", "/etc/sslx", "/etc/ss", "/home"] {
        assert_eq!(deny(path), Allow, "{path}");
    }
}

#[test]
fn a_command_is_one_plain_command() {
    let at = |pattern: &str, command: &str| both(Arg::command("c", pattern), &json!({"c": command}));
    assert_eq!(at("git status", "git status"), YES);
    assert_eq!(at("git status", "git  status "), YES);
    assert_eq!(at("git *", "git log v1.2 src/lib.rs"), YES);
    assert_eq!(at("git *", "gitx log"), NO);
    assert_eq!(at("ls -* *", "ls -la src"), YES);
    for trick in [
        "git status; rm -rf /",
        "git status && sh",
        "git status || sh",
        "git status | sh",
        "git status & sh",
        "git status\nsh",
        "git status\r\nsh",
        "git status\u{2028}sh",
        "git $(sh)",
        "git `sh`",
        "git status > /etc/passwd",
        "git <(sh)",
        "git 'status'",
        "git \"status\"",
        "git st\\atus",
        "git ${IFS}sh",
        "git {status,sh}",
        "git status #",
        "git !!",
        "git ~/x",
        "git *",
        "git status\0",
        "\tgit status",
        "git diff ../../etc/passwd",
        "git diff a/../../b",
        "git x=../y",
        "git ѕtatus",
    ] {
        assert_eq!(at("git *", trick), UNCLEAR, "{trick:?}");
    }
    for option in
        ["git -c core.pager=sh log", "git log --output=/etc/x", "git log -- x", "git --exec-path=/tmp x"]
    {
        assert_eq!(at("git *", option).0, Ask, "{option}");
    }
    assert_eq!(at("git *", &format!("git {}", "a ".repeat(2_000))), UNCLEAR);
    assert_eq!(at("ls", ""), UNCLEAR);
    assert_eq!(at("*", "FOO=1 sh").0, Allow, "a star is a star");
    assert_eq!(at("git *", "FOO=1 git status").0, Ask);
}

#[test]
fn a_denied_command_is_found_behind_others() {
    let deny = |command: &str| both(Arg::command("c", "rm *"), &json!({"c": command})).1;
    for command in [
        "rm x",
        "rm",
        "rm -rf /",
        "/bin/rm -rf x",
        "env rm x",
        "sudo -n /usr/bin/rm x",
        "RM x",
        "sh -c 'rm x'",
        "r\\m x",
        "true; rm x",
        "xargs rm",
        "busybox rm -r x",
    ] {
        assert_eq!(deny(command), Deny, "{command}");
    }
    assert_eq!(deny("ls rmdir"), Allow);
    assert_eq!(deny("cargo build"), Allow);
}

#[test]
fn the_list_of_commands_that_holds() {
    let p = Permissions::default().rule(
        Rule::ask()
            .scope(scope::SHELL_EXECUTE)
            .unless(Arg::command("command", "git status"))
            .unless(Arg::command("command", "cargo test *")),
    );
    let run = |args: Value| p.decide(&tool("shell", &[scope::SHELL_EXECUTE]), Some(&args));
    assert_eq!(run(json!({"command": "git status"})), Allow);
    assert_eq!(run(json!({"command": "cargo test budget"})), Allow);
    assert_eq!(run(json!({"command": "git status; sh -c evil"})), Ask);
    assert_eq!(run(json!({"command": ["git status", "rm -rf /"]})), Ask);
    assert_eq!(run(json!({"cmd": "git status"})), Ask);
    assert_eq!(run(json!({"command": {"text": "git status"}})), Ask);
    assert_eq!(p.decide(&tool("add", &[]), Some(&json!({}))), Allow);
}

#[test]
fn hosts_are_hosts() {
    let at = |pattern: &str, url: &str| both(Arg::host("url", pattern), &json!({"url": url}));
    for url in ["https://api.good.org/x?y#z", "HTTP://API.Good.org:8080", "https://a.b.good.org./"] {
        assert_eq!(at("*.good.org", url), YES, "{url}");
    }
    for url in [
        "https://evil.org/.good.org",
        "https://evil.org?.good.org",
        "https://evil.org#.good.org",
        "https://api.good.org.evil.org/",
        "https://xgood.org/",
        "https://good.org/",
    ] {
        assert_eq!(at("*.good.org", url), NO, "{url}");
    }
    for url in [
        "https://api.good.org@evil.org/",
        "https://evil.org\\.good.org/",
        "https://evil.org\t.good.org/",
        "https://[::1]/.good.org",
        "https://evil。org/.good.org",
        "//api.good.org/",
        "api.good.org",
        "javascript:alert(1)//x.good.org",
        "file://x.good.org/etc/passwd",
        "https:///x.good.org",
        "https://2130706433/",
        "https://127.1/",
        "https://0x7f.0.0.0x1/",
        "https://ev%69l.good.org/",
        " https://api.good.org/",
    ] {
        assert_eq!(at("*.good.org", url), UNCLEAR, "{url:?}");
    }
    assert_eq!(at("127.0.0.1", "http://127.0.0.1:80/"), YES);
    assert_eq!(at("127.0.0.1", "http://2130706433/"), UNCLEAR);
}

#[test]
fn values_are_compared_as_json() {
    let at = |want: Value, got: Value| both(Arg::value("v", want), &json!({"v": got}));
    assert_eq!(at(json!(true), json!(true)), YES);
    assert_eq!(at(json!(true), json!(false)), NO);
    assert_eq!(at(json!(true), json!("true")), UNCLEAR);
    assert_eq!(at(json!(1), json!(1.0)), UNCLEAR);
    assert_eq!(at(json!(1), json!(2)), NO);
    assert_eq!(at(json!({"a": 1, "b": 2}), serde_json::from_str(r#"{"b":2,"a":1}"#).unwrap()), YES);
    assert_eq!(at(json!([1]), json!([1, 2])), UNCLEAR);
    assert_eq!(at(json!(null), json!(null)), YES);
    assert_eq!(both(Arg::value("v", true), &json!({})), UNCLEAR);
    assert_eq!(both(Arg::value("v", true).or_missing(), &json!({})), (Allow, Allow));
}

#[test]
fn as_json_it_is_strict() {
    let p = Permissions::preset(Preset::ReadOnly)
        .rule(Rule::deny().tool("t*").when(Arg::path_in("/w", "path", "keys/*")).because("keys are private"))
        .rule(Rule::ask().scope("web:*").unless(Arg::host("url", "*.org").or_missing()))
        .rule(Rule::allow().when(Arg::text("a", "?")).when(Arg::value("n", 1)).when(Arg::command("c", "ls")));
    let want = json!({
        "scopes": ["files:read", "settings:read", "web:search"],
        "rules": [
            {"verdict": "deny", "tool": "t*", "because": "keys are private",
             "when": [{"at": "path", "is": {"path": {"pattern": "keys/*", "base": "/w"}}}]},
            {"verdict": "ask", "scope": "web:*",
             "unless": [{"at": "url", "is": {"host": "*.org"}, "optional": true}]},
            {"verdict": "allow", "when": [{"at": "a", "is": {"text": "?"}}, {"at": "n", "is": {"value": 1}},
             {"at": "c", "is": {"command": "ls"}}]},
        ],
        "otherwise": "allow", "ungranted": "deny", "undeclared": "deny",
    });
    assert_eq!(serde_json::to_value(&p).unwrap(), want);
    assert_eq!(serde_json::from_value::<Permissions>(want).unwrap(), p);
    assert_eq!(serde_json::from_str::<Permissions>("{}").unwrap(), Permissions::default());
    for bad in [
        r#"{"rule": []}"#,
        r#"{"rules": [{"verdict": "deny", "tools": "x"}]}"#,
        r#"{"rules": [{"verdict": "never"}]}"#,
        r#"{"rules": [{"tool": "x"}]}"#,
        r#"{"rules": [{"verdict": "deny", "when": [{"at": "a", "is": {"regex": "x"}}]}]}"#,
        r#"{"rules": [{"verdict": "deny", "when": [{"at": "a", "is": {"path": {"pattern": "x", "root": "/"}}}]}]}"#,
    ] {
        assert!(serde_json::from_str::<Permissions>(bad).is_err(), "{bad}");
    }
}

#[test]
fn rules_that_mean_nothing_are_reported_and_harmless() {
    let good =
        Permissions::preset(Preset::Workspace).rule(Rule::deny().tool("x").when(Arg::path("p", "/a/*")));
    good.check().unwrap();
    for bad in [
        Arg::text("", "x"),
        Arg::path("p", "/a/../b"),
        Arg::path_in("work", "p", "x"),
        Arg::command("c", "git status; ls"),
        Arg::host("u", "https://x.org"),
    ] {
        let p = Permissions::default().rule(Rule::allow()).rule(Rule::deny().tool("x").when(bad.clone()));
        let e = p.check().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
        assert!(e.message().starts_with("rule 2 (deny x)"), "{}", e.message());
        assert!(Permissions::default().within(Arc::new(p)).check().is_err());
    }
    let arg = Arg::path("p", "/a/../b");
    assert_eq!(both(arg, &json!({"p": "/b"})), UNCLEAR);
}

#[test]
fn the_reason_is_for_people_and_shows_no_argument() {
    let p = Permissions::preset(Preset::ReadOnly)
        .rule(Rule::ask().tool("mail").because("it is sent in your name"))
        .rule(Rule::ask().tool("m*"));
    let why = |spec: &ToolSpec| p.explain(spec, Some(&json!({"to": "secret@example.org"})));
    assert_eq!(why(&tool("mail", &[])), (Ask, "it is sent in your name".into()));
    assert_eq!(why(&tool("move", &[])), (Ask, "a rule says ask for m*".into()));
    let shell = tool("shell", &["shell:execute"]);
    assert_eq!(why(&shell), (Deny, "shell needs the scope shell:execute, which is not held".into()));
    let sly = why(&tool("x", &[]));
    assert_eq!(sly, (Deny, "x changes something and does not say which scopes it needs".into()));
    let pure = tool("add", &[]).effect(Effect::Pure);
    assert_eq!(why(&pure), (Allow, "no rule is about it, and the default is allow".into()));
}

#[test]
fn a_hostile_argument_costs_little() {
    let long = "a".repeat(1 << 20);
    let many = json!({"c": vec!["x"; 10_000], "t": long, "p": "../".repeat(100_000) + "x", "l": "a ".repeat(500_000)});
    let p = Permissions::default()
        .rule(Rule::deny().when(Arg::text("t", "*a*a*b")))
        .rule(Rule::deny().when(Arg::text("c", "y")))
        .rule(Rule::deny().when(Arg::path_in("/w", "p", "*b")))
        .rule(Rule::ask().when(Arg::command("l", "*b")));
    let start = std::time::Instant::now();
    assert_eq!(verdict(&p, many), Ask);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

fn args() -> impl Strategy<Value = Arg> {
    let is = prop_oneof![
        "[ab*?]{0,3}".prop_map(Test::Text),
        "(/?(a|b|\\*)){1,3}".prop_map(|pattern| Test::Path { pattern, base: None }),
        "(/?(a|b|\\*)){1,3}".prop_map(|pattern| Test::Path { pattern, base: Some("/a".into()) }),
        "(a|b|\\*|-a| ){1,4}".prop_map(Test::Command),
        "(a|b|\\*|\\.){1,3}".prop_map(Test::Host),
        prop_oneof![Just(json!(1)), Just(json!(true)), Just(json!("a"))].prop_map(Test::Value),
    ];
    (prop_oneof![Just("x"), Just("/x"), Just("y"), Just("/y/*"), Just("/y/0")], is, any::<bool>())
        .prop_map(|(at, is, optional)| Arg { at: at.into(), is, optional })
}

fn rules() -> impl Strategy<Value = Rule> {
    let some = || prop::collection::vec(args(), 0..2);
    let tool = prop::option::of(prop_oneof![Just("t"), Just("*"), Just("u?"), Just("u")]);
    let scope = prop::option::of(prop_oneof![Just("files:*"), Just("files:read"), Just("web:*")]);
    let verdict = prop_oneof![Just(Allow), Just(Ask), Just(Deny)];
    (verdict, tool, scope, some(), some()).prop_map(|(verdict, tool, scope, when, unless)| Rule {
        verdict,
        tool: tool.map(Into::into),
        scope: scope.map(Into::into),
        when,
        unless,
        because: None,
    })
}

fn calls() -> impl Strategy<Value = Value> {
    let one = || {
        prop_oneof![
            "[ab/. -]{0,5}".prop_map(Value::from),
            "https?://[ab.]{1,4}(/a)?".prop_map(Value::from),
            Just(json!(1)),
            Just(json!(1.0)),
            Just(Value::Null),
            Just(json!(["a", "b"])),
            Just(json!([])),
            Just(json!({"a": "b"})),
        ]
    };
    (prop::option::of(one()), prop::option::of(one())).prop_map(|(x, y)| {
        let fields = [("x", x), ("y", y)];
        Value::Object(fields.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect())
    })
}

fn permissions() -> impl Strategy<Value = Permissions> {
    let verdict = || prop_oneof![Just(Allow), Just(Ask), Just(Deny)];
    let scopes = prop::option::of(prop::collection::btree_set("(files|web):(read|write)", 0..3));
    (scopes, prop::collection::vec(rules(), 0..5), verdict(), verdict(), verdict()).prop_map(
        |(scopes, rules, otherwise, ungranted, undeclared)| Permissions {
            scopes,
            rules,
            otherwise,
            ungranted,
            undeclared,
            within: None,
        },
    )
}

fn tools() -> impl Strategy<Value = ToolSpec> {
    (
        prop_oneof![Just("t"), Just("u"), Just("ux")],
        prop::collection::vec("(files|web):(read|write)", 0..3),
        any::<bool>(),
    )
        .prop_map(|(name, scopes, pure)| {
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            tool(name, &scopes).effect(if pure { Effect::Pure } else { Effect::AtMostOnce })
        })
}

/// Another way to say what `*` and `?` mean.
fn slow_glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), None) => slow_glob(rest, text),
        (Some(('*', rest)), Some((_, behind))) => slow_glob(rest, text) || slow_glob(pattern, behind),
        (Some((p, rest)), Some((t, behind))) => (*p == '?' || p == t) && slow_glob(rest, behind),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_call_fares_better_than_the_offer(p in permissions(), spec in tools(), call in calls()) {
        prop_assert!(p.decide(&spec, Some(&call)) >= p.decide(&spec, None));
    }

    #[test]
    fn what_surely_holds_may_hold(arg in args(), call in calls()) {
        let arg = Arg { optional: false, ..arg };
        prop_assert!(!arg.surely(&call) || arg.may(&call));
    }

    #[test]
    fn order_is_of_no_matter(p in permissions(), spec in tools(), call in calls(), turn in 0..5usize) {
        let mut other = p.clone();
        other.rules.reverse();
        let n = turn.min(other.rules.len());
        other.rules.rotate_left(n);
        prop_assert_eq!(other.decide(&spec, Some(&call)), p.decide(&spec, Some(&call)));
        prop_assert_eq!(other.decide(&spec, None), p.decide(&spec, None));
    }

    /// One more deny or ask never makes anything more allowed.
    #[test]
    fn restrictions_only_restrict(p in permissions(), rule in rules(), spec in tools(), call in calls()) {
        let before = p.decide(&spec, Some(&call));
        let strict = Rule { verdict: Deny, ..rule.clone() };
        let after = p.clone().rule(strict.clone()).decide(&spec, Some(&call));
        prop_assert!(after >= before);
        if strict.applies(&spec, Some(&call)) { prop_assert_eq!(after, Deny); }
        let outer = Arc::new(p.clone());
        let inner = Permissions::default().rule(rule);
        let both = inner.decide(&spec, Some(&call)).max(before);
        prop_assert_eq!(inner.within(outer).decide(&spec, Some(&call)), both);
    }

    /// One more scope never forbids anything.
    #[test]
    fn scopes_only_give(p in permissions(), spec in tools(), call in calls(), scope in "(files|web):(read|write)") {
        let more = p.clone().scope(scope);
        prop_assert!(more.decide(&spec, Some(&call)) <= p.decide(&spec, Some(&call)));
    }

    #[test]
    fn json_keeps_it(p in permissions(), spec in tools(), call in calls()) {
        let back: Permissions = serde_json::from_slice(&serde_json::to_vec(&p).unwrap()).unwrap();
        prop_assert_eq!(back.decide(&spec, Some(&call)), p.decide(&spec, Some(&call)));
        prop_assert_eq!(back, p);
    }

    #[test]
    fn globs_mean_what_they_say(pattern in "[ab*?é]{0,8}", text in "[abé]{0,10}") {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        prop_assert_eq!(glob(&pattern, &text), slow_glob(&chars(&pattern), &chars(&text)));
    }

    /// Against the standard library's reading of a path: nothing outside is allowed, nothing inside is let through.
    #[test]
    fn no_spelling_leaves_the_folder(path in "(/|\\./|\\.\\./|w/|home/|a|\\\\|\\.\\.|W|//){1,9}") {
        let mut real = PathBuf::from("/");
        for part in Path::new("/home").join(&path).components() {
            match part {
                Component::ParentDir => drop(real.pop()),
                Component::Normal(name) => real.push(name),
                _ => {}
            }
        }
        let inside = real.starts_with("/home/w") && real != Path::new("/home/w");
        let (allow, deny) = both(Arg::path_in("/home", "p", "w/*"), &json!({"p": path}));
        prop_assert!(allow != Allow || inside, "{path} is {real:?}");
        prop_assert!(deny != Allow || !inside, "{path} is {real:?}");
    }

    /// Whatever is allowed goes through a shell as the words that it is written as.
    #[test]
    fn what_is_allowed_is_plain(command in "git( [-a-z;&|$()'\"\\\\\n>*./=]{1,5}){0,3}") {
        let (allow, _) = both(Arg::command("c", "git *"), &json!({"c": command}));
        if allow == Allow {
            prop_assert!(!command.contains([';', '&', '|', '$', '(', ')', '\'', '"', '\\', '\n', '>', '*']));
            prop_assert!(command.split(' ').all(|w| !w.starts_with('-') && w.split('/').all(|p| p != "..")));
        }
    }
}
