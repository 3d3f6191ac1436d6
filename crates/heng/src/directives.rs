//! The directives of the main and `events` levels, as data.
//!
//! `error_log` is declared where logs are (crate `session`); engines declare their own.

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, MAIN, Opens, Repeat, read};
use session::access::Clients;
use session::network::Network;
use system::driver;

/// Inside `events { }`.
pub const EVENTS: Context = Context::new("events", "events");

/// The directives of processes and their surroundings.
pub static CORE: &[&dyn AnyDirective] = &[
    &DAEMON,
    &MASTER_PROCESS,
    &WORKER_PROCESSES,
    &WORKER_CPU_AFFINITY,
    &WORKER_PRIORITY,
    &WORKER_RLIMIT_NOFILE,
    &WORKER_RLIMIT_CORE,
    &WORKER_SHUTDOWN_TIMEOUT,
    &WORKING_DIRECTORY,
    &USER,
    &PID,
    &LOCK_FILE,
    &ENV,
    &TIMER_RESOLUTION,
    &PCRE_JIT,
    &EVENTS_BLOCK,
];

/// The directives of the event loop.
pub static EVENTS_DIRECTIVES: &[&dyn AnyDirective] = &[
    &WORKER_CONNECTIONS,
    &EPOLL_EVENTS,
    &USE,
    &MULTI_ACCEPT,
    &ACCEPT_MUTEX,
    &ACCEPT_MUTEX_DELAY,
    &DEBUG_CONNECTION,
    &WORKER_AIO_REQUESTS,
];

pub static DAEMON: Directive<bool> = Directive::new("daemon", &[MAIN], read::flag)
    .takes(Arity::Flag)
    .default("on")
    .syntax("daemon on | off;")
    .text(
        "Whether the program goes to the background. The command returns when every listener \
         accepts and the pid file is there. Under a supervisor it is off.",
    )
    .example("daemon off;");

pub static MASTER_PROCESS: Directive<bool> = Directive::new("master_process", &[MAIN], read::flag)
    .takes(Arity::Flag)
    .default("on")
    .syntax("master_process on | off;")
    .text(
        "Whether workers are processes of their own. When off, the one process serves by \
             itself and keeps the user that started it; meant for development.",
    )
    .example("master_process off;");

/// How many workers: a number, or one per processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerCount {
    Auto,
    Exactly(u64),
}

pub static WORKER_PROCESSES: Directive<WorkerCount> =
    Directive::new("worker_processes", &[MAIN], read_worker_processes)
        .default("1")
        .syntax("worker_processes NUMBER | auto;")
        .text(
            "How many worker processes serve. `auto` starts one for each processor that is \
             online.",
        )
        .example("worker_processes auto;");

fn read_worker_processes(args: &Args<'_>) -> Result<WorkerCount, Invalid> {
    /// As many processes as Linux can number; more is a slip of the keyboard.
    const MOST: u64 = 1 << 22;
    if args.word(0).bytes() == b"auto" {
        return Ok(WorkerCount::Auto);
    }
    match read::parse_number(args.word(0).bytes()) {
        Some(count) if count <= MOST => Ok(WorkerCount::Exactly(count)),
        _ => Err(read::refuse(args, 0, "invalid value")),
    }
}

/// On which processors workers run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Affinity {
    /// One mask per worker: processor numbers. The last one serves all further workers.
    Masks(Vec<Vec<usize>>),
    /// One processor each, in turn, out of these; nothing means out of all.
    Auto(Option<Vec<usize>>),
}

impl Affinity {
    /// The processors of worker `number`, counted from 0, on a machine with `count` processors.
    pub fn of_worker(&self, number: usize, count: usize) -> Vec<usize> {
        match self {
            Affinity::Masks(masks) => {
                masks.get(number).or(masks.last()).cloned().unwrap_or_default()
            }
            Affinity::Auto(Some(among)) if !among.is_empty() => vec![among[number % among.len()]],
            Affinity::Auto(_) => vec![number % count.max(1)],
        }
    }
}

pub static WORKER_CPU_AFFINITY: Directive<Affinity> =
    Directive::new("worker_cpu_affinity", &[MAIN], read_affinity)
        .takes(Arity::AtLeast(1))
        .syntax("worker_cpu_affinity MASK ...;\nworker_cpu_affinity auto [MASK];")
        .text(
            "Binds workers to processors. Each MASK is a binary number whose last digit stands \
             for processor 0; there is one for each worker. With `auto` each worker gets one \
             processor, out of those in MASK when it is given.",
        )
        .example("worker_cpu_affinity auto 0101;");

