//! A live group of peers: choose, connect, keep alive, retry
