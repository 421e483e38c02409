//! The state or country of well-known cities, for parameters that want `City, State`.

/// Big cities: `city, what follows the comma`. US states as postal codes.
const CITIES: &[&str] = &[
    "New York, NY",
    "New York City, NY",
    "Los Angeles, CA",
    "Chicago, IL",
    "Houston, TX",
    "Phoenix, AZ",
    "Philadelphia, PA",
    "San Antonio, TX",
    "San Diego, CA",
    "Dallas, TX",
    "San Jose, CA",
    "Austin, TX",
    "Jacksonville, FL",
    "Fort Worth, TX",
    "Columbus, OH",
    "Charlotte, NC",
    "San Francisco, CA",
    "Indianapolis, IN",
    "Seattle, WA",
    "Denver, CO",
    "Boston, MA",
    "El Paso, TX",
    "Nashville, TN",
    "Detroit, MI",
    "Oklahoma City, OK",
    "Portland, OR",
    "Las Vegas, NV",
    "Memphis, TN",
    "Louisville, KY",
    "Baltimore, MD",
    "Milwaukee, WI",
    "Albuquerque, NM",
    "Tucson, AZ",
    "Fresno, CA",
    "Sacramento, CA",
    "Kansas City, MO",
    "Mesa, AZ",
    "Atlanta, GA",
    "Omaha, NE",
    "Miami, FL",
    "Long Beach, CA",
    "Oakland, CA",
    "Berkeley, CA",
    "Minneapolis, MN",
    "Tulsa, OK",
    "Tampa, FL",
    "New Orleans, LA",
    "Cleveland, OH",
    "Honolulu, HI",
    "Anaheim, CA",
    "Orlando, FL",
    "Pittsburgh, PA",
    "St. Louis, MO",
    "Cincinnati, OH",
    "Anchorage, AK",
    "Salt Lake City, UT",
    "Boise, ID",
    "Palo Alto, CA",
    "Mountain View, CA",
    "Fremont, CA",
    "Santa Rosa, CA",
    "Alameda, CA",
    "Raleigh, NC",
    "Richmond, VA",
    "Santa Barbara, CA",
    "San Mateo, CA",
    "Sunnyvale, CA",
    "Hartford, CT",
    "Buffalo, NY",
    "Rochester, NY",
    "Madison, WI",
    "London, UK",
    "Paris, France",
    "Berlin, Germany",
    "Munich, Germany",
    "Hamburg, Germany",
    "Madrid, Spain",
    "Barcelona, Spain",
    "Rome, Italy",
    "Milan, Italy",
    "Vienna, Austria",
    "Zurich, Switzerland",
    "Amsterdam, Netherlands",
    "Brussels, Belgium",
    "Lisbon, Portugal",
    "Dublin, Ireland",
    "Copenhagen, Denmark",
    "Stockholm, Sweden",
    "Oslo, Norway",
    "Helsinki, Finland",
    "Warsaw, Poland",
    "Prague, Czech Republic",
    "Budapest, Hungary",
    "Athens, Greece",
    "Istanbul, Turkey",
    "Moscow, Russia",
    "Kyiv, Ukraine",
    "Riga, Latvia",
    "Cairo, Egypt",
    "Lagos, Nigeria",
    "Nairobi, Kenya",
    "Cape Town, South Africa",
    "Tel Aviv, Israel",
    "Jerusalem, Israel",
    "Dubai, UAE",
    "Riyadh, Saudi Arabia",
    "Tehran, Iran",
    "Mumbai, India",
    "Delhi, India",
    "New Delhi, India",
    "Bangalore, India",
    "Karachi, Pakistan",
    "Dhaka, Bangladesh",
    "Bangkok, Thailand",
    "Hanoi, Vietnam",
    "Jakarta, Indonesia",
    "Manila, Philippines",
    "Singapore, Singapore",
    "Kuala Lumpur, Malaysia",
    "Hong Kong, China",
    "Beijing, China",
    "Shanghai, China",
    "Guangzhou, China",
    "Shenzhen, China",
    "Taipei, Taiwan",
    "Seoul, South Korea",
    "Tokyo, Japan",
    "Osaka, Japan",
    "Kyoto, Japan",
    "Sydney, Australia",
    "Melbourne, Australia",
    "Auckland, New Zealand",
    "Toronto, Canada",
    "Vancouver, Canada",
    "Montreal, Canada",
    "Mexico City, Mexico",
    "Bogota, Colombia",
    "Lima, Peru",
    "Santiago, Chile",
    "Buenos Aires, Argentina",
    "Sao Paulo, Brazil",
    "Rio de Janeiro, Brazil",
];

