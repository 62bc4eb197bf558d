//! What was seen, kept beyond the agent's memory and its end: SQLite in the
//! state directory. What is promised of it: docs/HISTORY.md.
//!
//! | module | holds |
//! | --- | --- |
//! | [`fact`] | what the agent tells |
//! | [`feed`] | from the agent's thread to the writer's |
//! | [`writer`] | the thread that writes |
//! | [`batch`] | facts that are written together |
//! | [`store`] | batches to rows |
//! | [`names`] | what is written once and named by a number |
//! | [`translations`] | what network address translation makes of flows' ends |
//! | [`value`] | values as the database keeps them |
//! | [`file`] | the file: made, found whole, damaged or too new |
//! | [`bounds`] | the oldest is removed first |
//! | [`reader`] | the file, read |
//! | [`restore`] | rows to the facts that they were made of |
//! | [`search`] | which flows a question may mean |
//!
//! It needs no kernel: what it is told are the facts that
//! [`connections`](crate::connections) and [`identity`](crate::identity) hold,
//! and what it gives back are the same.

pub mod batch;
mod bounds;
pub mod fact;
pub mod feed;
pub mod file;
#[cfg(test)]
pub(crate) mod fixtures;
mod names;
pub mod reader;
pub mod restore;
pub mod search;
mod store;
mod translations;
mod value;
pub mod writer;

pub use bounds::Limits;
pub use fact::{Fact, Gap};
pub use feed::{Feed, State};
pub use reader::Reader;
pub use writer::Writer;
