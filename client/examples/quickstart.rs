//! Adds memories and finds them again. Start a node first: `cairn dev`.
//!
//! The space `default` of a development node turns text into vectors by the built-in `hash` embedder, which finds by
//! shared words, not by meaning.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use cairn_client::{Client, Memory, Scope};

#[tokio::main]
async fn main() -> cairn_client::Result<()> {
    let endpoint = std::env::var("CAIRN_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:7480".to_owned());
    let client = Client::builder().endpoints([endpoint]).build()?;
    let space = client.space("default");

    let memories = [
        Memory::new("Ada takes oat milk in her coffee").kind("preference").user("ada"),
        Memory::new("Ada is allergic to peanuts").kind("fact").user("ada").importance(1.0),
        Memory::new("Ben starts work at seven").kind("fact").user("ben"),
    ];
    let added = space.add_all(memories).actor("quickstart").await?;
    println!("added {} memories at position {}", added.results.len(), added.position);

    let found = space.search("which milk for the coffee?").scope(Scope::new().user("ada")).limit(2).await?;
    for hit in &found.hits {
        println!("{:.3}  {}", hit.score, hit.memory.content);
    }

    let deleted = space.delete(added.results.into_iter().map(|result| result.id)).await?;
    println!("deleted {}", deleted.count);
    Ok(())
}
