use super::*;

fn member(id: u64, name: &str, peer: &str, client: &str) -> Member {
    let urls = |url: &str| {
        if url.is_empty() {
            vec![]
        } else {
            vec![url.to_owned()]
        }
    };
    Member {
        id: MemberId(id),
        name: name.to_owned(),
        peer_urls: urls(peer),
        client_urls: urls(client),
        is_learner: false,
    }
}

#[test]
fn membership_sets_peers_and_publication_names() {
    let mut b = bench();
    let at = |index| LogPosition {
        term: 1,
        leader: 1,
        index,
    };
    let raw = |text: &'static str| bytes::Bytes::from_static(text.as_bytes());
    b.machine
        .set_membership(at(0), vec![member(1, "", "p1", "")], raw("one"));
    b.next = 1;
    b.run(&Command::PublishMember(member(
        1, "infra1", "ignored", "c1",
    )))
    .unwrap();
    assert_eq!(
        b.views.cluster.member(MemberId(1)).unwrap(),
        member(1, "infra1", "p1", "c1")
    );
    b.run(&Command::PublishMember(member(9, "nobody", "", "c9")))
        .unwrap();
    assert_eq!(b.views.cluster.members().len(), 1);

    let learner = Member {
        is_learner: true,
        ..member(2, "", "p2", "")
    };
    b.machine.set_membership(
        at(3),
        vec![member(1, "", "p1b", ""), learner.clone()],
        raw("two"),
    );
    b.machine.finish_batch().unwrap();
    assert_eq!(
        b.views.cluster.members(),
        [member(1, "infra1", "p1b", "c1"), learner.clone()]
    );
    b.machine
        .set_membership(at(4), vec![learner.clone()], raw("three"));
    b.machine.finish_batch().unwrap();
    assert_eq!(b.views.cluster.members(), [learner]);
    assert_eq!(b.machine.applied(), (Some(at(4)), Some(raw("three"))));
}

#[tokio::test]
async fn who_was_removed_stays_removed_also_after_a_restart() {
    let engine = Arc::new(backend::engine::FaultyEngine::new(3));
    let on = |engine: &Arc<backend::engine::FaultyEngine>| {
        let engine: Arc<dyn backend::engine::Engine> = engine.clone();
        let backend = backend::Backend::with_engine(engine).unwrap();
        open_on(backend, Quota::Unlimited)
    };
    let mut b = on(&engine);
    let at = |index| LogPosition {
        term: 1,
        leader: 1,
        index,
    };
    let both = vec![member(1, "a", "p1", ""), member(2, "b", "p2", "")];
    b.machine.set_membership(at(0), both, bytes::Bytes::new());
    let one = vec![member(1, "", "p1", "")];
    b.machine.set_membership(at(1), one, bytes::Bytes::new());
    b.machine.finish_batch().unwrap();
    let removed = |cluster: &Cluster| [1, 2, 3].map(|id| cluster.is_removed(MemberId(id)));
    assert_eq!(removed(&b.views.cluster), [false, true, false]);
    assert!(b.views.cluster.member(MemberId(1)).unwrap().is_started());
    b.machine.stage_all().unwrap();
    b.persister.durable().await.unwrap();
    let b = on(&Arc::new(engine.crash(backend::engine::Loss::All)));
    assert_eq!(removed(&b.views.cluster), [false, true, false]);
    assert_eq!(b.views.cluster.members(), [member(1, "a", "p1", "")]);
}
