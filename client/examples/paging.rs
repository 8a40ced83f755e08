//! Lists many memories: as one stream, and page by page. Start a node first: `cairn dev`.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use cairn_client::{Client, Memory, Order, Scope, Timestamp, batches};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> cairn_client::Result<()> {
    let endpoint = std::env::var("CAIRN_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:7480".to_owned());
    let client = Client::builder().endpoints([endpoint]).build()?;
    let space = client.space("default");
    let scope = Scope::new().session(format!("paging-{}", std::process::id()));

    // More than one call takes: 1,000 memories or 3 MiB. What is written in one call is equally old
    // unless it says when it was made.
    let begin = Timestamp::now().as_micros();
    let notes = (0..2_500).map(|number| {
        let made = Timestamp::from_micros(begin + number);
        Memory::new(format!("Note {number}")).scope(scope.clone()).created_at(made)
    });
    for batch in batches(notes) {
        space.add_all(batch).await?;
    }

    let list = space.list().scope(scope.clone()).order(Order::Created).page_size(200);
    let streamed = list.clone().stream().try_fold(0, |count, _| async move { Ok(count + 1) }).await?;
    println!("streamed {streamed} memories");

    // The token is enough to go on later, in another process too.
    let first = list.clone().await?;
    println!("the first page holds {}, beginning with {:?}", first.memories.len(), first.memories[0].content);
    if let Some(token) = first.next_page_token {
        let second = list.page_token(token).at_least(first.position).await?;
        println!("the second page begins with {:?}", second.memories[0].content);
    }

    let deleted = space.delete_matching(scope, None).await?;
    println!("deleted {}", deleted.count);
    Ok(())
}
