//! Client connections are led to the server that serves them.

pub mod session;
