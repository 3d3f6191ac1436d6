//! The wall clock broken into fields, in local time.
//!
//! Local time follows the C library: the zone that `TZ` names, else `/etc/localtime`. The caller
//! keeps the result for a second (`session::clock`); nothing is cached here. What time it is says
//! `driver::wall`.

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
    /// How far local time is ahead of UTC, in minutes; negative in the west.
    pub offset_minutes: i16,
}

/// The local calendar at `seconds` since 1970. A moment whose year does not fit an `int` has none
/// (`localtime_r(3)`); it counts as the beginning of 1970.
pub fn local(seconds: i64) -> Calendar {
    // SAFETY: all zeroes is a valid `tm`: numbers and a null pointer.
    let mut fields: libc::tm = unsafe { std::mem::zeroed() };
    let seconds_c = seconds as libc::time_t;
    // SAFETY: both pointers are to live values of the right type; the call keeps neither.
    let found = unsafe { libc::localtime_r(&seconds_c, &mut fields) };
    if found.is_null() && seconds != 0 {
        return local(0);
    }
    Calendar {
        year: i64::from(fields.tm_year) + 1900,
        month: fields.tm_mon as u8 + 1,
        day: fields.tm_mday as u8,
        hour: fields.tm_hour as u8,
        minute: fields.tm_min as u8,
        second: fields.tm_sec as u8,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970 of a calendar, by the library's inverse of what [`local`] calls.
    fn seconds_of(at: &Calendar) -> i64 {
        // SAFETY: all zeroes is a valid `tm`: numbers and a null pointer.
        let mut fields: libc::tm = unsafe { std::mem::zeroed() };
        fields.tm_year = (at.year - 1900) as i32;
        fields.tm_mon = i32::from(at.month) - 1;
        fields.tm_mday = i32::from(at.day);
        fields.tm_hour = i32::from(at.hour);
        fields.tm_min = i32::from(at.minute) - i32::from(at.offset_minutes);
        fields.tm_sec = i32::from(at.second);
        // SAFETY: the pointer is to a live `tm`, which the call may normalise.
        unsafe { libc::timegm(&mut fields) }
    }

    #[test]
    fn a_calendar_and_its_offset_are_the_moment() {
        for seconds in [0, 784_111_777, 951_782_400, 1_709_164_799, 1_782_000_000, 4_107_542_400] {
            let at = local(seconds);
            assert_eq!(seconds_of(&at), seconds, "{at:?}");
        }
    }

    #[test]
    fn a_moment_beyond_all_years_is_the_beginning() {
        assert_eq!(local(i64::MAX), local(0));
    }
}