fn read_affinity(args: &Args<'_>) -> Result<Affinity, Invalid> {
    if args.word(0).bytes() == b"auto" {
        return match args.len() {
            1 => Ok(Affinity::Auto(None)),
            2 => Ok(Affinity::Auto(Some(read_mask(args, 1)?))),
            _ => Err(Invalid::new(
                "invalid number of arguments in \"worker_cpu_affinity\" directive",
            )),
        };
    }
    (0..args.len()).map(|i| read_mask(args, i)).collect::<Result<_, _>>().map(Affinity::Masks)
}

/// The processors of a binary number, the last digit first.
fn read_mask(args: &Args<'_>, i: usize) -> Result<Vec<usize>, Invalid> {
    /// The size of the kernel's set in the C library (`CPU_SETSIZE`).
    const MOST: usize = 1024;
    let text = args.str(i);
    if text.len() > MOST {
        let message = format!("\"worker_cpu_affinity\" supports up to {MOST} CPUs only");
        return Err(Invalid::new(message).at(i));
    }
    if let Some(other) = text.chars().find(|digit| !matches!(digit, '0' | '1' | ' ')) {
        let message = format!("invalid character \"{other}\" in \"worker_cpu_affinity\"");
        return Err(Invalid::new(message).at(i));
    }
    let digits = text.bytes().rev().filter(|&digit| digit != b' ');
    Ok(digits.enumerate().filter(|(_, digit)| *digit == b'1').map(|(number, _)| number).collect())
}

pub static WORKER_PRIORITY: Directive<i32> =
    Directive::new("worker_priority", &[MAIN], read_priority)
        .default("0")
        .syntax("worker_priority NUMBER;")
        .text(
            "The scheduling priority of workers, as nice(1) counts: a negative number comes \
             first. Usually between -20 and 20.",
        )
        .example("worker_priority -5;");

fn read_priority(args: &Args<'_>) -> Result<i32, Invalid> {
    let word = args.word(0).bytes();
    let (sign, digits) = match word {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let number = read::parse_number(digits).and_then(|number| i32::try_from(number).ok());
    number.map(|number| sign * number).ok_or_else(|| read::refuse(args, 0, "invalid number"))
}

pub static WORKER_RLIMIT_NOFILE: Directive<u64> =
    Directive::new("worker_rlimit_nofile", &[MAIN], read::number)
        .syntax("worker_rlimit_nofile NUMBER;")
        .text("How many descriptors a worker may have open, in place of the starter's limit.")
        .example("worker_rlimit_nofile 65536;");

pub static WORKER_RLIMIT_CORE: Directive<u64> =
    Directive::new("worker_rlimit_core", &[MAIN], read::offset)
        .syntax("worker_rlimit_core SIZE;")
        .text("How large a worker's core file may become, in place of the starter's limit.")
        .example("worker_rlimit_core 500m;");

pub static WORKER_SHUTDOWN_TIMEOUT: Directive<u64> =
    Directive::new("worker_shutdown_timeout", &[MAIN], read::time_ms)
        .syntax("worker_shutdown_timeout TIME;")
        .text(
            "How long a worker that was told to finish may take for its open connections; then \
             it closes them. Without it there is no limit.",
        )
        .example("worker_shutdown_timeout 30s;");

pub static WORKING_DIRECTORY: Directive<String> =
    Directive::new("working_directory", &[MAIN], read::text)
        .syntax("working_directory DIRECTORY;")
        .text("The working directory of workers, where a core file is written.")
        .example("working_directory /var/tmp;");

/// The words of `user`; the names are looked up when the configuration is compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserNames {
    pub user: String,
    /// The group of the same name when absent.
    pub group: Option<String>,
}

pub static USER: Directive<UserNames> = Directive::new("user", &[MAIN], read_user)
    .takes(Arity::Between(1, 2))
    .default("nobody nogroup")
    .syntax("user USER [GROUP];")
    .text(
        "The user and group that workers run as. Without GROUP it is the group of the user's \
         name. Only a master that runs as the superuser can change them; another one warns.",
    )
    .example("user www-data www-data;");

fn read_user(args: &Args<'_>) -> Result<UserNames, Invalid> {
    let group = (args.len() > 1).then(|| args.str(1).into_owned());
    Ok(UserNames { user: args.str(0).into_owned(), group })
}

pub static PID: Directive<String> = Directive::new("pid", &[MAIN], read::text)
    .syntax("pid FILE;")
    .text(
        "The file that holds the number of the master process. It appears when every listener \
         accepts and is removed at the end. A relative FILE starts at the prefix (-p). Without \
         this directive it is the place built in, which -V shows.",
    )
    .example("pid /run/heng.pid;");

pub static LOCK_FILE: Directive<String> = Directive::new("lock_file", &[MAIN], read::text)
    .syntax("lock_file FILE;")
    .text("Accepted for the sake of existing configurations.")
    .moot("Locks between workers are atomic operations in shared memory; no file is used.")
    .example("lock_file logs/nginx.lock;");

