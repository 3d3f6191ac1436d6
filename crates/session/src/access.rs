//! `allow` and `deny`: rules about clients by their address (nginx: ngx_http_access_module).

use std::net::IpAddr;

use config::{AnyDirective, Args, Context, Directive, Invalid, Scope};

use crate::contexts::{HTTP, LIMIT_EXCEPT, LOCATION, SERVER, STREAM, STREAM_SERVER};
use crate::network::Network;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION, LIMIT_EXCEPT, STREAM, STREAM_SERVER];

/// The directives of this file.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[&ALLOW, &DENY];

/// `allow`.
pub static ALLOW: Directive<Clients> = Directive::new("allow", PLACES, read_clients)
    .many()
    .syntax("allow ADDRESS | NETWORK | unix: | all;")
    .text(
        "Lets clients pass: those of an address (`192.0.2.1`, `2001:db8::1`), of a network \
         (`10.0.0.0/8`), of unix sockets, or all. The rules of `allow` and `deny` are asked in \
         the order in which they stand; the first that is about the client decides. A client \
         that no rule is about may pass. A level that has rules of its own does not inherit \
         others.",
    )
    .example("allow 10.0.0.0/8;");

/// `deny`.
pub static DENY: Directive<Clients> = Directive::new("deny", PLACES, read_clients)
    .many()
    .syntax("deny ADDRESS | NETWORK | unix: | all;")
    .text(
        "Refuses clients with 403 (Forbidden), which for a TCP or UDP session means that it is \
         closed; see `allow`.",
    )
    .example("deny all;");

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Everybody.
    All,
    /// Clients of unix sockets.
    Unix,
    /// Clients of a network.
    Network(Network),
}

impl Clients {
    /// Whether a client is one of them; `None` is one of a unix socket.
    pub fn include(&self, client: Option<IpAddr>) -> bool {
        match (self, client) {
            (Clients::All, _) => true,
            (Clients::Unix, client) => client.is_none(),
            (Clients::Network(network), Some(client)) => network.has(client),
            (Clients::Network(_), None) => false,
        }
    }
}

fn read_clients(args: &Args<'_>) -> Result<Clients, Invalid> {
    let text = args.str(0);
    match &*text {
        "all" => return Ok(Clients::All),
        "unix:" => return Ok(Clients::Unix),
        _ => {}
    }
    let Some(parsed) = Network::parse(&text) else {
        return Err(Invalid::new(format!("invalid parameter \"{text}\"")).at(0));
    };
    if parsed.has_low_bits {
        args.warn(Invalid::new(format!("low address bits of {text} are meaningless")).at(0));
    }
    Ok(Clients::Network(parsed.network))
}

/// What the rules say about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    Allowed,
    Denied,
    /// No rule is about it.
    Silent,
}

/// The rules of one place, in order.
pub struct Rules(Box<[(Clients, Opinion)]>);

impl Rules {
    /// The rules that hold in a block: those of the nearest level that has any.
    pub fn compile(scope: &Scope<'_>) -> Option<Rules> {
        let mut level = Some(scope.clone());
        while let Some(here) = level {
            // A level may hold thousands of other blocks: its nodes are walked only for these.
            if !here.has_local(&ALLOW) && !here.has_local(&DENY) {
                level = here.parent();
                continue;
            }
            let rules: Box<[(Clients, Opinion)]> = here
                .children()
                .filter_map(|child| {
                    let allowed = child.read(&ALLOW).map(|clients| (clients, Opinion::Allowed));
                    allowed.or_else(|| Some((child.read(&DENY)?, Opinion::Denied)))
                })
                .collect();
            if !rules.is_empty() {
                return Some(Rules(rules));
            }
            level = here.parent();
        }
        None
    }

    /// What they say about a client; `None` is one of a unix socket.
    pub fn ask(&self, client: Option<IpAddr>) -> Opinion {
        let found = self.0.iter().find(|(clients, _)| clients.include(client));
        found.map_or(Opinion::Silent, |(_, opinion)| *opinion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::compiled;
    use std::cell::RefCell;

    #[test]
    fn the_first_rule_about_a_client_decides() {
        let check = |rules: &str, client: &str, expected: Opinion| {
            let found = RefCell::new(None);
            let (_, faults) = compiled(rules, DIRECTIVES, |scope, _| {
                found.replace(Rules::compile(scope));
            });
            assert_eq!(faults, Vec::<String>::new(), "{rules}");
            let client = (client != "unix").then(|| client.parse().unwrap());
            let opinion = found.into_inner().map_or(Opinion::Silent, |rules| rules.ask(client));
            assert_eq!(opinion, expected, "{client:?}: {rules}");
        };
        use Opinion::*;
        check("", "10.0.0.1", Silent);
        check("allow 10.0.0.0/8; deny all;", "10.0.0.1", Allowed);
        check("allow 10.0.0.0/8; deny all;", "::ffff:10.0.0.1", Allowed);
        check("allow 10.0.0.0/8; deny all;", "11.0.0.1", Denied);
        check("allow 10.0.0.0/8; deny all;", "::1", Denied);
        check("allow 10.0.0.0/8; deny all;", "unix", Denied);
        check("deny all; allow 10.0.0.0/8;", "10.0.0.1", Denied);
        check("deny 10.1.2.3; allow 10.0.0.0/8;", "10.1.2.3", Denied);
        check("deny 10.1.2.3; allow 10.0.0.0/8;", "11.1.2.3", Silent);
        check("allow unix:; deny all;", "unix", Allowed);
        check("deny unix:;", "127.0.0.1", Silent);
        check("allow 2001:db8::/32; deny ::/0;", "2001:db8::5", Allowed);
        check("allow 2001:db8::/32; deny ::/0;", "2001:db9::5", Denied);
        check("allow 2001:db8::/32; deny ::/0;", "10.0.0.1", Silent);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, expected) in [
            ("localhost", "invalid parameter \"localhost\""),
            ("10.0.0.0/33", "invalid parameter \"10.0.0.0/33\""),
            ("ALL", "invalid parameter \"ALL\""),
        ] {
            assert_eq!(ALLOW.read_text(text).unwrap_err().message, expected);
        }
        assert!(DENY.read_text("10.0.0.1/8").is_ok());
    }
}
