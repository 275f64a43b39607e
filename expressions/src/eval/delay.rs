//! Values for code that need not be evaluated yet: what is cheap and certain at once, a thunk for the rest.

use super::Evaluator;
use super::operators::compute;
use crate::code::{Code, NameCode};
use crate::heap::Ref;
use crate::value::{Scope, Set, Thunk, Value, View};

impl Evaluator {
    /// A value for code that need not be evaluated yet: an attribute of a set or an element of a list, of which it shows
    /// whether it was evaluated, where values are printed as far as they are known.
    #[inline]
    pub fn delay(&self, code: Ref<Code>, scope: Scope) -> Value {
        match &*code {
            Code::Constant(value) => return *value,
            Code::Variable(level, slot, _) => {
                // Not there yet while a recursive scope is being made.
                if let Some(value) = scope.up(u32::from(*level)).get(*slot) {
                    return value.compressed();
                }
            }
            Code::Lambda(_) | Code::Select(_) | Code::Set(_) if self.is_unseen.get() => {
                if let Some(value) = self.cheap_further(&code, scope) {
                    return value;
                }
            }
            _ => {}
        }
        Thunk::code(code, scope).into()
    }

    /// A value for code that need not be evaluated yet, but may be, where that is cheap and certain.
    #[inline]
    pub fn delay_unseen(&self, code: Ref<Code>, scope: Scope) -> Value {
        match self.cheap(&code, scope) {
            Some(value) => value,
            None => Thunk::code(code, scope).into(),
        }
    }

    #[inline]
    pub(super) fn cheap(&self, code: &Code, scope: Scope) -> Option<Value> {
        match code {
            Code::Constant(value) => Some(*value),
            Code::Variable(level, slot, _) => Some(scope.up(u32::from(*level)).get(*slot)?.compressed()),
            Code::Arithmetic(_) | Code::Add(_) | Code::Select(_) | Code::Lambda(_) | Code::Set(_) => {
                self.cheap_further(code, scope)
            }
            _ => None,
        }
    }

    pub(super) fn cheap_further(&self, code: &Code, scope: Scope) -> Option<Value> {
        match code {
            Code::Arithmetic(code) => {
                let left = self.cheap(&code.operands[0], scope)?.small_integer()?;
                let right = self.cheap(&code.operands[1], scope)?.small_integer()?;
                compute(code.operation, left, right)
            }
            Code::Add(code) => {
                let left = self.cheap(&code.left, scope)?.small_integer()?;
                let right = self.cheap(&code.right, scope)?.small_integer()?;
                left.checked_add(right).map(Value::integer)
            }
            Code::Select(code) => {
                let Some(NameCode::Static(name, guess)) = code.only() else { return None };
                let Code::Variable(level, slot, _) = code.from else { return None };
                let View::Set(set) = scope.up(u32::from(level)).get(slot)?.known().view() else { return None };
                let (value, _) = set.get_cached(*name, guess)?;
                let value = value.compressed();
                value.is_plain().then_some(value)
            }
            Code::Lambda(code) => Some(Value::lambda(*code, scope)),
            // Of what is known already, and no larger than the thunk and what comes of it.
            Code::Set(code) if !code.recursive && code.more.is_none() => match &*code.entries {
                [one] => {
                    let one = self.known_already(one, scope)?;
                    Some(Set::new(code.keys, |_| one).into())
                }
                [one, two] => {
                    let values = [self.known_already(one, scope)?, self.known_already(two, scope)?];
                    Some(Set::new(code.keys, |index| values[index]).into())
                }
                _ => None,
            },
            _ => None,
        }
    }

    #[inline]
    pub(super) fn known_already(&self, code: &Code, scope: Scope) -> Option<Value> {
        match code {
            Code::Constant(value) => Some(*value),
            Code::Variable(level, slot, _) => Some(scope.up(u32::from(*level)).get(*slot)?.compressed()),
            _ => None,
        }
    }
}
