//! What of the network a step reaches: the hosts that a fixed output names, and nothing else.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::building::shell;
use crate::world::World;

/// Answers every request on a port of the loopback with `text`; counts them. The thread ends with the tests.
fn serve(text: &'static str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
    });
    (port, asked)
}

/// A derivation whose output must be `text`; `more` are further attributes.
fn fixed(text: &str, more: &str, script: &str) -> String {
    format!(
        r#"derivation {{
  name = "fetched";
  system = "${{builtins.currentSystem or "x86_64-linux"}}";
  builder = "${{./seed}}/busybox";
  args = [ "sh" "-c" "{script}" ];
  outputHashAlgo = "sha256";
  outputHash = builtins.hashString "sha256" "{text}";
  {more}
}}
"#
    )
}

#[test]
fn a_fixed_output_reaches_the_hosts_that_it_names_and_no_other() {
    for world in [Some(World::new()), World::of_ordinary_user()].into_iter().flatten() {
        if shell(&world).is_none() {
            eprintln!("skipped: no static busybox here");
            return;
        }
        let (named, asked) = serve("hello");
        let (other, refused) = serve("never");
        // By an address in an attribute; the program needs not know of it.
        let wget = |host: &str| format!("${{./seed}}/busybox wget -q -O $out http://{host}/file");
        let url = format!("url = \"http://localhost:{named}/file\";");
        world.write(
            "fetch.nix",
            &fixed("hello", &url, &format!("${{./seed}}/busybox wget -q -O $out $url && echo {}", 1)),
        );
        world.forge(["build", "fetch.nix"]).ok();
        assert_eq!(asked.load(Ordering::SeqCst), 1);

        // A word of `allowedHosts`, and what the other server has for those who have not named it.
        let words = format!("allowedHosts = \"host.example localhost:{named}\";");
        let script = "${./seed}/busybox sh -c 'b=${./seed}/busybox; c=:; for port in $other; do $b wget -q -O - http://localhost:$port/; \
            $b wget -q -O - http://127.0.0.1:$port/; done; $b wget -q -O - http$c//other.example/; \
            $b wget -q -O $out http://localhost:$named/x'";
        let more = format!("{words} named = {named}; other = {other};");
        world.write("words.nix", &fixed("hello", &more, script).replace("\"fetched\"", "\"words\""));
        world.forge(["build", "words.nix"]).ok();
        let log = world.forge(["log", "words"]).ok().stdout.clone();
        assert!(log.contains("asked for host `other.example`, which it does not name"), "{log}");
        assert_eq!((asked.load(Ordering::SeqCst), refused.load(Ordering::SeqCst)), (2, 0), "{log}");

        // Without a name there is no way out, and the failure says what is missing.
        let script = wget("localhost:1").replace("localhost:1", "other.example");
        world.write(
            "none.nix",
            &fixed("x", "allowedHosts = \"host.example\";", &script.replace("http://", "'http:''//'")),
        );
        let ran = world.forge(["build", "none.nix"]);
        assert_eq!(ran.code, Some(100), "{}", ran.stderr);
        assert!(ran.stderr.contains("asked for host"), "{}", ran.stderr);

        // What is not fixed sees nothing, whatever it names.
        world.write(
            "floating.nix",
            &fixed("x", &url, "! ${./seed}/busybox wget -q -O - $url; echo ok > $out").replace("outputHash", "unused"),
        );
        world.forge(["build", "floating.nix"]).ok();
        assert_eq!(asked.load(Ordering::SeqCst), 2);

        world.write("bad.nix", &fixed("x", "allowedHosts = \"https://x\";", "true"));
        let ran = world.forge(["build", "bad.nix"]);
        assert!(ran.code == Some(100) && ran.stderr.contains("allowedHosts"), "{}", ran.stderr);
    }
}

#[test]
fn a_command_that_says_what_comes_out_may_reach_hosts() {
    let world = World::new();
    if shell(&world).is_none() {
        eprintln!("skipped: no static busybox here");
        return;
    }
    let (port, asked) = serve("hello");
    let expression = |hash: &str| {
        format!(
            r#"{{ forge }}:
let base = forge.files {{ "/bin/busybox" = ./seed/busybox; }};
in forge.formation {{
  name = "fetched";
  layers = [
    base
    (forge.run {{
      layers = [ base ];
      command = [ "/bin/busybox" "wget" "-q" "-O" "/file" "http://localhost:{port}/" ];
      hosts = [ "localhost:{port}" ];
      {hash}
    }})
  ];
  command = [ "/bin/busybox" "cat" "/file" ];
}}
"#
        )
    };
    world.write("runtime.expr", &expression(""));
    let ran = world.forge(["build"]);
    assert!(ran.stderr.contains("`outputHash`") && asked.load(Ordering::SeqCst) == 0, "{}", ran.stderr);
    world.write("runtime.expr", &expression("outputHash = \"\";"));
    let ran = world.forge(["build"]);
    assert_eq!(ran.code, Some(102), "{}", ran.stderr);
    let came = ran.stderr.split("gave ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default().to_owned();
    world.write("runtime.expr", &expression(&format!("outputHash = \"{came}\";")));
    let id = world.build("runtime.expr");
    // Nothing of how names are found stays behind.
    assert_eq!(world.forge(["run", &id]).ok().stdout, "hello");
    let listed = world.forge(["run", &id, "--", "/bin/busybox", "find", "/", "-xdev", "-type", "f"]);
    let files: Vec<&str> = listed.ok().stdout.lines().filter(|path| !path.starts_with("/proc")).collect();
    assert!(!files.contains(&"/etc/resolv.conf") || files.contains(&"/file"), "{files:?}");
    assert_eq!(world.forge(["build", "--check"]).ok().id(), id);
}
