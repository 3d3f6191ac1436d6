//! Groups and their servers in the API.

use serde_json::{Map, Value, json};
use std::rc::Rc;
use upstream::admin::{self, Change, Refusal, Status};
use upstream::timeline::Event;
use upstream::{Group, Health, Host, Member, PeerOptions, Statistics, Target};
use wire::http1::Method;

use super::answer::{Answer, Fault};
use super::{Question, reads, time};

/// The port of a server that names none, in http.
const PORT: u16 = 80;

/// The resource below `upstreams`.
pub(super) fn find(ask: &Question, engine: &str, path: &[&str]) -> Answer {
    let Some((name, rest)) = path.split_first() else {
        return reads(ask, || {
            let shared = admin::groups(engine).into_iter().filter(|group| group.is_shared());
            shared.map(|group| (group.name().to_owned(), of_group(&group, engine))).collect()
        });
    };
    let group = admin::groups(engine).into_iter().find(|group| group.name() == *name);
    let group = group.ok_or_else(|| Fault::new(404, "upstream not found", "UpstreamNotFound"))?;
    if !group.is_shared() {
        return Err(Fault::new(400, "upstream is static", "UpstreamStatic"));
    }
    let place = Place { ask, engine, group };
    match rest {
        [] => place.group(),
        ["servers"] => place.servers(),
        ["servers", id] => place.server(id),
        ["servers", id, "timeline"] => place.timeline(id),
        _ => Err(Fault::new(404, "path not found", "PathNotFound")),
    }
}

/// A group that is asked for or changed.
struct Place<'a> {
    ask: &'a Question,
    engine: &'a str,
    group: Rc<Group>,
}

impl Place<'_> {
    fn group(&self) -> Answer {
        match self.ask.method {
            Method::Delete => {
                self.may_write()?;
                self.group.reset_statistics().map_err(fault)?;
                Ok((204, None, None))
            }
            _ => reads(self.ask, || of_group(&self.group, self.engine)),
        }
    }

    fn servers(&self) -> Answer {
        match self.ask.method {
            Method::Post => {
                self.may_write()?;
                self.add()
            }
            _ => reads(self.ask, || self.list()),
        }
    }

    fn timeline(&self, id: &str) -> Answer {
        let id = number(id)?;
        let events = self.group.timeline(id).map_err(|_| unknown(id))?;
        reads(self.ask, || events.iter().map(of_event).collect())
    }

    fn server(&self, id: &str) -> Answer {
        let id = number(id)?;
        let found = self.status_of(id);
        let found = found.ok_or_else(|| unknown(id))?;
        match self.ask.method {
            Method::Patch => {
                self.may_write()?;
                let settings = Settings::read(self.ask)?;
                settings.refuse_fixed()?;
                self.group.change(id, &settings.change).map_err(fault)?;
                self.keep();
                let now = self.status_of(id);
                Ok((200, now.as_ref().map(of_server), None))
            }
            Method::Delete => {
                self.may_write()?;
                self.group.remove(id).map_err(fault)?;
                self.keep();
                Ok((200, Some(self.list()), None))
            }
            _ => reads(self.ask, || of_server(&found)),
        }
    }

    fn add(&self) -> Answer {
        let settings = Settings::read(self.ask)?;
        let Some(server) = &settings.server else {
            return Err(Fault::format("missing \"server\" argument"));
        };
        let bad = |reason: &str| {
            Fault::new(400, format!("{reason} in server \"{server}\""), "UpstreamBadAddress")
        };
        let target = Target::parse(server).map_err(bad)?;
        let port = match (target.port, &target.host) {
            (None, Host::Ip(_)) if self.engine == "stream" => return Err(bad("no port")),
            (port, _) => port.unwrap_or(PORT),
        };
        if let Host::Name(_) = target.host {
            let text = format!("\"{server}\" is a name: names stand in the configuration");
            return Err(Fault::new(400, text, "UpstreamConfNoResolver"));
        }
        let addresses = target.resolve(&upstream::SystemNames, port).map_err(bad)?;
        let address = addresses.into_iter().next().ok_or_else(|| bad("no host"))?;
        if self.group.has_address(&address) {
            let text = format!("server \"{server}\" exists already");
            return Err(Fault::new(409, text, "EntryExists"));
        }
        let change = &settings.change;
        let defaults = PeerOptions::default();
        let member = Member {
            server: server.as_str().into(),
            route: change.route.clone(),
            address,
            options: PeerOptions {
                weight: change.weight.unwrap_or(defaults.weight),
                max_conns: change.max_conns.unwrap_or(defaults.max_conns),
                max_fails: change.max_fails.unwrap_or(defaults.max_fails),
                fail_timeout: change.fail_timeout.unwrap_or(defaults.fail_timeout),
                slow_start_ms: change.slow_start_ms.unwrap_or(defaults.slow_start_ms),
                down: change.down.unwrap_or(false),
                drain: change.drain.unwrap_or(false),
                ..defaults
            },
        };
        let id = self.group.add(&member, settings.backup.unwrap_or(false)).map_err(fault)?;
        self.keep();
        let added = self.status_of(id);
        let version = self.ask.path.first().map_or("", String::as_str);
        let (base, engine, name) = (&self.ask.base, self.engine, self.group.name());
        let place = format!("{base}/{version}/{engine}/upstreams/{name}/servers/{id}");
        Ok((201, added.as_ref().map(of_server), Some(place)))
    }

    fn may_write(&self) -> Result<(), Fault> {
        if self.ask.writable { Ok(()) } else { Err(Fault::method()) }
    }

    /// What changed is written where it outlives the program, if the group has such a place.
    fn keep(&self) {
        self.group.write_state();
    }

    fn status(&self) -> Vec<Status> {
        self.group.status(net::now() / 1000)
    }

    fn status_of(&self, id: u64) -> Option<Status> {
        self.group.status_of(id, net::now() / 1000)
    }

    fn list(&self) -> Value {
        self.status().iter().map(of_server).collect()
    }
}

