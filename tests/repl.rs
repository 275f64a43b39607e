//! `forge repl`, without a terminal and with one.

use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::world::{World, have};

/// What a session answers: stdout and stderr.
fn talk(world: &World, arguments: &[&str], lines: &str) -> (String, String) {
    let ran = world.forge_with_input(std::iter::once(&"repl").chain(arguments), lines.as_bytes());
    ran.ok();
    (ran.stdout, ran.stderr)
}

#[test]
fn a_session_answers_line_by_line() {
    let lines =
        "1 + 1\nx = { a = 1; b = \"two\"; }\nx\n:t x.b\n:p x.b\nlet\n  y = 2;\nin\n  y\n# words\n\n[ 1 { a = 1; } ]\n";
    let (answers, words) = talk(&World::new(), &[], lines);
    assert_eq!(answers, "2\n{\n  a = 1;\n  b = \"two\";\n}\na string\ntwo\n2\n[\n  1\n  { ... }\n]\n");
    assert_eq!(words, "");
}

#[test]
fn an_error_shows_its_place_and_does_not_end_the_session() {
    let (answers, words) =
        talk(&World::new(), &[], "set = { first = 1; }\nset.frist\n(1 + \"a\"\n)\n:nonsense\n:t\n1\n");
    assert_eq!(answers, "1\n");
    assert!(words.contains("attribute 'frist' missing") && words.contains("did you mean `first`?"), "{words}");
    assert!(words.contains("1 | set.frist"), "{words}");
    assert!(words.contains("cannot add a string to an integer"), "{words}");
    assert!(words.contains("no command `:nonsense`") && words.contains(":t wants expr"), "{words}");
}

#[test]
fn a_file_and_the_library_are_in_scope() {
    let world = World::new();
    world.write("runtime.expr", "{ forge, suite ? \"bookworm\" }: { inherit suite; twice = x: x + x; }\n");
    let (answers, words) =
        talk(&world, &["runtime.expr", "--argstr", "suite", "trixie"], "suite\ntwice 2\nforge ? formation\n:ll\n");
    assert_eq!(answers, "\"trixie\"\n4\ntrue\nsuite\ntwice\n");
    assert_eq!(words, "added 2 names: suite, twice\n");
    world.write("other.expr", "{ number = 1; }");
    let (answers, words) = talk(&world, &[], ":l other.expr\nnumber\n:r\n:a { more = 2; }\nmore\n:q\nnever\n");
    assert_eq!(answers, "1\n2\n");
    assert!(words.contains("added 1 name: number\n") && words.contains("loading "), "{words}");
}

#[test]
fn a_session_builds_nothing_and_says_so() {
    let (_, words) =
        talk(&World::new(), &[], ":b derivation { name = \"x\"; system = \"s\"; builder = \"b\"; }\n:b 1\n");
    assert!(words.contains("a session builds nothing") && words.contains("forge build"), "{words}");
    assert!(words.contains("this is no derivation"), "{words}");
}

#[test]
fn documentation_is_shown() {
    let world = World::new();
    let lines = "f = /** Adds one. */ x: x + 1\n:doc f\n:doc builtins.map\n:doc 1\n";
    let (answers, words) = talk(&world, &[], lines);
    assert!(answers.starts_with("function `f`\ndefined at «repl»:1:22\n\nAdds one.\n"), "{answers}");
    assert!(answers.contains("builtins.map function list"), "{answers}");
    assert!(words.contains("no documentation"), "{words}");
}

#[test]
fn answers_are_json_if_asked() {
    let (answers, _) = talk(&World::new(), &["--json"], "{ a = [ 1 (1 + 1) ]; }\n\"x\"\n");
    assert_eq!(answers, "{\"a\":[1,2]}\n\"x\"\n");
}

#[test]
fn an_interrupt_ends_what_is_evaluated_and_not_the_session() {
    let world = World::new();
    let mut command = world.command(["repl"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let numbers = "builtins.genList (x: x) 100000";
    let sum = |each: &str| format!("builtins.foldl' (a: b: {each}) 0 ({numbers})");
    stdin.write_all(format!("\"begun\"\nx = {}\nx\n", sum(&sum("a + b"))).as_bytes()).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut begun = [0; 8];
    stdout.read_exact(&mut begun).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    stdin.write_all(b"1 + 1\n").unwrap();
    drop(stdin);
    let mut answers = String::new();
    stdout.read_to_string(&mut answers).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(answers, "2\n");
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: interrupted\n");
}

/// Waits until a terminal shows something after what was seen before.
fn wait(shown: &Arc<Mutex<String>>, seen: &mut usize, wanted: &str) {
    let begun = Instant::now();
    loop {
        let text = shown.lock().unwrap().clone();
        if let Some(at) = text[*seen..].find(wanted) {
            *seen += at + wanted.len();
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no `{wanted}` in {text:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_terminal_completes_names_and_keeps_the_history() {
    if !have("script") {
        return;
    }
    let world = World::new();
    // `script` takes one word, for the shell.
    let command = world.command([""; 0]);
    let forge = command.get_program().to_string_lossy().into_owned();
    let mut command = {
        let mut other = std::process::Command::new("script");
        other.args(["-qfec", &format!("{forge} repl"), "/dev/null"]).env_clear().current_dir(world.path("project"));
        for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            other.env(name, value);
        }
        other.env("TERM", "xterm");
        other
    };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let shown = Arc::new(Mutex::new(String::new()));
    let writer = Arc::clone(&shown);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            writer.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
    let mut seen = 0;
    for (typed, answer) in [
        ("set = { greeting = \"good day\"; }\r", "good day"),
        ("set.gree\t\r", "good day"),
        (":t set.greeting\r", "a string"),
    ] {
        wait(&shown, &mut seen, "forge> ");
        stdin.write_all(typed.as_bytes()).unwrap();
        wait(&shown, &mut seen, answer);
    }
    wait(&shown, &mut seen, "forge> ");
    stdin.write_all(b":q\r").unwrap();
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
    let history = std::fs::read_to_string(world.path("home/.local/state/forge/repl-history")).unwrap();
    assert!(history.contains("\nset.greeting\n") && history.contains("\n:t set.greeting\n"), "{history}");
}
