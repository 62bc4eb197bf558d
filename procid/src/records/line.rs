//! A record as one line of a table, for people.