fn number(id: &str) -> Result<u64, Fault> {
    id.parse().map_err(|_| Fault::new(400, "invalid server ID", "UpstreamBadServerId"))
}

fn unknown(id: u64) -> Fault {
    let text = format!("server with ID \"{id}\" does not exist");
    Fault::new(404, text, "UpstreamServerNotFound")
}

fn of_event(event: &Event) -> Value {
    json!({
        "time": time::text(event.when_ms / 1000, (event.when_ms % 1000) as u32),
        "event": event.what.word(),
        "reason": event.reason,
    })
}

fn fault(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::Static => Fault::new(400, "upstream is static", "UpstreamStatic"),
        Refusal::Unknown => Fault::new(404, "server does not exist", "UpstreamServerNotFound"),
        Refusal::Immutable => Fault::new(400, "server is immutable", "UpstreamServerImmutable"),
        Refusal::Full => Fault::new(507, "memory exhausted", "UpstreamOutOfMemory"),
        Refusal::NoBackups => {
            Fault::format("balancing method does not support parameter \"backup\"")
        }
    }
}

fn of_group(group: &Rc<Group>, engine: &str) -> Value {
    let status = group.status(net::now() / 1000);
    let peers: Value = status.iter().map(|status| of_peer(status, engine)).collect();
    let mut value = json!({
        "peers": peers,
        "keepalive": group.idle(),
        "zombies": 0,
        "zone": group.zone_name(),
    });
    if engine == "stream"
        && let Value::Object(map) = &mut value
    {
        map.remove("keepalive");
    }
    value
}

fn state_of(status: &Status) -> &'static str {
    let options = &status.options;
    match status.health {
        _ if options.down => "down",
        _ if options.drain => "draining",
        Health::Ill => "unhealthy",
        Health::Awaited => "checking",
        Health::Well if status.is_resting => "unavail",
        Health::Well if options.max_conns > 0 && status.active >= options.max_conns => "unavail",
        Health::Well => "up",
    }
}

fn of_peer(status: &Status, engine: &str) -> Value {
    let Statistics { requests, responses, sent, received, fails, unavailable, selected, .. } =
        status.statistics;
    let count = if engine == "stream" { "connections" } else { "requests" };
    let mut value = json!({
        "id": status.id,
        "server": status.address.to_string(),
        "name": status.server,
        "backup": status.is_backup,
        "weight": status.options.weight,
        "state": state_of(status),
        "active": status.active,
        "sent": sent,
        "received": received,
        "fails": fails,
        "unavail": unavailable,
        "health_checks": {
            "checks": status.checks.made,
            "fails": status.checks.failed,
            "unhealthy": status.checks.taken_out,
        },
    });
    let Value::Object(map) = &mut value else { return value };
    map.insert(count.to_owned(), requests.into());
    if let Some(passed) = status.checks.last_passed() {
        map["health_checks"]["last_passed"] = passed.into();
    }
    if status.options.max_conns > 0 {
        map.insert("max_conns".to_owned(), status.options.max_conns.into());
    }
    let moment = |ms: u64| time::text(ms / 1000, (ms % 1000) as u32);
    if selected > 0 {
        map.insert("selected".to_owned(), moment(selected).into());
    }
    map.insert("downtime".to_owned(), status.downtime_ms.into());
    if let Some(since_ms) = status.down_since_ms {
        map.insert("downstart".to_owned(), moment(since_ms).into());
    }
    if let Some(service) = &status.service {
        map.insert("service".to_owned(), (**service).into());
    }
    let answers: u64 = responses.iter().sum();
    if engine == "http" {
        let mut by_class = Map::new();
        for (class, count) in (1..).zip(responses) {
            by_class.insert(format!("{class}xx"), count.into());
        }
        by_class.insert("total".to_owned(), answers.into());
        map.insert("responses".to_owned(), by_class.into());
        if let Some(header_ms) = status.statistics.header_ms.checked_div(answers) {
            map.insert("header_time".to_owned(), header_ms.into());
        }
        if let Some(response_ms) = status.statistics.response_ms.checked_div(answers) {
            map.insert("response_time".to_owned(), response_ms.into());
        }
    }
    value
}

