//! heng.
fn main() {}
