//! openraft's own storage conformance suite, on our store.

use std::sync::Arc;

use matriarch_storage::{Options, Store};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::machine::{Halt, Machine};
use crate::status::Lead;
use crate::store::log::LogStore;
use crate::store::machine::StateMachine;
use crate::types::{Runtime, TypeConfig};

struct Nothing;

impl Machine for Nothing {
    fn apply(&mut self, _lead: Lead, _command: &[u8]) -> Result<Vec<u8>, Halt> {
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Vec<u8> {
        b"nothing".to_vec()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        assert_eq!(bytes, b"nothing");
        Ok(())
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path(), "suite", Options::default()).unwrap());
        let machine = StateMachine::load(Box::new(Nothing), store.clone()).unwrap();
        Ok((dir, LogStore::new(store), machine))
    }
}

#[test]
fn our_store_passes_openrafts_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let seeded = Runtime::scope(1, Suite::test_all(Builder));
    runtime.block_on(seeded).unwrap();
}
