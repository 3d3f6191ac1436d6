//! Which peer next: algorithms and health as plain state in memory that the caller gives
