//! What counts as a string or path, and what a string then refers to.

use std::path::Path;

use store::StorePath;
use store::derivation::Source;

use super::Evaluator;
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::symbols::known;
use crate::value::{Context, Reference, Value, View};
use crate::{heap, paths, show, store_path, text};

/// `<nix/fetchurl.nix>`, which is in no directory.
pub const FETCHURL_PATH: &[u8] = b"/<nix/fetchurl.nix>";

/// A download as a derivation, with the attributes that Nix gives it, so that its name is the same.
const FETCHURL: &[u8] = include_bytes!("../builtins/fetchurl.nix");

/// How generous a coercion is.
#[derive(Clone, Copy)]
pub struct Coercion {
    /// Numbers, Booleans, null and lists count, too (`toString`).
    pub more: bool,
    /// A path becomes a source in the store.
    pub copy: bool,
    /// A path loses the slash at its end.
    pub normal: bool,
}

impl Coercion {
    /// As in `"${value}"`.
    pub const INTERPOLATION: Self = Self { more: false, copy: true, normal: true };
    /// As `toString` does it.
    pub const TO_STRING: Self = Self { more: true, copy: false, normal: true };
    /// As derivations do it with their attributes.
    pub const ENVIRONMENT: Self = Self { more: true, copy: true, normal: true };
    /// Strings and paths as they are.
    pub const PLAIN: Self = Self { more: false, copy: false, normal: true };
}

