//! Holds bytes against `docs/ccp1.cddl` (RFC 8610) without its room for extensions: what a map does not
//! list is refused. Reads as much of the language as that file needs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use commucat_proto::wire::reader::{CborError, Reader};

/// The group that leaves room for later versions in every map.
const EXTENSION: &str = "extension";

/// The rules of a file.
#[derive(Clone, Debug)]
pub struct Schema(BTreeMap<String, Type>);

/// Sizes, counts or numbers: both ends are in it.
type Span = (u64, u64);

#[derive(Clone, Debug)]
enum Type {
    Number(Span),
    Bool,
    Bytes(Span),
    Text(Span),
    Word(String),
    Rule(String),
    Map(Vec<Field>),
    Array(Vec<(Span, Self)>),
    Choice(Vec<Self>),
}

#[derive(Clone, Debug)]
struct Field {
    key: u64,
    is_optional: bool,
    value: Type,
}

impl Schema {
    /// The schema of the protocol.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn ccp1() -> Result<Self> {
        Self::parse(include_str!("../../../docs/ccp1.cddl"))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut from = Tokens::of(text);
        let mut rules = BTreeMap::new();
        while let Some(name) = from.next() {
            from.expect("=")?;
            if name == EXTENSION {
                while from.next().context("the file ends")? != ")" {}
                continue;
            }
            let of_rule = from.choice().with_context(|| name.clone())?;
            ensure!(
                rules.insert(name.clone(), of_rule).is_none(),
                "{name} twice"
            );
        }
        Ok(Self(rules))
    }

    /// Whether `raw` is one item that `rule` describes.
    ///
    /// # Errors
    ///
    /// Where it is not, without the values that are there.
    pub fn check(&self, rule: &str, raw: &Bytes) -> Result<()> {
        let mut reader = Reader::new(raw);
        let whole = reader.item().and_then(|item| reader.end().map(|()| item));
        let whole = whole.with_context(|| rule.to_owned())?;
        self.rule(rule, &whole)
    }

    fn rule(&self, name: &str, raw: &Bytes) -> Result<()> {
        let kind = self.0.get(name);
        let kind = kind.with_context(|| format!("the schema has no rule `{name}`"))?;
        self.is(kind, raw).with_context(|| name.to_owned())
    }

    fn is(&self, kind: &Type, raw: &Bytes) -> Result<()> {
        let mut from = Reader::new(raw);
        let within = |(least, most): Span, count: usize| {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            ensure!((least..=most).contains(&count), "{count} bytes");
            Ok(())
        };
        match kind {
            Type::Number((least, most)) => {
                ensure!((*least..=*most).contains(&from.uint()?), "another number");
                Ok(())
            }
            Type::Bool => from.flag().map(drop).map_err(Into::into),
            Type::Bytes(span) => within(*span, from.slice()?.len()),
            Type::Text(span) => within(*span, from.text()?.len()),
            Type::Word(word) => {
                ensure!(from.text()? == word, "another word");
                Ok(())
            }
            Type::Rule(name) => self.rule(name, raw),
            Type::Map(fields) => self.is_map(fields, &mut from),
            Type::Array(items) => self.is_array(items, &mut from),
            Type::Choice(kinds) => {
                let mut why = Vec::new();
                for one in kinds {
                    match self.is(one, raw) {
                        Ok(()) => return Ok(()),
                        Err(error) => why.push(format!("{error:#}")),
                    }
                }
                bail!("none of {}: {}", kinds.len(), why.join(" | "))
            }
        }
    }

    fn is_map(&self, fields: &[Field], from: &mut Reader<'_>) -> Result<()> {
        let mut pairs = BTreeMap::new();
        from.map(|key, from| {
            pairs.insert(key, from.item()?);
            Ok(())
        })?;
        for field in fields {
            match pairs.remove(&field.key) {
                Some(raw) => {
                    let fits = self.is(&field.value, &raw);
                    fits.with_context(|| format!("key {}", field.key))?;
                }
                None => ensure!(field.is_optional, "no key {}", field.key),
            }
        }
        let more: Vec<_> = pairs.into_keys().collect();
        ensure!(more.is_empty(), "keys that are not listed: {more:?}");
        Ok(())
    }

    /// Takes as many as fit of each kind, one kind after the other: enough where no kind is a beginning
    /// of the next.
    fn is_array(&self, kinds: &[(Span, Type)], from: &mut Reader<'_>) -> Result<()> {
        let items: Vec<Bytes> = from.list(|from| -> Result<_, CborError> { from.item() })?;
        let mut rest = items.iter().enumerate().peekable();
        for ((least, most), kind) in kinds {
            let mut count = 0;
            while count < *most
                && let Some((at, raw)) = rest.peek()
            {
                match self.is(kind, raw) {
                    Ok(()) => {}
                    Err(error) if count < *least => return Err(error.context(format!("[{at}]"))),
                    Err(_) => break,
                }
                rest.next();
                count += 1;
            }
            ensure!(count >= *least, "an item is missing");
        }
        if let Some((at, _)) = rest.next() {
            bail!("[{at}] is not listed");
        }
        Ok(())
    }
}

