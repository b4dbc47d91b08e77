//! What the benches share: message heads ([`heads`]), the frames that carry them ([`frames`]), and the detectors that
//! people use today ([`baseline`]).

pub mod baseline;
pub mod frames;
pub mod heads;
