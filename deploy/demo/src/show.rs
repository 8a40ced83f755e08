//! The show, scene by scene. Each scene shows something and then checks it; the first broken promise ends the show.

use std::path::Path;
use std::time::{Duration, Instant};

use cairn_client::{
    Client, FieldType, Filter, Hit, Memory, Metric, NewSpace, Query, Scope, Space, Value, field, proto,
};

use crate::cluster::Cluster;
use crate::sample::{DIMENSION, MODEL, Question, Sample};
use crate::screen::Screen;
use crate::writer::{self, Ledger, Writers};
use crate::{Doing as _, Failure, promise};

/// How many nodes the cluster has.
const NODES: u64 = 3;
/// The name of the space.
pub const SPACE: &str = "memories";
const HITS: u32 = 3;
const QUESTIONS_FOUND_MIN: usize = 18;
const MEMORIES_PER_CALL: usize = 64;
const IDS_PER_CALL: usize = 500;
/// Acknowledged writes before the leader is killed, and again after it.
const WRITES_EACH_SIDE: usize = 250;
const SCENE_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// The cluster, its client, and what is in it.
#[derive(Debug)]
pub struct Show {
    screen: Screen,
    cluster: Cluster,
    sample: Sample,
}

/// A search with a condition, and the same condition as code.
struct Filtered {
    label: &'static str,
    question: &'static str,
    scope: Scope,
    filter: Filter,
    matches: fn(&Memory) -> bool,
}

impl Show {
    /// Starts the nodes in `directory` and plays every scene. The cluster is left as it is for the caller to end.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub async fn play(screen: Screen, binary: &Path, directory: &Path) -> Result<Cluster, Failure> {
        let sample = Sample::load()?;
        screen.heading("Three nodes start");
        let begun = Instant::now();
        let cluster = Cluster::start(binary, directory, NODES).await?;
        screen.line(&format!("ready after {:.1} s", begun.elapsed().as_secs_f64()));
        let mut show = Self { screen, cluster, sample };
        let client = show.client()?;
        let space = client.space(SPACE);

