#!/usr/bin/env python3
"""Debian roots against mmdebstrap, and a scientific Python layer against pip and uv: from files that are there.

One root has some 60 packages, the other 105, of which ca-certificates and python3 have long scripts. Both sides work from what was fetched
before: forge from a store that has the downloads and nothing else, mmdebstrap from its cache of packages, pip and uv from a directory of
wheels. Runs go in turn; what is written before is flushed first, and nothing is deleted before the end (for some time ext4 gives no inode
away again, and looks for others one by one). As root, for mmdebstrap."""

import argparse
import mmap
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time

ROOTS = {"essential": ["less"], "scripts": ["ca-certificates", "curl", "less", "python3"]}
WHEELS = ["matplotlib", "numpy", "pandas", "scikit-learn", "scipy"]

ROOT = """
{{ forge }}:
forge.formation {{
  name = "root";
  layers = [ (forge.debian {{ packages = [ {packages} ]; }}) {more} ];
}}
"""

FETCHED = """
{{ forge }}:
forge.formation {{
  name = "fetched";
  layers = [ (forge.files {{
{files}
  }}) ];
}}
"""


def settle():
    """Makes the state alike for whoever comes next: what was written is flushed, and the kernel has memory to give.

    A virtual machine gets a page from its host when it first touches it, which takes longer than most of what is measured here does
    with it. Who runs after a large copy would pay for that, who runs after a large program would not."""
    os.sync()
    mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def run(command, **options):
    """Wall time of a command, in seconds; what it says is shown when it fails."""
    settle()
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    taken = time.monotonic() - start
    if ended.returncode != 0:
        raise SystemExit(f"{command}: status {ended.returncode}\n{ended.stderr[-3000:]}")
    return taken, ended.stdout.strip()


class Forge:
    """forge in a directory of its own, with stores beside it."""

    def __init__(self, program, directory):
        self.program, self.directory = os.path.abspath(program), directory

    def build(self, project, store, *words):
        environment = dict(os.environ, FORGE_STORE=f"{self.directory}/{store}", CI="true", HOME=self.directory)
        return run([self.program, "build", "-q", *words], cwd=f"{self.directory}/{project}", env=environment)

    def write(self, project, text):
        os.makedirs(f"{self.directory}/{project}", exist_ok=True)
        with open(f"{self.directory}/{project}/runtime.expr", "w") as file:
            file.write(text)

    def records(self, project):
        """What the lock says was taken: file name, address and digest."""
        with open(f"{self.directory}/{project}/forge.lock") as file:
            text = file.read()
        for entry in text.split("[[lock]]")[1:]:
            kind = re.search(r'kind = "([^"]+)"', entry).group(1)
            for line in re.findall(r"^  \{ (.*) \},?$", entry, re.M):
                fields = dict(re.findall(r'(\w+) = "([^"]*)"', line))
                if kind == "debian":
                    yield fields["file"].rsplit("/", 1)[-1], f"debian:{fields['suite']}/{fields['file']}", fields["sha256"]
                else:
                    yield fields["file"], f"python:{fields['name']}/{fields['file']}", fields["sha256"]

    def fetch(self, projects, store):
        """Fills a store with the downloads of projects, and with nothing that was made of them."""
        files = {name: (url, digest) for project in projects for name, url, digest in self.records(project)}
        lines = [
            f'    "/files/{name}" = forge.fetchurl {{ url = "{url}"; sha256 = "{digest}"; name = "fetched"; }};'
            for name, (url, digest) in sorted(files.items())
        ]
        self.write("fetched", FETCHED.format(files="\n".join(lines)))
        self.build("fetched", store)
        return len(files)

    def copy(self, store, to):
        shutil.rmtree(f"{self.directory}/{to}", ignore_errors=True)
        subprocess.run(["cp", "-a", f"{self.directory}/{store}", f"{self.directory}/{to}"], check=True)


def row(name, ours, theirs, other, goal):
    """Prints medians and the median of the pairs' ratios."""
    ratio = statistics.median(b / a for a, b in zip(ours, theirs))
    print(f"{name:<44} forge {statistics.median(ours):6.2f} s, {other} {statistics.median(theirs):6.2f} s, ratio {ratio:5.2f} "
          f"(goal {goal}) of {len(ours)} pairs", flush=True)


