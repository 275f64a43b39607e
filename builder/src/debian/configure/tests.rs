use super::*;

struct World {
    _directory: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        Self { _directory: directory, store }
    }

    /// An unpacked package: its control fields, and files with their content.
    fn package(&self, fields: &str, files: &[(&str, &str)]) -> Package {
        let paragraph = format!("Version: 2.0-1\nArchitecture: amd64\n{}\n", fields.replace("; ", "\n"));
        let control = Control::parse(paragraph.split("Conffiles").next().unwrap_or_default()).unwrap();
        let mut draft = Draft::passing();
        for (path, content) in files {
            let path = path.strip_prefix("info:").map_or_else(|| (*path).to_owned(), |kind| control.info(kind));
            draft.write(&self.store, &path, 0o755, content.as_bytes()).unwrap();
        }
        draft.write(&self.store, &control.waiting(), 0o644, paragraph.as_bytes()).unwrap();
        Package::read(&self.store, "package", draft.delta(&self.store).unwrap()).unwrap()
    }

    /// A root that was configured before: dpkg's notes, and files with their content.
    fn below(&self, status: &str, files: &[(&str, &str)]) -> Result<Below> {
        let mut draft = Draft::new(Metadata::root(0o755));
        for (path, content) in files.iter().chain(&[("var/lib/dpkg/status", status)]) {
            draft.write(&self.store, path, 0o644, content.as_bytes()).unwrap();
        }
        let root = draft.tree(&self.store).unwrap();
        Below::read(&self.store, "debian", self.store.put_delta(&Delta::whole(root)).unwrap())
    }

    /// These packages over such a root, merged.
    fn over(&self, below: &Below, packages: &[Package]) -> Result<TreeId> {
        let deltas: Vec<_> = packages.iter().map(|package| package.delta).collect();
        Ok(self.store.merge(&lay_out(&self.store, "debian", "amd64", &deltas, Some(below))?)?)
    }

    /// The database over these packages, and all of it merged.
    fn database(&self, packages: &[Package]) -> Result<TreeId> {
        let deltas: Vec<_> = packages.iter().map(|package| package.delta).collect();
        Ok(self.store.merge(&lay_out(&self.store, "debian", "amd64", &deltas, None)?)?)
    }

    fn text(&self, tree: TreeId, path: &str) -> Option<String> {
        match draft::find(&self.store, tree, &names(path)).unwrap()? {
            Node::File(file) => Some(String::from_utf8(self.store.blob(file.blob).unwrap()).unwrap()),
            other => panic!("{path}: {other:?}"),
        }
    }
}

const PREINST: (&str, &str) = ("info:preinst", "#!/bin/sh\n");

#[test]
fn essential_packages_come_first_and_each_after_what_it_needs() {
    let world = World::new();
    let packages = [
        world.package("Package: app; Pre-Depends: helper; Depends: virtual | other", &[PREINST]),
        world.package("Package: helper; Depends: app", &[PREINST]),
        world.package("Package: base-passwd; Essential: yes; Pre-Depends: libc6", &[PREINST]),
        world.package("Package: libc6; Multi-Arch: same", &[PREINST]),
        world.package("Package: sh; Essential: yes; Provides: virtual (= 1)", &[]),
    ];
    let plan = order::plan(&packages, &[0].into(), &["/usr/share/x".to_owned()]);
    let expected = "\
        preinst base-passwd amd64 /var/lib/dpkg/info/base-passwd.preinst 1.21.22\n\
        preinst libc6 amd64 /var/lib/dpkg/info/libc6:amd64.preinst 1.21.22\n\
        configure libc6:amd64 base-passwd sh\n\
        preinst helper amd64 /var/lib/dpkg/info/helper.preinst 1.21.22\n\
        preinst app amd64 /var/lib/dpkg/info/app.preinst 1.21.22\n\
        late app\n\
        configure app helper\n\
        finish\n\
        trigger /usr/share/x\n\
        finish\n";
    assert_eq!(plan, expected);
    // The order of the lock is no part of it.
    let [app, helper, passwd, libc6, sh] = packages;
    assert_eq!(order::plan(&[sh, libc6, passwd, helper, app], &[4].into(), &["/usr/share/x".to_owned()]), expected);
}

