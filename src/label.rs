//! Closed sets of labels: enums of which each variant has one word, the same in metrics, logs, JSON and the configuration.

/// Declares such an enum, with `ALL`, `as_str`, `index`, `Display` and both serde traits.
///
/// Attributes pass through, so that `#[derive(Default)]` with `#[default]`, or `#[serde(alias = "…")]` for a word that
/// older versions wrote, work as usual. Variants are ordered as they are listed.
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        $vis enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)+
        }

        #[allow(dead_code, reason = "not every set is iterated, indexed or printed")]
        impl $name {
            $vis const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Position in [`Self::ALL`].
            $vis const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use labels;

#[cfg(test)]
mod tests {
    labels! {
        #[derive(Default)]
        enum Colour {
            #[default]
            Red = "red",
            /// Two words.
            #[serde(alias = "dark_green")]
            DarkGreen = "dark-green",
        }
    }

    #[test]
    fn a_label_is_one_word_everywhere() {
        assert_eq!(Colour::ALL, [Colour::default(), Colour::DarkGreen]);
        for (index, label) in Colour::ALL.into_iter().enumerate() {
            assert_eq!(label.index(), index);
            assert_eq!(label.to_string(), label.as_str());
            let json = serde_json::to_string(&label).unwrap();
            assert_eq!(json, format!("\"{label}\""));
            assert_eq!(serde_json::from_str::<Colour>(&json).unwrap(), label);
        }
        assert_eq!(serde_json::from_str::<Colour>("\"dark_green\"").unwrap(), Colour::DarkGreen);
        assert_eq!(format!("{:>5}", Colour::Red), "  red");
    }
}
