//! Shows what happens while building, on stderr: bars on a terminal, one plain line per finished step otherwise.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use builder::{Event, Reporter};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::args::building::LogFormat;
use crate::context::Context;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Nothing but notes.
    Quiet,
    /// A line per step.
    Lines,
    /// Bars.
    Bars,
    /// A JSON object for each event.
    Json,
}

impl Style {
    /// What was asked for, else what fits where stderr goes.
    pub fn of(asked: Option<LogFormat>, context: &Context) -> Self {
        match asked {
            _ if context.global.quiet => Self::Quiet,
            Some(LogFormat::Bars) => Self::Bars,
            Some(LogFormat::Lines) => Self::Lines,
            Some(LogFormat::Json) => Self::Json,
            None if context.bars() => Self::Bars,
            None => Self::Lines,
        }
    }
}

/// Shows events, and sums up where the time went.
pub struct Progress {
    style: Style,
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<u64, ProgressBar>,
    overall: Option<ProgressBar>,
    phases: BTreeMap<&'static str, (usize, Duration)>,
}

impl Progress {
    /// Shows in this style.
    pub fn new(style: Style) -> Self {
        Self { style, bars: MultiProgress::new(), state: Mutex::default() }
    }

    /// By phase: how many pieces of work, and their time added up (they overlap).
    pub fn phases(&self) -> BTreeMap<&'static str, (usize, Duration)> {
        self.state.lock().expect("no thread panicked").phases.clone()
    }

    /// Takes all bars away, before something else is printed.
    pub fn finish(&self) {
        let mut state = self.state.lock().expect("no thread panicked");
        for (_, bar) in std::mem::take(&mut state.running) {
            bar.finish_and_clear();
        }
        if let Some(bar) = state.overall.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match self.style {
            Style::Bars => _ = self.bars.println(text),
            // Whoever reads may have gone.
            _ => _ = writeln!(std::io::stderr(), "{text}"),
        }
    }
}

impl Reporter for Progress {
    fn report(&self, event: Event<'_>) {
        if self.style == Style::Json {
            self.line(&record(&event).to_string());
        }
        let mut state = self.state.lock().expect("no thread panicked");
        match event {
            Event::Started { id, phase, what, bytes } if self.style == Style::Bars => {
                let bar = match bytes {
                    Some(bytes) => ProgressBar::new(bytes).with_style(
                        ProgressStyle::with_template("  {prefix:>9} {wide_msg} {bytes:>10}/{total_bytes} {bar:20}")
                            .expect("a fixed template"),
                    ),
                    None => ProgressBar::new_spinner().with_style(
                        ProgressStyle::with_template("  {prefix:>9} {wide_msg} {elapsed:>5}")
                            .expect("a fixed template"),
                    ),
                };
                let bar = self.bars.add(bar.with_prefix(phase).with_message(what.to_owned()));
                bar.enable_steady_tick(Duration::from_millis(200));
                state.running.insert(id, bar);
            }
            Event::Started { .. } => {}
            Event::Advanced { id, bytes } => {
                if let Some(bar) = state.running.get(&id) {
                    bar.set_position(bytes);
                }
            }
            Event::Finished { id, phase, what, took } => {
                let sum = state.phases.entry(phase).or_default();
                *sum = (sum.0 + 1, sum.1 + took);
                if let Some(bar) = state.running.remove(&id) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
                drop(state);
                if self.style == Style::Lines {
                    self.line(&format!("{phase:>9} {what} ({:.1} s)", took.as_secs_f64()));
                }
            }
            Event::Failed { id, phase, what, took } | Event::Stopped { id, phase, what, took } => {
                let ending = if matches!(event, Event::Failed { .. }) { "failed" } else { "stopped" };
                if let Some(bar) = state.running.remove(&id) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
                drop(state);
                if matches!(self.style, Style::Lines | Style::Bars) {
                    self.line(&format!("{ending:>9} {phase} {what} ({:.1} s)", took.as_secs_f64()));
                }
            }
            Event::Waiting { what, process } => {
                drop(state);
                if matches!(self.style, Style::Lines | Style::Bars) {
                    let who = process.map_or("another process".to_owned(), |process| format!("process {process}"));
                    self.line(&format!("     wait {what}: {who} makes it"));
                }
            }
            Event::Progress { done, .. } => {
                if let Some(bar) = &state.overall {
                    bar.set_position(done as u64);
                }
            }
            Event::Planned { steps, .. } => {
                if self.style == Style::Bars && steps > 0 {
                    let template = "  {prefix:>9} {pos}/{len} steps {wide_bar} {elapsed}";
                    let style = ProgressStyle::with_template(template).expect("a fixed template");
                    let bar = ProgressBar::new(steps as u64).with_style(style).with_prefix("build");
                    state.overall = Some(self.bars.insert(0, bar));
                } else if self.style == Style::Lines && steps > 0 {
                    drop(state);
                    self.line(&format!("    build {steps} steps to make"));
                }
            }
            Event::Note(text) => {
                drop(state);
                if self.style != Style::Json {
                    self.line(&format!("     note {text}"));
                }
            }
        }
    }
}

/// An event for programs: `event` says which, the other fields are its own. Times are in seconds.
fn record(event: &Event<'_>) -> serde_json::Value {
    match event {
        Event::Started { id, phase, what, bytes } => {
            json!({ "event": "started", "id": id, "phase": phase, "what": what, "bytes": bytes })
        }
        Event::Advanced { id, bytes } => json!({ "event": "advanced", "id": id, "bytes": bytes }),
        Event::Finished { id, phase, what, took } => {
            json!({ "event": "finished", "id": id, "phase": phase, "what": what, "seconds": took.as_secs_f64() })
        }
        Event::Failed { id, phase, what, took } => {
            json!({ "event": "failed", "id": id, "phase": phase, "what": what, "seconds": took.as_secs_f64() })
        }
        Event::Stopped { id, phase, what, took } => {
            json!({ "event": "stopped", "id": id, "phase": phase, "what": what, "seconds": took.as_secs_f64() })
        }
        Event::Waiting { what, process } => json!({ "event": "waiting", "what": what, "process": process }),
        Event::Progress { done, steps } => json!({ "event": "progress", "done": done, "steps": steps }),
        Event::Planned { steps, known } => json!({ "event": "planned", "steps": steps, "known": known }),
        Event::Note(text) => json!({ "event": "note", "text": text }),
    }
}
