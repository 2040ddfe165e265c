//! Every byte this crate stores or sends: the envelope, the stored forms, the messages.
//!
//! openraft's own structs derive serde, but they belong to an alpha release and bincode is positional: a field added
//! there would silently change what old files mean. So the bytes are ours, one struct each, with golden tests.

pub(crate) mod envelope;
#[cfg(test)]
mod golden;
pub(crate) mod message;
pub(crate) mod stored;
