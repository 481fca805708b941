//! CBOR as a tree that can be bent: wrong types, wrong sizes, missing and doubled keys.

/// An item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(u64, Self)>),
    Bool(bool),
    /// Bytes that are written as they are.
    Raw(Vec<u8>),
}

/// A bent item, with what was done to it.
pub(crate) type Bent = (String, Vec<u8>);

impl Value {
    /// Reads what our own encoder wrote; `None` if it is something else.
    pub(crate) fn parse(raw: &[u8]) -> Option<Self> {
        let mut rest = raw;
        let value = Self::take(&mut rest)?;
        rest.is_empty().then_some(value)
    }

    fn take(rest: &mut &[u8]) -> Option<Self> {
        let (first, tail) = rest.split_first()?;
        *rest = tail;
        let (major, low) = (first >> 5, first & 31);
        let extra = match low {
            0..=23 => 0,
            24..=27 => 1_usize << (low - 24),
            _ => return None,
        };
        let (head, tail) = rest.split_at_checked(extra)?;
        *rest = tail;
        let read = head.iter().fold(0_u64, |v, byte| v << 8 | u64::from(*byte));
        let v = if extra == 0 { u64::from(low) } else { read };
        match major {
            0 => Some(Self::Uint(v)),
            2 | 3 => {
                let (bytes, tail) = rest.split_at_checked(usize::try_from(v).ok()?)?;
                *rest = tail;
                let bytes = bytes.to_vec();
                Some(if major == 2 {
                    Self::Bytes(bytes)
                } else {
                    Self::Text(bytes)
                })
            }
            4 => (0..v)
                .map(|_| Self::take(rest))
                .collect::<Option<_>>()
                .map(Self::List),
            5 => {
                let pairs = (0..v).map(|_| match Self::take(rest)? {
                    Self::Uint(key) => Some((key, Self::take(rest)?)),
                    _ => None,
                });
                pairs.collect::<Option<_>>().map(Self::Map)
            }
            7 if v == 20 || v == 21 => Some(Self::Bool(v == 21)),
            _ => None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Uint(v) => head(0, *v, out),
            Self::Bytes(bytes) => sized(2, bytes, out),
            Self::Text(bytes) => sized(3, bytes, out),
            Self::List(items) => {
                head(4, items.len() as u64, out);
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(pairs) => {
                head(5, pairs.len() as u64, out);
                for (key, item) in pairs {
                    head(0, *key, out);
                    item.write(out);
                }
            }
            Self::Bool(flag) => out.push(if *flag { 0xf5 } else { 0xf4 }),
            Self::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Everything that a receiver must refuse: each node replaced by each other type, each size that
    /// is fixed made wrong, each of the keys in `required` left out, and the encoding abused.
    pub(crate) fn bent(&self, required: &[u64]) -> Vec<Bent> {
        let mut all = self.abused();
        self.visit("", &mut |what, node| all.push((what, node.encode())));
        if let Self::Map(pairs) = self {
            for key in required {
                let left: Vec<_> = pairs
                    .iter()
                    .filter(|pair| pair.0 != *key)
                    .cloned()
                    .collect();
                all.push((format!("key {key} missing"), Self::Map(left).encode()));
            }
        }
        all
    }

    /// Calls `see` with the whole tree, once for each way to bend one node.
    fn visit(&self, path: &str, see: &mut dyn FnMut(String, Self)) {
        for (what, node) in self.replaced() {
            see(format!("{path} {what}"), node);
        }
        match self {
            Self::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    item.visit(&format!("{path}[{at}]"), &mut |what, node| {
                        let mut items = items.clone();
                        if let Some(place) = items.get_mut(at) {
                            *place = node;
                        }
                        see(what, Self::List(items));
                    });
                }
            }
            Self::Map(pairs) => {
                for (at, (key, item)) in pairs.iter().enumerate() {
                    item.visit(&format!("{path}.{key}"), &mut |what, node| {
                        let mut pairs = pairs.clone();
                        if let Some(place) = pairs.get_mut(at) {
                            place.1 = node;
                        }
                        see(what, Self::Map(pairs));
                    });
                }
            }
            Self::Uint(_) | Self::Bytes(_) | Self::Text(_) | Self::Bool(_) | Self::Raw(_) => {}
        }
    }

    fn replaced(&self) -> Vec<(String, Self)> {
        let mut all: Vec<(String, Self)> = OTHERS
            .iter()
            .filter(|(major, _, _)| *major != self.major())
            .map(|(_, what, raw)| (format!("becomes {what}"), Self::Raw(raw.to_vec())))
            .collect();
        if let Self::Bytes(bytes) = self
            && [16, 32, 64, 65].contains(&bytes.len())
        {
            let longer = [&bytes[..], &[7]].concat();
            let shorter = bytes.iter().skip(1).copied().collect();
            all.push(("one byte too long".to_owned(), Self::Bytes(longer)));
            all.push(("one byte too short".to_owned(), Self::Bytes(shorter)));
            let huge = vec![7; 70_000];
            all.push(("70,000 bytes".to_owned(), Self::Bytes(huge)));
        }
        if let Self::Uint(_) = self {
            let beyond = [&[0x1b][..], &(1_u64 << 63).to_be_bytes()].concat();
            all.push(("becomes 2^63".to_owned(), Self::Raw(beyond)));
        }
        if let Self::Text(_) = self {
            let broken = Self::Raw(vec![0x62, 0xff, 0xfe]);
            all.push(("is not UTF-8".to_owned(), broken));
        }
        all
    }

    fn major(&self) -> u8 {
        match self {
            Self::Uint(_) => 0,
            Self::Bytes(_) => 2,
            Self::Text(_) => 3,
            Self::List(_) => 4,
            Self::Map(_) => 5,
            Self::Bool(_) => 7,
            Self::Raw(_) => 255,
        }
    }

    fn abused(&self) -> Vec<Bent> {
        let good = self.encode();
        let mut all = vec![
            ("bytes behind it".to_owned(), [&good[..], &[0]].concat()),
            ("twice".to_owned(), [&good[..], &good].concat()),
            ("in a tag".to_owned(), [&[0xc1][..], &good].concat()),
        ];
        let Self::Map(pairs) = self else {
            return all;
        };
        if let Some(first) = pairs.first() {
            let doubled = [&pairs[..], std::slice::from_ref(first)].concat();
            all.push(("a key twice".to_owned(), Self::Map(doubled).encode()));
        }
        let inner = good.get(1..).unwrap_or_default();
        let open = [&[0xbf][..], inner, &[0xff]].concat();
        all.push(("of indefinite length".to_owned(), open));
        // Skipped values obey the rules too.
        for (what, raw) in UNKNOWN {
            let more = [&pairs[..], &[(99, Self::Raw(raw.to_vec()))]].concat();
            all.push((format!("unknown key with {what}"), Self::Map(more).encode()));
        }
        let deep = [vec![0x81; 8], vec![0]].concat();
        let more = [&pairs[..], &[(99, Self::Raw(deep))]].concat();
        all.push(("nine levels deep".to_owned(), Self::Map(more).encode()));
        let deep = [vec![0x81; 100_000], vec![0]].concat();
        let more = [&pairs[..], &[(99, Self::Raw(deep))]].concat();
        all.push(("100,000 levels deep".to_owned(), Self::Map(more).encode()));
        let count = u8::try_from(pairs.len() + 1).unwrap_or(23).min(23) | 0xa0;
        let keyed = |key: &[u8]| [&[count][..], inner, key, &[0]].concat();
        all.push(("a negative key".to_owned(), keyed(&[0x20])));
        all.push(("a text key".to_owned(), keyed(&[0x61, 0x61])));
        all
    }
}

/// One item of each type, by major type.
const OTHERS: &[(u8, &str, &[u8])] = &[
    (0, "a number", &[0x01]),
    (1, "a negative number", &[0x20]),
    (2, "bytes", &[0x42, 0, 0]),
    (3, "text", &[0x62, b'h', b'i']),
    (4, "a list", &[0x81, 0x01]),
    (5, "a map", &[0xa1, 0x01, 0x01]),
    (7, "true", &[0xf5]),
    (255, "null", &[0xf6]),
    (255, "undefined", &[0xf7]),
    (255, "a half float", &[0xf9, 0x3c, 0x00]),
    (255, "a double", &[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
    (255, "tagged", &[0xc0, 0x01]),
    (255, "indefinite bytes", &[0x5f, 0x41, 0, 0xff]),
    (255, "an indefinite list", &[0x9f, 0x01, 0xff]),
    (255, "a reserved head", &[0x1c]),
    (255, "a break", &[0xff]),
    (255, "bytes of 2^63", &[0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0]),
    (255, "text of 4 GiB", &[0x7a, 0xff, 0xff, 0xff, 0xff]),
    (255, "a list of 2^62", &[0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0]),
    (255, "a map of 2^32", &[0xba, 0xff, 0xff, 0xff, 0xff]),
];

/// What must not stand under an unknown key either.
const UNKNOWN: &[(&str, &[u8])] = &[
    ("a tag", &[0xc0, 0x01]),
    ("a float", &[0xfa, 0x3f, 0x80, 0, 0]),
    ("an indefinite list", &[0x9f, 0xff]),
    ("a list of 2^62", &[0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0]),
    ("bytes of 4 GiB", &[0x5a, 0xff, 0xff, 0xff, 0xff]),
    ("a map with a key twice", &[0xa2, 0x01, 0x01, 0x01, 0x01]),
];

fn head(major: u8, v: u64, out: &mut Vec<u8>) {
    let top = major << 5;
    let bytes = v.to_be_bytes();
    let (low, used): (u8, usize) = match v {
        0..=23 => {
            out.push(top | bytes[7]);
            return;
        }
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(top | low);
    out.extend_from_slice(bytes.get(8 - used..).unwrap_or_default());
}

fn sized(major: u8, bytes: &[u8], out: &mut Vec<u8>) {
    head(major, bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
