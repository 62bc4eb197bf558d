//! Which images there are and what is known of each.
//!
//! | module | holds |
//! | --- | --- |
//! | [`containers`] | cgroups as directories |
//! | [`context`] | the container, pod and unit of a cgroup, the names of users |
//! | [`entity`] | what an image is called outside this host |
//! | [`image`] | one image: its facts, its parent, its hash |
//! | [`images`] | the table of images, live and lately ended |
//! | [`mounts`] | which file systems may not answer |
//! | [`quiet`] | paths, without waiting for one of those |
//! | [`hash`] | SHA-256 of the file that ran, with the grade it has earned |
//! | [`script`] | the script that an interpreter was told to run |

pub mod containers;
pub mod context;
pub mod entity;
pub mod hash;
pub mod image;
pub mod images;
pub mod mounts;
pub mod quiet;
pub mod script;
