//! Bytes that a process chose, made harmless for a line and a terminal.
