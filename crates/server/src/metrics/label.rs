//! Labels of the metrics: closed sets, every value known from the start.

use std::fmt::Debug;

use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A closed set of label values.
pub trait Label: Copy + Debug + Eq + 'static {
    /// The name of the label.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];

    /// The value on the page.
    fn text(self) -> &'static str;
}

/// A family with one label.
pub(super) type Labelled<M> = Family<[(&'static str, &'static str); 1], M>;

/// One metric for each value of a label.
#[derive(Clone, Debug)]
pub struct By<L: Label, M>(Vec<(L, M)>, M);

impl<L: Label, M> By<L, M> {
    /// The metric of `label`.
    pub fn of(&self, label: L) -> &M {
        // At most 25 values that lie next to each other; the last is never taken, because
        // `register` made one for each.
        self.0
            .iter()
            .find(|(own, _)| *own == label)
            .map_or(&self.1, |(_, metric)| metric)
    }

    /// All of them.
    pub fn each(&self) -> impl Iterator<Item = &(L, M)> {
        self.0.iter()
    }

    /// One for each value, all of them in the family that `register` is given.
    pub(super) fn make(register: impl FnOnce(Labelled<M>)) -> Self
    where
        M: Clone + Default + TypedMetric + Debug + Send + Sync + 'static,
        M: prometheus_client::encoding::EncodeMetric,
        fn() -> M: MetricConstructor<M>,
    {
        let _kind: MetricType = M::TYPE;
        let family = Labelled::<M>::default();
        let each = L::ALL.iter().map(|label| {
            (
                *label,
                family.get_or_create(&[(L::NAME, label.text())]).clone(),
            )
        });
        let each = each.collect();
        register(family);
        Self(each, M::default())
    }
}

