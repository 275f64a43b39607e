#!/usr/bin/env python3
"""The language tests of the Nix sources, carried out by forge: how many of each kind come out exactly.

usage: nix_suite.py --forge 'FORGE nix-instantiate' DIRECTORY [--show]

DIRECTORY is `tests/functional` of the Nix sources, which stays as it is: the tests run in it, with this process's rights, and
write nothing. Right is a test with the exit status that it should have and, if it succeeds, the output; exact one that also
says what Nix says, to the letter. `--show` prints the differences. Ends with 1 if a test is not right.
"""
import argparse, difflib, glob, os, re, shlex, subprocess, sys

# What Nix's own driver replaces before it compares, where a test asks for it by a file NAME.postprocess: numbers of statistics.
NUMBERS = re.compile(r"[0-9]+")
WIDE_NUMBERS = re.compile(r"[0-9 ]{7}[0-9]([^0-9])")


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


class Suite:
    def __init__(self, forge, directory):
        # Nix's own tests run with these settings.
        features = ["--extra-experimental-features", "flakes fetch-tree", "--show-trace"]
        self.forge, self.directory = shlex.split(forge) + features, os.path.realpath(directory)
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "LC_ALL": "C",
            "HOME": "/fake-home",
            "TEST_VAR": "foo",
            "NIX_PATH": "lang/dir3:lang/dir4",
        }

    def names(self, kind):
        files = glob.glob(os.path.join(self.directory, "lang", kind + "-*.nix"))
        return sorted(os.path.basename(file)[:-4] for file in files)

    def file(self, name, suffix):
        return os.path.join(self.directory, "lang", name + suffix)

    def run(self, arguments, text=b""):
        process = subprocess.run(
            self.forge + arguments, cwd=self.directory, env=self.environment, input=text, capture_output=True, timeout=300
        )
        shown = [part.decode(errors="replace").replace(self.directory, "/pwd") for part in (process.stdout, process.stderr)]
        return process.returncode, *shown

    def parse(self, name):
        with open(self.file(name, ".nix"), "rb") as file:
            return self.run(["--parse", "-"], file.read())

    def flags(self, name, otherwise):
        path = self.file(name, ".flags")
        return re.sub("#.*", "", read(path)).split() if os.path.exists(path) else otherwise

    def case(self, kind, name):
        """Whether the exit status is right, what was expected and what came: pairs of texts."""
        if kind == "parse-fail":
            status, _, errors = self.parse(name)
            return status == 1, [(read(self.file(name, ".err.exp")), errors)]
        if kind == "parse-okay":
            status, output, errors = self.parse(name)
            return status == 0, [(read(self.file(name, ".exp")), output), (read(self.file(name, ".err.exp")), errors)]
        path = f"lang/{name}.nix"
        if kind == "eval-fail":
            status, _, errors = self.run(self.flags(name, ["--eval", "--strict"]) + [path])
            if os.path.exists(self.file(name, ".postprocess")):
                errors = NUMBERS.sub("<number>", WIDE_NUMBERS.sub(r"<number>\1", errors))
            return status == 1, [(read(self.file(name, ".err.exp")), errors)]
        if os.path.exists(self.file(name, ".exp.xml")):
            status, output, _ = self.run(["--eval", "--xml", "--no-location", "--strict", path])
            return status == 0, [(read(self.file(name, ".exp.xml")), output)]
        if os.path.exists(self.file(name, ".exp-disabled")):
            return None
        status, output, errors = self.run(self.flags(name, []) + ["--eval", "--strict", path])
        return status == 0, [(read(self.file(name, ".exp")), output), (read(self.file(name, ".err.exp")), errors)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forge", required=True)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("directory")
    options = parser.parse_args()
    suite = Suite(options.forge, options.directory)
    wrong = 0
    print("| kind | tests | right | exact | not exact |")
    print("|---|---|---|---|---|")
    differences = []
    for kind in ("parse-okay", "parse-fail", "eval-okay", "eval-fail"):
        tests, right, exact, inexact = 0, 0, 0, []
        for name in suite.names(kind):
            result = suite.case(kind, name)
            if result is None:
                continue
            status, pairs = result
            is_right = status and (kind.endswith("fail") or pairs[0][0] == pairs[0][1])
            is_exact = status and all(expected == came for expected, came in pairs)
            tests += 1
            right += is_right
            exact += is_exact
            if not is_exact:
                inexact.append(name[len(kind) + 1 :] + ("" if is_right else " (**wrong**)"))
                differences.append((name, pairs))
        wrong += tests - right
        print(f"| {kind} | {tests} | {right} | {exact} | {', '.join(inexact)} |", flush=True)
    for name, pairs in differences if options.show else []:
        for expected, came in pairs:
            lines = difflib.unified_diff(expected.splitlines(), came.splitlines(), name + " expected", name, lineterm="")
            print("\n".join(lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
