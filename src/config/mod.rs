//! What was typed and what it means: node file and environment, checked once, then immutable.
