//! The loop that runs on every node.
