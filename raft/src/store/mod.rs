//! openraft's storage traits over the storage crate.

pub(crate) mod log;
pub(crate) mod machine;
#[cfg(test)]
mod suite;
