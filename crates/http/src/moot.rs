//! Directives of nginx's core that change nothing here, each with the reason. Their values are
//! judged as nginx does.

use config::{AnyDirective, Args, Context, Directive, Invalid, Scope, read};
use session::contexts::{HTTP, LOCATION, SERVER};

const H: &[Context] = &[HTTP];
const HS: &[Context] = &[HTTP, SERVER];
const HSL: &[Context] = &[HTTP, SERVER, LOCATION];

type Number = Directive<u64>;

macro_rules! hash_sizes {
    ($($id:ident $name:literal $contexts:ident $default:literal),* $(,)?) => {$(
        static $id: Number = Directive::new($name, $contexts, read::number)
            .default($default)
            .syntax(concat!($name, " SIZE;"))
            .text("Accepted for nginx's configurations.")
            .moot("hash tables grow as they need")
            .example(concat!($name, " 512;"));
    )*};
}

hash_sizes! {
    SERVER_NAMES_HASH_MAX_SIZE "server_names_hash_max_size" H "512",
    SERVER_NAMES_HASH_BUCKET_SIZE "server_names_hash_bucket_size" H "64",
    VARIABLES_HASH_MAX_SIZE "variables_hash_max_size" H "1024",
    VARIABLES_HASH_BUCKET_SIZE "variables_hash_bucket_size" H "64",
    TYPES_HASH_MAX_SIZE "types_hash_max_size" HSL "1024",
    TYPES_HASH_BUCKET_SIZE "types_hash_bucket_size" HSL "64",
}

static CONNECTION_POOL_SIZE: Number = Directive::new("connection_pool_size", HS, read_pool_size)
    .default("512")
    .syntax("connection_pool_size SIZE;")
    .text("How much memory nginx takes at once for a connection.")
    .moot("connections have a fixed size")
    .example("connection_pool_size 256;");

static REQUEST_POOL_SIZE: Number = Directive::new("request_pool_size", HS, read_pool_size)
    .default("4k")
    .syntax("request_pool_size SIZE;")
    .text("How much memory nginx takes at once for a request.")
    .moot("requests use rooms that grow once and are kept for the next ones")
    .example("request_pool_size 8k;");

/// The least that nginx takes, and what it must be a multiple of.
const LEAST_POOL: u64 = 112;
const POOL_STEP: u64 = 16;

fn read_pool_size(args: &Args<'_>) -> Result<u64, Invalid> {
    let size = read::size(args)?;
    if size < LEAST_POOL {
        let reason = format!("the pool size must be no less than {LEAST_POOL}");
        return Err(Invalid::new(reason).at(0));
    }
    if !size.is_multiple_of(POOL_STEP) {
        let reason = format!("the pool size must be a multiple of {POOL_STEP}");
        return Err(Invalid::new(reason).at(0));
    }
    Ok(size)
}

static SEND_LOWAT: Number = Directive::new("send_lowat", HSL, read::size)
    .default("0")
    .syntax("send_lowat SIZE;")
    .text("How much room the kernel should have before it tells that a client can be sent more.")
    .moot("Linux has no such setting for sockets; nginx ignores it there too")
    .example("send_lowat 12000;");

/// Everything above.
pub static ALL: &[&dyn AnyDirective] = &[
    &SERVER_NAMES_HASH_MAX_SIZE,
    &SERVER_NAMES_HASH_BUCKET_SIZE,
    &VARIABLES_HASH_MAX_SIZE,
    &VARIABLES_HASH_BUCKET_SIZE,
    &TYPES_HASH_MAX_SIZE,
    &TYPES_HASH_BUCKET_SIZE,
    &CONNECTION_POOL_SIZE,
    &REQUEST_POOL_SIZE,
    &SEND_LOWAT,
];

/// They are read all the same, so that the test which looks for directives that nobody reads
/// stays sharp.
pub(crate) fn read_all(scope: &Scope<'_>) {
    for directive in [
        &SERVER_NAMES_HASH_MAX_SIZE,
        &SERVER_NAMES_HASH_BUCKET_SIZE,
        &VARIABLES_HASH_MAX_SIZE,
        &VARIABLES_HASH_BUCKET_SIZE,
        &TYPES_HASH_MAX_SIZE,
        &TYPES_HASH_BUCKET_SIZE,
        &CONNECTION_POOL_SIZE,
        &REQUEST_POOL_SIZE,
        &SEND_LOWAT,
    ] {
        scope.get(directive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_sizes() {
        let check = |arguments: &str, expected: Result<u64, &str>| {
            let found = CONNECTION_POOL_SIZE.read_text(arguments);
            let expected = expected.map_err(str::to_owned);
            assert_eq!(found.map_err(|invalid| invalid.message), expected, "{arguments}");
        };
        check("256", Ok(256));
        check("4k", Ok(4096));
        check("100", Err("the pool size must be no less than 112"));
        check("120", Err("the pool size must be a multiple of 16"));
    }
}
