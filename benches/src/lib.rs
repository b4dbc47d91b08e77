//! What the benches share: message heads ([`heads`]), the frames that carry them ([`frames`]), what comes of them behind
//! capture ([`behind`]), and the detectors that people use today ([`baseline`]).

pub mod baseline;
pub mod behind;
pub mod frames;
pub mod heads;
