//! What is in force and where it came from, to show it.

use crate::Config;
use crate::error::{ConfigError, Origin};
use crate::reference::{Setting, settings};
use crate::source::{Layers, Sources};
use crate::value::{Raw, Secret, Value as _};

/// One setting as it is in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Effective {
    /// `block.name`
    pub key: String,
    /// Its value as text; `None` for a secret that is set, which is not to be shown.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

impl Config {
    /// Every setting with its origin, in the order of the example file.
    ///
    /// # Errors
    ///
    /// Those of [`Config::load`]: what is shown is in force.
    pub fn effective(sources: &Sources) -> Result<Vec<Effective>, ConfigError> {
        Self::load(sources)?;
        let layers = Layers::read(sources)?;
        Ok(settings()
            .map(|setting| effective(&layers, setting))
            .collect())
    }
}

fn effective(layers: &Layers, setting: &Setting) -> Effective {
    let key = setting.key();
    let (text, origin) = match layers.given(&key) {
        Some((Raw::Text(text), origin)) => (text.clone(), origin.clone()),
        Some((Raw::List(items), origin)) => (items.join(", "), origin.clone()),
        None => (setting.default.to_owned(), Origin::Default),
    };
    let is_hidden = setting.kind.contains(Secret::KIND) && !text.is_empty();
    Effective {
        key,
        value: (!is_hidden).then_some(text),
        origin,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_value_names_its_source_and_secrets_stay_hidden() {
        let text = "[server]\nlisten = [\"[::]:1\", \"[::]:2\"]\n[admin]\nmetrics_token = \"canary-canary-canary\"\n";
        let variable = ("COMMUCAT_SERVER_DOMAIN".to_owned(), "a.example".to_owned());
        let sources = Sources::default()
            .with_text(Path::new("commucat.toml"), text)
            .with_variables([variable])
            .with_flag("server.data", "/data");

        let all = Config::effective(&sources).unwrap();
        let of = |key: &str| {
            let found = all.iter().find(|effective| effective.key == key).unwrap();
            (found.value.as_deref(), found.origin.to_string())
        };

        assert_eq!(
            of("server.listen"),
            (Some("[::]:1, [::]:2"), "commucat.toml:2".to_owned())
        );
        assert_eq!(
            of("server.domain").1,
            "environment variable COMMUCAT_SERVER_DOMAIN"
        );
        assert_eq!(
            of("server.data"),
            (Some("/data"), "flag for `server.data`".to_owned())
        );
        assert_eq!(
            of("server.registration"),
            (Some("invite"), "default".to_owned())
        );
        assert_eq!(
            of("admin.metrics_token"),
            (None, "commucat.toml:4".to_owned())
        );
        assert!(!format!("{all:?}").contains("canary"));
    }
}
