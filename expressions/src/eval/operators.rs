//! Operators: arithmetic, comparisons, logic, `//` and `++`.

use super::Evaluator;
use crate::ast::Operator;
use crate::code::{Arithmetic, ArithmeticCode, BinaryCode, Code};
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::value::{Scope, Set, Value, View};

impl Evaluator {
    /// An operand of a builtin: where a thunk is forced it is nobody's place, as if it had been an argument.
    #[inline(always)]
    pub(super) fn operand(&self, code: &Code, scope: Scope) -> Result<Value> {
        match code {
            Code::Constant(value) => self.force(value, PlaceId::NONE),
            Code::Variable(level, slot, place) => match scope.up(u32::from(*level)).get(*slot) {
                Some(value) => self.force(&value, PlaceId::NONE),
                None => Err(self.needs_itself(*place)),
            },
            _ => self.eval_further(code, scope),
        }
    }

    #[inline(never)]
    pub(super) fn arithmetic(&self, code: &ArithmeticCode, scope: Scope) -> Result<Value> {
        let depth = self.depth.get();
        if depth > self.settings.max_call_depth {
            return Err(self.too_deep(code.place));
        }
        self.depth.set(depth + 1);
        let left = match self.operand(&code.operands[0], scope) {
            Ok(left) => left,
            Err(failure) => return Err(self.operand_failed(code, depth, failure)),
        };
        let right = match self.operand(&code.operands[1], scope) {
            Ok(right) => right,
            Err(failure) => return Err(self.operand_failed(code, depth, failure)),
        };
        if let (Some(left), Some(right)) = (left.small_integer(), right.small_integer())
            && let Some(value) = compute(code.operation, left, right)
        {
            self.depth.set(depth);
            return Ok(value);
        }
        self.arithmetic_further(code, depth, [left, right])
    }

    #[inline(never)]
    fn arithmetic_further(&self, code: &ArithmeticCode, depth: usize, operands: [Value; 2]) -> Result<Value> {
        let result = self.call_builtin(code.builtin, &operands, code.place);
        self.depth.set(depth);
        result
    }

    #[cold]
    #[inline(never)]
    fn operand_failed(&self, code: &ArithmeticCode, depth: usize, failure: Box<Failure>) -> Box<Failure> {
        self.depth.set(depth);
        failure.during(code.place, format!("while calling the '{}' builtin", code.builtin.name))
    }

    #[inline(never)]
    pub(super) fn add(&self, code: &BinaryCode, scope: Scope) -> Result<Value> {
        let what = "in an operand of '+'";
        let left = match self.eval_during(&code.left, scope, what) {
            Ok(left) => left,
            Err(failure) => return Err(failure.near(code.place)),
        };
        if let Some(number) = left.small_integer() {
            let right = match self.eval_during(&code.right, scope, what) {
                Ok(right) => right,
                Err(failure) => return Err(failure.near(code.place)),
            };
            if let Some(sum) = right.small_integer().and_then(|right| number.checked_add(right)) {
                return Ok(Value::integer(sum));
            }
            return self.sum(left, right, code.operands.1).map_err(|failure| failure.near(code.place));
        }
        self.add_further(code, left, scope).map_err(|failure| failure.near(code.place))
    }

    #[inline(never)]
    pub(super) fn binary(&self, operator: Operator, code: &BinaryCode, scope: Scope) -> Result<Value> {
        match self.binary_unplaced(operator, code, scope) {
            Ok(value) => Ok(value),
            Err(failure) => Err(failure.near(code.place)),
        }
    }

    #[inline(always)]
    pub(super) fn binary_unplaced(&self, operator: Operator, code: &BinaryCode, scope: Scope) -> Result<Value> {
        let BinaryCode { left, right, place, .. } = code;
        let boolean = match operator {
            Operator::Equal | Operator::NotEqual => {
                let sides = if operator == Operator::Equal {
                    ["in the left operand of '=='", "in the right operand of '=='"]
                } else {
                    ["in the left operand of '!='", "in the right operand of '!='"]
                };
                let left = self.eval_during(left, scope, sides[0])?;
                let right = self.eval_during(right, scope, sides[1])?;
                let equal = match (left.small_integer(), right.small_integer()) {
                    (Some(left), Some(right)) => left == right,
                    _ => self.equal(&left, &right, *place)?,
                };
                equal == (operator == Operator::Equal)
            }
            Operator::And => {
                self.eval_boolean(left, scope, "in the left operand of '&&'")?
                    && self.eval_boolean(right, scope, "in the right operand of '&&'")?
            }
            Operator::Or => {
                self.eval_boolean(left, scope, "in the left operand of '||'")?
                    || self.eval_boolean(right, scope, "in the right operand of '||'")?
            }
            Operator::Implies => {
                !self.eval_boolean(left, scope, "in the left operand of '->'")?
                    || self.eval_boolean(right, scope, "in the right operand of '->'")?
            }
            Operator::Update => return self.update_code(left, right, scope),
            Operator::ConcatenateLists => return self.concatenate_lists_code(left, right, *place, scope),
        };
        Ok(Value::boolean(boolean))
    }

    #[inline(never)]
    fn concatenate_lists_code(&self, left: &Code, right: &Code, place: PlaceId, scope: Scope) -> Result<Value> {
        let left = self.eval_during(left, scope, "in the left operand of '++'")?;
        let right = self.eval_during(right, scope, "in the right operand of '++'")?;
        self.concatenate_lists(&left, &right, place)
    }

    #[inline(never)]
    pub(super) fn update_code(&self, left: &Code, right: &Code, scope: Scope) -> Result<Value> {
        // The right side first, as in Nix, which shows when both fail.
        let right = self.eval_set(right, scope, "in the right operand of '//'")?;
        let left = self.eval_set(left, scope, "in the left operand of '//'")?;
        Ok(Set::update(left, right).into())
    }

    pub(super) fn eval_set(&self, code: &Code, scope: Scope, what: &'static str) -> Result<Set> {
        let value = self.eval_during(code, scope, what)?;
        match value.view() {
            View::Set(set) => Ok(set),
            _ => Err(self.expected("a set", &value).during(code.place(), what)),
        }
    }

    pub(super) fn concatenate_lists(&self, left: &Value, right: &Value, place: PlaceId) -> Result<Value> {
        let what = "while evaluating one of the elements to concatenate";
        let first = self.force_list(left, place, what)?;
        let second = self.force_list(right, place, what)?;
        if second.is_empty() {
            return Ok(*left);
        }
        if first.is_empty() {
            return Ok(*right);
        }
        Ok(Value::list_of(first.len() + second.len(), first.iter().chain(second.iter())))
    }
}

/// What an operation gives for two integers; none where something is special about them.
#[inline(always)]
pub(super) fn compute(operation: Arithmetic, left: i64, right: i64) -> Option<Value> {
    Some(match operation {
        Arithmetic::Less => Value::boolean(left < right),
        Arithmetic::Subtract => Value::integer(left.checked_sub(right)?),
        Arithmetic::Multiply => Value::integer(left.checked_mul(right)?),
        Arithmetic::Divide => Value::integer(left.checked_div(right)?),
    })
}
