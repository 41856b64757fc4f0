//! Tokens that are not valid any more, beside a real etcd.

use anyhow::{Result, ensure};
use api::etcdserverpb as pb;
use testkit::Spec;

use super::{Call, Side};

/// A JWT names the revision of users and roles that it was made at; a simple token goes with its user.
#[tokio::test]
async fn who_has_an_old_token_is_told_so() -> Result<()> {
    let keys = tempfile::tempdir()?;
    let secret = keys.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef")?;
    let token = format!(
        "--auth-token=jwt,priv-key={},sign-method=HS256,ttl=1h",
        secret.display()
    );
    let watch = pb::WatchCreateRequest {
        key: b"b".to_vec(),
        ..pb::WatchCreateRequest::default()
    };
    let range = pb::RangeRequest {
        key: b"b".to_vec(),
        ..pb::RangeRequest::default()
    };
    let calls = [Call::Watch(watch), Call::Range(range)];
    let mut answers = Vec::new();
    for spec in [Spec::etcd(), Spec::kvorum()] {
        let mut side = Side::start(spec.arg(token.clone())).await?;
        let mut said = Vec::new();
        for call in &calls {
            said.push(side.call("reader", call).await);
        }
        let name = "one more".to_owned();
        let add = side.by("root", pb::AuthRoleAddRequest { name });
        side.auth.role_add(add).await?;
        for user in ["reader", "root"] {
            for call in &calls {
                said.push(side.call(user, call).await);
            }
        }
        answers.push(said);
        side.server.stop().await?;
    }
    ensure!(answers[0] == answers[1], "{answers:#?}");
    let old = "etcdserver: revision of auth store is old";
    ensure!(!answers[1][0].contains(old) && answers[1][2].contains(old));
    Ok(())
}
