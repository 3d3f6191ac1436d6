//! Picks so often, and nothing else, for those who count instructions (`cargo xtask bench micro`):
//! `count_picks ALGORITHM PEERS PICKS`.

use std::hint::black_box;

use balance::{Ask, Index, Key, METHODS, Memory, PeerOptions, Tried};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, peers, picks] = words.as_slice() else {
        panic!("usage: count_picks ALGORITHM PEERS PICKS");
    };
    let method = METHODS.iter().find(|method| method.name == name);
    let method = method.expect("a name of an algorithm");
    let peers: u32 = peers.parse().expect("a number of peers");
    let picks: u64 = picks.parse().expect("a number of picks");
    let options =
        vec![PeerOptions { fail_timeout: 1_000, ..PeerOptions::default() }; peers as usize];
    let mut memory = Memory::new(method, &options, &[]);
    let names: Vec<String> =
        (0..peers).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250)).collect();
    let members = memory.state().members();
    let index = Index::new(method, &members, &|peer| &names[peer as usize]);
    for n in 1..=picks {
        let ask = Ask {
            key: Key::text(&n.to_le_bytes()),
            random: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            index: Some(&index),
            ..Ask::at(10_001)
        };
        let mut state = memory.state();
        if let Some(peer) = black_box(state.pick(&ask, &mut Tried::new())) {
            state.done(peer);
        }
    }
}
