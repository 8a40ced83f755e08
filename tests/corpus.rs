//! The main job on a real corpus: import over gRPC into three nodes, exact searches on each, and the same after a restart of all.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use cairn_client::{Client, Memory, Metric, NewSpace, Query, batches};
use cairn_tests::TestCluster;
use cairn_tests::corpus::Corpus;

const SPACE: &str = "glosses";
const HITS: usize = 10;
const RECALL_MIN: f64 = 0.999;
/// Searches under way at a time.
const SEARCHERS: usize = 4;
/// Queries that are asked again, on each node, after all were killed.
const QUERIES_REPEATED: usize = 400;

/// What a node answers to each query: ids, best first.
type Answers = Vec<Vec<String>>;

async fn import(client: &Client, corpus: &Corpus) {
    let space = NewSpace::new(SPACE, corpus.dimension as u32).metric(Metric::Dot);
    client.create_space(space).await.unwrap();
    let rows = corpus.texts.iter().zip(&corpus.base).enumerate();
    let memories =
        rows.map(|(row, (text, vector))| Memory::new(text.as_str()).id(row.to_string()).vector(vector.clone()));
    for batch in batches(memories) {
        client.space(SPACE).add_all(batch).await.unwrap();
    }
}

async fn search_all(client: &Client, corpus: &Arc<Corpus>, queries: usize) -> Answers {
    let mut tasks = Vec::new();
    for searcher in 0..SEARCHERS {
        let (space, corpus) = (client.space(SPACE), corpus.clone());
        tasks.push(tokio::spawn(async move {
            let mut answers = Vec::new();
            for query in corpus.queries[..queries].iter().skip(searcher).step_by(SEARCHERS) {
                let search = space.search(Query::vector(query.clone())).limit(HITS as u32).exact(true);
                let hits = search.await.unwrap().hits;
                answers.push(hits.into_iter().map(|hit| hit.memory.id).collect::<Vec<_>>());
            }
            answers.into_iter()
        }));
    }
    let mut parts = Vec::new();
    for task in tasks {
        parts.push(task.await.unwrap());
    }
    (0..queries).map(|query| parts[query % SEARCHERS].next().unwrap()).collect()
}

fn recall(corpus: &Corpus, answers: &Answers) -> f64 {
    let found = answers.iter().zip(&corpus.nearest).map(|(answer, nearest)| {
        let expected: HashSet<_> = nearest[..HITS].iter().map(usize::to_string).collect();
        answer.iter().filter(|id| expected.contains(*id)).count()
    });
    found.sum::<usize>() as f64 / (answers.len() * HITS) as f64
}

/// One node alone comes back while the others serve: the usual restart. The seconds until it is ready, and until its index has
/// answered a search; how many there may be is no test, since machines differ.
async fn one_comes_back(cluster: &mut TestCluster, corpus: &Corpus) -> (f64, f64) {
    cluster.kill(1).unwrap();
    cluster.start_node(1).unwrap();
    let begun = Instant::now();
    cluster.wait_until_ready().await.unwrap();
    let ready = begun.elapsed().as_secs_f64();
    let query = Query::vector(corpus.queries[0].clone());
    cluster.client_of(1).space(SPACE).search(query).limit(HITS as u32).await.unwrap();
    (ready, begun.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_corpus_is_found_on_every_node_and_survives_a_restart_of_all() {
    let Some(corpus) = Corpus::for_test("a_real_corpus_is_found_on_every_node_and_survives_a_restart_of_all") else {
        return;
    };
    let corpus = Arc::new(corpus);
    let mut cluster = TestCluster::start(3).await;
    let begun = Instant::now();
    import(&cluster.client(), &corpus).await;
    println!("{} memories imported in {:.1} s", corpus.texts.len(), begun.elapsed().as_secs_f64());

    let mut first = Vec::new();
    for id in 1..=3 {
        let begun = Instant::now();
        let answers = search_all(&cluster.client_of(id), &corpus, corpus.queries.len()).await;
        let recall = recall(&corpus, &answers);
        println!("node {id}: recall@{HITS} {recall:.5} in {:.1} s", begun.elapsed().as_secs_f64());
        assert!(recall >= RECALL_MIN, "node {id}: recall@{HITS} is {recall}");
        first.push(answers);
    }
    assert!(first.iter().all(|answers| *answers == first[0]), "the nodes answer differently");

    let before = cluster.wait_until_equal().await;
    for id in 1..=3 {
        cluster.kill(id).unwrap();
    }
    for id in 1..=3 {
        cluster.start_node(id).unwrap();
    }
    let begun = Instant::now();
    cluster.wait_until_ready().await.unwrap();
    println!("all nodes were ready {:.2} s after their start, at a time", begun.elapsed().as_secs_f64());
    let (ready, searched) = one_comes_back(&mut cluster, &corpus).await;
    println!("node 1 alone was ready {ready:.2} s after its start, and had answered a search after {searched:.2} s");

    for id in 1..=3 {
        let client = cluster.client_of(id);
        assert_eq!(client.space(SPACE).count().await.unwrap().count, corpus.texts.len() as u64);
        let answers = search_all(&client, &corpus, QUERIES_REPEATED).await;
        assert_eq!(answers, first[0][..QUERIES_REPEATED], "node {id} answers differently after the restart");
    }
    let after = cluster.wait_until_equal().await;
    assert_eq!(before, after, "the digest changed with the restart");
}