        show.members(&client).await?;
        show.add(&client).await?;
        screen.heading("Questions, answered by meaning");
        let before = show.ask(&space, true).await?;
        show.ask_filtered(&space).await?;
        let (ledger, killed) = show.kill_the_leader(&client).await?;
        screen.heading("The same questions, on the two nodes that are left");
        let after = show.ask(&space, false).await?;
        promise(before == after, || "the answers changed when the leader died".to_owned())?;
        screen.line("the same answers with the same scores as before");
        show.count(&ledger, "Nothing that was acknowledged is lost").await?;
        show.bring_back(killed).await?;
        show.count(&ledger, "And on all three").await?;
        show.compare().await?;
        Ok(show.cluster)
    }

    fn client(&self) -> Result<Client, Failure> {
        Client::builder().endpoints(self.cluster.endpoints()).build().doing("making a client")
    }

    /// A client of one node only.
    fn client_of(&self, id: u64) -> Result<Client, Failure> {
        Client::builder().endpoints([self.cluster.node(id).endpoint()]).build().doing("making a client")
    }

    async fn members(&self, client: &Client) -> Result<(), Failure> {
        let status = client.status().await.doing("reading the status")?;
        let rows = status.members.iter().map(|member| {
            let role = if member.node_id == status.leader_id { "leader" } else { "follower" };
            vec![member.node_id.to_string(), member.client_address.clone(), role.to_owned()]
        });
        self.screen.table(&["node", "clients", "role"], &rows.collect::<Vec<_>>());
        promise(status.members.len() as u64 == NODES, || "the cluster does not have three members".to_owned())
    }

    async fn add(&self, client: &Client) -> Result<(), Failure> {
        self.screen.heading("Memories are added");
        let space = NewSpace::new(SPACE, DIMENSION)
            .metric(Metric::Cosine)
            .model(MODEL)
            .field("topic", FieldType::Keyword)
            .field("tags", FieldType::Keyword)
            .field("priority", FieldType::Integer)
            .field("resolved", FieldType::Bool)
            .field("date", FieldType::Datetime);
        client.create_space(space).await.doing("making the space")?;

        let begun = Instant::now();
        let progress = self.screen.progress(self.sample.memories.len() as u64);
        for batch in self.sample.memories.chunks(MEMORIES_PER_CALL) {
            let added = client.space(SPACE).add_all(batch.to_vec()).await.doing("adding memories")?;
            progress.inc(added.results.len() as u64);
        }
        progress.finish_and_clear();
        let count = client.space(SPACE).count().await.doing("counting")?.count;
        self.screen.line(&format!(
            "{count} memories, each on the disks of a majority before its acknowledgement, in {:.2} s",
            begun.elapsed().as_secs_f64()
        ));
        promise(count == self.sample.memories.len() as u64, || {
            format!("{count} memories are there after all were added")
        })
    }

    /// Asks every question, and shows the hits where they are to be `shown`; returns their ids and scores.
    async fn ask(&self, space: &Space, shown: bool) -> Result<Vec<Vec<(String, f64)>>, Failure> {
        let (mut rows, mut answers, mut found) = (Vec::new(), Vec::new(), 0);
        let begun = Instant::now();
        for question in &self.sample.questions {
            let query = Query::vector(question.vector.clone());
            let hits = space.search(query).limit(HITS).await.doing("searching")?.hits;
            let right = hits.iter().any(|hit| question.expected.contains(&hit.memory.id));
            found += usize::from(right);
            rows.extend(rows_of(question, &hits));
            answers.push(hits.into_iter().map(|hit| (hit.memory.id, hit.score)).collect());
        }
        let seconds = begun.elapsed().as_secs_f64();
        if shown {
            self.screen.table(&["question", "score", "memory", ""], &rows);
        }
        let asked = self.sample.questions.len();
        self.screen.line(&format!(
            "{found} of {asked} questions found an expected memory among the first {HITS}{}, in {seconds:.2} s",
            if shown { " (marked *)" } else { "" }
        ));
        promise(found >= QUESTIONS_FOUND_MIN, || format!("only {found} of {asked} questions found what they should"))?;
        Ok(answers)
    }

    /// Searches with conditions, and checks each answer against the samples.
    async fn ask_filtered(&self, space: &Space) -> Result<(), Failure> {
        self.screen.heading("Questions with conditions");
        let mut rows = Vec::new();
        for search in filtered_searches() {
            let question = self.question(search.question)?;
            let query = Query::vector(question.vector.clone());
            let filter = search.filter.clone();
            let found = space.search(query).scope(search.scope.clone()).filter(filter).limit(HITS);
            let hits = found.await.doing("searching with a filter")?.hits;
            let count =
                space.count().scope(search.scope).filter(search.filter).await.doing("counting with a filter")?;
            let expected = self.nearest(question, search.matches);
            rows.push(vec![format!("{} | {} ({} match)", question.text, search.label, count.count)]);
            rows.extend(hits.iter().map(|hit| cells("", hit, "")));
            promise(count.count == expected.len() as u64, || {
                format!("{}: {} match, but {} were counted", search.label, expected.len(), count.count)
            })?;
            let same = hits.iter().map(|hit| &hit.memory.id).eq(expected.iter().copied().take(HITS as usize));
            promise(same, || format!("{}: the hits are not the nearest matches", search.label))?;
        }
        for row in &mut rows {
            row.resize(4, String::new());
        }
        self.screen.table(&["question | condition", "score", "memory", ""], &rows);
        Ok(())
    }

    fn question(&self, text: &str) -> Result<&Question, Failure> {
        let found = self.sample.questions.iter().find(|question| question.text == text);
        found.ok_or_else(|| Failure::Promise(format!("there is no question {text:?}")))
    }

    /// The ids of all memories that match, nearest first: what a search must return.
    fn nearest<'a>(&'a self, question: &Question, matches: fn(&Memory) -> bool) -> Vec<&'a String> {
        let mut scored: Vec<_> = self
            .sample
            .memories
            .iter()
            .filter(|memory| matches(memory))
            .map(|memory| {
                let pairs = memory.vectors.iter().flat_map(|vector| &vector.values).zip(&question.vector);
                (pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>(), &memory.id)
            })
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().map(|(_, id)| id).collect()
    }

    /// Kills the leader while agents write; returns what they wrote, and the node.
    async fn kill_the_leader(&mut self, client: &Client) -> Result<(Ledger, u64), Failure> {
        self.screen.heading("The leader is killed in mid-write");
        let writers = Writers::start(client, SPACE, DIMENSION);
        self.wait_for_writes(&writers, WRITES_EACH_SIDE).await?;
        let leader = self.leader(client).await?;
        let process = self.cluster.node(leader).process_id().unwrap_or_default();

        let killed_at = Instant::now();
        self.cluster.kill(leader)?;
        self.screen.line(&format!("kill -9 {process} (node {leader}, the leader), while four agents write"));
        let before = writers.so_far().acknowledged_before(killed_at);
        self.wait_for_writes(&writers, before + WRITES_EACH_SIDE).await?;
        let ledger = writers.stop().await;

        let after = ledger.acknowledged.len() - before;
        self.screen.line(&format!("acknowledged before the kill: {before}, after it: {after}"));
        self.screen.line(&format!(
            "longest time without an acknowledgement: {:.2} s",
            ledger.longest_pause(killed_at).as_secs_f64()
        ));
        for failed in &ledger.failed {
            self.screen.line(&format!("not acknowledged: {failed}"));
        }
        let leader_now = self.leader(client).await?;
        self.screen.line(&format!("node {leader_now} leads now"));
        promise(leader_now != leader, || "the dead node is still taken for the leader".to_owned())?;
        Ok((ledger, leader))
    }

    async fn wait_for_writes(&self, writers: &Writers, count: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        let progress = self.screen.progress(count as u64).with_message("writes acknowledged");
        while writers.acknowledged() < count {
            promise(begun.elapsed() < SCENE_WITHIN, || {
                let ledger = writers.so_far();
                let last = ledger.failed.last().map_or("no write failed", String::as_str);
                format!("only {} of {count} writes were acknowledged; {last}", ledger.acknowledged.len())
            })?;
            progress.set_position(writers.acknowledged() as u64);
            tokio::time::sleep(POLL_EVERY).await;
        }
        progress.finish_and_clear();
        Ok(())
    }

    async fn leader(&self, client: &Client) -> Result<u64, Failure> {
        let begun = Instant::now();
        loop {
            let status = client.status().await.doing("reading the status")?;
            let alive = |id: u64| (1..=NODES).contains(&id) && self.cluster.node(id).process_id().is_some();
            if alive(status.leader_id) {
                return Ok(status.leader_id);
            }
            promise(begun.elapsed() < SCENE_WITHIN, || "no living leader is known".to_owned())?;
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    fn living(&self) -> Vec<u64> {
        self.cluster.nodes().iter().filter(|node| node.process_id().is_some()).map(|node| node.id).collect()
    }

    /// Reads back everything that was acknowledged, and counts, on every living node.
    async fn count(&self, ledger: &Ledger, heading: &str) -> Result<(), Failure> {
        self.screen.heading(heading);
        let samples = self.sample.memories.len() as u64;
        let least = samples + ledger.acknowledged.len() as u64;
        // A write that was begun and not acknowledged may have happened or not.
        let most = samples + ledger.attempted;
        let mut rows = Vec::new();
        for id in self.living() {
            let space = self.client_of(id)?.space(SPACE);
            let count = space.count().await.doing("counting")?.count;
            let there = read_back(&space, ledger).await?;
            rows.push(vec![
                id.to_string(),
                format!("{there} of {}", ledger.acknowledged.len()),
                format!("{count} (at least {least}, at most {most})"),
            ]);
            promise(there == ledger.acknowledged.len(), || format!("node {id}: an acknowledged memory is lost"))?;
            promise((least..=most).contains(&count), || {
                format!("node {id}: {count} memories, expected {least} to {most}")
            })?;
        }
        self.screen.table(&["node", "acknowledged and there", "memories"], &rows);
        Ok(())
    }

    async fn bring_back(&mut self, id: u64) -> Result<(), Failure> {
        self.screen.heading(&format!("Node {id} comes back"));
        let begun = Instant::now();
        self.cluster.start_node(id)?;
        self.cluster.wait_until_ready().await?;
        self.screen.line(&format!("ready after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Waits until all nodes have applied the same entries, and compares the digests of what they hold.
    async fn compare(&self) -> Result<(), Failure> {
        self.screen.heading("The nodes hold the same");
        let states = self.cluster.settled_states(SCENE_WITHIN).await.doing("reading the status")?;
        let rows = states
            .iter()
            .map(|(id, state)| vec![id.to_string(), state.applied_index.to_string(), state.digest.clone()]);
        self.screen.table(&["node", "applied", "digest"], &rows.collect::<Vec<_>>());
        let same = |equal: fn(&proto::NodeState, &proto::NodeState) -> bool| {
            states.windows(2).all(|pair| equal(&pair[0].1, &pair[1].1))
        };
        promise(same(|a, b| a.applied_index == b.applied_index), || "the nodes do not come together".to_owned())?;
        promise(same(|a, b| a.digest == b.digest), || "the digests differ".to_owned())
    }
}

/// How many acknowledged memories are there, with the text that was written.
async fn read_back(space: &Space, ledger: &Ledger) -> Result<usize, Failure> {
    let ids: Vec<&str> = ledger.acknowledged.iter().map(|(id, _)| id.as_str()).collect();
    let mut right = 0;
    for chunk in ids.chunks(IDS_PER_CALL) {
        let found = space.get(chunk.iter().copied()).await.doing("reading acknowledged memories")?;
        right += found
            .memories
            .iter()
            .filter(|memory| expected_content(&memory.id).as_ref() == Some(&memory.content))
            .count();
    }
    Ok(right)
}

fn expected_content(id: &str) -> Option<String> {
    let (writer, number) = id.strip_prefix(writer::USER)?.strip_prefix('-')?.split_once('-')?;
    Some(writer::content(writer.parse().ok()?, number.parse().ok()?))
}

fn rows_of(question: &Question, hits: &[Hit]) -> Vec<Vec<String>> {
    let rows = hits.iter().enumerate().map(|(rank, hit)| {
        let text = if rank == 0 { question.text.as_str() } else { "" };
        cells(text, hit, if question.expected.contains(&hit.memory.id) { "*" } else { "" })
    });
    rows.collect()
}

fn cells(question: &str, hit: &Hit, mark: &str) -> Vec<String> {
    let memory = format!("{}: {}", hit.memory.id, hit.memory.content);
    vec![question.to_owned(), format!("{:.3}", hit.score), memory, mark.to_owned()]
}

fn below(memory: &Memory, namespace: &str) -> bool {
    let path = memory.scope.namespace.as_deref().unwrap_or_default();
    path == namespace || path.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('/'))
}

fn filtered_searches() -> [Filtered; 5] {
    [
        Filtered {
            label: "incidents below devops",
            question: "DNS lookups stopped working in the cluster",
            scope: Scope::new().namespace("devops"),
            filter: field("kind").eq("incident"),
            matches: |memory| below(memory, "devops") && memory.kind == "incident",
        },
        Filtered {
            label: "tagged timezones",
            question: "Which of our dashboards were affected by the change to summer time?",
            scope: Scope::new(),
            filter: field("metadata.tags").eq("timezones"),
            matches: |memory| {
                let tags = memory.metadata.get("tags");
                matches!(tags, Some(Value::List(tags)) if tags.contains(&Value::from("timezones")))
            },
        },
        Filtered {
            label: "open, of priority 1, below sales",
            question: "Who decides about the money at the shipping company?",
            scope: Scope::new().namespace("sales"),
            filter: field("metadata.priority").lte(1).and(field("metadata.resolved").eq(false)),
            matches: |memory| {
                let value = |key| memory.metadata.get(key);
                let first = value("priority").and_then(Value::as_integer).is_some_and(|priority| priority <= 1);
                below(memory, "sales") && first && value("resolved").and_then(Value::as_bool) == Some(false)
            },
        },
        Filtered {
            label: "Priya's, that are no tasks",
            question: "Which nuts are dangerous for the little girl?",
            scope: Scope::new().agent("home-assistant").user("priya"),
            filter: field("kind").ne("task"),
            matches: |memory| memory.scope.user_id.as_deref() == Some("priya") && memory.kind != "task",
        },
        Filtered {
            label: "important facts and findings",
            question: "Why do lithium metal cells short-circuit?",
            scope: Scope::new(),
            filter: field("kind").is_in(["fact", "finding"]).and(field("importance").gte(0.75)),
            matches: |memory| {
                let important = memory.importance.is_some_and(|importance| importance >= 0.75);
                (memory.kind == "fact" || memory.kind == "finding") && important
            },
        },
    ]
}
