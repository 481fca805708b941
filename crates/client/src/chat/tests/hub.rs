//! A hub that does what CCP-1 section 5.2 says, and no more.

use commucat_crypto::signing::{Purpose, verify};
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::fanout::{FanoutEntry, JoinKeyChange};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{Handle, JoinKey};

use super::*;

#[derive(Default)]
pub(super) struct Hub {
    pub(super) log: Vec<LogEntry>,
    pub(super) infos: Vec<(u64, Bytes)>,
    pub(super) list: BTreeMap<Handle, FanoutEntry>,
    pub(super) join_key: Option<JoinKey>,
    invites: Vec<GroupInvite>,
}

/// Why a bundle is refused.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Refused {
    Conflict,
    Forbidden,
    NotFound,
}

impl Hub {
    pub(super) fn head(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn create(&mut self, create: GroupCreate) {
        self.infos.push((0, create.sealed_group_info.unwrap()));
        self.list = create
            .fanout
            .into_iter()
            .map(|entry| (entry.handle, entry))
            .collect();
        self.join_key = create.join_key;
    }

    pub(super) fn submit(&mut self, submission: &Submission) -> Result<u64, Refused> {
        let signed = &submission.update.bundle;
        let bundle = Bundle::decode_shared(&signed.body).unwrap();
        let author = self.list.get(&bundle.author).cloned();
        let verified = match &author {
            Some(_) => verify(signed, Purpose::Commit, bundle.author.as_bytes()),
            None => {
                let key = self.join_key.as_ref().ok_or(Refused::NotFound)?;
                verify(signed, Purpose::JoinCommit, key.as_bytes())
            }
        };
        verified.map_err(|_| Refused::NotFound)?;
        if bundle.expect != self.head() {
            return Err(Refused::Conflict);
        }
        if bundle.change.needs_admin() && !author.is_some_and(|author| author.admin) {
            return Err(Refused::Forbidden);
        }
        let entry = bundle.entry(&signed.body).unwrap();
        Ok(self.append(bundle, entry))
    }

    fn append(&mut self, bundle: Bundle, entry: LogEntry) -> u64 {
        let change = &entry.change;
        for handle in &change.remove {
            self.list.remove(handle);
        }
        for entry in &change.add {
            assert!(
                self.list.insert(entry.handle, entry.clone()).is_none(),
                "added twice"
            );
        }
        for told in &change.admins {
            self.list.get_mut(&told.handle).unwrap().admin = told.admin;
        }
        match change.join_key {
            Some(JoinKeyChange::Set(key)) => self.join_key = Some(key),
            Some(JoinKeyChange::Remove) => self.join_key = None,
            None => {}
        }
        self.everyone_if_no_admin();
        self.infos.push((entry.position, bundle.sealed_group_info));
        for welcome in &bundle.welcomes {
            for handle in &welcome.handles {
                self.invites.push(GroupInvite {
                    group: entry.group,
                    hub: domain(),
                    position: entry.position,
                    handle: *handle,
                    sealed_ref: self.list[handle].sealed_ref,
                    welcome: welcome.welcome.clone(),
                    message: entry.message,
                });
            }
        }
        let position = entry.position;
        self.log.push(entry);
        position
    }

    /// A device left for good, or was revoked.
    pub(super) fn gone(&mut self, handle: &Handle) {
        self.list.remove(handle);
        self.everyone_if_no_admin();
    }

    fn everyone_if_no_admin(&mut self) {
        if !self.list.values().any(|entry| entry.admin) {
            self.list.values_mut().for_each(|entry| entry.admin = true);
        }
    }

    pub(super) fn entries_from(&self, position: u64) -> Vec<LogEntry> {
        self.log
            .iter()
            .filter(|entry| entry.position >= position)
            .cloned()
            .collect()
    }

    pub(super) fn invites_for(&mut self, sealed_ref: &SealedRef) -> Vec<GroupInvite> {
        self.invites
            .extract_if(.., |invite| invite.sealed_ref == *sealed_ref)
            .collect()
    }

    /// The list is the tree, with the flags that the roles give.
    pub(super) fn assert_list(&self, view: &Group) {
        let tree: BTreeMap<_, _> = view
            .members
            .iter()
            .map(|member| (member.handle, member.role >= Role::Admin))
            .collect();
        let list: BTreeMap<_, _> = self
            .list
            .values()
            .map(|entry| (entry.handle, entry.admin))
            .collect();
        assert_eq!(tree, list, "the hub's list is not the tree");
    }
}
