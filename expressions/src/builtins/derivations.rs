//! `derivationStrict`: from attributes to a derivation with its names, exactly as Nix gives them.

use std::collections::{BTreeMap, BTreeSet};

use store::StorePath;
use store::derivation::{Derivation, FixedOutput, Output};

use super::{Builtin, NOWHERE, builtin, to_json};
use crate::Message;
use crate::error::{Finding, Severity, Step};
use crate::eval::{Coercion, Evaluator};
use crate::failure::{Failure, Result};
use crate::nix_hash::{self, HashAlgorithm, NixHash};
use crate::places::PlaceId;
use crate::show;
use crate::store_path;
use crate::symbols::known;
use crate::value::{Attribute, Bytes, Context, Reference, Set, Value, View};

pub(super) static BUILTINS: &[Builtin] = &[builtin("derivationStrict", 1, derivation_strict)];

fn derivation_strict(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.derivationStrict";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let context = "in the attrset passed as argument to builtins.derivationStrict";
    let attribute = super::sets::wanted(evaluator, &set, known::NAME, context)?;
    let what = "while evaluating the `name` attribute passed to builtins.derivationStrict";
    let name = evaluator
        .force_string_without_context(&attribute.value, NOWHERE, what)
        .map_err(|failure| failure.during(attribute.place, "while evaluating the derivation attribute 'name'"))?;
    let name = String::from_utf8_lossy(&name.bytes).into_owned();
    describe(evaluator, &name, &set).map_err(|failure| {
        let place = evaluator.place_text(attribute.place);
        let text = format!("while evaluating derivation '{name}'\n  whose name attribute is located at {place}");
        failure.during_always(NOWHERE, text)
    })
}

/// What the attributes say, before it is a derivation.
struct Description<'a> {
    evaluator: &'a Evaluator,
    derivation: Derivation,
    context: Context,
    /// Attributes as JSON, by name, where they are passed so.
    structured: Option<BTreeMap<Bytes, Vec<u8>>>,
    hash: Option<Vec<u8>>,
    algorithm: Option<HashAlgorithm>,
    recursive: Option<bool>,
    floating: bool,
    outputs: BTreeSet<String>,
}

fn describe(evaluator: &Evaluator, name: &str, set: &Set) -> Result<Value> {
    if let Err(error) = store_path::check_name(name.as_bytes()) {
        return Err(Failure::new(format!("invalid derivation name: {error}. Please pass a different 'name'.")));
    }
    let flag = |attribute: &str| match evaluator.symbols.find(attribute.as_bytes()).and_then(|name| set.get(name)) {
        Some(entry) => {
            let what = format!("while evaluating the `{attribute}` attribute passed to builtins.derivationStrict");
            evaluator.force_boolean(&entry.value, NOWHERE, &what)
        }
        None => Ok(false),
    };
    let structured = flag("__structuredAttrs")?.then(BTreeMap::new);
    let ignore_nulls = flag("__ignoreNulls")?;
    let derivation = Derivation {
        name: name.to_owned(),
        outputs: BTreeMap::new(),
        input_derivations: BTreeMap::new(),
        input_sources: BTreeSet::new(),
        system: Vec::new(),
        builder: Vec::new(),
        arguments: Vec::new(),
        environment: BTreeMap::new(),
    };
    let mut description = Description {
        evaluator,
        derivation,
        context: Context::new(),
        structured,
        hash: None,
        algorithm: None,
        recursive: None,
        floating: false,
        outputs: BTreeSet::from(["out".to_owned()]),
    };
    let mut sorted: Vec<_> = set.iter().map(|entry| (evaluator.symbols.bytes(entry.name), entry)).collect();
    sorted.sort_by_key(|left| left.0);
    for (key, entry) in sorted {
        if &key[..] == b"__ignoreNulls" {
            continue;
        }
        description.attribute(key, &entry.value, entry.place, ignore_nulls).map_err(|failure| {
            let key = String::from_utf8_lossy(&key);
            failure.during(entry.place, format!("while evaluating attribute '{key}' of derivation '{name}'"))
        })?;
    }
    description.finish()
}

