#!/usr/bin/env python3
"""What it takes to run /bin/true in a formation, against other ways to run it: medians of interleaved runs on one core, as ratios.

    bench.py --forge FORGE --store STORE --formation ID --root DIR [--sif FILE] [--floor PROGRAM] [--runner] [--runs 50] [--launchers 8]

DIR is the same root as a directory (`forge bundle` makes one: DIR/rootfs). What is not installed is left out and said. Each run is a cold
process, with all of the default isolation; forge also sets a limit of memory and of processes. Pause between runs: the kernel takes
network namespaces apart behind the answer, and would charge the next run for it. With --runner, forge in a container of podman's against
podman itself, both on overlay storage. With --floor, forge's system calls and nothing else (`floor.py` makes that program). It can be started among the peers: `sid python3 bench.py …`.
"""
import argparse, ctypes, glob, json, os, shutil, subprocess, sys, tempfile, time

parser = argparse.ArgumentParser()
parser.add_argument("--forge", required=True)
parser.add_argument("--store", required=True)
parser.add_argument("--formation", required=True)
parser.add_argument("--root", required=True)
parser.add_argument("--sif")
parser.add_argument("--floor")
parser.add_argument("--runner", action="store_true")
parser.add_argument("--runs", type=int, default=50)
parser.add_argument("--launchers", type=int, default=8)
parser.add_argument("--core", type=int, default=0)
parser.add_argument("--pause", type=float, default=0.01)
arguments = parser.parse_args()

scratch = tempfile.mkdtemp(prefix="bench-run-")
BWRAP_WHOLE = "  until its sandbox has gone"


def median(values):
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


bundle = os.path.join(scratch, "bundle")
os.makedirs(bundle)


def configure(runtime):
    """crun's own default configuration over the same root, with one command."""
    subprocess.run([runtime, "spec"], cwd=bundle, check=True)
    path = os.path.join(bundle, "config.json")
    config = json.load(open(path))
    config["root"] = {"path": arguments.root, "readonly": True}
    config["process"].update(args=["/bin/true"], terminal=False)
    config["process"].pop("rlimits", None)
    config["linux"].pop("resources", None)
    json.dump(config, open(path, "w"))


forge = [arguments.forge, "run", arguments.formation, "--memory", "256M", "--pids", "64", "--", "/bin/true"]
ways = {
    "bare": ["/bin/true"],
    "forge": forge,
    "forge, no limits": [arguments.forge, "run", arguments.formation, "--", "/bin/true"],
}
if arguments.floor:
    ways["forge's system calls alone"] = [arguments.floor]
