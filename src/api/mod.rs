//! The REST door, in Patroni's words.
