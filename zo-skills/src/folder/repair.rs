//! One repair pass over frontmatter that is not YAML, for what people really write.
//!
//! The text is cut into fields, one per line that begins with `key:` in the first column. A field that is YAML by itself
//! is taken as it is; each other one is tried again with tabs as spaces and with its later lines indented, then, when it
//! has fields of its own, field by field, and at last as the plain text after its colon. So one bad line costs at most
//! its own field.

use super::yaml;
use serde_json::{Map, Value};

/// What could be read, and the lines, from 0, that needed a repair.
pub(crate) struct Repaired {
    pub(crate) fields: Map<String, Value>,
    pub(crate) repaired: Vec<usize>,
    /// Lines that were given up.
    pub(crate) dropped: Vec<usize>,
}

/// Most pieces that are tried as YAML. Nobody writes as many fields; a hostile text ends here.
const MAX_TRIES: usize = 1024;

/// Repairs `text`.
pub(crate) fn repair(text: &str) -> Repaired {
    let mut out = Repaired { fields: Map::new(), repaired: Vec::new(), dropped: Vec::new() };
    let mut tries = MAX_TRIES;
    for field in fields(text) {
        if tries == 0 {
            out.dropped.push(field.line);
            break;
        }
        field.read(0, &mut tries, &mut out);
    }
    out
}

/// A line with a key in the first column and the lines that belong to it.
struct Field<'a> {
    line: usize,
    lines: Vec<&'a str>,
}

impl Field<'_> {
    fn read(&self, depth: usize, tries: &mut usize, out: &mut Repaired) {
        let text = self.lines.join("\n");
        if take_yaml(&text, tries, out) {
            return;
        }
        out.repaired.push(self.line);
        let first = self.lines.first().copied().unwrap_or_default();
        let rest = self.lines.get(1..).unwrap_or_default();
        // Tabs as two spaces, and later lines deeper than the key.
        let indented: Vec<String> = rest.iter().map(|l| format!("  {}", untab(l))).collect();
        let tidy = format!("{}\n{}", untab(first), indented.join("\n"));
        if take_yaml(&tidy, tries, out) {
            return;
        }
        let Some((key, value)) = key_of(first) else {
            out.dropped.push(self.line);
            return;
        };
        if value.is_empty() && depth < yaml::MAX_DEPTH {
            let inner = dedent(rest);
            let parts = fields(&inner);
            if !parts.is_empty() && parts.iter().all(|f| f.lines.first().is_some_and(|l| key_of(l).is_some()))
            {
                let mut nested = Repaired { fields: Map::new(), repaired: Vec::new(), dropped: Vec::new() };
                for part in parts {
                    part.read(depth + 1, tries, &mut nested);
                }
                let shift = |l: usize| l + self.line + 1;
                out.repaired.extend(nested.repaired.into_iter().map(shift));
                out.dropped.extend(nested.dropped.into_iter().map(shift));
                out.fields.insert(key.to_owned(), Value::Object(nested.fields));
                return;
            }
        }
        let words: Vec<&str> =
            std::iter::once(block_header(value)).chain(rest.iter().copied()).map(str::trim).collect();
        let text = words.join(" ");
        let text = unquote(text.trim());
        out.fields.insert(
            key.to_owned(),
            if text.is_empty() { Value::Null } else { Value::String(text.to_owned()) },
        );
    }
}

/// Takes the fields of `text` if it is YAML.
fn take_yaml(text: &str, tries: &mut usize, out: &mut Repaired) -> bool {
    let Some(left) = tries.checked_sub(1) else { return false };
    *tries = left;
    match yaml::parse(text) {
        Ok(yaml::Yaml { value: Value::Object(map), .. }) => {
            out.fields.extend(map);
            true
        }
        // A comment or nothing at all.
        Ok(yaml::Yaml { value: Value::Null, .. }) => true,
        _ => false,
    }
}

/// Cuts a text into fields. Lines before the first key are fields of their own.
fn fields(text: &str) -> Vec<Field<'_>> {
    let mut out: Vec<Field<'_>> = Vec::new();
    let mut open_quote = None;
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if let (Some(quote), Some(field)) = (open_quote, out.last_mut()) {
            field.lines.push(line);
            if line.trim_end().ends_with(quote) {
                open_quote = None;
            }
            continue;
        }
        let starts = key_of(line).is_some();
        match out.last_mut() {
            Some(field) if !starts => field.lines.push(line),
            None if !starts && key_of(line.trim_start()).is_none() => {
                if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
                    out.push(Field { line: at, lines: vec![line] });
                }
            }
            _ => {
                let line = if starts { line } else { line.trim_start() };
                out.push(Field { line: at, lines: vec![line] });
                let rest = lines.get(at + 1..).unwrap_or_default();
                open_quote = key_of(line).and_then(|(_, value)| quote_left_open(value, rest));
            }
        }
    }
    out
}

/// The quote that opens `value` and closes only at the end of one of the next lines.
fn quote_left_open(value: &str, rest: &[&str]) -> Option<char> {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if value.matches(quote).count() != 1 {
        return None;
    }
    let close = rest.iter().take(MAX_QUOTED_LINES).find(|l| l.contains(quote))?;
    close.trim_end().ends_with(quote).then_some(quote)
}

/// How far a quote is followed: a bound, so that many open quotes do not cost the square of the text.
const MAX_QUOTED_LINES: usize = 64;

