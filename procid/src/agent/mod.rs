//! The agent: joins what the kernel tells into records, and answers questions.
//!
//! | module | holds |
//! | --- | --- |
//! | [`settings`] | what the command line and the config file ask for |
//! | [`mod@run`] | the loop: ring buffer in, records out |
//! | [`engine`] | the one owner of all that is known: events in, records out |
//! | [`render`] | from what is known to the records that say it |
//! | [`clock`] | kernel time to the time of day |
//! | [`origin`] | host and agent, as every record names them |
//! | [`policy`] | which policy is in force, and how it changes |
//! | [`recall`] | answers from history |
//! | [`handle`] | questions to the running agent, and their answers |
//! | [`stop`] | whether it is to stop |
//! | [`stream`] | every record as it is emitted, to who reads along |

pub mod clock;
pub mod engine;
pub mod handle;
pub mod origin;
pub mod policy;
pub mod recall;
mod render;
mod run;
pub mod settings;
pub mod stop;
pub mod stream;

pub use run::{RunError, run};
