//! Dates as headers spell them.

/// Days from 1970-01-01 to a date of the Gregorian calendar.
pub(crate) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let at = usize::try_from(month.checked_sub(1)?).ok()?;
    let valid = (1970..=9999).contains(&year) && (1..=*lengths.get(at)?).contains(&day);
    // Leap years before `year`, less those before 1970.
    let leaps = |y: i64| y / 4 - y / 100 + y / 400;
    let year_days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    valid.then(|| year_days + lengths.iter().take(at).sum::<i64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (date, known) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2023, 11, 14), 19_675),
            ((2024, 12, 31), 20_088),
            ((2100, 3, 1), 47_541),
        ] {
            assert_eq!(days(date.0, date.1, date.2), Some(known), "{date:?}");
        }
        assert_eq!((days(2100, 2, 29), days(2023, 13, 1), days(2023, 0, 1)), (None, None, None));
    }
}
