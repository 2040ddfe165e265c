//! Whole files in, exact words out.
