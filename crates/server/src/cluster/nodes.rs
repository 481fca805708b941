//! Which other nodes were heard, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use commucat_routing::link::Incarnation;

use super::wire::Status;

/// After so long without a word a node counts as gone.
pub(super) const SILENCE: Duration = Duration::from_secs(6);

/// Nodes of one domain at most; more are not noted, and work all the same.
const NODES_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Nodes(HashMap<Incarnation, (Status, Instant)>);

impl Nodes {
    /// A node says that it lives; `true` if that is news.
    pub(super) fn heard(&mut self, node: Incarnation, status: Status, now: Instant) -> bool {
        if self.0.len() >= NODES_MAX && !self.0.contains_key(&node) {
            return false;
        }
        self.0.insert(node, (status, now)).is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn left(&mut self, node: Incarnation) {
        self.0.remove(&node);
    }

    /// Takes out those that have been silent for too long.
    pub(super) fn take_silent(&mut self, now: Instant) -> Vec<Incarnation> {
        let is_silent = |heard: &Instant| now.saturating_duration_since(*heard) > SILENCE;
        let silent: Vec<Incarnation> = self
            .0
            .iter()
            .filter(|(_, (_, heard))| is_silent(heard))
            .map(|(node, _)| *node)
            .collect();
        for node in &silent {
            self.0.remove(node);
        }
        silent
    }

    /// By name.
    pub(super) fn all(&self) -> Vec<Status> {
        let mut all: Vec<Status> = self.0.values().map(|(status, _)| status.clone()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_forgotten_when_it_is_silent() {
        let now = Instant::now();
        let node = Incarnation::new([1; 16]);
        let status = Status {
            name: "one".to_owned(),
            version: "1".to_owned(),
            keys: [0; 8],
            sessions: 0,
            draining: false,
        };
        let mut nodes = Nodes::default();

        assert!(nodes.heard(node, status.clone(), now));
        assert!(!nodes.heard(node, status, now + SILENCE));
        assert_eq!(nodes.take_silent(now + SILENCE + SILENCE), []);
        assert_eq!(nodes.take_silent(now + SILENCE * 3), [node]);
        assert!(nodes.all().is_empty());
    }
}
