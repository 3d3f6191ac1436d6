//! The program's counts in the text format of Prometheus (exposition format 0.0.4).

use config::{AnyDirective, Arity, Directive, Scope, read};
use http::compile::Compiler;
use http::{Content, Exchange, LocationBuilder, Module, Step, Verdict};
use session::contexts::LOCATION;
use session::counters;
use session::status_zone::{self, Subject, Sums};
use std::fmt::{Display, Write};
use upstream::Health;
use upstream::admin::{self, Status};
use wire::http1::Method;

use crate::stub_status::answer_text;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_prometheus", "Counts for Prometheus.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&PROMETHEUS];

/// `prometheus`.
pub static PROMETHEUS: Directive<()> = Directive::new("prometheus", &[LOCATION], read::nothing)
    .takes(Arity::None)
    .syntax("prometheus;")
    .text(
        "Answers GET and HEAD with the program's counts in the text format of Prometheus: \
             connections and requests over all workers, and, for each server of a group that has \
             a `zone`, its requests, answers by class, bytes, failures, times and state.",
    )
    .example("location = /metrics { prometheus; allow 10.0.0.0/8; deny all; }");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    if scope.has_local(&PROMETHEUS) {
        builder.handler(Prometheus);
    }
}

struct Prometheus;

impl Content for Prometheus {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        if !matches!(x.request.method, Method::Get | Method::Head) {
            return Step::Now(Verdict::Status(405));
        }
        let mut text = Text::default();
        connections(&mut text);
        zones(&mut text);
        servers(&mut text);
        answer_text(x, b"text/plain; version=0.0.4; charset=utf-8", text.0.as_bytes())
    }
}

/// The text so far. Writing to a string cannot fail.
#[derive(Default)]
struct Text(String);

impl Text {
    /// Begins a metric: its name, `counter` or `gauge`, and what it is.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP heng_{name} {help}\n# TYPE heng_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "heng_{name} {value}"),
            labels => writeln!(self.0, "heng_{name}{{{labels}}} {value}"),
        };
    }
}

fn connections(text: &mut Text) {
    let now = counters::totals();
    let counts = [
        ("connections_accepted_total", now.accepted, "Connections accepted."),
        ("connections_handled_total", now.handled, "Connections served."),
        ("http_requests_total", now.requests, "Requests begun."),
        ("workers_respawned_total", now.respawned, "Workers that died and were replaced."),
    ];
    for (name, value, help) in counts {
        text.metric(name, "counter", help);
        text.sample(name, "", value);
    }
    let gauges = [
        ("connections_active", now.active, "Connections open."),
        ("connections_reading", now.reading, "Requests being read."),
        ("connections_writing", now.writing, "Requests being answered."),
        ("connections_waiting", now.waiting, "Connections that wait for a request."),
    ];
    for (name, value, help) in gauges {
        text.metric(name, "gauge", help);
        text.sample(name, "", value);
    }
}

/// A count of a zone: its name, what it is, and the value.
type ZoneMetric<'a> = (&'a str, &'a str, fn(&Sums) -> u64);

