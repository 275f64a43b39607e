//! Nothing that can be done to files makes the cache answer wrongly.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use expressions::{Input, Sources};

use super::*;

/// A project and a cache of its own.
struct Scene {
    directory: tempfile::TempDir,
    cache: EvaluationCache,
    variables: BTreeMap<OsString, OsString>,
    impure: bool,
}

impl Scene {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join("project");
        for (name, text) in files {
            let path = project.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        let place = directory.path().join("cache").into_os_string();
        let cache = EvaluationCache::new(&[("XDG_CACHE_HOME".into(), place)].into(), true);
        Self { directory, cache, variables: BTreeMap::new(), impure: false }
    }

    fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    fn request(&self) -> Request {
        let project = self.project();
        let mut sources = if self.impure { Sources::impure(&project) } else { Sources::pure(&project) };
        sources.environment.clone_from(&self.variables);
        sources.time = self.impure.then_some(7);
        Request {
            input: Input::File(project.join("default.nix")),
            attribute: String::new(),
            arguments: Vec::new(),
            system: "x86_64-linux".to_owned(),
            sources,
            listener: None,
        }
    }

    fn cache(&self) -> EvaluationCache {
        EvaluationCache { environment: self.variables.clone(), ..self.cache.clone() }
    }

    /// The value by way of the cache, and whether it came out of it.
    fn value(&self) -> (String, bool) {
        let request = self.request();
        let cache = self.cache();
        let key = Key::of("value").text("Nix true").request(&request, &Lock::default()).finish();
        let known = cache.look(cache.directory.as_deref().unwrap(), &key, SystemTime::now()).is_some();
        (text(cache.eval_to(&request, &Lock::default(), Format::Nix, true)), known)
    }

