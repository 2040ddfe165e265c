//! Situations of one node as text in `testdata/duty`, and what it owes in each.

use super::super::script::run_all;

#[test]
fn situations() {
    run_all("duty");
}
