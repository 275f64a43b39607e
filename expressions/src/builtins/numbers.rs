//! Arithmetic and order.

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::text;
use crate::value::{Value, View};

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("add", 2, |evaluator, arguments, _| {
        let what = ["the first argument of the addition", "the second argument of the addition"];
        arithmetic(evaluator, arguments, what, ("adding", '+'), i64::checked_add, |left, right| left + right)
    }),
    builtin("sub", 2, |evaluator, arguments, _| {
        let what = ["the first argument of the subtraction", "the second argument of the subtraction"];
        arithmetic(evaluator, arguments, what, ("subtracting", '-'), i64::checked_sub, |left, right| left - right)
    }),
    builtin("mul", 2, |evaluator, arguments, _| {
        let what = ["the first argument of the multiplication", "the second argument of the multiplication"];
        arithmetic(evaluator, arguments, what, ("multiplying", '*'), i64::checked_mul, |left, right| left * right)
    }),
    builtin("div", 2, div),
    builtin("bitAnd", 2, |evaluator, arguments, _| bits(evaluator, arguments, "builtins.bitAnd", |l, r| l & r)),
    builtin("bitOr", 2, |evaluator, arguments, _| bits(evaluator, arguments, "builtins.bitOr", |l, r| l | r)),
    builtin("bitXor", 2, |evaluator, arguments, _| bits(evaluator, arguments, "builtins.bitXor", |l, r| l ^ r)),
    builtin("lessThan", 2, less_than),
    builtin("ceil", 1, |evaluator, arguments, _| rounded(evaluator, arguments, "ceil", f64::ceil)),
    builtin("floor", 1, |evaluator, arguments, _| rounded(evaluator, arguments, "floor", f64::floor)),
];

fn arithmetic(
    evaluator: &Evaluator,
    arguments: &[Value],
    what: [&str; 2],
    (doing, sign): (&str, char),
    integers: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> Result<Value> {
    let left = evaluator.force(&arguments[0], NOWHERE)?;
    let right = evaluator.force(&arguments[1], NOWHERE)?;
    if let (View::Integer(left), View::Integer(right)) = (left.view(), right.view()) {
        let overflow = || Failure::new(format!("integer overflow in {doing} {left} {sign} {right}"));
        return integers(left, right).map(Value::integer).ok_or_else(overflow);
    }
    let during = |what: &str| format!("while evaluating {what}");
    if matches!(left.view(), View::Float(_)) || matches!(right.view(), View::Float(_)) {
        let left = evaluator.force_float(&left, NOWHERE, &during(what[0]))?;
        let right = evaluator.force_float(&right, NOWHERE, &during(what[1]))?;
        return Ok(Value::float(floats(left, right)));
    }
    evaluator.force_integer(&left, NOWHERE, &during(what[0]))?;
    evaluator.force_integer(&right, NOWHERE, &during(what[1])).map(Value::integer)
}

fn div(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let (first, second) =
        ("while evaluating the first operand of the division", "while evaluating the second operand of the division");
    let left = evaluator.force(&arguments[0], NOWHERE)?;
    let right = evaluator.force(&arguments[1], NOWHERE)?;
    let divisor = evaluator.force_float(&right, NOWHERE, second)?;
    if divisor == 0.0 {
        return Err(Failure::new("division by zero"));
    }
    if matches!(left.view(), View::Float(_)) || matches!(right.view(), View::Float(_)) {
        return Ok(Value::float(evaluator.force_float(&left, NOWHERE, first)? / divisor));
    }
    let left = evaluator.force_integer(&left, NOWHERE, first)?;
    let right = evaluator.force_integer(&right, NOWHERE, second)?;
    let overflow = || Failure::new(format!("integer overflow in dividing {left} / {right}"));
    left.checked_div(right).map(Value::integer).ok_or_else(overflow)
}

fn bits(evaluator: &Evaluator, arguments: &[Value], name: &str, combine: fn(i64, i64) -> i64) -> Result<Value> {
    let what = |number: &str| format!("while evaluating the {number} argument passed to {name}");
    let left = evaluator.force_integer(&arguments[0], NOWHERE, &what("first"))?;
    let right = evaluator.force_integer(&arguments[1], NOWHERE, &what("second"))?;
    Ok(Value::integer(combine(left, right)))
}

fn less_than(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.less(&arguments[0], &arguments[1], NOWHERE, "").map(Value::boolean)
}

fn rounded(evaluator: &Evaluator, arguments: &[Value], name: &str, round: fn(f64) -> f64) -> Result<Value> {
    let what = format!("while evaluating the first argument passed to builtins.{name}");
    let value = evaluator.force(&arguments[0], NOWHERE)?;
    let rounded = round(evaluator.force_float(&value, NOWHERE, &what)?);
    // A power of two, so that no rounding occurs.
    let in_range = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded);
    let because = "Due to a bug (see https://github.com/NixOS/nix/issues/12899)";
    let future = "Future Nix versions might implement the correct behavior.";
    match value.view() {
        View::Integer(integer) if !in_range => Err(Failure::new(format!(
            "{because} the NixInt argument {integer} caused undefined behavior in previous Nix versions.\n\t{future}"
        ))),
        View::Integer(integer) if rounded as i64 != integer => Err(Failure::new(format!(
            "{because} a loss of precision occurred in previous Nix versions because the NixInt argument {integer} was rounded to {}.\n\t{future}",
            rounded as i64
        ))),
        View::Float(float) if !in_range => {
            let float = text::float(float);
            Err(Failure::new(format!("NixFloat argument {float} is not in the range of NixInt")))
        }
        _ => Ok(Value::integer(rounded as i64)),
    }
}
