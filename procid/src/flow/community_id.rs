//! Community ID flow hashing, version 1 (<https://github.com/corelight/community-id-spec>).
