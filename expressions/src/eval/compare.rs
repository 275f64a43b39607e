//! `==`, `<`, and what `assert a == b` says about a difference.

use std::cmp::Ordering;

use super::Evaluator;
use crate::failure::{Failure, Result, Sort};
use crate::places::PlaceId;
use crate::show;
use crate::symbols::known;
use crate::value::{Value, View};

/// Whether two elements are one and the same value, so that they are equal even if they are functions, as in Nix.
fn identical(left: &Value, right: &Value) -> bool {
    left == right
}

impl Evaluator {
    fn equal_elements(&self, left: &Value, right: &Value, place: PlaceId) -> Result<bool> {
        Ok(if identical(left, right) {
            // They are worked out all the same, which may fail.
            self.force(left, place)?;
            true
        } else {
            self.equal(left, right, place)?
        })
    }

    /// `left == right`
    pub fn equal(&self, left: &Value, right: &Value, place: PlaceId) -> Result<bool> {
        let _depth = self.deeper(place)?;
        let left = self.force(left, place)?;
        let right = self.force(right, place)?;
        Ok(match (left.view(), right.view()) {
            (View::Null, View::Null) => true,
            (View::Boolean(left), View::Boolean(right)) => left == right,
            (View::Integer(left), View::Integer(right)) => left == right,
            (View::Float(left), View::Float(right)) => left == right,
            (View::Integer(left), View::Float(right)) => left as f64 == right,
            (View::Float(left), View::Integer(right)) => left == right as f64,
            (View::String(left), View::String(right)) => left.bytes == right.bytes,
            (View::Path(left), View::Path(right)) => left == right,
            (View::List(first), View::List(second)) => {
                if first.len() != second.len() {
                    return Ok(false);
                }
                for (left, right) in first.iter().zip(second.iter()) {
                    if !self.equal_elements(&left, &right, place)? {
                        return Ok(false);
                    }
                }
                true
            }
            (View::Set(first), View::Set(second)) => {
                if self.is_derivation(&left)?
                    && self.is_derivation(&right)?
                    && let (Some(left), Some(right)) = (first.get(known::OUT_PATH), second.get(known::OUT_PATH))
                {
                    return self.equal_elements(&left.value, &right.value, place);
                }
                if first.len() != second.len() {
                    return Ok(false);
                }
                for (left, right) in first.iter().zip(second.iter()) {
                    if left.name != right.name || !self.equal_elements(&left.value, &right.value, place)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }

    /// Says what makes two values differ.
    pub fn assert_equal(&self, left: &Value, right: &Value, place: PlaceId) -> Result<()> {
        let _depth = self.deeper(place)?;
        let left = self.force(left, place)?;
        let right = self.force(right, place)?;
        let differ = |message: String| Err(Failure::of(Sort::Assertion, message));
        let show = |value: &Value| show::for_error(self, value);
        let number = |value: &Value| matches!(value.view(), View::Integer(_) | View::Float(_));
        let (kinds, shown) = ((left.kind(), right.kind()), (show(&left), show(&right)));
        fn plain_kind(kind: &str) -> &str {
            if kind == "a string with context" { "a string" } else { kind }
        }
        match (left.view(), right.view()) {
            (View::Integer(left), View::Integer(right)) if left == right => Ok(()),
            _ if number(&left) && number(&right) => {
                if self.equal(&left, &right, place)? {
                    return Ok(());
                }
                let message = format!(
                    "{} with value '{}' is not equal to {} with value '{}'",
                    kinds.0, shown.0, kinds.1, shown.1
                );
                differ(message)
            }
            (View::List(first), View::List(second)) => {
                if first.len() != second.len() {
                    return differ(format!(
                        "list of size '{}' is not equal to list of size '{}', left hand side is '{}', right hand side is '{}'",
                        first.len(),
                        second.len(),
                        shown.0,
                        shown.1
                    ));
                }
                for (number, (left, right)) in first.iter().zip(second.iter()).enumerate() {
                    if !identical(&left, &right) {
                        self.assert_equal(&left, &right, place).map_err(|failure| {
                            failure.during(place, format!("while comparing list element {number}"))
                        })?;
                    }
                }
                Ok(())
            }
            (View::Set(first), View::Set(second)) => {
                if self.is_derivation(&left)?
                    && self.is_derivation(&right)?
                    && let (Some(left), Some(right)) = (first.get(known::OUT_PATH), second.get(known::OUT_PATH))
                {
                    return self.assert_equal(&left.value, &right.value, place).map_err(|failure| {
                        failure.during(place, "while comparing a derivation by its 'outPath' attribute")
                    });
                }
                if first.len() != second.len() {
                    return differ(format!(
                        "attribute names of attribute set '{}' differs from attribute set '{}'",
                        shown.0, shown.1
                    ));
                }
                for (left, right) in first.iter().zip(second.iter()) {
                    if left.name != right.name {
                        let name = self.symbols.text(left.name);
                        if second.get(left.name).is_none() {
                            return differ(format!(
                                "attribute name '{name}' is contained in '{}', but not in '{}'",
                                shown.0, shown.1
                            ));
                        }
                        let name = self.symbols.text(right.name);
                        return differ(format!(
                            "attribute name '{name}' is missing in '{}', but is contained in '{}'",
                            shown.0, shown.1
                        ));
                    }
                    if identical(&left.value, &right.value) {
                        continue;
                    }
                    self.assert_equal(&left.value, &right.value, place).map_err(|mut failure| {
                        if right.place.is_some() {
                            failure = failure.during(right.place, "where right hand side is");
                        }
                        if left.place.is_some() {
                            failure = failure.during(left.place, "where left hand side is");
                        }
                        let name = self.symbols.text(left.name);
                        failure.during(place, format!("while comparing attribute '{name}'"))
                    })?;
                }
                Ok(())
            }
            (
                View::Lambda(_) | View::Builtin(_) | View::Partial(_),
                View::Lambda(_) | View::Builtin(_) | View::Partial(_),
            ) => {
                differ("distinct functions and immediate comparisons of identical functions compare as unequal".into())
            }
            _ if self.equal(&left, &right, place)? => Ok(()),
            (View::Boolean(_), View::Boolean(_)) => {
                differ(format!("boolean '{}' is not equal to boolean '{}'", shown.0, shown.1))
            }
            (View::String(_), View::String(_)) => {
                differ(format!("string '{}' is not equal to string '{}'", shown.0, shown.1))
            }
            (View::Path(_), View::Path(_)) => differ(format!("path '{}' is not equal to path '{}'", shown.0, shown.1)),
            _ => differ(format!(
                "{} of value '{}' is not equal to {} of value '{}'",
                plain_kind(&kinds.0),
                shown.0,
                plain_kind(&kinds.1),
                shown.1
            )),
        }
    }

    /// Which of two values comes first, where there is an order.
    pub fn order(&self, left: &Value, right: &Value, place: PlaceId, what: &str) -> Result<Option<Ordering>> {
        let _depth = self.deeper(place)?;
        let left = self.force(left, place)?;
        let right = self.force(right, place)?;
        Ok(match (left.view(), right.view()) {
            (View::Integer(left), View::Integer(right)) => Some(left.cmp(&right)),
            (View::Float(left), View::Float(right)) => left.partial_cmp(&right),
            (View::Integer(left), View::Float(right)) => (left as f64).partial_cmp(&right),
            (View::Float(left), View::Integer(right)) => left.partial_cmp(&(right as f64)),
            (View::String(left), View::String(right)) => Some(left.bytes.cmp(&right.bytes)),
            (View::Path(left), View::Path(right)) => Some(left.cmp(&right)),
            (View::List(first), View::List(second)) => {
                for (left, right) in first.iter().zip(second.iter()) {
                    if !self.equal_elements(&left, &right, place)? {
                        return self.order(&left, &right, place, "while comparing two list elements");
                    }
                }
                Some(first.len().cmp(&second.len()))
            }
            _ => {
                let (kinds, shown) =
                    ((left.kind(), right.kind()), (show::for_error(self, &left), show::for_error(self, &right)));
                let message = if std::mem::discriminant(&left.view()) == std::mem::discriminant(&right.view()) {
                    let why = "values of that type are incomparable";
                    format!(
                        "cannot compare {} with {}; {why} (values are {} and {})",
                        kinds.0, kinds.1, shown.0, shown.1
                    )
                } else {
                    format!("cannot compare {} with {}; values are {} and {}", kinds.0, kinds.1, shown.0, shown.1)
                };
                let failure = Failure::new(message);
                return Err(if what.is_empty() { failure } else { failure.during(PlaceId::NONE, what) });
            }
        })
    }

    /// `left < right`
    pub fn less(&self, left: &Value, right: &Value, place: PlaceId, what: &str) -> Result<bool> {
        Ok(self.order(left, right, place, what)? == Some(Ordering::Less))
    }
}
