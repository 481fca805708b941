//! `config`: every setting, its value and where it came from.

use commucat_config::{Config, Origin, example};
use serde::Serialize;

use crate::args;
use crate::output::{Output, table};
use crate::report::Report;
use crate::site;

const HIDDEN: &str = "(hidden)";
const EMPTY: &str = "(empty)";

#[derive(Serialize)]
struct Shown {
    settings: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    key: String,
    /// `None` for a secret that is set.
    value: Option<String>,
    origin: String,
}

#[derive(Serialize)]
struct Reference {
    toml: String,
}

/// Runs it.
pub(crate) fn run(command: &args::Config, args: &args::Args, output: Output) -> Result<(), Report> {
    match command {
        args::Config::Reference => output.show(&Reference { toml: example() }, |reference| {
            reference.toml.clone()
        }),
        args::Config::Show { changed } => {
            let all = Config::effective(&site::sources(args)?)?.into_iter();
            let settings = all
                .filter(|setting| !changed || setting.origin != Origin::Default)
                .map(|setting| Setting {
                    key: setting.key,
                    value: setting.value,
                    origin: setting.origin.to_string(),
                })
                .collect();
            output.show(&Shown { settings }, text)
        }
    }
}

fn text(shown: &Shown) -> String {
    let row = |setting: &Setting| {
        let value = match setting.value.as_deref() {
            None => HIDDEN,
            Some("") => EMPTY,
            Some(value) => value,
        };
        [
            setting.key.clone(),
            value.to_owned(),
            setting.origin.clone(),
        ]
    };
    let rows: Vec<_> = shown.settings.iter().map(row).collect();
    if rows.is_empty() {
        return "every setting has its default\n".to_owned();
    }
    table(["SETTING", "VALUE", "FROM"], &rows)
}
