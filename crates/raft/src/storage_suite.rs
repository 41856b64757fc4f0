//! openraft's own test suite for storage, on the real log store and the real state.

use std::io;
use std::sync::Arc;

use backend::Backend;
use futures_util::Stream;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, StorageError};
use types::SystemClock;

use crate::error::FatalCell;
use crate::log_store::{self, LogHandle, LogStore};
use crate::state_machine::{Adapter, DurableState, MachineHandle, SnapshotBuilder, adapt};
use crate::testing::{state_config, waiters};
use crate::type_config::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// The adapter, except that it installs a snapshot of a state in which no key was ever written:
/// that needs no data to be sent, which is all the suite asks for.
struct Installing {
    adapter: Adapter,
    machine: MachineHandle,
}

impl RaftStateMachine<TypeConfig> for Installing {
    type SnapshotData = DurableState;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.adapter.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        self.adapter.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.adapter.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: DurableState,
    ) -> io::Result<()> {
        let refused = self
            .adapter
            .install_snapshot(meta, snapshot)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        self.machine.become_empty_at(meta).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.adapter.get_current_snapshot().await
    }
}

/// Keeps the stores' directory until a test is done with them.
struct Guard {
    _handle: LogHandle,
    _dir: Option<tempfile::TempDir>,
}

struct InMemory;
struct OnSled;

fn build(
    log: Backend,
    state: Backend,
    dir: Option<tempfile::TempDir>,
) -> (Guard, LogStore, Installing) {
    let (progress, fatal) = (Arc::default(), FatalCell::default());
    let (store, handle) = log_store::open(
        log,
        Arc::clone(&progress),
        fatal.clone(),
        &apply::Workers::Threads,
        None,
    )
    .unwrap();
    let config = state_config(Arc::new(SystemClock));
    let (state, _views, persister) = apply::open(state, &config).unwrap();
    let (adapter, machine) = adapt(
        state,
        persister,
        progress,
        waiters(),
        apply::Workers::Threads,
        fatal,
    )
    .unwrap();
    (
        Guard {
            _handle: handle,
            _dir: dir,
        },
        store,
        Installing { adapter, machine },
    )
}

impl StoreBuilder<TypeConfig, LogStore, Installing, Guard> for InMemory {
    async fn build(&self) -> Result<(Guard, LogStore, Installing), StorageError<TypeConfig>> {
        Ok(build(Backend::in_memory(), Backend::in_memory(), None))
    }
}

impl StoreBuilder<TypeConfig, LogStore, Installing, Guard> for OnSled {
    async fn build(&self) -> Result<(Guard, LogStore, Installing), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let open = |name| {
            let path = dir.path().join(name);
            Backend::open(&backend::Config {
                path,
                cache_bytes: 16 << 20,
            })
            .unwrap()
        };
        let (log, state) = (open("log"), open("state"));
        Ok(build(log, state, Some(dir)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_suite_passes_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_suite_passes_on_sled() {
    Suite::test_all(OnSled).await.unwrap();
}
