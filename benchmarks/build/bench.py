#!/usr/bin/env python3
"""What building costs beside the work itself: nothing to do, 10,000 steps that are known, and one trivial step more; beside nix-build.

Needs a static busybox (Debian's busybox-static). Pairs run in turn; user and system time of the whole process tree tell most on a busy
machine."""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time


def measure(command, directory, environment):
    """Wall time and processor time of a command and all that it waited for, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run(command, cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


CHAIN = """
{ count, salt ? "" }:
let
  busybox = "${./seed}/busybox";
  one = number: derivation {
    name = "step-${toString number}";
    system = builtins.currentSystem or "x86_64-linux";
    builder = busybox;
    args = [ "sh" "-c" "echo ${toString number} ${salt} > $out" ];
  };
  numbers = builtins.genList (number: number) count;
in derivation {
  name = "all-${salt}";
  system = "x86_64-linux";
  builder = busybox;
  args = [ "sh" "-c" "echo ${salt} > $out" ];
  steps = map (number: "${one number}") numbers;
}
"""

FORMATION = """
{ forge, salt ? "", count ? 0 }:
let
  base = forge.files { "/bin/busybox" = ./seed/busybox; };
  one = number: forge.files { "/made/${toString number}" = "text ${toString number}\\n"; };
in forge.formation {
  name = "bench";
  version = salt;
  layers = [ base ] ++ builtins.genList one count ++ (if salt == "" then [ ] else [ (forge.run {
    name = "trivial";
    layers = [ base ];
    command = [ "/bin/busybox" "sh" "-c" "echo ${salt} > /salt" ];
  }) ]);
  command = [ "/bin/busybox" "true" ];
}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forge", required=True)
    parser.add_argument("--nix", help="a nix-build to compare with, for instance nix-build")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10000)
    arguments = parser.parse_args()
    forge = os.path.abspath(arguments.forge)
    busybox = next(path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path))
    with tempfile.TemporaryDirectory(prefix="forge-bench-") as directory:
        os.mkdir(f"{directory}/seed")
        shutil.copy(busybox, f"{directory}/seed/busybox")
        for name, text in (("chain.nix", CHAIN), ("runtime.expr", FORMATION)):
            with open(f"{directory}/{name}", "w") as file:
                file.write(text)
        environment = dict(os.environ, FORGE_STORE=f"{directory}/store", CI="true", HOME=directory, NIX_CONFIG="build-users-group =")

        def build(*words):
            return measure([forge, "build", "-q", *words], directory, environment)

        def nix(*words):
            return measure([arguments.nix, "--store", f"{directory}/nix", "--option", "substitute", "false", "--option", "sandbox",
                            "true", "--no-out-link", *words], directory, environment)

        def row(name, times):
            walls, cpus = zip(*times)
            print(f"{name:<46} {1000 * statistics.median(walls):9.1f} ms wall {1000 * statistics.median(cpus):9.1f} ms CPU  {len(times)} runs")
            return statistics.median(walls)

        build("runtime.expr")
        row("nothing to do", [build("runtime.expr") for _ in range(arguments.runs)])

        # One step more each time, in a store that has the rest: what is beyond "nothing to do" is the step's.
        ours, theirs = [], []
        count = "1"
        build("chain.nix", "--arg", "count", count)
        for run in range(arguments.runs):
            ours.append(build("chain.nix", "--arg", "count", count, "--argstr", "salt", f"a{run}"))
            if arguments.nix:
                theirs.append(nix("chain.nix", "--arg", "count", count, "--argstr", "salt", f"a{run}"))
        row("two trivial Nix steps, forge", ours)
        if theirs:
            row("two trivial Nix steps, nix-build", theirs)
        # What a step adds to a command that makes steps anyway: of 51 in a command, one at a time, less the two of a command with two.
        ours, theirs = [], []
        for run in range(max(arguments.runs // 2, 1)):
            for build_with, times in ((build, ours), *([(nix, theirs)] if arguments.nix else [])):
                few, many = (build_with("chain.nix", "-j", "1", "--arg", "count", str(count), "--argstr", "salt", f"e{run}-{count}")
                             for count in (1, 50))
                times.append(tuple((after - before) / 49 for before, after in zip(few, many)))
        row("a sandboxed Nix step more, forge", ours)
        if theirs:
            row("a sandboxed Nix step more, nix-build", theirs)
        row("one trivial forge.run", [build("runtime.expr", "--argstr", "salt", f"b{run}") for run in range(arguments.runs)])

        # A graph of which everything is known but the top, which changes each time.
        many = str(arguments.steps)
        first = build("runtime.expr", "--arg", "count", many)
        print(f"{arguments.steps} trivial steps made{'':<20} {1000 * first[0]:9.1f} ms wall {1000 * first[1]:9.1f} ms CPU  1 run")
        row(f"{arguments.steps} known, nothing to do", [build("runtime.expr", "--arg", "count", many) for _ in range(3)])
        row(f"{arguments.steps} known, one more to make",
            [build("runtime.expr", "--arg", "count", many, "--argstr", "salt", f"c{run}") for run in range(3)])


if __name__ == "__main__":
    main()
