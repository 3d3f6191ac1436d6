//! The one list of what this program is made of.
//!
//! Directive tables for the parser and the manual, the engines that are compiled and served, and
//! what `-V` says about nginx's modules. HTTP features are listed in `http_modules::list`.

use config::{AnyDirective, Registry};
use session::variables::{Builtin, BuiltinGetter};

use crate::directives;
use crate::engines::Compile;
use crate::http_engine;
use crate::stream_engine;

/// The directive tables that belong to no module of an engine.
static TABLES: &[&[&dyn AnyDirective]] = &[
    directives::CORE,
    directives::EVENTS_DIRECTIVES,
    session::log::DIRECTIVES,
    http::directives::ALL,
    http::moot::ALL,
    http::http2::ALL,
    stream::directives::ALL,
    upstream::resolver::DIRECTIVES,
];

/// The engines, in the order in which their listeners open.
pub static ENGINES: &[Compile] = &[http_engine::compile, stream_engine::compile];

/// All directives that this program knows.
pub fn registry() -> Registry {
    let of_modules = http_modules::list::MODULES.iter().map(|module| module.directives);
    let of_stream = stream::list::MODULES.iter().map(|module| module.directives);
    let tables: Vec<_> = TABLES.iter().copied().chain(of_modules).chain(of_stream).collect();
    Registry::new(&tables)
}

/// Whether nginx has a module unless it is configured away, or only when it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Usual {
    Default,
    Optional,
}

/// nginx's modules, by the words of its `./configure`, each with a directive that no nginx
/// without the module has, `CONTEXT/NAME` where others have it elsewhere. `-V` looks whether the
/// tables know that directive, so that what it says is always true.
static NGINX_MODULES: &[(&str, Usual, &str)] = &[
    ("http", Usual::Default, "http"),
    ("http-cache", Usual::Default, "proxy_cache"),
    ("http_charset_module", Usual::Default, "charset"),
    ("http_gzip_module", Usual::Default, "gzip"),
    ("http_ssi_module", Usual::Default, "ssi"),
    ("http_userid_module", Usual::Default, "userid"),
    ("http_access_module", Usual::Default, "allow"),
    ("http_auth_basic_module", Usual::Default, "auth_basic"),
    ("http_mirror_module", Usual::Default, "mirror"),
    ("http_autoindex_module", Usual::Default, "autoindex"),
    ("http_geo_module", Usual::Default, "geo"),
    ("http_map_module", Usual::Default, "map"),
    ("http_split_clients_module", Usual::Default, "split_clients"),
    ("http_referer_module", Usual::Default, "valid_referers"),
    ("http_rewrite_module", Usual::Default, "rewrite"),
    ("http_proxy_module", Usual::Default, "proxy_pass"),
    ("http_fastcgi_module", Usual::Default, "fastcgi_pass"),
    ("http_uwsgi_module", Usual::Default, "uwsgi_pass"),
    ("http_scgi_module", Usual::Default, "scgi_pass"),
    ("http_grpc_module", Usual::Default, "grpc_pass"),
    ("http_memcached_module", Usual::Default, "memcached_pass"),
    ("http_limit_conn_module", Usual::Default, "limit_conn"),
    ("http_limit_req_module", Usual::Default, "limit_req"),
    ("http_empty_gif_module", Usual::Default, "empty_gif"),
    ("http_browser_module", Usual::Default, "ancient_browser"),
    ("http_upstream_hash_module", Usual::Default, "hash"),
    ("http_upstream_ip_hash_module", Usual::Default, "ip_hash"),
    ("http_upstream_least_conn_module", Usual::Default, "least_conn"),
    ("http_upstream_least_time_module", Usual::Default, "least_time"),
    ("http_upstream_random_module", Usual::Default, "random"),
    ("http_upstream_sticky_module", Usual::Default, "sticky"),
    ("http_upstream_keepalive_module", Usual::Default, "keepalive"),
    ("http_upstream_zone_module", Usual::Default, "zone"),
    ("http_ssl_module", Usual::Optional, "ssl_certificate"),
    ("http_v2_module", Usual::Optional, "http2"),
    ("http_v3_module", Usual::Optional, "http3"),
    ("http_realip_module", Usual::Optional, "set_real_ip_from"),
    ("http_addition_module", Usual::Optional, "add_after_body"),
    ("http_sub_module", Usual::Optional, "sub_filter"),
    ("http_dav_module", Usual::Optional, "dav_methods"),
    ("http_flv_module", Usual::Optional, "flv"),
    ("http_mp4_module", Usual::Optional, "mp4"),
    ("http_gunzip_module", Usual::Optional, "gunzip"),
    ("http_gzip_static_module", Usual::Optional, "gzip_static"),
    ("http_auth_request_module", Usual::Optional, "auth_request"),
    ("http_random_index_module", Usual::Optional, "random_index"),
    ("http_secure_link_module", Usual::Optional, "secure_link"),
    ("http_slice_module", Usual::Optional, "slice"),
    ("http_stub_status_module", Usual::Optional, "stub_status"),
    ("debug", Usual::Optional, "debug_connection"),
    ("stream", Usual::Optional, "stream"),
    ("stream_ssl_module", Usual::Optional, "stream.server/ssl_certificate"),
    ("stream_realip_module", Usual::Optional, "stream.server/set_real_ip_from"),
    ("stream_ssl_preread_module", Usual::Optional, "stream.server/ssl_preread"),
    ("stream_limit_conn_module", Usual::Default, "stream.server/limit_conn"),
    ("stream_access_module", Usual::Default, "stream.server/allow"),
    ("stream_geo_module", Usual::Default, "stream/geo"),
    ("stream_map_module", Usual::Default, "stream/map"),
    ("stream_split_clients_module", Usual::Default, "stream/split_clients"),
    ("stream_return_module", Usual::Default, "stream.server/return"),
    ("stream_pass_module", Usual::Default, "stream.server/pass"),
    ("stream_set_module", Usual::Default, "stream.server/set"),
    ("stream_upstream_hash_module", Usual::Default, "stream.upstream/hash"),
    ("stream_upstream_least_conn_module", Usual::Default, "stream.upstream/least_conn"),
    ("stream_upstream_random_module", Usual::Default, "stream.upstream/random"),
    ("stream_upstream_zone_module", Usual::Default, "stream.upstream/zone"),
    ("mail", Usual::Optional, "mail"),
];