#[test]
fn no_password_is_made_for_a_database_that_is_not_there() {
    let world = World::new();
    let packages = [
        world.package("Package: dbconfig-mysql; Depends: dbconfig-common", &[]),
        world.package("Package: web; Depends: php, dbconfig-mysql | dbconfig-no-thanks", &[]),
        world.package("Package: php", &[]),
    ];
    let plan = order::plan(&packages, &[].into(), &[]);
    assert_eq!(plan, "answer web web/dbconfig-install boolean false\nfinish\nfinish\n");
}

#[test]
fn a_long_chain_of_dependencies_has_an_end() {
    let world = World::new();
    let chain = |index: usize| world.package(&format!("Package: p{index}; Depends: p{}", index + 1), &[]);
    let packages: Vec<Package> = (0..50).map(chain).collect();
    assert_eq!(order::plan(&packages, &[].into(), &[]), "finish\nfinish\n");
}

#[test]
fn dpkg_finds_its_database() {
    let world = World::new();
    let packages = [
        world.package("Package: b", &[("info:triggers", "interest-noawait /usr/share/x\ninterest /usr/share/empty\n")]),
        world.package("Package: a; Multi-Arch: same", &[("info:triggers", "# note\ninterest ldconfig\nactivate y\n")]),
        world.package("Package: c", &[("usr/share/x/file", "")]),
    ];
    let tree = world.database(&packages).unwrap();
    let text = |path: &str| world.text(tree, &format!("var/lib/dpkg/{path}")).unwrap();
    let status = text("status");
    assert!(
        status.starts_with("Status: install ok unpacked\nVersion: 2.0-1\nArchitecture: amd64\nPackage: a\n"),
        "{status}"
    );
    assert_eq!(status.matches("\n\nStatus: install ok unpacked\nVersion: ").count(), 2);
    assert_eq!(text("triggers/File"), "/usr/share/x b/noawait\n/usr/share/empty b\n");
    assert_eq!(text("triggers/ldconfig"), "a:amd64\n");
    assert_eq!(text("forge/plan"), "finish\ntrigger /usr/share/x\nfinish\n");
}

#[test]
fn configuration_files_of_essential_packages_are_in_place_from_the_start() {
    let world = World::new();
    let conffile = |fields: &str, path: &str| {
        let fields = format!("{fields}; Conffiles:\n /{path} newconffile");
        world.package(&fields, &[(&format!("{path}.dpkg-new"), path)])
    };
    let packages = [
        conffile("Package: sh; Essential: yes; Depends: base", "etc/sh.conf"),
        conffile("Package: base", "etc/base.conf"),
        conffile("Package: app", "etc/app.conf"),
    ];
    let tree = world.database(&packages).unwrap();
    assert_eq!(world.text(tree, "etc/sh.conf").unwrap(), "etc/sh.conf");
    assert_eq!(world.text(tree, "etc/base.conf").unwrap(), "etc/base.conf");
    assert_eq!(world.text(tree, "etc/app.conf"), None);
    assert!(world.text(tree, "etc/app.conf.dpkg-new").is_some());
}

#[test]
fn a_file_of_two_packages_is_the_ones_that_replaces_the_other() {
    let world = World::new();
    let old = || world.package("Package: old; Provides: thing", &[("usr/x", "old"), ("usr/y/same", "1")]);
    let plain = || world.package("Package: new", &[("usr/x", "new"), ("usr/y/same", "1")]);
    for replaces in ["old", "thing", "old (<< 3)"] {
        let new = || world.package(&format!("Package: new; Replaces: {replaces}"), &[("usr/x", "new")]);
        for packages in [[old(), new()], [new(), old()]] {
            let tree = world.database(&packages).unwrap();
            assert_eq!(world.text(tree, "usr/x").unwrap(), "new");
        }
    }
    let too_old = || world.package("Package: new; Replaces: old (<< 2)", &[("usr/x", "new")]);
    for packages in [[old(), plain()], [too_old(), old()]] {
        let error = world.database(&packages).unwrap_err().to_string();
        assert!(error.contains("it holds `/usr/x`, which `"), "{error}");
    }
    let directory = world.package("Package: new; Replaces: nothing", &[("usr/x/y", "")]);
    assert!(world.database(&[directory, old()]).is_err());
}

