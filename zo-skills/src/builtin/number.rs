//! Numbers that stay exact as long as they can: decimals of up to 38 digits, then `f64`.

use std::{cmp::Ordering, fmt};

/// A decimal `digits / 10^scale`, or a float where no decimal will do. Never NaN, never infinite.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Num {
    Exact { digits: i128, scale: u32 },
    Float(f64),
}

/// Why there is no result.
pub(crate) type Wrong = &'static str;
type Result<T = Num> = std::result::Result<T, Wrong>;

const MAX_SCALE: u32 = 30;

impl Num {
    pub(crate) fn int(n: i128) -> Self {
        Self::Exact { digits: n, scale: 0 }
    }

    /// A float; one that is whole becomes exact.
    pub(crate) fn float(x: f64) -> Result {
        if x.is_nan() {
            return Err("the result is not a real number");
        }
        if x.is_infinite() {
            return Err("the result is too large");
        }
        // Below 2^53 every whole float is that whole number.
        if x.fract() == 0.0 && x.abs() < 9e15 { Ok(Self::int(x as i128)) } else { Ok(Self::Float(x)) }
    }

    fn exact(mut digits: i128, mut scale: u32) -> Option<Self> {
        while scale > 0 && digits % 10 == 0 {
            digits /= 10;
            scale -= 1;
        }
        (scale <= MAX_SCALE).then_some(Self::Exact { digits, scale })
    }

