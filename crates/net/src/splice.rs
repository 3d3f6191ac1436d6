//! Moving bodies between sockets without copying them through the process.