/// What `status_zone` counts.
fn zones(text: &mut Text) {
    for (kind, subject) in [
        ("http_server_zone", Subject::Server),
        ("http_location_zone", Subject::Location),
        ("stream_server_zone", Subject::StreamServer),
    ] {
        let found = status_zone::zones(subject);
        let all: Vec<(String, Sums)> = found
            .iter()
            .map(|zone| (format!("zone=\"{}\"", escaped(zone.name())), zone.sums()))
            .collect();
        if all.is_empty() {
            continue;
        }
        let (begun, ended) = match subject {
            Subject::StreamServer => ("connections_total", "sessions_total"),
            _ => ("requests_total", "responses_total"),
        };
        let metrics: [ZoneMetric<'_>; 4] = [
            (begun, "What came to a zone.", |sums| sums.begun),
            ("discarded_total", "What ended without an answer.", |sums| sums.discarded),
            ("received_bytes_total", "Bytes received from clients.", |sums| sums.received),
            ("sent_bytes_total", "Bytes sent to clients.", |sums| sums.sent),
        ];
        for (metric, help, value) in metrics {
            let name = format!("{kind}_{metric}");
            text.metric(&name, "counter", help);
            all.iter().for_each(|(labels, sums)| text.sample(&name, labels, value(sums)));
        }
        let name = format!("{kind}_{ended}");
        text.metric(&name, "counter", "What ended, by the class of its status.");
        for (labels, sums) in &all {
            for (class, count) in (1..).zip(sums.ended) {
                text.sample(&name, &format!("{labels},class=\"{class}xx\""), count);
            }
        }
        if subject != Subject::Location {
            let name = format!("{kind}_processing");
            text.metric(&name, "gauge", "What is under way.");
            all.iter().for_each(|(labels, sums)| text.sample(&name, labels, sums.processing));
        }
    }
}

/// A metric of servers: its name, kind and help, and what writes the samples of one.
type Metric = (&'static str, &'static str, &'static str, fn(&mut Text, &str, &str, &Status));

static METRICS: &[Metric] = &[
    ("upstream_requests_total", "counter", "Requests given to a server.", |text, name, to, s| {
        text.sample(name, to, s.statistics.requests);
    }),
    (
        "upstream_responses_total",
        "counter",
        "Answers of a server by class.",
        |text, name, to, s| {
            for (class, count) in (1..).zip(s.statistics.responses) {
                text.sample(name, &format!("{to},class=\"{class}xx\""), count);
            }
        },
    ),
    ("upstream_sent_bytes_total", "counter", "Bytes sent to a server.", |text, name, to, s| {
        text.sample(name, to, s.statistics.sent);
    }),
    (
        "upstream_received_bytes_total",
        "counter",
        "Bytes received from a server.",
        |text, name, to, s| text.sample(name, to, s.statistics.received),
    ),
    ("upstream_fails_total", "counter", "Attempts that failed.", |text, name, to, s| {
        text.sample(name, to, s.statistics.fails);
    }),
    (
        "upstream_unavailable_total",
        "counter",
        "How often failures took a server out.",
        |text, name, to, s| text.sample(name, to, s.statistics.unavailable),
    ),
    (
        "upstream_header_seconds_total",
        "counter",
        "Time to the heads of answers, summed.",
        |text, name, to, s| text.sample(name, to, seconds(s.statistics.header_ms)),
    ),
    (
        "upstream_response_seconds_total",
        "counter",
        "Time to the ends of answers, summed.",
        |text, name, to, s| text.sample(name, to, seconds(s.statistics.response_ms)),
    ),
    ("upstream_active", "gauge", "Requests under way at a server.", |text, name, to, s| {
        text.sample(name, to, s.active);
    }),
    ("upstream_up", "gauge", "Whether a server may be chosen.", |text, name, to, s| {
        let out = s.options.down || s.options.drain || s.is_resting;
        text.sample(name, to, u8::from(!out && s.health == Health::Well));
    }),
];

fn servers(text: &mut Text) {
    let mut all: Vec<(String, Status)> = Vec::new();
    for engine in ["http", "stream"] {
        for group in admin::groups(engine).into_iter().filter(|group| group.is_shared()) {
            let name = escaped(group.name());
            for status in group.status(net::now() / 1000) {
                let (server, id) = (escaped(&status.address.to_string()), status.id);
                let labels = format!(
                    "engine=\"{engine}\",upstream=\"{name}\",server=\"{server}\",id=\"{id}\""
                );
                all.push((labels, status));
            }
        }
    }
    if all.is_empty() {
        return;
    }
    for (name, kind, help, write) in METRICS {
        text.metric(name, kind, help);
        all.iter().for_each(|(labels, status)| write(text, name, labels, status));
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// A label's value: what has a meaning there is written otherwise.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
