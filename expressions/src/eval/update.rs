//! `left // right`.

use std::rc::Rc;

use super::Evaluator;
use crate::code::Code;
use crate::failure::Result;
use crate::places::PlaceId;
use crate::value::{Scope, Set, Value};

impl Evaluator {
    pub(super) fn update_code(&self, left: &Code, right: &Code, scope: &Rc<Scope>) -> Result<Value> {
        // The right side first, as in Nix, which shows when both fail.
        let right = self.eval_set(right, scope, "in the right operand of '//'")?;
        let left = self.eval_set(left, scope, "in the left operand of '//'")?;
        Ok(Value::Set(update(left, right)))
    }

    fn eval_set(&self, code: &Code, scope: &Rc<Scope>, what: &str) -> Result<Rc<Set>> {
        let value = self.eval(code, scope).map_err(|failure| failure.during(code.place(), what))?;
        match value {
            Value::Set(set) => Ok(set),
            other => Err(self.expected("a set", &other).during(code.place(), what)),
        }
    }
}

/// The attributes of both; those on the right win.
pub fn update(left: Rc<Set>, right: Rc<Set>) -> Rc<Set> {
    if left.entries.is_empty() {
        return right;
    }
    if right.entries.is_empty() {
        return left;
    }
    let mut entries = Vec::with_capacity(left.entries.len() + right.entries.len());
    let mut older = left.entries.iter().peekable();
    for entry in &right.entries {
        while let Some(old) = older.next_if(|old| old.name < entry.name) {
            entries.push(old.clone());
        }
        older.next_if(|old| old.name == entry.name);
        entries.push(entry.clone());
    }
    entries.extend(older.cloned());
    Rc::new(Set { entries, place: PlaceId::NONE })
}
