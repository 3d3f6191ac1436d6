//! `aio` and `thread_pool`, which take reads of files off nginx's event loop (nginx:
//! ngx_http_core_module, ngx_thread_pool). Here files are read by the worker itself, in steps
//! between which others get their turn; what the lines say is checked all the same.

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, MAIN, Scope, read};
use http::compile::Compiler;
use http::{LocationBuilder, Module};
use session::contexts::{HTTP, LOCATION, SERVER};

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    http: Some(check_pools),
    location: Some(attach),
    ..Module::new("http_aio", "Who waits for disks.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&THREAD_POOL, &AIO, &AIO_WRITE];

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// The pool that exists without being declared.
const DEFAULT_POOL: &str = "default";

const REASON: &str = "a worker has one thread; it reads in small steps, mostly from the kernel's \
     cache, and while it waits for a disk new connections go to other workers";

/// The pool's name.
static THREAD_POOL: Directive<String> = Directive::new("thread_pool", &[MAIN], read_pool)
    .takes(Arity::Between(2, 3))
    .many()
    .syntax("thread_pool NAME threads=N [max_queue=N];")
    .text("Names a pool of threads for `aio`. The pool `default` exists without being named.")
    .moot(REASON)
    .example("thread_pool disks threads=16;");

fn read_pool(args: &Args<'_>) -> Result<String, Invalid> {
    let mut threads = None;
    for (i, word) in args.words().iter().enumerate().skip(1) {
        if let Some(digits) = word.bytes().strip_prefix(b"threads=") {
            threads = read::parse_number(digits).filter(|threads| *threads > 0);
            if threads.is_none() {
                let reason = format!("invalid threads value \"{}\"", word.str());
                return Err(Invalid::new(reason).at(i));
            }
        } else if let Some(digits) = word.bytes().strip_prefix(b"max_queue=")
            && read::parse_number(digits).is_none()
        {
            return Err(Invalid::new(format!("invalid max_queue value \"{}\"", word.str())).at(i));
        }
    }
    match threads {
        Some(_) => Ok(args.str(0).into_owned()),
        None => Err(Invalid::new("\"thread_pool\" must have \"threads\" parameter")),
    }
}

/// Who reads files.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reading {
    Worker,
    Kernel,
    /// A pool, when it is known by name.
    Threads(Option<String>),
}

static AIO: Directive<Reading> = Directive::new("aio", PLACES, read_aio)
    .default("off")
    .syntax("aio on | off | threads[=POOL];")
    .text("Whether files are read without the worker waiting for them.")
    .moot(REASON)
    .example("aio threads;");

fn read_aio(args: &Args<'_>) -> Result<Reading, Invalid> {
    match args.word(0).bytes() {
        b"off" => Ok(Reading::Worker),
        b"on" => Ok(Reading::Kernel),
        b"threads" => Ok(Reading::Threads(Some(DEFAULT_POOL.to_owned()))),
        word => match word.strip_prefix(b"threads=") {
            Some(name) => {
                let name = config::Template::parse(name).map_err(Invalid::from)?;
                let text = name.constant().map(|name| String::from_utf8_lossy(name).into_owned());
                Ok(Reading::Threads(text))
            }
            None => Err(read::refuse(args, 0, "invalid value")),
        },
    }
}

static AIO_WRITE: Directive<bool> = Directive::new("aio_write", PLACES, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("aio_write on | off;")
    .text("Whether temporary files are written without the worker waiting for them.")
    .moot(REASON)
    .example("aio_write on;");

/// The pools that the main level names.
#[derive(Default)]
struct Pools(Vec<String>);

fn check_pools(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let mut names = vec![DEFAULT_POOL.to_owned()];
    let mut declared_default = false;
    for (name, span) in scope.nodes(&THREAD_POOL) {
        let is_first_default = name == DEFAULT_POOL && !declared_default;
        declared_default |= is_first_default;
        if names.contains(&name) && !is_first_default {
            scope.error(span, format!("duplicate thread pool \"{name}\""));
        }
        names.push(name);
    }
    *c.state::<Pools>() = Pools(names);
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, _: &mut LocationBuilder) {
    scope.find(&AIO_WRITE);
    if let Some((Reading::Threads(Some(pool)), span)) = scope.local_spanned(&AIO)
        && !c.state::<Pools>().0.contains(&pool)
    {
        scope.error(span, format!("unknown thread pool \"{pool}\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |line: Result<String, Invalid>, expected: Result<&str, &str>| {
            let line = line.map_err(|invalid| invalid.message);
            assert_eq!(line, expected.map(str::to_owned).map_err(str::to_owned));
        };
        check(THREAD_POOL.read_text("a threads=2"), Ok("a"));
        check(THREAD_POOL.read_text("a max_queue=0 threads=2"), Ok("a"));
        check(THREAD_POOL.read_text("a threads=0"), Err("invalid threads value \"threads=0\""));
        let missing = "\"thread_pool\" must have \"threads\" parameter";
        check(THREAD_POOL.read_text("a max_queue=1"), Err(missing));
        let invalid = "invalid max_queue value \"max_queue=x\"";
        check(THREAD_POOL.read_text("a threads=1 max_queue=x"), Err(invalid));
        let threads = |name: &str| Reading::Threads(Some(name.to_owned()));
        assert_eq!(AIO.read_text("threads").unwrap(), threads("default"));
        assert_eq!(AIO.read_text("threads=a").unwrap(), threads("a"));
        assert_eq!(AIO.read_text("threads=$a").unwrap(), Reading::Threads(None));
        assert!(AIO.read_text("threadsa").is_err());
    }
}