def debian(forge, arguments, kind):
    """Debian roots against mmdebstrap with its own cache."""
    directory, packages = forge.directory, ROOTS[kind]
    names = " ".join(f'"{name}"' for name in packages)
    small, larger, seed = (f"{kind}-{name}" for name in ("small", "larger", "seed"))
    forge.write(small, ROOT.format(packages=names, more=""))
    forge.write(larger, ROOT.format(packages=f'{names} "{arguments.one_more}"', more=""))
    for project in (small, larger):
        forge.build(project, "whole")
    counts = [len(list(forge.records(project))) for project in (small, larger)]
    forge.fetch([small, larger], seed)

    def bootstrap(target, packages):
        cache = f"{directory}/{kind}-cache/"
        os.makedirs(cache, exist_ok=True)
        # mmdebstrap(1), "caching": packages are copied in before the download, and out after it.
        return run([
            "mmdebstrap", "--variant=essential", f"--include={','.join(packages)}", "--skip=download/empty", "--skip=essential/unlink",
            '--setup-hook=mkdir -p "$1"/var/cache/apt/archives/', f"--setup-hook=sync-in {cache} /var/cache/apt/archives/",
            f"--customize-hook=sync-out /var/cache/apt/archives {cache}", "bookworm", f"{directory}/{target}", *arguments.mirror,
        ])[0]

    bootstrap(f"{kind}-theirs", packages + [arguments.one_more])
    ours, theirs, more, theirs_more = [], [], [], []
    identities = set()
    for number in range(arguments.runs):
        store = f"{kind}-store-{number}"
        forge.copy(seed, store)
        taken, _ = forge.build(small, store, "--locked")
        ours.append(taken)
        theirs.append(bootstrap(f"{kind}-theirs-{number}", packages))
        taken, identity = forge.build(larger, store, "--locked")
        more.append(taken)
        identities.add(identity)
        theirs_more.append(bootstrap(f"{kind}-theirs-more-{number}", packages + [arguments.one_more]))
    forge.copy(seed, f"{kind}-store")
    identities.add(forge.build(larger, f"{kind}-store", "--locked")[1])
    row(f"Debian root of {counts[0]} packages", ours, theirs, "mmdebstrap", "3")
    row(f"one package more, {counts[1]} with what it needs", more, theirs_more, "mmdebstrap", "4")
    print("one more is equal to from nothing:", "yes" if len(identities) == 1 else f"NO: {identities}")


def python(forge, arguments):
    """A Python layer against pip and uv."""
    directory = forge.directory
    names = " ".join(f'"{name}"' for name in WHEELS)
    forge.write("below", ROOT.format(packages='"libstdc++6" "python3"', more=""))
    kinds = ["modules", "all", "none"]
    for kind in kinds:
        layer = f'(forge.python {{ requirements = [ {names} ]; bytecode = "{kind}"; }})'
        forge.write(kind, ROOT.format(packages='"libstdc++6" "python3"', more=layer))
        forge.build(kind, "whole")
    forge.build("below", "whole")
    forge.fetch(kinds, "wheels-seed")
    forge.build("below", "wheels-seed")
    # The wheels as files, for the others.
    wheels = f"{directory}/wheels"
    os.makedirs(wheels, exist_ok=True)
    environment = dict(os.environ, FORGE_STORE=f"{directory}/wheels-seed", HOME=directory)
    run([forge.program, "export", "fetched", "--format", "tar", "-o", f"{directory}/fetched.tar"], env=environment)
    run(["tar", "-C", wheels, "--strip-components=1", "-xf", f"{directory}/fetched.tar", "--wildcards", "*.whl"])
    common = ["install", "-q", "--no-index", "--find-links", wheels, "--target"]
    ours, pips, uvs, uvs_bare = {kind: [] for kind in kinds}, [], [], []
    for number in range(arguments.runs):
        for kind in kinds:
            forge.copy("wheels-seed", f"store-{kind}-{number}")
            ours[kind].append(forge.build(kind, f"store-{kind}-{number}", "--locked")[0])
        target = f"{directory}/target-{number}"
        pips.append(run([arguments.python, "-m", "pip", *common, f"{target}-pip", *WHEELS], env=dict(os.environ, PIP_CONFIG_FILE="/dev/null"))[0])
        if arguments.uv:
            uv = [arguments.uv, "pip", *common]
            for kept, extra in ((uvs, ["--compile-bytecode"]), (uvs_bare, [])):
                clean = dict(os.environ, UV_CACHE_DIR=f"{directory}/uv-cache-{number}-{len(extra)}")
                kept.append(run([*uv, f"{target}-uv-{len(extra)}", *extra, "--python", arguments.python, *WHEELS], env=clean)[0])
    row("Python stack into a layer", ours["modules"], pips, "pip", "3")
    row("the same, tests compiled too", ours["all"], pips, "pip", "none")
    if uvs:
        row("the same, tests compiled too", ours["all"], uvs, "uv --compile-bytecode", "0.83")
        row("the same, nothing compiled", ours["none"], uvs_bare, "uv", "0.83")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forge", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["debian", "python"])
    parser.add_argument("--one-more", default="jq")
    parser.add_argument("--mirror", nargs="*", default=[], help="sources for mmdebstrap; the machine's own, if none are given")
    parser.add_argument("--python", default="python3", help="a Python 3.11 with pip")
    parser.add_argument("--uv", default=shutil.which("uv"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forge-bench-") as directory:
        forge = Forge(arguments.forge, directory)
        if arguments.only != "python":
            if shutil.which("mmdebstrap"):
                for kind in ROOTS:
                    debian(forge, arguments, kind)
            else:
                print("skipped: no mmdebstrap")
        if arguments.only != "debian":
            python(forge, arguments)


if __name__ == "__main__":
    main()
