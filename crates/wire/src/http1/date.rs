//! HTTP dates (RFC 9110 section 5.6.7): written as IMF-fixdate, read in all three forms.
//!
//! Times are seconds since 1970-01-01T00:00:00Z. The clock is the caller's.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment of the proleptic Gregorian calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// 0 to 9999.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 is Sunday.
    pub weekday: u32,
}

/// The last second that four digits of a year can tell.
const LATEST: i64 = 253_402_300_799;
/// The first second of the year 0.
const EARLIEST: i64 = -62_167_219_200;

/// Breaks a time up; one outside the years 0 to 9999 is taken for the nearest inside.
pub fn civil(time: i64) -> Civil {
    let time = time.clamp(EARLIEST, LATEST);
    let days = time.div_euclid(86_400);
    let seconds = time.rem_euclid(86_400) as u32;
    // Years are counted from March, so that the leap day is the last of a year; 719468 days lie
    // between 0000-03-01 and 1970-01-01, and 146097 days make four hundred years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil {
        year: year as u32,
        month: month as u32,
        day,
        hour: seconds / 3_600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
        weekday: (days + 4).rem_euclid(7) as u32,
    }
}

/// Seconds since 1970 of a date and a time of day; `None` when there is no such day or time.
pub fn seconds(
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
) -> Option<i64> {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > last || hour > 23 || minute > 59 || second > 59 || year > 9999 {
        return None;
    }
    let (month, year) = if month > 2 {
        (i64::from(month) - 3, i64::from(year))
    } else {
        (i64::from(month) + 9, i64::from(year) - 1)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + i64::from(day)
        - 1
        - 719_468;
    Some(days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second))
}

/// Writes `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn format(time: i64) -> [u8; 29] {
    let civil = civil(time);
    let mut out = *b"Day, 00 Mon 0000 00:00:00 GMT";
    out[..3].copy_from_slice(weekday(civil).as_bytes());
    two_digits(&mut out, 5, civil.day);
    out[8..11].copy_from_slice(MONTHS[civil.month as usize - 1].as_bytes());
    two_digits(&mut out, 12, civil.year / 100);
    two_digits(&mut out, 14, civil.year % 100);
    two_digits(&mut out, 17, civil.hour);
    two_digits(&mut out, 20, civil.minute);
    two_digits(&mut out, 23, civil.second);
    out
}

/// Appends nginx's date for cookies: `Sun, 06-Nov-94 08:49:37 GMT`, the year in four digits from
/// 2038 on.
pub fn format_cookie(time: i64, out: &mut Vec<u8>) {
    let fixed = format(time);
    out.extend_from_slice(&fixed[..7]);
    out.push(b'-');
    out.extend_from_slice(&fixed[8..11]);
    out.push(b'-');
    let year = if civil(time).year > 2037 { 12 } else { 14 };
    out.extend_from_slice(&fixed[year..]);
}

/// Today's name in three letters.
fn weekday(civil: Civil) -> &'static str {
    // The table begins with Thursday, the first day of 1970.
    DAYS[(civil.weekday as usize + 3) % 7]
}

fn two_digits(out: &mut [u8; 29], at: usize, value: u32) {
    out[at] = b'0' + (value / 10 % 10) as u8;
    out[at + 1] = b'0' + (value % 10) as u8;
}

/// Reads a date in any of the three forms. As in nginx, the day's name and what follows the
/// seconds are not looked at, and a year of two digits below 70 lies in this century.
pub fn parse(value: &[u8]) -> Option<i64> {
    let name = value.iter().position(|&byte| byte == b',' || byte == b' ')?;
    let mut text = Text(value.get(name + 1..)?);
    text.spaces();
    if value[name] == b' ' {
        return asctime(text);
    }
    let day = text.digits(2)?;
    let separator = text.byte()?;
    let month = text.month()?;
    if text.byte()? != separator {
        return None;
    }
    let year = match separator {
        b' ' => text.digits(4)?,
        b'-' => match text.digits(2)? {
            year @ 0..70 => 2000 + year,
            year => 1900 + year,
        },
        _ => return None,
    };
    if text.byte()? != b' ' {
        return None;
    }
    let (hour, minute, second) = text.clock()?;
    seconds(year, month, day, hour, minute, second)
}

