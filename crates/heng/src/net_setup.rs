//! `heng net-setup --print [-c FILE] [-p PREFIX]`: the rules of the network that a configuration
//! with transparent servers needs, as commands of nft(8) and ip-rule(8) to be read, changed and
//! run by whoever looks after the machine. Nothing is changed here.
//!
//! Two things need rules. Connections and packets that were meant for others must be led to a
//! listener with `transparent`. And answers to what seems to come from clients (`proxy_bind
//! $remote_addr transparent`) must be led to this machine's sockets.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use config::DiskFiles;
use system::process::Keep;
use system::socket::{Address, Transport};

use crate::compile::{Compilation, compile};
use crate::paths::{self, Places};
use crate::report::{Early, say_as_program};

/// The mark by which packets are led to local sockets, and the table of routes that does it.
/// Any numbers that nothing else uses.
const MARK: u32 = 0x68;
const TABLE: u32 = 104;

/// Runs the subcommand. The result is the exit code.
pub fn run(arguments: &[OsString]) -> i32 {
    let Some((prefix, configuration)) = read(arguments) else {
        say_as_program("usage: net-setup --print [-c FILE] [-p PREFIX]");
        return 1;
    };
    let places = Places::new(prefix.as_deref(), configuration.as_deref());
    let early = Early::open(None, &places.prefix);
    let compilation = compile(&DiskFiles, &places, &[], paths::ERROR_LOG.as_ref());
    let Compilation { tree, diagnostics, late, snapshot } = compilation;
    early.report(&tree, &diagnostics);
    early.report(&tree, &late);
    let Some(snapshot) = snapshot else { return 1 };
    let transparent = snapshot.listeners().into_iter().filter(|one| one.options.transparent);
    let listeners: Vec<_> = transparent.map(|one| (one.options.transport, one.address)).collect();
    let text = rules(&listeners, snapshot.core.keep != Keep::Nothing);
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

type Paths = (Option<PathBuf>, Option<PathBuf>);

/// The prefix and the configuration file; nothing when the arguments are others.
fn read(arguments: &[OsString]) -> Option<Paths> {
    let (mut prefix, mut configuration, mut print) = (None, None, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str()? {
            "--print" => print = true,
            "-c" => configuration = Some(PathBuf::from(rest.next()?)),
            "-p" => prefix = Some(PathBuf::from(rest.next()?)),
            _ => return None,
        }
    }
    print.then_some((prefix, configuration))
}

/// The commands for listeners, and for what seems to come from clients if `outgoing`.
fn rules(listeners: &[(Transport, Address)], outgoing: bool) -> String {
    let mut text = String::new();
    if listeners.is_empty() && !outgoing {
        text.push_str("# Nothing in this configuration is transparent: no rules are needed.\n");
        return text;
    }
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "# Packets with this mark belong to sockets of this machine, whatever their address.\n\
         ip rule add fwmark {MARK:#x} lookup {TABLE}\n\
         ip route add local default dev lo table {TABLE}\n\
         ip -6 rule add fwmark {MARK:#x} lookup {TABLE}\n\
         ip -6 route add local default dev lo table {TABLE}\n\
         nft -f - <<'RULES'\n\
         table inet heng {{\n    \
             chain intercept {{\n        \
                 type filter hook prerouting priority mangle; policy accept;\n        \
                 # What belongs to a transparent socket already, answers of backends too.\n        \
                 meta l4proto tcp socket transparent 1 meta mark set {MARK:#x} accept\n"
    );
    for (transport, address) in listeners {
        let Some(port) = address.port() else { continue };
        let (family, to) = match address.ip() {
            Some(ip) if ip.is_ipv6() && ip.is_unspecified() => ("ip6", format!(":{port}")),
            Some(ip) if ip.is_ipv6() => ("ip6", format!("[{ip}]:{port}")),
            Some(ip) if ip.is_unspecified() => ("ip", format!(":{port}")),
            Some(ip) => ("ip", format!("{ip}:{port}")),
            None => continue,
        };
        let protocol = if family == "ip" { "ipv4" } else { "ipv6" };
        // UDP has broadcasts too, and they are nobody's to take.
        let (carrier, whose, ports) = match transport {
            Transport::Stream => ("tcp", "!= local", "80, 443"),
            Transport::Datagram => ("udp", "unicast", "53, 123"),
        };
        let shown = carrier.to_ascii_uppercase();
        let _ = write!(
            text,
            "        # For listen {address}: all {shown} that is passing through.\n        \
                 # Put `{carrier} dport {{ {ports} }}` before `fib` to take some ports.\n        \
                 meta nfproto {protocol} meta l4proto {carrier} fib daddr type {whose} \
                 tproxy {family} to {to} meta mark set {MARK:#x} accept\n"
        );
    }
    if outgoing || listeners.iter().any(|(transport, _)| *transport == Transport::Datagram) {
        // Behind the rules of listeners: sockets for answers are bound to what clients ask for,
        // and must not get their packets.
        let _ = write!(
            text,
            "        # Packets for sockets with foreign addresses, such as answers.\n        \
                 meta l4proto udp socket wildcard 0 socket transparent 1 \
                 meta mark set {MARK:#x} accept\n"
        );
    }
    text.push_str("    }\n}\nRULES\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_for_what_is_there() {
        let tcp = |text: &str| (Transport::Stream, Address::parse(text).unwrap());
        let udp = |text: &str| (Transport::Datagram, Address::parse(text).unwrap());
        assert!(rules(&[], false).contains("no rules are needed"));
        let answers = rules(&[], true);
        assert!(answers.contains("socket transparent 1") && !answers.contains("tproxy"));
        let all = rules(&[tcp("0.0.0.0:1234"), tcp("[::1]:5")], false);
        assert!(
            all.contains(
                "nfproto ipv4 meta l4proto tcp fib daddr type != local tproxy ip to :1234 "
            )
        );
        assert!(all.contains("tproxy ip6 to [::1]:5 meta mark set 0x68"));
        assert!(!all.contains("l4proto udp"));
        let packets = rules(&[udp("0.0.0.0:53")], false);
        let to = "meta l4proto udp fib daddr type unicast tproxy ip to :53 meta mark set 0x68";
        assert!(packets.contains(to), "{packets}");
        let (led, sockets) = (packets.find(to), packets.find("udp socket wildcard 0"));
        assert!(led < sockets, "packets of clients go to the listener first");
    }

    #[test]
    fn arguments() {
        let check = |words: &[&str], expected: bool| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(read(&words).is_some(), expected, "{words:?}");
        };
        check(&["--print"], true);
        check(&["--print", "-c", "x", "-p", "y"], true);
        check(&[], false);
        check(&["--print", "-c"], false);
        check(&["--apply"], false);
    }
}
