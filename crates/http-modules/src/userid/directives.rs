//! The directives about the cookies by which browsers are told apart.

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, read};
use session::contexts::{HTTP, LOCATION, SERVER};

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

pub(super) static ALL: &[&dyn AnyDirective] = &[
    &USERID,
    &USERID_NAME,
    &USERID_DOMAIN,
    &USERID_PATH,
    &USERID_EXPIRES,
    &USERID_FLAGS,
    &USERID_P3P,
    &USERID_SERVICE,
    &USERID_MARK,
];

/// Which marks are given and looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// None.
    Off,
    /// None are given; those that clients have can be logged.
    Log,
    /// Marks of the first version.
    V1,
    /// Marks of the second version.
    On,
}

pub(super) static USERID: Directive<State> = Directive::new("userid", PLACES, read_state)
    .default("off")
    .syntax("userid on | v1 | log | off;")
    .text(
        "Whether clients that come without one get a cookie by which they are known again. Its \
         mark holds the server's address or number, the time, the worker and a counter. `v1` makes \
         marks of the old form; `log` gives none, but `$uid_got` shows those that clients have.",
    )
    .example("userid on;");

fn read_state(args: &Args<'_>) -> Result<State, Invalid> {
    let states = [("off", State::Off), ("log", State::Log), ("v1", State::V1), ("on", State::On)];
    read::enumeration(args, &states)
}

pub(super) static USERID_NAME: Directive<String> =
    Directive::new("userid_name", PLACES, read::text)
        .default("uid")
        .syntax("userid_name NAME;")
        .text("The name of the cookie.")
        .example("userid_name visitor;");

pub(super) static USERID_DOMAIN: Directive<String> =
    Directive::new("userid_domain", PLACES, read::text)
        .default("none")
        .syntax("userid_domain NAME | none;")
        .text("The domain to which browsers send the cookie; `none`: only the host that set it.")
        .example("userid_domain example.org;");

pub(super) static USERID_PATH: Directive<String> =
    Directive::new("userid_path", PLACES, read::text)
        .default("/")
        .syntax("userid_path PATH;")
        .text("The path below which browsers send the cookie.")
        .example("userid_path /shop;");

/// How long a browser keeps the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expires {
    /// Until it is closed.
    Session,
    /// For ever, as far as old programs understand it.
    Max,
    /// So many seconds.
    After(u64),
}

pub(super) static USERID_EXPIRES: Directive<Expires> =
    Directive::new("userid_expires", PLACES, read_expires)
        .default("off")
        .syntax("userid_expires TIME | max | off;")
        .text(
            "How long browsers keep the cookie; `max` until the end of 2037, `off` until the \
             browser is closed.",
        )
        .example("userid_expires 365d;");

fn read_expires(args: &Args<'_>) -> Result<Expires, Invalid> {
    match args.word(0).bytes() {
        b"max" => Ok(Expires::Max),
        b"off" => Ok(Expires::Session),
        _ => Ok(match read::time_s(args)? {
            0 => Expires::Session,
            seconds => Expires::After(seconds),
        }),
    }
}

/// The flags by name, in the order in which they are sent; `off` is none of them.
pub(super) static FLAGS: &[(&str, u32)] = &[
    ("off", 0),
    ("secure", 1),
    ("httponly", 2),
    ("samesite=strict", 4),
    ("samesite=lax", 8),
    ("samesite=none", 16),
];

pub(super) static USERID_FLAGS: Directive<u32> =
    Directive::new("userid_flags", PLACES, |args: &Args<'_>| read::bitmask(args, FLAGS))
        .takes(Arity::Between(1, 3))
        .default("off")
        .syntax("userid_flags off | FLAG ...;")
        .text(
            "Flags of the cookie: `secure`, `httponly`, `samesite=strict`, `samesite=lax`, \
             `samesite=none`.",
        )
        .example("userid_flags secure httponly samesite=lax;");

pub(super) static USERID_P3P: Directive<String> = Directive::new("userid_p3p", PLACES, read::text)
    .default("none")
    .syntax("userid_p3p TEXT | none;")
    .text("A field P3P that is sent along with the cookie.")
    .example("userid_p3p 'policyref=\"/w3c/p3p.xml\", CP=\"CUR ADM OUR NOR STA NID\"';");

pub(super) static USERID_SERVICE: Directive<u64> =
    Directive::new("userid_service", PLACES, read::number)
        .syntax("userid_service NUMBER;")
        .text(
            "The number of this server in marks, for several servers that answer for one address. \
             Without it marks carry the last four bytes of the server's address, those of `v1` 0.",
        )
        .example("userid_service 2;");

pub(super) static USERID_MARK: Directive<Option<u8>> =
    Directive::new("userid_mark", PLACES, read_mark)
        .default("off")
        .syntax("userid_mark LETTER | DIGIT | = | off;")
        .text(
            "A sign in place of the padding of the cookie's base64. A client whose cookie lacks it \
             gets its mark once more, in a cookie with the sign and the other settings of now.",
        )
        .example("userid_mark z;");

fn read_mark(args: &Args<'_>) -> Result<Option<u8>, Invalid> {
    match args.word(0).bytes() {
        b"off" => Ok(None),
        [sign] if sign.is_ascii_alphanumeric() || *sign == b'=' => Ok(Some(*sign)),
        _ => Err(Invalid::new(
            "\"userid_mark\" directive value must be \"off\" or a single letter, digit or \"=\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_times() {
        assert_eq!(USERID_MARK.read_text("off").unwrap(), None);
        assert_eq!(USERID_MARK.read_text("z").unwrap(), Some(b'z'));
        assert_eq!(USERID_MARK.read_text("=").unwrap(), Some(b'='));
        for text in ["zz", "-", "\"\""] {
            assert!(USERID_MARK.read_text(text).is_err(), "{text}");
        }
        assert_eq!(USERID_EXPIRES.read_text("max").unwrap(), Expires::Max);
        assert_eq!(USERID_EXPIRES.read_text("1h").unwrap(), Expires::After(3600));
        assert_eq!(USERID_EXPIRES.read_text("off").unwrap(), Expires::Session);
        assert!(USERID_EXPIRES.read_text("never").is_err());
        assert_eq!(USERID_FLAGS.read_text("secure samesite=lax").unwrap(), 9);
    }
}