#[test]
fn a_file_of_two_packages_waits_where_one_diverts_it() {
    let world = World::new();
    let other = || world.package("Package: other", &[("usr/bin/x", "other")]);
    let preinst = ("info:preinst", "dpkg-divert --package mine --rename --add /usr/bin/x");
    let mine = || world.package("Package: mine", &[("usr/bin/x", "mine"), preinst]);
    for packages in [[other(), mine()], [mine(), other()]] {
        let tree = world.database(&packages).unwrap();
        assert_eq!(world.text(tree, "usr/bin/x").unwrap(), "other");
        assert_eq!(world.text(tree, "var/lib/dpkg/forge/late/mine/usr/bin/x").unwrap(), "mine");
        assert!(world.text(tree, "var/lib/dpkg/forge/plan").unwrap().contains("late mine\n"));
    }
}

/// dpkg's own note of a package `NAME` 2.0-1, as a configured root has it.
fn installed(name: &str) -> String {
    format!("Package: {name}\nStatus: install ok installed\nVersion: 2.0-1\nArchitecture: amd64\n\n")
}

#[test]
fn what_is_configured_below_is_not_configured_again() {
    let world = World::new();
    let below = [installed("sh"), installed("libc6").replace("\n\n", "\nMulti-Arch: same\n\n")].concat();
    let below = world.below(&below, &[("etc/sh.conf", "configured"), ("usr/bin/sh", "sh")]).unwrap();
    let fields = "Package: sh; Essential: yes; Depends: libc6; Conffiles:\n /etc/sh.conf newconffile";
    let packages = [
        world.package(fields, &[PREINST, ("etc/sh.conf.dpkg-new", "shipped"), ("usr/bin/sh", "sh")]),
        world.package("Package: libc6; Multi-Arch: same", &[PREINST]),
        world.package("Package: app; Pre-Depends: sh", &[PREINST, ("usr/bin/app", "app")]),
    ];
    let tree = world.over(&below, &packages).unwrap();
    let plan = world.text(tree, "var/lib/dpkg/forge/plan").unwrap();
    assert_eq!(plan, "preinst app amd64 /var/lib/dpkg/info/app.preinst 1.21.22\nfinish\nfinish\n");
    let status = world.text(tree, "var/lib/dpkg/status").unwrap();
    let states = status.lines().filter_map(|line| line.strip_prefix("Status: install ok ")).collect::<Vec<_>>();
    assert_eq!(states, ["unpacked", "installed", "installed"]);
    assert!(status.contains("Multi-Arch: same\n\nPackage: sh\n"), "{status}");
    assert_eq!(world.text(tree, "etc/sh.conf").unwrap(), "configured");
    assert_eq!(world.text(tree, "etc/sh.conf.dpkg-new"), None);
    assert!(world.text(tree, "usr/bin/app").is_some());
    // Another version of it is no part of the root below.
    let newer = world.below(&installed("sh").replace("2.0-1", "2.0-2"), &[]).unwrap();
    let tree = world.over(&newer, &packages[..1]).unwrap();
    assert!(world.text(tree, "var/lib/dpkg/forge/plan").unwrap().contains("configure sh\n"));

    let error = |status: &str| world.below(status, &[]).err().unwrap().to_string();
    assert!(error(&installed("sh").replace("ok installed", "ok half-configured")).contains("`sh` below is"));
    let nothing = world.store.put_delta(&Delta::whole(Draft::passing().tree(&world.store).unwrap())).unwrap();
    assert!(Below::read(&world.store, "debian", nothing).err().unwrap().to_string().contains("no dpkg database"));
}

