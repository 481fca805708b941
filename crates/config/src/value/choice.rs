//! Settings with a closed set of values.

use super::{Raw, Value, scalar};

macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $text:literal ),+ }
        $kind:literal
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $name {
            /// The value as it is written in the file and on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $text, )+
                }
            }
        }

        impl Value for $name {
            const KIND: &'static str = $kind;

            fn read(raw: &Raw) -> Result<Self, String> {
                let needs = concat!("one of: ", $kind);
                match scalar(raw, needs)? {
                    $( $text => Ok(Self::$variant), )+
                    _ => Err(needs.to_owned()),
                }
            }
        }
    };
}

choice! {
    /// Who may register an account (CCP-1 section 6).
    Registration {
        /// Whoever has a live invite.
        Invite = "invite",
        /// Everybody.
        Open = "open",
        /// Nobody.
        Closed = "closed"
    }
    "invite, open, closed"
}

choice! {
    /// Where key changes are recorded.
    LedgerSink {
        /// Nowhere.
        Null = "null",
        /// In the log, as counts without identities.
        Debug = "debug",
        /// In a file, one line for each change.
        File = "file"
    }
    "null, debug, file"
}

choice! {
    /// The form of log lines.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json"
    }
    "text, json"
}

choice! {
    /// Which other domains this one talks to.
    FederationPolicy {
        /// All that are not blocked.
        Open = "open",
        /// Those that the operator named.
        Allowlist = "allowlist",
        /// None.
        Closed = "closed"
    }
    "open, allowlist, closed"
}
