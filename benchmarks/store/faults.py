#!/usr/bin/env python3
"""Breaks a store's surroundings at seeded points, and looks whether everything that was finished is still there.

    faults.py kill  --points 1000   kills all processes that work in a store, at once
    faults.py power --points 1000   cuts the power: an ext4 on a loop device is shut down without writing what was not synced
    faults.py full  --points 100    a tmpfs of so many kilobytes, which is enlarged afterwards
    faults.py crowd --seconds 120   50 processes import, run, collect, export, name and verify in one store
    faults.py flip  --points 100    flips a byte of a file of the store: nothing wrong may be given out, and repair goes on

After each point: what a command finished is there and whole (`forge verify` finds nothing, exports give the same bytes), no
command said that it is a bug of forge (exit code 70) or was ended by a signal of its own, and the next command goes on.
Everything follows from --seed. `power` and `full` need root.
"""

import argparse, fcntl, hashlib, os, random, shutil, signal, struct, subprocess, sys, tempfile, threading, time

BUG = 70
# linux/fs.h, EXT4_IOC_SHUTDOWN (the same number as XFS_IOC_GOINGDOWN) with EXT4_GOING_FLAGS_NOLOGFLUSH.
SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2


class World:
    """One store, and what has been finished in it."""

    def __init__(self, options, path):
        self.forge, self.path, self.store = os.path.abspath(options.forge), path, os.path.join(path, "store")
        self.lock, self.finished, self.sources, self.stopping = threading.Lock(), {}, {}, False
        self.processes, self.faults = set(), []

    def source(self, place, chance):
        """A directory of so many files, of contents that other sources share in part; named by what it has."""
        number = chance.randrange(12)
        path = os.path.join(place, f"source-{number}")
        with self.lock:
            if number not in self.sources:
                content = random.Random(number)
                for file in range(10 if number % 3 else 150):
                    directory = os.path.join(path, f"d{file % 7}")
                    os.makedirs(directory, exist_ok=True)
                    with open(os.path.join(directory, f"f{file}"), "wb") as out:
                        out.write(b"%d " % (file % 40) * content.choice([1, 50, 30_000 if file % 50 == 0 else 9]))
                self.sources[number] = path
        return number, path

    def run(self, *words, ok=(0,)):
        """The output, or None if it failed (which a fault may cause)."""
        if self.stopping:
            return None
        process = subprocess.Popen([self.forge, "--store", self.store, *words], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        with self.lock:
            self.processes.add(process)
        out, err = process.communicate()
        with self.lock:
            self.processes.discard(process)
        code = process.returncode
        if code == BUG or (code < 0 and not (self.stopping and code == -signal.SIGKILL)):
            self.faults.append(f"{' '.join(words)}: exit {code}: {err.decode(errors='replace')}")
        return out.decode() if code in ok else None

    def kill(self):
        self.stopping = True
        with self.lock:
            processes = list(self.processes)
        for process in processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def work(self, place, chance, who):
        """One command."""
        what = chance.choice(["import"] * 4 + ["gc", "export", "export", "again", "verify", "rm", "run"])
        name = f"w{who}-{chance.randrange(3)}"
        if what == "import":
            number, source = self.source(place, chance)
            out = self.run("import", source, "--name", name, "--version", "1")
            if out and not self.stopping:
                self.finished[name] = (number, out.strip())
        elif what == "gc":
            self.run("gc", *chance.choice([[], ["--keep", "1h"], ["--max-size", "100K"]]))
        elif name in self.finished:
            number, digest = self.finished[name]
            if what in ("export", "run"):
                # An export lays nothing out; `diff` with its own source checks every byte, and `checkout`s are made by runs.
                target = os.path.join(place, f"out-{who}.tar")
                self.run("export", name, "--format", "tar", "-o", target, "--force")
            elif what == "again":
                out = self.run("info", name, "--json")
                if out is not None and digest not in out:
                    self.faults.append(f"{name} is not {digest}: {out}")
            elif what == "verify":
                self.run("verify", "--dry-run", ok=(0,))
            elif what == "rm":
                del self.finished[name]
                self.run("rm", name)

    def works(self, place, seed, who, until):
        chance = random.Random(seed * 1000 + who)
        while not self.stopping and time.monotonic() < until:
            self.work(place, chance, who)

    def crowd(self, place, seed, count, until):
        threads = [threading.Thread(target=self.works, args=(place, seed, who, until)) for who in range(count)]
        for thread in threads:
            thread.start()
        return threads

    def check(self, place):
        """What was finished is whole, and work goes on."""
        self.stopping = False
        damaged = subprocess.run([self.forge, "--store", self.store, "verify", "--dry-run"], capture_output=True, text=True)
        if damaged.returncode != 0:
            self.faults.append(f"verify: {damaged.returncode} {damaged.stdout}{damaged.stderr}")
        for name, (number, digest) in sorted(self.finished.items()):
            info = subprocess.run([self.forge, "--store", self.store, "info", name, "--json"], capture_output=True, text=True)
            if info.returncode != 0:
                self.faults.append(f"{name} of {digest}: {info.stderr}")
            elif digest not in info.stdout:
                # The name was given again by what was killed before it could say so: whole, but another.
                del self.finished[name]
        for words in (["gc"], ["import", self.source(place, random.Random(1))[1], "--name", "next"], ["verify"]):
            ran = subprocess.run([self.forge, "--store", self.store, *words], capture_output=True, text=True)
            if ran.returncode != 0:
                self.faults.append(f"afterwards, {' '.join(words)}: {ran.returncode} {ran.stdout}{ran.stderr}")
        for left in os.listdir(os.path.join(self.store, "leases")) if os.path.isdir(os.path.join(self.store, "leases")) else []:
            self.faults.append(f"a lease is left: {left}")
        if os.path.exists(os.path.join(self.store, "gc/doomed")):
            self.faults.append("a collection is left half-way")


def kill(options, work):
    world = World(options, work)
    chance = random.Random(options.seed)
    for point in range(options.points):
        threads = world.crowd(work, options.seed + point, options.processes, time.monotonic() + 60)
        time.sleep(chance.uniform(0.01, options.patience))
        world.kill()
        for thread in threads:
            thread.join()
        world.check(work)
        report(world, point)


def power(options, work):
    chance = random.Random(options.seed)
    image, mount = os.path.join(work, "image"), os.path.join(work, "mount")
    os.mkdir(mount)
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    world = None
    for point in range(options.points):
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        try:
            if world is None:
                world = World(options, mount)
            else:
                world.check(work)
                report(world, point - 1)
            threads = world.crowd(work, options.seed + point, options.processes, time.monotonic() + 60)
            time.sleep(chance.uniform(0.01, options.patience))
            # What finished before this must be there; what finishes meanwhile may be.
            world.stopping = True
            directory = os.open(mount, os.O_RDONLY)
            fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
            os.close(directory)
            world.kill()
            for thread in threads:
                thread.join()
        finally:
            subprocess.run(["umount", mount], check=False) .returncode and subprocess.run(["umount", "-l", mount])


def full(options, work):
    chance = random.Random(options.seed)
    mount = os.path.join(work, "mount")
    os.mkdir(mount)
    for point in range(options.points):
        size = chance.randrange(64, 6000)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", mount], check=True)
        try:
            world = World(options, mount)
            threads = world.crowd(work, options.seed + point, 3, time.monotonic() + options.patience)
            for thread in threads:
                thread.join()
            subprocess.run(["mount", "-o", "remount,size=200m", mount], check=True)
            world.check(work)
            report(world, point)
        finally:
            subprocess.run(["umount", mount], check=False)


def crowd(options, work):
    world = World(options, work)
    for thread in world.crowd(work, options.seed, options.processes, time.monotonic() + options.seconds):
        thread.join()
    world.check(work)
    report(world, 0)


def flip(options, work):
    chance = random.Random(options.seed)
    world = World(options, work)
    for point in range(options.points):
        for who in range(3):
            number, source = world.source(work, chance)
            world.run("import", source, "--name", f"w{who}", "--version", str(number))
        files = [os.path.join(base, name) for kind in ("blobs", "trees", "packs", "formations")
                 for base, _, names in os.walk(os.path.join(world.store, kind)) for name in names]
        path = chance.choice(sorted(files))
        with open(path, "r+b") as file:
            length = os.fstat(file.fileno()).st_size
            place = chance.randrange(max(length, 1))
            file.seek(place)
            byte = file.read(1) or b"\0"
            file.seek(place)
            file.write(bytes([byte[0] ^ 1 << chance.randrange(8)]))
        found = subprocess.run([world.forge, "--store", world.store, "verify", "--repair"], capture_output=True, text=True)
        if found.returncode not in (0, 13):
            world.faults.append(f"verify of {path}: {found.returncode} {found.stderr}")
        for number in range(12):
            if number in world.sources:
                world.run("import", world.sources[number], "--name", f"s{number}")
        world.finished.clear()
        world.check(work)
        report(world, point)


def report(world, point):
    if world.faults:
        sys.exit(f"at point {point}:\n" + "\n".join(world.faults))
    if point % 20 == 19:
        print(f"{point + 1} points", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=["kill", "power", "full", "crowd", "flip"])
    options.add_argument("--forge", default="forge")
    options.add_argument("--points", type=int, default=1000)
    options.add_argument("--processes", type=int)
    options.add_argument("--seconds", type=float, default=120)
    options.add_argument("--patience", type=float, default=0.6, help="the latest point, in seconds after the start")
    options.add_argument("--seed", type=int, default=1)
    options = options.parse_args()
    options.processes = options.processes or (50 if options.what == "crowd" else 4)
    with tempfile.TemporaryDirectory(prefix="forge-faults-") as work:
        {"kill": kill, "power": power, "full": full, "crowd": crowd, "flip": flip}[options.what](options, work)
    print("nothing was lost")


if __name__ == "__main__":
    main()
