//! The loop that runs where the Raft leader is.