/// Declares a label: its name and its values.
macro_rules! label {
    (
        $(#[doc = $about:literal])+
        $name:ident $label:literal { $( $(#[doc = $doc:literal])+ $variant:ident = $text:literal, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$( Self::$variant, )+];

            fn text(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }
        }
    };
}

label! {
    /// What a connection speaks.
    Protocol "protocol" {
        /// HTTP/2.
        Http2 = "h2",
        /// HTTP/1.1, also before a WebSocket.
        Http1 = "http1",
    }
}

label! {
    /// Why the shell turned something away.
    Refusal "reason" {
        /// `limits.connections` reached.
        Connections = "connections",
        /// `limits.connections_per_address` reached.
        ConnectionsPerAddress = "connections_per_address",
        /// `limits.handshakes_per_address` exceeded.
        HandshakesPerAddress = "handshakes_per_address",
        /// `limits.handshakes_pending` reached.
        HandshakesPending = "handshakes_pending",
        /// A proxy of `server.proxy_protocol` did not name its client, or not in time.
        ProxyHeader = "proxy_header",
        /// The TLS handshake went wrong.
        TlsFailed = "tls_failed",
        /// The TLS handshake or the first request took longer than `limits.tls_timeout`.
        TlsTimeout = "tls_timeout",
        /// Nothing was asked on an open connection.
        Idle = "idle",
        /// More PING and SETTINGS frames than `limits.control_frames`.
        ControlFrames = "control_frames",
        /// More `/connect` streams on a connection than allowed.
        Streams = "streams",
        /// HTTP that breaks its rules.
        Http = "http",
        /// The server shuts down.
        Draining = "draining",
    }
}

label! {
    /// Which route a request took.
    Route "route" {
        /// `POST /connect`
        ConnectBody = "connect",
        /// `GET /connect`
        ConnectWebSocket = "connect_websocket",
        /// `/healthz` and `/readyz`
        Health = "health",
        /// `/metrics`
        Metrics = "metrics",
        /// `/.well-known/commucat`
        WellKnown = "well_known",
        /// `/` and `/i`
        Page = "page",
        /// Anything else.
        Unknown = "unknown",
    }
}

label! {
    /// How a device's handshake ended.
    Handshake "outcome" {
        /// Noise XK, a known device.
        Xk = "xk",
        /// Noise IK.
        Ik = "ik",
        /// A new device or account.
        Registered = "registered",
        /// `Handshake Rejected`.
        Rejected = "rejected",
        /// `Handshake Timeout`.
        TimedOut = "timed_out",
        /// Bytes that are no handshake, or another version.
        Malformed = "malformed",
    }
}

label! {
    /// From or to the client.
    Direction "direction" {
        /// From the client.
        In = "in",
        /// To the client.
        Out = "out",
    }
}

label! {
    /// The status of an ACK to an author (CCP-1 section 4).
    Ack "status" {
        /// 1
        Stored = "stored",
        /// 2
        Relayed = "relayed",
        /// 3
        Delivered = "delivered",
        /// 4
        Refused = "refused",
    }
}

label! {
    /// Where a delivered entry came from.
    Path "source" {
        /// It was never written to the store.
        Memory = "memory",
        /// It waited in the store.
        Store = "store",
    }
}

label! {
    /// Why a frame was returned to its author (CCP-1, key table of GROUP_EVENT).
    Return "reason" {
        /// 1
        Full = "full",
        /// 2
        Gone = "gone",
        /// 3
        Expired = "expired",
        /// 4
        Forbidden = "forbidden",
        /// 5
        Epoch = "epoch",
        /// 6
        Blocked = "blocked",
    }
}

label! {
    /// Why a request of another domain, or its answer to one, was refused as a whole (CCP-1 section 8).
    Cause "cause" {
        /// 413
        TooLarge = "too-large",
        /// 400
        Malformed = "malformed",
        /// 403
        Peer = "peer-refused",
        /// 503
        Origin = "unknown-origin",
        /// 429
        Budget = "budget",
        /// 421
        Destination = "misdirected",
        /// 400
        Window = "outside-window",
        /// 401
        Key = "unknown-key",
        /// 401
        Signature = "signature",
        /// An answer with a status that is none of an answer.
        AnswerStatus = "answer-status",
        /// An answer longer than one may be.
        AnswerTooLarge = "answer-too-large",
        /// An answer that is not the CBOR that it should be.
        AnswerMalformed = "answer-malformed",
        /// An answer to something else, or of somebody else.
        AnswerOther = "answer-misdirected",
        /// An answer under a key that is not the domain's.
        AnswerKey = "answer-unknown-key",
        /// An answer whose signature does not hold.
        AnswerSignature = "answer-signature",
    }
}

label! {
    /// What the process is doing.
    Lifecycle "state" {
        /// Opening store and ports.
        Starting = "starting",
        /// Serving.
        Serving = "serving",
        /// Ending sessions before it ends itself.
        Draining = "draining",
    }
}

label! {
    /// What keeps the server from serving as it should; `/readyz` names the first.
    Hindrance "cause" {
        /// It ends, or hands over.
        Draining = "draining",
        /// The store does not take what it is given: disk full, database gone.
        Store = "store",
        /// The ledger takes no entries, and key changes wait for it.
        Ledger = "ledger",
        /// Other nodes are not reachable; messages between nodes go through the store.
        Redis = "redis",
    }
}

label! {
    /// A frame by its type (CCP-1 section 2).
    Frame "type" {
        /// 0x01
        Hello = "hello",
        /// 0x02
        Auth = "auth",
        /// 0x03
        Join = "join",
        /// 0x04
        Leave = "leave",
        /// 0x05
        Msg = "msg",
        /// 0x06
        Ack = "ack",
        /// 0x07
        Typing = "typing",
        /// 0x08
        Presence = "presence",
        /// 0x09
        KeyUpdate = "key_update",
        /// 0x0a
        GroupCreate = "group_create",
        /// 0x0b
        GroupInvite = "group_invite",
        /// 0x0c
        GroupEvent = "group_event",
        /// 0x0d
        Error = "error",
        /// 0x40
        KeyPackage = "key_package",
        /// 0x41
        Directory = "directory",
        /// 0x42
        Fetch = "fetch",
        /// 0x43
        Padding = "padding",
        /// Anything else.
        Other = "other",
    }
}

impl Frame {
    /// The label of a type byte.
    #[must_use]
    pub const fn of_code(code: u8) -> Self {
        match code {
            0x01 => Self::Hello,
            0x02 => Self::Auth,
            0x03 => Self::Join,
            0x04 => Self::Leave,
            0x05 => Self::Msg,
            0x06 => Self::Ack,
            0x07 => Self::Typing,
            0x08 => Self::Presence,
            0x09 => Self::KeyUpdate,
            0x0a => Self::GroupCreate,
            0x0b => Self::GroupInvite,
            0x0c => Self::GroupEvent,
            0x0d => Self::Error,
            0x40 => Self::KeyPackage,
            0x41 => Self::Directory,
            0x42 => Self::Fetch,
            0x43 => Self::Padding,
            _ => Self::Other,
        }
    }
}