impl Description<'_> {
    fn attribute(&mut self, key: Bytes, value: &Value, place: PlaceId, ignore_nulls: bool) -> Result<()> {
        let evaluator = self.evaluator;
        if ignore_nulls && evaluator.force(value, NOWHERE)? == Value::NULL {
            return Ok(());
        }
        match &key[..] {
            b"__contentAddressed" => {
                self.floating |= evaluator.force_boolean(value, NOWHERE, "")?;
            }
            b"__impure" if evaluator.force_boolean(value, NOWHERE, "")? => {
                return Err(Failure::new("derivations that give something else each time are not supported"));
            }
            b"__impure" => {}
            b"args" => {
                for item in evaluator.force_list(value, NOWHERE, "")?.iter() {
                    let what = "while evaluating an element of the argument list";
                    let coercion = Coercion::ENVIRONMENT;
                    let argument = evaluator.coerce(&item, &mut self.context, NOWHERE, what, coercion)?;
                    self.derivation.arguments.push(argument);
                }
            }
            _ if self.structured.is_some() => self.structured_attribute(key, value, place)?,
            _ => {
                let text = evaluator.coerce(value, &mut self.context, NOWHERE, "", Coercion::ENVIRONMENT)?;
                self.setting(&key, &text)?;
                if &key[..] == b"outputs" {
                    let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                    self.set_outputs(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())?;
                }
                self.derivation.environment.insert(key.to_vec(), text);
            }
        }
        Ok(())
    }

    fn structured_attribute(&mut self, key: Bytes, value: &Value, place: PlaceId) -> Result<()> {
        let evaluator = self.evaluator;
        if &key[..] == b"__structuredAttrs" {
            return Ok(());
        }
        let json = to_json(evaluator, value, NOWHERE, &mut self.context, true)?;
        if let Some(structured) = &mut self.structured {
            structured.insert(key, json);
        }
        match &key[..] {
            b"builder" => {
                let text = evaluator.force_string_into(value, &mut self.context, NOWHERE, "")?;
                self.setting(&key, &text.bytes)?;
            }
            b"system" | b"outputHash" | b"outputHashAlgo" | b"outputHashMode" => {
                let text = evaluator.force_string_without_context(value, NOWHERE, "")?;
                self.setting(&key, &text.bytes)?;
            }
            b"outputs" => {
                let mut outputs = Vec::new();
                for item in evaluator.force_list(value, NOWHERE, "")?.iter() {
                    let output = evaluator.force_string_without_context(&item, NOWHERE, "")?;
                    outputs.push(String::from_utf8_lossy(&output.bytes).into_owned());
                }
                self.set_outputs(outputs)?;
            }
            b"allowedReferences"
            | b"allowedRequisites"
            | b"disallowedReferences"
            | b"disallowedRequisites"
            | b"maxClosureSize"
            | b"maxSize" => self.warn_of_no_effect(&String::from_utf8_lossy(&key), place),
            _ => {}
        }
        Ok(())
    }

    /// Structured attributes have another place for what is to hold of outputs.
    fn warn_of_no_effect(&self, key: &str, place: PlaceId) {
        let message = format!(
            "'structuredAttrs' disables the effect of the derivation attribute '{key}'; use 'outputChecks.<output>.{key}' instead"
        );
        let what = format!("while evaluating derivation '{}'", self.derivation.name);
        self.evaluator.say(Message::Warning(Finding {
            severity: Severity::Warning,
            message,
            place: self.evaluator.places.get(place),
            trace: vec![Step { what, place: None, own: true }],
            hint: None,
        }));
    }

    fn setting(&mut self, key: &[u8], text: &[u8]) -> Result<()> {
        match key {
            b"builder" => self.derivation.builder = text.to_vec(),
            b"system" => self.derivation.system = text.to_vec(),
            b"outputHash" => self.hash = Some(text.to_vec()),
            // One that is not known is as good as none: the hash may say itself.
            b"outputHashAlgo" => self.algorithm = nix_hash::parse_algorithm(text).ok(),
            b"outputHashMode" => {
                self.recursive = Some(match text {
                    b"recursive" | b"nar" => true,
                    b"flat" => false,
                    _ => {
                        let mode = String::from_utf8_lossy(text);
                        let message = format!("invalid value '{mode}' for 'outputHashMode' attribute");
                        return Err(Failure::new(message));
                    }
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn set_outputs(&mut self, outputs: Vec<String>) -> Result<()> {
        self.outputs.clear();
        for output in outputs {
            if output == "drvPath" {
                return Err(Failure::new("invalid derivation output name 'drvPath'"));
            }
            if let Some(output) = self.outputs.replace(output) {
                return Err(Failure::new(format!("duplicate derivation output '{output}'")));
            }
        }
        if self.outputs.is_empty() {
            return Err(Failure::new("derivation cannot have an empty set of outputs"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Value> {
        if let Some(structured) = self.structured.take() {
            let mut text = b"{".to_vec();
            for (number, (key, json)) in structured.iter().enumerate() {
                text.extend_from_slice(if number > 0 { b"," } else { b"" });
                let key = Value::string(&key[..]);
                text.extend(to_json(self.evaluator, &key, NOWHERE, &mut Context::new(), false)?);
                text.push(b':');
                text.extend_from_slice(json);
            }
            text.push(b'}');
            self.derivation.environment.insert(b"__json".to_vec(), text);
        }
        self.inputs()?;
        for (name, text) in [("builder", &self.derivation.builder), ("system", &self.derivation.system)] {
            if text.is_empty() {
                return Err(Failure::new(format!("required attribute '{name}' missing")));
            }
        }
        if self.derivation.name.ends_with(".drv") {
            let message = "derivation names are allowed to end in '.drv' only if they produce a single derivation file";
            return Err(Failure::new(message));
        }
        self.name_outputs()?;
        let mut derivation = self.derivation;
        let mut registry = self.evaluator.registry.borrow_mut();
        let path = registry.add(&mut derivation).map_err(|error| Failure::new(error.to_string()))?;
        let symbol = |name: &str| self.evaluator.symbols.intern(name.as_bytes());
        let closure = Context::from([Reference::Closure(path.clone())]);
        let mut entries = vec![Attribute::new(known::DRV_PATH, Value::string_with(path.as_str(), closure))];
        for (name, output) in &derivation.outputs {
            let context = Context::from([Reference::Output(path.clone(), name.clone())]);
            let text = match &output.path {
                Some(path) => path.to_string(),
                None => store_path::upstream_placeholder(&path, name),
            };
            entries.push(Attribute::new(symbol(name), Value::string_with(text, context)));
        }
        Ok(Value::set(entries))
    }

    /// What the strings refer to becomes what the derivation uses.
    fn inputs(&mut self) -> Result<()> {
        for reference in self.context.references() {
            match &*reference {
                Reference::Path(path) => _ = self.derivation.input_sources.insert(path.clone()),
                Reference::Output(path, output) => {
                    self.derivation.input_derivations.entry(path.clone()).or_default().insert(output.clone());
                }
                Reference::Closure(path) => {
                    let registry = self.evaluator.registry.borrow();
                    for path in registry.closure(path) {
                        if let Some(derivation) = registry.derivation(&path) {
                            let outputs = self.derivation.input_derivations.entry(path.clone()).or_default();
                            outputs.extend(derivation.outputs.into_keys());
                        }
                        self.derivation.input_sources.insert(path);
                    }
                }
            }
        }
        let registry = self.evaluator.registry.borrow();
        for path in self.derivation.input_derivations.keys() {
            if !registry.is_derivation(path) {
                return Err(Failure::new(format!("derivation '{path}' is not made by this expression")));
            }
        }
        Ok(())
    }

    fn name_outputs(&mut self) -> Result<()> {
        let failed = |error: nix_hash::HashError| Failure::new(error.to_string());
        let fixed = match &self.hash {
            Some(text) => {
                if self.outputs.len() != 1 || !self.outputs.contains("out") {
                    return Err(Failure::new("multiple outputs are not supported in fixed-output derivations"));
                }
                let hash = NixHash::parse_or_zeros(text, self.algorithm).map_err(failed)?;
                let (algorithm, recursive) = (hash.algorithm(), self.recursive.unwrap_or(false));
                Some(FixedOutput { recursive, algorithm, hash: hash.into_bytes() })
            }
            None if self.floating => Some(FixedOutput {
                recursive: self.recursive.unwrap_or(true),
                algorithm: self.algorithm.unwrap_or(HashAlgorithm::Sha256),
                hash: Vec::new(),
            }),
            None => None,
        };
        let outputs = self.outputs.iter().map(|name| (name.clone(), Output { path: None, fixed: fixed.clone() }));
        self.derivation.outputs = outputs.collect();
        Ok(())
    }
}

/// A derivation of the evaluation, by its set; for the plan.
pub fn derivation_path(evaluator: &Evaluator, value: &Value) -> Result<StorePath> {
    let value = evaluator.force(value, NOWHERE)?;
    let set = match value.view() {
        View::Set(set) if evaluator.is_derivation(&value)? => set,
        _ => {
            return Err(Failure::new(format!(
                "expected a derivation but found {}: {}",
                value.kind(),
                show::for_error(evaluator, &value)
            )));
        }
    };
    let path = super::sets::wanted(evaluator, &set, known::DRV_PATH, "in a derivation")?;
    let text = evaluator.force_string(&path.value, path.place, "while evaluating the path of a derivation")?;
    let text = String::from_utf8_lossy(&text.bytes);
    let known = StorePath::parse(&text).filter(|path| evaluator.registry.borrow().is_derivation(path));
    known.ok_or_else(|| Failure::new(format!("'{text}' is no derivation that this expression made")))
}