/// `--with-NAME` for the optional modules that exist, `--without-NAME` for the default ones that
/// do not.
pub fn configure_arguments(registry: &Registry) -> Vec<String> {
    NGINX_MODULES
        .iter()
        .filter_map(|(name, usual, marker)| match (usual, !knows(registry, marker)) {
            (Usual::Optional, false) => Some(format!("--with-{name}")),
            (Usual::Default, true) => Some(format!("--without-{name}")),
            _ => None,
        })
        .collect()
}

/// Whether the tables have a directive, in a context where one is named.
fn knows(registry: &Registry, marker: &str) -> bool {
    let (context, name) = marker.split_once('/').map_or((None, marker), |(c, n)| (Some(c), n));
    let mut found = registry.named(name.as_bytes()).iter();
    found.any(|directive| {
        let mut contexts = directive.spec().contexts.iter();
        context.is_none_or(|wanted| contexts.any(|context| context.id == wanted))
    })
}

/// One page of the manual.
pub struct Page {
    /// The name of its file, without an extension.
    pub name: &'static str,
    pub title: String,
    pub intro: &'static str,
    pub directives: &'static [&'static dyn AnyDirective],
    /// Names with their `$`, and what they hold.
    pub variables: Vec<(String, &'static str)>,
}

/// The manual, page by page: one for each module.
pub fn manual() -> Vec<Page> {
    let page = |name, title: &str, intro, directives| Page {
        name,
        title: title.to_owned(),
        intro,
        directives,
        variables: Vec::new(),
    };
    let mut pages = vec![
        page("core", "Processes", "Master, workers and their surroundings.", directives::CORE),
        page("events", "Event loop", "How a worker waits.", directives::EVENTS_DIRECTIVES),
        page("error_log", "Error log", "Where errors are written.", session::log::DIRECTIVES),
        page(
            "resolver",
            "Resolver",
            "How names are looked up while the program runs.",
            upstream::resolver::DIRECTIVES,
        ),
        Page {
            variables: variables(http::variables::BUILTINS),
            ..page(
                "http",
                "HTTP core",
                "Servers, locations, connections and bodies of HTTP.",
                http::directives::ALL,
            )
        },
        page(
            "http_moot",
            "HTTP core: without effect",
            "Directives of nginx's core that are accepted and change nothing here.",
            http::moot::ALL,
        ),
        page(
            "http_v2",
            "HTTP/2",
            "Many requests at once on one connection with a client.",
            http::http2::ALL,
        ),
    ];
    pages.extend(http_modules::list::MODULES.iter().map(|module| Page {
        variables: variables(module.variables),
        ..page(module.name, module.name, module.text, module.directives)
    }));
    pages.push(Page {
        variables: variables(stream::variables::BUILTINS),
        ..page(
            "stream",
            "Stream core",
            "Servers, listeners and sessions of TCP and UDP.",
            stream::directives::ALL,
        )
    });
    pages.extend(stream::list::MODULES.iter().map(|module| Page {
        variables: variables(module.variables),
        ..page(module.name, module.name, module.text, module.directives)
    }));
    pages
}

fn variables<X>(builtins: &[Builtin<X>]) -> Vec<(String, &'static str)> {
    let name = |builtin: &Builtin<_>| match builtin.get {
        BuiltinGetter::One(_) => format!("${}", builtin.name),
        BuiltinGetter::Family(_) => format!("${}NAME", builtin.name),
    };
    builtins.iter().map(|builtin| (name(builtin), builtin.text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_sound() {
        assert_eq!(registry().faults(), Vec::<String>::new());
    }

    #[test]
    fn what_exists_is_said_and_what_does_not_is_not() {
        let arguments = configure_arguments(&Registry::new(&[directives::CORE]));
        assert!(arguments.contains(&"--without-http".to_owned()));
        assert!(!arguments.iter().any(|argument| argument.starts_with("--with-")));
        let arguments = configure_arguments(&registry());
        assert!(!arguments.contains(&"--without-http".to_owned()));
        assert!(!arguments.contains(&"--with-http_perl_module".to_owned()));
    }

    #[test]
    fn every_directive_stands_on_a_page() {
        let pages = manual();
        let on_pages: Vec<_> = pages.iter().flat_map(|page| page.directives).collect();
        assert_eq!(on_pages.len(), registry().all().count());
        let mut names: Vec<_> = pages.iter().map(|page| page.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), pages.len());
    }
}
