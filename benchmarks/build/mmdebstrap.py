#!/usr/bin/env python3
"""A Debian root by forge against the one by mmdebstrap of the same packages: every path with type, mode, owner, link and content.

What may differ is listed below with its reason; anything else is printed, and ends with status 1. As root, and with a network."""

import argparse
import fnmatch
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile

# Maintainer scripts that matter: users and groups, alternatives, certificates, ldconfig, diversions, conffiles, set-id programs. `usrmerge` is
# what apt takes to merge /usr, and forge only if it is wished for.
PACKAGES = ["adduser", "ca-certificates", "cron", "curl", "less", "molly-guard", "openssh-client", "python3", "sudo", "systemd-sysv",
            "usrmerge", "vim-tiny", "zsh", "zutils"]

MAY_DIFFER = {
    "dev/*": "forge gives every run its own /dev",
    "proc": "mount points", "sys": "mount points", "run/*": "of a running system",
    "etc/hostname": "the machine's", "etc/hosts": "the machine's", "etc/resolv.conf": "the machine's",
    "etc/machine-id": "an identity", "etc/fstab": "mmdebstrap's own", "etc/apt/sources.list*": "the machine's mirrors",
    "etc/apt/apt.conf.d/99mmdebstrap": "mmdebstrap's own", "etc/apt/preferences.d*": "mmdebstrap's own",
    "var/lib/apt*": "indexes", "var/cache/apt*": "indexes", "var/cache/ldconfig*": "a cache", "var/log/*": "logs",
    "var/cache/debconf/*-old": "backups", "var/lib/dpkg/*-old": "backups", "etc/*-": "backups", "var/backups/*": "backups",
    "var/lib/dpkg/available": "of dselect", "var/lib/dpkg/lock*": "locks", "var/lib/dpkg/triggers/Lock": "locks",
    "var/lib/dpkg/status": "the order of paragraphs and of configuration", "var/lib/dpkg/info/format": "written by a tool",
    "etc/.pwd.lock": "locks", "var/lib/dpkg/arch": "of more than one architecture", "var/lib/dpkg/arch-native": "written by a newer dpkg",
}

# Texts whose lines may come in another order.
LINES = ["etc/group", "etc/gshadow", "etc/shells", "var/cache/debconf/config.dat"]


def tree(path):
    """What is at each path of a tar: a hard link is what it is a link to."""
    found, links = {}, {}
    kinds = {tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device", tarfile.FIFOTYPE: "fifo"}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./").rstrip("/")
            kind = kinds.get(member.type, "file")
            if member.islnk():
                links[name] = member.linkname.removeprefix("./")
            elif kind == "link":
                found[name] = (kind, member.linkname)
            else:
                content = archive.extractfile(member).read() if kind == "file" else b""
                digests = [hashlib.sha256(text).hexdigest()[:16] for text in (content, b"\n".join(sorted(content.split(b"\n"))))]
                found[name] = (kind, oct(member.mode), member.uid, member.gid, *digests)
    return found | {name: found[target] for name, target in links.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forge", required=True)
    parser.add_argument("--mirror", nargs="*", default=[], help="sources for mmdebstrap; the machine's own, if none are given")
    arguments = parser.parse_args()
    forge = os.path.abspath(arguments.forge)
    with tempfile.TemporaryDirectory(prefix="forge-mmdebstrap-") as directory:
        os.chmod(directory, 0o755)
        names = " ".join(f'"{name}"' for name in PACKAGES)
        with open(f"{directory}/runtime.expr", "w") as file:
            file.write(f'{{ forge }}:\nforge.formation {{ name = "root"; layers = [ (forge.debian {{ packages = [ {names} ]; }}) ]; }}\n')
        environment = dict(os.environ, FORGE_STORE=f"{directory}/store", HOME=directory, CI="true")
        for words in (["build", "-q"], ["export", "root", "--format", "tar", "-o", "ours.tar"]):
            subprocess.run([forge, *words], cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL)
        theirs = f"{directory}/theirs.tar"
        # The time that forge's steps have, which goes into /etc/shadow and the kind of Python's bytecode.
        environment = dict(os.environ, SOURCE_DATE_EPOCH="315619200")
        command = ["mmdebstrap", "-q", "--variant=essential", f"--include={','.join(PACKAGES)}", "bookworm", theirs, *arguments.mirror]
        subprocess.run(command, env=environment, check=True)
        ours, theirs = tree(f"{directory}/ours.tar"), tree(theirs)
    # The same lines in another order: as scripts came to run, or as debconf writes its tables.
    ordered = lambda found: found and found[:-2] + found[-1:]
    same_lines = {name for name in LINES if ordered(ours.get(name)) == ordered(theirs.get(name))}
    excused = lambda name: name in same_lines or any(fnmatch.fnmatch(name, pattern) for pattern in MAY_DIFFER)
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    wrong = [name for name in differing if not excused(name)]
    print(f"{len(ours)} paths by forge, {len(theirs)} by mmdebstrap; {len(ours.keys() & theirs.keys()) - len([n for n in differing if n in ours and n in theirs])} "
          f"the same, {len(differing) - len(wrong)} differ as they may, {len(wrong)} otherwise")
    for name in wrong:
        print(f"{name}: forge {ours.get(name)}, mmdebstrap {theirs.get(name)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
