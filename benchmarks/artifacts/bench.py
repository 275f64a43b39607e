#!/usr/bin/env python3
"""What packing costs, against mksquashfs, cp, apptainer and tar, as ratios of one run on one machine.

Builds the payload (payload.expr: some 20,000 files, 0.7 GB) with forge, lays it out for mksquashfs, and times pairs in turn
(A B A B …), because a machine's speed drifts. Prints the median of the pairs' ratios, and the smallest and largest.
A tool that needs words before it is given as such: --mksquashfs 'chroot /sid mksquashfs'. What is not given is left out:
--apptainer apptainer (SIF from the same directory, which takes it more than a minute each time, so that it does so --sif-runs
times), --zstd zstd (OCI against tar piped into it). All of it takes some ten minutes.
"""

import argparse, os, shlex, shutil, statistics, subprocess, sys, tempfile, time


def measured(command):
    """Wall seconds, processor seconds and peak MiB of a command."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    words = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{shlex.join(command)}: {words.decode(errors='replace')}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def paired(title, runs, ours, theirs, before=lambda: None, warm=True):
    """Runs both in turn; the first pair, which warms the page cache, does not count. Gives the median of their wall times."""
    pairs = []
    for number in range(0 if warm else 1, runs + 1):
        pair = []
        for command in (ours, theirs):
            before()
            pair.append(measured(command))
        if number:
            pairs.append(pair)
    print(title)
    for place, name, unit in ((0, "wall", "s"), (1, "processor", "s"), (2, "peak", "MiB")):
        ratios = sorted(a[place] / b[place] for a, b in pairs)
        a, b = (statistics.median(pair[side][place] for pair in pairs) for side in (0, 1))
        print(f"  {name:9} {a:8.2f} {unit} against {b:8.2f} {unit}: {statistics.median(ratios):.3f}"
              f" ({ratios[0]:.3f} to {ratios[-1]:.3f})", flush=True)
    return statistics.median(pair[1][0] for pair in pairs)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--forge", default="forge")
    options.add_argument("--mksquashfs", default="mksquashfs")
    options.add_argument("--apptainer")
    options.add_argument("--zstd", default="zstd")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--sif-runs", type=int, default=2)
    options.add_argument("--only", help="of nothing, changed, sif, oci, inspect: these, with commas [default: all]")
    options.add_argument("--expression", default=os.path.join(os.path.dirname(__file__), "payload.expr"))
    options.add_argument("--directory", help="where payload and images go, and stay [default: a temporary one]")
    options = options.parse_args()
    forge, runs = os.path.abspath(options.forge), options.runs
    mksquashfs = shlex.split(options.mksquashfs)
    work = options.directory or tempfile.mkdtemp(prefix="forge-bench-")
    path = lambda name: os.path.join(work, name)
    os.makedirs(work, exist_ok=True)
    ids = {}
    for name in ("first", "changed", "moved"):
        built = subprocess.run([forge, "build", options.expression, "-A", name], check=True, stdout=subprocess.PIPE)
        ids[name] = built.stdout.split()[-1].decode()
    if not os.path.exists(path("payload")):
        os.mkdir(path("payload"))
        tar = subprocess.Popen([forge, "export", ids["first"], "--format", "tar", "-o", "-"], stdout=subprocess.PIPE)
        subprocess.run(["tar", "--numeric-owner", "-xpf", "-", "-C", path("payload")], stdin=tar.stdout, check=True)
        if tar.wait():
            sys.exit("forge export failed")

    def export(name, *more):
        return [forge, "export", ids[name], "-f", "-o", path(f"{name}.squashfs"), *more]

    def peer(threads):
        return [*mksquashfs, path("payload"), path("peer.squashfs"), "-noappend", "-quiet", "-no-progress",
                "-comp", "zstd", "-Xcompression-level", "3", "-processors", str(threads)]

    wanted = (options.only or "nothing,changed,sif,oci,inspect").split(",")
    one, both = ["taskset", "-c", "0"], ["taskset", "-c", "0,1"]
    if "nothing" in wanted:
        paired("from nothing, one processor, against mksquashfs", runs,
               [*one, *export("first", "--fresh")], [*one, *peer(1)])
        size, other = (os.path.getsize(path(name)) for name in ("first.squashfs", "peer.squashfs"))
        print(f"size {size} against {other}: {size / other:.4f}")
        paired("from nothing, two processors, against mksquashfs", runs,
               [*both, *export("first", "--fresh")], [*both, *peer(2)])
    if "changed" in wanted:
        subprocess.run(export("first", "--fresh"), check=True, stdout=subprocess.DEVNULL)

        def forget():
            # Only the image before the change is to be copied from; and cp is to make a new file, as we do.
            for name in ("changed.squashfs", "moved.squashfs", "copy.squashfs"):
                if os.path.exists(path(name)):
                    os.remove(path(name))

        again = export("changed")
        paired("one file changed, against cp of the image", runs, [*both, *again],
               [*both, "cp", path("first.squashfs"), path("copy.squashfs")], forget)
        paired("one file changed, one processor, against cp of the image", runs, [*one, *again],
               [*one, "cp", path("first.squashfs"), path("copy.squashfs")], forget)
        paired("one file more near the front, so that nearly all moves, against cp of the image", runs,
               [*both, *export("moved")], [*both, "cp", path("first.squashfs"), path("copy.squashfs")], forget)
        paired("one file changed, against mksquashfs", runs, [*both, *again], [*both, *peer(2)], forget)
        paired("one file changed, one processor, against mksquashfs", runs, [*one, *again], [*one, *peer(1)], forget)

    def sif(*more):
        return [forge, "export", ids["first"], "--format", "sif", "-f", "-o", path("first.sif"), *more]

    if options.apptainer and "sif" in wanted:
        def unbuilt():
            if os.path.exists(path("peer.sif")):
                os.remove(path("peer.sif"))

        peer_sif = [*both, *shlex.split(options.apptainer), "build", "--force", path("peer.sif"), path("payload")]
        subprocess.run(sif("--fresh"), check=True, stdout=subprocess.DEVNULL)
        theirs = paired("SIF from nothing, against apptainer build of the directory", options.sif_runs,
                        [*both, *sif("--fresh")], peer_sif, unbuilt, warm=False)
        walls = [measured([*both, *sif()])[0] for _ in range(runs)]
        print(f"SIF again, blocks copied: {statistics.median(walls):.2f} s, {statistics.median(walls) / theirs:.4f} of that")
    if options.zstd and "oci" in wanted and shutil.which(shlex.split(options.zstd)[0]):
        def oci(*more):
            return [forge, "export", ids["first"], "--format", "oci", "-f", "-o", path("first.oci.tar"), *more]

        def unpacked():
            # Both write a new file: renaming over an old one, as we do, makes ext4 give the new one its blocks first (0.28 s).
            for name in ("first.oci.tar", "peer.tar.zst"):
                if os.path.exists(path(name)):
                    os.remove(path(name))

        for threads, processors in ((1, one), (2, both)):
            piped = (f"tar --sort=name -C {shlex.quote(path('payload'))} -c . | "
                     f"{options.zstd} -q -3 -T{threads} -o {shlex.quote(path('peer.tar.zst'))} -f")
            paired(f"OCI from nothing, {threads} thread(s), against tar | zstd -3 -T{threads}", runs,
                   [*processors, *oci("--fresh")], [*processors, "sh", "-c", piped], unpacked)
        subprocess.run(oci(), check=True, stdout=subprocess.DEVNULL)
        size, other = (os.path.getsize(path(name)) for name in ("first.oci.tar", "peer.tar.zst"))
        print(f"size {size} against {other}: {size / other:.4f}")
        paired("OCI again, nothing compressed, against tar | zstd -3 -T2", runs, [*both, *oci()], [*both, "sh", "-c", piped])
    if "inspect" in wanted:
        subprocess.run(sif(), check=True, stdout=subprocess.DEVNULL)
        walls = sorted(measured([forge, "inspect", path("first.sif")])[0] for _ in range(21))
        print(f"inspect of a SIF of {os.path.getsize(path('first.sif')) >> 20} MiB: {walls[10] * 1000:.1f} ms"
              f" ({walls[0] * 1000:.1f} to {walls[-1] * 1000:.1f})")
    if not options.directory:
        shutil.rmtree(work)


main()
