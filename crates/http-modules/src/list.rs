//! The HTTP features in order.
//!
//! Guards run by stage and, within a stage, in this order. Contents are asked in this order until
//! one answers; a location's own handler (`proxy_pass`) replaces them all. Filters change an
//! answer in this order: what stands first sees the answer as the content made it, what stands
//! last decides what the client gets.

use http::Module;

/// Every HTTP feature.
pub static MODULES: &[&Module] = &[
    // What connections speak.
    &crate::ssl::MODULE,
    &crate::ssl::EARLY,
    // What comes to servers.
    &crate::status_zone::MODULE,
    // Variables.
    &crate::map::MODULE,
    &crate::geo::MODULE,
    &crate::split_clients::MODULE,
    &crate::referer::MODULE,
    &crate::secure_link::MODULE,
    // The client's address.
    &crate::realip::MODULE,
    // How files are opened.
    &crate::open_files::MODULE,
    &crate::aio::MODULE,
    // Bodies that rewriting may look at.
    &crate::early_read::MODULE,
    // Rewriting.
    &crate::rewrite::MODULE,
    // Limits and access.
    &crate::limit_req::MODULE,
    &crate::limit_conn::MODULE,
    &crate::access::MODULE,
    &crate::auth_basic::MODULE,
    &crate::auth_request::MODULE,
    // Files that exist.
    &crate::try_files::MODULE,
    // Copies.
    &crate::mirror::MODULE,
    // Contents.
    &crate::upstreams::MODULE,
    &crate::sticky::MODULE,
    &crate::proxy::MODULE,
    &crate::ssl::PROXY,
    &crate::ssl::GRPC,
    &crate::ssl::UWSGI,
    &crate::fastcgi::MODULE,
    &crate::uwsgi::MODULE,
    &crate::grpc::MODULE,
    &crate::scgi::MODULE,
    &crate::memcached::MODULE,
    &crate::proxy::HEALTH_CHECK,
    &crate::empty_gif::MODULE,
    &crate::dav::MODULE,
    &crate::stub_status::MODULE,
    &crate::api::MODULE,
    &crate::prometheus::MODULE,
    &crate::random_index::MODULE,
    &crate::index::MODULE,
    &crate::autoindex::MODULE,
    &crate::zstd::MODULE,
    &crate::brotli::MODULE,
    &crate::gzip_static::MODULE,
    &crate::static_files::MODULE,
    // Filters: conditions and fields, then what changes the body, then ranges of it, and last
    // what cannot bear a length.
    &crate::slice::MODULE,
    &crate::not_modified::MODULE,
    &crate::headers::MODULE,
    &crate::userid::MODULE,
    &crate::gunzip::MODULE,
    &crate::sub_filter::MODULE,
    &crate::charset::MODULE,
    &crate::ssi::MODULE,
    &crate::addition::MODULE,
    &crate::gzip::MODULE,
    &crate::range::MODULE,
    &crate::output::MODULE,
    &crate::headers::TRAILERS,
    // Loggers.
    &crate::access_log::MODULE,
];
