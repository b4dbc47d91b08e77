//! `authsensor`, the command line.
fn main() {}
