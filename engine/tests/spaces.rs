//! Spaces: their aliases, changes of their settings, and what a delete gives back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use cairn_engine::{Error, ErrorKind, WriteRequest, WriteResponse};
use cairn_proto::v1;
use common::{Bed, me, memory, space};

fn set_alias(bed: &mut Bed, alias: &str, space: &str) -> Result<String, Error> {
    let request = v1::SetAliasRequest { alias: alias.into(), space: space.into(), request_id: String::new() };
    match bed.write(WriteRequest::SetAlias(request))? {
        WriteResponse::SetAlias(response) => Ok(response.previous_space),
        other => panic!("{other:?}"),
    }
}

fn get(bed: &Bed, name: &str) -> Result<v1::Space, Error> {
    let request = v1::GetSpaceRequest { name: name.into(), consistency: None };
    Ok(bed.engine.get_space(&me(), &request, &bed.at())?.space.unwrap())
}

#[test]
fn an_alias_is_a_name_for_everything_but_the_end_of_a_space() {
    let mut bed = Bed::new();
    for name in ["blue", "green"] {
        bed.create_space(space(name, 2)).unwrap();
        bed.add(name, vec![memory("a", name)]).unwrap();
    }
    assert_eq!(set_alias(&mut bed, "live", "blue").unwrap(), "");
    let content = |bed: &Bed| bed.get("live", &["a"]).unwrap().memories[0].content.clone();
    assert_eq!(content(&bed), "blue");
    assert_eq!(set_alias(&mut bed, "live", "green").unwrap(), "blue");
    assert_eq!(content(&bed), "green");
    assert_eq!(bed.count("live", None).unwrap(), 1);
    assert_eq!(get(&bed, "live").unwrap().name, "green");
    assert_eq!(get(&bed, "green").unwrap().aliases, ["live"]);
    assert!(get(&bed, "blue").unwrap().aliases.is_empty());

    let list = v1::ListSpacesRequest::default();
    let listed = bed.engine.list_spaces(&me(), &list, &bed.at()).unwrap().spaces;
    assert_eq!(listed.iter().map(|space| space.aliases.len()).collect::<Vec<_>>(), [0, 1], "an alias is no space");

    let delete = v1::DeleteSpaceRequest { name: "live".into(), ..Default::default() };
    let error = bed.write(WriteRequest::DeleteSpace(delete)).unwrap_err();
    assert!(error.to_string().contains("is an alias of the space \"green\""), "{error}");
    assert_eq!(set_alias(&mut bed, "live", "").unwrap(), "green");
    assert!(matches!(get(&bed, "live").unwrap_err().kind(), ErrorKind::NotFound { .. }));
}

#[test]
fn a_space_has_so_many_aliases_and_no_more() {
    let mut bed = Bed::new();
    bed.create_space(space("notes", 2)).unwrap();
    for number in 0..64 {
        set_alias(&mut bed, &format!("a{number}"), "notes").unwrap();
    }
    let error = set_alias(&mut bed, "more", "notes").unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::FailedPrecondition { reason: "TOO_MANY_ALIASES".into() });
    set_alias(&mut bed, "a0", "").unwrap();
    set_alias(&mut bed, "more", "notes").unwrap();
    let aliases = get(&bed, "notes").unwrap().aliases;
    assert!(aliases.len() == 64 && aliases.is_sorted(), "{aliases:?}");
}

#[test]
fn a_repeated_switch_returns_what_the_first_one_did() {
    let mut bed = Bed::new();
    for name in ["blue", "green"] {
        bed.create_space(space(name, 2)).unwrap();
    }
    set_alias(&mut bed, "live", "blue").unwrap();
    let request = v1::SetAliasRequest { alias: "live".into(), space: "green".into(), request_id: "switch".into() };
    for _ in 0..2 {
        let answer = bed.write(WriteRequest::SetAlias(request.clone())).unwrap();
        let WriteResponse::SetAlias(answer) = answer else { panic!("{answer:?}") };
        assert_eq!(answer.previous_space, "blue");
    }
}
