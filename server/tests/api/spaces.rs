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
