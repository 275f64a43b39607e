//! What counts as a string or path, and what a string then refers to.

use super::Evaluator;
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::symbols::known;
use crate::value::{Context, Reference, Value, View};
use crate::{heap, paths, show, text};

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
}
