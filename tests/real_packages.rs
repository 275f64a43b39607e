//! The ecosystems on real packages: minutes, and the network. Run by `just ecosystems` (`--ignored`).
//!
//! Each is judged alike: built and run, made once more elsewhere and compared (`--check`), made again without network in an empty store
//! from its lock and what was fetched, and made by an ordinary user; all with one id.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::world::{Ran, World, have, is_root};

/// Builds an example of the documentation; gives its id.
fn example(world: &World, name: &str) -> String {
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name), world);
    // What the network decides now.
    let _ = fs::remove_file(world.path("project/forge.lock"));
    let built = world.forge(["build", "."]);
    built.ok();
    built.id()
}

/// Copies the files of a directory into a world's project.
fn copy(source: &Path, to: &World) {
    let mut open = vec![source.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let below = path.strip_prefix(source).unwrap().display().to_string();
            if path.is_dir() {
                open.push(path);
            } else {
                let place = to.write(&below, "");
                fs::copy(&path, place).unwrap();
            }
        }
    }
}

/// Builds what lies in the project, runs it, and holds it to everything that is promised of it; gives its id.
fn judged(world: &World, said: &str) -> String {
    let id = world.build(".");
    let ran = world.forge(["run", &id]);
    assert!(ran.code == Some(0) && ran.stdout.contains(said), "{said}: {}{}", ran.stdout, ran.stderr);
    let checked = world.forge(["build", "--check", "."]);
    assert_eq!(checked.ok().id(), id, "{}", checked.stderr);
    let peer = format!("file://{}", world.path("peer").display());
    world.forge(["push", "--sources", &id, &peer]).ok();
    if have("unshare") && is_root() {
        let other = World::new();
        copy(&world.path("project"), &other);
        other.forge(["remote", "add", "team", &peer]).ok();
        let again = other.wrapped(&["unshare", "-n"], ["build", "--locked", "."]).output().unwrap();
        assert_eq!(Ran::of(again).ok().id(), id, "without network");
    }
    if let Some(user) = World::of_ordinary_user() {
        copy(&world.path("project"), &user);
        let built = user.forge(["build", "--locked", "."]);
        assert_eq!(built.ok().id(), id, "an ordinary user");
        assert_eq!(user.forge(["run", &id]).ok().stdout, ran.stdout);
    }
    id
}

/// A formation of these layers and command, as the project's expression.
fn write_formation(world: &World, name: &str, layers: &str, command: &str) {
    let text = format!(
        "{{ forge }}:\nforge.formation {{\n  name = \"{name}\";\n  version = \"1.0.0\";\n  layers = [\n{layers}\n  ];\n  command = [ {command} ];\n}}\n"
    );
    world.write("runtime.expr", &text);
}