/// The words and signs of a file.
struct Tokens(std::iter::Peekable<std::vec::IntoIter<String>>);

impl Tokens {
    fn of(text: &str) -> Self {
        let mut all = Vec::new();
        for line in text.lines() {
            let mut rest = line.split(';').next().unwrap_or_default().trim_start();
            while let Some(first) = rest.chars().next() {
                let length = match first {
                    '"' => rest.get(1..).and_then(|more| more.find('"')).unwrap_or(0) + 2,
                    '=' if rest.starts_with("=>") => 2,
                    '.' if rest.starts_with("..") => 2,
                    '.' => 1 + run(rest.get(1..).unwrap_or_default()),
                    _ => run(rest).max(first.len_utf8()),
                };
                let (token, more) = rest.split_at_checked(length).unwrap_or((rest, ""));
                all.push(token.to_owned());
                rest = more.trim_start();
            }
        }
        Self(all.into_iter().peekable())
    }

    fn next(&mut self) -> Option<String> {
        self.0.next()
    }

    fn takes(&mut self, sign: &str) -> bool {
        self.0.next_if(|next| next == sign).is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        let next = self.next();
        ensure!(
            next.as_deref() == Some(sign),
            "{next:?} where {sign} belongs"
        );
        Ok(())
    }

    fn number(&mut self) -> Option<u64> {
        let number = self.0.peek()?.parse().ok()?;
        self.0.next();
        Some(number)
    }

    fn choice(&mut self) -> Result<Type> {
        let mut kinds = vec![self.one()?];
        while self.takes("/") {
            kinds.push(self.one()?);
        }
        match <[Type; 1]>::try_from(kinds) {
            Ok([only]) => Ok(only),
            Err(kinds) => Ok(Type::Choice(kinds)),
        }
    }

    fn one(&mut self) -> Result<Type> {
        if let Some(first) = self.number() {
            return self.number_from(first);
        }
        let word = self.next().context("the file ends")?;
        Ok(match word.as_str() {
            "{" => self.map()?,
            "[" => self.array()?,
            "uint" => Type::Number((0, u64::MAX)),
            "bool" => Type::Bool,
            "bstr" => Type::Bytes(self.size()?),
            "tstr" => Type::Text(self.size()?),
            word if word.starts_with('"') => Type::Word(word.trim_matches('"').to_owned()),
            word if run(word) == word.len() => Type::Rule(word.to_owned()),
            other => bail!("{other} where a type belongs"),
        })
    }

    fn number_from(&mut self, first: u64) -> Result<Type> {
        let last = if self.takes("..") {
            self.number().context("a range without end")?
        } else {
            first
        };
        Ok(Type::Number((first, last)))
    }

    fn size(&mut self) -> Result<Span> {
        if !self.takes(".size") {
            return Ok((0, u64::MAX));
        }
        if !self.takes("(") {
            let size = self.number().context("a size")?;
            return Ok((size, size));
        }
        let least = self.number().context("a size")?;
        self.expect("..")?;
        let most = self.number().context("a size")?;
        self.expect(")")?;
        Ok((least, most))
    }

    fn map(&mut self) -> Result<Type> {
        let mut fields = Vec::new();
        while !self.takes("}") {
            if !self.takes(EXTENSION) {
                let is_optional = self.takes("?");
                let key = self.number().context("a key that is no number")?;
                self.expect("=>")?;
                let value = self.choice()?;
                fields.push(Field {
                    key,
                    is_optional,
                    value,
                });
            }
            self.takes(",");
        }
        Ok(Type::Map(fields))
    }

    fn array(&mut self) -> Result<Type> {
        let mut items = Vec::new();
        while !self.takes("]") {
            items.push(self.item()?);
            self.takes(",");
        }
        Ok(Type::Array(items))
    }

