//! Order of evaluation, failures, messages, imports.

use super::{Builtin, NOWHERE, builtin};
use crate::Message;
use crate::eval::{Coercion, Evaluator};
use crate::failure::{Failure, Result, Sort};
use crate::fast_hash::FastSet;
use crate::places::PlaceId;
use crate::show;
use crate::symbols::known;
use crate::value::{Attribute, Bytes, Context, List, Value, View};

const fn untraced(builtin: Builtin) -> Builtin {
    Builtin { traced: false, ..builtin }
}

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("abort", 1, abort),
    builtin("throw", 1, throw),
    builtin("tryEval", 1, try_eval),
    builtin("seq", 2, seq),
    builtin("deepSeq", 2, deep_seq),
    builtin("trace", 2, trace),
    builtin("traceVerbose", 2, |evaluator, arguments, _| evaluator.force(&arguments[1], NOWHERE)),
    builtin("warn", 2, warn),
    untraced(builtin("addErrorContext", 2, add_error_context)),
    builtin("break", 1, |evaluator, arguments, _| evaluator.force(&arguments[0], NOWHERE)),
    builtin("import", 1, import),
    builtin("scopedImport", 2, scoped_import),
    builtin("genericClosure", 1, generic_closure),
];

fn message(evaluator: &Evaluator, value: &Value, what: &str) -> Result<String> {
    let bytes =
        evaluator.coerce(value, &mut Context::new(), NOWHERE, what, Coercion { copy: false, ..Coercion::PLAIN })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn abort(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let text = message(evaluator, &arguments[0], "while evaluating the error message passed to builtins.abort")?;
    Err(Failure::of(Sort::Abort, format!("evaluation aborted with the following error message: '{text}'")))
}

fn throw(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let text = message(evaluator, &arguments[0], "while evaluating the error message passed to builtin.throw")?;
    Err(Failure::of(Sort::Throw, text))
}

fn try_eval(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let (value, success) = match evaluator.force(&arguments[0], NOWHERE) {
        Ok(value) => (value, true),
        Err(failure) if matches!(failure.sort, Sort::Throw | Sort::Assertion) => (Value::FALSE, false),
        Err(failure) => return Err(failure),
    };
    Ok(Value::set(vec![Attribute::new(known::VALUE, value), Attribute::new(known::SUCCESS, Value::boolean(success))]))
}

fn seq(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.force(&arguments[0], NOWHERE)?;
    evaluator.force(&arguments[1], NOWHERE)
}

fn deep_seq(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.force_deep(&arguments[0])?;
    evaluator.force(&arguments[1], NOWHERE)
}

fn trace(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let value = evaluator.force(&arguments[0], NOWHERE)?;
    let text = match value.view() {
        View::String(text) => String::from_utf8_lossy(&text.bytes).into_owned(),
        _ => show::for_trace(evaluator, &value),
    };
    evaluator.say(Message::Trace(text));
    evaluator.force(&arguments[1], NOWHERE)
}

fn warn(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument; the message passed to builtins.warn";
    let text = evaluator.force_string(&arguments[0], NOWHERE, what)?;
    evaluator.say(Message::EvaluationWarning(String::from_utf8_lossy(&text.bytes).into_owned()));
    if evaluator.settings.abort_on_warn {
        let message = "aborting to reveal stack trace of warning, as abort-on-warn is set";
        return Err(Failure::of(Sort::Abort, message));
    }
    evaluator.force(&arguments[1], NOWHERE)
}

fn add_error_context(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.force(&arguments[1], NOWHERE).or_else(|failure| {
        let what = "while evaluating the error message passed to builtins.addErrorContext";
        let text = message(evaluator, &arguments[0], what)?;
        Err(failure.during_always(NOWHERE, text))
    })
}

fn import(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let path = evaluator.coerce_to_readable(&arguments[0], NOWHERE)?;
    evaluator.import(&path)
}

fn scoped_import(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let path = evaluator.coerce_to_readable(&arguments[1], NOWHERE)?;
    let what = "while evaluating the first argument passed to builtins.scopedImport";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    evaluator.scoped_import(&set, &path)
}

fn generic_closure(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.genericClosure";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let context = "in the attrset passed as argument to builtins.genericClosure";
    let start = super::sets::wanted(evaluator, &set, known::START_SET, context)?;
    let what = "while evaluating the 'startSet' attribute passed as argument to builtins.genericClosure";
    let start = evaluator.force_list(&start.value, NOWHERE, what)?;
    if start.is_empty() {
        return Ok(Value::from(start));
    }
    let operator = super::sets::wanted(evaluator, &set, known::OPERATOR, context)?;
    let what = "while evaluating the 'operator' attribute passed as argument to builtins.genericClosure";
    let operator = evaluator.force_function(&operator.value, NOWHERE, what)?;
    let mut waiting: std::collections::VecDeque<Value> = start.iter().collect();
    let mut result = Vec::new();
    let mut keys = SeenKeys::default();
    while let Some(element) = waiting.pop_front() {
        let shown = |element: &Value| show::for_error(evaluator, element);
        let inside =
            |failure: Box<Failure>| failure.during(NOWHERE, format!("in genericClosure element {}", shown(&element)));
        let set = evaluator.force_set(&element, NOWHERE, "").map_err(inside)?;
        let key = match super::sets::wanted(evaluator, &set, known::KEY, "") {
            Ok(key) => key,
            Err(failure) => return Err(inside(failure)),
        };
        let key = evaluator.force(&key.value, NOWHERE)?;
        let is_new = keys.insert(evaluator, key, element).map_err(|(failure, from)| {
            failure
                .during(NOWHERE, format!("with element {}", shown(&from)))
                .during(NOWHERE, format!("while comparing element {}", shown(&element)))
        })?;
        if !is_new {
            continue;
        }
        result.push(element);
        let more = evaluator.call(&operator, &[element], NOWHERE).and_then(|more| {
            let what = "while evaluating the return value of the `operator` passed to builtins.genericClosure";
            let more = evaluator.force_list(&more, NOWHERE, what)?;
            for item in more.iter() {
                evaluator.force(&item, NOWHERE)?;
            }
            Ok(more)
        });
        let more: List = more.map_err(|failure| {
            failure.during(NOWHERE, format!("while calling operator on genericClosure element {}", shown(&element)))
        })?;
        waiting.extend(more.iter());
    }
    Ok(Value::list(result))
}

/// Keys that were seen, and what had them. Mostly all are integers, or all are strings.
#[derive(Default)]
struct SeenKeys {
    integers: FastSet<i64>,
    strings: FastSet<Bytes>,
    all: Vec<(Value, Value)>,
    /// They are of several kinds, or others: `all` is sorted. Their order may fail, so no map of the library will do.
    is_sorted: bool,
}

impl SeenKeys {
    /// Notes a key, which is new or not; or says with what it cannot be compared.
    fn insert(
        &mut self,
        evaluator: &Evaluator,
        key: Value,
        element: Value,
    ) -> std::result::Result<bool, (Box<Failure>, Value)> {
        if !self.is_sorted {
            let is_new = match key.view() {
                View::Integer(integer) if self.integers.len() == self.all.len() => Some(self.integers.insert(integer)),
                View::String(text) if self.strings.len() == self.all.len() => Some(self.strings.insert(text.bytes)),
                _ => None,
            };
            if let Some(is_new) = is_new {
                if is_new {
                    self.all.push((key, element));
                }
                return Ok(is_new);
            }
            self.is_sorted = true;
            // All of one kind, which has an order.
            self.all.sort_by(|left, right| match (left.0.view(), right.0.view()) {
                (View::Integer(left), View::Integer(right)) => left.cmp(&right),
                (View::String(left), View::String(right)) => left.bytes.cmp(&right.bytes),
                _ => std::cmp::Ordering::Equal,
            });
        }
        let (mut low, mut high) = (0, self.all.len());
        while low < high {
            let middle = low.midpoint(high);
            let (other, from) = self.all[middle];
            match evaluator.order(&key, &other, NOWHERE, "").map_err(|failure| (failure, from))? {
                Some(std::cmp::Ordering::Less) => high = middle,
                Some(std::cmp::Ordering::Greater) => low = middle + 1,
                Some(std::cmp::Ordering::Equal) | None => return Ok(false),
            }
        }
        self.all.insert(low, (key, element));
        Ok(true)
    }
}
