//! One file per HTTP feature; `list` has them in the order in which their parts run.
//!
//! A feature declares its directives and variables as data and attaches guards, contents and
//! filters to the locations that ask for it; see `http::module` for what these are.

#![forbid(unsafe_code)]

pub mod access;
pub mod access_log;
pub mod addition;
pub mod aio;
pub mod api;
pub mod auth_basic;
pub mod auth_request;
pub mod autoindex;
pub mod brotli;
pub mod charset;
mod compress;
pub mod dav;
pub mod early_read;
pub mod empty_gif;
pub mod fastcgi;
pub mod geo;
pub mod grpc;
pub mod gunzip;
pub mod gzip;
pub mod gzip_static;
pub mod headers;
pub mod index;
pub mod limit_conn;
pub mod limit_req;
pub mod list;
pub mod map;
pub mod media_type;
pub mod memcached;
pub mod mirror;
pub mod not_modified;
pub mod open_files;
pub mod output;
pub mod parameters;
pub mod prometheus;
pub mod proxy;
pub mod random_index;
pub mod range;
pub mod realip;
pub mod referer;
pub mod rewrite;
pub mod scgi;
pub mod secure_link;
pub mod slice;
pub mod split_clients;
pub mod ssi;
pub mod ssl;
pub mod static_files;
pub mod status_zone;
pub mod sticky;
pub mod stub_status;
pub mod sub_filter;
pub mod try_files;
pub mod type_list;
pub mod unread;
pub mod upstreams;
pub mod userid;
pub mod uwsgi;
pub mod zstd;