fn of_server(status: &Status) -> Value {
    let options = &status.options;
    let mut value = json!({
        "id": status.id,
        "server": status.address.to_string(),
        "weight": options.weight,
        "max_conns": options.max_conns,
        "max_fails": options.max_fails,
        "fail_timeout": format!("{}s", options.fail_timeout),
        "slow_start": shown_ms(options.slow_start_ms),
        "route": status.route.as_deref().unwrap_or(""),
        "backup": status.is_backup,
        "down": options.down,
    });
    if let Value::Object(map) = &mut value {
        if options.drain {
            map.insert("drain".to_owned(), true.into());
        }
        if status.origin == upstream::Origin::Resolved {
            map.insert("host".to_owned(), (*status.server).into());
        }
    }
    value
}

fn shown_ms(ms: u32) -> String {
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

/// What the body of a change says.
#[derive(Default)]
struct Settings {
    server: Option<String>,
    backup: Option<bool>,
    change: Change,
}

impl Settings {
    fn read(ask: &Question) -> Result<Settings, Fault> {
        let body = ask.body.as_deref().unwrap_or_default();
        let parsed: Result<Value, _> = serde_json::from_slice(body);
        let Ok(Value::Object(map)) = parsed else {
            return Err(Fault::new(415, "json error", "JsonError"));
        };
        let mut settings = Settings::default();
        for (name, value) in &map {
            settings.set(name, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), Fault> {
        let bad = || Fault::format(format!("invalid \"{name}\" value"));
        let change = &mut self.change;
        let number = || {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.map(Some).ok_or_else(bad)
        };
        let flag = || value.as_bool().map(Some).ok_or_else(bad);
        let text = || value.as_str().ok_or_else(bad);
        let time = || -> Result<Option<u64>, Fault> {
            let written = match value {
                Value::Number(number) => number.to_string(),
                value => value.as_str().ok_or_else(bad)?.to_owned(),
            };
            config::read::parse_time_ms(written.as_bytes()).map(Some).ok_or_else(bad)
        };
        match name {
            "server" if is_plain(text()?) => self.server = Some(text()?.to_owned()),
            "backup" => self.backup = flag()?,
            "weight" => change.weight = Some(number()?.filter(|n| *n > 0).ok_or_else(bad)?),
            "max_conns" => change.max_conns = number()?,
            "max_fails" => change.max_fails = number()?,
            "fail_timeout" => {
                change.fail_timeout = time()?.and_then(|ms| u32::try_from(ms / 1000).ok());
            }
            "slow_start" => change.slow_start_ms = time()?.and_then(|ms| u32::try_from(ms).ok()),
            "route" if text()?.len() <= 32 && is_plain(text()?) => {
                change.route = Some(text()?.into());
            }
            "down" => change.down = flag()?,
            "drain" => change.drain = flag()?,
            "route" | "server" => return Err(bad()),
            _ => return Err(Fault::format(format!("unknown parameter \"{name}\""))),
        }
        Ok(())
    }

    /// A server keeps its address and its tier for as long as it is in the group.
    fn refuse_fixed(&self) -> Result<(), Fault> {
        match (&self.server, self.backup) {
            (Some(_), _) => Err(Fault::format("\"server\" of a server cannot be changed")),
            (_, Some(_)) => Err(Fault::format("\"backup\" of a server cannot be changed")),
            _ => Ok(()),
        }
    }
}

/// Whether a text may stand in a configuration as it is: nothing there has another meaning.
fn is_plain(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && !b";{}\"'\\#$".contains(&b);
    !text.is_empty() && text.bytes().all(is_plain)
}
