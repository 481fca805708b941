//! CommuCat client SDK and the commucat command.
//!
//! Start with [`Client::join`] (a new account, by invite link) or [`Client::open`], listen with
//! [`Client::subscribe`], talk with [`Client::send`].

mod account;
pub mod chat;
mod client;
pub mod clock;
mod connect;
mod engine;
mod error;
mod event;
mod record;
mod settings;
pub mod vault;

pub use client::{Client, Contact, Conversation, Decision, Device, Me, SafetyNumber, Sent, Status};
pub use error::ClientError;
pub use event::{
    BEHIND_MAX, Change, Connection, Event, Events, Message, Notice, Request, Tick,
    UndeliveredReason,
};
pub use settings::{Settings, Suite, Trust};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