    /// The value as it is.
    fn truth(&self) -> String {
        text(expressions::eval_to(&self.request(), &Lock::default(), Format::Nix, true))
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache.directory.as_ref().unwrap()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn text(outcome: Result<Outcome<Vec<u8>>, Error>) -> String {
    match outcome {
        Ok(Outcome::Done(text)) => String::from_utf8(text).unwrap(),
        Ok(Outcome::Unlocked(requests)) => format!("{requests:?}"),
        Ok(Outcome::Unread(wanted)) => format!("{wanted:?}"),
        Err(error) => error.to_string(),
    }
}

/// Puts other bytes into a file, of the same length, and its time back.
fn rewrite(path: &Path, bytes: &str) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
}

/// What is done to a project; the files it has before; how.
type Change = (&'static str, &'static [(&'static str, &'static str)], fn(&mut Scene));

const CHANGES: &[Change] = &[
    (
        "a file's bytes, with its size and time as before",
        &[("default.nix", "import ./a.nix"), ("a.nix", "1")],
        |scene| {
            rewrite(&scene.project().join("a.nix"), "2");
        },
    ),
    ("the expression itself", &[("default.nix", "1")], |scene| rewrite(&scene.project().join("default.nix"), "2")),
    ("a file by another of the same size and time", &[("default.nix", "builtins.readFile ./a"), ("a", "1")], |scene| {
        let (new, old) = (scene.project().join("new"), scene.project().join("a"));
        fs::write(&new, "2").unwrap();
        File::open(&new).unwrap().set_modified(fs::metadata(&old).unwrap().modified().unwrap()).unwrap();
        fs::rename(new, old).unwrap();
    }),
    (
        "a link on the way",
        &[("default.nix", "builtins.readFile ./now/a"), ("one/a", "1"), ("two/a", "2"), ("now", "-> one")],
        |scene| {
            fs::remove_file(scene.project().join("now")).unwrap();
            symlink("two", scene.project().join("now")).unwrap();
        },
    ),
    (
        "a link in the middle of links",
        &[("default.nix", "import ./x"), ("x", "-> y"), ("y", "-> one.nix"), ("one.nix", "1"), ("two.nix", "2")],
        |scene| {
            fs::remove_file(scene.project().join("y")).unwrap();
            symlink("two.nix", scene.project().join("y")).unwrap();
        },
    ),
    ("a new file in a directory", &[("default.nix", "builtins.readDir ./d"), ("d/a", "")], |scene| {
        fs::write(scene.project().join("d/b"), "").unwrap();
    }),
    ("what an entry of a directory is", &[("default.nix", "builtins.readDir ./d"), ("d/a", "")], |scene| {
        fs::remove_file(scene.project().join("d/a")).unwrap();
        fs::create_dir(scene.project().join("d/a")).unwrap();
    }),
    ("a file that was not there", &[("default.nix", "builtins.pathExists ./a")], |scene| {
        fs::write(scene.project().join("a"), "").unwrap();
    }),
    ("a file that was there", &[("default.nix", "builtins.pathExists ./a"), ("a", "")], |scene| {
        fs::remove_file(scene.project().join("a")).unwrap();
    }),
    ("a directory that was not there", &[("default.nix", "builtins.pathExists (toString ./a + \"/\")")], |scene| {
        fs::create_dir(scene.project().join("a")).unwrap();
    }),
    ("what a path stands for", &[("default.nix", "builtins.readFileType ./a"), ("a", "")], |scene| {
        fs::remove_file(scene.project().join("a")).unwrap();
        symlink("b", scene.project().join("a")).unwrap();
    }),
    (
        "two files, one for the other",
        &[("default.nix", "[ (import ./a.nix) (import ./b.nix) ]"), ("a.nix", "1"), ("b.nix", "2")],
        |scene| {
            let at = |name: &str| scene.project().join(name);
            fs::rename(at("a.nix"), at("c.nix")).unwrap();
            fs::rename(at("b.nix"), at("a.nix")).unwrap();
            fs::rename(at("c.nix"), at("b.nix")).unwrap();
        },
    ),
    ("a file deep in a source", &[("default.nix", "\"${./s}\""), ("s/d/a", "1")], |scene| {
        rewrite(&scene.project().join("s/d/a"), "2");
    }),
    ("the mode of a file in a source", &[("default.nix", "\"${./s}\""), ("s/d/a", "1")], |scene| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(scene.project().join("s/d/a"), mode).unwrap();
    }),
    ("a link in a source", &[("default.nix", "\"${./s}\""), ("s/l", "-> a")], |scene| {
        fs::remove_file(scene.project().join("s/l")).unwrap();
        symlink("b", scene.project().join("s/l")).unwrap();
    }),
    (
        "a new file in a filtered source",
        &[
            ("default.nix", "\"${builtins.filterSource (path: type: baseNameOf path != \"no\") ./s}\""),
            ("s/a", "1"),
            ("s/no", "1"),
        ],
        |scene| fs::write(scene.project().join("s/b"), "").unwrap(),
    ),
    (
        "a default.nix that was a link",
        &[("default.nix", "import ./d"), ("d/default.nix", "-> a"), ("d/a", "1")],
        |scene| {
            fs::remove_file(scene.project().join("d/default.nix")).unwrap();
            fs::write(scene.project().join("d/default.nix"), "2").unwrap();
        },
    ),
    ("a link out of the project", &[("default.nix", "builtins.readFile ./d/a"), ("d/a", "1")], |scene| {
        let outside = scene.directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("a"), "1").unwrap();
        fs::remove_dir_all(scene.project().join("d")).unwrap();
        symlink(outside, scene.project().join("d")).unwrap();
    }),
    ("a variable", &[("default.nix", "builtins.getEnv \"A\"")], |scene| {
        scene.variables.insert("A".into(), "2".into());
    }),
    ("a file that ceases to be readable", &[("default.nix", "builtins.readFile ./a"), ("a", "1")], |scene| {
        fs::remove_file(scene.project().join("a")).unwrap();
        fs::create_dir(scene.project().join("a")).unwrap();
    }),
];

#[test]
fn every_change_is_noticed() {
    for impure in [true, false] {
        let scenes = CHANGES.iter().map(|(what, files, change)| {
            let mut scene = Scene::new(files);
            scene.impure = impure;
            (what, scene, change)
        });
        let mut scenes: Vec<_> = scenes.collect();
        // From here on how files look is believed.
        std::thread::sleep(Duration::from_millis(1200));
        for (what, scene, _) in &scenes {
            let truth = scene.truth();
            assert_eq!(scene.value(), (truth.clone(), false), "{what}");
            assert_eq!(scene.value(), (truth, true), "{what}: nothing was changed");
        }
        for (what, scene, change) in &mut scenes {
            let before = scene.truth();
            change(scene);
            let truth = scene.truth();
            let can_be_seen = impure || *what != &"a variable";
            assert_eq!(truth != before, can_be_seen && (*what != &"a link out of the project" || !impure), "{what}");
            assert_eq!(scene.value().0, truth, "{what}");
            assert_eq!(scene.value().0, truth, "{what}: once more");
        }
    }
}

