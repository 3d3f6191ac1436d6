//! The naive model: nginx's loops over a plain list, and random histories that hold the real
//! state against it. Test only.

use proptest::prelude::*;

use crate::{Ask, Memory, Method, PeerIndex, PeerOptions, Tried, least_conn, round_robin};

#[derive(Clone, Debug)]
struct Naive {
    options: PeerOptions,
    current: i64,
    effective: i64,
    conns: u32,
    fails: u32,
    accessed: i64,
    checked: i64,
}

impl Naive {
    fn new(options: PeerOptions) -> Naive {
        let effective = i64::from(options.weight);
        Naive { options, current: 0, effective, conns: 0, fails: 0, accessed: 0, checked: 0 }
    }

    fn skipped(&self, now: i64) -> bool {
        let options = &self.options;
        options.down
            || (options.max_fails != 0
                && self.fails >= options.max_fails
                && now - self.checked <= i64::from(options.fail_timeout))
            || (options.max_conns != 0 && self.conns >= options.max_conns)
    }

    fn grow(&mut self) -> i64 {
        let growth = self.effective;
        self.current += growth;
        if self.effective < i64::from(self.options.weight) {
            self.effective += 1;
        }
        growth
    }
}

/// A request in the model: its tier and whom it tried there.
#[derive(Default)]
struct Request {
    tier: usize,
    tried: Vec<usize>,
}

struct Group {
    tiers: [Vec<Naive>; 2],
    fewest: bool,
}

impl Group {
    fn pick(&mut self, now: i64, request: &mut Request) -> Option<usize> {
        loop {
            let offset = self.tiers[0].len() * request.tier;
            let peers = &mut self.tiers[request.tier];
            let found = if self.fewest {
                pick_fewest(peers, now, &request.tried)
            } else {
                pick_smooth(peers, now, &request.tried)
            };
            if let Some(found) = found {
                request.tried.push(found);
                let peer = &mut peers[found];
                if now - peer.checked > i64::from(peer.options.fail_timeout) {
                    peer.checked = now;
                }
                peer.conns += 1;
                return Some(offset + found);
            }
            if request.tier == 1 || self.tiers[1].is_empty() {
                return None;
            }
            *request = Request { tier: 1, tried: Vec::new() };
        }
    }

    fn at(&mut self, peer: usize) -> &mut Naive {
        let primaries = self.tiers[0].len();
        if peer < primaries {
            &mut self.tiers[0][peer]
        } else {
            &mut self.tiers[1][peer - primaries]
        }
    }

    fn done(&mut self, peer: usize) {
        let peer = self.at(peer);
        if peer.accessed < peer.checked {
            peer.fails = 0;
        }
        peer.conns -= 1;
    }

    fn failed(&mut self, peer: usize, now: i64) {
        let peer = self.at(peer);
        peer.fails += 1;
        peer.accessed = now;
        peer.checked = now;
        if let Some(loss) = peer.options.weight.checked_div(peer.options.max_fails) {
            peer.effective = (peer.effective - i64::from(loss)).max(0);
        }
        peer.conns -= 1;
    }
}

fn pick_smooth(peers: &mut [Naive], now: i64, tried: &[usize]) -> Option<usize> {
    let mut best: Option<usize> = None;
    let mut total = 0;
    for at in 0..peers.len() {
        if tried.contains(&at) || peers[at].skipped(now) {
            continue;
        }
        total += peers[at].grow();
        if best.is_none_or(|best| peers[at].current > peers[best].current) {
            best = Some(at);
        }
    }
    peers[best?].current -= total;
    best
}

fn pick_fewest(peers: &mut [Naive], now: i64, tried: &[usize]) -> Option<usize> {
    let load = |peers: &[Naive], a: usize, b: usize| {
        u64::from(peers[a].conns) * u64::from(peers[b].options.weight)
    };
    let mut best: Option<usize> = None;
    let mut many = false;
    for at in 0..peers.len() {
        if tried.contains(&at) || peers[at].skipped(now) {
            continue;
        }
        match best {
            Some(best) if load(peers, at, best) == load(peers, best, at) => many = true,
            Some(best) if load(peers, at, best) > load(peers, best, at) => {}
            _ => {
                best = Some(at);
                many = false;
            }
        }
    }
    let from = best?;
    let mut best = from;
    let mut total = 0;
    for at in from..peers.len() {
        let equal = load(peers, at, best) == load(peers, best, at);
        if !many || tried.contains(&at) || !equal || peers[at].skipped(now) {
            continue;
        }
        total += peers[at].grow();
        if peers[at].current > peers[best].current {
            best = at;
        }
    }
    peers[best].current -= total;
    Some(best)
}

/// One thing that happens to a group. Numbers are taken modulo what exists.
#[derive(Clone, Debug)]
enum Step {
    /// A new request picks.
    Pick,
    /// An open request's attempt fails and it picks again.
    Retry(usize),
    Done(usize),
    Failed(usize),
    Later(u8),
    Weight(usize, u32),
    Down(usize, bool),
}

