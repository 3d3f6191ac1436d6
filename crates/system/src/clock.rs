//! The wall clock broken into fields, in universal and in local time.
//!
//! Local time follows the C library: the zone that `TZ` names, else `/etc/localtime`. The caller
//! keeps the result for a second (`session::clock`); nothing is cached here. A worker's idea of
//! "now" comes from its driver; [`wall`] is for processes that run none, such as the master.

use std::time::Duration;

/// Time since 1970-01-01 00:00 UTC according to the system clock (`clock_gettime(2)`).
pub fn wall() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call only writes.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) };
    debug_assert_eq!(outcome, 0, "CLOCK_REALTIME always exists");
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A moment as people write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// The year, such as 2026.
    pub year: i64,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the month, 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59, or 60 in zones that count leap seconds.
    pub second: u8,
    /// The day of the week, 0 for Sunday.
    pub weekday: u8,
    /// How far local time is ahead of UTC, in minutes; negative in the west.
    pub offset_minutes: i16,
}

/// The local calendar at `seconds` since 1970; universal time when the library knows no answer
/// (`localtime_r(3)` fails only for years that do not fit an int).
pub fn local(seconds: i64) -> Calendar {
    // SAFETY: all zeroes is a valid `tm`: numbers and a null pointer.
    let mut fields: libc::tm = unsafe { std::mem::zeroed() };
    let seconds_c = seconds as libc::time_t;
    // SAFETY: both pointers are to live values of the right type; the call keeps neither.
    let found = unsafe { libc::localtime_r(&seconds_c, &mut fields) };
    if found.is_null() {
        return universal(seconds);
    }
    Calendar {
        year: i64::from(fields.tm_year) + 1900,
        month: fields.tm_mon as u8 + 1,
        day: fields.tm_mday as u8,
        hour: fields.tm_hour as u8,
        minute: fields.tm_min as u8,
        second: fields.tm_sec as u8,
        weekday: fields.tm_wday as u8,
        offset_minutes: (fields.tm_gmtoff / 60) as i16,
    }
}

/// Makes the next [`local`] read `TZ` and the zone file again; call it when `env TZ=...` or a
/// reload may have changed them (`tzset(3)`).
pub fn zone_changed() {
    unsafe extern "C" {
        fn tzset();
    }
    // SAFETY: the call takes nothing and touches only the library's own state; processes of
    // this program have one thread, so nobody changes the environment meanwhile.
    unsafe { tzset() }
}

/// The calendar of Greenwich at `seconds` since 1970, for any year of the proleptic Gregorian
/// calendar.
pub fn universal(seconds: i64) -> Calendar {
    let days = seconds.div_euclid(86_400);
    let within = seconds.rem_euclid(86_400);
    // Eras of 400 years have 146,097 days and begin on a first of March, so that the leap day
    // is the last one of its year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Calendar {
        year,
        month: month as u8,
        day: day as u8,
        hour: (within / 3_600) as u8,
        minute: (within / 60 % 60) as u8,
        second: (within % 60) as u8,
        weekday: (days + 4).rem_euclid(7) as u8,
        offset_minutes: 0,
    }
}

/// Seconds since 1970 of a date and time in Greenwich; the inverse of [`universal`]. Fields out
/// of range carry over as they do in `timegm(3)`.
pub fn seconds_of(year: i64, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> i64 {
    let month = i64::from(month);
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    days * 86_400 + i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendars_of_greenwich() {
        let check = |seconds: i64, expected: (i64, u8, u8, u8, u8, u8, u8)| {
            let c = universal(seconds);
            let found = (c.year, c.month, c.day, c.hour, c.minute, c.second, c.weekday);
            assert_eq!(found, expected, "{seconds}");
            let back = seconds_of(c.year, c.month, c.day, c.hour, c.minute, c.second);
            assert_eq!(back, seconds);
        };
        check(0, (1970, 1, 1, 0, 0, 0, 4));
        check(-1, (1969, 12, 31, 23, 59, 59, 3));
        check(784_111_777, (1994, 11, 6, 8, 49, 37, 0));
        check(951_782_400, (2000, 2, 29, 0, 0, 0, 2));
        check(951_868_800, (2000, 3, 1, 0, 0, 0, 3));
        check(1_709_164_799, (2024, 2, 28, 23, 59, 59, 3));
        check(4_107_542_400, (2100, 3, 1, 0, 0, 0, 1));
        check(-11_676_096_000, (1600, 1, 1, 0, 0, 0, 6));
    }

    #[test]
    fn local_time_is_universal_time_plus_its_offset() {
        for seconds in [0, 784_111_777, 1_709_164_799, 1_782_000_000] {
            let there = local(seconds);
            let mut same = universal(seconds + i64::from(there.offset_minutes) * 60);
            same.offset_minutes = there.offset_minutes;
            assert_eq!(there, same);
        }
    }

    #[test]
    fn the_wall_clock_is_past_2020() {
        assert!(wall().as_secs() > 1_577_836_800);
    }
}
