//! Whether a client is given compressed answers: what it accepts, and what `gzip_http_version`,
//! `gzip_proxied` and `gzip_disable` say (nginx: ngx_http_gzip_ok).

use super::directives as d;
use config::Scope;
use http::Exchange;
use session::log::Level;
use session::regex::{Case, Regex};
use std::rc::Rc;
use wire::http1::{Known, Version, date};

use crate::compress::weight;

/// The word of `gzip_disable` that is no pattern.
const MSIE6: &str = "msie6";

/// Bits of `gzip_proxied`.
pub(super) mod proxied {
    pub(crate) const OFF: u32 = 1;
    pub(crate) const EXPIRED: u32 = 1 << 1;
    pub(crate) const NO_CACHE: u32 = 1 << 2;
    pub(crate) const NO_STORE: u32 = 1 << 3;
    pub(crate) const PRIVATE: u32 = 1 << 4;
    pub(crate) const NO_LAST_MODIFIED: u32 = 1 << 5;
    pub(crate) const NO_ETAG: u32 = 1 << 6;
    pub(crate) const AUTH: u32 = 1 << 7;
    pub(crate) const ANY: u32 = 1 << 8;

    pub(crate) const NAMES: &[(&str, u32)] = &[
        ("off", OFF),
        ("expired", EXPIRED),
        ("no-cache", NO_CACHE),
        ("no-store", NO_STORE),
        ("private", PRIVATE),
        ("no_last_modified", NO_LAST_MODIFIED),
        ("no_etag", NO_ETAG),
        ("auth", AUTH),
        ("any", ANY),
    ];
}

/// What a level of the configuration demands before an answer is compressed for a client.
#[derive(Clone)]
pub(crate) struct Conditions {
    version: Version,
    proxied: u32,
    old_explorers: bool,
    disabled: Rc<[Regex]>,
}

impl Conditions {
    /// The conditions of a level; mistakes in patterns are reported there.
    pub(crate) fn compile(scope: &Scope<'_>) -> Conditions {
        let mut disabled = Vec::new();
        let mut old_explorers = false;
        for (patterns, place) in scope.nodes(&d::GZIP_DISABLE) {
            for pattern in patterns {
                match Regex::new(&pattern, Case::Ignored) {
                    _ if pattern == MSIE6 => old_explorers = true,
                    Ok(regex) => disabled.push(regex),
                    Err(message) => scope.error(place, message),
                }
            }
        }
        Conditions {
            version: scope.get(&d::GZIP_HTTP_VERSION),
            proxied: scope.get(&d::GZIP_PROXIED),
            old_explorers,
            disabled: disabled.into(),
        }
    }

    /// True when the client may get the answer at hand compressed.
    pub(crate) fn allow(&self, x: &Exchange) -> bool {
        let fields = &x.request.headers;
        if !x.is_main() || x.request.version < self.version || weight(x, "gzip") == 0 {
            return false;
        }
        if fields.find(Known::Via).is_some() && !self.allow_proxied(x) {
            return false;
        }
        let Some(agent) = fields.value(Known::UserAgent) else { return true };
        let agent = x.text(agent);
        if self.old_explorers && is_old_explorer(agent) {
            return false;
        }
        !self.disabled.iter().any(|regex| match regex.is_match(agent) {
            Ok(matches) => matches,
            Err(reason) => {
                let pattern = regex.pattern();
                let message = format_args!("gzip_disable \"{pattern}\" was given up: {reason}");
                x.log_error(Level::Alert, message);
                false
            }
        })
    }

    /// The same for a request that came through a proxy, which may keep the answer for others.
    fn allow_proxied(&self, x: &Exchange) -> bool {
        let has = |bit: u32| self.proxied & bit != 0;
        if has(proxied::OFF) {
            return false;
        }
        if has(proxied::ANY)
            || has(proxied::AUTH) && x.request.headers.find(Known::Authorization).is_some()
        {
            return true;
        }
        let answer = &x.response.headers;
        if let Some(expires) = answer.value(Known::Expires) {
            let now = match answer.value(Known::Date) {
                Some(text) => date::parse(x.text(text)),
                None => date::parse(&session::clock::http_date()),
            };
            let expires = date::parse(x.text(expires));
            return has(proxied::EXPIRED)
                && expires.zip(now).is_some_and(|(expires, now)| expires < now);
        }
        if answer.find(Known::CacheControl).is_some() {
            let says = |word: &[u8]| {
                answer.all(Known::CacheControl).any(|field| names(x.text(field.value), word))
            };
            return has(proxied::NO_CACHE) && says(b"no-cache")
                || has(proxied::NO_STORE) && says(b"no-store")
                || has(proxied::PRIVATE) && says(b"private");
        }
        let dated =
            x.response.last_modified.is_some() || answer.find(Known::LastModified).is_some();
        !(has(proxied::NO_LAST_MODIFIED) && dated
            || has(proxied::NO_ETAG) && answer.find(Known::Etag).is_some())
    }
}

/// True when a Cache-Control value has the directive `word`, with or without an argument.
fn names(value: &[u8], word: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|item| {
        let name = item.split(|&byte| byte == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(word)
    })
}

/// Internet Explorer 4 to 6 before its second service pack, which could not unpack everything.
fn is_old_explorer(agent: &[u8]) -> bool {
    const NAME: &[u8] = b"MSIE ";
    let Some(at) = memchr::memmem::find(agent, NAME) else { return false };
    match &agent[at + NAME.len()..] {
        [b'4' | b'5', b'.', ..] => true,
        [b'6', b'.', rest @ ..] => memchr::memmem::find(rest, b"SV1").is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explorers() {
        let check = |agent: &str, expected: bool| {
            assert_eq!(is_old_explorer(agent.as_bytes()), expected, "{agent}");
        };
        check("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", true);
        check("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", false);
        check("Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)", true);
        check("Mozilla/4.0 (compatible; MSIE 4.01; Windows 95)", true);
        check("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.0)", false);
        check("MSIE 6", false);
        check("", false);
    }

    #[test]
    fn cache_control() {
        let check = |value: &str, word: &str, expected: bool| {
            assert_eq!(names(value.as_bytes(), word.as_bytes()), expected, "{value}");
        };
        check("no-cache", "no-cache", true);
        check("max-age=1, No-Cache=\"a\"", "no-cache", true);
        check("no-cached", "no-cache", false);
        check("private", "no-cache", false);
    }
}