#[test]
fn what_a_package_below_replaces_or_diverts_is_kept() {
    let world = World::new();
    let diversions = "/bin/x\n/bin/x.distrib\nmine\n/lib32\n/lib32.usr-is-merged\nbase\n";
    let files = [("usr/bin/x", "configured"), ("usr/bin/y", "new"), ("var/lib/dpkg/diversions", diversions)];
    let below = world.below(&[installed("mine"), installed("new")].concat(), &files).unwrap();
    let packages = [
        world.package("Package: mine", &[("usr/bin/x", "mine")]),
        world.package("Package: new; Replaces: old", &[("usr/bin/y", "new")]),
        world.package("Package: old", &[("usr/bin/y", "old"), ("usr/bin/x", "old"), ("usr/lib32/z", "z")]),
    ];
    let tree = world.over(&below, &packages).unwrap();
    let files = ["usr/bin/x", "usr/bin/x.distrib", "usr/bin/y", "usr/lib32/z"].map(|path| world.text(tree, path));
    assert_eq!(files.map(Option::unwrap), ["configured", "old", "new", "z"]);
    // In whatever order they lie; and what a script has removed stays away.
    let fresh = |name: &str| world.package(&format!("Package: {name}"), &[("usr/bin/y", name), ("usr/bin/gone", name)]);
    for name in ["aaa", "zzz"] {
        let fields = format!("Package: new; Replaces: {name}");
        let new = world.package(&fields, &[("usr/bin/y", "shipped"), ("usr/bin/gone", "shipped")]);
        let tree = world.over(&below, &[new, fresh(name)]).unwrap();
        assert_eq!(world.text(tree, "usr/bin/y").unwrap(), "new", "{name}");
        assert_eq!(world.text(tree, "usr/bin/gone"), None, "{name}");
    }
    let preinst = ("info:preinst", "mv /usr/bin/y /usr/bin/y.real; dpkg-divert --no-rename --add /usr/bin/y");
    let new = world.package("Package: new", &[("usr/bin/y", "shipped")]);
    let diverting = world.package("Package: aaa", &[("usr/bin/y", "aaa"), preinst]);
    let tree = world.over(&below, &[diverting, new]).unwrap();
    assert_eq!(world.text(tree, "usr/bin/y").unwrap(), "new");
    assert_eq!(world.text(tree, "var/lib/dpkg/forge/late/aaa/usr/bin/y").unwrap(), "aaa");
    // Whose file it is below decides nothing for those that replace nothing.
    let plain = world.package("Package: plain", &[("usr/bin/y", "plain")]);
    assert!(world.over(&below, &[packages.into_iter().nth(1).unwrap(), plain]).is_err());
}

#[test]
fn what_lies_behind_a_link_below_is_put_where_it_leads() {
    let world = World::new();
    let mut draft = Draft::new(Metadata::root(0o755));
    draft.write(&world.store, "var/lib/dpkg/status", 0o644, b"").unwrap();
    for directory in ["run/lock", "var/mail"] {
        draft.directory(&world.store, &names(directory)).unwrap().metadata = Metadata::root(0o2775);
    }
    for (link, target) in [("var/run", "/run"), ("var/lock", "../var/run/lock"), ("var/loop", "loop"), ("var/x", "/y")]
    {
        let node = Node::Symlink { target: target.as_bytes().to_vec(), uid: 0, gid: 0 };
        draft.insert(&world.store, &names(link), node).unwrap();
    }
    let root = draft.tree(&world.store).unwrap();
    let below = Below::read(&world.store, "debian", world.store.put_delta(&Delta::whole(root)).unwrap()).unwrap();
    let files = [("var/run/app/pid", "1"), ("run/app/other", "2"), ("var/lock/app", "3"), ("var/loop/a", "4")];
    let tree = world.over(&below, &[world.package("Package: app", &files)]).unwrap();
    for (path, content) in [("run/app/pid", "1"), ("run/app/other", "2"), ("run/lock/app", "3"), ("var/loop/a", "4")] {
        assert_eq!(world.text(tree, path).unwrap(), content, "{path}");
    }
    let node = |path: &str| draft::find(&world.store, tree, &names(path)).unwrap().unwrap();
    assert!(matches!(node("var/run"), Node::Symlink { .. }) && matches!(node("var/lock"), Node::Symlink { .. }));
    // The directory's own mode stays.
    let Node::Directory(lock) = node("run/lock") else { panic!() };
    assert_eq!(world.store.tree(lock).unwrap().metadata.mode, 0o2775);
}

