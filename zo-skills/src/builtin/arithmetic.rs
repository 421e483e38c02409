//! Arithmetic as people and models write it, in symbols and in English words.
//!
//! ```text
//! sum      = term (("+" | "-") term)*              a + 10% is a tenth more than a
//! term     = sign (("*" | "/" | "%" | of)? sign)*   no sign between them multiplies: 2 pi, 3(4 + 5)
//! sign     = ("-" | "+" | square root of | half of) sign | power
//! power    = postfix ("^" sign)?                    binds to the right, and closer than a minus before it
//! postfix  = primary (percent | squared | cubed | degrees)*
//! primary  = number | pi | e | function "(" sum ("," sum)* ")" | "(" sum ")"
//! ```
//! A comma followed by three digits groups thousands, except between the parentheses of a function, where it divides
//! arguments. Text is at most [`MAX_CHARS`] long and [`MAX_DEPTH`] deep.

use super::number::Num;
use std::fmt;

const MAX_CHARS: usize = 1000;
const MAX_DEPTH: usize = 64;

/// What is wrong and at which character, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    at: usize,
    say: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at character {})", self.say, self.at)
    }
}

type Result<T> = std::result::Result<T, Mistake>;

fn wrong<T>(at: usize, say: impl Into<String>) -> Result<T> {
    Err(Mistake { at, say: say.into() })
}

