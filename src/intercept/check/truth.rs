//! Three-valued logic for packets of which only a part is known.

/// Whether a condition holds for mail of an arbitrary client from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    No,
    Yes,
    /// It depends on the client, such as on its address.
    SomeClients,
    /// It could not be evaluated.
    Unknown,
}

impl Truth {
    pub(super) const fn of(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }

    pub(super) const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            undecided => undecided,
        }
    }

    pub(super) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::SomeClients, _) | (_, Self::SomeClients) => Self::SomeClients,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }

    pub(super) const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::SomeClients, _) | (_, Self::SomeClients) => Self::SomeClients,
            (Self::No, Self::No) => Self::No,
        }
    }

    pub(super) fn any(values: impl IntoIterator<Item = Self>) -> Self {
        values.into_iter().fold(Self::No, Self::or)
    }

    pub(super) fn all(values: impl IntoIterator<Item = Self>) -> Self {
        values.into_iter().fold(Self::Yes, Self::and)
    }
}