#[test]
fn what_changes_within_a_tick_is_noticed() {
    let scene = Scene::new(&[("default.nix", "builtins.readFile ./a"), ("a", "0")]);
    for number in 1..40 {
        rewrite(&scene.project().join("a"), &(number % 10).to_string());
        assert_eq!(scene.value().0, scene.truth());
    }
}

#[test]
fn what_changes_while_it_is_evaluated_is_noticed() {
    let expression = "let a = builtins.readFile ./a; in builtins.seq a (builtins.trace \"now\" a)";
    let scene = Scene::new(&[("default.nix", expression), ("a", "1")]);
    std::thread::sleep(Duration::from_millis(1200));
    let path = scene.project().join("a");
    let listener: expressions::Listener = Arc::new(move |_| rewrite(&path, "2"));
    let request = Request { listener: Some(listener), ..scene.request() };
    assert_eq!(text(scene.cache().eval_to(&request, &Lock::default(), Format::Nix, true)), "\"1\"");
    assert_eq!(scene.value().0, "\"2\"");
}

#[test]
fn a_file_that_is_touched_or_comes_back_is_looked_at_once() {
    let scene = Scene::new(&[("default.nix", "import ./a.nix"), ("a.nix", "1")]);
    std::thread::sleep(Duration::from_millis(1200));
    scene.value();
    rewrite(&scene.project().join("a.nix"), "1");
    assert_eq!(scene.value(), ("1".to_owned(), true));
}

#[test]
fn the_clock_is_never_remembered_and_mistakes_are_not_either() {
    for expression in ["builtins.currentTime", "(import ./missing.nix)", "throw \"no\"", "{"] {
        let mut scene = Scene::new(&[("default.nix", expression)]);
        scene.impure = true;
        let first = scene.value();
        assert_eq!(scene.value(), (first.0, false), "{expression}");
        assert!(scene.entries().is_empty());
    }
}

#[test]
fn what_was_said_is_said_again() {
    let scene = Scene::new(&[("default.nix", "builtins.trace \"a\" (builtins.warn \"b\" 1)")]);
    let said = || {
        let said = Arc::new(Mutex::new(Vec::new()));
        let words = Arc::clone(&said);
        let listener: expressions::Listener = Arc::new(move |message| words.lock().unwrap().push(message.clone()));
        let request = Request { listener: Some(listener), ..scene.request() };
        assert_eq!(text(scene.cache().eval_to(&request, &Lock::default(), Format::Nix, true)), "1");
        std::mem::take(&mut *said.lock().unwrap())
    };
    let first = said();
    assert_eq!(first, [Message::Trace("a".into()), Message::EvaluationWarning("b".into())]);
    assert_eq!(said(), first);
    assert!(scene.value().1);
}

#[test]
fn another_question_is_another_entry() {
    let scene = Scene::new(&[("default.nix", "{ a ? 1, b ? 2 }: { inherit a b; }")]);
    let value = |change: &dyn Fn(&mut Request), lock: &Lock, format, strict| {
        let mut request = scene.request();
        change(&mut request);
        let truth = text(expressions::eval_to(&request, lock, format, strict));
        assert_eq!(text(scene.cache().eval_to(&request, lock, format, strict)), truth);
        assert_eq!(text(scene.cache().eval_to(&request, lock, format, strict)), truth);
    };
    let none = Lock::default();
    let locked =
        Lock::parse("version = 1\n[[lock]]\nkind = \"url\"\nrequest = { url = \"a\" }\nrecords = []\n").unwrap();
    let string = |text: &str| expressions::Argument::String(text.to_owned());
    value(&|_| {}, &none, Format::Nix, true);
    value(&|_| {}, &locked, Format::Nix, true);
    value(&|_| {}, &none, Format::Json, true);
    value(&|_| {}, &none, Format::Nix, false);
    value(&|request| request.attribute = "a".to_owned(), &none, Format::Nix, true);
    value(&|request| request.attribute = "b".to_owned(), &none, Format::Nix, true);
    value(&|request| request.arguments = vec![("a".to_owned(), string("b"))], &none, Format::Nix, true);
    value(&|request| request.arguments = vec![("b".to_owned(), string("a"))], &none, Format::Nix, true);
    let expression = expressions::Argument::Expression("3".to_owned());
    value(&move |request| request.arguments = vec![("a".to_owned(), expression.clone())], &none, Format::Nix, true);
    value(&|request| request.system = "aarch64-linux".to_owned(), &none, Format::Nix, true);
    value(&|request| request.sources.impure = true, &none, Format::Nix, true);
    value(&|request| request.sources.search_path.push(("a".to_owned(), "/a".into())), &none, Format::Nix, true);
    let text = b"{ a = 1; }".to_vec();
    let input = Input::Text { text, directory: scene.project() };
    value(&move |request| request.input = input.clone(), &none, Format::Nix, true);
    assert_eq!(scene.entries().len(), 13);
}

