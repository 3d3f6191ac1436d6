//! Picks as a real nginx made them: `recorded/nginx.txt`, written by `recorded/record.py`.
//!
//! Each request names its key and all servers that were asked, in order; a server that is `dead`
//! has refused. The first request of a scenario meets a fresh group.

use balance::{Ask, Index, Key, Memory, Method, PeerOptions, Tried, method};
use std::net::IpAddr;

struct Scenario {
    name: String,
    method: &'static Method,
    servers: Vec<Server>,
    requests: Vec<(Key, Vec<u32>)>,
}

struct Server {
    name: String,
    options: PeerOptions,
    dead: bool,
}

fn scenarios(text: &str) -> Vec<Scenario> {
    let mut found: Vec<Scenario> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let last = found.last_mut();
        match (words.as_slice(), last) {
            (["method", ..], Some(scenario)) => {
                scenario.method = method(&words[1..].join(" ")).expect("a method");
            }
            (["server", name, weight, state], Some(scenario)) => {
                let options = PeerOptions {
                    weight: weight.parse().expect("a weight"),
                    fail_timeout: 3600,
                    down: *state == "down",
                    ..PeerOptions::default()
                };
                let dead = *state == "dead";
                scenario.servers.push(Server { name: (*name).to_owned(), options, dead });
            }
            ([kind @ ("word" | "address"), key, asked @ ..], Some(scenario)) => {
                let asked = asked.iter().map(|n| n.parse().expect("a number")).collect();
                scenario.requests.push((key_of(kind, key), asked));
            }
            ([name], _) => found.push(Scenario {
                name: (*name).to_owned(),
                method: &balance::round_robin::METHOD,
                servers: Vec::new(),
                requests: Vec::new(),
            }),
            _ => panic!("{line}"),
        }
    }
    found
}

fn key_of(kind: &str, key: &str) -> Key {
    match (kind, key) {
        ("word", "-") => Key::default(),
        ("word", key) => Key::text(key.as_bytes()),
        _ => match key.parse().expect("an address") {
            IpAddr::V4(ip) => Key::client(&ip.octets()[..3]),
            IpAddr::V6(ip) => Key::client(&ip.octets()),
        },
    }
}

fn replay(scenario: &Scenario) {
    let options: Vec<_> = scenario.servers.iter().map(|server| server.options).collect();
    let mut memory = Memory::new(scenario.method, &options, &[]);
    let name = |peer: u32| scenario.servers[peer as usize].name.as_str();
    let members = memory.state().members();
    let index = Index::new(scenario.method, &members, &name);
    for (number, (key, asked)) in scenario.requests.iter().enumerate() {
        let ask = Ask { key: *key, index: Some(&index), ..Ask::at(1_000) };
        let mut tried = Tried::new();
        let mut found = Vec::new();
        let mut state = memory.state();
        while let Some(peer) = state.pick(&ask, &mut tried) {
            found.push(peer);
            if !scenario.servers[peer as usize].dead {
                state.done(peer);
                break;
            }
            state.failed(peer, 1_000);
        }
        assert_eq!(&found, asked, "{}, request {number}", scenario.name);
    }
}

#[test]
fn nginx() {
    let scenarios = scenarios(include_str!("recorded/nginx.txt"));
    assert_eq!(scenarios.len(), 20);
    scenarios.iter().for_each(replay);
}
