//! A worker's streams, buffers, timers and listeners on top of the driver
