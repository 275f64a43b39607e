#!/usr/bin/env python3
"""Moving formations between stores: how many bytes, and how fast beside curl.

    transfer.py --forge target/release/forge [--runs 3] [--first pandas==2.2.2] [--second pandas==2.2.3] [--made STORE]

Two formations are built, a Debian root with scientific Python of some 20,000 files, that differ in one wheel of a minor version; in STORE, where
they may be already. Then, over loopback HTTP:
pushing the first, pushing the second with and without differences, pulling each into an empty store; beside it curl takes a file of as many bytes.
Ratios are what counts; the machine and the date belong to every figure (docs/benchmarks.md).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import proxy

EXPRESSION = """{{ forge }}:
forge.formation {{
  name = "science";
  layers = [
    (forge.debian {{ packages = [ "git" "perl" "python3" ]; }})
    (forge.python {{ requirements = [ {requirements} ]; }})
  ];
  command = [ "python3" ];
}}
"""


class Bench:
    def __init__(self, forge, scratch):
        self.forge, self.scratch = str(Path(forge).resolve()), Path(scratch)

    def environment(self, store):
        home = self.scratch / f"home-{Path(store).name}"
        home.mkdir(exist_ok=True)
        return {**os.environ, "FORGE_STORE": str(self.scratch / store), "HOME": str(home), "CI": "true"}

    def run(self, store, *arguments, **more):
        started = time.monotonic()
        done = subprocess.run(
            [self.forge, *arguments], env=self.environment(store), capture_output=True, text=True, **more
        )
        if done.returncode != 0:
            sys.exit(f"forge {' '.join(arguments)}: {done.stderr}")
        return done.stdout, time.monotonic() - started

    def serve(self, store):
        child = subprocess.Popen(
            [self.forge, "serve", "--listen", "127.0.0.1:0", "--anonymous", "read,write"],
            env=self.environment(store), stdout=subprocess.PIPE, text=True,
        )
        return child, child.stdout.readline().strip()


def mib(count):
    return f"{count / 2**20:.1f} MiB"


def curl(path):
    """Seconds that curl takes for a file over loopback."""
    handler = partial(SimpleHTTPRequestHandler, directory=path.parent)
    handler.log_message = lambda *_: None
    SimpleHTTPRequestHandler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    started = time.monotonic()
    address = f"http://127.0.0.1:{server.server_port}/{path.name}"
    subprocess.run(["curl", "-sS", "-o", str(path.parent / "taken"), address], check=True)
    took = time.monotonic() - started
    server.shutdown()
    return took


def resumed(bench, made, id, scratch):
    """What goes over the line twice when it is cut in the middle, of a push and of a pull."""
    words = []
    for what in ("push", "pull"):
        passed = {}
        for kind in ("good", "cut"):
            server, address = bench.serve(f"resumed-{what}-{kind}" if what == "push" else "resumed-push-good")
            # Of an office: a faster one is compressed for as it goes, and two passages could not be compared.
            line = proxy.Line(address.split("//")[1], rate=50e6)
            direction = "up" if what == "push" else "down"
            line.plan(direction, kind, passed.get("good", 0) // 2)
            bench.run(made if what == "push" else f"resumed-pull-{kind}", what, id, f"http://{line.address}")
            passed[kind] = line.passed[direction]
            line.close(), server.terminate(), server.wait()
        again = passed["cut"] - passed["good"]
        words.append(f"{what} {mib(again)} of {mib(passed['good'])} ({100 * again / passed['good']:.2f} %)")
        if what == "push":
            shutil.rmtree(scratch / "resumed-push-cut")
    for store in ("resumed-push-good", "resumed-pull-good", "resumed-pull-cut"):
        shutil.rmtree(scratch / store)
    print(f"sent again after a cut in the middle: {', '.join(words)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--forge", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--base", default="numpy==2.1.3 scipy==1.14.1 scikit-learn==1.5.2 matplotlib==3.9.2")
    parser.add_argument("--first", default="pandas==2.2.2")
    parser.add_argument("--second", default="pandas==2.2.3")
    parser.add_argument("--made", default="made", help="the store that the formations are built in [default: a new one]")
    parser.add_argument("--scratch", help="where stores lie [default: a temporary directory]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        bench, made = Bench(arguments.forge, scratch), str(Path(arguments.made).absolute()) if arguments.made != "made" else "made"
        ids = []
        for number, wheel in enumerate([arguments.first, arguments.second]):
            project = Path(scratch) / f"project-{number}"
            project.mkdir()
            requirements = " ".join(f'"{it}"' for it in [*arguments.base.split(), wheel])
            (project / "runtime.expr").write_text(EXPRESSION.format(requirements=requirements))
            stdout, _ = bench.run(made, "build", str(project / "runtime.expr"))
            ids.append(stdout.split()[-1])
        packed = Path(scratch) / "packed.squashfs"
        bench.run(made, "export", ids[1], "--format", "squashfs", "-o", str(packed))
        size = packed.stat().st_size
        info = json.loads(bench.run(made, "info", ids[1], "--json")[0])
        print(f"formation: {info.get('files', '?')} files, packed {mib(size)}")
        packed.unlink()

        server, address = bench.serve("served")
        first = json.loads(bench.run(made, "push", ids[0], address, "--json")[0])
        print(f"push of the first: {first['moved']} objects, {mib(first['bytes'])}, {mib(first['wire'])} on the line")
        # A store without the first has nothing to make differences against.
        second_server, second_address = bench.serve("served-too")
        bench.run(made, "push", ids[1], second_address)
        bench.run("alone", "pull", ids[1], second_address)
        plain = json.loads(bench.run("alone", "push", ids[1], address, "--json")[0])
        server.terminate()
        server.wait()
        shutil.rmtree(Path(scratch) / "served")
        server, address = bench.serve("served")
        bench.run(made, "push", ids[0], address)
        receipt = json.loads(bench.run(made, "push", ids[1], address, "--json")[0])
        for words, it in [("without differences", plain), ("with differences", receipt)]:
            print(
                f"push of the second {words}: {it['moved']} objects, {it['differences']} differences, "
                f"{mib(it['wire'])} on the line, 1/{size / it['wire']:.0f} of packed"
            )

        resumed(bench, made, ids[0], Path(scratch))

        ratios, pulls, curls, checkouts = [], [], [], []
        for _ in range(arguments.runs):
            shutil.rmtree(Path(scratch) / "fresh", ignore_errors=True)
            stdout, took = bench.run("fresh", "pull", ids[0], address, "--json")
            wire = json.loads(stdout)["wire"]
            _, checkout = bench.run("fresh", "run", ids[0], "--", "true")
            file = Path(scratch) / "same-bytes"
            with open(file, "wb") as out:
                for _ in range(wire // 2**20):
                    out.write(os.urandom(2**20))
                out.write(os.urandom(wire % 2**20))
            alone = curl(file)
            pulls.append(took), curls.append(alone), checkouts.append(checkout)
            ratios.append((alone + checkout) / (took + checkout))
        print(
            f"pull into an empty store: {statistics.median(pulls):.2f} s, curl for {mib(wire)} {statistics.median(curls):.2f} s, "
            f"checkout and run {statistics.median(checkouts):.2f} s: {statistics.median(ratios):.2f} of curl's rate plus checkout"
        )
        for child in [server, second_server]:
            child.terminate()
            child.wait()


if __name__ == "__main__":
    main()
