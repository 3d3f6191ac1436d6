//! Servers of a group whose names are looked up while the program runs: `server NAME resolve`.
//!
//! One process does it for all, the keeper; what it finds goes to the group's zone, where every
//! worker sees it. Each line has a task that asks, tells the group, and sleeps for as long as the
//! answer holds. A name that does not exist has no servers; when its DNS server fails, the last
//! answer goes on to hold.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use balance::{PeerOptions, Tier};
use net::resolver::{Failure, NOT_FOUND, Resolver, ServiceHost};
use session::log::{Level, Log, no_context};
use system::socket::Address;

use crate::group::{Group, Member};
use crate::resolver::LookUp;

/// The shortest time between two look-ups of a name, in milliseconds.
const LEAST_MS: u64 = 1_000;

/// The names of a group.
pub(crate) struct Names {
    pub(crate) lines: Vec<Rc<NameLine>>,
    pub(crate) look_up: LookUp,
}

/// One `server` line.
#[derive(Clone, Debug)]
pub(crate) struct NameLine {
    /// Tells it apart from others, over reloads.
    pub(crate) hash: u64,
    pub(crate) name: String,
    pub(crate) service: Option<String>,
    pub(crate) port: u16,
    /// As written.
    pub(crate) server: Box<str>,
    pub(crate) route: Option<Box<str>>,
    pub(crate) options: PeerOptions,
    pub(crate) tier: Tier,
    /// The algorithm has backup servers, for those of a service that come second.
    pub(crate) takes_backups: bool,
}

/// One server that a name has.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) tier: Tier,
    pub(crate) member: Member,
}

impl Names {
    pub(crate) fn line(&self, hash: u64) -> Option<&NameLine> {
        self.lines.iter().find(|line| line.hash == hash).map(|line| &**line)
    }
}

impl NameLine {
    /// What makes a line the same in the next configuration.
    pub(crate) fn hash_of(server: &str, service: Option<&str>, tier: Tier) -> u64 {
        let mut hasher = DefaultHasher::new();
        (server, service, tier == Tier::Backup).hash(&mut hasher);
        hasher.finish()
    }

    /// The weight of a server whose service says `own`: the line's, unless that says nothing.
    pub(crate) fn weight_of(&self, own: u32) -> u32 {
        match (&self.service, self.options.weight) {
            (Some(_), 1) => own,
            (_, weight) => weight,
        }
    }

    fn member(&self, address: Address, server: &str, weight: u32) -> Member {
        let options = PeerOptions { weight, ..self.options };
        Member { server: server.into(), route: self.route.clone(), address, options }
    }

    /// The servers of a service: those of the first priority, and the others as backups.
    fn of_service(&self, hosts: &[ServiceHost]) -> Vec<Found> {
        let with_addresses = || hosts.iter().filter(|host| host.addresses.is_ok());
        let first = with_addresses().map(|host| host.service.priority).min();
        let mut found = Vec::new();
        for ServiceHost { service, addresses } in with_addresses() {
            let tier = match (Some(service.priority) == first, self.tier) {
                (true, tier) => tier,
                (false, Tier::Primary) if self.takes_backups => Tier::Backup,
                (false, _) => continue,
            };
            for ip in addresses.iter().flatten() {
                let address = Address::Inet((*ip, service.port).into());
                let weight = self.weight_of(u32::from(service.weight));
                let member = self.member(address, &service.host, weight);
                found.push(Found { tier, member });
            }
        }
        found
    }
}

impl Group {
    /// Whether names of it are looked up while the program runs.
    pub fn has_names(&self) -> bool {
        self.names.get().is_some_and(|names| !names.lines.is_empty())
    }

    /// Begins to look its names up, in the one process that does.
    pub fn follow_names(self: &Rc<Group>) {
        let Some(names) = self.names.get() else { return };
        for line in &names.lines {
            net::spawn(follow(self.clone(), line.clone(), names.look_up.clone()));
        }
    }
}

async fn follow(group: Rc<Group>, line: Rc<NameLine>, look_up: LookUp) {
    let Some(resolver) = look_up.resolver else { return };
    loop {
        let valid_until_ms = match ask(&resolver, &line, look_up.timeout_ms).await {
            Ok((found, valid_until_ms)) => {
                group.update(&line, found);
                Some(valid_until_ms)
            }
            Err(Failure { code: NOT_FOUND, valid_until_ms, .. }) => {
                group.update(&line, Vec::new());
                Some(valid_until_ms)
            }
            Err(_) => None,
        };
        let pause_ms = match valid_until_ms {
            Some(valid_until_ms) => valid_until_ms.saturating_sub(net::now()),
            None => look_up.timeout_ms,
        };
        net::sleep(pause_ms.max(LEAST_MS)).await;
    }
}

async fn ask(
    resolver: &Rc<Resolver>,
    line: &NameLine,
    timeout_ms: u64,
) -> Result<(Vec<Found>, u64), Failure> {
    let name = &line.name;
    let Some(service) = &line.service else {
        let hosts = resolver.host(name, timeout_ms).await.inspect_err(|failure| {
            complain(format_args!("{name} could not be resolved ({failure})"));
        })?;
        let member = |ip: &std::net::IpAddr| Found {
            tier: line.tier,
            member: line.member(
                Address::Inet((*ip, line.port).into()),
                &line.server,
                line.options.weight,
            ),
        };
        return Ok((hosts.addresses.iter().map(member).collect(), hosts.valid_until_ms));
    };
    let found = resolver.service(service, name, timeout_ms).await;
    let hosts = match &found {
        Ok(found) => &found.hosts,
        Err(failure) => &failure.hosts,
    };
    for ServiceHost { service: of, addresses } in hosts {
        if let Err(code) = addresses {
            let (host, text) = (&of.host, wire::dns::code_text(*code));
            complain(format_args!(
                "{host} could not be resolved ({code}: {text}) while resolving service {service} \
                 of {name}"
            ));
        }
    }
    let found = found.inspect_err(|failure| {
        complain(format_args!("service {service} of {name} could not be resolved ({failure})"));
    })?;
    Ok((line.of_service(&found.hosts), found.valid_until_ms))
}

fn complain(message: std::fmt::Arguments<'_>) {
    Log::process().write(Level::Error, None, message, &no_context);
}
