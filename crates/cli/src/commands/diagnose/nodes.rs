//! The other nodes of the domain, as the running server hears them.

use commucat_admin::{Answer, Node, Request};
use commucat_config::Config;

use super::check::Check;
use crate::door::{Door, other_answer};
use crate::report::Report;

const NAME: &str = "nodes";

/// Whether the server hears other nodes, and they have its keys.
pub(super) async fn check(config: &Config, is_running: bool) -> Check {
    if !is_running {
        return Check::skip(NAME, "no server to ask");
    }
    match ask(config).await {
        Ok(nodes) => judge(&nodes),
        Err(report) => Check::fail(NAME, report.line(), report.next_step()),
    }
}

async fn ask(config: &Config) -> Result<Vec<Node>, Report> {
    let mut door = Door::open(config).await?;
    let answer = door.ask(Request::ListNodes).await;
    door.close().await;
    let Answer::Nodes(nodes) = answer? else {
        return Err(other_answer());
    };
    Ok(nodes.nodes)
}

fn judge(nodes: &[Node]) -> Check {
    let strangers: Vec<&str> = nodes
        .iter()
        .filter(|node| !node.same_keys)
        .map(|node| node.name.as_str())
        .collect();
    if !strangers.is_empty() {
        let detail = format!("other keys of the domain: {}", strangers.join(", "));
        let hint = "copy `crypto.keys` of the node that rotated them to the others";
        return Check::fail(NAME, detail, hint);
    }
    match nodes.len() {
        0 => Check::warn(
            NAME,
            "the server does not use Redis yet",
            "`storage.redis_url` takes effect at the next start",
        ),
        1 => Check::warn(
            NAME,
            "no other node is heard",
            "is it the only one? Otherwise: do all reach the same Redis, with one `storage.redis_prefix`?",
        ),
        count => Check::ok(NAME, format!("{count} nodes with the same keys")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, same_keys: bool) -> Node {
        Node {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            sessions: 0,
            draining: false,
            same_keys,
        }
    }

    #[test]
    fn other_keys_are_named_with_their_node() {
        let check = judge(&[node("one", true), node("two", false)]);

        assert!(format!("{check:?}").contains("other keys of the domain: two"));
    }

    #[test]
    fn nodes_that_hear_each_other_are_counted() {
        let check = judge(&[node("one", true), node("two", true)]);

        assert!(format!("{check:?}").contains("2 nodes with the same keys"));
    }
}