/// `key: value` in the first column.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let fits = !key.is_empty() && key.len() <= 64 && key.chars().all(plain) && !key.starts_with('-');
    let value = value.trim_end();
    (fits && (value.is_empty() || value.starts_with([' ', '\t']))).then(|| (key, value.trim_start()))
}

fn untab(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let (blank, rest) = line.split_at(indent);
    format!("{}{rest}", blank.replace('\t', "  "))
}

fn dedent(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|l| untab(l)).collect();
    let indent = |l: &String| l.len() - l.trim_start().len();
    let common = lines.iter().filter(|l| !l.trim().is_empty()).map(indent).min().unwrap_or(0);
    let cut: Vec<&str> = lines.iter().map(|l| l.get(common..).unwrap_or_default()).collect();
    cut.join("\n")
}

/// Drops the `|` or `>` of a block scalar whose block is wrong.
fn block_header(value: &str) -> &str {
    match value.strip_prefix(['|', '>']) {
        Some(rest) if rest.chars().all(|c| matches!(c, '+' | '-') || c.is_ascii_digit()) => "",
        _ => value,
    }
}

fn unquote(text: &str) -> &str {
    ['"', '\''].into_iter().find_map(|q| text.strip_prefix(q).and_then(|t| t.strip_suffix(q))).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixed(text: &str) -> Value {
        Value::Object(repair(text).fields)
    }

    #[test]
    fn what_people_write() {
        for (bad, good) in [
            ("d: Use when: asked", json!({"d": "Use when: asked"})),
            ("d: @mention first", json!({"d": "@mention first"})),
            ("d: `code` first", json!({"d": "`code` first"})),
            ("d: %d things", json!({"d": "%d things"})),
            ("d: **Bold** start", json!({"d": "**Bold** start"})),
            ("d: [beta] tool", json!({"d": "[beta] tool"})),
            ("d: \"He said \"hi\" loudly\"", json!({"d": "He said \"hi\" loudly"})),
            ("m:\n\ta: x\n\tb: y: z", json!({"m": {"a": "x", "b": "y: z"}})),
            ("m:\n  a: x: y\n  l:\n    - 1", json!({"m": {"a": "x: y", "l": ["1"]}})),
            ("d: a: b\nsecond line\nn: x", json!({"d": "a: b second line", "n": "x"})),
            ("d: \"first: 1\nn: not a field\"\nn: x", json!({"d": "first: 1 n: not a field", "n": "x"})),
            (" n: x\nd: y", json!({"n": "x", "d": "y"})),
            ("d: >\nnot: indented: text\nn: x", json!({"d": "", "not": "indented: text", "n": "x"})),
            ("# c\nd: x\n- y: : [\nn: z", json!({"d": "x - y: : [", "n": "z"})),
        ] {
            assert_eq!(fixed(bad), good, "{bad}");
        }
    }

    #[test]
    fn one_bad_line_costs_one_field() {
        let r = repair("name: a\n}}}\ndescription: fine\nx: {{ y }}: z");
        assert_eq!(r.fields["description"], "fine");
        assert_eq!(r.fields["x"], "{{ y }}: z");
        assert_eq!(r.repaired, [0, 3]);
        assert!(repair("}}} nonsense\n").fields.is_empty());
        assert_eq!(repair("}}} nonsense\n").dropped, [0]);
    }

    #[test]
    fn hostile_text_costs_little() {
        let lines = [
            "a: \"x\n",
            "a: [\n",
            "a:\n b:\n",
            "a: {\n",
            "\t",
            "a: 'b\n\n",
            "- - - - \n",
            "? a\n",
            "a: &x *y\n",
        ];
        let mut texts: Vec<String> = lines.iter().map(|l| l.repeat(64 * 1024 / l.len())).collect();
        for end in [": :\n", ":\n", ": \"\n"] {
            texts.push((0..350).map(|n| format!("{}a{end}", " ".repeat(n))).collect());
        }
        for text in texts {
            let start = std::time::Instant::now();
            let (fine, fixed) = (yaml::parse(&text).is_ok(), repair(&text));
            let start_of_text = text.chars().take(12).collect::<String>();
            println!("{start_of_text:?}: {fine}, {} fields, {:?}", fixed.fields.len(), start.elapsed());
            assert!(fixed.repaired.len() <= MAX_TRIES && fixed.dropped.len() <= MAX_TRIES);
            // Without optimisation, on a busy machine; optimised it is a tenth of that.
            assert!(start.elapsed().as_millis() < 2000, "{start_of_text:?}: {:?}", start.elapsed());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends_without_a_panic(text in "(?s)([a-c]: |[\\[\\]{}:\"'|>&*!%@`#,?-]|\n|\t| |[a-zé🦀]){0,80}") {
            let fixed = repair(&text);
            proptest::prop_assert!(fixed.fields.len() <= text.len());
            // What is YAML by itself as a mapping needs no repair.
            if let Ok(yaml::Yaml { value: Value::Object(_), .. }) = yaml::parse(&text) {
                let _ = crate::folder::card::read(&text, "dir").is_ok();
            }
        }

        #[test]
        fn any_file_ends_without_a_panic(text in "(?s)(---\n|\r|\n|\t|\\.\\.\\.|name: |description: |[:x -]){0,60}") {
            let _ = crate::folder::source::cut(text).map(|s| {
                let _ = crate::folder::card::read(s.front(), "dir").is_ok();
            }).is_ok();
        }
    }
}
