//! The program's state as JSON, and changes of groups while it runs (NGINX Plus:
//! ngx_http_api_module).
//!
//! The tree, its fields and its errors are those of NGINX Plus, version 9. This file finds the
//! resource of a path; `api/upstreams.rs` has the groups, `api/answer.rs` writes answers.

mod answer;
mod time;
mod upstreams;
mod zones;

use config::{AnyDirective, Args, Arity, Directive, Invalid, Scope};
use http::compile::Compiler;
use http::request_body::Stored;
use http::{Content, Exchange, LocationBuilder, Module, Step, Verdict};
use serde_json::{Value, json};
use session::access::{ALLOW, DENY};
use session::contexts::LOCATION;
use session::counters;
use session::status_zone::Subject;
use session::table::Table;
use session::zones::NamedZone;
use session::{limit_conn, limit_req};
use std::rc::Rc;
use upstream::resolver::{EVENTS, Resolvers};
use wire::http1::Method;

use crate::auth_basic::AUTH_BASIC;
use answer::{Answer, Fault};

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_api", "The program's state as JSON, and changes while it runs.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&API];

/// The newest version of the tree.
const NEWEST: u64 = 9;
/// The longest body of a change.
const BODY_MAX: u64 = 64 * 1024;

/// `api`.
pub static API: Directive<bool> = Directive::new("api", &[LOCATION], read_api)
    .takes(Arity::Between(0, 1))
    .syntax("api [write=on | off];")
    .text(
        "Answers with the program's state as JSON, in the tree of NGINX Plus: below the location \
         follow the version, 1 to 9, and `nginx`, `processes`, `connections`, `http/requests`, \
         `http/server_zones`, `http/location_zones`, `http/limit_reqs`, `http/limit_conns`, \
         `http/upstreams`, `stream/server_zones`, `stream/upstreams`, `resolvers`. \
         `?fields=a,b` leaves only these fields. Groups are shown when they have a \
         `zone`, resolvers when they have a `status_zone`.\n\n\
         With `write=on` the servers of such groups can be changed: `POST` to \
         `http/upstreams/NAME/servers` adds one, `PATCH` and `DELETE` on \
         `http/upstreams/NAME/servers/ID` change and remove it, and `DELETE` on \
         `http/upstreams/NAME` forgets what was counted. Changes reach all workers at once and \
         outlive reloads. `http/upstreams/NAME/servers/ID/timeline` tells the last events of a \
         server: when its state changed, how and why. Whoever can write decides where requests \
         go, so the location must say who may: with `allow` and `deny`, or with `auth_basic`.",
    )
    .example("location /api {\n    api write=on;\n    allow 127.0.0.1;\n    deny all;\n}");

fn read_api(args: &Args<'_>) -> Result<bool, Invalid> {
    if args.is_empty() {
        return Ok(false);
    }
    match args.word(0).bytes() {
        b"write=on" => Ok(true),
        b"write=off" => Ok(false),
        _ => Err(Invalid::new(format!("invalid parameter \"{}\"", args.str(0))).at(0)),
    }
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let Some((writable, span)) = scope.local_spanned(&API) else { return };
    let by_address = !scope.nodes(&ALLOW).is_empty() || !scope.nodes(&DENY).is_empty();
    let by_password = scope
        .find(&AUTH_BASIC)
        .is_some_and(|realm| realm.constant().is_none_or(|realm| realm != b"off"));
    if writable && !by_address && !by_password {
        let reason = "\"api write=on\" requires that the location says who may write: \
                      \"allow\" and \"deny\", or \"auth_basic\"";
        scope.error(span, reason);
    }
    let prefix = builder.location.name.len();
    let limits = [
        Limit { zones: c.zones.declared_by("limit_req_zone"), tallies: &limit_req::TALLIES },
        Limit { zones: c.zones.declared_by("limit_conn_zone"), tallies: &limit_conn::TALLIES },
    ];
    let resolvers = c.state::<Resolvers>().clone();
    builder.handler(Api { writable, prefix, limits, resolvers });
}

struct Api {
    writable: bool,
    /// Bytes of the location's name.
    prefix: usize,
    /// Of requests, and of connections.
    limits: [Limit; 2],
    resolvers: Resolvers,
}

/// The zones of a kind of limit, and what their tables count.
struct Limit {
    zones: Vec<Rc<NamedZone>>,
    tallies: &'static [&'static str],
}

impl Limit {
    fn value(&self) -> Value {
        let mut all = serde_json::Map::new();
        for zone in &self.zones {
            let Some(table) = zone.memory().and_then(|memory| Table::new(memory).ok()) else {
                continue;
            };
            let counts = self.tallies.iter().zip(table.tallies());
            let of_zone: Value = counts.map(|(name, count)| (*name, count)).collect();
            all.insert(zone.name().to_owned(), of_zone);
        }
        Value::Object(all)
    }
}

impl Content for Api {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        if matches!(x.request.method, Method::Get | Method::Head) {
            let ask = self.question(x, None);
            let answered = find(&ask, self);
            return Step::Now(answer::send(x, answered, &ask.fields));
        }
        Step::Later(Box::pin(async move {
            let body = match body(x).await {
                Ok(body) => body,
                Err(verdict) => return verdict,
            };
            let ask = self.question(x, body);
            let answered = find(&ask, self);
            answer::send(x, answered, &ask.fields)
        }))
    }
}

