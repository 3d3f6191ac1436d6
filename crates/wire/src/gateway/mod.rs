//! Protocols between a web server and programs: FastCGI, SCGI, uwsgi, and the head of an answer in
//! the manner of CGI (RFC 3875) that all of them share; memcached's answers beside them.
//!
//! Answers are turned into HTTP/1: whoever reads them needs one reader.

pub mod fastcgi;
pub mod head;
pub mod memcached;
pub mod scgi;
pub mod uwsgi;
