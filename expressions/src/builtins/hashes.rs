//! Hashes.

use super::{Builtin, NOWHERE, builtin};
use crate::Message;
use crate::error::{Finding, Severity};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::nix_hash::{self, HashFormat, NixHash};
use crate::places::PlaceId;
use crate::value::Value;

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("hashString", 2, hash_string),
    builtin("hashFile", 2, hash_file),
    builtin("convertHash", 1, convert_hash),
];

fn algorithm(evaluator: &Evaluator, value: &Value, what: &str) -> Result<nix_hash::HashAlgorithm> {
    let name = evaluator.force_string_without_context(value, NOWHERE, what)?;
    nix_hash::parse_algorithm(&name.bytes).map_err(|error| Failure::new(error.to_string()))
}

fn hash_string(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.hashString";
    let algorithm = algorithm(evaluator, &arguments[0], what)?;
    let what = "while evaluating the second argument passed to builtins.hashString";
    let text = evaluator.force_string(&arguments[1], NOWHERE, what)?;
    Ok(Value::string(NixHash::of(algorithm, &text.bytes).to_text(HashFormat::Base16, false)))
}

fn hash_file(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.hashFile";
    let algorithm = algorithm(evaluator, &arguments[0], what)?;
    let path = evaluator.coerce_to_readable(&arguments[1], NOWHERE)?;
    let bytes = super::files::read(evaluator, &path)?;
    Ok(Value::string(NixHash::of(algorithm, &bytes).to_text(HashFormat::Base16, false)))
}

fn convert_hash(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.convertHash";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let symbol = |name: &str| evaluator.symbols.intern(name.as_bytes());
    let hash = super::sets::wanted(evaluator, &set, symbol("hash"), "while locating the attribute 'hash'")?;
    let hash = evaluator.force_string_without_context(&hash.value, NOWHERE, "while evaluating the attribute 'hash'")?;
    let expected = match set.get(symbol("hashAlgo")) {
        Some(attribute) => Some(algorithm(evaluator, &attribute.value, "while evaluating the attribute 'hashAlgo'")?),
        None => None,
    };
    let context = "while locating the attribute 'toHashFormat'";
    let format = super::sets::wanted(evaluator, &set, symbol("toHashFormat"), context)?;
    let what = "while evaluating the attribute 'toHashFormat'";
    let format = evaluator.force_string_without_context(&format.value, NOWHERE, what)?;
    let failed = |error: nix_hash::HashError| Failure::new(error.to_string());
    if format.bytes == b"base32" {
        let message = "\"base32\" is a deprecated alias for hash format \"nix32\".".to_owned();
        let (severity, trace) = (Severity::Warning, Vec::new());
        evaluator.say(Message::Warning(Finding { severity, message, place: None, trace, hint: None }));
    }
    let format = HashFormat::parse(&format.bytes).map_err(failed)?;
    let hash = NixHash::parse(&hash.bytes, expected).map_err(failed)?;
    Ok(Value::string(hash.to_text(format, format == HashFormat::Sri)))
}
