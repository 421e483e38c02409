//! Everyday English: numerals, months, synonyms, units, languages and currencies.

use super::words::{Stem, stem};
use std::{collections::HashMap, sync::OnceLock};

/// Value of a numeral below twenty or of a full ten, or of *dozen*.
pub(super) fn numeral(word: &str) -> Option<f64> {
    const ONES: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    let is = |w: &str| w.eq_ignore_ascii_case(word);
    let small = |i: usize| u32::try_from(i).ok().map(f64::from);
    match ONES.iter().position(|w| is(w)) {
        Some(i) => small(i),
        None if word.eq_ignore_ascii_case("dozen") => Some(12.0),
        None => TENS.iter().position(|w| is(w)).and_then(|i| small((i + 2) * 10)),
    }
}

/// Value of a word that multiplies what stands before it.
pub(super) fn multiplier(word: &str) -> Option<f64> {
    Some(match word.to_ascii_lowercase().as_str() {
        "hundred" => 1e2,
        "thousand" => 1e3,
        "million" | "millions" | "mn" => 1e6,
        "billion" | "billions" | "bn" => 1e9,
        "trillion" => 1e12,
        _ => return None,
    })
}

/// Month of the year, 1 to 12.
pub(super) fn month(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.to_ascii_lowercase();
    let found = MONTHS.iter().position(|m| {
        *m == word
            || (word.len() == 3 && m.starts_with(word.as_str()))
            || (word == "sept" && *m == "september")
    })?;
    u32::try_from(found + 1).ok()
}

/// Day of the week, Monday 0 to Sunday 6.
pub(super) fn weekday(word: &str) -> Option<i64> {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let word = word.to_ascii_lowercase();
    DAYS.iter().position(|d| *d == word).and_then(|d| i64::try_from(d).ok())
}

/// Words that people use for one another. Each row is one meaning.
const SYNONYMS: &[&str] = &[
    "weather forecast temperature rain rainy sunny snow hot cold humid humidity wind climate",
    "film movie cinema",
    "car vehicle automobile",
    "mail email message",
    "song music track playlist tune",
    "play listen stream",
    "price cost fee fare expense",
    "delete remove erase drop discard",
    "cancel abort stop",
    "create add new generate build insert",
    "update change modify edit adjust alter switch",
    "calendar appointment meeting event schedule",
    "remind reminder alarm remember",
    "note memo jot write",
    "remember memorize recall memory",
    "translate translation interpreter",
    "restaurant eat dining food dinner lunch cuisine meal",
    "flight fly plane airline airplane",
    "hotel accommodation lodging room stay",
    "house home apartment property rental",
    "cab taxi ride uber lyft",
    "pay payment transfer send money",
    "buy purchase order shop",
    "sell sale vend",
    "sum add plus total addition",
    "subtract minus difference",
    "multiply times product",
    "divide quotient ratio",
    "calculate compute arithmetic math evaluate expression formula equation",
    "word text sentence string",
    "picture image photo illustration drawing",
    "person human people individual",
    "company business firm corporation organization",
    "job employment work career occupation",
    "begin start commence launch",
    "finish end complete done close",
    "shop store market",
    "doctor physician dentist dermatologist therapist clinic",
    "hair salon stylist haircut barber",
    "trip travel journey vacation holiday tour",
    "route direction directions navigate path drive",
    "distance far miles kilometers",
    "big large huge",
    "small little tiny",
    "fast quick rapid speed",
    "find search locate discover seek",
    "get retrieve fetch obtain",
    "show display view see list",
    "alert notify notification",
    "file document",
    "folder directory",
    "repository repo",
    "ticket issue bug",
    "news headline article",
    "stock share equity ticker",
    "currency exchange dollar euro yen pound rupee",
    "bank account balance",
    "zodiac horoscope astrology",
    "concert festival show gig",
    "soccer football",
    "game match",
    "team club",
    "author writer",
    "singer artist musician band",
    "painting artwork sculpture art",
    "law legal court lawsuit attorney lawyer case",
    "crime criminal felony",
    "cook recipe ingredient dish bake",
    "light lamp bulb",
    "appliance device machine",
    "door lock gate",
    "volume loud sound audio",
    "password passphrase credential",
    "login signin authenticate",
    "web internet online website site page url",
    "clock time hour",
    "birthday birth born",
    "average mean",
    "gcd divisor factor",
    "probability chance odds likelihood",
    "population inhabitants residents",
    "capital city town",
    "country nation state",
    "medicine drug medication pill",
    "bus coach",
    "train railway rail",
    "movie showtime theater theatre",
    "review rating opinion feedback",
    "shipment parcel package delivery tracking",
    "customer client",
    "employee staff worker",
    "student pupil",
    "teacher instructor professor",
    "weigh weight heavy",
    "tall height high",
    "wide width",
    "long length duration",
    "old age",
    "summary summarize digest",
    "cpu processor",
    "reserve book reservation booking",
];

