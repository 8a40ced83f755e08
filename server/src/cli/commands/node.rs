//! `cairn node`.

use cairn_client::{Error, ErrorKind, proto};
use serde_json::{Value as Json, json};
use tokio::time::{Duration, Instant, sleep};

use super::Context;
use crate::cli::args::NodeCommand;
use crate::cli::cluster::{member_listing, member_to_json};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::next::NextCommand;
use crate::cli::output::Form;

/// How often `cairn node promote --wait` looks whether the node has caught up.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(context: &mut Context, command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::Ls => list(context).await,
        NodeCommand::Add { id, peer_address, client_address } => {
            let member = context.client.add_member(id, peer_address, client_address).await?;
            members(context, &[member])?;
            context.out.note(format!(
                "node {id} may start now: `cluster.join: true`, and a member beside itself in `cluster.peers`; then `cairn node promote {id}` gives it a vote"
            ));
            Ok(())
        }
        NodeCommand::Promote { id, wait } => promote(context, id, wait).await,
        NodeCommand::Remove { id, yes } => remove(context, id, yes).await,
        NodeCommand::TransferLeader { id } => {
            let leader_id = context.client.transfer_leadership(id).await?;
            done(context, &json!({"leader_id": leader_id}), &format!("node {leader_id} leads"))
        }
        NodeCommand::Drain { id, undo } => {
            let state = context.client.drain_node(id, !undo).await?;
            let text = if state.draining { "is drained and can be stopped" } else { "takes part again" };
            done(context, &json!({"node_id": id, "draining": state.draining}), &format!("node {id} {text}"))
        }
    }
}

async fn list(context: &mut Context) -> Result<()> {
    let status = context.client.status().await?;
    members(context, &status.members)
}

async fn promote(context: &mut Context, id: u64, wait: Option<Duration>) -> Result<()> {
    let until = wait.map(|wait| Instant::now() + wait);
    let behind =
        |error: &Error| error.kind() == ErrorKind::FailedPrecondition && error.reason() == Some("NODE_NOT_CAUGHT_UP");
    loop {
        match context.client.promote_member(id).await {
            Err(error) if behind(&error) && until.is_some_and(|until| Instant::now() < until) => {
                sleep(LOOK_AGAIN).await;
            }
            Err(error) if behind(&error) => {
                let again = NextCommand::new("node promote", &context.options).word(id.to_string());
                let again = again.option("--wait", Some("10m"));
                return Err(Failure::from(error).with_hint(format!("wait for it with `{again}`")));
            }
            promoted => return members(context, &[promoted?]),
        }
    }
}

async fn remove(context: &mut Context, id: u64, yes: bool) -> Result<()> {
    if !yes {
        match context
            .out
            .ask(&format!("Remove node {id} for good? Its id and its data directory cannot be used again."))
        {
            Some(true) => {}
            Some(false) => return Err(Failure::new(Exit::Other, "nothing was removed")),
            None => {
                let again = NextCommand::new("node remove", &context.options).word(id.to_string()).flag("--yes", true);
                return Err(Failure::usage("this removes a node for good, and there is no terminal to ask on")
                    .with_hint(format!("say so with `{again}`")));
            }
        }
    }
    let remaining = context.client.remove_member(id).await?;
    members(context, &remaining)
}

fn members(context: &mut Context, members: &[proto::Member]) -> Result<()> {
    match context.out.form {
        Form::Json => {
            for member in members {
                context.out.json(&member_to_json(member))?;
            }
            Ok(())
        }
        _ => Ok(context.out.listing(&member_listing(members))?),
    }
}

fn done(context: &mut Context, document: &Json, text: &str) -> Result<()> {
    match context.out.form {
        Form::Json => Ok(context.out.json(document)?),
        _ => Ok(context.out.result(format!("{text}\n"))?),
    }
}