/// Everyday short names of cities.
const SHORT: &[(&str, &str)] = &[
    ("nyc", "New York"),
    ("la", "Los Angeles"),
    ("l.a", "Los Angeles"),
    ("sf", "San Francisco"),
    ("sfo", "San Francisco"),
    ("sd", "San Diego"),
    ("vegas", "Las Vegas"),
    ("philly", "Philadelphia"),
    ("nola", "New Orleans"),
];

/// Names and postal codes of the states of the USA.
const STATES: &str = "Alabama=AL Alaska=AK Arizona=AZ Arkansas=AR California=CA Colorado=CO Connecticut=CT Delaware=DE \
    Florida=FL Georgia=GA Hawaii=HI Idaho=ID Illinois=IL Indiana=IN Iowa=IA Kansas=KS Kentucky=KY Louisiana=LA \
    Maine=ME Maryland=MD Massachusetts=MA Michigan=MI Minnesota=MN Mississippi=MS Missouri=MO Montana=MT \
    Nebraska=NE Nevada=NV New_Hampshire=NH New_Jersey=NJ New_Mexico=NM New_York=NY North_Carolina=NC \
    North_Dakota=ND Ohio=OH Oklahoma=OK Oregon=OR Pennsylvania=PA Rhode_Island=RI South_Carolina=SC \
    South_Dakota=SD Tennessee=TN Texas=TX Utah=UT Vermont=VT Virginia=VA Washington=WA West_Virginia=WV \
    Wisconsin=WI Wyoming=WY";

/// The full name of a city that goes by a short one; only where it is written in capitals or stands as a word of its
/// own, so that the French article is no city.
pub(super) fn long_name(short: &str) -> Option<&'static str> {
    let capital = short.chars().all(|c| c.is_uppercase() || c == '.');
    SHORT
        .iter()
        .find(|(s, _)| s.eq_ignore_ascii_case(short) && (capital || s.len() > 2))
        .map(|(_, name)| *name)
}

/// Name and postal code of the state that `text` names, or that the well-known city `text` is in.
pub(super) fn state(text: &str) -> Option<(String, &'static str)> {
    let code = || with_region(text).and_then(|c| c.rsplit_once(", ")).map(|(_, code)| code);
    let mut all = STATES.split_whitespace().filter_map(|s| s.split_once('='));
    let same = |name: &str| {
        name.len() == text.len()
            && name
                .bytes()
                .zip(text.bytes())
                .all(|(a, b)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b' '))
    };
    let (name, code) = all
        .clone()
        .find(|(name, c)| same(name) || *c == text)
        .or_else(|| code().and_then(|code| all.find(|(_, c)| *c == code)))?;
    Some((name.replace('_', " "), code))
}

/// The country of a well-known city.
pub(super) fn country(city: &str) -> Option<&'static str> {
    let (_, region) = with_region(city)?.rsplit_once(", ")?;
    Some(if region.len() == 2 && region != "UK" { "USA" } else { region })
}

/// `city` with its state or country, if it is well known.
pub(super) fn with_region(city: &str) -> Option<&'static str> {
    let city = long_name(city).unwrap_or(city);
    CITIES
        .iter()
        .copied()
        .find(|c| c.rsplit_once(", ").is_some_and(|(name, _)| name.eq_ignore_ascii_case(city)))
}

/// Does a description (lower-cased) ask for a city together with its state or country?
pub(super) fn wants_region(words: &str) -> bool {
    ["city, state", "city, country", "'city, ", "city and state", ", ca'", "(state", "state abbr", "city, st"]
        .iter()
        .any(|w| words.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_cities() {
        assert_eq!(with_region("new york"), Some("New York, NY"));
        assert_eq!(with_region("Atlantis"), None);
        assert!(wants_region("in the format of 'city, state'") && !wants_region("the city to look at"));
    }
}
