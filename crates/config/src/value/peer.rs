//! Other domains that the configuration names: `chat.example.org`, or with endpoint and key.

use commucat_proto::id::{Domain, DomainKey};

use super::{Raw, Value, quoted};

const NEEDS: &str =
    "domains, each as \"domain\", \"domain,endpoint\" or \"domain,endpoint,public key\"";

/// A domain that the configuration names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedPeer {
    /// Its name.
    pub domain: Domain,
    /// Host and port that take its events; none: found at the domain itself.
    pub endpoint: Option<Domain>,
    /// Its domain key; none: pinned at first contact.
    pub key: Option<DomainKey>,
}

impl NamedPeer {
    /// Parses `domain[,endpoint[,key]]`. The endpoint may be written as an `https` URL; the key is
    /// hex, or base32 as in invite links.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',').map(str::trim);
        let domain = Domain::parse(parts.next()?).ok()?;
        let endpoint = match parts.next().filter(|endpoint| !endpoint.is_empty()) {
            Some(endpoint) => Some(parse_endpoint(endpoint)?),
            None => None,
        };
        let key = match parts.next().filter(|key| !key.is_empty()) {
            Some(key) => Some(DomainKey::from_text(key)?),
            None => None,
        };
        parts.next().is_none().then_some(Self {
            domain,
            endpoint,
            key,
        })
    }
}

fn parse_endpoint(text: &str) -> Option<Domain> {
    let text = text.strip_prefix("https://").unwrap_or(text);
    Domain::parse(text.strip_suffix('/').unwrap_or(text)).ok()
}

impl Value for Vec<NamedPeer> {
    const KIND: &'static str = "list of domains";

    fn read(raw: &Raw) -> Result<Self, String> {
        let parse = |text: &str| NamedPeer::parse(text).ok_or_else(|| NEEDS.to_owned());
        match raw {
            Raw::Text(text) => split(text).map(parse).collect(),
            Raw::List(items) => items.iter().map(|item| parse(item)).collect(),
        }
    }

    fn text_to_toml(text: &str) -> String {
        let items: Vec<String> = split(text).map(quoted).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A comma belongs to one domain's parts, so that semicolons part domains from each other.
fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(';')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_domain_with_or_without_endpoint_and_key() {
        let key = "a7".repeat(32);
        let full = NamedPeer::parse(&format!("b.example, https://in.b.example:8443/ ,{key}"));

        assert_eq!(
            full,
            Some(NamedPeer {
                domain: Domain::parse("b.example").unwrap(),
                endpoint: Some(Domain::parse("in.b.example:8443").unwrap()),
                key: Some(DomainKey::new([0xa7; 32])),
            })
        );
        assert_eq!(NamedPeer::parse("b.example").unwrap().endpoint, None);
        assert_eq!(
            NamedPeer::parse(&format!("b.example,,{key}"))
                .unwrap()
                .endpoint,
            None
        );
        for wrong in [
            "",
            "B.example",
            "b.example,http://x",
            "b.example,,a7",
            "b.example,,,x",
        ] {
            assert_eq!(NamedPeer::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_text_names_several_domains_with_semicolons_between() {
        let read = <Vec<NamedPeer>>::read(&Raw::Text("a.example; b.example,b.example:1".into()));

        assert_eq!(read.unwrap().len(), 2);
        assert_eq!(<Vec<NamedPeer>>::text_to_toml("a; b,c"), r#"["a", "b,c"]"#);
    }
}
