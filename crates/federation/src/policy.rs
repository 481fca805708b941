//! Which other domains this one talks to.

/// What the operator decided for domains in general.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    /// Every domain that is not blocked.
    Open,
    /// Those that the configuration names or the operator added.
    Allowlist,
    /// None.
    Closed,
}

/// What is known of one domain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Nothing.
    Unknown,
    /// It asked, and waits for the operator's word.
    Pending,
    /// It was found by discovery, under the policy `open`.
    Discovered,
    /// The configuration names it, or the operator added it.
    Named,
    /// The operator has blocked it.
    Blocked,
}

/// What follows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// This domain talks to it.
    Talk,
    /// It does not, and the operator shall see that it asked.
    Note,
    /// It does not.
    Refuse,
}

impl Policy {
    /// Whether this domain talks to one of that standing: both ways the same.
    #[must_use]
    pub const fn admit(self, standing: Standing) -> Admission {
        match (self, standing) {
            (_, Standing::Blocked) | (Self::Closed, _) | (Self::Allowlist, Standing::Pending) => {
                Admission::Refuse
            }
            (Self::Allowlist, Standing::Unknown | Standing::Discovered) => Admission::Note,
            (Self::Open, _) | (Self::Allowlist, Standing::Named) => Admission::Talk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_talks_to_whom_it_says() {
        const ALL: [Standing; 5] = [
            Standing::Unknown,
            Standing::Pending,
            Standing::Discovered,
            Standing::Named,
            Standing::Blocked,
        ];
        let admitted = |policy: Policy| ALL.map(|standing| policy.admit(standing));
        let (talk, note, refuse) = (Admission::Talk, Admission::Note, Admission::Refuse);

        assert_eq!(admitted(Policy::Open), [talk, talk, talk, talk, refuse]);
        assert_eq!(
            admitted(Policy::Allowlist),
            [note, refuse, note, talk, refuse]
        );
        assert_eq!(admitted(Policy::Closed), [refuse; 5]);
    }
}
