//! `forge graph`: the steps that led to a formation, and what each needs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use builder::why::step_name;
use serde_json::json;
use store::directory::Record;

use crate::args::building::{GraphArguments, GraphFormat};
use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;

/// `forge graph`
pub fn run(arguments: &GraphArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let id = store.find(&arguments.formation)?;
    let (name, record) = (store.formation(id)?.name, store.record(id)?);
    let format = if context.global.json { GraphFormat::Json } else { arguments.format };
    super::print(&match format {
        GraphFormat::Dot => dot(&name, &record),
        GraphFormat::Mermaid => mermaid(&name, &record),
        GraphFormat::Json => {
            let steps: Vec<_> = record
                .steps
                .iter()
                .map(|step| {
                    json!({
                        "derivation": step.derivation,
                        "name": step_name(&step.derivation),
                        "builder": step.builder,
                        "inputs": step.inputs,
                    })
                })
                .collect();
            let graph = json!({ "schema": 1, "id": id.to_string(), "name": name, "steps": steps });
            format!("{}\n", serde_json::to_string_pretty(&graph).expect("a JSON value has a text"))
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Numbers for the steps, what each is called, and which needs which.
struct Graph<'a> {
    nodes: Vec<(&'a str, &'a str)>,
    edges: Vec<(usize, usize)>,
    /// Steps that no other uses: the layers.
    tops: Vec<usize>,
}

fn graph(record: &Record) -> Graph<'_> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut nodes = Vec::new();
    for step in &record.steps {
        numbers.insert(&step.derivation, nodes.len());
        nodes.push((step_name(&step.derivation), step.builder.as_str()));
    }
    for source in record.steps.iter().flat_map(|step| &step.inputs) {
        numbers.entry(source).or_insert_with(|| {
            nodes.push((step_name(source), "source"));
            nodes.len() - 1
        });
    }
    let edges: Vec<(usize, usize)> = record
        .steps
        .iter()
        .flat_map(|step| step.inputs.iter().map(|input| (numbers[step.derivation.as_str()], numbers[input.as_str()])))
        .collect();
    let mut used = vec![false; nodes.len()];
    edges.iter().for_each(|(_, to)| used[*to] = true);
    let tops = (0..nodes.len()).filter(|node| !used[*node]).collect();
    Graph { nodes, edges, tops }
}

fn dot(name: &str, record: &Record) -> String {
    let graph = graph(record);
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!("digraph {} {{\n  rankdir = LR;\n  node [shape = box];\n", quoted(name));
    let _ = writeln!(text, "  goal [label = {}, shape = oval];", quoted(name));
    for (number, (name, builder)) in graph.nodes.iter().enumerate() {
        let style = if *builder == "source" { ", style = dashed" } else { "" };
        let _ = writeln!(text, "  n{number} [label = {}, tooltip = {}{style}];", quoted(name), quoted(builder));
    }
    for top in &graph.tops {
        let _ = writeln!(text, "  goal -> n{top};");
    }
    for (from, to) in &graph.edges {
        let _ = writeln!(text, "  n{from} -> n{to};");
    }
    text.push_str("}\n");
    text
}

fn mermaid(name: &str, record: &Record) -> String {
    let graph = graph(record);
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "#quot;"));
    let mut text = format!("flowchart LR\n  goal([{}])\n", quoted(name));
    for (number, (name, builder)) in graph.nodes.iter().enumerate() {
        let (open, close) = if *builder == "source" { ("[/", "/]") } else { ("[", "]") };
        let _ = writeln!(text, "  n{number}{open}{}{close}", quoted(name));
    }
    for top in &graph.tops {
        let _ = writeln!(text, "  goal --> n{top}");
    }
    for (from, to) in &graph.edges {
        let _ = writeln!(text, "  n{from} --> n{to}");
    }
    text
}
