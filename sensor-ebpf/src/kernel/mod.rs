//! What the programs need of the kernel.

pub mod env;
pub mod maps;
pub mod packet;
