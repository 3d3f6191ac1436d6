//! Where `proxy_pass` points: a group of peers.

use std::rc::Rc;

use config::Scope;
use session::log::Level;
use session::variables::Template;
use system::socket::Address;
use upstream::resolver::{LookUp, Resolvers};
use upstream::{Group, Host, SystemNames, implied};

use crate::compile::Compiler;
use crate::journey::INTERNAL_ERROR;
use crate::session::Session;
use crate::upstreams::SharedGroups;

/// A compiled `proxy_pass`.
pub(super) enum Target {
    /// A fixed address.
    Fixed(Rc<Group>),
    /// An address with variables, known per session.
    Variable { address: Template, groups: SharedGroups, look_up: LookUp },
}

/// Addresses that name no port are asked for under this one, which no other has.
const NO_PORT: u16 = 0;

impl Target {
    /// Compiles the address of a `proxy_pass`.
    ///
    /// # Errors
    /// nginx's words, without the place.
    pub(super) fn compile(
        c: &mut Compiler<'_>,
        scope: &Scope<'_>,
        source: &config::Template,
    ) -> Result<Target, String> {
        let groups = c.state::<SharedGroups>().clone();
        let Some(text) = source.constant() else {
            let look_up = c.state::<Resolvers>().look_up(scope, &SystemNames);
            return Ok(Target::Variable { address: c.template(source), groups, look_up });
        };
        let text = String::from_utf8_lossy(text).into_owned();
        let target = upstream::Target::parse(&text)
            .map_err(|reason| format!("{reason} in upstream \"{text}\""))?;
        let mut groups = groups.0.borrow_mut();
        let is_group = groups.named(&target.text).is_some();
        if target.port.is_none() && !is_group && !matches!(target.host, Host::Unix(_)) {
            return Err(format!("no port in upstream \"{text}\""));
        }
        groups.locate(&target, NO_PORT, &SystemNames).map(Target::Fixed)
    }

    /// The group that the session goes to.
    ///
    /// # Errors
    /// The status with which it ends; the log knows why.
    pub(super) async fn group(&self, s: &mut Session) -> Result<Rc<Group>, u16> {
        let (address, groups, look_up) = match self {
            Target::Fixed(group) => return Ok(group.clone()),
            Target::Variable { address, groups, look_up } => (address, groups, look_up),
        };
        let value = address.value(s);
        let text = String::from_utf8_lossy(s.text(value)).into_owned();
        let fail = |s: &Session, reason: std::fmt::Arguments<'_>| {
            s.log_error(Level::Error, reason);
            INTERNAL_ERROR
        };
        let target = upstream::Target::parse(&text)
            .map_err(|reason| fail(s, format_args!("{reason} in upstream \"{text}\"")))?;
        let known = groups.0.borrow().known(&target, NO_PORT).cloned();
        if let Some(group) = known {
            return Ok(group);
        }
        let host = target.text;
        match (target.host, target.port) {
            (Host::Unix(path), _) => Ok(implied(&host, vec![Address::Unix(path)])),
            (_, None) => Err(fail(s, format_args!("no port in upstream \"{host}\""))),
            (Host::Ip(ip), Some(port)) => {
                Ok(implied(&host, vec![Address::Inet((ip, port).into())]))
            }
            (Host::Name(name), Some(port)) => {
                let found = look_up.group(&name, port).await;
                found.map_err(|reason| fail(s, format_args!("{reason}")))
            }
        }
    }
}
