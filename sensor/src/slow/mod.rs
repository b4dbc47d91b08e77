//! The slow path: halves of connections that the kernel handed over, because their segments came out of order, were lost,
//! or contradict each other. Their bytes are put in order here and parsed by the same functions as in the kernel.

pub mod stream;
