//! The blocks of the configuration in which the directives of a client conversation may stand.
//!
//! They are declared here, below the engines, because directives such as `error_log` and
//! `access_log` belong to this floor yet appear inside the blocks of the engines above it.
//! An engine re-exports the ones that are its own. The first name is the path by which tables
//! refer to a context, the second is what the manual calls it.

use config::Context;

/// Inside `http { }`.
pub const HTTP: Context = Context::new("http", "http");

/// Inside `server { }` of `http`.
pub const SERVER: Context = Context::new("http.server", "server");

/// Inside `location { }`, nested ones included.
pub const LOCATION: Context = Context::new("http.location", "location");

/// Inside `if ( ) { }` of a server.
pub const IF_SERVER: Context = Context::new("http.server.if", "if in server");

/// Inside `if ( ) { }` of a location.
pub const IF_LOCATION: Context = Context::new("http.location.if", "if in location");

/// Inside `limit_except { }` of a location.
pub const LIMIT_EXCEPT: Context = Context::new("http.location.limit_except", "limit_except");

/// Inside `upstream { }` of `http`.
pub const UPSTREAM: Context = Context::new("http.upstream", "upstream");

/// Inside `stream { }`.
pub const STREAM: Context = Context::new("stream", "stream");

/// Inside `server { }` of `stream`.
pub const STREAM_SERVER: Context = Context::new("stream.server", "server in stream");

/// Inside `upstream { }` of `stream`.
pub const STREAM_UPSTREAM: Context = Context::new("stream.upstream", "upstream in stream");
