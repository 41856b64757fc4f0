//! The Rust client `etcd-client` against the member that `KVORUM_TEST_ENDPOINT` names.

use anyhow::{Context as _, Result, ensure};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, LeaseGrantOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};

async fn client() -> Result<Client> {
    let endpoint = std::env::var("KVORUM_TEST_ENDPOINT").context("KVORUM_TEST_ENDPOINT")?;
    Ok(Client::connect([endpoint], None).await?)
}

#[tokio::test]
async fn put_get_delete() -> Result<()> {
    let mut client = client().await?;
    client.put("rust/kv/a", "1", None).await?;
    let put = client
        .put("rust/kv/a", "2", Some(PutOptions::new().with_prev_key()))
        .await?;
    assert_eq!(put.prev_key().context("a previous value")?.value(), b"1");
    for name in ["c", "b"] {
        client.put(format!("rust/kv/{name}"), name, None).await?;
    }
    let prefix = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Value, SortOrder::Descend);
    let got = client.get("rust/kv/", Some(prefix.with_limit(2))).await?;
    let values: Vec<_> = got.kvs().iter().map(|kv| kv.value()).collect();
    assert_eq!(values, [b"c", b"b"]);
    ensure!(got.more() && got.count() == 3, "{got:?}");
    let deleted = client
        .delete(
            "rust/kv/",
            Some(DeleteOptions::new().with_prefix().with_prev_key()),
        )
        .await?;
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (3, 3));
    Ok(())
}

#[tokio::test]
async fn txn_takes_the_branch_that_its_compares_choose() -> Result<()> {
    let mut client = client().await?;
    let key = "rust/txn/a";
    let create = Txn::new()
        .when([Compare::create_revision(key, CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key, "created", None)])
        .or_else([TxnOp::get(key, None)]);
    ensure!(
        client.txn(create.clone()).await?.succeeded(),
        "the key was there"
    );
    let again = client.txn(create).await?;
    ensure!(!again.succeeded(), "created twice");
    let responses = again.op_responses();
    let Some(TxnOpResponse::Get(got)) = responses.first() else {
        anyhow::bail!("no range in the answer: {responses:?}");
    };
    assert_eq!(got.kvs()[0].value(), b"created");
    let nested = Txn::new()
        .when([Compare::value(key, CompareOp::Equal, "created")])
        .and_then([
            TxnOp::txn(Txn::new().and_then([TxnOp::put("rust/txn/b", "nested", None)])),
            TxnOp::delete(key, None),
        ]);
    ensure!(
        client.txn(nested).await?.succeeded(),
        "the value is another"
    );
    assert_eq!(
        client.get("rust/txn/b", None).await?.kvs()[0].value(),
        b"nested"
    );
    assert_eq!(client.get(key, None).await?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn watch_sees_puts_and_deletions_in_order() -> Result<()> {
    let mut client = client().await?;
    let first = client.put("rust/watch/a", "0", None).await?;
    let first = first.header().context("a header")?.revision();
    let options = WatchOptions::new()
        .with_prefix()
        .with_prev_key()
        .with_start_revision(first);
    let mut stream = client.watch("rust/watch/", Some(options)).await?;
    client.put("rust/watch/a", "1", None).await?;
    client.delete("rust/watch/a", None).await?;
    let (mut seen, mut watch_id) = (Vec::new(), -1);
    while seen.len() < 3 {
        let response = stream.message().await?.context("the stream has ended")?;
        watch_id = response.watch_id();
        for event in response.events() {
            let value = event.kv().context("a key-value")?.value().to_vec();
            let before = event.prev_kv().map(|kv| kv.value().to_vec());
            seen.push((event.event_type(), value, before));
        }
    }
    let put = |value: &[u8], before: Option<&[u8]>| {
        (EventType::Put, value.to_vec(), before.map(<[u8]>::to_vec))
    };
    assert_eq!(seen[0], put(b"0", None));
    assert_eq!(seen[1], put(b"1", Some(b"0")));
    assert_eq!(
        seen[2],
        (EventType::Delete, Vec::new(), Some(b"1".to_vec()))
    );
    stream.request_progress().await?;
    let progress = stream.message().await?.context("the stream has ended")?;
    ensure!(
        progress.events().is_empty(),
        "events instead of progress: {progress:?}"
    );
    stream.cancel(watch_id).await?;
    let canceled = stream.message().await?.context("the stream has ended")?;
    ensure!(canceled.canceled(), "not canceled: {canceled:?}");
    Ok(())
}

#[tokio::test]
async fn leases_are_kept_alive_and_revoked() -> Result<()> {
    let mut client = client().await?;
    let lease = client
        .lease_grant(100, Some(LeaseGrantOptions::new().with_id(0x1ead)))
        .await?;
    assert_eq!((lease.id(), lease.ttl()), (0x1ead, 100));
    let options = PutOptions::new().with_lease(lease.id());
    client.put("rust/lease/a", "leased", Some(options)).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease.id()).await?;
    for _ in 0..3 {
        keeper.keep_alive().await?;
        let answer = answers.message().await?.context("the stream has ended")?;
        assert_eq!((answer.id(), answer.ttl()), (lease.id(), 100));
    }
    let options = etcd_client::LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(lease.id(), Some(options)).await?;
    assert_eq!(left.granted_ttl(), 100);
    assert_eq!(left.keys(), [b"rust/lease/a"]);
    let leases = client.leases().await?;
    ensure!(
        leases.leases().iter().any(|l| l.id() == lease.id()),
        "not listed"
    );
    client.lease_revoke(lease.id()).await?;
    assert_eq!(client.get("rust/lease/a", None).await?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn an_expired_lease_takes_its_keys_along() -> Result<()> {
    let mut client = client().await?;
    let mut stream = client.watch("rust/expiry/a", None).await?;
    let lease = client.lease_grant(1, None).await?;
    let options = PutOptions::new().with_lease(lease.id());
    client.put("rust/expiry/a", "short", Some(options)).await?;
    loop {
        let response = stream.message().await?.context("the stream has ended")?;
        if response
            .events()
            .iter()
            .any(|event| event.event_type() == EventType::Delete)
        {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn errors_are_etcds() -> Result<()> {
    let mut client = client().await?;
    let future = GetOptions::new().with_revision(i64::MAX);
    let Err(Error::GRpcStatus(status)) = client.get("rust/a", Some(future)).await else {
        anyhow::bail!("a future revision was answered");
    };
    assert_eq!(
        status.message(),
        "etcdserver: mvcc: required revision is a future revision"
    );
    let Err(Error::GRpcStatus(status)) = client.put("", "x", None).await else {
        anyhow::bail!("an empty key was put");
    };
    assert_eq!(status.message(), "etcdserver: key is not provided");
    Ok(())
}

#[tokio::test]
async fn status_and_members() -> Result<()> {
    let mut client = client().await?;
    let status = client.status().await?;
    ensure!(
        status.version().starts_with("3."),
        "version {}",
        status.version()
    );
    let members = client.member_list().await?;
    assert_eq!(members.members().len(), 1);
    assert_eq!(members.members()[0].id(), status.leader());
    Ok(())
}
