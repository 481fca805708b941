//! What a check finds.

use serde::Serialize;

/// How a check went.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Ok,
    Warn,
    Fail,
    Skip,
}

impl Outcome {
    const fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok  ",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    name: &'static str,
    outcome: Outcome,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Ok,
            detail: detail.into(),
            hint: None,
        }
    }

    pub(super) fn skip(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Skip,
            detail: detail.into(),
            hint: None,
        }
    }

    pub(super) fn warn(
        name: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let hint = Some(hint.into());
        Self {
            name,
            outcome: Outcome::Warn,
            detail: detail.into(),
            hint,
        }
    }

    pub(super) fn fail(
        name: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let hint = Some(hint.into());
        Self {
            name,
            outcome: Outcome::Fail,
            detail: detail.into(),
            hint,
        }
    }
}

/// All checks, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Checks(Vec<Check>);

/// The form for programs.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    checks: &'a [Check],
    failed: usize,
    warned: usize,
}

impl Checks {
    pub(super) fn push(&mut self, check: Check) {
        self.0.push(check);
    }

    pub(super) fn failed(&self) -> usize {
        self.count(Outcome::Fail)
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.0
            .iter()
            .filter(|check| check.outcome == outcome)
            .count()
    }

    pub(super) fn shown(&self) -> Shown<'_> {
        Shown {
            checks: &self.0,
            failed: self.failed(),
            warned: self.count(Outcome::Warn),
        }
    }

    pub(super) fn text(&self) -> String {
        let width = self
            .0
            .iter()
            .map(|check| check.name.len())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for check in &self.0 {
            let (mark, name) = (check.outcome.mark(), check.name);
            text.push_str(&format!("{mark}  {name:<width$}  {}\n", check.detail));
            if let Some(hint) = &check.hint {
                text.push_str(&format!("      {:<width$}  Hint: {hint}\n", ""));
            }
        }
        let (failed, warned) = (self.failed(), self.count(Outcome::Warn));
        text.push_str(&format!(
            "\n{} checks, {failed} failed, {warned} warned\n",
            self.0.len()
        ));
        text
    }
}
