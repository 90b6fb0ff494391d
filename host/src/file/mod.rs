//! The file room.
