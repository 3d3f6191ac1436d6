//! A file of a folder by chance (nginx: ngx_http_random_index_module).

use config::{AnyDirective, Arity, Directive, Scope, read};
use http::compile::Compiler;
use http::{Content, Exchange, LocationBuilder, Module, Step, Verdict};
use session::contexts::LOCATION;
use wire::http1::Method;

use crate::autoindex::Folder;
use crate::static_files::leaves_alias;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_random_index",
        "Answers requests whose path ends in a slash with any one of the files of that folder.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&RANDOM_INDEX];

/// `random_index`.
pub static RANDOM_INDEX: Directive<bool> = Directive::new("random_index", &[LOCATION], read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("random_index on | off;")
    .text(
        "Whether a folder is answered with one of its files, drawn anew for each request, by \
             an internal redirect to it. It comes before `index`. Files whose names begin with a \
             dot are never drawn; a folder without files is left to `index`.",
    )
    .example("random_index on;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    if scope.get(&RANDOM_INDEX) {
        builder.content(RandomIndex);
    }
}

struct RandomIndex;

impl Content for RandomIndex {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Now(answer(x))
    }
}

fn answer(x: &mut Exchange) -> Verdict {
    if !x.text(x.request.uri).ends_with(b"/")
        || !matches!(x.request.method, Method::Get | Method::Head | Method::Post)
    {
        return Verdict::Next;
    }
    if http::files::is_astray(x) {
        return Verdict::Status(500);
    }
    if leaves_alias(x) {
        return Verdict::Status(404);
    }
    let path = http::files::path(x);
    let folder = match Folder::open(x, path) {
        Ok(folder) => folder,
        Err(status) => return Verdict::Status(status),
    };
    let Ok(mut entries) = folder.entries(x) else { return Verdict::Status(500) };
    entries.retain(|entry| entry.is_file());
    let mut random = [0; 8];
    if system::process::random(&mut random).is_err() {
        return Verdict::Status(500);
    }
    let drawn = place(u64::from_ne_bytes(random), entries.len());
    let Some(entry) = entries.get(drawn) else { return Verdict::Next };
    let mark = x.arena.mark();
    x.arena.copy(x.request.uri);
    x.arena.push(&entry.name);
    Verdict::Internal { uri: x.arena.since(mark), args: x.request.args }
}

/// Spreads a random number evenly over the places below `count`; 0 when there is none.
fn place(random: u64, count: usize) -> usize {
    ((u128::from(random) * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn places() {
        let check = |random: u64, count: usize, expected: usize| {
            assert_eq!(place(random, count), expected, "{random} of {count}");
        };
        check(0, 3, 0);
        check(u64::MAX, 3, 2);
        check(u64::MAX / 2, 3, 1);
        check(u64::MAX, 1, 0);
        check(u64::MAX, 0, 0);
    }
}
