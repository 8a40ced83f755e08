//! Changes of spaces: aliases, settings, indexed fields.

use cairn_proto::v1;
use tonic::{Code, Status};

use crate::support::{TestNode, memory, reason, space, violations};

async fn set_alias(node: &mut TestNode, alias: &str, space: &str) -> Result<String, Status> {
    let request = v1::SetAliasRequest { alias: alias.into(), space: space.into(), request_id: String::new() };
    node.spaces.set_alias(request).await.map(|answer| {
        assert!(!answer.get_ref().position.is_empty());
        answer.into_inner().previous_space
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_are_set_switched_and_removed() {
    let mut node = TestNode::start().await;
    node.create(space("blue", 4, "")).await;
    node.create(space("green", 4, "")).await;
    node.add("green", vec![memory("a", "one", &[])]).await;
    assert_eq!(set_alias(&mut node, "live", "blue").await.unwrap(), "");
    assert_eq!(node.count("live").await, 0);
    assert_eq!(set_alias(&mut node, "live", "green").await.unwrap(), "blue");
    assert_eq!(node.count("live").await, 1);
    let get = v1::GetSpaceRequest { name: "live".into(), consistency: None };
    let found = node.spaces.get_space(get).await.unwrap().into_inner().space.unwrap();
    assert_eq!((found.name.as_str(), found.aliases.as_slice()), ("green", &["live".to_owned()][..]));

    let status = set_alias(&mut node, "live", "nowhere").await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SPACE_NOT_FOUND"));
    let status = set_alias(&mut node, "blue", "green").await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "SPACE_ALREADY_EXISTS"));
    let status = set_alias(&mut node, "Live!", "green").await.unwrap_err();
    assert_eq!((status.code(), violations(&status)[0].0.as_str()), (Code::InvalidArgument, "alias"));

    assert_eq!(set_alias(&mut node, "live", "").await.unwrap(), "green");
    let status = set_alias(&mut node, "live", "").await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "ALIAS_NOT_FOUND"));
}

async fn update(
    node: &mut TestNode,
    paths: &[&str],
    change: impl FnOnce(&mut v1::UpdateSpaceRequest),
) -> Result<v1::Space, Status> {
    let mut request = v1::UpdateSpaceRequest {
        space: Some(v1::Space { name: "notes".into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).into()).collect() }),
        ..Default::default()
    };
    change(&mut request);
    node.spaces.update_space(request).await.map(|answer| answer.into_inner().space.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_and_versions_are_compared() {
    let mut node = TestNode::with_notes().await;
    let changed = update(&mut node, &["history_depth"], |request| {
        request.space.as_mut().unwrap().history_depth = 7;
        request.expected_version = 1;
    });
    let changed = changed.await.unwrap();
    assert_eq!((changed.history_depth, changed.version, changed.fields.len()), (7, 2, 1));
    let status = update(&mut node, &["history_depth"], |request| request.expected_version = 1).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "VERSION_MISMATCH"));
    let status = update(&mut node, &["metric"], |_| {}).await.unwrap_err();
    assert_eq!((status.code(), violations(&status)[0].0.as_str()), (Code::InvalidArgument, "update_mask.paths[0]"));
    let elsewhere = |request: &mut v1::UpdateSpaceRequest| request.space.as_mut().unwrap().name = "nowhere".into();
    let status = update(&mut node, &["history_depth"], elsewhere).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SPACE_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_and_deduplication_are_built_in_the_background() {
    let mut node = TestNode::with_notes().await;
    let ranked = |id: usize| {
        let mut ranked = memory(&format!("m{id}"), &format!("text {id}"), &[1.0, 0.0, 0.0, 0.0]);
        let rank = v1::value::Kind::IntegerValue(id as i64 % 10);
        ranked.metadata.insert("rank".into(), v1::Value { kind: Some(rank) });
        ranked
    };
    for batch in 0..3 {
        node.add("notes", (batch * 1_000..(batch + 1) * 1_000).map(ranked).collect()).await;
    }
    let three = v1::Value { kind: Some(v1::value::Kind::IntegerValue(3)) };
    let filter = Some(crate::support::equals("metadata.rank", three));
    let count = v1::CountMemoriesRequest { space: "notes".into(), filter, ..Default::default() };
    assert_eq!(node.memories.count_memories(count.clone()).await.unwrap().into_inner().count, 300);
    update(&mut node, &["fields", "dedup_by_content"], |request| {
        let space = request.space.as_mut().unwrap();
        space.dedup_by_content = true;
        space.fields = vec![v1::IndexedField { path: "rank".into(), r#type: v1::FieldType::Integer.into() }];
    })
    .await
    .unwrap();
    let mut built = false;
    for _ in 0..300 {
        assert_eq!(node.memories.count_memories(count.clone()).await.unwrap().into_inner().count, 300);
        let get = v1::GetSpaceRequest { name: "notes".into(), consistency: None };
        let space = node.spaces.get_space(get).await.unwrap().into_inner().space.unwrap();
        built = space.building.is_empty();
        if built {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(built, "the node builds what is to be built by itself");
    let twin = node.add("notes", vec![memory("twin", "text 7", &[])]).await;
    assert_eq!(twin.results[0].outcome(), v1::WriteOutcome::Deduplicated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_space_gives_the_disk_back_by_itself() {
    let mut node = TestNode::with_notes().await;
    // Text that does not compress, several times what the store holds in memory.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut text = || -> String {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + (state % 90) as u8)
        };
        (0..100_000).map(|_| next()).collect()
    };
    for batch in 0..12 {
        let memories = (0..20).map(|id| memory(&format!("m{batch}-{id}"), &text(), &[])).collect();
        node.add("notes", memories).await;
    }
    // The store writes its files in the background.
    let mut full = 0;
    for _ in 0..600 {
        full = node.store_bytes();
        if full > 8 << 20 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(full > 8 << 20, "{full} bytes are on the disk");
    let delete = v1::DeleteSpaceRequest { name: "notes".into(), request_id: String::new() };
    assert_eq!(node.spaces.delete_space(delete).await.unwrap().into_inner().deleted_count, 240);
    let began = std::time::Instant::now();
    while node.store_bytes() > full / 4 {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(60),
            "{} of {full} bytes are left",
            node.store_bytes()
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
