//! The history of a store as its watchers see it, and what follows from it: every key's state at
//! every revision, and the hash that a server has to answer.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use api::etcdserverpb as pb;
use api::mvccpb::{Event, KeyValue, event::EventType};
use pb::watch_request::RequestUnion;
use prost::Message as _;
use testkit::Client;
use testkit::patience::patience;
use tokio_stream::wrappers::ReceiverStream;

/// etcd hashes the name of the bucket first.
const KEY_BUCKET: &[u8] = b"key";
const TOMBSTONE: u8 = b't';

/// Every change, in order.
#[derive(Debug, Default)]
pub struct History {
    /// Changes by main revision, in the order of their sub revisions.
    revisions: BTreeMap<i64, Vec<Event>>,
    compact_revision: i64,
}

impl History {
    /// The newest revision that changed something; 1 in an empty store.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.revisions
            .last_key_value()
            .map_or(1, |(&revision, _)| revision)
    }

    /// What changed at a revision.
    #[must_use]
    pub fn at(&self, revision: i64) -> &[Event] {
        self.revisions.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// The revision of the last compaction, 0 before the first.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Remembers that the store was compacted.
    pub fn compacted(&mut self, revision: i64) {
        self.compact_revision = self.compact_revision.max(revision);
    }

    /// Reads what happened since the last time, up to `revision`, by a watch.
    ///
    /// # Errors
    /// When a revision is missing or comes twice, or the watch does not get there.
    pub async fn read_to(&mut self, client: &Client, revision: i64) -> Result<()> {
        if self.newest() >= revision {
            return Ok(());
        }
        let (requests, queue) = tokio::sync::mpsc::channel(1);
        let create = pb::WatchCreateRequest {
            key: vec![0],
            range_end: vec![0],
            start_revision: self.newest() + 1,
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        requests.send(pb::WatchRequest { request_union }).await?;
        let mut responses = client
            .watch
            .clone()
            .watch(ReceiverStream::new(queue))
            .await?
            .into_inner();
        while self.newest() < revision {
            let response = tokio::time::timeout(patience(), responses.message()).await;
            let at = self.newest();
            let response = response.with_context(|| format!("the watch stops at {at}"))??;
            let response = response.context("the watch has ended")?;
            ensure!(!response.canceled, "the watch was canceled: {response:?}");
            self.append(response.events)?;
        }
        ensure!(
            self.newest() == revision,
            "the watch shows {}, not {revision}",
            self.newest()
        );
        Ok(())
    }

    fn append(&mut self, events: Vec<Event>) -> Result<()> {
        let before = self.newest();
        for event in events {
            let revision = event
                .kv
                .as_ref()
                .context("an event has a key-value")?
                .mod_revision;
            ensure!(revision > before, "revision {revision} came again");
            ensure!(
                revision <= self.newest() + 1,
                "{revision} follows {}",
                self.newest()
            );
            self.revisions.entry(revision).or_default().push(event);
        }
        Ok(())
    }

    /// What HashKV has to answer at a revision: crc32c over all versions that compaction has left,
    /// as etcd stores them.
    ///
    /// # Errors
    /// When an event has no key-value.
    pub fn hash(&self, revision: i64) -> Result<u32> {
        let keep = self.kept_at(revision);
        let mut hash = crc32c::crc32c(KEY_BUCKET);
        for (&main, events) in self.revisions.range(..=revision) {
            for (sub, event) in events.iter().enumerate() {
                if main <= self.compact_revision && !keep.contains(&(main, sub)) {
                    continue;
                }
                let kv = event.kv.as_ref().context("an event has a key-value")?;
                let (mut key, mut stored) = (revision_key(main, sub)?, kv.clone());
                if event.r#type() == EventType::Delete {
                    key.push(TOMBSTONE);
                    stored = KeyValue {
                        key: kv.key.clone(),
                        ..KeyValue::default()
                    };
                }
                hash = crc32c::crc32c_append(hash, &key);
                hash = crc32c::crc32c_append(hash, &stored.encode_to_vec());
            }
        }
        Ok(hash)
    }

    /// Of every key its last version up to a revision, unless that is a deletion. etcd hashes what
    /// is as old as the compaction only if it is one of these, *at the hashed revision*.
    fn kept_at(&self, revision: i64) -> BTreeSet<(i64, usize)> {
        let mut last: BTreeMap<&[u8], (i64, usize, bool)> = BTreeMap::new();
        for (&main, events) in self.revisions.range(..=revision) {
            for (sub, event) in events.iter().enumerate() {
                if let Some(kv) = &event.kv {
                    last.insert(&kv.key, (main, sub, event.r#type() == EventType::Put));
                }
            }
        }
        last.into_values()
            .filter(|(.., put)| *put)
            .map(|(main, sub, _)| (main, sub))
            .collect()
    }

    /// Compares the server's hash with the model's.
    ///
    /// # Errors
    /// When they differ.
    pub async fn check_hash(&self, client: &Client, revision: i64) -> Result<()> {
        let request = pb::HashKvRequest { revision };
        let answer = client
            .maintenance
            .clone()
            .hash_kv(request)
            .await?
            .into_inner();
        let model = self.hash(if revision == 0 {
            self.newest()
        } else {
            revision
        })?;
        if answer.hash != model {
            bail!(
                "HashKV at {revision} is {}, the model's {model}: {answer:?}",
                answer.hash
            );
        }
        Ok(())
    }
}

/// The key under which etcd stores a version.
fn revision_key(main: i64, sub: usize) -> Result<Vec<u8>> {
    let mut key = main.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(u64::try_from(sub)?.to_be_bytes());
    Ok(key)
}
