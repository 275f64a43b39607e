#!/usr/bin/env python3
"""Nothing is left behind: thousands of runs, many at a time, with `kill -9` of the launcher, the program, or both at seeded moments.

    leftovers.py --forge FORGE --store STORE --formation ID [--runs 5000] [--at-once 64] [--seed 1]

Afterwards there is no mount, loop device, process, network device, temporary file and no cgroup that the next run does not remove.
"""
import argparse, glob, os, random, signal, subprocess, sys, tempfile, time

parser = argparse.ArgumentParser()
parser.add_argument("--forge", required=True)
parser.add_argument("--store", required=True)
parser.add_argument("--formation", required=True)
parser.add_argument("--runs", type=int, default=5000)
parser.add_argument("--at-once", type=int, default=64)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

mark = f"leftover{os.getpid()}"
environment = {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "FORGE_STORE": arguments.store, "TMPDIR": tempfile.gettempdir(), "LEFTOVER": mark}
chance = random.Random(arguments.seed)
# It is in the program's command line, and in the environment of forge's own processes, of which some hide their command line: that
# is how they are found from outside.
script = f": {mark}; sleep 0.0$$ 2>/dev/null; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done"
way = [arguments.forge, "-q", "run", arguments.formation, "--memory", "64M", "--pids", "16", "--", "sh", "-c", script]


def own(pid):
    """The processes below one, nearest first."""
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            found += [int(word) for word in open(path).read().split()]
        except OSError:
            pass
    return found + [deeper for child in found for deeper in own(child)]


def seen():
    lines = lambda path: sorted(open(path).read().splitlines())
    return {
        "mounts": [line.split(" ", 2)[2] for line in lines("/proc/self/mountinfo")],
        "loop devices": sorted(path for path in glob.glob("/sys/block/loop*/loop/backing_file")),
        "network devices": sorted(os.listdir("/sys/class/net")),
        "files": sorted(name for name in os.listdir(tempfile.gettempdir()) if "forge" in name),
    }


def cgroups():
    """Those of runs that are over: others may be at work on this machine, and the name says whose each is."""
    found = [path for path in glob.glob("/sys/fs/cgroup/**/forge-*", recursive=True) if os.path.isdir(path)]
    return [path for path in found if not os.path.exists("/proc/" + os.path.basename(path).split("-")[2])]


def processes():
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            if mark.encode() in open(path, "rb").read():
                found.append(os.path.dirname(path))
        except OSError:
            pass
    found = [path for path in set(found) if path != f"/proc/{os.getpid()}"]
    return found


subprocess.run([*way[:-3], "true"], env=environment, check=True)
before, running, started, endings = seen(), {}, 0, {}
begin = time.time()
while started < arguments.runs or running:
    while started < arguments.runs and len(running) < arguments.at_once:
        child = subprocess.Popen(way, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        how = chance.choice(["nobody", "launcher", "program", "both", "in between"])
        running[child] = (how, time.time() + chance.random() * 0.05)
        started += 1
    for child, (how, moment) in list(running.items()):
        if how != "nobody" and time.time() >= moment and child.poll() is None:
            below = own(child.pid)
            victims = {"launcher": [child.pid], "program": below[-1:], "both": [child.pid, *below[-1:]], "in between": below[:1]}[how]
            for victim in victims:
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            running[child] = ("nobody", moment)
        if child.poll() is not None:
            endings[child.returncode] = endings.get(child.returncode, 0) + 1
            del running[child]
    time.sleep(0.001)
time.sleep(1)
left = processes()
# What a killed launcher could not remove, the next run does.
subprocess.run([*way[:-3], "true"], env=environment, check=True)
after, groups = seen(), cgroups()
print(f"{started} runs in {time.time() - begin:.0f} s, {arguments.at_once} at a time, seed {arguments.seed}; exit codes {endings}")
bad = False
for name in before:
    new = [line for line in after[name] if line not in before[name]]
    print(f"{name:16} {len(new)} left {new[:5] if new else ''}")
    bad |= bool(new)
print(f"{'processes':16} {len(left)} left")
print(f"{'cgroups':16} {len(groups)} left {groups[:3] if groups else ''}")
sys.exit(1 if bad or left or groups else 0)
