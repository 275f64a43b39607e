//! A line on each builtin, in our own words.

use super::Documentation;

/// Name, arguments, and what it does; sorted by name.
const TEXTS: &[(&str, &str, &str)] = &[
    ("abort", "message", "Ends the evaluation with a message. `tryEval` does not catch it."),
    ("add", "a b", "The sum of two numbers: `a + b`."),
    (
        "addDrvOutputDependencies",
        "text",
        "The text, with its reference to a `.drv` file turned into one to that derivation and all its outputs.",
    ),
    ("addErrorContext", "message value", "The value; if evaluating it fails, the message is part of the trace."),
    ("all", "predicate list", "Whether the predicate holds for all items."),
    ("any", "predicate list", "Whether the predicate holds for some item."),
    ("appendContext", "text context", "The text with more references to store paths, as `getContext` describes them."),
    ("attrNames", "set", "The names of a set's attributes, sorted by their bytes."),
    ("attrValues", "set", "The values of a set's attributes, in order of their names."),
    ("baseNameOf", "path", "What follows the last slash of a path or text."),
    ("bitAnd", "a b", "The bits that both integers have."),
    ("bitOr", "a b", "The bits that either integer has."),
    ("bitXor", "a b", "The bits that one of the integers has and the other has not."),
    ("break", "value", "The value. In a debugger, evaluation stops here."),
    ("catAttrs", "name list", "The values of an attribute in those sets of a list that have it."),
    ("ceil", "number", "The smallest integer that is not less than the number."),
    ("compareVersions", "a b", "-1, 0 or 1: whether version `a` is older than, the same as or newer than version `b`."),
    ("concatLists", "lists", "The items of several lists, as one list."),
    ("concatMap", "function list", "The lists that a function gives for each item, as one list."),
    ("concatStringsSep", "separator list", "The texts of a list with a separator between them."),
    (
        "convertHash",
        "{ hash, toHashFormat, hashAlgo ? }",
        "A hash written another way: `base16`, `nix32`, `base64` or `sri`.",
    ),
    ("deepSeq", "a b", "`b`, after all of `a` has been evaluated."),
    (
        "derivationStrict",
        "attributes",
        "What `derivation` is made of: the paths of the `.drv` file and of all outputs.",
    ),
    ("dirOf", "path", "What precedes the last slash of a path or text."),
    ("div", "a b", "The quotient of two numbers: `a / b`."),
    ("elem", "value list", "Whether an item of the list equals the value."),
    ("elemAt", "list index", "An item of a list; the first has index 0."),
    ("fetchGit", "arguments", "A tree of a Git repository."),
    ("fetchMercurial", "arguments", "A tree of a Mercurial repository."),
    ("fetchTarball", "arguments", "The unpacked content of an archive."),
    ("fetchTree", "arguments", "A tree from where the arguments say: an archive, a repository, a directory."),
    ("fetchurl", "arguments", "A file of the network."),
    ("filter", "predicate list", "The items for which the predicate holds."),
    ("filterSource", "predicate path", "A copy of a directory with the files for which `predicate path type` holds."),
    ("findFile", "search name", "What `<name>` stands for in a search path such as `nixPath`."),
    ("flakeRefToString", "attributes", "A flake reference as one writes it, from its attributes."),
    ("floor", "number", "The largest integer that is not greater than the number."),
    (
        "foldl'",
        "operator start list",
        "`operator (operator start first) second` and so on; each result is evaluated before the next call.",
    ),
    ("fromJSON", "text", "The value that a JSON text stands for."),
    ("fromTOML", "text", "The value that a TOML text stands for."),
    ("functionArgs", "function", "The attributes that a function wants, each with whether it has a default."),
    ("genList", "function count", "The function's results for 0, 1, … up to `count - 1`."),
    (
        "genericClosure",
        "{ startSet, operator }",
        "All items that the operator leads to, from those of `startSet`; each `key` once.",
    ),
    ("getAttr", "name set", "The attribute of that name: `set.${name}`."),
    ("getContext", "text", "The store paths that a text refers to."),
    ("getEnv", "name", "A variable of the environment; empty in a pure evaluation."),
    ("getFlake", "reference", "A flake's outputs and what describes it."),
    ("groupBy", "function list", "A set of lists: the items by the name that the function gives for each."),
    ("hasAttr", "name set", "Whether a set has an attribute of that name: `set ? ${name}`."),
    ("hasContext", "text", "Whether a text refers to a store path."),
    ("hashFile", "algorithm path", "The digest of a file, in base 16."),
    ("hashString", "algorithm text", "The digest of a text, in base 16."),
    ("head", "list", "The first item."),
    ("import", "path", "The value of the expression in a file, or in the `default.nix` of a directory."),
    ("intersectAttrs", "a b", "The attributes of `b` whose names are in `a`."),
    ("isAttrs", "value", "Whether it is a set."),
    ("isBool", "value", "Whether it is a Boolean."),
    ("isFloat", "value", "Whether it is a number with a fraction."),
    ("isFunction", "value", "Whether it is a function."),
    ("isInt", "value", "Whether it is an integer."),
    ("isList", "value", "Whether it is a list."),
    ("isNull", "value", "Whether it is null."),
    ("isPath", "value", "Whether it is a path."),
    ("isString", "value", "Whether it is a string."),
    ("length", "list", "How many items there are."),
    ("lessThan", "a b", "Whether `a < b`, for numbers, strings, paths and lists."),
    ("listToAttrs", "list", "The set with an attribute for each `{ name; value; }`; the first of a name counts."),
    ("map", "function list", "The function's results for each item."),
    ("mapAttrs", "function set", "The set with `function name value` for each value."),
    (
        "match",
        "regex text",
        "The groups of a POSIX extended regular expression that matches the whole text, else null.",
    ),
    ("mul", "a b", "The product of two numbers: `a * b`."),
    ("outputOf", "reference name", "A placeholder for an output of a derivation that is itself built."),
    ("parseDrvName", "text", "A package's name taken apart: `{ name; version; }`."),
    ("parseFlakeRef", "text", "The attributes of a flake reference."),
    ("partition", "predicate list", "`{ right; wrong; }`: the items for which the predicate holds, and the others."),
    (
        "path",
        "{ path, name ?, filter ?, recursive ?, sha256 ? }",
        "A copy of a file or directory in the store, by what it contains.",
    ),
    ("pathExists", "path", "Whether there is something at a path."),
    ("placeholder", "output", "Stands for an output's path in what the derivation itself is made from."),
    (
        "readDir",
        "path",
        "The entries of a directory and what they are: `regular`, `directory`, `symlink` or `unknown`.",
    ),
    ("readFile", "path", "The content of a file."),
    ("readFileType", "path", "What a path is: `regular`, `directory`, `symlink` or `unknown`."),
    ("removeAttrs", "set names", "The set without those attributes."),
    (
        "replaceStrings",
        "from to text",
        "The text, with each occurrence of an item of `from` replaced by its fellow in `to`.",
    ),
    ("scopedImport", "scope path", "Like `import`, with the attributes of a set visible in the file."),
    ("seq", "a b", "`b`, after it is known what `a` is."),
    ("sort", "less list", "The items in the order that `less a b` says; equal ones stay as they are."),
    ("split", "regex text", "The parts of a text between matches, and the groups of each match between those."),
    ("splitVersion", "version", "The components that versions are compared by."),
    ("storePath", "path", "A path that is in the store already, with a reference to it."),
    ("stringLength", "text", "How many bytes there are."),
    ("sub", "a b", "The difference of two numbers: `a - b`."),
    ("substring", "start length text", "A part of a text, in bytes; with a negative length all that follows."),
    ("tail", "list", "All items but the first."),
    ("throw", "message", "Fails with a message. `tryEval` catches it."),
    ("toFile", "name text", "A file of the store with that text."),
    ("toJSON", "value", "The value as JSON."),
    ("toPath", "text", "An absolute path, as a string."),
    (
        "toString",
        "value",
        "The value as a string: lists with blanks between the items, `true` as 1, `false` and null as nothing.",
    ),
    ("toXML", "value", "The value as XML."),
    ("trace", "message value", "The value; the message is printed when it is evaluated."),
    ("traceVerbose", "message value", "Like `trace`, where `--trace-verbose` is given."),
    (
        "tryEval",
        "value",
        "`{ success; value; }`: whether it is known what the value is, or a `throw` or `assert` prevented that.",
    ),
    ("typeOf", "value", "`int`, `bool`, `string`, `path`, `null`, `set`, `list`, `lambda` or `float`."),
    (
        "unsafeDiscardOutputDependency",
        "text",
        "The text, with its references to derivations turned into references to their `.drv` files alone.",
    ),
    ("unsafeDiscardStringContext", "text", "The text without its references to store paths."),
    ("unsafeGetAttrPos", "name set", "Where an attribute is defined: `{ file; line; column; }`, or null."),
    ("warn", "message value", "The value; the message is printed as a warning when it is evaluated."),
    (
        "zipAttrsWith",
        "function sets",
        "One set: for each name `function name values`, with the values of all sets that have it.",
    ),
];

/// What there is to say about a builtin.
pub fn find(name: &str) -> Option<Documentation> {
    // As Nix calls those that have a shorter name with underscores.
    let name = name.trim_start_matches("__");
    let number = TEXTS.binary_search_by_key(&name, |(name, _, _)| *name).ok()?;
    let (name, arguments, text) = TEXTS[number];
    Some(Documentation { title: format!("builtins.{name} {arguments}"), place: None, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use crate::Sources;
    use crate::eval::Evaluator;

    #[test]
    fn every_builtin_is_explained() {
        let evaluator = Evaluator::new(Sources::default(), crate::settings::Settings::forge(), None, None);
        for value in evaluator.globals.values() {
            if let crate::value::View::Builtin(builtin) = value.view() {
                assert!(super::find(builtin.name).is_some(), "{}", builtin.name);
            }
        }
        assert!(super::TEXTS.is_sorted_by_key(|(name, _, _)| *name));
    }
}