fn steps(len: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Pick),
        4 => any::<usize>().prop_map(Step::Retry),
        6 => any::<usize>().prop_map(Step::Done),
        3 => any::<usize>().prop_map(Step::Failed),
        2 => (0u8..8).prop_map(Step::Later),
        1 => (any::<usize>(), 1u32..6).prop_map(|(peer, weight)| Step::Weight(peer, weight)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(peer, down)| Step::Down(peer, down)),
    ];
    prop::collection::vec(step, 1..len)
}

fn peer() -> impl Strategy<Value = PeerOptions> {
    let weight = prop_oneof![4 => 1u32..4, 1 => 1u32..200];
    (weight, 0u32..5, 0u32..6, prop_oneof![3 => Just(0), 1 => 1u32..4], 0u32..12).prop_map(
        |(weight, max_fails, fail_timeout, max_conns, down)| PeerOptions {
            weight,
            max_fails,
            fail_timeout,
            max_conns,
            down: down == 0,
            ..PeerOptions::default()
        },
    )
}

fn check_history(method: &Method, tiers: [&[PeerOptions]; 2], steps: &[Step]) {
    let fewest = method.name == least_conn::METHOD.name;
    let tiers_of = tiers.map(|tier| tier.iter().copied().map(Naive::new).collect());
    let mut model = Group { tiers: tiers_of, fewest };
    let mut memory = Memory::new(method, tiers[0], tiers[1]);
    let count = tiers[0].len() + tiers[1].len();
    let mut open: Vec<(usize, Request, Tried)> = Vec::new();
    let mut now = 1_000;
    for (number, step) in steps.iter().enumerate() {
        let mut state = memory.state();
        let chosen = |n: &usize| n % open.len().max(1);
        let mut again = None;
        match step {
            Step::Later(by) => now += i64::from(*by),
            Step::Pick => again = Some((Request::default(), Tried::new())),
            Step::Weight(peer, weight) => {
                let peer = peer % count;
                if model.at(peer).options.weight != *weight {
                    model.at(peer).options.weight = *weight;
                    model.at(peer).effective = i64::from(*weight);
                }
                state.set_weight(peer as PeerIndex, *weight);
            }
            Step::Down(peer, down) => {
                model.at(peer % count).options.down = *down;
                state.set_down((peer % count) as PeerIndex, *down);
            }
            _ if open.is_empty() => {}
            Step::Done(n) => {
                let (peer, ..) = open.swap_remove(chosen(n));
                model.done(peer);
                state.done(peer as PeerIndex);
            }
            Step::Failed(n) | Step::Retry(n) => {
                let (peer, request, tried) = open.swap_remove(chosen(n));
                model.failed(peer, now);
                state.failed(peer as PeerIndex, now as u64);
                again = matches!(step, Step::Retry(_)).then_some((request, tried));
            }
        }
        if let Some((mut request, mut tried)) = again {
            let wanted = model.pick(now, &mut request);
            let found = state.pick(&Ask::at(now as u64), &mut tried).map(|peer| peer as usize);
            assert_eq!(found, wanted, "{} step {number} {step:?} at {now}", method.name);
            open.extend(found.map(|peer| (peer, request, tried)));
        }
        for peer in 0..count {
            let (naive, real) = (model.at(peer).clone(), &state.peers()[peer]);
            assert_eq!((real.conns(), real.fails()), (naive.conns, naive.fails), "{number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Small tiers, which are scanned.
    #[test]
    fn small_groups_equal_the_model(
        primaries in prop::collection::vec(peer(), 2..12),
        backups in prop::collection::vec(peer(), 0..4),
        steps in steps(400),
    ) {
        check_history(&round_robin::METHOD, [&primaries, &backups], &steps);
        check_history(&least_conn::METHOD, [&primaries, &backups], &steps);
    }

    /// Tiers past the scanned size, which live in heaps.
    #[test]
    fn large_groups_equal_the_model(
        primaries in prop::collection::vec(peer(), 25..70),
        backups in prop::collection::vec(peer(), 0..40),
        steps in steps(900),
    ) {
        check_history(&round_robin::METHOD, [&primaries, &backups], &steps);
    }
}

/// One request that tries everyone: its tried peers come to the top of their heaps.
#[test]
fn long_retries_equal_the_model() {
    for max_fails in [0, 1, 3] {
        let options = PeerOptions { max_fails, fail_timeout: 1, ..PeerOptions::default() };
        let peers: Vec<_> =
            (0..60).map(|n| PeerOptions { weight: 1 + n % 3 * 7, ..options }).collect();
        let mut steps = vec![Step::Pick; 7];
        for round in 0..70 {
            steps.extend([Step::Retry(round * 13), Step::Pick, Step::Done(round)]);
            if round % 20 == 0 {
                steps.push(Step::Later(2));
            }
        }
        steps.extend(vec![Step::Retry(0); 80]);
        check_history(&round_robin::METHOD, [&peers, &peers], &steps);
    }
}
