#!/usr/bin/env python3
"""What taking in a tree costs, against nix-store --add, ostree commit, git add and cp; and what a collection costs.

    bench.py [--forge forge] [--source DIR] [--nix 'WORDS nix-store'] [--ostree ostree] [--git git] [--runs 3]
    bench.py --collect 1000000 [--forge forge]

Without --source, a tree of 20,000 files and 0.7 GB is made: sizes as in a Debian root with scientific Python. Every run has a
store of its own, runs alternate (A B A B …), and ratios are of wall time and of processor time (user + system), because a busy
machine stretches the former. What is not given is left out.
"""

import argparse, os, random, resource, shlex, shutil, statistics, subprocess, sys, tempfile, time


def measured(command, environment=None):
    """Wall seconds, processor seconds and peak MiB of a command."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    words = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{shlex.join(command)}: {words.decode(errors='replace')}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def payload(path, files=20_000, size=700 << 20):
    """Half of the files below 4 KiB, a few of many megabytes; contents do not compress and do not repeat."""
    chance = random.Random(4)
    weights = [chance.lognormvariate(8.3, 1.9) for _ in range(files)]
    scale = size / sum(weights)
    for number, weight in enumerate(weights):
        directory = os.path.join(path, f"d{number // 400}", f"e{number // 20 % 20}")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, f"f{number}"), "wb") as file:
            file.write(chance.randbytes(int(weight * scale)))
    # What was changed a moment ago is read once more.
    time.sleep(2.5)


def ingest(options, work):
    forge, source = os.path.abspath(options.forge), options.source
    if not source:
        source = os.path.join(work, "source")
        payload(source)
    count = sum(len(files) for _, _, files in os.walk(source))
    size = sum(os.lstat(os.path.join(base, name)).st_size for base, _, files in os.walk(source) for name in files)
    print(f"{count} files, {size / 1e9:.2f} GB")
    fresh = lambda number: os.path.join(work, f"s{number}")

    def ours(store):
        return [forge, "--store", store, "--quiet", "import", source, "--name", "payload"]

    def git(store):
        subprocess.run(["git", "init", "-q", "--bare", store], check=True)
        return [options.git, "--git-dir", store, "--work-tree", source, "add", "-A", "."]

    def ostree(store):
        subprocess.run([*shlex.split(options.ostree), "init", "--mode=bare-user", f"--repo={store}"], check=True)
        return [*shlex.split(options.ostree), f"--repo={store}", "commit", "--branch=b", f"--tree=dir={source}"]

    def nix(store):
        # Nix's own bytes go below a root of our choice.
        return [*shlex.split(options.nix), "--store", f"local?root={store}", "--add", source]

    def copy(store):
        return ["cp", "-a", source, store]

    rivals = {"cp -a": copy}
    if options.git:
        rivals["git add"] = git
    if options.ostree:
        rivals["ostree commit"] = ostree
    if options.nix:
        rivals["nix-store --add"] = nix
    taken = {name: [] for name in ("forge", "forge, unchanged", *rivals)}
    # Nothing is deleted between the runs: ext4 looks long for inodes that were not deleted of late (up to six minutes), and whoever
    # comes next would pay for it. So a file system of their own, with room for all runs, is best: --directory.
    for number in range(options.runs + 1):
        for place, (name, command) in enumerate({"forge": ours, **rivals}.items()):
            store = fresh(f"{number}-{place}")
            words = command(store)
            os.sync()
            taken[name].append(measured(words))
            if name == "forge":
                measured(ours(store))
                taken["forge, unchanged"].append(measured(ours(store)))
    subprocess.run(["chmod", "-R", "u+w", work], check=False)
    for name, runs in taken.items():
        runs = runs[1:]
        wall, cpu, peak = (statistics.median(run[place] for run in runs) for place in range(3))
        ratio = lambda ours, place: statistics.median(
            theirs[place] / mine[place] for theirs, mine in zip(runs, taken[ours][1:]))
        print(f"  {name:18} {wall:7.2f} s wall {cpu:7.2f} s processor {peak:6.0f} MiB"
              f"   forge is {ratio('forge', 0):5.1f}× ({ratio('forge', 1):.1f}× processor),"
              f" unchanged {ratio('forge, unchanged', 0):5.1f}× ({ratio('forge, unchanged', 1):.1f}×)")


def entry(name, content):
    """A file as tar has it (pax(1), ustar)."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:148] = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % len(content) + b"%011o\0" % 0
    head[148:157] = b"        0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512)


def collect(options, work):
    """A store of so many objects, a tenth of which a name keeps; made of files of their own, and then of packs."""
    forge, store = os.path.abspath(options.forge), os.path.join(work, "store")
    for name, first, count in (("live", 0, options.collect // 10), ("dead", options.collect // 10, options.collect * 9 // 10)):
        # Files of a hundred bytes, as one archive: the kernel would take longer to make them than forge to take them in.
        command = [forge, "--store", store, "--quiet", "import", "-", "--name", name, "--max-size", "100G"]
        importing = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for number in range(first, first + count):
            importing.stdin.write(entry(b"d%d/f%d" % (number // 1000, number), b"%-100d" % number))
        importing.stdin.write(bytes(1024))
        importing.stdin.close()
        if importing.wait() != 0:
            sys.exit(f"{shlex.join(command)} failed")
    if options.loose:
        unpack(store)
    subprocess.run([forge, "--store", store, "rm", "dead"], check=True)
    for words in (["gc", "--dry-run"], ["gc"]):
        wall, cpu, peak = measured([forge, "--store", store, *words])
        print(f"  forge {' '.join(words):14} {wall:7.2f} s wall {cpu:7.2f} s processor {peak:6.0f} MiB")
    subprocess.run([forge, "--store", store, "verify"], check=True)


def unpack(store):
    """Writes what lies in packs as files of their own: what a store was before there were packs."""
    kinds = {ord("b"): "blobs", ord("t"): "trees", ord("d"): "deltas"}
    packs = os.path.join(store, "packs")
    for name in os.listdir(packs):
        if name.endswith(".pack"):
            with open(os.path.join(packs, name), "rb") as file:
                data = file.read()
            place = 16
            while place < len(data):
                digest, length = data[place + 1:place + 33].hex(), int.from_bytes(data[place + 33:place + 37], "little")
                directory = os.path.join(store, kinds[data[place]], digest[:2])
                os.makedirs(directory, exist_ok=True)
                with open(os.path.join(directory, digest[2:]), "wb") as file:
                    file.write(data[place + 37:place + 37 + length])
                place += 37 + length
        os.unlink(os.path.join(packs, name))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--forge", default="forge")
    options.add_argument("--source")
    options.add_argument("--nix")
    options.add_argument("--ostree")
    options.add_argument("--git")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--collect", type=int)
    options.add_argument("--loose", action="store_true", help="with --collect: every object a file of its own")
    options.add_argument("--directory", help="where stores and sources go [default: a temporary one]")
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="forge-bench-", dir=options.directory) as work:
        (collect if options.collect else ingest)(options, work)


if __name__ == "__main__":
    main()