impl Evaluator {
    /// The string that a value counts as.
    pub fn coerce(
        &self,
        value: &Value,
        context: &mut Context,
        place: PlaceId,
        what: &str,
        coercion: Coercion,
    ) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.coerce_onto(&mut bytes, value, context, place, what, coercion)?;
        Ok(bytes)
    }

    /// Appends the string that a value counts as.
    pub fn coerce_onto(
        &self,
        bytes: &mut Vec<u8>,
        value: &Value,
        context: &mut Context,
        place: PlaceId,
        what: &str,
        coercion: Coercion,
    ) -> Result<()> {
        heap::check_room(bytes.len());
        if let View::String(text) = value.known().view() {
            context.add(text.context);
            bytes.extend_from_slice(&text.bytes);
            return Ok(());
        }
        let _depth = self.deeper(place)?;
        let value = self.force(value, place)?;
        match (value.view(), coercion) {
            (View::String(text), _) => {
                bytes.extend_from_slice(&text.bytes);
                context.add(text.context);
            }
            (View::Path(path), Coercion { copy: true, .. }) => {
                let path = self.copy_to_store(&path, context)?;
                bytes.extend_from_slice(path.as_str().as_bytes());
            }
            (View::Path(path), Coercion { normal: false, .. }) => bytes.extend_from_slice(&path),
            (View::Path(path), _) => bytes.extend(paths::normal(&path)),
            (View::Set(_), _) => {
                let coercion = Coercion { normal: true, ..coercion };
                self.peel(&value, place, false, &mut |peeled, _| match peeled.view() {
                    View::Set(_) => Err(self.no_string(peeled, place, what)),
                    _ => self.coerce_onto(bytes, peeled, context, place, what, coercion),
                })?;
            }
            (View::Boolean(true), Coercion { more: true, .. }) => bytes.push(b'1'),
            (View::Boolean(false) | View::Null, Coercion { more: true, .. }) => {}
            (View::Integer(integer), Coercion { more: true, .. }) => {
                bytes.extend_from_slice(text::Decimal::new(integer).as_ref())
            }
            (View::Float(float), Coercion { more: true, .. }) => {
                bytes.extend(text::float_fixed(float).into_bytes());
            }
            (View::List(list), Coercion { more: true, .. }) => {
                for (number, item) in list.iter().enumerate() {
                    let element = "while evaluating one element of the list";
                    self.coerce_onto(bytes, &item, context, place, element, coercion)
                        .map_err(|failure| failure.during(place, what))?;
                    let empty = matches!(item.known().view(), View::List(list) if list.is_empty());
                    if number + 1 < list.len() && !empty {
                        bytes.push(b' ');
                    }
                }
            }
            _ => return Err(self.no_string(&value, place, what)),
        }
        Ok(())
    }

    #[cold]
    fn no_string(&self, value: &Value, place: PlaceId, what: &str) -> Box<Failure> {
        let message = format!("cannot coerce {} to a string: {}", value.kind(), show::for_error(self, value));
        Failure::new(message).during(place, what)
    }

    /// The absolute path that a value counts as.
    pub fn coerce_to_path(&self, value: &Value, context: &mut Context, place: PlaceId, what: &str) -> Result<Vec<u8>> {
        self.peel(value, place, false, &mut |peeled, _| {
            if let View::Path(path) = peeled.view() {
                return Ok(paths::normal(&path));
            }
            let path = self.coerce(peeled, context, place, what, Coercion::PLAIN)?;
            if path.first() == Some(&b'/') {
                return Ok(paths::normal(&path));
            }
            let shown = String::from_utf8_lossy(&path);
            Err(Failure::new(format!("string '{shown}' doesn't represent an absolute path")).during(place, what))
        })
    }

    /// Goes from a set to what it counts as, by way of `__toString` and `outPath`, as far as that leads, and on with what is
    /// there then; `then` also hears whether `__toString` came in between. With `check`, that must have given a string.
    pub fn peel<T>(
        &self,
        value: &Value,
        place: PlaceId,
        check: bool,
        then: &mut dyn FnMut(&Value, bool) -> Result<T>,
    ) -> Result<T> {
        self.peel_further(value, place, check, false, then)
    }

    fn peel_further<T>(
        &self,
        value: &Value,
        place: PlaceId,
        check: bool,
        called: bool,
        then: &mut dyn FnMut(&Value, bool) -> Result<T>,
    ) -> Result<T> {
        let value = self.force(value, place)?;
        let unfit = |value: &Value, verb: &str| {
            let (kind, shown) = (value.kind(), show::for_error(self, value));
            Err(Failure::new(format!("`__toString` {verb} return a string, but got {kind}: {shown}")).at(place))
        };
        let View::Set(set) = value.view() else {
            if check && called && !matches!(value.view(), View::String(_) | View::Path(_)) {
                return unfit(&value, "should");
            }
            return then(&value, called);
        };
        let (attribute, inner, called, what) = if let Some(function) = set.get(known::TO_STRING) {
            let result = self.call(&function.value, std::slice::from_ref(&value), function.place);
            let during = "while calling the `__toString` attribute";
            let result = result.map_err(|failure| failure.during(function.place, during))?;
            (function, result, true, "result of the `__toString` attribute")
        } else if let Some(path) = set.get(known::OUT_PATH) {
            (path, path.value, called, "`outPath` attribute")
        } else if check && called {
            return unfit(&value, "must");
        } else {
            return then(&value, called);
        };
        let further = self.force(&inner, attribute.place).and_then(|inner| {
            let _depth = self.deeper(place)?;
            self.peel_further(&inner, attribute.place, check, called, then)
        });
        further.map_err(|failure| {
            let doing = if let View::Thunk(_) = inner.known().view() { "evaluating" } else { "using" };
            failure.during(attribute.place, format!("while {doing} the {what}"))
        })
    }

    /// A path that is about to be read: nothing that would have to be built first.
    pub fn coerce_to_readable(&self, value: &Value, place: PlaceId) -> Result<Vec<u8>> {
        let mut context = Context::new();
        let what = "while realising the context of a path";
        let path = self.coerce_to_path(value, &mut context, place, what)?;
        self.refuse_building(&path, &context)?;
        Ok(path)
    }

    /// A build never feeds back into evaluation.
    pub fn refuse_building(&self, path: &[u8], context: &Context) -> Result<()> {
        let references = context.references();
        let built = references.iter().find(|reference| matches!(***reference, Reference::Output(..)));
        match built {
            None => Ok(()),
            Some(reference) => {
                let (path, derivation) = (String::from_utf8_lossy(path), reference.path());
                let message = format!(
                    "cannot read '{path}' during evaluation: '{derivation}' would have to be built first (import from derivation)"
                );
                Err(Failure::new(message))
            }
        }
    }

    /// The store path of a file or directory as it is now; it becomes a source of the plan.
    pub fn copy_to_store(&self, path: &[u8], context: &mut Context) -> Result<StorePath> {
        let path = paths::normal(path);
        let known = self.registry.borrow().copied.get(&path).cloned();
        let store_path = match known {
            Some(store_path) => store_path,
            None => {
                if path.ends_with(b".drv") {
                    return Err(Failure::new("file names are not allowed to end in '.drv'"));
                }
                let store_path = self.hash_source(&path, paths::base_name(&path), None)?;
                self.registry.borrow_mut().copied.insert(path, store_path.clone());
                store_path
            }
        };
        context.insert(Reference::Path(store_path.clone()));
        Ok(store_path)
    }

    /// Hashes a tree, whole or filtered, and notes it as a source.
    pub fn hash_source(&self, path: &[u8], name: &[u8], filter: Option<&Value>) -> Result<StorePath> {
        let mut selected = filter.map(|_| std::collections::BTreeSet::new());
        let real = self.real_path(path)?;
        let mut keep = |relative: &[u8], kind: crate::nar::FileKind| -> Result<bool> {
            let Some(filter) = filter else { return Ok(true) };
            let mut whole = path.to_vec();
            whole.push(b'/');
            whole.extend_from_slice(relative);
            let arguments = [Value::string(whole), Value::string(kind.as_str())];
            let kept = self.call(filter, &arguments, PlaceId::NONE)?;
            let what = "while evaluating the return value of the path filter function";
            let kept = self.force_boolean(&kept, PlaceId::NONE, what)?;
            if let (true, Some(selected)) = (kept, &mut selected) {
                selected.insert(relative.to_vec());
            }
            Ok(kept)
        };
        let algorithm = crate::nix_hash::HashAlgorithm::Sha256;
        let hash = crate::nar::hash_archive(&crate::sources::Reader(self), &real, algorithm, &mut keep)?;
        let store_path =
            store_path::fixed_output_path(name, true, &hash).map_err(|error| Failure::new(error.to_string()))?;
        let source = Source::Path { path: real, selected };
        self.registry.borrow_mut().sources.insert(store_path.clone(), source);
        Ok(store_path)
    }

    /// The path on disk: one in the store stands for the source that it was made from.
    pub fn real_path(&self, path: &[u8]) -> Result<std::path::PathBuf> {
        use std::os::unix::ffi::OsStrExt as _;
        let as_path = |bytes: &[u8]| Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned();
        if let Some((store_path, rest)) = in_store(path) {
            let registry = self.registry.borrow();
            match registry.sources.get(&store_path) {
                Some(Source::Path { path, .. }) => {
                    return Ok(if rest.is_empty() { path.clone() } else { path.join(as_path(rest)) });
                }
                Some(Source::Text(_)) => {
                    return Err(Failure::new(format!("'{store_path}' is a text that the expression made, not a file")));
                }
                Some(Source::Fetched(fetched)) => {
                    if let Some(place) = self.sources.shown(&store_path) {
                        return Ok(if rest.is_empty() { place.to_owned() } else { place.join(as_path(rest)) });
                    }
                    // Whoever evaluates hears of it, fetches it, and evaluates again.
                    self.locking.borrow_mut().wanted.insert(store_path.clone(), fetched.clone());
                    return Err(Failure::new(format!("'{store_path}' has not been fetched yet")));
                }
                None => {}
            }
        }
        Ok(as_path(path))
    }

    /// The text that a store path stands for, if the expression made it.
    pub fn made_text(&self, path: &[u8]) -> Option<Vec<u8>> {
        if path == FETCHURL_PATH {
            return Some(FETCHURL.to_vec());
        }
        let (store_path, rest) = in_store(path)?;
        match self.registry.borrow().sources.get(&store_path) {
            Some(Source::Text(text)) if rest.is_empty() => Some(text.clone()),
            _ => None,
        }
    }
}

/// The store path that a path is or lies below, and what follows.
pub fn in_store(path: &[u8]) -> Option<(StorePath, &[u8])> {
    let rest = path.strip_prefix(b"/nix/store/")?;
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let top = std::str::from_utf8(&path[..path.len() - rest.len() + end]).ok()?;
    let below = rest[end..].strip_prefix(b"/").unwrap_or_default();
    Some((StorePath::parse(top)?, below))
}
