//! What a build step that believes to be root leaves behind, and what it cannot tell from the real thing.
#![allow(missing_docs)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use executor::owners::{Entry, Kind, Owners};
use executor::{Ending, Writable};
use rustix::fs::XattrFlags;
use store::directory::Marks;

mod common;
use common::World;

/// A step over the usual root, with a user `www` (33) and a kept layer in `kept`.
fn step() -> Option<World> {
    let mut world = World::new()?;
    let lower = world.lower().to_owned();
    fs::write(lower.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nwww:x:33:34::/:/bin/sh\n").unwrap();
    fs::write(lower.join("etc/group"), "root:x:0:\nwww:x:34:\nextra:x:35:www\n").unwrap();
    for applet in ["su", "mkfifo", "cp", "groups"] {
        symlink("busybox", lower.join("bin").join(applet)).unwrap();
    }
    fs::create_dir(world.path("kept")).unwrap();
    world.sandbox.root.writable = Writable::Kept(world.path("kept"));
    world.sandbox.pretend_root = true;
    Some(world)
}

fn upper(world: &World, path: &str) -> PathBuf {
    world.path("kept/upper").join(path)
}

fn owner(path: &Path) -> Option<(u32, u32)> {
    Marks::of(path).unwrap().owner
}

fn owners(world: &World) -> Owners {
    Owners::parse(&fs::read(world.path("kept/owners")).unwrap()).unwrap()
}

#[test]
fn files_belong_to_whom_they_were_given() {
    let Some(mut world) = step() else { return };
    let shown = world.shell(
        "umask 022; touch /file /mine; mkdir /dir; chown 33:34 /file; chown 7 /dir; chown 5:5 /mine; chown 0:0 /mine
         stat -c '%n %u %g' /file /dir /mine; mv /file /moved; stat -c '%n %u %g' /moved",
    );
    assert_eq!(shown, "/file 33 34\n/dir 7 0\n/mine 0 0\n/moved 33 34\n");
    assert_eq!(owner(&upper(&world, "moved")), Some((33, 34)));
    assert_eq!(owner(&upper(&world, "dir")), Some((7, 0)));
    assert_eq!(owner(&upper(&world, "mine")), None);
    // On the disk all of it is the caller's.
    assert_eq!(upper(&world, "moved").metadata().unwrap().uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn what_a_lower_layer_records_is_seen_and_goes_along_when_it_is_changed() {
    let Some(mut world) = step() else { return };
    let shadow = world.lower().join("etc/shadow");
    fs::write(&shadow, "x").unwrap();
    rustix::fs::setxattr(&shadow, "user.forge.owner", b"0:42", XattrFlags::empty()).unwrap();
    symlink("there", world.lower().join("link")).unwrap();
    let link = Entry { uid: 3, gid: 4, kind: Kind::Symlink };
    let table = Owners([(b"link".to_vec(), link)].into());
    fs::write(world.path("kept/owners"), table.encode()).unwrap();
    let shown = world.shell("stat -c '%u %g' /etc/shadow /link; echo y >> /etc/shadow; mv /link /etc/link");
    assert_eq!(shown, "0 42\n3 4\n");
    assert_eq!(owner(&upper(&world, "etc/shadow")), Some((0, 42)));
    assert_eq!(owners(&world), Owners([(b"etc/link".to_vec(), link)].into()));
}

#[test]
fn a_device_is_an_empty_file_that_says_which() {
    let Some(mut world) = step() else { return };
    let shown = world.shell(
        "umask 022; mknod /null c 1 3; mknod /disk b 259 300; chown 0:6 /disk; chmod 660 /disk; mkfifo /pipe; chown 1:1 /pipe
         stat -c '%F %a %g %t:%T' /null /disk; stat -c '%F %u' /pipe; ! mknod /whiteout c 0 0 2>/dev/null",
    );
    let expected = "character special file 644 0 1:3\nblock special file 660 6 103:12c\nfifo 1\n";
    assert_eq!(shown, expected);
    let device = Marks::of(&upper(&world, "disk")).unwrap();
    assert_eq!(device.owner, Some((0, 6)));
    let number = device.device.unwrap();
    assert_eq!((number.block, number.major, number.minor), (true, 259, 300));
    let pipe = Entry { uid: 1, gid: 1, kind: Kind::Fifo };
    assert_eq!(owners(&world), Owners([(b"pipe".to_vec(), pipe)].into()));
}

#[test]
fn another_user_makes_files_of_its_own() {
    let Some(mut world) = step() else { return };
    let shown = world.shell(
        "mkdir -m 777 /srv; umask 022
         su www -c 'id; touch /srv/f; mkdir /srv/d; ln -s x /srv/l; mkdir /etc/d 2>/dev/null || echo no; echo > /dev/null'
         su www -c '(sleep 0.3; touch /srv/late) &'; while [ ! -e /srv/late ]; do sleep 0.1; done
         stat -c '%n %u %g' /srv/*; id -u",
    );
    let expected = "uid=33(www) gid=34(www) groups=34(www),35(extra)\nno\n\
        /srv/d 33 34\n/srv/f 33 34\n/srv/l 33 34\n/srv/late 33 34\n0\n";
    assert_eq!(shown, expected, "{}", world.stderr());
    assert_eq!(owner(&upper(&world, "srv/late")), Some((33, 34)));
}

#[test]
fn a_directory_hands_its_group_on() {
    let Some(mut world) = step() else { return };
    let shown = world.shell(
        "umask 022; mkdir /staff; chown 0:50 /staff; chmod 2775 /staff; touch /staff/f; mkdir -p /staff/d/e
         stat -c '%n %g %a' /staff/f /staff/d /staff/d/e",
    );
    assert_eq!(shown, "/staff/f 50 644\n/staff/d 50 2755\n/staff/d/e 50 2755\n");
}

#[test]
fn giving_a_program_away_takes_its_set_id_bits() {
    let Some(mut world) = step() else { return };
    let shown = world.shell(
        "cp /bin/busybox /tmp/id; cp /bin/busybox /id; chmod 6755 /id; chown 33:34 /id; stat -c %a /id
         chmod 6755 /id; /id -u; /id -g; stat -c %a /id",
    );
    // The program's own user is 0, as which it was started; busybox's `id -u` tells the effective one.
    assert_eq!(shown, "755\n33\n34\n6755\n");
}

#[test]
fn tasks_that_die_while_they_wait_disturb_nobody() {
    let Some(mut world) = step() else { return };
    let shown = world.shell(
        "mkdir -m 777 /srv
         for i in 1 2 3 4 5 6 7 8 9 10; do
           su www -c 'while :; do echo x > /srv/$$; rm /srv/$$; done' & killed=$!
           sleep 0.05; kill -9 $killed; wait $killed 2>/dev/null
         done
         touch /srv/after; chown 9:9 /srv/after; stat -c %u /srv/after",
    );
    assert_eq!(shown, "9\n");
}

/// Calls that no shell makes: this test's own binary runs inside, over the host's C library.
#[test]
fn calls_that_programs_rarely_make_are_answered_too() {
    let Some(mut world) = step() else { return };
    let program = std::env::current_exe().unwrap();
    fs::copy(program, world.lower().join("program")).unwrap();
    for name in ["/usr", "/lib", "/lib64"] {
        let Ok(source) = fs::canonicalize(name) else { continue };
        world.bind(source, name, true);
    }
    let outcome = world.run(&["/program", "--ignored", "--exact", "inside"]).unwrap();
    assert_eq!(outcome.ending, Ending::Exited(0), "{}{}", world.stdout(), world.stderr());
    assert_eq!(owner(&upper(&world, "work/unnamed")), Some((33, 34)));
}

#[test]
#[ignore = "runs inside of a step only"]
fn inside() {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
    use rustix::io::Errno;
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

    let open = |path: &str, flags: OFlags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644));
    let create = OFlags::CREATE | OFlags::WRONLY;
    let owner = |path: &str| {
        let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        (stat.st_uid, stat.st_gid)
    };
    fs::create_dir("/work").unwrap();
    fs::set_permissions("/work", fs::Permissions::from_mode(0o777)).unwrap();
    rustix::process::chdir("/work").unwrap();

    // By descriptor, in all its ways.
    let file = open("file", create).unwrap();
    rustix::fs::fchown(&file, Some(Uid::from_raw(1)), Some(Gid::from_raw(2))).unwrap();
    rustix::fs::chownat(&file, "", Some(Uid::from_raw(3)), None, AtFlags::EMPTY_PATH).unwrap();
    assert_eq!((owner("file"), rustix::fs::fstat(&file).unwrap().st_uid), ((3, 2), 3));
    let extended = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::BASIC_STATS).unwrap();
    assert_eq!((extended.stx_uid, extended.stx_gid), (3, 2));
    let by_number = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let followed = rustix::fs::stat(by_number.as_str()).unwrap();
    assert_eq!((followed.st_uid, followed.st_gid), (3, 2));

    // Marks are nobody's business; other attributes are left alone.
    rustix::fs::setxattr("file", "user.note", b"x", XattrFlags::empty()).unwrap();
    let mut names = [0; 256];
    let length = rustix::fs::listxattr("file", &mut names).unwrap();
    assert_eq!(&names[..length], b"user.note\0");
    assert_eq!(rustix::fs::getxattr("file", "user.forge.owner", &mut names), Err(Errno::NODATA));
    assert_eq!(rustix::fs::setxattr("file", "user.forge.owner", b"0:0", XattrFlags::empty()), Err(Errno::PERM));
    // Version 2, and u::rwx,g::r-x,g:4:r-x,m::r-x,o::---: a group that the namespace does not map.
    let acl = [2, 0x0007_0001, u32::MAX, 0x0005_0004, u32::MAX, 0x0005_0008, 4, 0x0005_0010, u32::MAX, 0x20, u32::MAX];
    let acl: Vec<u8> = acl.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    rustix::fs::setxattr("file", "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    let length = rustix::fs::getxattr("file", "system.posix_acl_access", &mut names).unwrap();
    assert_eq!(&names[..length], acl);
    assert_eq!(rustix::fs::stat("file").unwrap().st_mode & 0o777, 0o750);

    // A path that is as long as it may be, from a directory that is deeper than any path.
    let long = "d".repeat(250);
    for _ in 0..20 {
        fs::create_dir(&long).unwrap();
        rustix::process::chdir(long.as_str()).unwrap();
    }
    drop(open("deep", create).unwrap());
    let longest = format!("{}deep", "./".repeat(2045));
    let (three, four) = (Some(Uid::from_raw(3)), Some(Gid::from_raw(4)));
    rustix::fs::chownat(CWD, longest.as_str(), three, four, AtFlags::empty()).unwrap();
    assert_eq!((owner("deep"), owner(&longest)), ((3, 4), (3, 4)));
    assert_eq!(rustix::fs::stat("x".repeat(5000)).map(|_| ()), Err(Errno::NAMETOOLONG));
    rustix::process::chdir("/work").unwrap();

    // A thread that is somebody else, and one that stays root.
    let become_user = || {
        set_thread_res_gid(Gid::from_raw(34), Gid::from_raw(34), Gid::from_raw(34)).unwrap();
        set_thread_res_uid(Uid::from_raw(33), Uid::from_raw(33), Uid::from_raw(33)).unwrap();
    };
    std::thread::spawn(move || {
        become_user();
        drop(open("by-thread", create).unwrap());
        assert_eq!(owner("by-thread"), (33, 34));
        let root = Uid::from_raw(0);
        assert_eq!(set_thread_res_uid(root, root, root), Err(Errno::PERM));
        let unnamed = open(".", OFlags::TMPFILE | OFlags::RDWR).unwrap();
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&unnamed));
        rustix::fs::linkat(CWD, name, CWD, "unnamed", AtFlags::SYMLINK_FOLLOW).unwrap();
        assert_eq!(owner("unnamed"), (33, 34));
        let (mode, below) = (Mode::from_raw_mode(0o600), ResolveFlags::BENEATH);
        drop(rustix::fs::openat2(CWD, "below", create | OFlags::CLOEXEC, mode, below).unwrap());
        assert_eq!(owner("below"), (33, 34));
        symlink("target", "dangling").unwrap();
        drop(open("dangling", create).unwrap());
        assert_eq!(owner("target"), (33, 34));
    })
    .join()
    .unwrap();
    assert_eq!(rustix::process::geteuid(), Uid::ROOT);
    drop(open("by-root", create).unwrap());
    assert_eq!(owner("by-root"), (0, 0));

    // Another root: absolute paths and links begin there.
    fs::create_dir_all("/jail/dir").unwrap();
    symlink("/dir", "/jail/link").unwrap();
    rustix::process::chroot("/jail").unwrap();
    rustix::process::chdir("/dir").unwrap();
    drop(open("/link/file", create).unwrap());
    rustix::fs::chownat(CWD, "/link/file", Some(Uid::from_raw(8)), Some(Gid::from_raw(9)), AtFlags::empty()).unwrap();
    assert_eq!((owner("file"), owner("/dir/file")), ((8, 9), (8, 9)));
}
