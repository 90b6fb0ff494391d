//! The partition room.
