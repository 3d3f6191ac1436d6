//! The request journey: connections, sites, locations, bodies, guards, content, filters
