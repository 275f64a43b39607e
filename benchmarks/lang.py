#!/usr/bin/env python3
"""Nix and forge on the same expressions, in turn: user time and peak memory, start-up included.

usage: lang.py --forge 'FORGE nix-instantiate' --nix NIX_INSTANTIATE --workloads DIRECTORY [--nixpkgs NIXPKGS] [--rounds N] [--only NAME …]

Each file of the directory is evaluated with `--eval --strict`; with a nixpkgs (whose `lib` they find in the environment as
NIXPKGS_LIB) also some of its packages and a NixOS system. The least user time of the rounds counts, as others may be working.
Outputs that differ are said to.
"""
import argparse, glob, math, os, shlex, sys, tempfile

SYSTEM = (
    "(import {}/nixos {{ configuration = {{ fileSystems.\"/\" = {{ device = \"/dev/sda1\"; fsType = \"ext4\"; }};"
    " boot.loader.grub.device = \"/dev/sda\"; system.stateVersion = \"25.11\"; }}; }}).config.system.build.toplevel"
)


def run(command):
    """Exit status, user seconds, MiB, and what was printed."""
    with tempfile.TemporaryFile() as output:
        process = os.fork()
        if process == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                os.execvp(command[0], command)
            finally:
                os._exit(127)
        _, status, usage = os.wait4(process, 0)
        output.seek(0)
        return status, usage.ru_utime, usage.ru_maxrss / 1024, output.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forge", required=True)
    parser.add_argument("--nix", required=True)
    parser.add_argument("--workloads", required=True)
    parser.add_argument("--nixpkgs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    jobs = [
        (os.path.basename(file), ["--eval", "--strict", file])
        for file in sorted(glob.glob(os.path.join(options.workloads, "*.nix")))
    ]
    small = len(jobs)
    if options.nixpkgs:
        os.environ["NIXPKGS_LIB"] = os.path.join(options.nixpkgs, "lib")
        jobs += [(name, [options.nixpkgs, "-A", name]) for name in ("hello", "firefox")]
        jobs.append(("NixOS toplevel", ["-E", SYSTEM.format(options.nixpkgs)]))
    print("| workload | Nix: user s | MiB | forge: user s | MiB | times faster | of the memory |")
    print("|---|---|---|---|---|---|---|")
    factors = []
    for number, (name, arguments) in enumerate(jobs):
        if options.only and not any(word in name for word in options.only):
            continue
        sides = ([], [])
        for _ in range(options.rounds):
            for side, command in zip(sides, (options.nix, options.forge)):
                side.append(run(shlex.split(command) + arguments))
        nix, forge = (min(side, key=lambda result: result[1]) for side in sides)
        if nix[0] or forge[0]:
            print(f"| {name} | failed: {nix[0]} | | {forge[0]} | | | |", flush=True)
            continue
        factor = nix[1] / max(forge[1], 0.001)
        if number < small:
            factors.append(factor)
        differs = "" if nix[3] == forge[3] else " (**they differ**)"
        print(
            f"| {name}{differs} | {nix[1]:.2f} | {nix[2]:.0f} | {forge[1]:.2f} | {forge[2]:.0f}"
            f" | {factor:.2f} | {forge[2] / nix[2]:.2f} |",
            flush=True,
        )
    if factors:
        mean = math.exp(sum(map(math.log, factors)) / len(factors))
        print(f"\ngeometric mean of the {len(factors)} small ones: {mean:.2f} times faster")


if __name__ == "__main__":
    sys.exit(main())
