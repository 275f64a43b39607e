//! `+` and texts with interpolations: strings, paths and numbers put together.

use super::{Coercion, Evaluator};
use crate::code::{BinaryCode, Code, ConcatenationCode};
use crate::failure::{Failure, Result};
use crate::heap;
use crate::places::PlaceId;
use crate::value::{Bytes, Context, Scope, Value, View};

/// What the first part decides that all of it is.
enum Sum {
    Text,
    Path,
    Number(Value),
}

impl Evaluator {
    #[inline(never)]
    pub(super) fn concatenation(&self, code: &ConcatenationCode, scope: Scope) -> Result<Value> {
        let parts = code.parts.iter().map(|(place, part)| (*place, part));
        self.concatenate(code.forced, None, parts, code.place, scope).map_err(|failure| failure.near(code.place))
    }

    /// `a + b`, where `a` is known and no integer.
    #[inline(never)]
    pub(super) fn add_further(&self, code: &BinaryCode, left: Value, scope: Scope) -> Result<Value> {
        let parts = [(code.operands.0, &code.left), (code.operands.1, &code.right)];
        self.concatenate(false, Some(left), parts.into_iter(), code.place, scope)
    }

    fn concatenate<'a>(
        &self,
        forced: bool,
        first: Option<Value>,
        parts: impl Iterator<Item = (PlaceId, &'a Code)>,
        whole: PlaceId,
        scope: Scope,
    ) -> Result<Value> {
        let mut context = Context::new();
        let mut start: Option<Bytes> = None;
        let mut bytes = Vec::new();
        let mut sum = Sum::Text;
        for (number, (place, part)) in parts.enumerate() {
            let value = match first {
                Some(first) if number == 0 => first,
                _ => self.eval_during(part, scope, "in an operand of '+'")?,
            };
            match (value.view(), &sum) {
                (View::Integer(_), _) if number == 0 && !forced => {
                    sum = Sum::Number(value);
                    continue;
                }
                (View::Float(float), _) if number == 0 && !forced => {
                    // As if to zero, which makes a negative zero a positive one.
                    sum = Sum::Number(Value::float(float + 0.0));
                    continue;
                }
                (_, Sum::Number(left)) => {
                    sum = Sum::Number(self.sum(*left, value, place)?);
                    continue;
                }
                (View::Path(_), _) if number == 0 && !forced => sum = Sum::Path,
                (View::String(text), _) => {
                    context.add(text.context);
                    // The first string may be able to grow where it is.
                    if number == 0 {
                        start = Some(text.bytes)
                    } else {
                        bytes.extend_from_slice(&text.bytes)
                    }
                    continue;
                }
                _ => {}
            }
            let coercion = Coercion {
                more: false,
                // Parts of a path are no sources of their own.
                copy: !matches!(sum, Sum::Path),
                normal: number > 0 || forced,
            };
            let what = "while evaluating a path segment";
            self.coerce_onto(&mut bytes, &value, &mut context, place, what, coercion)?;
        }
        match sum {
            Sum::Number(number) => Ok(number),
            Sum::Path if !context.is_empty() => {
                let message = "a string that refers to a store path cannot be appended to a path";
                Err(Failure::new(message).at(whole))
            }
            Sum::Path => Ok(Value::path(crate::paths::normal(&bytes))),
            Sum::Text => {
                let text = match start {
                    Some(start) => heap::append(start, &bytes),
                    None => heap::bytes(&bytes),
                };
                Ok(Value::text(text, context.finish()))
            }
        }
    }

    /// A number and something that should be one.
    pub(super) fn sum(&self, left: Value, right: Value, place: PlaceId) -> Result<Value> {
        Ok(match (left.view(), right.view()) {
            (View::Integer(left), View::Integer(right)) => {
                let overflow = || Failure::new(format!("integer overflow in adding {left} + {right}")).at(place);
                Value::integer(left.checked_add(right).ok_or_else(overflow)?)
            }
            (View::Integer(left), View::Float(right)) => Value::float(left as f64 + right),
            (View::Float(left), View::Integer(right)) => Value::float(left + right as f64),
            (View::Float(left), View::Float(right)) => Value::float(left + right),
            (View::Float(_), _) => {
                return Err(Failure::new(format!("cannot add {} to a float", right.kind())).at(place));
            }
            _ => return Err(Failure::new(format!("cannot add {} to an integer", right.kind())).at(place)),
        })
    }
}
