//! The edge to the operating system: processes, sockets, readiness, shared memory
