//! `fetchMercurial`, which has a form of its own for what it gives.

use super::{NOWHERE, refused, tree};
use crate::eval::{Coercion, Evaluator};
use crate::failure::{Failure, Result};
use crate::flake_reference::{self, Attributes};
use crate::places::PlaceId;
use crate::show;
use crate::value::{Attribute, Context, Value, View};

/// `fetchMercurial`: an address, or `{ url; rev; name; }`, where `rev` may be a branch, too.
pub(super) fn fetch_mercurial(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let argument = evaluator.force(&arguments[0], NOWHERE)?;
    let mut attributes = Attributes::from([("type".to_owned(), "hg".into())]);
    let address = |value: &Value| -> Result<String> {
        let mut context = Context::new();
        let what = "while evaluating the argument passed to builtins.fetchMercurial";
        let text = evaluator.coerce(value, &mut context, NOWHERE, what, Coercion::PLAIN)?;
        evaluator.refuse_building(&text, &context)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(if text.contains("://") { text } else { format!("file://{text}") })
    };
    match argument.view() {
        View::Set(set) => {
            for (name, value) in show::sorted(evaluator, &set) {
                let text = |what: &str| {
                    let text = evaluator.force_string_without_context(&value, NOWHERE, what)?;
                    Ok::<_, Box<Failure>>(String::from_utf8_lossy(&text.bytes).into_owned())
                };
                match &name[..] {
                    b"url" => _ = attributes.insert("url".to_owned(), address(&value)?.as_str().into()),
                    b"rev" => {
                        let text = text("while evaluating the `rev` attribute passed to builtins.fetchMercurial")?;
                        let name = if flake_reference::is_revision(&text) { "rev" } else { "ref" };
                        attributes.insert(name.to_owned(), text.as_str().into());
                    }
                    b"name" => {
                        let text = text("while evaluating the `name` attribute passed to builtins.fetchMercurial")?;
                        attributes.insert("name".to_owned(), text.as_str().into());
                    }
                    other => {
                        let other = String::from_utf8_lossy(other);
                        return Err(Failure::new(format!("unsupported argument '{other}' to 'fetchMercurial'")));
                    }
                }
            }
            if !attributes.contains_key("url") {
                return Err(Failure::new("'url' argument required"));
            }
        }
        _ => _ = attributes.insert("url".to_owned(), address(&argument)?.as_str().into()),
    }
    let branch = flake_reference::text(&attributes, "ref").map_err(refused)?.map(str::to_owned);
    let tree = tree(evaluator, attributes, false)?;
    // An older form than that of `fetchTree`: short names are longer, and a work tree that was changed has a commit of zeros.
    let View::Set(found) = tree.view() else { return Ok(tree) };
    let symbol = |name: &str| evaluator.symbols.intern(name.as_bytes());
    let kept = ["outPath", "revCount"].into_iter().filter_map(|name| found.get(symbol(name)));
    let mut entries: Vec<Attribute> = kept.map(|entry| Attribute::new(entry.name, entry.value)).collect();
    let revision = match found.get(symbol("rev")) {
        Some(entry) => evaluator.force_string(&entry.value, NOWHERE, "")?.bytes.to_vec(),
        None => vec![b'0'; 40],
    };
    entries.push(Attribute::new(symbol("shortRev"), Value::string(&revision[..12.min(revision.len())])));
    entries.push(Attribute::new(symbol("rev"), Value::string(revision)));
    entries.extend(branch.map(|branch| Attribute::new(symbol("branch"), Value::string(branch))));
    Ok(Value::set(entries))
}
