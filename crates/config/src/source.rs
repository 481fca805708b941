//! Reading the sources and looking keys up in them, last source first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, Origin};
use crate::reference::{Setting, nearest, settings};
use crate::value::{Raw, Value};

/// Where the configuration comes from. Empty: the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<(PathBuf, String)>,
    environment: Vec<(String, String)>,
    flags: Vec<(String, String)>,
}

impl Sources {
    /// Adds the text of a configuration file; `path` is for messages.
    #[must_use]
    pub fn with_text(mut self, path: &Path, text: &str) -> Self {
        self.file = Some((path.to_owned(), text.to_owned()));
        self
    }

    /// Adds a configuration file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unreadable`].
    pub fn with_file(self, path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Ok(self.with_text(path, &text))
    }

    /// Adds the variables of this process.
    #[must_use]
    pub fn with_environment(self) -> Self {
        self.with_variables(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// Adds variables; those that are not `COMMUCAT_<BLOCK>_*` are ignored.
    #[must_use]
    pub fn with_variables(mut self, all: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment
            .extend(all.into_iter().filter(|(name, _)| names_a_block(name)));
        self
    }

    /// Adds a flag: `key` is `block.name`.
    #[must_use]
    pub fn with_flag(mut self, key: &str, value: &str) -> Self {
        self.flags.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// Settings by the names of earlier releases, and what they are called now.
const OLDER_KEYS: [(&str, &str); 2] = [
    ("storage.postgres_dsn", "storage.url"),
    ("storage.path", "storage.url"),
];
const OLDER_VARIABLES: [(&str, &str); 2] = [
    ("COMMUCAT_PG_DSN", "storage.url"),
    ("COMMUCAT_REDIS_URL", "storage.redis_url"),
];

/// The setting that an older name means, with its value as that takes it.
fn renamed(key: String, raw: Raw) -> (String, Raw) {
    let Some((older, newer)) = OLDER_KEYS.iter().find(|(older, _)| *older == key) else {
        return (key, raw);
    };
    let directory = match &raw {
        Raw::Text(path) if *older == "storage.path" => Some(path.trim()),
        Raw::Text(_) | Raw::List(_) => None,
    };
    let raw = match directory.filter(|path| !path.is_empty()) {
        Some(path) => Raw::Text(format!("sqlite:{path}")),
        None => raw,
    };
    ((*newer).to_owned(), raw)
}

fn names_a_block(variable: &str) -> bool {
    let is_older = OLDER_VARIABLES.iter().any(|(older, _)| *older == variable);
    is_older
        || settings().any(|setting| {
            let prefix = format!("COMMUCAT_{}_", setting.block.to_ascii_uppercase());
            variable.starts_with(&prefix)
        })
}

/// All values given, by `block.name`, the strongest source only.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    values: HashMap<String, (Raw, Origin)>,
}

impl Layers {
    pub(crate) fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        if let Some((path, text)) = &sources.file {
            layers.read_file(path, text)?;
        }
        for (name, value) in &sources.environment {
            let origin = Origin::Environment(name.clone());
            let key = OLDER_KEYS
                .iter()
                .map(|(older, _)| *older)
                .find(|older| variable_of(older) == *name)
                .map(str::to_owned);
            let key = key.or_else(|| {
                let older = OLDER_VARIABLES.iter().find(|(older, _)| older == name);
                older.map(|(_, key)| (*key).to_owned())
            });
            let current = || {
                let found = settings().find(|setting| setting.variable() == *name);
                found.map(Setting::key)
            };
            let Some(key) = key.or_else(current) else {
                let known = settings().map(|setting| setting.variable());
                let nearest = nearest(name, known);
                return Err(ConfigError::UnknownKey {
                    origin,
                    key: name.clone(),
                    nearest,
                });
            };
            layers.put(key, Raw::Text(value.clone()), origin)?;
        }
        for (key, value) in &sources.flags {
            layers.put(
                key.clone(),
                Raw::Text(value.clone()),
                Origin::Flag(key.clone()),
            )?;
        }
        Ok(layers)
    }

    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let at = |offset: usize| {
            let before = text.get(..offset).unwrap_or(text);
            Origin::File {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
            }
        };
        let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            origin: at(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        for (block, content) in document.get_ref().iter() {
            let name = block.get_ref();
            let known = settings().any(|setting| setting.block == name.as_ref());
            let origin = at(block.span().start);
            let table = match (known, content.get_ref()) {
                (true, DeValue::Table(table)) => table,
                (true, _) => {
                    let needs = "to be a block, written `[name]`".to_owned();
                    return Err(ConfigError::Value {
                        origin,
                        key: name.to_string(),
                        needs,
                    });
                }
                (false, _) => return Err(unknown_top(name, origin)),
            };
            for (key, value) in table.iter() {
                let full = format!("{name}.{}", key.get_ref());
                let origin = at(key.span().start);
                let Some(raw) = raw(value.get_ref()) else {
                    check_known(&full, &origin)?;
                    let needs = "a text, a whole number, true or false, or a list".to_owned();
                    return Err(ConfigError::Value {
                        origin,
                        key: full,
                        needs,
                    });
                };
                self.put(full, raw, origin)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, key: String, raw: Raw, origin: Origin) -> Result<(), ConfigError> {
        // The URL says it now; earlier releases had no other.
        if key == "storage.backend" && raw == Raw::Text("sqlite".to_owned()) {
            return Ok(());
        }
        let (key, raw) = renamed(key, raw);
        check_known(&key, &origin)?;
        self.values.insert(key, (raw, origin));
        Ok(())
    }

    /// What the strongest source gives for a key, and which source that is.
    pub(crate) fn given(&self, key: &str) -> Option<&(Raw, Origin)> {
        self.values.get(key)
    }

    /// The value of a setting, or its default.
    pub(crate) fn value<V: Value>(&self, setting: Option<&Setting>) -> Result<V, ConfigError> {
        let Some(setting) = setting else {
            return Err(ConfigError::Conflict {
                problem: "a block has fewer settings than fields",
            });
        };
        let key = setting.key();
        let default = (Raw::Text(setting.default.to_owned()), Origin::Default);
        let (raw, origin) = self.values.get(&key).unwrap_or(&default);
        V::read(raw).map_err(|needs| ConfigError::Value {
            origin: origin.clone(),
            key,
            needs,
        })
    }

    /// Refuses a value outside its range.
    pub(crate) fn check_range<V: Value + PartialOrd>(
        &self,
        value: &V,
        name: &str,
        block: &str,
        range: (&str, &str),
    ) -> Result<(), ConfigError> {
        let key = format!("{block}.{name}");
        let bound = |text: &str| V::read(&Raw::Text(text.to_owned()));
        let inside = matches!((bound(range.0), bound(range.1)), (Ok(low), Ok(high))
            if *value >= low && *value <= high);
        if inside {
            return Ok(());
        }
        let origin = self
            .values
            .get(&key)
            .map_or(Origin::Default, |(_, origin)| origin.clone());
        let needs = format!("a value from {} to {}", range.0, range.1);
        Err(ConfigError::Value { origin, key, needs })
    }
}

/// A name outside all blocks: a block or a key that was meant to stand in one.
fn unknown_top(name: &str, origin: Origin) -> ConfigError {
    let inside = settings()
        .find(|setting| setting.name == name)
        .map(|setting| setting.key());
    let nearest =
        inside.or_else(|| nearest(name, settings().map(|setting| setting.block.to_owned())));
    ConfigError::UnknownKey {
        origin,
        key: name.to_owned(),
        nearest,
    }
}

/// The environment variable of `block.name`.
fn variable_of(key: &str) -> String {
    format!("COMMUCAT_{}", key.replace('.', "_")).to_ascii_uppercase()
}

fn check_known(key: &str, origin: &Origin) -> Result<(), ConfigError> {
    if settings().any(|setting| setting.key() == key) {
        return Ok(());
    }
    let nearest = nearest(key, settings().map(|setting| setting.key()));
    Err(ConfigError::UnknownKey {
        origin: origin.clone(),
        key: key.to_owned(),
        nearest,
    })
}

fn raw(value: &DeValue<'_>) -> Option<Raw> {
    match value {
        DeValue::Array(items) => items
            .iter()
            .map(|item| text(item.get_ref()))
            .collect::<Option<_>>()
            .map(Raw::List),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => text(value).map(Raw::Text),
    }
}

fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|n| n.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
