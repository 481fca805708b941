//! Contacts, their device lists and safety numbers.

use commucat_crypto::certificate::{List, Succession};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::directory::Directory;
use commucat_proto::id::{AccountId, AccountKey, DeviceId, Domain, GroupId, Token};
use commucat_proto::link::ContactLink;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor as _;

use super::core::{Core, unless_refused};
use super::model::{Contact, Kind, Stage};
use super::online::Purpose;
use super::order::Arrival;
use crate::account::verify_list;
use crate::chat::{Advance, Intent, safety_number};
use crate::client::SafetyNumber;
use crate::error::ClientError;
use crate::event::{Change, Event};

impl Core {
    /// The name that the own account gave, `me`, or the start of the id.
    pub(super) fn name_of(&self, account: &AccountId) -> String {
        if *account == self.own_id() {
            return "me".to_owned();
        }
        match self.contacts.get(account) {
            Some(contact) if !contact.petname.is_empty() => contact.petname.clone(),
            _ => account.as_str().get(..8).unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn check_name(&self, name: &str) -> Result<(), ClientError> {
        let good = (1..=64).contains(&name.chars().count())
            && !name.chars().any(char::is_control)
            && name != "me"
            && name != "-";
        if !good {
            return Err(ClientError::Invalid { what: "name" });
        }
        let taken = self.contacts.values().any(|one| one.petname == name)
            || self
                .conversations
                .values()
                .any(|one| one.stage != Stage::Left && one.name.as_deref() == Some(name));
        if taken {
            Err(ClientError::NameTaken {
                name: name.to_owned(),
            })
        } else {
            Ok(())
        }
    }

    pub(super) fn add_contact(
        &mut self,
        link: &str,
        petname: &str,
    ) -> Result<AccountId, ClientError> {
        let invalid = || ClientError::Invalid {
            what: "contact link",
        };
        let link = ContactLink::parse(link.trim()).map_err(|_| invalid())?;
        if link.account == self.own_id() {
            return Err(ClientError::NotNow("this is your own contact link"));
        }
        let known = self.contacts.get(&link.account).cloned();
        if known.as_ref().is_none_or(|one| one.petname != petname) {
            self.check_name(petname)?;
        }
        let contact = Contact {
            domain: link.domain.clone(),
            petname: petname.to_owned(),
            capability: Some(link.capability),
            blocked: false,
            ..known.unwrap_or_else(|| stranger(&link.account, &link.domain))
        };
        self.save_contact(contact)?;
        self.ask_list(&link.account)?;
        // Whoever adds somebody who asked before has decided.
        self.admit(&link.account)?;
        Ok(link.account)
    }

    /// The contact with this petname.
    pub(super) fn contact(&self, name: &str) -> Result<&Contact, ClientError> {
        self.contacts
            .values()
            .find(|one| !one.petname.is_empty() && one.petname == name)
            .ok_or_else(|| ClientError::Unknown {
                what: "contact",
                name: name.to_owned(),
            })
    }

    /// Asks for a contact's device list, once a connection. Not for that of a stranger, whose domain
    /// would see when this device connects.
    pub(super) fn ask_list(&mut self, account: &AccountId) -> Result<(), ClientError> {
        let contact = self.contacts.get(account);
        let Some(contact) = contact.filter(|one| !one.petname.is_empty()) else {
            return Ok(());
        };
        let get = Directory::Get {
            account: account.clone(),
            domain: contact.domain.clone(),
            capability: contact.capability,
        };
        let purpose = Purpose::List(account.clone());
        let Some(online) = &mut self.online else {
            return Ok(());
        };
        if contact.capability.is_some() && online.asked.insert(account.clone()) {
            self.request(FrameType::Directory, &get, purpose);
        }
        Ok(())
    }

    /// A device list came: verified, compared with the pinned one, pinned.
    pub(super) fn on_list(
        &mut self,
        account: &AccountId,
        signed: &Signed,
    ) -> Result<(), ClientError> {
        let list = match verify_list(signed, account) {
            Ok(list) => list,
            Err(error) => {
                tracing::warn!(%error, "a device list is refused");
                return Ok(());
            }
        };
        if *account == self.own_id() {
            return self.on_own_list(&list);
        }
        let Some(mut contact) = self.contacts.get(account).cloned() else {
            return Ok(());
        };
        let pinned = contact
            .list
            .as_deref()
            .and_then(|bytes| Signed::decode(bytes).ok());
        if let Some(pinned) = pinned.and_then(|signed| List::verify(&signed).ok()) {
            match list.compare(pinned.version(), &pinned.hash()) {
                Succession::Newer => {}
                Succession::Same => return Ok(()),
                Succession::Older | Succession::Equivocation => {
                    tracing::warn!("a device list contradicts the pinned one");
                    return Ok(());
                }
            }
        }
        let devices = list
            .certificates()
            .iter()
            .map(|one| one.device().as_str().to_owned());
        contact.key = Some(*list.account());
        contact.list_version = list.version();
        contact.list = Some(signed.encode());
        contact.devices = devices.collect();
        self.save_contact(contact)?;
        self.follow_list(account, &list)
    }

    /// Removes devices that left a contact's list, and lets conversations go on that waited for it.
    fn follow_list(&mut self, account: &AccountId, list: &List) -> Result<(), ClientError> {
        let groups: Vec<_> = self
            .conversations
            .values()
            .filter(|one| one.stage != Stage::Left)
            .map(|one| (one.id, one.stage))
            .collect();
        for (group, stage) in groups {
            let waits = self
                .conversations
                .get(&group)
                .is_some_and(|one| one.wanted.contains(account));
            if waits {
                self.retry.remove(&group);
                self.awake.insert(group);
            }
            if stage != Stage::Active {
                continue;
            }
            let Some(view) = unless_refused(self.chat.group(&group))? else {
                continue;
            };
            let gone: Vec<_> = view
                .members
                .iter()
                .filter(|member| AccountId::of_key(&member.account) == *account)
                .filter(|member| list.certificate(&member.device).is_none())
                .map(|member| member.handle)
                .collect();
            if !gone.is_empty() {
                self.intend(&group, Intent::Remove(gone));
            }
            // Its own devices look after each other; without one that can, the peer does.
            let inside = |device: &DeviceId| view.members.iter().any(|one| one.device == *device);
            let lacks = list.certificates().iter().any(|one| !inside(one.device()));
            let peer = self
                .conversations
                .get(&group)
                .and_then(|one| one.peer.as_ref());
            if lacks && peer == Some(account) {
                self.want(&group, account);
            }
        }
        Ok(())
    }

    pub(super) fn safety(&self, who: &str) -> Result<SafetyNumber, ClientError> {
        let contact = self.contact(who)?;
        let missing = ClientError::NotNow("the contact's key is not known yet: connect first");
        let (Some(own), Some(other)) = (self.account.key, contact.key) else {
            return Err(missing);
        };
        let digits = safety_number(&own, &other);
        let qr = format!("commucat:safety/{}", digits.replace(' ', ""));
        Ok(SafetyNumber { digits, qr })
    }

    /// Remembers who is in a group with this account, without making a contact of anybody.
    pub(super) fn meet(&mut self, key: &AccountKey) -> Result<(), ClientError> {
        let account = AccountId::of_key(key);
        if account == self.own_id() {
            return Ok(());
        }
        let Some(domain) = self.own_domain() else {
            return Ok(());
        };
        let known = self.contacts.get(&account).cloned();
        if known.as_ref().is_some_and(|one| one.key.is_some()) {
            return Ok(());
        }
        let contact = known.unwrap_or_else(|| stranger(&account, &domain));
        self.save_contact(Contact {
            key: Some(*key),
            ..contact
        })
    }

    /// Makes `group` the conversation with `peer`, unless there is one; both sides choose alike.
    pub(super) fn link_contact(
        &mut self,
        peer: Option<&AccountId>,
        group: &GroupId,
        owner: Option<&AccountId>,
    ) -> Result<(), ClientError> {
        let Some(peer) = peer else { return Ok(()) };
        let Some(mut contact) = self.contacts.get(peer).cloned() else {
            return Ok(());
        };
        if contact.petname.is_empty() && owner.is_some() {
            // Another own device knows this account: it gets its id as a name until it is renamed.
            contact.petname = self.name_of(peer);
        }
        let usable = contact.conversation.filter(|old| {
            self.conversations
                .get(old)
                .is_some_and(|one| one.stage != Stage::Left)
        });
        contact.conversation = Some(usable.map_or(*group, |old| old.min(*group)));
        self.save_contact(contact)
    }

    /// A capability came inside a chat (content kind 7).
    pub(super) fn learn_capability(
        &mut self,
        arrival: &Arrival,
        account: &AccountKey,
        domain: &Domain,
        capability: Token,
    ) -> Result<(), ClientError> {
        let id = AccountId::of_key(account);
        // Everybody hands out the own one; own devices also tell each other those of contacts.
        let own = arrival.author == self.own_id();
        if id == self.own_id() || (id != arrival.author && !own) {
            return Ok(());
        }
        let known = self.contacts.get(&id).cloned();
        let mut contact = known.unwrap_or_else(|| stranger(&id, domain));
        contact.domain = domain.clone();
        contact.key = Some(*account);
        contact.capability = Some(capability);
        if own && contact.petname.is_empty() {
            contact.petname = id.as_str().get(..8).unwrap_or_default().to_owned();
        }
        self.save_contact(contact)
    }

    /// A group was given a name (content kind 8).
    pub(super) fn rename(&mut self, group: &GroupId, name: &str) -> Result<(), ClientError> {
        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let peer = self
            .conversations
            .get(group)
            .and_then(|one| one.peer.clone());
        self.change(group, |one| {
            one.name = Some(name);
            one.kind = Kind::Group;
            one.peer = None;
        });
        // A group of two is no 1:1: the contact's conversation is another one.
        if let Some(mut contact) = peer.and_then(|peer| self.contacts.get(&peer).cloned())
            && contact.conversation == Some(*group)
        {
            contact.conversation = None;
            self.save_contact(contact)?;
        }
        self.tell(Event::Conversation {
            conversation: *group,
            change: Change::Settings,
        });
        Ok(())
    }

    /// What a commit did to the members.
    pub(super) fn members_changed(
        &mut self,
        group: &GroupId,
        advance: &Advance,
    ) -> Result<(), ClientError> {
        for member in &advance.added {
            self.meet(&member.account)?;
        }
        if !advance.added.is_empty() || !advance.removed.is_empty() || advance.roles_changed {
            self.tell(Event::Conversation {
                conversation: *group,
                change: Change::Members,
            });
        }
        Ok(())
    }
}

pub(super) fn stranger(account: &AccountId, domain: &Domain) -> Contact {
    Contact {
        account: account.clone(),
        domain: domain.clone(),
        petname: String::new(),
        capability: None,
        key: None,
        list_version: 0,
        list: None,
        devices: Vec::new(),
        verified: false,
        blocked: false,
        conversation: None,
    }
}
