# What the library's functions check of their arguments: the first that is wrong is shown where the user wrote it.
{ fail, wrong, ... }:
let
  inherit (builtins)
    all
    head
    isAttrs
    isBool
    isList
    isPath
    isString
    match
    tail
    ;

  isTexts = value: isList value && all isString value;

  # A rule: whether it holds, of which attribute, what the attribute is, and how that is said.
  rule = is: good: name: value: example: {
    inherit name;
    good = good value;
    say = wrong;
    message = "`${name}` is ${is}${if example == null then "" else ", for instance ${example}"}";
  };
in
{
  # `caller`: the function's name; `arguments`: what the user wrote; `rules`: in the order in which they are asked. Gives `value`.
  checked =
    caller: arguments: rules: value:
    let
      go =
        left:
        let
          first = head left;
        in
        if left == [ ] then
          value
        else if first.good then
          go (tail left)
        else
          first.say arguments first.name "${caller}: ${first.message}";
    in
    go rules;

  # Rules: an attribute, its value, and an example or null.
  is = {
    text = rule "a string" isString;
    script = rule "a text for /bin/sh" isString;
    texts = rule "a list of strings" isTexts;
    bool = rule "true or false" isBool;
    set = rule "an attribute set" isAttrs;
    layers = rule "a list of layers" isList;
    absolute = rule "an absolute path" (value: isString value && match "/.*" value != null);
    # The path of something, in words.
    path = what: rule "the path of ${what}" isPath;
    # What has words and a condition of its own.
    such =
      what: good: name: value: example:
      rule what (_: good) name value example;
  };

  # Nothing, or what a rule says.
  orNull =
    rule: name: value: example:
    let
      asked = rule name value example;
    in
    asked // { good = value == null || asked.good; };

  # A condition between arguments, or on what they hold.
  holds = good: name: message: {
    inherit good name message;
    say = fail;
  };
}
