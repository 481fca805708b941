//! `node`: the nodes of this domain, and the end of one.

use commucat_admin::{Answer, Nodes, Request};
use commucat_config::Config;
use serde::Serialize;

use crate::args;
use crate::door::{Door, other_answer};
use crate::output::{Output, table};
use crate::report::Report;

#[derive(Serialize)]
struct Draining {
    draining: Option<String>,
}

/// Runs it.
pub(crate) async fn run(
    config: &Config,
    command: args::Node,
    output: Output,
) -> Result<(), Report> {
    let mut door = Door::open(config).await?;
    let done = match command {
        args::Node::List => list(&mut door, output).await,
        args::Node::Drain { node } => drain(&mut door, node, output).await,
    };
    door.close().await;
    done
}

async fn list(door: &mut Door, output: Output) -> Result<(), Report> {
    let Answer::Nodes(nodes) = door.ask(Request::ListNodes).await? else {
        return Err(other_answer());
    };
    output.show(&nodes, shown)
}

fn shown(Nodes { nodes }: &Nodes) -> String {
    if nodes.is_empty() {
        return "no other nodes: no server runs here, or `storage.redis_url` is empty\n".to_owned();
    }
    let word = |is_so: bool, yes: &str, no: &str| if is_so { yes } else { no }.to_owned();
    let rows: Vec<[String; 5]> = nodes
        .iter()
        .map(|node| {
            [
                node.name.clone(),
                node.version.clone(),
                node.sessions.to_string(),
                word(node.draining, "ending", "serving"),
                word(node.same_keys, "same", "DIFFERENT"),
            ]
        })
        .collect();
    table(["NODE", "VERSION", "DEVICES", "STATE", "KEYS"], &rows)
}

async fn drain(door: &mut Door, node: Option<String>, output: Output) -> Result<(), Report> {
    let request = Request::DrainNode { node: node.clone() };
    let Answer::Draining = door.ask(request).await? else {
        return Err(other_answer());
    };
    let draining = Draining { draining: node };
    output.show(&draining, |Draining { draining }| match draining {
        Some(node) => format!("node {node} ends; its devices go to the others\n"),
        None => "this server ends; its devices go to the other nodes\n".to_owned(),
    })
}
