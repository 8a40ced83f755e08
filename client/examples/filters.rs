//! Filters: in a list, a count, a search and a delete. Start a node first: `cairn dev`.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use cairn_client::{Client, FieldType, Memory, NewSpace, Query, Scope, field};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> cairn_client::Result<()> {
    let endpoint = std::env::var("CAIRN_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:7480".to_owned());
    let client = Client::builder().endpoints([endpoint]).build()?;

    // A space of its own, with an index on one metadata field; other fields filter just as correctly, more slowly.
    let name = format!("filters-{}", std::process::id());
    client.create_space(NewSpace::new(&name, 2).field("topic", FieldType::Keyword)).await?;
    let space = client.space(&name);

    let drink = |text: &str, topic: &str, cups: i64, vector: [f32; 2]| {
        Memory::new(text).kind("fact").metadata("topic", topic).metadata("cups", cups).vector(vector)
    };
    space
        .add_all([
            drink("Two cups of sencha before noon", "tea", 2, [1.0, 0.1]),
            drink("One espresso after lunch", "coffee", 1, [0.1, 1.0]),
            drink("Five cups of filter coffee on Mondays", "coffee", 5, [0.2, 0.9]),
        ])
        .await?;

    let strong = field("metadata.topic").eq("coffee") & field("metadata.cups").gte(2);
    let listed: Vec<Memory> = space.list().filter(strong.clone()).stream().try_collect().await?;
    for memory in &listed {
        println!("strong: {}", memory.content);
    }

    let not_coffee = !field("metadata.topic").is_in(["coffee"]);
    println!("not coffee: {}", space.count().filter(not_coffee).await?.count);

    let nearest = space.search(Query::vector([0.0, 1.0])).filter(field("metadata.cups").lt(5)).limit(1).await?;
    println!("nearest with fewer than five cups: {}", nearest.hits[0].memory.content);

    let deleted = space.delete_matching(Scope::new(), Some(strong)).await?;
    println!("deleted {}", deleted.count);
    client.delete_space(&name).await?;
    Ok(())
}