/// Stems that mean about the same as `of`, itself left out.
pub(super) fn synonyms(of: Stem) -> &'static [Stem] {
    static TABLE: OnceLock<HashMap<Stem, Vec<Stem>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table: HashMap<Stem, Vec<Stem>> = HashMap::new();
        for row in SYNONYMS {
            let row: Vec<Stem> = row.split_whitespace().map(stem).collect();
            for (i, &a) in row.iter().enumerate() {
                let others = row.iter().enumerate().filter(|(j, b)| i != *j && **b != a).map(|(_, b)| *b);
                let known = table.entry(a).or_default();
                for b in others {
                    if !known.contains(&b) {
                        known.push(b);
                    }
                }
            }
        }
        table
    });
    table.get(&of).map_or(&[], Vec::as_slice)
}

/// Units that say what a number measures: each row lists spellings of one unit, then (after `:`) words by which a
/// parameter may call for it.
const UNITS: &[(&str, &str)] = &[
    ("kg kgs kilogram kilograms kilo kilos", "kilogram kg weight mass"),
    ("g gram grams", "gram weight mass"),
    ("lb lbs pound pounds", "pound lb weight mass"),
    ("m meter meters metre metres", "meter metre distance length height width depth radius"),
    ("cm centimeter centimeters", "centimeter cm height length width"),
    ("km kilometer kilometers kms", "kilometer km distance radius"),
    ("mile miles mi", "mile distance radius"),
    ("ft foot feet", "foot feet height length width"),
    ("inch inches", "inch length width height"),
    ("s sec secs second seconds", "second time duration timeout interval"),
    ("min mins minute minutes", "minute time duration interval"),
    ("h hr hrs hour hours", "hour time duration"),
    ("day days", "day time duration period"),
    ("night nights", "night duration stay day"),
    ("week weeks", "week duration period"),
    ("month months", "month duration period term"),
    ("year years yr yrs", "year time duration period age term frame"),
    ("degree degrees °c °f celsius fahrenheit", "temperature degree angle latitude longitude"),
    ("kelvin k", "temperature kelvin"),
    ("volt volts v", "voltage volt"),
    ("ampere amperes amp amps a", "current ampere"),
    ("ohm ohms", "resistance ohm"),
    ("watt watts w", "power watt"),
    ("coulomb coulombs c", "charge coulomb"),
    ("newton newtons n", "force newton"),
    ("joule joules j", "energy joule"),
    ("hz hertz khz mhz", "frequency hertz"),
    ("liter liters litre litres l ml", "volume liter"),
    ("mol mole moles", "mole moles"),
    ("atm pascal pa kpa bar", "pressure"),
    ("mph kmh m/s km/h", "speed velocity"),
    ("m/s^2 m/s²", "acceleration"),
    ("mpg", "fuel efficiency gallon"),
    ("calorie calories kcal", "calorie"),
    ("people person persons guest guests adult adults", "people person guest adult party size number"),
    ("child children kid kids", "child children"),
    ("star stars", "rating star"),
    ("percent", "percent percentage rate"),
    (
        "dollar dollars usd bucks euro euros eur pounds yen",
        "amount price cost budget money payment salary income principal investment loan balance value",
    ),
    ("pixel pixels px", "pixel width height radius size"),
    ("bpm", "tempo beat"),
    ("gb mb tb", "size memory storage"),
];

/// Does a number with unit `unit` suit a parameter that is described by `words`? 0 to 1.
pub(super) fn unit_fit(unit: Stem, words: &[Stem]) -> f32 {
    static TABLE: OnceLock<HashMap<Stem, Vec<Stem>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table: HashMap<Stem, Vec<Stem>> = HashMap::new();
        for (spellings, wanted) in UNITS {
            for s in spellings.split_whitespace() {
                table.entry(stem(s)).or_default().extend(wanted.split_whitespace().map(stem));
            }
        }
        table
    });
    let Some(wanted) = table.get(&unit) else { return 0.0 };
    // The unit's own name counts more than what it measures.
    match wanted.iter().position(|w| words.contains(w)) {
        Some(0) => 1.0,
        Some(_) => 0.6,
        None => 0.0,
    }
}

