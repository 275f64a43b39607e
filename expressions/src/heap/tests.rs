//! Run these under Miri, too: `cargo +nightly miri test -p expressions heap`.

use super::*;
use crate::places::PlaceId;
use crate::symbols::Symbol;
use crate::value::Attribute;

fn integers(set: Set) -> Vec<(u32, i64)> {
    set.iter().map(|attribute| (attribute.name.number(), attribute.value.small_integer().unwrap_or(-1))).collect()
}

fn set(entries: &[(u32, i64)]) -> Set {
    let attribute = |(name, value): &(u32, i64)| Attribute::new(Symbol::from_number(*name), Value::integer(*value));
    Set::from_sorted(&entries.iter().map(attribute).collect::<Vec<_>>(), PlaceId::NONE)
}

#[test]
fn a_word_says_what_it_is() {
    for integer in [0, 1, -1, (1 << 60) - 1, -(1 << 60), 1 << 60, -(1 << 60) - 1, i64::MAX, i64::MIN] {
        assert!(matches!(Value::integer(integer).view(), View::Integer(found) if found == integer));
    }
    assert!(matches!(Value::NULL.view(), View::Null));
    assert!(matches!(Value::boolean(true).view(), View::Boolean(true)));
    assert!(matches!(Value::boolean(false).view(), View::Boolean(false)));
    assert!(matches!(Value::float(1.5).view(), View::Float(1.5)));
    assert!(matches!(Value::path("/a").view(), View::Path(path) if path == b"/a"));
    assert!(matches!(Value::string("").view(), View::String(text) if text.bytes.is_empty()));
    let list = Value::list(vec![Value::integer(1), Value::string("two"), Value::NULL]);
    let View::List(list) = list.view() else { panic!("it is a list") };
    assert_eq!((list.len(), list.get(3).is_none()), (3, true));
    assert!(matches!(list.get(1).map(Value::view), Some(View::String(text)) if text.bytes == b"two"));
}

