//! The name of this machine, as `$hostname` and syslog lines print it.

/// The host's name in lower case (`gethostname(2)`); empty when the system has none to give.
/// Bytes that are not ASCII become `?`.
pub fn name() -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: the pointer and the length describe `buffer`, less its last byte, which stays zero.
    let outcome = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    if outcome != 0 {
        return String::new();
    }
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
    buffer[..end]
        .iter()
        .map(|&byte| if byte.is_ascii() { byte.to_ascii_lowercase() as char } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_is_the_kernels_in_lower_case() {
        let told = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(super::name(), told.trim().to_lowercase());
    }
}
