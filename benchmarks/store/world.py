"""One store, what was finished in it, and whoever works in it: for `faults.py`.

A *name* belongs to one worker, so what it must stand for is known exactly: the id of the last command that finished, or one of those that a
command would have given it that was cut off. Ids come from a store of their own, in which nothing ever fails.
"""

import glob, hashlib, json, os, random, shutil, signal, subprocess, threading, time

BUG = 70
ABSENT = None
EXPRESSION = """{{ forge }}:
forge.formation {{
  name = "{name}";
  layers = [
    (forge.files {{ "/bin/busybox" = ./busybox; "/data" = ./data-{number}; }})
    (forge.run {{ command = [ "/bin/busybox" "sh" "-c" "/bin/busybox seq {number} > /made" ]; }})
  ];
  command = [ "/bin/busybox" "cat" "/made" ];
}}
"""


class World:
    def __init__(self, options, path, reference):
        self.forge, self.path, self.store = os.path.abspath(options.forge), path, os.path.join(path, "store")
        self.folder, self.other = os.path.join(path, "folder"), os.path.join(path, "other")
        # What lies here never fails: sources, projects, a home, and the store that says what ids are.
        self.reference, self.truth = reference, os.path.join(reference, "store")
        self.lock, self.stopping, self.sources, self.faults = threading.Lock(), False, {}, []
        self.processes, self.server, self.address = set(), None, None
        # Of each name: what it stands for, and what else it may stand for since something was cut off.
        self.finished, self.possible, self.ids, self.whole = {}, {}, {}, {}
        # Names whose last change was a build in this store that finished: its steps are done for good.
        self.built = set()
        # At the peers: names, and every id that was pushed under each.
        self.pushed = {}
        self.commands = 0
        busybox = shutil.which("busybox")
        self.builds = bool(busybox) and options.builds
        if self.builds and not os.path.exists(os.path.join(reference, "busybox")):
            shutil.copy(busybox, os.path.join(reference, "busybox"))

    # What is worked on.

    def source(self, number):
        """A directory of so many files, of contents that other sources share in part."""
        path = os.path.join(self.reference, f"source-{number}")
        with self.lock:
            if number not in self.sources:
                if not os.path.exists(path):
                    content = random.Random(number)
                    for file in range(10 if number % 3 else 150):
                        directory = os.path.join(path, f"d{file % 7}")
                        os.makedirs(directory, exist_ok=True)
                        with open(os.path.join(directory, f"f{file}"), "wb") as out:
                            out.write(b"%d " % (file % 40) * content.choice([1, 50, 30_000 if file % 50 == 0 else 9]))
                self.sources[number] = path
        return path

    def expression(self, name, number):
        path = os.path.join(self.reference, f"{name}-{number}.expr")
        with self.lock:
            data = os.path.join(self.reference, f"data-{number}")
            # Written once: somebody may be reading it.
            if not os.path.exists(data):
                os.makedirs(data)
                for file in range(5):
                    with open(os.path.join(data, str(file)), "w") as out:
                        out.write(f"{file} of {number}\n" * 200)
            if not os.path.exists(path):
                with open(path, "w") as out:
                    out.write(EXPRESSION.format(name=name, number=number))
        return path

    def making(self, name, number):
        """The command that makes a name stand for what this number says: even ones are imported, odd ones built, where that goes."""
        if number % 2 and self.builds:
            return ["build", self.expression(name, number // 2), "-q"]
        return ["import", self.source(number), "--name", name, "-q"]

    def id_of(self, name, number):
        """What that command gives where nothing fails."""
        with self.lock:
            known = self.ids.get((name, number))
        if known is None:
            made = subprocess.run([self.forge, "--store", self.truth, *self.making(name, number)], capture_output=True, text=True,
                                  env=self.environment())
            if made.returncode != 0:
                raise SystemExit(f"in the store of the truth: {made.stderr}")
            known = made.stdout.split()[-1]
            with self.lock:
                self.ids[name, number] = known
        return known

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": os.path.join(self.reference, "home"), "CI": "true"}

    # Commands.

    def run(self, *words, ok=(0,), store=None):
        """The output, or None if it failed (which a fault may cause)."""
        if self.stopping:
            return None
        process = subprocess.Popen([self.forge, "--store", store or self.store, *words], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env=self.environment())
        with self.lock:
            self.processes.add(process)
            self.commands += 1
        if self.stopping:
            process.kill()
        out, err = process.communicate()
        with self.lock:
            self.processes.discard(process)
        code = process.returncode
        if code == BUG or code < 0 and not self.stopping:
            self.faults.append(f"{' '.join(words)}: exit {code}: {err.decode(errors='replace')}")
        return out.decode(errors="replace") if code in ok and not self.stopping else None

    def serve(self):
        """Serves the other store, anew if it was killed."""
        if self.server is None or self.server.poll() is not None:
            self.server = subprocess.Popen(
                [self.forge, "--store", self.other, "serve", "--listen", "127.0.0.1:0", "--anonymous", "read,write"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True, env=self.environment())
            self.address = self.server.stdout.readline().strip() or None

    def kill(self):
        """Ends all that works, at once."""
        self.stopping = True
        with self.lock:
            processes = list(self.processes)
        for process in [*processes, *([self.server] if self.server else [])]:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.server:
            self.server.wait()
            self.server.stdout.close()
            self.server = None

    def changes(self, name, to, words):
        """A command that makes a name stand for something else; whether it says that it did."""
        with self.lock:
            self.possible.setdefault(name, set()).add(to)
            self.built.discard(name)
        out = self.run(*words)
        done = out is not None
        if done and to and out.split()[-1:] != [to]:
            self.faults.append(f"{' '.join(words)} gave {out!r}, elsewhere {to}")
        if done:
            with self.lock:
                self.finished[name], self.possible[name] = to, set()
                if words[0] == "build":
                    self.built.add(name)
        return done

    # Work.

    def work(self, chance, who):
        """One command, of this worker's names."""
        kinds = ["make"] * 4 + ["gc", "export", "again", "verify", "rm", "run", "push", "pull", "pull"]
        what, name = chance.choice(kinds), f"w{who}-{chance.randrange(3)}"
        number, peer = chance.randrange(12), chance.choice(["folder", "server"])
        address = f"file://{self.folder}" if peer == "folder" else self.address
        certain = not self.possible.get(name) and self.finished.get(name)
        if what == "make":
            self.changes(name, self.id_of(name, number), self.making(name, number))
        elif what == "gc":
            store = chance.choice([None, None, self.other])
            self.run("gc", *chance.choice([[], ["--keep", "1h"], ["--max-size", "100K"]]), store=store)
        elif what == "verify":
            self.run("verify", "--dry-run")
        elif what == "rm" and name in self.finished:
            self.changes(name, ABSENT, ["rm", name])
        elif what == "export" and certain:
            target = os.path.join(self.reference, f"out-{who}.tar")
            if self.run("export", name, "--format", "tar", "-o", target, "--force") is not None:
                self.same(name, certain, target)
        elif what == "again" and certain:
            out = self.run("info", name, "--json")
            if out is not None and certain not in out:
                self.faults.append(f"{name} is not {certain}: {out}")
        elif what == "run" and certain:
            made = next((number for (of, number), id in list(self.ids.items()) if of == name and id == certain), 0)
            if made % 2 and self.builds:
                out = self.run("run", name)
                if out is not None and out.split() != [str(line) for line in range(1, made // 2 + 1)]:
                    self.faults.append(f"{name} of {certain} printed {out!r}")
        elif what == "push" and certain and address:
            with self.lock:
                self.pushed.setdefault((peer, name), set()).add(certain)
            self.run("push", name, address, "-q")
        elif what == "pull" and address and (peer, name) in self.pushed:
            with self.lock:
                self.built.discard(name)
            out = self.run("pull", name, address, "-q")
            if out is not None:
                self.changes_by_pull(name, peer, out.strip())
            elif (peer, name) in self.pushed:
                with self.lock:
                    self.possible.setdefault(name, set()).update(self.pushed[peer, name])

    def changes_by_pull(self, name, peer, id):
        if id not in self.pushed[peer, name]:
            self.faults.append(f"{name} was pulled as {id}, which nobody pushed: {self.pushed[peer, name]}")
        with self.lock:
            self.finished[name], self.possible[name] = id, set()

    def same(self, name, id, path):
        """An export has the bytes that it has where nothing fails."""
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).digest()
        os.unlink(path)
        with self.lock:
            known = self.whole.setdefault(id, digest)
        if known != digest:
            self.faults.append(f"two exports of {name}, {id}, differ")

    def works(self, seed, who, until):
        chance = random.Random(seed * 1000 + who)
        while not self.stopping and time.monotonic() < until:
            self.work(chance, who)

    def crowd(self, seed, count, until):
        self.stopping = False
        self.serve()
        threads = [threading.Thread(target=self.works, args=(seed, who, until)) for who in range(count)]
        for thread in threads:
            thread.start()
        return threads

    # What must be.

    def must(self, *words, store=None, ok=(0,)):
        ran = subprocess.run([self.forge, "--store", store or self.store, *words], capture_output=True, text=True, env=self.environment())
        if ran.returncode not in ok:
            self.faults.append(f"afterwards, {' '.join(words)}: {ran.returncode} {ran.stdout}{ran.stderr}")
        return ran.stdout if ran.returncode == 0 else None

    def check(self, rests=False):
        """What was finished is there and whole, names stand for what they may stand for and nothing else, and work goes on. With `rests`,
        objects that nothing names yet may be damaged: they are set aside first, and must be missing nowhere."""
        self.stopping = False
        for store in (self.store, self.other) if rests else ():
            if os.path.exists(os.path.join(store, "format")):
                self.must("verify", store=store, ok=(0, 13))
        for store in (self.store, self.other):
            if os.path.exists(os.path.join(store, "format")):
                self.must("verify", "--dry-run", store=store)
        listed = self.must("list", "--json")
        names = {name: it["id"] for it in json.loads(listed)["formations"] for name in it["names"]} if listed else {}
        for name in {*self.finished, *self.possible}:
            may = {self.finished.get(name, ABSENT), *self.possible.get(name, ())}
            if listed and names.get(name) not in may:
                self.faults.append(f"{name} stands for {names.get(name)}, and may stand for {may}")
            self.finished[name], self.possible[name] = names.get(name), set()
        present = [name for name, id in self.finished.items() if id]
        for name in random.Random(len(present)).sample(sorted(present), min(2, len(present))):
            target = os.path.join(self.reference, "out-check.tar")
            if self.must("export", name, "--format", "tar", "-o", target, "--force") is not None:
                self.same(name, self.finished[name], target)
        # A completed step counts: a build that was finished makes nothing when it is asked for again.
        for name in sorted(self.built & set(present))[:2]:
            number = next(number for (of, number), id in self.ids.items() if of == name and number % 2 and id == self.finished[name])
            out = self.must(*self.making(name, number), "--json")
            if out and json.loads(out).get("made"):
                self.faults.append(f"{name} of {self.finished[name]} was made again: {out}")
        if os.path.exists(os.path.join(self.other, "format")):
            self.must("gc", store=self.other)
        self.must("gc")
        self.must("import", self.source(1), "--name", "next", "-q")
        self.must("verify")
        for store in (self.store, self.other):
            for left in glob.glob(os.path.join(store, "leases", "*")):
                self.faults.append(f"a lease is left: {left}")
            if os.path.exists(os.path.join(store, "gc/doomed")):
                self.faults.append("a collection is left half-way")
