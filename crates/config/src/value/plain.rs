//! Types of the standard library and of the protocol as settings.

use std::net::SocketAddr;
use std::path::PathBuf;

use commucat_proto::id::Domain;

use super::{Raw, Size, Value, quoted, scalar};

impl Value for bool {
    const KIND: &'static str = "true or false";

    fn read(raw: &Raw) -> Result<Self, String> {
        match scalar(raw, Self::KIND)? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Self::KIND.to_owned()),
        }
    }

    fn text_to_toml(text: &str) -> String {
        text.to_owned()
    }
}

impl Value for u32 {
    const KIND: &'static str = "whole number";

    fn read(raw: &Raw) -> Result<Self, String> {
        let needs = "a whole number";
        scalar(raw, needs)?.parse().map_err(|_| needs.to_owned())
    }

    fn text_to_toml(text: &str) -> String {
        text.to_owned()
    }
}

impl Value for String {
    const KIND: &'static str = "text";

    fn read(raw: &Raw) -> Result<Self, String> {
        scalar(raw, "one text").map(str::to_owned)
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";

    fn read(raw: &Raw) -> Result<Self, String> {
        match scalar(raw, "a path")? {
            "" => Err("a path".to_owned()),
            text => Ok(Self::from(text)),
        }
    }
}

impl Value for Domain {
    const KIND: &'static str = "domain";

    fn read(raw: &Raw) -> Result<Self, String> {
        let needs = "a lower-case DNS name or IP address, optionally with :port";
        Self::parse(scalar(raw, needs)?).map_err(|_| needs.to_owned())
    }
}

impl Value for SocketAddr {
    const KIND: &'static str = "address and port";

    fn read(raw: &Raw) -> Result<Self, String> {
        let needs = "an address and port such as \"127.0.0.1:8443\" or \"[::1]:8443\"";
        scalar(raw, needs)?.parse().map_err(|_| needs.to_owned())
    }
}

macro_rules! optional {
    ($($inner:ty, $kind:literal;)+) => {
        $(impl Value for Option<$inner> {
            const KIND: &'static str = $kind;

            fn read(raw: &Raw) -> Result<Self, String> {
                match raw {
                    Raw::Text(text) if text.trim().is_empty() => Ok(None),
                    Raw::Text(_) | Raw::List(_) => <$inner>::read(raw).map(Some),
                }
            }
        })+
    };
}

optional! {
    PathBuf, "path or empty";
    Domain, "domain or empty";
    Size, "size or empty";
    String, "text or empty";
    super::Secret, "secret or empty";
    super::StoreUrl, "secret URL or empty";
}

macro_rules! list {
    ($($inner:ty, $kind:literal;)+) => {
        $(impl Value for Vec<$inner> {
            const KIND: &'static str = $kind;

            fn read(raw: &Raw) -> Result<Self, String> {
                match raw {
                    Raw::Text(text) => split(text)
                        .map(|item| <$inner>::read(&Raw::Text(item.to_owned())))
                        .collect(),
                    Raw::List(items) => {
                        items.iter().map(|item| <$inner>::read(&Raw::Text(item.clone()))).collect()
                    }
                }
            }

            fn text_to_toml(text: &str) -> String {
                let items: Vec<String> = split(text).map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
        })+
    };
}

list! {
    SocketAddr, "list of addresses and ports";
    super::Network, "list of address ranges";
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}
