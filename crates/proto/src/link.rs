//! Links: invite, contact, join (CCP-1 section 6).
//!
//! Secrets stand behind `#`, so no web server's log has them. The characters survive an unquoted
//! paste into a shell.

use crate::id::{
    AccountId, Domain, DomainKey, GroupId, GroupKey, JoinSeed, Token, base32, from_base32,
};

/// Longer texts are no links of ours; the longest that can be made is below 900 bytes.
const LINK_LEN_MAX: usize = 2_048;

/// Why a text is not a link. Never carries the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// It does not begin like a link of this kind.
    #[error("not a link of this kind")]
    Form,
    /// It is too long.
    #[error("a link of {0} bytes")]
    TooLong(usize),
    /// A part that must be there is not, is there twice, or is not what it must be.
    #[error("the part `{0}` of the link is missing or damaged")]
    Part(&'static str),
}

/// Any link that a client may be given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Link {
    /// To register on a server.
    Invite(InviteLink),
    /// To write to somebody.
    Contact(ContactLink),
    /// To join a group.
    Join(JoinLink),
}

impl Link {
    /// Reads a link of any kind, in any of its forms.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        if text.starts_with(INVITE_SCHEME) || text.starts_with(PAGE_SCHEME) {
            InviteLink::parse(text).map(Self::Invite)
        } else if text.starts_with(JOIN_SCHEME) {
            JoinLink::parse(text).map(Self::Join)
        } else {
            ContactLink::parse(text).map(Self::Contact)
        }
    }
}

const INVITE_SCHEME: &str = "commucat://";
const PAGE_SCHEME: &str = "https://";
const JOIN_SCHEME: &str = "commucat:g/";
const CONTACT_SCHEME: &str = "commucat:";

/// `commucat://<host[:port]>/#i=<token>,d=<domain>,k=<domain key>`, or the same fragment behind
/// `https://<host[:port]>/i`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InviteLink {
    /// Where to connect: a host with an optional port, which looks like a domain.
    pub host: Domain,
    /// Grants one registration.
    pub token: Token,
    /// The server's own name.
    pub domain: Domain,
    /// What to check the server's keys with.
    pub domain_key: DomainKey,
}

impl InviteLink {
    /// Reads the link or its page form.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if it is neither.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let (front, parts) = split(text)?;
        let host = front
            .strip_prefix(INVITE_SCHEME)
            .map(|rest| rest.strip_suffix('/').unwrap_or(rest))
            .or_else(|| {
                front
                    .strip_prefix(PAGE_SCHEME)
                    .and_then(|rest| rest.strip_suffix("/i"))
            })
            .ok_or(LinkError::Form)?;
        Ok(Self {
            host: Domain::parse(host).map_err(|_| LinkError::Part("host"))?,
            token: parts.bytes("i", |raw| Token::parse(raw).ok())?,
            domain: parts.text("d", |raw| Domain::parse(raw).ok())?,
            domain_key: parts.bytes("k", |raw| DomainKey::parse(raw).ok())?,
        })
    }

    /// The link.
    #[must_use]
    pub fn to_link(&self) -> String {
        format!("{INVITE_SCHEME}{}/#{}", self.host.as_str(), self.fragment())
    }

    /// The page form: a browser shows what to do with it.
    #[must_use]
    pub fn to_page(&self) -> String {
        format!("{PAGE_SCHEME}{}/i#{}", self.host.as_str(), self.fragment())
    }

    fn fragment(&self) -> String {
        let (token, key) = (
            base32(self.token.as_bytes()),
            base32(self.domain_key.as_bytes()),
        );
        format!("i={token},d={},k={key}", self.domain.as_str())
    }
}

/// `commucat:<account id>@<domain>#c=<capability>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ContactLink {
    /// Who.
    pub account: AccountId,
    /// Where.
    pub domain: Domain,
    /// Grants claims of key packages.
    pub capability: Token,
}

impl ContactLink {
    /// Reads the link.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let (front, parts) = split(text)?;
        let address = front.strip_prefix(CONTACT_SCHEME).ok_or(LinkError::Form)?;
        let (account, domain) = address.split_once('@').ok_or(LinkError::Form)?;
        Ok(Self {
            account: AccountId::parse(account).map_err(|_| LinkError::Part("account"))?,
            domain: Domain::parse(domain).map_err(|_| LinkError::Part("domain"))?,
            capability: parts.bytes("c", |raw| Token::parse(raw).ok())?,
        })
    }

    /// The link.
    #[must_use]
    pub fn to_link(&self) -> String {
        let capability = base32(self.capability.as_bytes());
        let (account, domain) = (self.account.as_str(), self.domain.as_str());
        format!("{CONTACT_SCHEME}{account}@{domain}#c={capability}")
    }
}

/// `commucat:g/<group_id>@<hub>#j=<join key seed>,g=<group key>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinLink {
    /// Which group.
    pub group: GroupId,
    /// Where it is kept.
    pub hub: Domain,
    /// The join key's private half.
    pub seed: JoinSeed,
    /// What opens the group's GroupInfo.
    pub group_key: GroupKey,
}

