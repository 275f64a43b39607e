#!/usr/bin/env python3
"""Breaks a store's surroundings at seeded points, and looks whether everything that was finished is still there.

    faults.py kill  --points 1000   kills all processes that work in a store, and the server of another, at once
    faults.py power --points 1000   cuts the power: an ext4 on a loop device is shut down without writing what was not synced
    faults.py full  --points 1000   a tmpfs of so many kilobytes, which is enlarged afterwards
    faults.py flip  --points 1000   flips a byte of a file of the store: nothing wrong may be given out, and repair goes on
    faults.py eio   --points 1000   a call of a command fails with EIO or ENOSPC, or every write of it writes less than it should
    faults.py line  --points 1000   the line between two stores cuts, flips, stalls or ends at some byte of a push or a pull
    faults.py crowd --seconds 120   50 processes import, build, run, collect, export, name, push, pull and verify in one store

After each point: every name stands for what the last finished command gave it, or for what a command that was cut off would have; it is whole
(`forge verify` finds nothing, exports give the same bytes, finished builds make nothing again); no command said that it is a bug of forge (exit
code 70) or was ended by a signal of its own; and the next command goes on. Everything follows from --seed. `power`, `full` and `eio` need root
or ptrace.
"""

import argparse, fcntl, os, random, shutil, struct, subprocess, sys, tempfile, threading, time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import inject, proxy
from world import World

# linux/fs.h, EXT4_IOC_SHUTDOWN (the same number as XFS_IOC_GOINGDOWN) with EXT4_GOING_FLAGS_NOLOGFLUSH.
SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2


def joined(threads):
    for thread in threads:
        thread.join()


def kill(options, work, reference):
    world, chance = World(options, work, reference), random.Random(options.seed)
    for point in range(options.points):
        threads = world.crowd(options.seed + point, options.processes, time.monotonic() + 60)
        time.sleep(chance.uniform(0.01, options.patience))
        world.kill()
        joined(threads)
        world.check()
        report(world, point)


def power(options, work, reference):
    chance = random.Random(options.seed)
    image, mount = os.path.join(work, "image"), os.path.join(work, "mount")
    os.mkdir(mount)
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    world = World(options, mount, reference)
    for point in range(options.points + 1):
        # A namespace of what was killed may still have it mounted, as it was shut down: it has its loop device as long.
        until = time.monotonic() + 30
        while subprocess.run(["losetup", "-j", image], capture_output=True, check=True).stdout and time.monotonic() < until:
            time.sleep(0.05)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        try:
            if point > 0:
                # What was not synced yet may have come to the disk in part.
                world.check(rests=True)
                report(world, point - 1)
            if point == options.points:
                break
            threads = world.crowd(options.seed + point, options.processes, time.monotonic() + 60)
            time.sleep(chance.uniform(0.01, options.patience))
            # What finished before this must be there; what finishes meanwhile may be.
            world.stopping = True
            directory = os.open(mount, os.O_RDONLY)
            fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
            os.close(directory)
            world.kill()
            joined(threads)
        finally:
            world.kill()
            unmount(mount)


def unmount(mount):
    """What was killed may take a moment to be gone; until then the file system would be the same one when it is mounted again: shut down, or full."""
    for _ in range(600):
        if subprocess.run(["umount", mount], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.05)
    subprocess.run(["umount", "-l", mount], check=True)
    sys.exit(f"{mount} is held by something that was killed half a minute ago")


def full(options, work, reference):
    chance = random.Random(options.seed)
    mount = os.path.join(work, "mount")
    os.mkdir(mount)
    for point in range(options.points):
        size = chance.randrange(64, 8000)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", mount], check=True)
        world = World(options, mount, reference)
        try:
            joined(world.crowd(options.seed + point, 3, time.monotonic() + options.patience))
            world.kill()
            subprocess.run(["mount", "-o", "remount,size=300m", mount], check=True)
            world.check()
            report(world, point)
        finally:
            world.kill()
            unmount(mount)


