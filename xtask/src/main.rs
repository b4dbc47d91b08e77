//! Developer commands. See `cargo xtask help`.
fn main() {}
