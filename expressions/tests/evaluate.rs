//! From an expression to a plan.

use expressions::{Evaluated, Input, Request, Sources, evaluate};
use store::lock::Lock;

fn request(project: &std::path::Path, file: &str) -> Request {
    Request {
        input: Input::File(project.join(file)),
        attribute: String::new(),
        arguments: Vec::new(),
        system: "x86_64-linux".to_owned(),
        sources: Sources::pure(project),
        listener: None,
    }
}

#[test]
fn a_formation_of_files_becomes_a_plan() {
    let project = tempfile::tempdir().unwrap();
    let expression = r#"{ forge }: forge.formation { name = "hello"; version = "1";
        layers = [ (forge.files { "/app/hello" = ./hello.txt; "/app/text" = "some text"; }) ];
        command = [ "cat" "/app/hello" ]; environment.A = 1; limits.memory = "512M"; ports = [ 80 ]; }"#;
    std::fs::write(project.path().join("runtime.expr"), expression).unwrap();
    std::fs::write(project.path().join("hello.txt"), "hello\n").unwrap();
    let evaluated = evaluate(&request(project.path(), "runtime.expr"), &Lock::default()).unwrap();
    let Evaluated::Plan(plan) = evaluated else { panic!("{evaluated:?}") };
    assert_eq!(plan.goal.name, "hello");
    assert_eq!(plan.goal.launch.limits.memory, Some(512 << 20));
    assert_eq!(plan.goal.launch.environment[&b"A"[..]], b"1");
    assert_eq!((plan.derivations.len(), plan.sources.len()), (1, 2));
    let derivation = &plan.derivations[&plan.goal.layers[0].derivation];
    assert_eq!(derivation.input_sources.len(), 2);
}

#[test]
fn what_the_lock_does_not_answer_is_asked() {
    let project = tempfile::tempdir().unwrap();
    let expression = r#"{ forge }: forge.formation { name = "hello"; command = [ "true" ];
        layers = [ (forge.debian { packages = [ "hello" ]; }) (forge.python { requirements = [ "numpy" ]; }) ]; }"#;
    std::fs::write(project.path().join("runtime.expr"), expression).unwrap();
    let evaluated = evaluate(&request(project.path(), "runtime.expr"), &Lock::default()).unwrap();
    let Evaluated::Unlocked(questions) = evaluated else { panic!("{evaluated:?}") };
    let kinds: Vec<_> = questions.iter().map(|question| question.request.kind.as_str()).collect();
    assert_eq!(kinds, ["debian", "python"]);
}

#[test]
fn what_a_builtin_function_asks_is_where_it_was_called() {
    let project = tempfile::tempdir().unwrap();
    let expression = r#"{ forge }: forge.formation { name = "hello"; layers = [
  (forge.debian { packages = [ "hello" ]; })
  (forge.files { "/x" = builtins.fetchTarball "https://host.invalid/x.tar.gz"; })
]; }"#;
    std::fs::write(project.path().join("runtime.expr"), expression).unwrap();
    let evaluated = evaluate(&request(project.path(), "runtime.expr"), &Lock::default()).unwrap();
    let Evaluated::Unlocked(questions) = evaluated else { panic!("{evaluated:?}") };
    let lines = questions.iter().map(|question| question.place_of("").unwrap().line_and_column().0);
    assert_eq!(lines.collect::<Vec<_>>(), [2, 3], "{questions:?}");
}

#[test]
fn a_question_knows_where_the_user_wrote_what_an_answer_speaks_of() {
    let project = tempfile::tempdir().unwrap();
    let expression = r#"{ forge }:
let common = [ "shared" ]; in
forge.formation { name = "hello"; command = [ "true" ]; layers = [
  (forge.debian { suite = "bookworm"; packages = [ "hello" "git" ]; })
  (forge.debian { packages = common ++ [
    # "g++" is in a comment, too
    "x[y]" "g++" "hello-traditional=2.10" ]; })
]; }"#;
    std::fs::write(project.path().join("runtime.expr"), expression).unwrap();
    let evaluated = evaluate(&request(project.path(), "runtime.expr"), &Lock::default()).unwrap();
    let Evaluated::Unlocked(questions) = evaluated else { panic!("{evaluated:?}") };
    let [question] = questions.as_slice() else { panic!("{questions:?}") };
    for (failure, line, shown) in [
        ("Debian bookworm has no package `git`", 4, "\"git\""),
        ("has no package `hello`", 4, "\"hello\""),
        ("has no package `hello-traditional`", 7, "\"hello-traditional=2.10\""),
        ("no version of g++ fits", 7, "\"g++\""),
        // Put together elsewhere: the attribute.
        ("has no package `shared`", 5, "packages"),
        ("cannot fetch `index of suite bookworm`", 4, "\"bookworm\""),
        // Nothing that was written.
        ("has no package `gitk`", 4, "packages"),
    ] {
        let place = question.place_of(failure).unwrap();
        let text = String::from_utf8_lossy(&place.text.bytes[place.start..place.end]).into_owned();
        assert_eq!((place.line_and_column().0, text.as_str()), (line, shown), "{failure}");
    }
}
