//! Runs a configuration against scripted peers