#[test]
fn what_makes_room_in_its_preinst_is_unpacked_after_it() {
    let world = World::new();
    let preinst = ("info:preinst", "for p in x y; do dpkg-divert --add --rename /usr/bin/z$p; done");
    let files = [("usr/bin/zx", "mine"), ("etc/mine.conf.dpkg-new", "mine"), ("info:list", "/usr/bin/zx\n"), preinst];
    let packages =
        [world.package("Package: mine", &files), world.package("Package: other", &[("usr/bin/zx", "other")])];
    let tree = world.database(&packages).unwrap();
    assert_eq!(world.text(tree, "usr/bin/zx").unwrap(), "other");
    assert_eq!(world.text(tree, "etc/mine.conf.dpkg-new"), None);
    assert!(world.text(tree, "var/lib/dpkg/info/mine.list").is_some());
    for waiting in ["usr/bin/zx", "etc/mine.conf.dpkg-new"] {
        assert_eq!(world.text(tree, &format!("var/lib/dpkg/forge/late/mine/{waiting}")).unwrap(), "mine");
    }
    let plan = world.text(tree, "var/lib/dpkg/forge/plan").unwrap();
    assert!(plan.contains("/var/lib/dpkg/info/mine.preinst 1.21.22\nlate mine\n"), "{plan}");
}

#[test]
fn what_varies_is_gone_and_what_was_shipped_is_back() {
    let world = World::new();
    let write = |files: &[(&str, &str)]| {
        let mut draft = Draft::new(Metadata::root(0o755));
        for (path, content) in files {
            draft.write(&world.store, path, 0o644, content.as_bytes()).unwrap();
        }
        draft.tree(&world.store).unwrap()
    };
    let shipped = [("usr/sbin/start-stop-daemon", "real"), ("run/lock/x", ""), ("var/lib/dpkg/status.d/x", "x")];
    let unpacked = write(&shipped);
    let common = [("etc/ssh/sshd_config", "x"), ("var/log/nginx/access.log", ""), ("etc/machine-id", "")];
    let finished = |files: &[(&str, &str)]| {
        let tree = write(&[files, &common].concat());
        finish::finish(&world.store, tree, unpacked).unwrap()
    };
    let run = |number: &str| {
        finished(&[
            ("usr/sbin/start-stop-daemon", "stub"),
            ("usr/sbin/policy-rc.d", "stub"),
            ("etc/ssh/ssh_host_rsa_key", number),
            ("etc/machine-id", number),
            ("run/pid", number),
            ("tmp/x", number),
            ("var/log/dpkg.log", number),
            ("var/cache/ldconfig/aux-cache", number),
            ("var/lib/dpkg/status", "x"),
            ("var/lib/dpkg/status-old", number),
            ("var/lib/dpkg/forge/plan", "x"),
            ("var/lib/dpkg/status.d/x", "x"),
        ])
    };
    let root = run("1");
    assert_eq!(root, run("2"));
    assert_eq!(world.text(root, "usr/sbin/start-stop-daemon").unwrap(), "real");
    assert_eq!(world.text(root, "etc/machine-id").unwrap(), "");
    for there in ["run/lock/x", "etc/ssh/sshd_config", "var/lib/dpkg/status", "var/log/nginx/access.log"] {
        assert!(world.text(root, there).is_some(), "{there}");
    }
    let gone = ["usr/sbin/policy-rc.d", "run/pid", "var/lib/dpkg/forge", "var/lib/dpkg/status.d", "var/log/dpkg.log"];
    for gone in gone {
        assert_eq!(draft::find(&world.store, root, &names(gone)).unwrap(), None, "{gone}");
    }
}

