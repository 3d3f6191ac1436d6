//! Two-way copying between connections.