/// Does a parameter that is described by `words` ask for a quantity of another kind than unit `unit` measures?
pub(super) fn unit_clash(unit: Stem, words: &[Stem]) -> bool {
    /// Quantities that a number cannot measure two of.
    const KINDS: &str =
        "temperature mass weight voltage current resistance pressure energy charge force frequency";
    static KIND_STEMS: OnceLock<Vec<Stem>> = OnceLock::new();
    let kinds = KIND_STEMS.get_or_init(|| KINDS.split_whitespace().map(stem).collect());
    let known = UNITS.iter().any(|(all, _)| all.split_whitespace().any(|s| s.len() > 1 && stem(s) == unit));
    known && unit_fit(unit, words) == 0.0 && words.iter().any(|w| kinds.contains(w))
}

/// Is this the stem of a unit of measure?
pub(super) fn is_unit(word: &str) -> bool {
    UNITS.iter().any(|(spellings, _)| spellings.split_whitespace().any(|s| s.eq_ignore_ascii_case(word)))
}

/// ISO 639-1 codes and English names of languages.
const LANGUAGES: &[(&str, &str)] = &[
    ("en", "english"),
    ("fr", "french"),
    ("de", "german"),
    ("es", "spanish"),
    ("it", "italian"),
    ("pt", "portuguese"),
    ("nl", "dutch"),
    ("ru", "russian"),
    ("zh", "chinese"),
    ("ja", "japanese"),
    ("ko", "korean"),
    ("ar", "arabic"),
    ("hi", "hindi"),
    ("id", "indonesian"),
    ("tr", "turkish"),
    ("pl", "polish"),
    ("sv", "swedish"),
    ("da", "danish"),
    ("no", "norwegian"),
    ("fi", "finnish"),
    ("el", "greek"),
    ("he", "hebrew"),
    ("th", "thai"),
    ("vi", "vietnamese"),
    ("uk", "ukrainian"),
    ("cs", "czech"),
    ("hu", "hungarian"),
    ("ro", "romanian"),
    ("bn", "bengali"),
    ("la", "latin"),
];

/// ISO 4217 codes and the English words for currencies.
const CURRENCIES: &[(&str, &str)] = &[
    ("USD", "us dollar"),
    ("USD", "us dollars"),
    ("USD", "american dollars"),
    ("USD", "dollars"),
    ("USD", "dollar"),
    ("USD", "$"),
    ("EUR", "euro"),
    ("EUR", "euros"),
    ("EUR", "€"),
    ("GBP", "british pounds"),
    ("GBP", "british pound"),
    ("GBP", "pounds sterling"),
    ("GBP", "pounds"),
    ("GBP", "pound"),
    ("GBP", "£"),
    ("JPY", "japanese yen"),
    ("JPY", "yen"),
    ("CNY", "chinese yuan"),
    ("CNY", "yuan"),
    ("INR", "indian rupees"),
    ("INR", "rupees"),
    ("CAD", "canadian dollars"),
    ("CAD", "canadian dollar"),
    ("AUD", "australian dollars"),
    ("AUD", "australian dollar"),
    ("CHF", "swiss francs"),
    ("CHF", "swiss franc"),
    ("MXN", "mexican pesos"),
    ("BRL", "brazilian reais"),
    ("KRW", "korean won"),
    ("RUB", "rubles"),
    ("SEK", "swedish krona"),
];

/// Another spelling of a word by which an enum option may be meant: a language for its code.
pub(super) fn language_name(code: &str) -> Option<&'static str> {
    let code = code.split(['-', '_']).next().unwrap_or(code);
    LANGUAGES.iter().find(|(c, _)| c.eq_ignore_ascii_case(code)).map(|(_, name)| *name)
}

/// ISO 639-1 code of a language, by its English name.
pub(super) fn language_code(name: &str) -> Option<&'static str> {
    LANGUAGES.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(code, _)| *code)
}

/// ISO 4217 code of a currency, by its English name, sign or code.
pub(super) fn currency_code(name: &str) -> Option<&'static str> {
    CURRENCIES.iter().find(|(code, n)| n.eq_ignore_ascii_case(name) || *code == name).map(|(code, _)| *code)
}

/// Words that ask for the strongest or the weakest of several levels.
pub(super) const LEVELS: &[(&str, &str)] = &[
    ("high", "strongest strong maximum max highest top"),
    ("low", "weakest weak minimum min lowest gentle"),
    ("medium", "mid middle moderate normal average"),
    ("mid", "medium middle moderate normal average"),
    ("large", "big huge"),
    ("small", "little tiny"),
    ("on", "enable enabled activate start"),
    ("off", "disable disabled deactivate"),
    ("asc", "ascending increasing"),
    ("desc", "descending decreasing"),
    ("celsius", "centigrade"),
    ("metric", "kilogram kilograms kg meters"),
    ("multiply", "times"),
    ("add", "plus sum remember"),
    ("subtract", "minus less"),
    ("divide", "over divided"),
    ("complete", "done finished completed"),
    ("delete", "remove erase"),
];
