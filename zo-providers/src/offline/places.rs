//! The state or country of well-known cities, for parameters that want `City, State`.

/// Big cities: `city, what follows the comma`. US states as postal codes.
const CITIES: &[&str] = &[
    "New York, NY", "New York City, NY", "Los Angeles, CA", "Chicago, IL", "Houston, TX", "Phoenix, AZ", "Philadelphia, PA",
    "San Antonio, TX", "San Diego, CA", "Dallas, TX", "San Jose, CA", "Austin, TX", "Jacksonville, FL", "Fort Worth, TX",
    "Columbus, OH", "Charlotte, NC", "San Francisco, CA", "Indianapolis, IN", "Seattle, WA", "Denver, CO", "Boston, MA",
    "El Paso, TX", "Nashville, TN", "Detroit, MI", "Oklahoma City, OK", "Portland, OR", "Las Vegas, NV", "Memphis, TN",
    "Louisville, KY", "Baltimore, MD", "Milwaukee, WI", "Albuquerque, NM", "Tucson, AZ", "Fresno, CA", "Sacramento, CA",
    "Kansas City, MO", "Mesa, AZ", "Atlanta, GA", "Omaha, NE", "Miami, FL", "Long Beach, CA", "Oakland, CA", "Berkeley, CA",
    "Minneapolis, MN", "Tulsa, OK", "Tampa, FL", "New Orleans, LA", "Cleveland, OH", "Honolulu, HI", "Anaheim, CA",
    "Orlando, FL", "Pittsburgh, PA", "St. Louis, MO", "Cincinnati, OH", "Anchorage, AK", "Salt Lake City, UT", "Boise, ID",
    "Palo Alto, CA", "Mountain View, CA", "Fremont, CA", "Santa Rosa, CA", "Alameda, CA", "Raleigh, NC", "Richmond, VA",
    "Santa Barbara, CA", "San Mateo, CA", "Sunnyvale, CA", "Hartford, CT", "Buffalo, NY", "Rochester, NY", "Madison, WI",
    "London, UK", "Paris, France", "Berlin, Germany", "Munich, Germany", "Hamburg, Germany", "Madrid, Spain",
    "Barcelona, Spain", "Rome, Italy", "Milan, Italy", "Vienna, Austria", "Zurich, Switzerland", "Amsterdam, Netherlands",
    "Brussels, Belgium", "Lisbon, Portugal", "Dublin, Ireland", "Copenhagen, Denmark", "Stockholm, Sweden", "Oslo, Norway",
    "Helsinki, Finland", "Warsaw, Poland", "Prague, Czech Republic", "Budapest, Hungary", "Athens, Greece",
    "Istanbul, Turkey", "Moscow, Russia", "Kyiv, Ukraine", "Riga, Latvia", "Cairo, Egypt", "Lagos, Nigeria",
    "Nairobi, Kenya", "Cape Town, South Africa", "Tel Aviv, Israel", "Jerusalem, Israel", "Dubai, UAE",
    "Riyadh, Saudi Arabia", "Tehran, Iran", "Mumbai, India", "Delhi, India", "New Delhi, India", "Bangalore, India",
    "Karachi, Pakistan", "Dhaka, Bangladesh", "Bangkok, Thailand", "Hanoi, Vietnam", "Jakarta, Indonesia",
    "Manila, Philippines", "Singapore, Singapore", "Kuala Lumpur, Malaysia", "Hong Kong, China", "Beijing, China",
    "Shanghai, China", "Guangzhou, China", "Shenzhen, China", "Taipei, Taiwan", "Seoul, South Korea", "Tokyo, Japan",
    "Osaka, Japan", "Kyoto, Japan", "Sydney, Australia", "Melbourne, Australia", "Auckland, New Zealand",
    "Toronto, Canada", "Vancouver, Canada", "Montreal, Canada", "Mexico City, Mexico", "Bogota, Colombia", "Lima, Peru",
    "Santiago, Chile", "Buenos Aires, Argentina", "Sao Paulo, Brazil", "Rio de Janeiro, Brazil",
];

/// `city` with its state or country, if it is well known.
pub(super) fn with_region(city: &str) -> Option<&'static str> {
    CITIES.iter().copied().find(|c| c.rsplit_once(", ").is_some_and(|(name, _)| name.eq_ignore_ascii_case(city)))
}

/// Does a description (lower-cased) ask for a city together with its state or country?
pub(super) fn wants_region(words: &str) -> bool {
    ["city, state", "city, country", "'city, ", "city and state", ", ca'", "(state", "state abbr", "city, st"].iter().any(|w| words.contains(w))
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
