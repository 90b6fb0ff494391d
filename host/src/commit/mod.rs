//! The commit room.