/// One `env`: a variable to keep, or to set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnvironmentEntry {
    Keep(String),
    Set { name: String, value: String },
}

pub static ENV: Directive<EnvironmentEntry> = Directive::new("env", &[MAIN], read_env)
    .many()
    .syntax("env NAME;\nenv NAME=VALUE;")
    .text(
        "Keeps an environment variable for workers and for the new program of an upgrade, or \
         sets one. All others are taken away, except TZ.",
    )
    .example("env MALLOC_ARENA_MAX=1;");

fn read_env(args: &Args<'_>) -> Result<EnvironmentEntry, Invalid> {
    let text = args.str(0);
    Ok(match text.split_once('=') {
        Some((name, value)) => {
            EnvironmentEntry::Set { name: name.to_owned(), value: value.to_owned() }
        }
        None => EnvironmentEntry::Keep(text.into_owned()),
    })
}

pub static TIMER_RESOLUTION: Directive<u64> =
    Directive::new("timer_resolution", &[MAIN], read::time_ms)
        .syntax("timer_resolution TIME;")
        .text("Accepted for the sake of existing configurations.")
        .moot("The clock is read once per turn of the loop, which costs next to nothing.")
        .example("timer_resolution 100ms;");

pub static PCRE_JIT: Directive<bool> = Directive::new("pcre_jit", &[MAIN], read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("pcre_jit on | off;")
    .text("Accepted for the sake of existing configurations.")
    .moot("Regular expressions are always compiled to machine code where that is possible.")
    .example("pcre_jit on;");

pub static EVENTS_BLOCK: Directive<()> = Directive::new("events", &[MAIN], read::nothing)
    .takes(Arity::None)
    .opens(Opens::Context(EVENTS))
    .syntax("events { ... }")
    .text("Holds what concerns a worker's event loop. It must be there, and may be empty.")
    .example("events { worker_connections 1024; }");

pub static WORKER_CONNECTIONS: Directive<u64> =
    Directive::new("worker_connections", &[EVENTS], read_connections)
        .default("512")
        .syntax("worker_connections NUMBER;")
        .text(
            "How many connections a worker may have open at a time: those with clients and \
             those with upstream servers.",
        )
        .example("worker_connections 10000;");

fn read_connections(args: &Args<'_>) -> Result<u64, Invalid> {
    let invalid = || Invalid::new(format!("invalid number \"{}\"", args.str(0))).at(0);
    read::parse_number(args.word(0).bytes()).ok_or_else(invalid)
}

pub static USE: Directive<driver::Kind> = Directive::new("use", &[EVENTS], read_use)
    .repeats(Repeat::Once)
    .default("epoll")
    .syntax("use epoll | io_uring | poll | select;")
    .text(
        "By which interface of the kernel a worker learns what is ready. With `io_uring` it makes \
         nearly no system calls under load; what a request costs is about the same as with \
         `epoll`, which also sends in batches. Where the kernel (before Linux 6.1), a limit or a \
         sandbox forbids it, workers use `epoll` and log a `notice`.",
    )
    .example("use io_uring;");

fn read_use(args: &Args<'_>) -> Result<driver::Kind, Invalid> {
    match args.word(0).bytes() {
        b"epoll" => Ok(driver::Kind::Epoll),
        b"io_uring" => Ok(driver::Kind::IoUring),
        b"poll" => Ok(driver::Kind::Poll),
        b"select" => Ok(driver::Kind::Select),
        _ => Err(Invalid::new(format!("invalid event type \"{}\"", args.str(0))).at(0)),
    }
}

/// The name that `use` and the log have for it.
pub fn event_method(kind: driver::Kind) -> &'static str {
    match kind {
        driver::Kind::IoUring => "io_uring",
        driver::Kind::Poll => "poll",
        driver::Kind::Select => "select",
        _ => "epoll",
    }
}

pub static EPOLL_EVENTS: Directive<u64> =
    Directive::new("epoll_events", &[EVENTS], read_connections)
        .default("64")
        .syntax("epoll_events N;")
        .text(
            "How many events one look at the kernel brings at most, with `use epoll`. nginx has \
             512; but the memory of so many requests at a time is more than the near caches of a \
             processor hold, and another look costs little. What clients send is looked at after, \
             and apart from, everything else: requests that were begun are finished first.",
        )
        .example("epoll_events 128;");

