//! Offsets of the kernel fields the programs read.