#[derive(Debug, Clone, Copy)]
enum Token {
    Number(Num),
    Function(&'static str),
    /// `+ - * / % ^ ( ) ,` as themselves; `o` of, `p` percent, `2` squared, `3` cubed, `d` degrees, `r` square root of,
    /// `c` cube root of, `h` half of, `m` mod.
    Sign(char),
}

/// Phrases of the language, longer ones first where one begins another.
const WORDS: [(&str, Token); 44] = [
    ("raised to the power of", Token::Sign('^')),
    ("to the power of", Token::Sign('^')),
    ("raised to", Token::Sign('^')),
    ("multiplied by", Token::Sign('*')),
    ("divided by", Token::Sign('/')),
    ("square root of", Token::Sign('r')),
    ("cube root of", Token::Sign('c')),
    ("half of", Token::Sign('h')),
    ("plus", Token::Sign('+')),
    ("add", Token::Sign('+')),
    ("minus", Token::Sign('-')),
    ("negative", Token::Sign('-')),
    ("times", Token::Sign('*')),
    ("x", Token::Sign('*')),
    ("over", Token::Sign('/')),
    ("modulo", Token::Sign('m')),
    ("mod", Token::Sign('m')),
    ("percent", Token::Sign('p')),
    ("of", Token::Sign('o')),
    ("squared", Token::Sign('2')),
    ("cubed", Token::Sign('3')),
    ("degrees", Token::Sign('d')),
    ("deg", Token::Sign('d')),
    ("pi", Token::Number(Num::Float(std::f64::consts::PI))),
    ("π", Token::Number(Num::Float(std::f64::consts::PI))),
    ("e", Token::Number(Num::Float(std::f64::consts::E))),
    ("sqrt", Token::Function("sqrt")),
    ("cbrt", Token::Function("cbrt")),
    ("abs", Token::Function("abs")),
    ("round", Token::Function("round")),
    ("floor", Token::Function("floor")),
    ("ceil", Token::Function("ceil")),
    ("min", Token::Function("min")),
    ("max", Token::Function("max")),
    ("ln", Token::Function("ln")),
    ("log", Token::Function("log")),
    ("exp", Token::Function("exp")),
    ("sin", Token::Function("sin")),
    ("cos", Token::Function("cos")),
    ("tan", Token::Function("tan")),
    ("asin", Token::Function("asin")),
    ("acos", Token::Function("acos")),
    ("atan", Token::Function("atan")),
    ("pow", Token::Function("pow")),
];

/// Polite words before the sum itself.
const OPENINGS: [&str; 8] =
    ["what is", "what's", "how much is", "calculate", "compute", "evaluate", "work out", "the result of"];

/// Works out `text`.
pub(crate) fn evaluate(text: &str) -> Result<String> {
    let chars: Vec<char> = text.chars().take(MAX_CHARS + 1).flat_map(char::to_lowercase).collect();
    if chars.len() > MAX_CHARS {
        return wrong(MAX_CHARS, format!("longer than {MAX_CHARS} characters"));
    }
    let tokens = Lexer { chars: &chars, at: 0, parens: Vec::new(), out: Vec::new() }.run()?;
    let mut parser = Parser { tokens, next: 0, depth: 0, end: chars.len() + 1 };
    let result = parser.sum()?;
    match parser.peek() {
        None => Ok(result.to_string()),
        Some(Token::Sign(')')) => wrong(parser.at(), "a `)` without its `(`"),
        Some(_) => wrong(parser.at(), "an operator is missing"),
    }
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    /// For each open parenthesis: does it belong to a function?
    parens: Vec<bool>,
    out: Vec<(usize, Token)>,
}

impl Lexer<'_> {
    fn char(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn run(mut self) -> Result<Vec<(usize, Token)>> {
        loop {
            self.blanks();
            match OPENINGS.iter().find_map(|o| self.phrase(o)) {
                Some(after) => self.at = after,
                None => break,
            }
        }
        while let Some(c) = self.char(0) {
            let at = self.at;
            let token = match c {
                '0'..='9' | '.' => Some(Token::Number(self.number()?)),
                c if c.is_alphabetic() => self.word()?,
                c => {
                    self.at += 1;
                    self.symbol(c)?
                }
            };
            self.out.extend(token.map(|t| (at + 1, t)));
        }
        Ok(self.out)
    }

    /// The token of a symbol that has just been passed; none for what may be ignored.
    fn symbol(&mut self, c: char) -> Result<Option<Token>> {
        let sign = match c {
            c if c.is_whitespace() => return Ok(None),
            '=' | '?'
                if self.chars.iter().skip(self.at).all(|c| matches!(c, '=' | '?') || c.is_whitespace()) =>
            {
                return Ok(None);
            }
            '*' if self.char(0) == Some('*') => {
                self.at += 1;
                '^'
            }
            '(' => {
                self.parens.push(matches!(self.out.last(), Some((_, Token::Function(_)))));
                c
            }
            ')' => {
                self.parens.pop();
                c
            }
            '+' | '-' | '/' | '%' | '^' | ',' => c,
            '*' | '×' | '·' | '⋅' | '∙' | '•' => '*',
            '÷' | '∕' => '/',
            '−' | '–' | '—' => '-',
            '√' => 'r',
            '²' => '2',
            '³' => '3',
            '°' => 'd',
            c => return wrong(self.at, format!("`{c}` means nothing here")),
        };
        Ok(Some(Token::Sign(sign)))
    }

    fn blanks(&mut self) {
        while self.char(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn digits(&mut self, into: &mut String) {
        while let Some(c) = self.char(0).filter(|c| c.is_ascii_digit() || *c == '_') {
            if c != '_' {
                into.push(c);
            }
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<Num> {
        let start = self.at;
        let mut text = String::new();
        self.digits(&mut text);
        let in_function = self.parens.last() == Some(&true);
        let group = |l: &Self| {
            l.char(0) == Some(',')
                && (1..=3).all(|n| l.char(n).is_some_and(|c| c.is_ascii_digit()))
                && !l.char(4).is_some_and(|c| c.is_ascii_digit())
        };
        if !in_function && (1..=3).contains(&text.len()) {
            while group(self) {
                self.at += 1;
                self.digits(&mut text);
            }
        }
        if self.char(0) == Some('.') {
            text.push('.');
            self.at += 1;
            self.digits(&mut text);
        }
        let exponent = match (self.char(0), self.char(1), self.char(2)) {
            (Some('e'), Some('+' | '-'), Some(c)) if c.is_ascii_digit() => 2,
            (Some('e'), Some(c), _) if c.is_ascii_digit() => 1,
            _ => 0,
        };
        if self.char(0) == Some('.') || text == "." {
            return wrong(start + 1, "this is no number");
        }
        let Some(number) = Num::parse(text.trim_end_matches('.')) else {
            return wrong(start + 1, "this number is too large");
        };
        if exponent == 0 {
            return Ok(number);
        }
        let minus = self.char(1) == Some('-');
        self.at += exponent;
        let mut power = String::new();
        self.digits(&mut power);
        let Ok(power) = power.parse::<i128>() else { return wrong(start + 1, "this number is too large") };
        let power = if minus { -power } else { power };
        if let Ok(exact @ Num::Exact { .. }) = Num::int(10).pow(Num::int(power)).and_then(|s| number.mul(s)) {
            return Ok(exact);
        }
        // Read at once: a float power of ten is rounded, and near the ends of the range badly.
        let float = format!("{}e{power}", text.trim_end_matches('.')).parse().map(Num::float);
        match float {
            Ok(Ok(number)) => Ok(number),
            _ => wrong(start + 1, "this number is too large"),
        }
    }

    /// Position after `phrase`, when it stands here as whole words.
    fn phrase(&self, phrase: &str) -> Option<usize> {
        let mut at = self.at;
        for (n, word) in phrase.split(' ').enumerate() {
            if n > 0 {
                let start = at;
                while self.chars.get(at).is_some_and(|c| c.is_whitespace()) {
                    at += 1;
                }
                if at == start {
                    return None;
                }
            }
            for c in word.chars() {
                if self.chars.get(at) != Some(&c) {
                    return None;
                }
                at += 1;
            }
        }
        let ends = !self.chars.get(at).is_some_and(|c| c.is_alphabetic());
        ends.then_some(at)
    }

    fn word(&mut self) -> Result<Option<Token>> {
        if let Some(after) = self.phrase("the") {
            self.at = after;
            return Ok(None);
        }
        for (phrase, token) in WORDS {
            if let Some(mut after) = self.phrase(phrase) {
                let token = match (token, self.chars.get(after..).unwrap_or_default()) {
                    (Token::Sign('m'), _) if self.opens(after) && !self.has_left_operand() => {
                        Token::Function("mod")
                    }
                    (Token::Function("log"), ['1', '0', ..]) if self.opens(after + 2) => {
                        after += 2;
                        Token::Function("log")
                    }
                    (Token::Function("log"), ['2', ..]) if self.opens(after + 1) => {
                        after += 1;
                        Token::Function("log2")
                    }
                    (token, _) => token,
                };
                self.at = after;
                return Ok(Some(token));
            }
        }
        let word: String =
            self.chars.iter().skip(self.at).take_while(|c| c.is_alphabetic()).take(30).collect();
        wrong(self.at + 1, format!("`{word}` is unknown"))
    }

    fn opens(&self, at: usize) -> bool {
        self.chars.iter().skip(at).find(|c| !c.is_whitespace()) == Some(&'(')
    }

    fn has_left_operand(&self) -> bool {
        matches!(self.out.last(), Some((_, Token::Number(_) | Token::Sign(')' | 'p' | '2' | '3' | 'd'))))
    }
}

/// A value, and whether it is a bare percentage.
#[derive(Clone, Copy)]
struct Value {
    num: Num,
    percent: bool,
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<Token> {
        self.tokens.get(self.next).map(|t| t.1)
    }

    /// Character, from 1, of the next token.
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |t| t.0)
    }

    /// Takes the next token if it is one of these signs.
    fn take(&mut self, signs: &str) -> Option<char> {
        match self.peek() {
            Some(Token::Sign(c)) if signs.contains(c) => {
                self.next += 1;
                Some(c)
            }
            _ => None,
        }
    }

    fn operand_follows(&self, ahead: usize) -> bool {
        match self.tokens.get(self.next + ahead) {
            Some((_, Token::Number(_) | Token::Function(_) | Token::Sign('(' | 'r' | 'c' | 'h'))) => true,
            Some(_) | None => false,
        }
    }

    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return wrong(self.at(), format!("more than {MAX_DEPTH} levels deep"));
        }
        let out = f(self);
        self.depth -= 1;
        out
    }

    fn sum(&mut self) -> Result<Num> {
        self.deeper(|p| {
            let mut left = p.term()?;
            loop {
                let at = p.at();
                let Some(sign) = p.take("+-") else { return Ok(left.num) };
                let right = p.term()?;
                let by = if sign == '-' { right.num.neg() } else { right.num };
                let num = if right.percent && !left.percent {
                    left.num.mul(by).and_then(|part| left.num.add(part))
                } else {
                    left.num.add(by)
                };
                let percent = left.percent && right.percent;
                left = Value { num: num.or_else(|e| wrong(at, e))?, percent };
            }
        })
    }

    fn term(&mut self) -> Result<Value> {
        let mut left = self.sign()?;
        loop {
            let at = self.at();
            let sign = match self.take("*/%om") {
                Some(sign) => sign,
                // Two numbers side by side are a mistake rather than a product.
                None if self.operand_follows(0) && !self.two_numbers() => '*',
                None => return Ok(left),
            };
            let right = self.sign()?.num;
            let num = match sign {
                '/' => left.num.div(right),
                '%' | 'm' => left.num.rem(right),
                _ => left.num.mul(right),
            };
            left = Value { num: num.or_else(|e| wrong(at, e))?, percent: false };
        }
    }

    fn two_numbers(&self) -> bool {
        // Only pi and e are floats from the start.
        matches!(self.peek(), Some(Token::Number(Num::Exact { .. })))
    }

    fn sign(&mut self) -> Result<Value> {
        let at = self.at();
        let Some(sign) = self.take("-+rch") else { return self.power() };
        let inner = self.deeper(Self::sign)?;
        let num = match sign {
            '-' => Ok(inner.num.neg()),
            'r' => inner.num.sqrt(),
            'c' => Num::float(inner.num.to_f64().cbrt()),
            'h' => inner.num.div(Num::int(2)),
            _ => Ok(inner.num),
        };
        Ok(Value { num: num.or_else(|e| wrong(at, e))?, percent: sign == '+' && inner.percent })
    }

    fn power(&mut self) -> Result<Value> {
        let base = self.postfix()?;
        let at = self.at();
        if self.take("^").is_none() {
            return Ok(base);
        }
        let exponent = self.deeper(Self::sign)?.num;
        Ok(Value { num: base.num.pow(exponent).or_else(|e| wrong(at, e))?, percent: false })
    }

    fn postfix(&mut self) -> Result<Value> {
        let mut value = Value { num: self.primary()?, percent: false };
        loop {
            let at = self.at();
            let percent = match self.peek() {
                // `10 % 3` is a remainder, `10% of 3` and `10%` are percentages.
                Some(Token::Sign('%')) => !self.operand_follows(1),
                _ => false,
            };
            let num = if percent || matches!(self.peek(), Some(Token::Sign('p'))) {
                value.percent = true;
                value.num.div(Num::int(100))
            } else {
                match self.peek() {
                    Some(Token::Sign('2')) => value.num.pow(Num::int(2)),
                    Some(Token::Sign('3')) => value.num.pow(Num::int(3)),
                    Some(Token::Sign('d')) => Num::float(value.num.to_f64().to_radians()),
                    _ => return Ok(value),
                }
            };
            self.next += 1;
            value.num = num.or_else(|e| wrong(at, e))?;
        }
    }

    fn primary(&mut self) -> Result<Num> {
        let at = self.at();
        let token = self.peek();
        self.next += 1;
        match token {
            Some(Token::Number(n)) => Ok(n),
            Some(Token::Sign('(')) => {
                let n = self.sum()?;
                self.close(at)?;
                Ok(n)
            }
            Some(Token::Function(name)) => {
                let open = self.at();
                if self.take("(").is_none() {
                    // `sqrt of 16`, `sqrt 16`
                    self.take("o");
                    let n = self.deeper(Self::sign)?.num;
                    return call(name, &[n]).or_else(|e| wrong(at, e));
                }
                let mut args = vec![self.sum()?];
                while self.take(",").is_some() {
                    args.push(self.sum()?);
                }
                self.close(open)?;
                call(name, &args).or_else(|e| wrong(at, e))
            }
            None => wrong(self.end, "it ends where a number should follow"),
            Some(_) => wrong(at, "a number should stand here"),
        }
    }

    fn close(&mut self, open: usize) -> Result<()> {
        match self.take(")") {
            Some(_) => Ok(()),
            None if self.peek().is_none() => wrong(open, "this `(` is never closed"),
            None => wrong(self.at(), "a `)` or an operator is missing"),
        }
    }
}

fn call(name: &str, args: &[Num]) -> std::result::Result<Num, &'static str> {
    let snap = |x: f64| if x.abs() < 1e-15 { 0.0 } else { x };
    match (name, args) {
        ("min", [first, rest @ ..]) => {
            Ok(rest.iter().fold(*first, |low, n| if n.less(low) { *n } else { low }))
        }
        ("max", [first, rest @ ..]) => {
            Ok(rest.iter().fold(*first, |high, n| if high.less(*n) { *n } else { high }))
        }
        ("abs", [n]) => Ok(n.abs()),
        ("sqrt", [n]) => n.sqrt(),
        ("round", [n]) => n.round(0, f64::round),
        ("round", [n, places]) => match places.to_int() {
            Some(places) => n.round(places, f64::round),
            None => Err("the places to round to must be a whole number"),
        },
        ("floor", [n]) => n.round(0, f64::floor),
        ("ceil", [n]) => n.round(0, f64::ceil),
        ("pow", [a, b]) => a.pow(*b),
        ("mod", [a, b]) => a.rem(*b),
        ("log", [n, base]) => logarithm(*n, |x| x.log(base.to_f64())),
        ("log", [n]) => logarithm(*n, f64::log10),
        ("log2", [n]) => logarithm(*n, f64::log2),
        ("ln", [n]) => logarithm(*n, f64::ln),
        ("cbrt", [n]) => Num::float(n.to_f64().cbrt()),
        ("exp", [n]) => Num::float(n.to_f64().exp()),
        ("sin", [n]) => Num::float(snap(n.to_f64().sin())),
        ("cos", [n]) => Num::float(snap(n.to_f64().cos())),
        ("tan", [n]) => Num::float(snap(n.to_f64().tan())),
        ("asin", [n]) => Num::float(n.to_f64().asin()),
        ("acos", [n]) => Num::float(n.to_f64().acos()),
        ("atan", [n]) => Num::float(n.to_f64().atan()),
        _ => Err("this function takes another number of arguments"),
    }
}

