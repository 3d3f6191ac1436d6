//! Picks as a real HAProxy made them: `recorded/haproxy.txt`, written by
//! `recorded/record_haproxy.py`, which says what the lines mean.
//!
//! `HAPROXY_PICKS=FILE cargo test -p balance --test haproxy` replays another recording.

use balance::haproxy::hashes::{Function, Hashing};
use balance::{Ask, Index, Key, Memory, Method, PeerOptions, Tried, method};
use std::net::IpAddr;

struct Scenario<'a> {
    name: &'a str,
    method: &'static Method,
    hashing: Hashing,
    factor: u32,
    servers: Vec<PeerOptions>,
    events: Vec<Vec<&'a str>>,
}

fn scenarios(text: &str) -> Vec<Scenario<'_>> {
    let mut found: Vec<Scenario<'_>> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let last = found.last_mut();
        match (words.as_slice(), last) {
            (["method", words @ ..], Some(scenario)) => read_method(scenario, words),
            (["server", _, weight, rest @ ..], Some(scenario)) => {
                let limit = rest.first().and_then(|word| word.strip_prefix("limit="));
                scenario.servers.push(PeerOptions {
                    weight: number(weight),
                    max_conns: limit.map_or(0, number),
                    ..PeerOptions::default()
                });
            }
            ([_, ..], Some(scenario)) if words.len() > 1 => scenario.events.push(words),
            ([name], _) => found.push(Scenario {
                name,
                method: &balance::round_robin::METHOD,
                hashing: Hashing::default(),
                factor: 0,
                servers: Vec::new(),
                events: Vec::new(),
            }),
            _ => panic!("{line}"),
        }
    }
    found
}

fn read_method(scenario: &mut Scenario<'_>, words: &[&str]) {
    let name = &words[..words.len().min(2)].join(" ");
    scenario.method = method(name).unwrap_or_else(|| panic!("{name}"));
    for word in words.iter().skip(2) {
        match (*word, word.strip_prefix("factor=")) {
            ("sdbm", _) => scenario.hashing.function = Function::Sdbm,
            ("djb2", _) => scenario.hashing.function = Function::Djb2,
            ("wt6", _) => scenario.hashing.function = Function::Wt6,
            ("crc32", _) => scenario.hashing.function = Function::Crc32,
            ("avalanche", _) => scenario.hashing.avalanche = true,
            (_, Some(factor)) => scenario.factor = number(factor),
            _ => panic!("{word}"),
        }
    }
}

fn number(word: &str) -> u32 {
    word.parse().unwrap_or_else(|_| panic!("{word}"))
}

fn key(hashing: Hashing, kind: &str, key: &str) -> Key {
    match (kind, key.parse()) {
        (_, Ok(IpAddr::V4(ip))) => hashing.address(Key::folded(&ip.octets(), 0)),
        (_, Ok(IpAddr::V6(ip))) => hashing.address(Key::folded(&ip.octets(), 0)),
        _ if key == "-" => Key::default(),
        _ => hashing.text(key.as_bytes()),
    }
}

fn replay(scenario: &Scenario<'_>) {
    let mut memory = Memory::new(scenario.method, &scenario.servers, &[]);
    memory.state().set_factor(scenario.factor);
    let mut index = Index::new(scenario.method, &memory.state().members(), &|_| "");
    let mut opened = Vec::new();
    for (at, event) in scenario.events.iter().enumerate() {
        let mut state = memory.state();
        match event.as_slice() {
            ["down", server] => state.set_down(number(server), true),
            ["up", server] => state.set_down(number(server), false),
            ["close", nth] => state.done(opened[number(nth) as usize]),
            [kind, text, server] => {
                if index.generation() != state.generation() {
                    index = Index::new(scenario.method, &state.members(), &|_| "");
                }
                let key = key(scenario.hashing, kind, text);
                let ask = Ask { key, index: Some(&index), ..Ask::at(1_000) };
                let found = state.pick(&ask, &mut Tried::new());
                let place = format!("{}, event {at}: {event:?}", scenario.name);
                assert_eq!(found, Some(number(server)), "{place}");
                if *kind == "open" {
                    opened.extend(found);
                } else {
                    found.into_iter().for_each(|peer| state.done(peer));
                }
            }
            _ => panic!("{event:?}"),
        }
    }
}

#[test]
fn haproxy() {
    let text = match std::env::var_os("HAPROXY_PICKS") {
        Some(path) => std::fs::read_to_string(path).expect("a recording"),
        None => include_str!("recorded/haproxy.txt").to_owned(),
    };
    let scenarios = scenarios(&text);
    assert!(scenarios.len() > 5);
    scenarios.iter().for_each(replay);
}