#[test]
fn damage_and_strangers_are_no_error() {
    let scene = Scene::new(&[("default.nix", "import ./a.nix"), ("a.nix", "\"text\"")]);
    scene.value();
    let [path] = &scene.entries()[..] else { panic!("one entry") };
    let good = fs::read(path).unwrap();
    for offset in 0..good.len() {
        let mut bad = good.clone();
        bad[offset] ^= 1 << (offset % 8);
        fs::write(path, bad).unwrap();
        assert_eq!(scene.value(), ("\"text\"".to_owned(), false));
        fs::write(path, &good[..offset]).unwrap();
        assert_eq!(scene.value(), ("\"text\"".to_owned(), false));
    }
    assert_eq!(scene.value(), ("\"text\"".to_owned(), true), "what was damaged is replaced");
    // Even with a checksum that is right, whatever stands before it.
    let key = [7; 32];
    let mut seed = 1u64;
    for length in 0..200 {
        let mut bytes = [&b"forge evaluation 1\n"[..], &key].concat();
        for _ in 0..length {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            bytes.push((seed >> 40) as u8 % 9);
        }
        let digest = store::BlobId::of(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        if let Some(entry) = Entry::decode(&key, &bytes) {
            assert!(entry.facts.is_empty(), "{bytes:?}");
        }
    }
    // A directory where the entry should be, and a cache that others can write to.
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    assert_eq!(scene.value(), ("\"text\"".to_owned(), false));
    let place = scene.cache.directory.clone().unwrap();
    fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert!(!is_ours(&place));
    assert!(!is_ours(Path::new("/proc/forge")));
}

#[test]
fn many_at_once_and_someone_who_spoils_everything() {
    let scene = Scene::new(&[("default.nix", "import ./a.nix"), ("a.nix", "[ 1 2 3 ]")]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for path in scene.entries() {
                    let _ = fs::write(path, "spoilt");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let workers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..25).for_each(|_| assert_eq!(scene.value().0, "[ 1 2 3 ]")))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    for age in 0..8u64 {
        let file = File::create(directory.path().join(age.to_string())).unwrap();
        file.set_len(1 << 10).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age)).unwrap();
    }
    prune_to(directory.path(), 6 << 10);
    let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["0", "1", "2", "3"]);
}

#[test]
fn a_plan_comes_back_whole() {
    let expression = r#"{ forge }: forge.formation {
      name = "a";
      version = "1";
      layers = [
        (forge.files { "/app" = ./app; "/text" = builtins.toFile "t" "x"; "/some" = builtins.path { path = ./app; name = "some"; filter = path: type: type == "directory"; }; })
        (forge.run { command = [ "/bin/true" ]; environment.A = "é\n"; })
      ];
      environment.PATH = "/bin";
      command = [ "sh" "-c" "true" ];
      user = "7:8";
      limits = { memory = "1M"; timeout = "10s"; };
    }"#;
    let scene = Scene::new(&[("default.nix", expression), ("app/a", "1"), ("app/d/b", "2")]);
    let plan = |cache: &EvaluationCache| match cache.evaluate(&scene.request(), &Lock::default()) {
        Ok(Evaluated::Plan(plan)) => plan,
        other => panic!("{other:?}"),
    };
    let truth = plan(&EvaluationCache::none());
    assert!(truth.derivations.len() > 1 && truth.sources.len() > 2);
    let cache = scene.cache();
    assert_eq!(plan(&cache), truth);
    let key = Key::of("plan").request(&scene.request(), &Lock::default()).finish();
    let entry = cache.look(cache.directory.as_deref().unwrap(), &key, SystemTime::now()).unwrap();
    assert_eq!(entry.kept, Kept::Plan(truth.clone()));
    assert_eq!(plan(&cache), truth);
}
