//! What the privileged tests share.
//!
//! | module | holds |
//! | --- | --- |
//! | [`truth`] | what a test program did, told by itself |

pub mod truth;
