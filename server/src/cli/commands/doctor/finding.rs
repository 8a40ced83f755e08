//! What a check found.

use serde_json::json;

use crate::cli::exit::Result;
use crate::cli::output::{Cell, Form, Listing, Output};

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grade {
    Ok,
    Warn,
    Fail,
}

impl Grade {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The worst of two limits that `value` passes.
    pub(super) fn above<T: PartialOrd + Copy>(value: T, warn: T, fail: T) -> Self {
        if value > fail {
            Self::Fail
        } else if value > warn {
            Self::Warn
        } else {
            Self::Ok
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    /// What was looked at.
    pub(super) check: &'static str,
    /// What was seen, with numbers.
    pub(super) seen: String,
    /// What to do about it; empty where nothing is to be done.
    pub(super) advice: String,
}

impl Finding {
    pub(super) fn new(grade: Grade, check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = if grade == Grade::Ok { String::new() } else { advice.into() };
        Self { grade, check, seen: seen.into(), advice }
    }

    pub(super) fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(Grade::Ok, check, seen, "")
    }
}

/// Prints the findings in the form of the output.
pub(super) fn print(findings: &[Finding], out: &mut Output) -> Result<()> {
    if out.form == Form::Json {
        for finding in findings {
            let Finding { grade, check, seen, advice } = finding;
            out.json(&json!({"grade": grade.word(), "check": check, "seen": seen, "advice": advice}))?;
        }
        return Ok(());
    }
    let text = listing(findings);
    Ok(out.listing(&text)?)
}

pub(super) fn listing(findings: &[Finding]) -> Listing {
    let mut listing = Listing::new(&["GRADE", "CHECK", "SEEN", "WHAT TO DO"]).wrapping("WHAT TO DO", 4);
    for Finding { grade, check, seen, advice } in findings {
        listing.row(vec![Cell::text(grade.word()), Cell::text(*check), Cell::text(seen), Cell::text(advice)]);
    }
    listing
}
