//! Workload generators shared by the benches: message heads ([`heads`]) and the frames that carry them ([`frames`]).

pub mod frames;
pub mod heads;