#[test]
fn a_string_that_is_put_together_piece_by_piece_grows_where_it_is() {
    let mut text = bytes(b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    let mut kept = Vec::new();
    for round in 0..200 {
        text = append(text, b"xy");
        kept.push((round, text));
    }
    // Those before are still what they were, and one of them that goes on otherwise does so elsewhere.
    let fork = append(kept[10].1, b"!");
    for (round, text) in kept {
        assert_eq!(text.len(), 66 + 2 * round);
        assert!(text.ends_with(b"xy"));
    }
    assert!(fork.ends_with(b"xy!"));
    let tail = text.part(text.len() - 4, text.len());
    assert_eq!(append(tail, b"z"), b"xyxyz");
    assert_eq!(append(Bytes::default(), b"z"), b"z");
}

fn position() -> usize {
    std::ptr::from_ref(&*place(0u64)).addr()
}

#[test]
fn scopes_nest_and_a_call_gives_its_scope_back() {
    let outer = Scope::one(Value::integer(1), None);
    let before = position();
    for round in 0..3 {
        let sum = region(|| {
            let scope = Scope::new(2, Some(outer));
            scope.set(0, Value::integer(round));
            assert!(scope.get(1).is_none());
            scope.set(1, Value::integer(2));
            // What is allocated meanwhile is given back, too.
            Value::list((0..100).map(Value::integer).collect());
            let one = scope.up(1).get(0).and_then(Value::small_integer).unwrap_or(0);
            Ok::<_, ()>(Value::integer(10 * one + scope.get(0).and_then(Value::small_integer).unwrap_or(0)))
        });
        assert!(sum.is_ok_and(|sum| sum == Value::integer(10 + round)));
    }
    assert_eq!(position(), before + 8);
    let failed = region(|| {
        Scope::new(5, Some(outer));
        Err(())
    });
    assert!(failed == Err(()));
    assert_eq!(position(), before + 16);
    let short = Scope::one(Value::integer(7), Some(outer));
    let longer = short.longer(1, 3);
    assert!(longer.get(0) == Some(Value::integer(7)) && longer.get(1).is_none() && longer.outer() == Some(outer));
    longer.set(0, Value::NULL);
    assert!(short.get(0) == Some(Value::integer(7)));
    let large = Scope::new(70_000, Some(outer));
    large.set(69_999, Value::TRUE);
    assert!(large.get(69_999) == Some(Value::TRUE) && large.get(0).is_none() && large.outer() == Some(outer));
}

#[test]
#[should_panic(expected = "assertion failed")]
fn a_slot_that_is_not_there_is_no_memory_of_others() {
    Scope::one(Value::NULL, None).get(1);
}

#[test]
fn a_thunk_becomes_its_value() {
    let thunk = Thunk::call(Value::NULL, Value::integer(7));
    assert!(
        matches!(thunk.state(), State::Call(function, argument) if function == Value::NULL && argument == Value::integer(7))
    );
    thunk.start();
    assert!(thunk.is_running() && thunk.value().is_none());
    thunk.finish(Value::string("done"));
    let value = Value::from(thunk);
    assert!(matches!(value.known().view(), View::String(text) if text.bytes == b"done"));
    // A function that is known by now is called as such.
    let call = Thunk::call(Value::from(thunk), Value::NULL);
    assert!(matches!(call.state(), State::Call(function, _) if function == value.known()));
    let thunk = Thunk::call(Thunk::call(Value::NULL, Value::NULL).into(), Value::NULL);
    assert!(matches!(thunk.state(), State::More(more) if matches!(*more, More::Call(..))));
    thunk.fail(3);
    assert!(matches!(thunk.state(), State::Failed(3)));
    let native = Thunk::more(More::Native(5));
    assert!(matches!(native.state(), State::More(more) if matches!(*more, More::Native(5))));
}

#[test]
fn calls_with_each_name_share_what_they_have_in_common() {
    let names: Vec<Symbol> = (0..70_000).map(Symbol::from_number).collect();
    let keys = Keys::of_names(names.into_iter());
    let all = Thunk::all(Value::TRUE, keys, false);
    for index in [0, 1, 65_535, 65_536, 69_999] {
        let thunk = Thunk::each(all, index, Value::integer(index as i64));
        let State::Each(call, value) = thunk.state() else { panic!("it is such a call") };
        assert_eq!((call.function == Value::TRUE, call.name.number() as usize), (true, index));
        assert_eq!(value.small_integer(), Some(index as i64));
    }
}

#[test]
fn common_names_are_merged_once() {
    let named = |numbers: &[u32]| {
        let names: Vec<_> = numbers.iter().map(|number| Symbol::from_number(*number)).collect();
        Keys::common(&names, &vec![PlaceId::NONE; names.len()], PlaceId::NONE)
    };
    let (left, right) = (named(&[1, 3, 5]), named(&[2, 3]));
    let whole = |add: i64| {
        let left = Set::new(left, |index| Value::integer(add + index as i64));
        let right = Set::new(right, |index| Value::integer(add + 10 + index as i64));
        Set::update(left, right)
    };
    for add in [0, 100] {
        assert_eq!(integers(whole(add)), [(1, add), (2, add + 10), (3, add + 11), (5, add + 2)]);
    }
    assert!(whole(0).parts().0 == whole(1).parts().0);
    // Where only values change, the names are those that were there.
    let once = whole(0);
    let again = Set::update(once, Set::new(right, |_| Value::NULL));
    assert!(again.parts().0 == once.parts().0);
    assert_eq!(integers(again), [(1, 0), (2, -1), (3, -1), (5, 2)]);
}

#[test]
fn layers_are_one_set() {
    let large: Vec<(u32, i64)> = (0..100).map(|name| (2 * name, 0)).collect();
    let mut whole = set(&large);
    let mut expected: std::collections::BTreeMap<u32, i64> = large.into_iter().collect();
    for round in 1..60u32 {
        let name = round * 7 % 50;
        whole = Set::update(whole, set(&[(name, i64::from(round))]));
        expected.insert(name, i64::from(round));
        assert_eq!(whole.len(), expected.len());
        let found = whole.get(Symbol::from_number(name)).and_then(|found| found.value.small_integer());
        assert_eq!(found, Some(i64::from(round)));
        let guess = Guess::default();
        for _ in 0..2 {
            let found = whole.get_cached(Symbol::from_number(0), &guess).and_then(|found| found.0.small_integer());
            assert_eq!(found, expected.get(&0).copied());
        }
    }
    assert!(whole.get(Symbol::from_number(99)).is_none());
    let expected: Vec<(u32, i64)> = expected.into_iter().collect();
    assert_eq!(integers(whole), expected);
    assert_eq!(integers(whole), expected);
    // The large set may also be on the right, and then it wins.
    let both = Set::update(set(&[(0, 1000), (1001, 1)]), whole);
    assert_eq!(both.get(Symbol::from_number(0)).and_then(|found| found.value.small_integer()), Some(expected[0].1));
    assert_eq!(both.len(), expected.len() + 1);
    let similar = Set::update(set(&[(1, 1), (2, 1), (5, 1)]), set(&[(2, 2), (3, 2)]));
    assert_eq!(integers(similar), [(1, 1), (2, 2), (3, 2), (5, 1)]);
}

#[test]
fn large_things_have_chunks_of_their_own() {
    let long = vec![7u8; SMALLEST_CHUNK * 3];
    let kept = bytes(&long);
    let small = place(5u64);
    assert_eq!((kept.len(), *small), (long.len(), 5));
    let slice = Slice::of(10, 0..5u32);
    assert_eq!(*slice, [0, 1, 2, 3, 4]);
    assert_eq!(*slice.at(2), 2);
    assert_eq!(Slice::new(Vec::<u64>::new()).len(), 0);
}

#[test]
fn values_of_one_thread_are_gone_with_it() {
    for _ in 0..4 {
        let length = std::thread::spawn(|| {
            let list = Value::list((0..1000).map(Value::integer).collect());
            match list.view() {
                View::List(list) => list.len(),
                _ => 0,
            }
        });
        assert_eq!(length.join().expect("the thread ends well"), 1000);
    }
}

fn kept(work: impl FnOnce() -> Value) -> (Value, usize) {
    let before = position();
    let value = region(|| Ok::<_, ()>(work())).expect("it does not fail");
    (value, position() - before - 8)
}

fn text(value: Value) -> Vec<u8> {
    match value.view() {
        View::String(text) => text.bytes.to_vec(),
        _ => panic!("it is a string"),
    }
}

fn garbage() -> Value {
    Value::list((0..500).map(Value::integer).collect())
}

#[test]
fn a_string_outlives_its_region_without_the_rest() {
    let long = "0123456789".repeat(20);
    for around in [true, false] {
        let (value, size) = kept(|| {
            if around {
                garbage();
            }
            let text = Value::string(&long);
            garbage();
            text
        });
        assert_eq!((text(value), size), (long.clone().into_bytes(), 216));
    }
    // Of what is older only the head is new.
    let old = bytes(long.as_bytes());
    let (value, size) = kept(|| {
        garbage();
        Value::text(old.part(3, 7), ContextId::NONE)
    });
    assert_eq!((text(value), size), (b"3456".to_vec(), 16));
    let (value, size) = kept(|| {
        garbage();
        Value::text(append(bytes(&[b'a'; 100]), b"bcd").part(50, 103), ContextId::NONE)
    });
    assert_eq!((text(value).ends_with(b"abcd"), size), (true, 72));
    // And what is put together afterwards does not grow where others are now.
    let (next, _) = kept(|| Value::string("next"));
    let View::String(grown) = value.view() else { panic!("it is a string") };
    assert_eq!(append(grown.bytes, b"!").last(), Some(&b'!'));
    assert_eq!(text(next), b"next");
}

#[test]
fn what_something_older_was_told_is_kept() {
    let old = Thunk::call(Value::NULL, Value::NULL);
    let (_, size) = kept(|| {
        let list = Value::list(vec![Value::string("kept")]);
        old.finish(list);
        garbage();
        Value::NULL
    });
    assert!((32..100).contains(&size), "{size}");
    kept(garbage);
    let View::List(list) = Value::from(old).known().view() else { panic!("it is a list") };
    assert_eq!(text(list.get(0).expect("it has one")), b"kept");
    // What is told of numbers keeps nothing, nor what tells only what goes with it.
    let old = Thunk::call(Value::NULL, Value::NULL);
    let (_, size) = kept(|| {
        let new = Thunk::call(Value::NULL, Value::NULL);
        new.finish(garbage());
        old.finish(Value::integer(5));
        Value::TRUE
    });
    assert_eq!(size, 0);
}

#[test]
fn what_was_told_matters_to_all_regions_around_that_are_newer() {
    let old = Thunk::call(Value::NULL, Value::NULL);
    let (_, size) = kept(|| {
        let between = Thunk::call(Value::NULL, Value::NULL);
        let (_, inner) = kept(|| {
            between.finish(Value::string("between"));
            Value::NULL
        });
        assert_eq!(inner, 24);
        // Kept inside, given back outside.
        Value::NULL
    });
    assert_eq!(size, 0);
    let (_, size) = kept(|| {
        kept(|| {
            // Afterwards what it can be told of lies before the base, and yet is new.
            let list = Thunk::call(Value::NULL, Value::NULL);
            old.finish(Value::list(vec![list.into()]));
            garbage();
            list.finish(Value::string("told later"));
            garbage();
            Value::NULL
        });
        garbage();
        Value::NULL
    });
    assert!(size > 4000);
    for _ in 0..3 {
        kept(garbage);
    }
    let View::List(list) = Value::from(old).known().view() else { panic!("it is a list") };
    assert_eq!(text(list.get(0).expect("it has one").known()), b"told later");
}

#[test]
fn what_is_kept_elsewhere_stays() {
    let mut elsewhere = Vec::new();
    kept(|| {
        kept(|| {
            elsewhere.push(Value::string("elsewhere"));
            keep();
            garbage();
            Value::NULL
        });
        Value::NULL
    });
    let (permanent, size) = kept(|| {
        elsewhere.push(permanently(|| Value::string("permanent")));
        garbage();
        Value::TRUE
    });
    assert!(permanent == Value::TRUE && size == 0, "{size}");
    kept(garbage);
    assert_eq!(elsewhere.into_iter().map(text).collect::<Vec<_>>(), [b"elsewhere", b"permanent"]);
}

#[test]
fn a_region_that_needs_another_chunk_keeps_all() {
    let (value, _) = kept(|| {
        let first = Value::string("first");
        let mut last = first;
        for _ in 0..3 * SMALLEST_CHUNK / 4000 {
            last = Value::list([last].into_iter().chain((0..500).map(Value::integer)).collect());
            kept(garbage);
        }
        last
    });
    let mut value = value;
    let mut depth = 0;
    while let View::List(list) = value.view() {
        value = list.get(0).expect("it has many");
        depth += 1;
    }
    assert_eq!((text(value), depth), (b"first".to_vec(), 3 * SMALLEST_CHUNK / 4000));
}