fn logarithm(n: Num, f: impl Fn(f64) -> f64) -> std::result::Result<Num, &'static str> {
    if Num::int(0).less(n) {
        Num::float(f(n.to_f64()))
    } else {
        Err("only positive numbers have a logarithm")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(text: &str) -> String {
        evaluate(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn symbols() {
        for (sum, result) in [
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("-2^2", "-4"),
            ("2^3^2", "512"),
            ("2**-1", "0.5"),
            ("2^0.5 * 2^.5", "2"),
            ("7 - 5 - 1", "1"),
            ("64 / 4 / 2", "8"),
            ("--3", "3"),
            ("10 % 3", "1"),
            ("-7 mod 3", "2"),
            ("mod(-7, 3)", "2"),
            ("6×7÷2·1−1", "20"),
            ("√16 + 3²", "13"),
            ("1,234,567.5 + 1", "1234568.5"),
            ("max(1,234)", "234"),
            ("min(3, -2, 1.5)", "-2"),
            ("2pi", "6.283185307179586"),
            ("3(4 + 5)(2)", "54"),
            ("1e3 + 1.5e-2", "1000.015"),
            ("1_000_000", "1000000"),
            ("2 + 2 = ?", "4"),
        ] {
            assert_eq!(is(sum), result, "{sum}");
        }
    }

    #[test]
    fn words() {
        for (sum, result) in [
            ("17 times 23", "391"),
            ("What is 17 multiplied by 23?", "391"),
            ("10 divided by 4", "2.5"),
            ("3 plus 4 minus 5", "2"),
            ("3 x 4", "12"),
            ("3x4", "12"),
            ("10 over 5", "2"),
            ("2 to the power of 10", "1024"),
            ("2 raised to the power of 3", "8"),
            ("5 squared plus 2 cubed", "33"),
            ("the square root of 144", "12"),
            ("cube root of 27", "3"),
            ("half of 10 plus 2", "7"),
            ("15% of 80", "12"),
            ("15 percent of 80", "12"),
            ("17 mod 5", "2"),
            ("Calculate negative 3 times 2", "-6"),
            ("half of the square root of 16", "2"),
            ("sin(30 degrees)", "0.5"),
            ("square root of 2", "1.4142135623730951"),
        ] {
            assert_eq!(is(sum), result, "{sum}");
        }
    }

    #[test]
    fn exact_and_without_noise() {
        for (sum, result) in [
            ("0.1 + 0.2", "0.3"),
            ("0.1 * 3", "0.3"),
            ("1.1 * 1.1", "1.21"),
            ("1/3", "0.3333333333333333"),
            ("2/3", "0.6666666666666666"),
            ("1/3 * 3", "1"),
            ("sqrt(2) * sqrt(2)", "2"),
            ("sqrt(2)", "1.4142135623730951"),
            ("sqrt(0.25)", "0.5"),
            ("4.35 * 100", "435"),
            ("1.005 * 1000", "1005"),
            ("99999999999999999999 + 1", "100000000000000000000"),
            ("2^100", "1267650600228229401496703205376"),
            ("2^200", "1.6069380442589903e60"),
            ("1234567890123456789 * 9876543210987654321", "12193263113702179522374638011112635269"),
            ("12345678901234567890 * 98765432109876543210", "1.219326311370218e39"),
            ("1e-10", "0.0000000001"),
            ("1/1e10/1e10/1e15", "1e-35"),
            ("2.67e-322", "2.67e-322"),
            ("17.e300", "1.7e301"),
            (".0001e310", "1e306"),
            ("sin(pi)", "0"),
            ("round(2.5)", "3"),
            ("round(-2.5)", "-3"),
            ("round(-2.4)", "-2"),
            ("floor(-0.5)", "-1"),
            ("ceil(-0.5)", "0"),
            ("ceil(0.1)", "1"),
            ("round(3.14159, 2)", "3.14"),
            ("round(1234, -2)", "1200"),
            ("round(pi, 4)", "3.1416"),
            ("log(1000)", "3"),
            ("log10(100) + log2(8) + log(8, 2)", "8"),
            ("ln(e)", "1"),
            ("abs(-3.5)", "3.5"),
            ("100 + 10%", "110"),
            ("80 - 15%", "68"),
            ("10% + 5%", "0.15"),
            ("200 * 10%", "20"),
            ("0 * -1", "0"),
            ("7 % 0.1", "0"),
        ] {
            assert_eq!(is(sum), result, "{sum}");
        }
    }

    #[test]
    fn mistakes_say_where() {
        for (sum, at, say) in [
            ("1 / 0", 3, "division by zero"),
            ("5 mod 0", 3, "division by zero"),
            ("0^-1", 2, "division by zero"),
            ("2 + apples", 5, "`apples` is unknown"),
            ("2 +", 4, "it ends"),
            ("", 1, "it ends"),
            ("(1 + 2", 1, "never closed"),
            ("1 + 2)", 6, "without its `(`"),
            ("2 3", 3, "operator is missing"),
            ("* 2", 1, "a number should stand here"),
            ("sqrt(-1)", 1, "not a real number"),
            ("ln(0)", 1, "logarithm"),
            ("10^400", 3, "too large"),
            ("min()", 5, "a number should stand here"),
            ("sin(1, 2)", 1, "another number of arguments"),
            ("1.2.3", 1, "no number"),
            ("1 $ 2", 3, "`$` means nothing"),
            ("9e999999999", 1, "too large"),
        ] {
            let e = evaluate(sum).unwrap_err();
            assert!(e.at == at && e.say.contains(say), "{sum}: {e}");
        }
    }

    #[test]
    fn bounded() {
        assert!(evaluate(&"1+".repeat(5_000_000)).unwrap_err().say.contains("longer"));
        for deep in ["(", "-", "2^", "sqrt(", "half of ", "√"] {
            let e = evaluate(&deep.repeat(990 / deep.len())).unwrap_err();
            assert!(e.say.contains("deep"), "{deep}: {e}");
        }
        assert_eq!(is(&format!("{}1{}", "(".repeat(60), ")".repeat(60))), "1");
        assert_eq!(is(&format!("1{}", "+1".repeat(400))), "401");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9a-z .,+*/^%()πx²×-]{0,60}") {
            let _ = evaluate(&text);
        }

        #[test]
        fn whole_numbers_agree_with_the_machine(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000) {
            let (a, b) = (i128::from(a), i128::from(b));
            proptest::prop_assert_eq!(evaluate(&format!("{a} * ({b}) - {a}")).unwrap(), (a * b - a).to_string());
        }
    }
}