def crowd(options, work, reference):
    world = World(options, work, reference)
    until = time.monotonic() + options.seconds
    threads = world.crowd(options.seed, options.processes, until)
    joined(threads)
    world.kill()
    world.check()
    report(world, 0)
    print(f"{world.commands} commands")


def flip(options, work, reference):
    chance = random.Random(options.seed)
    world = World(options, work, reference)
    for point in range(options.points):
        for who in range(3):
            name, number = f"w{who}-0", chance.randrange(12)
            if not world.changes(name, world.id_of(name, number), world.making(name, number)):
                world.faults.append(f"{name} could not be made")
        files = [os.path.join(base, name) for kind in ("blobs", "trees", "packs", "formations", "deltas", "claims", "roots", "records")
                 for base, _, names in os.walk(os.path.join(world.store, kind)) for name in names]
        path = chance.choice(sorted(files))
        with open(path, "r+b") as file:
            place = chance.randrange(max(os.fstat(file.fileno()).st_size, 1))
            file.seek(place)
            byte = file.read(1) or b"\0"
            file.seek(place)
            file.write(bytes([byte[0] ^ 1 << chance.randrange(8)]))
        # Whatever is given out before anybody looks is right, or nothing is.
        for who in range(3):
            target = os.path.join(reference, "out-flip.tar")
            if world.run("export", f"w{who}-0", "--format", "tar", "-o", target, "--force") is not None:
                if "/roots/" not in path:
                    world.same(f"w{who}-0", world.finished[f"w{who}-0"], target)
        found = subprocess.run([world.forge, "--store", world.store, "verify", "--repair"], capture_output=True, text=True)
        if found.returncode not in (0, 13):
            world.faults.append(f"verify of {path}: {found.returncode} {found.stderr}")
        # Made again, it is whole again.
        for who in range(3):
            name, number = f"w{who}-0", chance.randrange(12)
            if not world.changes(name, world.id_of(name, number), world.making(name, number)):
                world.faults.append(f"{name} could not be made after {path} was damaged at {place}")
        world.must("import", world.source(1), "--name", "next", "-q")
        for stray in [name for name in os.listdir(os.path.join(world.store, "roots")) if name not in world.finished and name != "next"]:
            world.run("rm", stray)
        # A formation without a name may lack what was set aside.
        world.must("gc")
        # The byte may have been of the note that says which layers a formation has: they are collected then, and made again.
        world.built.clear()
        world.check()
        report(world, point, f"{path} at {place}")


def eio(options, work, reference):
    """One command at a time; where it fails is counted in calls that change something below the store."""
    chance = random.Random(options.seed)
    world, arrived = World(options, work, reference), set()
    for point in range(options.points):
        kind = chance.choice(["eio", "eio", "enospc", "short"])
        name = f"w0-{chance.randrange(3)}"
        certain = world.finished.get(name)
        number = chance.randrange(0, 12, 2)
        to, words = world.id_of(name, number), world.making(name, number)
        what = chance.choice(["make", "make", "make", "gc", "rm", "push", "verify", "pull", "export"])
        if what == "gc":
            to, words = certain, ["gc"]
        elif what == "rm" and certain:
            to, words = ABSENT, ["rm", name]
        elif what == "push" and certain:
            to, words = certain, ["push", name, f"file://{world.folder}", "-q"]
            world.pushed.setdefault(("folder", name), set()).add(certain)
        elif what == "pull" and ("folder", name) in world.pushed:
            to, words = None, ["pull", name, f"file://{world.folder}", "-q"]
        elif what == "export" and certain:
            to, words = certain, ["export", name, "--format", "tar", "-o", os.path.join(work, "out.tar"), "--force"]
        elif what == "verify":
            to, words = certain, ["verify", "--repair"]
        may = {to} if words[0] != "pull" else set(world.pushed["folder", name])
        place = point if kind == "short" else chance.randrange(1, 12 if words[0] in ("gc", "rm") else 60)
        with tempfile.TemporaryFile() as errors:
            command = [world.forge, "--store", world.store, *words]
            code, count = inject.run(command, work, kind, place, stdout=os.open(os.devnull, os.O_WRONLY), stderr=errors.fileno())
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        # An earlier push that failed may have left the folder without it.
        nothing = 11 if words[0] == "pull" and name not in arrived else 0
        if code == 70 or code < 0 or kind == "short" and code not in (0, nothing):
            world.faults.append(f"{kind} {place}, {' '.join(words)}: exit {code}: {said}")
        if code == 0 and words[0] == "pull":
            world.possible[name], world.finished[name] = may, next(iter(may))
        elif code == 0:
            world.finished[name] = to
            arrived.update({name} if words[0] == "push" else ())
        else:
            world.possible[name] = may
        world.check()
        report(world, point, f"{kind} {place} of {count}, {' '.join(words)}: exit {code}")


