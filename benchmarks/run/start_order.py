#!/usr/bin/env python3
"""Which functions a start of forge needs: writes .cargo/start-order, after which an optimised forge is linked (.cargo/link-in-order).

    start_order.py --forge target/release/forge --store STORE --formation ID

As root, with `perf`. Commands run some thousand times, and what is running is noted every 40 microseconds, and at every page fault. The
names are looked up in the program, their crates in the libraries beside it (target/release/deps). The formation needs a `/bin/true`."""
import argparse, bisect, collections, glob, os, re, subprocess, sys, tempfile

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--forge", required=True)
parser.add_argument("--store", required=True)
parser.add_argument("--formation", required=True)
parser.add_argument("--runs", type=int, default=2500)
arguments = parser.parse_args()
forge = os.path.abspath(arguments.forge)

COMMANDS = [
    ["run", arguments.formation, "--memory", "256M", "--pids", "64", "--", "/bin/true"],
    ["run", arguments.formation, "--json", "--", "/bin/true"],
    ["info", arguments.formation],
]


def symbols(*files):
    """Functions of programs and libraries: which file, where, how long, and name. Not by `nm`, which asks a plugin about libraries with bitcode."""
    listed = subprocess.run(["readelf", "-sW", *files], capture_output=True, text=True).stdout
    file = files[0] if files else None
    for line in listed.splitlines():
        words = line.split()
        if line.startswith("File: "):
            file = words[1].split("(")[0]
        elif len(words) >= 8 and words[3] in ("FUNC", "IFUNC") and words[6] != "UND":
            yield file, int(words[1], 16), words[2], words[7]


def sampled(events, runs):
    """The addresses at which forge was seen."""
    seen = collections.Counter()
    for command in COMMANDS:
        with tempfile.NamedTemporaryFile() as data:
            loop = f'for i in $(seq {runs}); do "$@" >/dev/null 2>&1; done'
            environment = dict(os.environ, FORGE_STORE=arguments.store)
            subprocess.run(["perf", "record", "-q", *events, "-o", data.name, "sh", "-c", loop, "sh", forge, *command], check=True, env=environment)
            script = subprocess.run(["perf", "script", "-i", data.name, "-F", "comm,ip"], capture_output=True, text=True).stdout
        name = os.path.basename(forge)[:15]
        for line in script.splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == name:
                seen[int(words[1], 16)] += 1
    return seen


def short(name):
    """A name without the hashes that a crate's version and compiler give it, in both ways in which rustc makes names, and without the
    number of what the optimiser made known to other modules."""
    return re.sub("Cs[0-9A-Za-z]+_", "C", re.sub("17h[0-9a-f]+E.*$|\\.llvm\\.[0-9]+$", "", name))


found = sorted((address, size, name) for _, address, size, name in symbols(forge))
addresses = [address for address, *_ in found]
crates = {}
sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
libraries = [f"{os.path.dirname(forge)}/deps/*.rlib", f"{sysroot}/lib/rustlib/*/lib/*.rlib"]
for file, _, _, name in symbols(*(file for pattern in libraries for file in glob.glob(pattern))):
    crates[name] = re.sub(r"^lib|-[0-9a-f]+\.rlib$", "", os.path.basename(file))

ORDER = os.path.join(os.path.dirname(__file__), "..", "..", ".cargo", "start-order")
# A short function is not seen each time: what was needed before stays, as long as the program has it.
has = {(short(name), size) for _, size, name in found}
before = (tuple(line.split()) for line in open(ORDER)) if os.path.exists(ORDER) else ()
needed = {(crate, short(name), size) for crate, name, size in before if (short(name), size) in has}
for events, runs in ((["-F", "25000", "-e", "cpu-clock:u"], arguments.runs), (["-e", "exceptions:page_fault_user"], 30)):
    for address in sampled(events, runs):
        at = bisect.bisect_right(addresses, address) - 1
        # Beyond the last function begins what the kernel maps.
        if at < 0 or address > addresses[-1] + 65536:
            continue
        _, size, name = found[at]
        # What has no hash is the C library's, or the compiler's own.
        needed.add((crates.get(name, "forge"), short(name), size) if short(name) != name else ("-", name, size))
with open(ORDER, "w") as file:
    file.writelines(" ".join(function) + "\n" for function in sorted(needed))
print(f"{len(needed)} functions", file=sys.stderr)