    /// Digits with at most one point, no sign.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{part}").parse::<i128>().ok();
        let scale = u32::try_from(part.len()).ok()?;
        match digits.and_then(|d| Self::exact(d, scale)) {
            Some(n) => Some(n),
            None => Self::float(text.parse().ok()?).ok(),
        }
    }

    pub(crate) fn to_f64(self) -> f64 {
        match self {
            // Through text, because dividing by a power of ten rounds twice.
            Self::Exact { digits, scale } if scale > 0 => {
                format!("{digits}e-{scale}").parse().unwrap_or(digits as f64)
            }
            Self::Exact { digits, .. } => digits as f64,
            Self::Float(x) => x,
        }
    }

    /// The whole number that it is.
    pub(crate) fn to_int(self) -> Option<i128> {
        match self {
            Self::Exact { digits, scale: 0 } => Some(digits),
            _ => None,
        }
    }

    fn is_zero(self) -> bool {
        matches!(self, Self::Exact { digits: 0, .. })
    }

    /// Both as digits of one scale.
    fn align(self, other: Self) -> Option<(i128, i128, u32)> {
        let (Self::Exact { digits: a, scale: sa }, Self::Exact { digits: b, scale: sb }) = (self, other)
        else {
            return None;
        };
        let scale = sa.max(sb);
        let lift = |d: i128, s: u32| d.checked_mul(10i128.checked_pow(scale - s)?);
        Some((lift(a, sa)?, lift(b, sb)?, scale))
    }

    pub(crate) fn add(self, other: Self) -> Result {
        match self.align(other).and_then(|(a, b, s)| Self::exact(a.checked_add(b)?, s)) {
            Some(n) => Ok(n),
            None => Self::float(self.to_f64() + other.to_f64()),
        }
    }

    pub(crate) fn neg(self) -> Self {
        match self {
            Self::Exact { digits, scale } => match digits.checked_neg() {
                Some(digits) => Self::Exact { digits, scale },
                None => Self::Float(-self.to_f64()),
            },
            Self::Float(x) => Self::Float(-x),
        }
    }

    pub(crate) fn mul(self, other: Self) -> Result {
        if let (Self::Exact { digits: a, scale: sa }, Self::Exact { digits: b, scale: sb }) = (self, other)
            && let Some(n) = a.checked_mul(b).and_then(|d| Self::exact(d, sa + sb))
        {
            return Ok(n);
        }
        Self::float(self.to_f64() * other.to_f64())
    }

    pub(crate) fn div(self, other: Self) -> Result {
        if other.is_zero() {
            return Err("division by zero");
        }
        if let Some((a, b, _)) = self.align(other) {
            let mut shifted = Some(a);
            for scale in 0..=MAX_SCALE {
                let Some(n) = shifted else { break };
                if n.checked_rem(b) == Some(0)
                    && let Some(n) = n.checked_div(b).and_then(|d| Self::exact(d, scale))
                {
                    return Ok(n);
                }
                shifted = n.checked_mul(10);
            }
            return Self::float(a as f64 / b as f64);
        }
        Self::float(self.to_f64() / other.to_f64())
    }

    /// The remainder with the sign of the divisor, as a clock counts.
    pub(crate) fn rem(self, other: Self) -> Result {
        if other.is_zero() {
            return Err("division by zero");
        }
        if let Some((a, b, s)) = self.align(other)
            && let Some(r) = a.checked_rem(b)
        {
            let r = if r != 0 && (r < 0) != (b < 0) { r + b } else { r };
            return Self::exact(r, s).ok_or("the result is too small");
        }
        let (a, b) = (self.to_f64(), other.to_f64());
        let r = a % b;
        Self::float(if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r })
    }

    pub(crate) fn pow(self, other: Self) -> Result {
        if let (Self::Exact { digits, scale }, Some(n)) = (self, other.to_int()) {
            let times = u32::try_from(n.unsigned_abs()).unwrap_or(u32::MAX);
            let whole = digits.checked_pow(times).zip(scale.checked_mul(times));
            if let Some(power) = whole.and_then(|(d, s)| Self::exact(d, s)) {
                return if n < 0 { Self::int(1).div(power) } else { Ok(power) };
            }
        }
        Self::float(self.to_f64().powf(other.to_f64()))
    }

    pub(crate) fn sqrt(self) -> Result {
        if let Self::Exact { digits, scale } = self
            && scale % 2 == 0
            && let Some(root) = digits.checked_isqrt()
            && root * root == digits
            && let Some(n) = Self::exact(root, scale / 2)
        {
            return Ok(n);
        }
        Self::float(self.to_f64().sqrt())
    }

    /// To `places` decimals after applying `mode` (`f64::round` and its kin) at that place.
    pub(crate) fn round(self, places: i128, mode: fn(f64) -> f64) -> Result {
        let Ok(places) = i32::try_from(places) else { return Ok(self) };
        if places.unsigned_abs() > MAX_SCALE {
            return Err("can round to at most 30 places");
        }
        if let Self::Exact { digits, scale } = self {
            let drop = i64::from(scale) - i64::from(places);
            let Ok(drop) = u32::try_from(drop) else { return Ok(self) };
            let Some(unit) = 10i128.checked_pow(drop) else { return Ok(Self::int(0)) };
            let (down, rest) = (digits.div_euclid(unit), digits.rem_euclid(unit));
            // Where the rest stands between two whole numbers is all that the mode asks.
            let side = match (rest.saturating_mul(2)).cmp(&unit) {
                _ if rest == 0 => 0.0,
                Ordering::Less => 0.25,
                Ordering::Equal => 0.5,
                Ordering::Greater => 0.75,
            };
            // `round` goes away from zero at a half, so the side is asked with the sign of the number.
            let up = if digits < 0 { rest != 0 && mode(side - 1.0) > -0.5 } else { mode(side) > 0.5 };
            let whole = down + i128::from(up);
            let back = u32::try_from(places.max(0)).unwrap_or(0);
            let lift = 10i128.checked_pow(u32::try_from((-places).max(0)).unwrap_or(0));
            return lift
                .and_then(|l| whole.checked_mul(l))
                .and_then(|d| Self::exact(d, back))
                .ok_or("the result is too large");
        }
        let unit = 10f64.powi(places);
        Self::float(mode(self.to_f64() * unit) / unit)
    }

    pub(crate) fn abs(self) -> Self {
        if self.less(Self::int(0)) { self.neg() } else { self }
    }

    pub(crate) fn less(self, other: Self) -> bool {
        match self.align(other) {
            Some((a, b, _)) => a < b,
            None => self.to_f64() < other.to_f64(),
        }
    }
}

impl fmt::Display for Num {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exact { digits, scale: 0 } => write!(f, "{digits}"),
            Self::Exact { digits, scale } => {
                let sign = if digits < 0 { "-" } else { "" };
                let width = scale as usize + 1;
                let text = format!("{:0>width$}", digits.unsigned_abs());
                let (whole, part) = text.split_at(text.len() - scale as usize);
                write!(f, "{sign}{whole}.{part}")
            }
            Self::Float(x) => {
                let x = without_noise(x);
                if (1e-7..1e21).contains(&x.abs()) { write!(f, "{x}") } else { write!(f, "{x:e}") }
            }
        }
    }
}

/// `2.0000000000000004` is meant to be `2`: a float whose first 15 digits end in at least three zeros loses the others.
fn without_noise(x: f64) -> f64 {
    let text = format!("{x:.14e}");
    let Some((digits, exponent)) = text.split_once('e') else { return x };
    if !digits.ends_with("000") {
        return x;
    }
    format!("{digits}e{exponent}").parse().unwrap_or(x)
}