impl JoinLink {
    /// Reads the link.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let (front, parts) = split(text)?;
        let address = front.strip_prefix(JOIN_SCHEME).ok_or(LinkError::Form)?;
        let (group, hub) = address.split_once('@').ok_or(LinkError::Form)?;
        let group = from_base32(group).and_then(|raw| GroupId::parse(&raw).ok());
        Ok(Self {
            group: group.ok_or(LinkError::Part("group"))?,
            hub: Domain::parse(hub).map_err(|_| LinkError::Part("hub"))?,
            seed: parts.bytes("j", |raw| JoinSeed::parse(raw).ok())?,
            group_key: parts.bytes("g", |raw| GroupKey::parse(raw).ok())?,
        })
    }

    /// The link.
    #[must_use]
    pub fn to_link(&self) -> String {
        let (group, hub) = (base32(self.group.as_bytes()), self.hub.as_str());
        let (seed, key) = (
            base32(self.seed.as_bytes()),
            base32(self.group_key.as_bytes()),
        );
        format!("{JOIN_SCHEME}{group}@{hub}#j={seed},g={key}")
    }
}

/// What stands behind `#`: `name=value` in any order, unknown names ignored.
struct Parts<'a>(&'a str);

impl<'a> Parts<'a> {
    fn text<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, LinkError> {
        let mut values = self.0.split(',').filter_map(|part| {
            part.split_once('=')
                .filter(|(found, _)| *found == name)
                .map(|(_, value)| value)
        });
        match (values.next(), values.next()) {
            (Some(value), None) => parse(value).ok_or(LinkError::Part(name)),
            (Some(_) | None, Some(_) | None) => Err(LinkError::Part(name)),
        }
    }

    fn bytes<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, LinkError> {
        self.text(name, |text| from_base32(text).and_then(|raw| parse(&raw)))
    }
}

fn split(text: &str) -> Result<(&str, Parts<'_>), LinkError> {
    if text.len() > LINK_LEN_MAX {
        return Err(LinkError::TooLong(text.len()));
    }
    let (front, fragment) = text.split_once('#').ok_or(LinkError::Form)?;
    Ok((front, Parts(fragment)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The links of `docs/PROTOCOL.md`, section 15.11.
    const INVITE: &str = "commucat://chat.example.org:8443/#i=caireeyuculbogazdinryhi6d4,\
        d=chat.example.org,k=5jfgyy7ctrjavpxvkb5rglwf7gkuo5vox27hxescd3vgsfcg2iwa";
    const CONTACT: &str = "commucat:sc6655e5lutgjzxpgf6d7rg6yslv6ezi@chat.example.org\
        #c=caireeyuculbogazdinryhi6d4";
    const JOIN: &str = "commucat:g/aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq\
        @chat.example.org#j=bugq2dinbugq2dinbugq2dinbugq2dinbugq2dinbugq2dinbugq,\
        g=byha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha";

    #[test]
    fn the_links_of_the_document_are_read_and_written() {
        let invite = InviteLink::parse(INVITE).unwrap();
        let contact = ContactLink::parse(CONTACT).unwrap();
        let join = JoinLink::parse(JOIN).unwrap();

        assert_eq!(invite.to_link(), INVITE);
        assert_eq!(invite.host.as_str(), "chat.example.org:8443");
        assert_eq!(contact.to_link(), CONTACT);
        assert_eq!(join.to_link(), JOIN);
        assert_eq!(Link::parse(INVITE), Ok(Link::Invite(invite)));
        assert_eq!(Link::parse(CONTACT), Ok(Link::Contact(contact)));
        assert_eq!(Link::parse(JOIN), Ok(Link::Join(join)));
    }

    #[test]
    fn the_page_form_of_an_invite_is_the_same_invite() {
        let invite = InviteLink::parse(INVITE).unwrap();

        assert_eq!(InviteLink::parse(&invite.to_page()), Ok(invite.clone()));
        assert_eq!(Link::parse(&invite.to_page()), Ok(Link::Invite(invite)));
    }

    #[test]
    fn parts_come_in_any_order_beside_unknown_ones() {
        let token = "i=caireeyuculbogazdinryhi6d4,";
        let moved = format!(
            "{},x=y,{}",
            INVITE.replace(token, ""),
            token.trim_end_matches(',')
        );

        assert_eq!(InviteLink::parse(&moved), InviteLink::parse(INVITE));
    }

    #[test]
    fn a_damaged_link_names_the_part_that_is_damaged() {
        let upper = INVITE.replace("caireey", "CAIREEY");
        let twice = format!("{INVITE},d=other.example");
        let missing = INVITE.replace(",d=chat.example.org", "");

        assert_eq!(InviteLink::parse(&upper), Err(LinkError::Part("i")));
        assert_eq!(InviteLink::parse(&twice), Err(LinkError::Part("d")));
        assert_eq!(InviteLink::parse(&missing), Err(LinkError::Part("d")));
        assert_eq!(Link::parse("https://example.org/"), Err(LinkError::Form));
        assert_eq!(
            Link::parse(&"c".repeat(3_000)),
            Err(LinkError::TooLong(3_000))
        );
    }

    #[test]
    fn a_link_does_not_show_its_secrets_in_debug() {
        let shown = format!("{:?} {:?}", Link::parse(CONTACT), Link::parse(JOIN));

        assert!(!shown.contains("caireey") && !shown.contains("bugq") && !shown.contains("byha"));
    }
}
