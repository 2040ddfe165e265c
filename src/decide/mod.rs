//! Judgement: pure functions without clock or IO.
