//! The small process that stands between the daemon and PostgreSQL and enforces the lease.