#[test]
fn an_error_names_package_and_script() {
    let step = |log: &str| Error::Step {
        step: "debian".to_owned(),
        ending: "exit status 1".to_owned(),
        log: log.to_owned(),
        kept: None,
    };
    let ending = |log: &str| match with_package(step(log)) {
        Error::Step { ending, .. } => ending,
        other => panic!("{other}"),
    };
    let dpkg = "Setting up x (1) ...\noh no\ndpkg: error processing package x (--configure):\n installed x package \
                post-installation script subprocess returned error exit status 3\nErrors were encountered\nforge: dpkg ended with status 1\n";
    assert_eq!(ending(dpkg), "package `x`: post-installation script subprocess returned error exit status 3");
    assert_eq!(ending("forge: package `y`: preinst ended with status 2\n"), "package `y`: preinst ended with status 2");
    assert_eq!(ending("whatever"), "exit status 1");
}

#[test]
fn a_root_of_another_architecture_is_whole_without_scripts() {
    let world = World::new();
    let conffile = "Package: data\nConffiles:\n /etc/x 0123456789abcdef0123456789abcdef";
    let packages = [
        world.package(conffile, &[("etc/x.dpkg-new", "shipped"), ("usr/bin/data", "")]),
        world.package("Package: libc6; Multi-Arch: same", &[PREINST, ("info:postinst", "")]),
    ];
    let deltas = |packages: &[Package]| packages.iter().map(|package| package.delta).collect::<Vec<_>>();
    let root = foreign::lay_out(&world.store, "debian", "other", &deltas(&packages)).unwrap();
    let root = world.store.delta(root).unwrap().tree;
    assert_eq!(world.text(root, "etc/x").unwrap(), "shipped");
    assert_eq!(world.text(root, "var/lib/dpkg/arch").unwrap(), "other\n");
    let status = world.text(root, "var/lib/dpkg/status").unwrap();
    assert_eq!(status.matches("Status: install ok installed").count(), 2, "{status}");
    for gone in ["etc/x.dpkg-new", "var/lib/dpkg/status.d", ROOM] {
        assert!(draft::find(&world.store, root, &names(gone)).unwrap().is_none(), "{gone}");
    }

    let scripted = [
        world.package("Package: app", &[("info:postinst", "")]),
        world.package("Package: b", &[PREINST, ("info:postinst", ""), ("info:prerm", "")]),
    ];
    let refused = foreign::lay_out(&world.store, "debian", "other", &deltas(&scripted)).unwrap_err().to_string();
    assert!(refused.contains("app (postinst), b (preinst, postinst)"), "{refused}");
}

#[test]
fn what_cannot_be_read_is_not_taken_for_absent() {
    let world = World::new();
    let absent = Node::Directory(store::Tree { metadata: Metadata::root(0o111), entries: BTreeMap::new() }.id());
    let holds = |path: &str| {
        let mut draft = Draft::new(Metadata::root(0o755));
        draft.insert(&world.store, &names(path), absent.clone()).unwrap();
        draft.tree(&world.store).unwrap()
    };
    let mut package = world.package("Package: x", &[("info:triggers", "interest /usr/share/x\n")]);
    assert!(Triggers::of(&world.store, std::slice::from_ref(&package), holds("usr/share/x")).is_err());
    assert!(base(&world.store, "amd64", std::slice::from_ref(&package)).is_ok());
    package.tree = holds("usr");
    assert!(base(&world.store, "amd64", &[package]).is_err());
}
