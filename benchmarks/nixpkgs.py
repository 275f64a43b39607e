#!/usr/bin/env python3
"""What forge and Nix call the packages of a nixpkgs: their drvPaths, compared one by one.

usage: nixpkgs.py --forge 'FORGE nix-instantiate' --nix NIX_INSTANTIATE [--every N] [--batch N] NIXPKGS

Compared are `hello`, `python3`, `firefox`, `texliveFull`, a cross-compiled `hello`, a NixOS system, and every Nth package of
`pkgs/by-name`, in order of their names. Packages are asked in batches, each tried by itself (`builtins.tryEval`); where a batch
as a whole fails on either side, which `tryEval` cannot catch, its packages are asked one by one. Prints every difference, and ends with
1 if there is one.
"""
import argparse, json, os, shlex, subprocess, sys

SYSTEM = (
    '(import {}/nixos {{ system = "x86_64-linux"; configuration = {{ boot.loader.grub.enable = false;'
    ' fileSystems."/" = {{ device = "/dev/sda1"; fsType = "ext4"; }}; system.stateVersion = "25.11"; }}; }})'
    ".config.system.build.toplevel"
)
SINGLE = {
    "hello": "(import {} {{ }}).hello",
    "python3": "(import {} {{ }}).python3",
    "firefox": "(import {} {{ }}).firefox",
    "texliveFull": "(import {} {{ }}).texliveFull",
    "hello for aarch64": "(import {} {{ }}).pkgsCross.aarch64-multiplatform.hello",
    "NixOS toplevel": SYSTEM,
}
# Unfree ones are compared, too; what is broken or insecure fails on both sides alike.
BATCH = (
    "let packages = import {} {{ config.allowUnfree = true; }};"
    " path = name: let tried = builtins.tryEval (packages.${{name}}.drvPath or null); in"
    ' if tried.success then tried.value else "fails";'
    " in builtins.listToAttrs (map (name: {{ inherit name; value = path name; }}) [ {} ])"
)


def ask(command, expression):
    """The value, or the last line of what was said instead."""
    process = subprocess.run(
        shlex.split(command) + ["--eval", "--strict", "--json", "-E", expression], capture_output=True, text=True
    )
    if process.returncode == 0:
        return json.loads(process.stdout), None
    said = [line.strip() for line in process.stderr.splitlines() if line.strip().startswith("error:")]
    return None, said[-1] if said else f"exit status {process.returncode}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forge", required=True)
    parser.add_argument("--nix", required=True)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--batch", type=int, default=30)
    parser.add_argument("nixpkgs")
    options = parser.parse_args()
    nixpkgs = os.path.abspath(options.nixpkgs)
    equal = failing = different = 0

    def compare(name, ours, theirs):
        nonlocal equal, failing, different
        if ours == theirs:
            equal += 1
        elif ours[0] is None and theirs[0] is None:
            # Both fail; that they do not say it in the same words is for other tests.
            failing += 1
        else:
            different += 1
            print(f"{name} differs:\n  forge {ours[0] or ours[1]}\n  Nix   {theirs[0] or theirs[1]}", flush=True)

    for name, expression in SINGLE.items():
        expression = expression.format(nixpkgs) + ".drvPath"
        compare(name, ask(options.forge, expression), ask(options.nix, expression))
    print(f"{equal} of {len(SINGLE)} single ones are equal", flush=True)
    by_name = os.path.join(nixpkgs, "pkgs/by-name")
    names = sorted(name for shard in os.listdir(by_name) if len(shard) == 2 for name in os.listdir(os.path.join(by_name, shard)))
    names = names[:: options.every]

    def batch(names):
        expression = BATCH.format(nixpkgs, " ".join(json.dumps(name) for name in names))
        ours, theirs = ask(options.forge, expression), ask(options.nix, expression)
        if len(names) > 1 and (ours[0] is None or theirs[0] is None):
            middle = len(names) // 2
            batch(names[:middle])
            batch(names[middle:])
            return
        for name in names:
            pick = lambda answer: (answer[0][name], None) if answer[0] else answer
            compare(name, pick(ours), pick(theirs))

    for start in range(0, len(names), options.batch):
        batch(names[start : start + options.batch])
        done = min(start + options.batch, len(names))
        print(f"{done} of {len(names)} packages: {different} different in all", file=sys.stderr, flush=True)
    print(f"{equal} equal, {failing} fail on both sides, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
