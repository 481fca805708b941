//! Configuration of a CommuCat server, parsed once into checked types.
//!
//! Three sources, each over the one before: the file `commucat.toml`, environment variables
//! `COMMUCAT_<BLOCK>_<KEY>`, flags. A key that does not exist is an error that names the nearest
//! one; nothing behind [`Config::load`] checks a value again.

mod block;
mod blocks;
mod effective;
mod error;
mod paths;
mod reference;
mod source;
mod value;

pub use blocks::{Admin, Config, Crypto, Federation, Ledger, Limits, Server, Storage};
pub use effective::Effective;
pub use error::{ConfigError, Origin};
pub use reference::{Setting, environment_sample, example, page, settings};
pub use source::Sources;
pub use value::{
    FederationPolicy, LedgerSink, LogFormat, NamedPeer, Network, Registration, Secret, Size,
    StoreUrl,
};
