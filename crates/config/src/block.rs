//! The macro that makes a block of settings: its struct, its reader and its rows in the table of
//! keys, all from one list.

/// Declares a block. Each field is written
/// `/// meaning` `name: Type = "default", "lowest" ..= "highest";` with the range optional.
macro_rules! block {
    (
        $(#[doc = $about:literal])+
        $name:ident $block:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident : $kind:ty = $default:literal $(, $low:literal ..= $high:literal)? ;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $kind, )+
        }

        impl $name {
            pub(crate) const SETTINGS: &'static [$crate::reference::Setting] = &[
                $( $crate::reference::Setting {
                    block: $block,
                    name: stringify!($field),
                    kind: <$kind as $crate::value::Value>::KIND,
                    default: $default,
                    default_toml: <$kind as $crate::value::Value>::text_to_toml,
                    range: $crate::block::range!($($low, $high)?),
                    meaning: &[$($doc),+],
                }, )+
            ];

            pub(crate) fn read(
                layers: &$crate::source::Layers,
            ) -> Result<Self, $crate::error::ConfigError> {
                let mut settings = Self::SETTINGS.iter();
                $(
                    let $field = layers.value::<$kind>(settings.next())?;
                    $(
                        layers.check_range(&$field, stringify!($field), $block, ($low, $high))?;
                    )?
                )+
                Ok(Self { $($field),+ })
            }
        }
    };
}

macro_rules! range {
    () => {
        None
    };
    ($low:literal, $high:literal) => {
        Some(($low, $high))
    };
}

pub(crate) use block;
pub(crate) use range;
