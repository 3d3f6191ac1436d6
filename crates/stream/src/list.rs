//! The features of `stream` in order: checks run by stage and, within a stage, in this order;
//! prereads look in this order.

use crate::module::Module;

/// Every feature.
pub static MODULES: &[&Module] = &[
    // Variables.
    &crate::status_zone::MODULE,
    &crate::map::MODULE,
    &crate::geo::MODULE,
    &crate::split_clients::MODULE,
    &crate::set::MODULE,
    // The client's address.
    &crate::realip::MODULE,
    // Limits and access.
    &crate::limit_conn::MODULE,
    &crate::access::MODULE,
    // TLS, and the first bytes.
    &crate::ssl::MODULE,
    &crate::ssl_preread::MODULE,
    &crate::rdp_preread::MODULE,
    // Contents.
    &crate::upstreams::MODULE,
    &crate::proxy::MODULE,
    &crate::proxy::HEALTH_CHECK,
    &crate::returns::MODULE,
    &crate::pass::MODULE,
    // Loggers.
    &crate::access_log::MODULE,
];