pub static MULTI_ACCEPT: Directive<bool> = Directive::new("multi_accept", &[EVENTS], read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("multi_accept on | off;")
    .text(
        "Whether a worker that is told of a new connection takes all that wait, or one before it \
         looks at its other work.",
    )
    .example("multi_accept on;");

pub static WORKER_AIO_REQUESTS: Directive<u64> =
    Directive::new("worker_aio_requests", &[EVENTS], read::number)
        .default("32")
        .syntax("worker_aio_requests N;")
        .text("How many reads of files a worker has the kernel do at a time.")
        .moot("Workers read files themselves, see aio.")
        .example("worker_aio_requests 128;");

/// Whose connections are logged in every detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Debugged {
    Clients(Clients),
    /// A name whose addresses are looked up when the configuration is put to use.
    Name(String),
}

pub static DEBUG_CONNECTION: Directive<Debugged> =
    Directive::new("debug_connection", &[EVENTS], read_debugged)
        .many()
        .syntax("debug_connection ADDRESS | NETWORK | NAME | unix:;")
        .text(
            "Logs the connections of some clients in every detail, whatever the level of \
             `error_log` is: those of an address, of a network, of all addresses that a name has \
             at the start, or of unix sockets.",
        )
        .example("debug_connection 127.0.0.1;");

fn read_debugged(args: &Args<'_>) -> Result<Debugged, Invalid> {
    let text = args.str(0);
    if text == "unix:" {
        return Ok(Debugged::Clients(Clients::Unix));
    }
    if let Some(parsed) = Network::parse(&text) {
        if parsed.has_low_bits {
            let reason = format!("low address bits of {text} are meaningless");
            args.warn(Invalid::new(reason).at(0));
        }
        return Ok(Debugged::Clients(Clients::Network(parsed.network)));
    }
    Ok(Debugged::Name(text.into_owned()))
}

pub static ACCEPT_MUTEX: Directive<bool> = Directive::new("accept_mutex", &[EVENTS], read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("accept_mutex on | off;")
    .text("Accepted for the sake of existing configurations.")
    .moot("The kernel wakes one worker per connection, and workers take turns on their own.")
    .example("accept_mutex on;");

pub static ACCEPT_MUTEX_DELAY: Directive<u64> =
    Directive::new("accept_mutex_delay", &[EVENTS], read::time_ms)
        .default("500ms")
        .syntax("accept_mutex_delay TIME;")
        .text("Accepted for the sake of existing configurations.")
        .moot("There is no mutex to wait for, see accept_mutex.")
        .example("accept_mutex_delay 100ms;");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_hold_what_they_promise() {
        let registry = config::Registry::new(&[CORE, EVENTS_DIRECTIVES]);
        assert_eq!(registry.faults(), Vec::<String>::new());
    }

    fn check<T: std::fmt::Debug>(directive: &Directive<T>, rows: &[(&str, &str)]) {
        for (arguments, expected) in rows {
            let outcome = match directive.read_text(arguments) {
                Ok(value) => format!("{value:?}"),
                Err(invalid) => invalid.message,
            };
            assert_eq!(outcome, *expected, "{} {arguments}", directive.spec.name);
        }
    }

    #[test]
    fn values_are_read_in_nginx_words() {
        check(
            &WORKER_PROCESSES,
            &[
                ("auto", "Auto"),
                ("0", "Exactly(0)"),
                ("4", "Exactly(4)"),
                ("x", "\"worker_processes\" directive invalid value"),
                ("99999999", "\"worker_processes\" directive invalid value"),
            ],
        );
        check(
            &WORKER_CPU_AFFINITY,
            &[
                ("0101 10", "Masks([[0, 2], [1]])"),
                ("auto", "Auto(None)"),
                ("auto 110", "Auto(Some([1, 2]))"),
                ("01x", "invalid character \"x\" in \"worker_cpu_affinity\""),
                ("auto 1 1", "invalid number of arguments in \"worker_cpu_affinity\" directive"),
            ],
        );
        let priority = "\"worker_priority\" directive invalid number";
        check(
            &WORKER_PRIORITY,
            &[("-5", "-5"), ("+5", "5"), ("99", "99"), ("-", priority), ("x", priority)],
        );
        check(
            &USE,
            &[("poll", "Poll"), ("io_uring", "IoUring"), ("foo", "invalid event type \"foo\"")],
        );
        check(&ENV, &[("A", "Keep(\"A\")"), ("A=b=c", "Set { name: \"A\", value: \"b=c\" }")]);
    }

    #[test]
    fn workers_get_their_processors() {
        for (arguments, expected) in [
            ("01 10", [vec![0], vec![1], vec![1]]),
            ("auto", [vec![0], vec![1], vec![0]]),
            ("auto 100", [vec![2], vec![2], vec![2]]),
        ] {
            let affinity = WORKER_CPU_AFFINITY.read_text(arguments).unwrap();
            assert_eq!([0, 1, 2].map(|worker| affinity.of_worker(worker, 2)), expected);
        }
    }
}
