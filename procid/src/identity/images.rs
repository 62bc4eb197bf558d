//! The table of images.