    /// `* type`, `1*256 type`, `? type`, `name: type`, or a type alone.
    fn item(&mut self) -> Result<(Span, Type)> {
        if self.takes("?") {
            return Ok(((0, 1), self.choice()?));
        }
        let first = self.number();
        if self.takes("*") {
            let most = self.number().unwrap_or(u64::MAX);
            return Ok(((first.unwrap_or(0), most), self.choice()?));
        }
        if let Some(first) = first {
            let mut kinds = vec![self.number_from(first)?];
            while self.takes("/") {
                kinds.push(self.one()?);
            }
            return Ok(((1, 1), Type::Choice(kinds)));
        }
        // A word before a colon is only a name.
        let mut kind = self.choice()?;
        if self.takes(":") {
            kind = self.choice()?;
        }
        Ok(((1, 1), kind))
    }
}

/// Bytes of the word or number at the beginning.
fn run(text: &str) -> usize {
    let is_in = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.find(|c| !is_in(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::parse(
            "; a comment
            thing = { 0 => id, ? 1 => [2*3 uint], 2 => 5 / 7, extension }
            id = bstr .size 2   ; two
            many = [id, name: tstr .size (1..3), ? bool, * thing]
            either = [1, id] / [2 / 3]
            extension = (* uint => any)
            small = 0..9",
        )
        .unwrap()
    }

    #[track_caller]
    fn check(rule: &str, raw: &[u8]) -> String {
        let raw = Bytes::copy_from_slice(raw);
        match schema().check(rule, &raw) {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_map_has_the_listed_keys_and_no_others() {
        assert_eq!(check("thing", &[0xa2, 0, 0x42, 1, 2, 2, 7]), "");
        assert_eq!(
            check("thing", &[0xa3, 0, 0x42, 1, 2, 1, 0x82, 1, 1, 2, 5]),
            ""
        );
        assert_eq!(check("thing", &[0xa1, 2, 7]), "thing: no key 0");
        assert_eq!(
            check("thing", &[0xa3, 0, 0x42, 1, 2, 2, 7, 3, 0]),
            "thing: keys that are not listed: [3]"
        );
        assert_eq!(
            check("thing", &[0xa2, 0, 0x41, 1, 2, 7]),
            "thing: key 0: id: 1 bytes"
        );
        assert_ne!(check("thing", &[0xa2, 0, 0x42, 1, 2, 2, 6]), "");
        assert_ne!(check("thing", &[0xa3, 0, 0x42, 1, 2, 1, 0x81, 1, 2, 7]), "");
        assert_ne!(check("thing", &[0xa2, 0, 0x42, 1, 2, 2, 7, 0]), "");
    }

    #[test]
    fn an_array_has_the_listed_items_in_their_order() {
        let thing = [0xa2, 0, 0x42, 1, 2, 2, 7];
        let with = |head: &[u8]| [head, &thing, &thing].concat();
        assert_eq!(check("many", &[0x82, 0x42, 1, 2, 0x61, b'a']), "");
        assert_eq!(check("many", &with(&[0x84, 0x42, 1, 2, 0x61, b'a'])), "");
        assert_eq!(
            check("many", &with(&[0x85, 0x42, 1, 2, 0x61, b'a', 0xf5])),
            ""
        );
        assert_eq!(check("either", &[0x82, 1, 0x42, 1, 2]), "");
        assert_eq!(check("either", &[0x81, 3]), "");
        assert_ne!(check("either", &[0x81, 1]), "");
        assert_eq!(
            check("many", &[0x83, 0x42, 1, 2, 0x61, b'a', 7]),
            "many: [2] is not listed"
        );
        assert_ne!(check("many", &[0x81, 0x42, 1, 2]), "");
        assert_ne!(check("many", &[0x82, 0x42, 1, 2, 0x60]), "");
    }

    #[test]
    fn a_number_is_within_its_range() {
        assert_eq!(check("small", &[9]), "");
        assert_ne!(check("small", &[10]), "");
    }

    #[test]
    fn the_schema_of_the_protocol_names_only_rules_that_it_has() {
        fn names(kind: &Type, found: &mut Vec<String>) {
            match kind {
                Type::Rule(name) => found.push(name.clone()),
                Type::Map(fields) => fields.iter().for_each(|field| names(&field.value, found)),
                Type::Array(items) => items.iter().for_each(|(_, kind)| names(kind, found)),
                Type::Choice(kinds) => kinds.iter().for_each(|kind| names(kind, found)),
                Type::Number(_) | Type::Bool | Type::Bytes(_) | Type::Text(_) | Type::Word(_) => {}
            }
        }
        let schema = Schema::ccp1().unwrap();

        let mut found = Vec::new();
        schema.0.values().for_each(|kind| names(kind, &mut found));
        found.retain(|name| !schema.0.contains_key(name));

        assert_eq!(found, [""; 0]);
        assert!(schema.0.len() > 70, "{} rules", schema.0.len());
    }
}
