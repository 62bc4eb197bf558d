//! What the privileged tests share.
//!
//! | module | holds |
//! | --- | --- |
//! | [`truth`] | what a test program did, told by itself |
//! | [`way`] | the same of every way out, socket by socket |
//! | [`listener`] | the other end of its connections |
//! | [`dns`] | a DNS server that answers what it is told to |
//! | [`program`] | runs of the test program |
//! | [`scratch`] | the files that are run |
//! | [`fuse`] | a FUSE file system that need not answer |
//! | [`gate`] | an exec gate on a file system of the test's own |
//! | [`network`] | network namespaces, wired and translating |
//! | [`cgroup`] | the cgroup they run in |
//! | [`containers`] | cgroups named as containers are |
//! | [`rooted`] | containers with roots of their own |
//! | [`agent`] | runs of procid |
//! | [`maps`] | the maps of its programs, to be tampered with |
//! | [`records`] | the records that it writes |
//! | [`attribution`] | what one act's records must say |
//! | [`http`] | questions to its API by hand |
//! | [`incident`] | a theft, as it is told of afterwards |
//! | [`page`] | what was asked and answered, as a page with pictures |
//! | [`browser`] | Chromium, which looks at pages |
//! | [`terminal`] | a program in a terminal of its own |
//! | [`stage`] | all of these, set up for one test |

pub mod agent;
pub mod attribution;
pub mod browser;
pub mod cgroup;
pub mod containers;
pub mod dns;
pub mod fuse;
pub mod gate;
pub mod http;
pub mod incident;
pub mod listener;
pub mod lockout;
pub mod maps;
pub mod names;
pub mod network;
pub mod page;
pub mod program;
pub mod records;
pub mod rooted;
pub mod scratch;
pub mod stage;
pub mod terminal;
pub mod truth;
pub mod unseen;
pub mod way;
