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

/// Which zone a moment is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Coordinated universal time.
    Universal,
    /// As [`local`].
    Local,
}

/// The moment `seconds` since 1970 as `format` says (`strftime(3)`, in the C locale). Empty when
/// the text would be longer than 2047 bytes.
pub fn formatted(format: &std::ffi::CStr, seconds: i64, zone: Zone) -> Vec<u8> {
    // SAFETY: all zeroes is a valid `tm`: numbers and a null pointer.
    let mut fields: libc::tm = unsafe { std::mem::zeroed() };
    let seconds = seconds as libc::time_t;
    // SAFETY: both pointers are to live values of the right type; the calls keep neither.
    let found = unsafe {
        match zone {
            Zone::Universal => libc::gmtime_r(&seconds, &mut fields),
            Zone::Local => libc::localtime_r(&seconds, &mut fields),
        }
    };
    if found.is_null() {
        return Vec::new();
    }
    let mut out = vec![0u8; 2048];
    // SAFETY: the buffer has the length that is told, the format ends with a NUL, and `fields`
    // was filled by the library, so its zone's name is valid.
    let length =
        unsafe { libc::strftime(out.as_mut_ptr().cast(), out.len(), format.as_ptr(), &fields) };
    out.truncate(length);
    out
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
    fn moments_are_told_as_the_format_says() {
        let check = |format: &std::ffi::CStr, expected: &str| {
            let found = formatted(format, 784_111_777, Zone::Universal);
            assert_eq!(String::from_utf8_lossy(&found), expected);
        };
        check(c"%A, %d-%b-%Y %H:%M:%S %Z", "Sunday, 06-Nov-1994 08:49:37 GMT");
        check(c"", "");
        check(c"100%%", "100%");
        assert_eq!(formatted(c"%5000d", 0, Zone::Local), b"");
    }

    #[test]
    fn a_moment_beyond_all_years_is_the_beginning() {
        assert_eq!(local(i64::MAX), local(0));
    }
}
