//! `forge explain`: why a step was made or not.

use std::fmt::Write as _;

use builder::explain::{Change, Explanation, Reason, explain, explain_all};
use builder::journal::{Entry, Happened};
use builder::key::Fact;
use serde_json::{Value, json};

use crate::args::building::ExplainArguments;
use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::names;

/// `forge explain`
pub fn run(arguments: &ExplainArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let mut explanations = explain(&store, &arguments.step)?;
    if explanations.is_empty() {
        let Some(steps) = names::steps_of(&store, &arguments.step)? else {
            return Err(names::unknown(&arguments.step));
        };
        explanations = explain_all(&store, &steps)?;
    } else {
        // Of several steps of one name the last one, and what it was made from as far as that has the same name: what a step keeps
        // is a step of its own.
        let mut others = explanations.split_off(1);
        while let Some(next) = explanations.last().and_then(|last| source(last, &others)) {
            explanations.push(others.remove(next));
        }
    }
    if context.global.json {
        let records: Vec<Value> = explanations.iter().map(record).collect();
        super::print_json(&json!({ "schema": 1, "steps": records }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for explanation in &explanations {
        words(&mut text, explanation, arguments.all);
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Which of other steps made the first thing that changed.
fn source(explanation: &Explanation, others: &[Explanation]) -> Option<usize> {
    let Reason::Changed { changes, .. } = &explanation.reason else { return None };
    let Fact { value, .. } = changes.first()?.after.as_ref()?;
    others.iter().position(|other| other.entry.outputs.values().any(|output| output == value))
}

fn words(text: &mut String, explanation: &Explanation, all: bool) {
    let Explanation { entry, reason } = explanation;
    let happened = match entry.happened {
        Happened::Built => format!("made in {:.1} s", entry.took as f64 / 1000.0),
        Happened::Known => "not made".to_owned(),
        Happened::Failed => "failed".to_owned(),
    };
    let _ = writeln!(text, "{}: {happened}, {}", entry.name, ago(entry.time));
    let why = match reason {
        Reason::First => "no earlier build of such a step is remembered".to_owned(),
        Reason::Gone { nearest } => {
            format!("the same was made {}, and what it gave had gone from the store", ago(nearest.time))
        }
        Reason::Retried { nearest } => format!("the same failed {}, and was tried again", ago(nearest.time)),
        Reason::Known { source: Some(source) } => {
            format!("`{}`, made {}, had the same inputs by content", source.name, ago(source.time))
        }
        Reason::Known { source: None } => "a step with the same inputs by content had been made".to_owned(),
        Reason::Changed { nearest, changes } if changes.is_empty() => {
            format!("of the same as `{}`, {}, as far as is remembered", nearest.name, ago(nearest.time))
        }
        Reason::Changed { nearest, changes } => {
            let shown = if all { changes.len() } else { 1 };
            let mut why = format!("against `{}`, {}:", nearest.name, ago(nearest.time));
            for change in &changes[..shown] {
                why.push_str(&change_words(change));
            }
            if changes.len() > shown {
                let _ = write!(why, "\n    and {} more (--all)", changes.len() - shown);
            }
            why
        }
    };
    let _ = writeln!(text, "  {why}");
}

fn change_words(change: &Change) -> String {
    let shown = |fact: &Option<Fact>| match fact {
        Some(Fact { value, from: Some(from), .. }) => format!("{value} ({})", builder::why::step_name(from)),
        Some(Fact { value, .. }) => value.clone(),
        None => "nothing".to_owned(),
    };
    format!("\n    {}\n      - {}\n      + {}", change.label, shown(&change.before), shown(&change.after))
        .replace("\n\n", "\n")
}

/// How long ago a time was.
fn ago(time: u64) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(time, |since| since.as_secs());
    match now.saturating_sub(time) {
        0..60 => "just now".to_owned(),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

fn record(explanation: &Explanation) -> Value {
    let brief = |entry: &Entry| json!({ "derivation": entry.derivation, "name": entry.name, "time": entry.time });
    let (reason, nearest, changes) = match &explanation.reason {
        Reason::First => ("first", None, Vec::new()),
        Reason::Gone { nearest } => ("gone", Some(nearest), Vec::new()),
        Reason::Retried { nearest } => ("retried", Some(nearest), Vec::new()),
        Reason::Known { source } => ("known", source.as_ref(), Vec::new()),
        Reason::Changed { nearest, changes } => ("changed", Some(nearest), changes.clone()),
    };
    let change = |change: &Change| json!({ "label": change.label, "before": change.before, "after": change.after });
    json!({
        "derivation": explanation.entry.derivation,
        "name": explanation.entry.name,
        "happened": explanation.entry.happened,
        "time": explanation.entry.time,
        "milliseconds": explanation.entry.took,
        "reason": reason,
        "nearest": nearest.map(|entry| brief(entry)),
        "changes": changes.iter().map(change).collect::<Vec<_>>(),
        "facts": explanation.entry.facts,
        "outputs": explanation.entry.outputs,
    })
}
