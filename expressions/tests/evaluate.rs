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
    let Evaluated::Unlocked(requests) = evaluated else { panic!("{evaluated:?}") };
    let kinds: Vec<_> = requests.iter().map(|request| request.kind.as_str()).collect();
    assert_eq!(kinds, ["debian", "python"]);
}