ABSENT = None


def line(options, work, reference):
    """A push or a pull over a line that does one thing wrong; then the same over a good one."""
    chance = random.Random(options.seed)
    world = World(options, work, reference)
    world.builds = False
    world.serve()
    passing = proxy.Line(world.address.split("//")[1])
    for point in range(options.points):
        if point % 10 == 0:
            # Both sides begin with little.
            for path in (world.store, world.other):
                for name in os.listdir(os.path.join(path, "roots")) if os.path.isdir(os.path.join(path, "roots")) else []:
                    world.must("rm", name, store=path)
                if os.path.exists(path):
                    world.must("gc", store=path)
            world.finished.clear(), world.possible.clear()
        name, number = f"w0-{point % 3}", chance.randrange(12)
        push = chance.random() < 0.5
        id = world.id_of(name, number)
        source, target = (world.store, world.other) if push else (world.other, world.store)
        world.must(*world.making(name, number), store=source)
        kind = chance.choice(["cut", "flip", "flip", "stall", "end"])
        direction = chance.choice(["up", "down"])
        passing.plan(direction, kind, int(10 ** chance.uniform(0, 5.2)))
        words = ["push" if push else "pull", name if push else id, f"http://{passing.address}", "-q"]
        started = time.monotonic()
        code = subprocess.run([world.forge, "--store", world.store, *words], capture_output=True, text=True, env=world.environment())
        if code.returncode not in (0, 11, 12, 13) or time.monotonic() - started > 100:
            world.faults.append(f"{' '.join(words)}: exit {code.returncode} after {time.monotonic() - started:.0f} s: {code.stderr}")
        passing.plan("up", "good", 0)
        world.must("verify", "--dry-run", store=target)
        world.must(*words[:2], f"http://{passing.address}", "-q")
        listed = world.must("list", "--json", store=target) or ""
        if id not in listed:
            world.faults.append(f"{id} did not come")
        world.must("verify", "--dry-run", store=target)
        report(world, point, f"{kind} {direction} at {passing.place}, {' '.join(words)}: exit {code.returncode}")
    passing.close()
    world.kill()


def report(world, point, about=""):
    if world.faults:
        sys.exit(f"at point {point}: {about}\n" + "\n".join(world.faults))
    if point % 50 == 49:
        print(f"{point + 1} points", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {"kill": kill, "power": power, "full": full, "crowd": crowd, "flip": flip, "eio": eio, "line": line}
    options.add_argument("what", choices=list(kinds))
    options.add_argument("--forge", default="forge")
    options.add_argument("--points", type=int, default=1000)
    options.add_argument("--processes", type=int)
    options.add_argument("--seconds", type=float, default=120)
    options.add_argument("--patience", type=float, default=0.6, help="the latest point, in seconds after the start")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--no-builds", dest="builds", action="store_false", help="import only: builds want namespaces")
    options = options.parse_args()
    options.processes = options.processes or (50 if options.what == "crowd" else 4)
    with tempfile.TemporaryDirectory(prefix="forge-faults-") as work, tempfile.TemporaryDirectory(prefix="forge-truth-") as reference:
        os.mkdir(os.path.join(reference, "home"))
        kinds[options.what](options, work, reference)
    print("nothing was lost")


if __name__ == "__main__":
    main()
