//! The agent: joins what the kernel tells into records, and answers questions.
//!
//! | module | holds |
//! | --- | --- |
//! | [`settings`] | what the command line and the config file ask for |
//! | [`handle`] | questions to the running agent, and their answers |

pub mod handle;
pub mod settings;
