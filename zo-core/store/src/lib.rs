//! The one-file store of zo: redb, group commit, snapshots, change notification.
#![forbid(unsafe_code)]