/// `Nov  6 08:49:37 1994`, the day's name being read.
fn asctime(mut text: Text) -> Option<i64> {
    let month = text.month()?;
    if text.byte()? != b' ' {
        return None;
    }
    if text.0.first() == Some(&b' ') {
        text.byte();
    }
    let mut day = text.digits(1)?;
    if text.0.first() != Some(&b' ') {
        day = day * 10 + text.digits(1)?;
    }
    if text.byte()? != b' ' {
        return None;
    }
    let (hour, minute, second) = text.clock()?;
    if text.byte()? != b' ' {
        return None;
    }
    seconds(text.digits(4)?, month, day, hour, minute, second)
}

/// What is left to read.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn spaces(&mut self) {
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))
        })
    }

    /// A month's number, 1 to 12.
    fn month(&mut self) -> Option<u32> {
        let (name, rest) = self.0.split_at_checked(3)?;
        self.0 = rest;
        let index = MONTHS.iter().position(|month| month.as_bytes() == name)?;
        u32::try_from(index + 1).ok()
    }

    /// `08:49:37`
    fn clock(&mut self) -> Option<(u32, u32, u32)> {
        let hour = self.digits(2)?;
        if self.byte()? != b':' {
            return None;
        }
        let minute = self.digits(2)?;
        if self.byte()? != b':' {
            return None;
        }
        Some((hour, minute, self.digits(2)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_and_their_faults() {
        let check = |text: &str, expected| assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("Sun Nov 16 08:49:37 1994", Some(784_975_777));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Tue, 19 Jan 2038 03:14:08 GMT", Some(1 << 31));
        check("Tuesday, 19-Jan-38 03:14:08 GMT", Some(1 << 31));
        check("Wednesday, 31-Dec-69 00:00:00 GMT", Some(3_155_673_600));
        check("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1));
        check("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800));
        check("Thu, 29 Feb 2023 00:00:00 GMT", None);
        check("Thu, 29 Feb 1900 00:00:00 GMT", None);
        check("Thu, 29 Feb 2000 00:00:00 GMT", Some(951_782_400));
        check("Sun, 06 Nov 1994 24:00:00 GMT", None);
        check("Sun, 06 Nov 1994 08:60:00 GMT", None);
        check("Sun, 06 Nov 1994 08:49:60 GMT", None);
        check("Sun, 00 Nov 1994 08:49:37 GMT", None);
        check("Sun, 31 Nov 1994 08:49:37 GMT", None);
        check("Sun, 06 Foo 1994 08:49:37 GMT", None);
        check("Sun, 06 Nov 94 08:49:37 GMT", None);
        check("Sun, 06-Nov 1994 08:49:37 GMT", None);
        check("Sun, 6 Nov 1994 08:49:37 GMT", None);
        check("Sun, 06 Nov 1994", None);
        check("784111777", None);
        check("", None);
        check(",", None);
        check(" ", None);
    }

    #[test]
    fn writing_and_reading_agree_on_every_day() {
        // One moment of each day from 1900 to 2100, and of both ends of the calendar.
        let days = (-25_567..47_482i64).chain([-719_528, 2_932_896]);
        for day in days {
            let time = day * 86_400 + day.rem_euclid(86_400);
            let text = format(time);
            assert_eq!(parse(&text), Some(time), "{}", String::from_utf8_lossy(&text));
        }
        assert_eq!(&format(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format(i64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(&format(i64::MIN), b"Sat, 01 Jan 0000 00:00:00 GMT");
    }

    #[test]
    fn cookie_dates() {
        let check = |time, expected: &str| {
            let mut out = Vec::new();
            format_cookie(time, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(784_111_777, "Sun, 06-Nov-94 08:49:37 GMT");
        check(2_145_916_799, "Thu, 31-Dec-37 23:59:59 GMT");
        check(2_145_916_800, "Fri, 01-Jan-2038 00:00:00 GMT");
    }
}