/// Runs a tool of the host in the project.
fn tool(world: &World, words: &[&str]) {
    let ran = Command::new(words[0]).args(&words[1..]).current_dir(world.path("project")).output().unwrap();
    assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn the_examples_build_run_and_are_tested() {
    for (name, runtime, said) in
        [("web", "web", "{\"hello\":\"test\"}"), ("joblet", "python-report", "3.11"), ("program", "count", "1 000")]
    {
        let world = World::new();
        example(&world, name);
        let tested = world.forge(["test", runtime]);
        assert!(tested.ok().stdout.contains(said), "{name}: {}", tested.stdout);
        assert!(tested.stderr.contains("passed"), "{}", tested.stderr);
        // Joblet's own words are kept beside what became of them.
        let info: serde_json::Value =
            serde_json::from_str(&world.forge(["info", runtime, "--json"]).ok().stdout).unwrap();
        let described = fs::read_to_string(world.path("project/runtime.yaml")).ok();
        assert_eq!(info["original_yaml"].as_str(), described.as_deref());
    }
    let world = World::new();
    let id = example(&world, "service");
    assert_eq!(world.forge(["run", &id]).ok().stdout, "hello from Java 17\n");
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn node_modules_are_what_npm_makes_of_the_same_lock() {
    if !have("npm") {
        return;
    }
    let world = World::new();
    let id = example(&world, "web");
    let npm = world.path("out");
    for name in ["package.json", "package-lock.json"] {
        fs::copy(world.path("project").join(name), npm.join(name)).unwrap();
    }
    let installed =
        Command::new("npm").args(["ci", "--ignore-scripts", "--omit=dev"]).current_dir(&npm).output().unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let bind = format!("{}:/npm:ro", npm.display());
    let compared = world.forge([
        "run",
        &id,
        "--bind",
        &bind,
        "--",
        "diff",
        "-r",
        "--no-dereference",
        "/app/node_modules",
        "/npm/node_modules",
    ]);
    assert!(compared.code == Some(0), "{}{}", compared.stdout, compared.stderr);
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn python_s_lock_files_are_followed_and_sources_built() {
    let world = World::new();
    let formation = |layer: &str| {
        format!(
            "{{ forge }}:\nforge.formation {{\n  name = \"p\";\n  layers = [\n    (forge.debian {{ packages = [ \"python3\" ]; }})\n    ({layer})\n  ];\n}}\n"
        )
    };
    // docopt comes only as a source distribution.
    world.write("runtime.expr", &formation("forge.python { requirements = [ \"docopt\" \"click==8.1.7\" ]; }"));
    let id = world.build("runtime.expr");
    let ran = world.forge([
        "run",
        &id,
        "--",
        "python3",
        "-c",
        "import docopt, click; print(docopt.__version__, click.__version__)",
    ]);
    assert_eq!(ran.ok().stdout, "0.6.2 8.1.7\n");
    world.write("pyproject.toml", "[project]\nname = \"x\"\nversion = \"1\"\ndependencies = [\"six\"]\n[project.optional-dependencies]\ncli = [\"click==8.1.7\"]\n");
    world.write("runtime.expr", &formation("forge.python { lock = ./pyproject.toml; extras = [ \"cli\" ]; }"));
    let id = world.build("runtime.expr");
    world.forge(["run", &id, "--", "python3", "-c", "import six, click"]).ok();
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn every_runtime_that_comes_with_forge_passes_its_test() {
    let world = World::new();
    for name in ["python-3.11", "openjdk-17", "nodejs-20", "openjdk-21", "python-3.11-ml"] {
        world.forge(["build", name]).ok();
        let tested = world.forge(["test", name]);
        assert!(tested.ok().stderr.contains("passed"), "{name}: {}", tested.stderr);
    }
    let list = world.forge(["list", "--json"]).json();
    assert_eq!(list["total"], 5);
}

const SCIENCE: &str = r#"
import io, numpy, pandas, scipy.optimize, sympy, xarray, docopt, matplotlib
from sklearn.ensemble import RandomForestClassifier
matplotlib.use("Agg")
import matplotlib.pyplot
x = numpy.linspace(0, 4, 50)
(a, b), _ = scipy.optimize.curve_fit(lambda x, a, b: a * x + b, x, 3 * x + 1)
forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(x.reshape(-1, 1), x > 2)
picture = io.BytesIO()
matplotlib.pyplot.plot(x)
matplotlib.pyplot.savefig(picture, format="png")
print(round(a), round(b), forest.score(x.reshape(-1, 1), x > 2), picture.getvalue()[1:4].decode(), sympy.diff(sympy.Symbol("x") ** 3))
"#;

const PROJECT: &str = r#"[project]
name = "science"
version = "1.0.0"
requires-python = ">=3.11,<3.12"
dependencies = ["numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "sympy", "xarray", "docopt"]
[project.optional-dependencies]
web = ["flask"]
"#;

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_scientific_stack_comes_from_each_of_python_s_lock_files() {
    if !have("uv") {
        eprintln!("skipped: no uv, which writes the lock files");
        return;
    }
    let export = |format: &'static str, file: &'static str| {
        vec!["uv", "export", "-q", "--format", format, "--extra", "web", "--no-emit-project", "-o", file]
    };
    for (lock, more, commands) in [
        ("uv.lock", "extras = [ \"web\" ];", vec![vec!["uv", "lock", "-q", "--python", "3.11"]]),
        ("pylock.toml", "", vec![export("pylock.toml", "pylock.toml")]),
        ("requirements.txt", "", vec![export("requirements-txt", "requirements.txt")]),
        ("pyproject.toml", "extras = [ \"web\" ];", Vec::new()),
    ] {
        let world = World::new();
        world.write("pyproject.toml", PROJECT);
        world.write("science.py", SCIENCE);
        for command in commands {
            tool(&world, &command);
        }
        let layers = format!(
            "(forge.debian {{ packages = [ \"python3\" \"libgomp1\" ]; }})\n(forge.python {{ lock = ./{lock}; {more} }})\n\
             (forge.files {{ \"/app/science.py\" = ./science.py; }})"
        );
        write_formation(&world, "science", &layers, "\"python3\" \"/app/science.py\"");
        judged(&world, "3 1 1.0 PNG 3*x**2");
    }
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn extensions_in_c_are_built_from_their_sources() {
    let world = World::new();
    let layers = r#"(forge.debian { packages = [ "python3-dev" "gcc" "libc6-dev" "libpq-dev" "libldap2-dev" "libsasl2-dev" ]; })
        (forge.python { requirements = [ "psycopg2" "python-ldap" "docopt" ]; })"#;
    let command = r#""python3" "-c" "import psycopg2, ldap, docopt; print('built', docopt.__version__)""#;
    write_formation(&world, "sources", layers, command);
    judged(&world, "built 0.6.2");
}

const SERVICE: &str = r#"import com.google.gson.Gson;
import com.sun.net.httpserver.HttpServer;
import java.net.*;
import java.net.http.*;
import java.util.*;
public class Service {
  public static void main(String[] arguments) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 8099), 0);
    server.createContext("/", exchange -> {
      byte[] bytes = new Gson().toJson(Map.of("java", Runtime.version().feature())).getBytes();
      exchange.sendResponseHeaders(200, bytes.length);
      exchange.getResponseBody().write(bytes);
      exchange.close();
    });
    server.start();
    HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:8099/")).build();
    System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
    javax.net.ssl.SSLContext.getDefault();
    server.stop(0);
  }
}
"#;

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_java_service_answers_with_openjdk_17_and_21() {
    for (version, suite) in [("17", "bookworm"), ("21", "trixie")] {
        let world = World::new();
        world.write("src/Service.java", SERVICE);
        // The jar comes out of its Debian package, and is then a file of the project like any other.
        tool(
            &world,
            &[
                "sh",
                "-euc",
                "apt-get download -q libgoogle-gson-java; dpkg -x libgoogle-gson-java*.deb x; cp -L x/usr/share/java/gson.jar .; rm -r x *.deb",
            ],
        );
        let layers = format!(
            r#"(forge.debian {{ suite = "{suite}"; packages = [ "ca-certificates-java" ]; }})
            (forge.java {{ version = "{version}"; jars."gson.jar" = ./gson.jar; }})
            (forge.run {{
              name = "javac";
              layers = [
                (forge.debian {{ suite = "{suite}"; }})
                (forge.java {{ version = "{version}"; jdk = true; jars."gson.jar" = ./gson.jar; }})
                (forge.files {{ "/src" = ./src; }})
              ];
              script = "mkdir -p /app/classes; javac -cp '/app/lib/*' -d /app/classes /src/*.java";
              keep = [ "/app/classes" ];
            }})"#
        );
        write_formation(&world, "service", &layers, r#""java" "-cp" "/app/classes:/app/lib/*" "Service""#);
        judged(&world, &format!("{{\"java\":{version}}}"));
    }
}

const WEB: &str = r#"const express = require("express"), React = require("react"), server = require("react-dom/server"), http = require("http");
const app = express();
app.get("/", (request, response) => response.send(server.renderToString(React.createElement("b", null, require("lodash").capitalize("hello")))));
const listening = app.listen(0, "127.0.0.1", () => http.get({ port: listening.address().port, host: "127.0.0.1" }, (answer) => {
  let text = "";
  answer.on("data", (data) => (text += data));
  answer.on("end", () => {
    console.log(text, new (require("jsdom").JSDOM)(text).window.document.querySelector("b").textContent);
    console.log(require("esbuild").transformSync("let x: number = 1", { loader: "ts" }).code.trim());
    process.exit(0);
  });
}));
"#;

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_web_application_with_hundreds_of_packages_serves_with_install_scripts_off_and_on() {
    if !have("npm") {
        eprintln!("skipped: no npm, which writes the lock file");
        return;
    }
    for scripts in ["", "scripts = true;"] {
        let world = World::new();
        world.write(
            "package.json",
            r#"{ "name": "app", "version": "1.0.0", "dependencies": { "express": "^4.21.0", "fastify": "^4", "webpack": "^5", "lodash": "^4",
  "eslint": "^8", "esbuild": "^0.21.0", "react": "^18", "react-dom": "^18", "axios": "^1", "socket.io": "^4", "core-js": "^3", "jsdom": "^22" } }"#,
        );
        world.write("app.js", WEB);
        tool(&world, &["npm", "install", "-q", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"]);
        let layers = format!(
            "(forge.debian {{ suite = \"trixie\"; }})\n(forge.node {{ lock = ./package-lock.json; {scripts} }})\n\
             (forge.files {{ \"/app/app.js\" = ./app.js; }})"
        );
        write_formation(&world, "app", &layers, r#""node" "/app/app.js""#);
        judged(&world, "<b>Hello</b> Hello\nlet x = 1;");
        let lock = fs::read_to_string(world.path("project/package-lock.json")).unwrap();
        assert!(lock.matches("\"node_modules/").count() > 300, "it is to be a large one");
    }
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_published_program_of_rust_is_built_from_its_lock() {
    if !have("cargo") {
        eprintln!("skipped: no cargo, which fetches the program's source");
        return;
    }
    let world = World::new();
    // cargo keeps what it was asked about; the crate has the program's own Cargo.lock.
    let home = world.path("out/cargo");
    let script = format!(
        "mkdir -p {0}; cp \"${{CARGO_HOME:-$HOME/.cargo}}\"/config* {0}/ 2>/dev/null || true; CARGO_HOME={0} cargo info -q ripgrep@14.1.1 >&2; \
         mkdir src; tar -C src --strip-components 1 -xzf {0}/registry/cache/*/ripgrep-14.1.1.crate",
        home.display()
    );
    tool(&world, &["sh", "-euc", &script]);
    let layers = "(forge.debian { suite = \"trixie\"; })\n(forge.rust { source = ./src; })";
    write_formation(&world, "rust", layers, r#""rg" "-c" "root" "/etc/passwd""#);
    judged(&world, "1\n");
}

const LAMP: &str = r#"set -e
mkdir -p /run/mysqld /run/apache2 /run/lock
mariadb-install-db --user=root --datadir=/tmp/db >/dev/null 2>&1
mariadbd --user=root --datadir=/tmp/db --socket=/run/mysqld/mysqld.sock --skip-networking >/tmp/db.log 2>&1 &
for i in $(seq 100); do [ -S /run/mysqld/mysqld.sock ] && break; sleep 0.1; done
php -r '$m = new mysqli("localhost", "root", "", "mysql", 0, "/run/mysqld/mysqld.sock"); echo "php ", $m->query("select 6*7")->fetch_row()[0], " ", imagesx(imagecreatetruecolor(4, 4)), "\n";'
# Without `apache2ctl`, which gives directories to another user: a run has no such power.
. /etc/apache2/envvars
apache2 -t 2>&1 | tail -n 1
awk -F: '$1 == "mysql" || $1 == "www-data" { n++ } END { print n, "users" }' /etc/passwd
[ -e "$(readlink -f /etc/alternatives/editor)" ] && echo alternatives
ldconfig -p | grep -q libc.so.6 && echo libraries
openssl verify /etc/ssl/certs/ca-certificates.crt >/dev/null && echo certificates
[ "$(dpkg -l | grep -c ^ii)" -ge 250 ] && echo packages
"#;

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_web_server_of_250_packages_is_configured_by_their_scripts() {
    let world = World::new();
    world.write("serve.sh", LAMP);
    let layers = r#"(forge.debian { packages = [
        "apache2" "libapache2-mod-php" "php-mysql" "php-gd" "php-curl" "php-mbstring" "php-xml" "php-intl" "php-zip" "php-imagick"
        "mariadb-server" "mariadb-client" "ca-certificates" "openssl" "ssl-cert" "adduser" "vim-tiny" "nano" "cron" "logrotate" "rsync"
        "git" "curl" "wget" "openssh-client" "man-db" "perl" "python3" "imagemagick" "ghostscript" "fontconfig" "phpmyadmin"
      ]; })
      (forge.files { "/app/serve.sh" = ./serve.sh; })"#;
    write_formation(&world, "lamp", layers, r#""sh" "/app/serve.sh""#);
    judged(&world, "php 42 4\nSyntax OK\n2 users\nalternatives\nlibraries\ncertificates\npackages\n");
}

const GO: &str = r#"package main

import (
	"fmt"

	"github.com/google/uuid"
	"golang.org/x/text/language"
)

func main() { fmt.Println(uuid.NewMD5(uuid.NameSpaceDNS, []byte("x")), language.Make("de-AT")) }
"#;

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_program_of_go_is_built_by_a_command() {
    let world = World::new();
    world.write("main.go", GO);
    let layers = r#"(forge.debian { })
      (forge.run {
        name = "go-build";
        layers = [
          (forge.debian { packages = [ "golang-go" "golang-github-google-uuid-dev" "golang-golang-x-text-dev" ]; })
          (forge.files { "/build/hello/main.go" = ./main.go; })
        ];
        environment = { GO111MODULE = "off"; GOPATH = "/usr/share/gocode"; GOCACHE = "/tmp/go"; CGO_ENABLED = 0; GOFLAGS = "-trimpath"; };
        directory = "/build/hello";
        script = "go build -o /usr/local/bin/hello .";
        keep = [ "/usr/local/bin" ];
      })"#;
    write_formation(&world, "go", layers, r#""hello""#);
    judged(&world, "de-AT\n");
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn an_image_of_others_is_a_base_with_a_layer_on_top() {
    if !have("mmdebstrap") || !have("umoci") || !is_root() {
        eprintln!("skipped: no mmdebstrap or no umoci, which make the image, or no root");
        return;
    }
    let world = World::new();
    tool(&world, &["mmdebstrap", "-q", "--variant=essential", "--include=passwd", "bookworm", "root.tar"]);
    tool(
        &world,
        &[
            "sh",
            "-euc",
            "umoci init --layout layout; umoci new --image layout:base; mkdir root; tar -C root -xf root.tar; \
        umoci insert --image layout:base root /; rm -r root root.tar",
        ],
    );
    world.write(
        "runtime.expr",
        r#"{ forge }:
forge.extend (forge.formation { name = "base"; layers = [ (forge.oci { image = ./layout; }) ]; }) {
  name = "upon";
  layers = [
    (forge.files { "/app/hello.sh" = ". /etc/os-release; echo layered on $VERSION_CODENAME, $(cat /app/user)\n"; })
    (forge.run { script = "useradd -m app; id -un app > /app/user"; })
  ];
  command = [ "sh" "/app/hello.sh" ];
}
"#,
    );
    judged(&world, "layered on bookworm, app\n");
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_root_of_another_architecture_is_made_where_no_script_must_run() {
    let world = World::new();
    let other = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let formation = |layers: &str| {
        let text = format!(
            "{{ forge }}:\nforge.formation {{\n  name = \"other\";\n  platform = \"linux/{other}\";\n  layers = [ {layers} ];\n  command = [ \"jq\" ];\n}}\n"
        );
        world.write("runtime.expr", &text);
        world.forge(["build"])
    };
    let built = formation("(forge.debian { essential = false; packages = [ \"jq\" ]; })");
    let id = built.ok().id();
    world.forge(["export", &id, "--format", "tar", "-o", "root.tar"]).ok();
    tool(&world, &["sh", "-euc", "mkdir root; tar -C root -xf root.tar usr var; readelf -h root/usr/bin/jq > elf"]);
    let elf = fs::read_to_string(world.path("project/elf")).unwrap();
    assert!(elf.contains(if other == "arm64" { "AArch64" } else { "X86-64" }), "{elf}");
    tool(
        &world,
        &[
            "sh",
            "-euc",
            "dpkg-query --admindir root/var/lib/dpkg --show jq libc6 | wc -l > count; test $(cat count) = 2",
        ],
    );
    // It cannot be run here, and what would have to run is named.
    assert_ne!(world.forge(["run", &id]).code, Some(0));
    let refused = formation("(forge.debian { packages = [ ]; })");
    assert_eq!(refused.code, Some(100), "{}", refused.stderr);
    for name in ["base-passwd (preinst, postinst)", "dash (postinst)"] {
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
    }
    let refused =
        formation("(forge.debian { essential = false; packages = [ \"jq\" ]; }) (forge.run { script = \"true\"; })");
    assert!(refused.code == Some(1) && refused.stderr.contains("runs programs of linux/"), "{}", refused.stderr);
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_host_that_has_nothing_but_forge_builds_the_same() {
    if !is_root() || !have("unshare") || !have("busybox") {
        return;
    }
    let world = World::new();
    write_formation(&world, "bare", "(forge.debian { packages = [ \"jq\" ]; })", "\"jq\" \"--version\"");
    let id = world.build(".");
    let doctor = world.forge(["doctor"]).stdout;
    let mirror = doctor.lines().find_map(|line| line.strip_prefix("ok   Debian mirrors")).unwrap().trim();
    let mirror = mirror.split([',', ' ']).next().unwrap();
    // No C library, no package manager, no /usr: as on any distribution, since nothing of the host's is looked at.
    let root = world.path("out/host");
    for directory in ["proc", "dev", "sys", "tmp", "etc", "project", "old"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for name in ["resolv.conf", "hosts"] {
        let _ = fs::copy(Path::new("/etc").join(name), root.join("etc").join(name));
    }
    for name in ["runtime.expr", "forge.lock"] {
        fs::copy(world.path("project").join(name), root.join("project").join(name)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_forge"), root.join("forge")).unwrap();
    let busybox = tool_output(&["sh", "-c", "command -v busybox"]);
    fs::copy(busybox.trim(), root.join("busybox")).unwrap();
    let script = "set -e; mount --bind \"$0\" \"$0\"; cd \"$0\"; for d in proc dev sys; do mount --rbind /$d $d; done; \
        pivot_root . old; /busybox umount -l /old; cd /; /forge build -q --locked /project; /forge run bare; \
        /busybox ls /usr 2>&1 || true";
    let ran = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(&root)
        .env_clear()
        .envs([("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/project"), ("FORGE_STORE", "/project/store")])
        .env("FORGE_DEBIAN_MIRROR", mirror)
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(stdout, format!("{id}\njq-1.6\nls: /usr: No such file or directory\n"), "{stderr}");
}

#[test]
#[ignore = "takes minutes: just ecosystems"]
fn a_caller_s_own_numpy_is_not_seen() {
    let world = World::new();
    let layers = "(forge.debian { packages = [ \"python3\" ]; }) (forge.python { requirements = [ \"numpy\" ]; })";
    write_formation(&world, "own", layers, "\"python3\" \"-c\" \"import numpy; print(numpy.dtype(float).itemsize)\"");
    let id = world.build(".");
    // What Joblet's users meet as "numpy.dtype size changed": packages of theirs that were made for another numpy.
    let bogus = "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')\n";
    let below = ["project/bogus", "home/.local/lib/python3.11/site-packages"].map(|place| world.path(place));
    for place in &below {
        fs::create_dir_all(place.join("numpy")).unwrap();
        fs::write(place.join("numpy/__init__.py"), bogus).unwrap();
    }
    let ran = world.command(["run", &id]).env("PYTHONPATH", &below[0]).env("PYTHONHOME", &below[0]).output().unwrap();
    let ran = Ran::of(ran);
    assert_eq!(ran.ok().stdout, "8\n", "{}", ran.stderr);
}

/// What a tool of the host prints.
fn tool_output(words: &[&str]) -> String {
    let ran = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
#[ignore = "the network"]
fn what_a_step_makes_may_have_capabilities_and_be_closed() {
    let world = World::new();
    let layers = r#"    (forge.debian { packages = [ "libcap2-bin" "attr" ]; })
    (forge.run { name = "powers"; script = "cp /bin/ls /usr/local/bin/own; echo >> /usr/local/bin/own; setcap cap_net_raw+ep /usr/local/bin/own; echo x > /closed; setfattr -n user.note -v one /closed; chmod 0 /closed"; })"#;
    write_formation(&world, "powers", layers, r#""stat" "-c" "%n %a" "/closed""#);
    let id = judged(&world, "/closed 0");
    let powers = world.forge(["run", &id, "--", "/sbin/getcap", "/usr/local/bin/own"]);
    assert!(!is_root() || powers.ok().stdout == "/usr/local/bin/own cap_net_raw=ep\n", "{powers:?}");
}