if shutil.which("bwrap"):
    bind = ["--ro-bind", arguments.root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    ways["bubblewrap --unshare-all"] = ["bwrap", "--unshare-all", "--die-with-parent", *bind, "/bin/true"]
    # It returns as soon as the program has ended, and its process 1 and its mounts go behind its back.
    ways[BWRAP_WHOLE] = ways["bubblewrap --unshare-all"]
if shutil.which("crun"):
    configure("crun")
    state = os.path.join(scratch, "crun")
    ways["crun, cgroups disabled"] = ["crun", "--root", state, "--cgroup-manager=disabled", "run", "-b", bundle, "NAME"]
quiet = ["--cgroups=disabled", "--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
storage = ["--root", f"{scratch}/podman", "--runroot", f"{scratch}/podman-run", "--storage-driver=overlay"]
if shutil.which("podman"):
    ways["podman"] = ["podman", *storage, "run", "--rm", *quiet, "--rootfs", arguments.root + ":O", "/bin/true"]
if arguments.sif:
    ways["forge, SIF in place"] = [arguments.forge, "run", "--trust", arguments.sif, "--", "/bin/true"]
    if shutil.which("apptainer"):
        ways["Apptainer on the SIF"] = ["apptainer", "exec", "--no-privs", "--containall", arguments.sif, "/bin/true"]

environment = {
    "PATH": os.environ["PATH"],
    "HOME": scratch,
    "FORGE_STORE": arguments.store,
    "FORGE_RUNNER_ENGINE": " ".join(["podman", *storage]),
    "FORGE_RUNNER_OPTIONS": "--cgroups=disabled",
}
counter = 0


def command(way):
    global counter
    counter += 1
    return [word.replace("NAME", f"bench{os.getpid()}-{counter}") if word == "NAME" else word for word in way]


def adopt(orphans):
    """Whether processes whose parent has ended become children of this one: PR_SET_CHILD_SUBREAPER."""
    ctypes.CDLL(None).prctl(36, int(orphans), 0, 0, 0)


def once(way, whole=False):
    """Wall and processor time of one run, and the most memory of any of its processes, in milliseconds and kB. `whole`: until the last
    process that it left has gone."""
    adopt(whole)
    before = time.perf_counter()
    pid = os.posix_spawnp(way[0], way, environment)
    _, status, usage = os.wait4(pid, 0)
    work = usage.ru_utime + usage.ru_stime
    while whole:
        try:
            _, _, left = os.wait4(-1, 0)
            work += left.ru_utime + left.ru_stime
        except ChildProcessError:
            break
    wall = time.perf_counter() - before
    adopt(False)
    return os.waitstatus_to_exitcode(status), wall * 1e3, work * 1e3, usage.ru_maxrss


os.sched_setaffinity(0, {arguments.core})
for name, way in list(ways.items()):
    # Twice: the first may lay something out.
    try:
        code = max(once(command(way))[0] for _ in range(2))
    except FileNotFoundError:
        code = "no such program"
    if code != 0:
        print(f"left out: {name} exits with {code}", file=sys.stderr)
        del ways[name]

slow = {name for name in ways if name in ("podman", "forge, SIF in place", "Apptainer on the SIF")}
walls, works, sizes = ({name: [] for name in ways} for _ in range(3))
for number in range(arguments.runs):
    for name, way in ways.items():
        if name in slow and number % 5:
            continue
        code, wall, work, size = once(command(way), name == BWRAP_WHOLE)
        assert code == 0, f"{name} exits with {code}"
        walls[name].append(wall), works[name].append(work), sizes[name].append(size)
        time.sleep(arguments.pause)

own = median(walls["forge"])
print(f"{'':28} {'ms':>8} {'p5':>8} {'cpu ms':>8} {'forge is':>9} {'kB':>8}")
for name in ways:
    ordered = sorted(walls[name])
    middle, low = median(ordered), ordered[len(ordered) // 20]
    ratio = f"{own / middle:.3f}"
    print(f"{name:28} {middle:8.2f} {low:8.2f} {median(works[name]):8.2f} {ratio:>9} {max(sizes[name]):8}")

if "Apptainer on the SIF" in ways:
    sif = median(walls["Apptainer on the SIF"])
    print(f"\na SIF in place is {median(walls['forge, SIF in place']) / sif:.3f} of Apptainer's")
    firsts = []
    # Set aside, not removed: ext4 gives no inode away again within minutes, and looks at each that it must not give.
    aside = arguments.store.rstrip("/") + f".aside-{os.getpid()}"
    for number in range(5):
        os.makedirs(f"{aside}/{number}")
        for checkouts in glob.glob(os.path.join(arguments.store, "checkouts", "*")):
            os.rename(checkouts, f"{aside}/{number}/{os.path.basename(checkouts)}")
        os.sync()
        code, wall, *_ = once(forge)
        assert code == 0
        firsts.append(wall)
    shutil.rmtree(aside)
    print(f"first run without a checkout {median(firsts):.0f} ms, {median(firsts) / sif:.2f} of Apptainer's on the SIF")

# What forge itself takes beside a program that only waits: what is its own, and its share of what others map too.
child = subprocess.Popen([*forge[:-1], "/bin/sleep", "1000"], env=environment)
time.sleep(0.5)
below = [child.pid, *(int(word) for word in open(f"/proc/{child.pid}/task/{child.pid}/children").read().split())]
sums = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
for pid in below:
    for line in open(f"/proc/{pid}/smaps_rollup"):
        name, _, rest = line.partition(":")
        if name in sums:
            sums[name] += int(rest.split()[0])
child.terminate(), child.wait()
print(f"\nmemory of forge's {len(below)} processes beside a program: {sums['Pss']} kB in proportion, "
      f"{sums['Private_Dirty']} kB of it written to and its own, {sums['Rss']} kB resident")

if arguments.runner:
    subprocess.run([arguments.forge, "runner", "build"], env=environment, check=True, stdout=subprocess.DEVNULL)
    pair = {"runner": [arguments.forge, "run", "--backend", "runner:podman", arguments.formation, "--", "/bin/true"],
            "podman": ways.get("podman")}
    times = {name: [] for name in pair}
    for number in range(max(arguments.runs // 4, 10) + 1):
        for name, way in pair.items():
            code, wall, *_ = once(way)
            assert code == 0, f"{name} exits with {code}"
            if number:
                times[name].append(wall)
    print(f"\nrunner {median(times['runner']):.0f} ms, podman {median(times['podman']):.0f} ms: "
          f"{median(times['runner']) / median(times['podman']):.2f}")

os.sched_setaffinity(0, set(range(os.cpu_count())))
print(f"\nruns a second, {arguments.launchers} launchers at once on {os.cpu_count()} cores")
rates = {}
for name in [name for name in ways if name not in slow and name != BWRAP_WHOLE]:
    until = time.perf_counter() + 3
    children, done = {}, 0
    started = time.perf_counter()
    while time.perf_counter() < until or children:
        while len(children) < arguments.launchers and time.perf_counter() < until:
            way = command(ways[name])
            children[os.posix_spawnp(way[0], way, environment)] = True
        pid, status = os.wait()
        if children.pop(pid, None):
            done += os.waitstatus_to_exitcode(status) == 0
    rates[name] = done / (time.perf_counter() - started)
for name, rate in rates.items():
    print(f"{name:28} {rate:8.0f}   forge does {rates['forge'] / rate:.2f} of it")
shutil.rmtree(scratch, ignore_errors=True)
