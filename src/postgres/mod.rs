//! Hands: everything that touches PostgreSQL, nothing that decides.
