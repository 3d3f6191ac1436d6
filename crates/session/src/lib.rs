//! What every client conversation has: texts, variables, logs, addresses