/// What is asked of the tree.
struct Question {
    method: Method,
    writable: bool,
    /// The location's name and the version, for links.
    base: String,
    path: Vec<String>,
    /// What `?fields=` names.
    fields: Option<Vec<String>>,
    body: Option<Vec<u8>>,
}

impl Api {
    fn question(&self, x: &Exchange, body: Option<Vec<u8>>) -> Question {
        let uri = x.text(x.request.uri);
        let (base, below) = uri.split_at(self.prefix.min(uri.len()));
        let below = String::from_utf8_lossy(below);
        let path = below.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let args = String::from_utf8_lossy(x.text(x.request.args)).into_owned();
        let fields = args.split('&').find_map(|arg| arg.strip_prefix("fields="));
        let fields = fields.map(|list| list.split(',').map(str::to_owned).collect());
        let base = String::from_utf8_lossy(base).trim_end_matches('/').to_owned();
        Question { method: x.request.method, writable: self.writable, base, path, fields, body }
    }
}

/// The body of a change, in whole.
async fn body(x: &mut Exchange) -> Result<Option<Vec<u8>>, Verdict> {
    if !x.body.exists() {
        return Ok(None);
    }
    if x.body.declared().is_some_and(|length| length > BODY_MAX) {
        return Err(Verdict::Status(413));
    }
    if let Err(error) = x.read_body().await {
        return Err(Verdict::Status(error.status()));
    }
    match &x.body.stored {
        None => Ok(None),
        Some(Stored::Memory(bytes)) => Ok(Some(bytes.to_vec())),
        Some(Stored::File(file)) if file.length > BODY_MAX => Err(Verdict::Status(413)),
        Some(Stored::File(file)) => {
            let read = std::fs::read(&file.path);
            read.map(Some).map_err(|_| Verdict::Status(500))
        }
    }
}

fn find(ask: &Question, api: &Api) -> Answer {
    let [requests_limit, connections_limit] = &api.limits;
    let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
    let Some((version, rest)) = path.split_first() else {
        return reads(ask, || json!((1..=NEWEST).collect::<Vec<_>>()));
    };
    let known = version.parse::<u64>().is_ok_and(|version| (1..=NEWEST).contains(&version));
    if !known {
        return Err(Fault::new(404, "unknown version", "UnknownVersion"));
    }
    match rest {
        [] => reads(ask, || {
            json!(["nginx", "processes", "connections", "http", "stream", "resolvers"])
        }),
        ["nginx"] => reads(ask, nginx),
        ["processes"] => reads(ask, || json!({ "respawned": counters::totals().respawned })),
        ["connections"] => reads(ask, connections),
        ["http"] => reads(ask, || {
            json!([
                "limit_conns",
                "limit_reqs",
                "location_zones",
                "requests",
                "server_zones",
                "upstreams"
            ])
        }),
        ["http", "server_zones", rest @ ..] => zones::find(ask, Subject::Server, rest),
        ["http", "location_zones", rest @ ..] => zones::find(ask, Subject::Location, rest),
        ["stream", "server_zones", rest @ ..] => zones::find(ask, Subject::StreamServer, rest),
        ["http", "requests"] => reads(ask, requests),
        ["http", "limit_reqs"] => reads(ask, || requests_limit.value()),
        ["http", "limit_conns"] => reads(ask, || connections_limit.value()),
        ["resolvers"] => reads(ask, || resolvers(&api.resolvers)),
        ["stream"] => reads(ask, || json!(["server_zones", "upstreams"])),
        [engine @ ("http" | "stream"), "upstreams", rest @ ..] => {
            upstreams::find(ask, engine, rest)
        }
        _ => Err(Fault::new(404, "path not found", "PathNotFound")),
    }
}

/// A resource that is only read.
fn reads(ask: &Question, value: impl FnOnce() -> Value) -> Answer {
    match ask.method {
        Method::Get | Method::Head => Ok((200, Some(value()), None)),
        _ => Err(Fault::method()),
    }
}

fn nginx() -> Value {
    let identity = system::identity::identity();
    json!({
        "version": identity.version,
        "build": identity.program,
        "pid": system::process::own_pid().0,
        "ppid": system::process::parent_pid().0,
        "timestamp": time::now(),
    })
}

fn connections() -> Value {
    let now = counters::totals();
    json!({
        "accepted": now.accepted,
        "dropped": now.accepted.saturating_sub(now.handled),
        "active": now.active.saturating_sub(now.waiting),
        "idle": now.waiting,
    })
}

fn resolvers(known: &Resolvers) -> Value {
    let of_resolver = |counts: [u64; EVENTS.len()]| {
        let mut value = json!({ "requests": {}, "responses": {} });
        for ((kind, name), count) in EVENTS.iter().zip(counts) {
            value[*kind][*name] = count.into();
        }
        value
    };
    known.counts().into_iter().map(|(name, counts)| (name, of_resolver(counts))).collect()
}

fn requests() -> Value {
    let now = counters::totals();
    json!({ "total": now.requests, "current": now.reading + now.writing })
}
