//! The store as it was at every revision, built from all its events.
//!
//! What this is not: a check of anybody's view of it, save one: events say what a key's version
//! and revisions are, and that has to follow from the events before.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use api::mvccpb::{Event, KeyValue, event::EventType};
use bytes::Bytes;
use pb::watch_request::RequestUnion;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Client;
use crate::history::{Range, key, revision};
use crate::patience::patience;

/// The revision of an empty store.
const FIRST_REVISION: i64 = 1;

/// Every revision of a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    revisions: BTreeMap<i64, Vec<Event>>,
    /// Every key's versions by the revision that made them; none is a deletion.
    keys: BTreeMap<Bytes, BTreeMap<i64, Option<KeyValue>>>,
}

impl Model {
    /// Builds the store's life from its events, in their order.
    ///
    /// # Errors
    /// When a revision is missing, or a key-value does not follow from what was before.
    pub fn of(events: impl IntoIterator<Item = Event>) -> Result<Model> {
        let mut model = Model::default();
        for event in events {
            let what = format!("{event:?}");
            model.append(event).with_context(|| what)?;
        }
        Ok(model)
    }

    /// Adds the next event.
    ///
    /// # Errors
    /// When it does not follow from what was before.
    pub fn append(&mut self, mut event: Event) -> Result<()> {
        // Some watchers get the value before, some do not: here it follows from the rest.
        event.prev_kv = None;
        let at = revision(&event);
        ensure!(
            at == self.newest() || at == self.newest() + 1,
            "revision {at} follows {}",
            self.newest()
        );
        let kv = event.kv.clone().context("an event has a key-value")?;
        ensure!(
            self.at(at).iter().all(|other| key(other) != kv.key),
            "a key changes twice in a revision"
        );
        let before = self.value_at(&kv.key, at - 1);
        let version = match event.r#type() {
            EventType::Put => {
                let (version, created) = before.map_or((0, at), |b| (b.version, b.create_revision));
                ensure!(
                    (kv.version, kv.create_revision) == (version + 1, created),
                    "the version should be {}, created in {created}",
                    version + 1
                );
                Some(kv.clone())
            }
            EventType::Delete => {
                ensure!(before.is_some(), "there was nothing to delete");
                None
            }
        };
        self.keys.entry(kv.key).or_default().insert(at, version);
        self.revisions.entry(at).or_default().push(event);
        Ok(())
    }

    /// The newest revision.
    #[must_use]
    pub fn newest(&self) -> i64 {
        let newest = self.revisions.last_key_value();
        newest.map_or(FIRST_REVISION, |(&revision, _)| revision)
    }

    /// What happened at a revision.
    #[must_use]
    pub fn at(&self, revision: i64) -> &[Event] {
        self.revisions.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// All revisions that changed something, and how.
    pub fn revisions(&self) -> impl Iterator<Item = (i64, &[Event])> {
        self.revisions
            .iter()
            .map(|(&revision, events)| (revision, events.as_slice()))
    }

    /// A key as it was at a revision.
    #[must_use]
    pub fn value_at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        versions.range(..=revision).next_back()?.1.as_ref()
    }

    /// The keys of a range as they were at a revision.
    #[must_use]
    pub fn range_at(&self, range: &Range, revision: i64) -> Vec<&KeyValue> {
        let keys = self.keys.keys().filter(|key| range.contains(key));
        keys.filter_map(|key| self.value_at(key, revision))
            .collect()
    }

    /// The keys attached to a lease at a revision.
    #[must_use]
    pub fn attached_at(&self, lease: i64, revision: i64) -> Vec<&KeyValue> {
        let mut attached = self.range_at(&Range::all(), revision);
        attached.retain(|kv| kv.lease == lease);
        attached
    }

    /// What a watcher of a range has to get, from a revision to another.
    pub fn events(&self, range: &Range, from: i64, to: i64) -> impl Iterator<Item = &Event> {
        let revisions = self.revisions.range(from..);
        let revisions = revisions.take_while(move |(at, _)| **at <= to);
        let events = revisions.flat_map(|(_, events)| events);
        events.filter(|event| range.contains(key(event)))
    }

    /// Adds what a member's watch shows up to a revision.
    ///
    /// # Errors
    /// When the watch does not get there in time, or shows what cannot be.
    pub async fn read_to(&mut self, client: &Client, to: i64) -> Result<()> {
        if self.newest() >= to {
            return Ok(());
        }
        let (requests, queue) = tokio::sync::mpsc::channel(1);
        let all = Range::all();
        let create = pb::WatchCreateRequest {
            key: all.key.to_vec(),
            range_end: all.end.to_vec(),
            start_revision: self.newest() + 1,
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        requests.send(pb::WatchRequest { request_union }).await?;
        let answers = client.watch.clone().watch(ReceiverStream::new(queue)).await;
        let mut answers = answers?.into_inner();
        while self.newest() < to {
            let newest = self.newest();
            let answer = tokio::time::timeout(patience(), answers.message()).await;
            let answer = answer.with_context(|| format!("the watch stops at {newest}"))??;
            let answer = answer.context("the watch has ended")?;
            ensure!(!answer.canceled, "the watch was canceled: {answer:?}");
            for event in answer.events {
                ensure!(
                    revision(&event) > newest,
                    "{event:?} came after revision {newest}"
                );
                self.append(event)?;
            }
        }
        Ok(())
    }
}
