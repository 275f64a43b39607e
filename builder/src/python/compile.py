# Compiles the Python files that a list names (paths ended by NUL) to bytecode that is checked against nothing: in a formation
# nothing changes, and neither times nor a look at the source are wanted. The bytes depend on interpreter, path and source only:
# neither on the order nor on the number of processes. Raise `Environment::version` when you change anything here: names used in
# this file are interned, which can show in the bytes (marshal's FLAG_REF).
import importlib._bootstrap_external as external
import importlib.util as util
import os
import sys


def compile_one(path):
    with open(path, "rb") as file:
        source = file.read()
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=-1)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        # Templates, tests of other parsers, sources of another Python: they are not imported, or fail when they are.
        return
    cache = util.cache_from_source(path)
    os.makedirs(os.path.dirname(cache), exist_ok=True)
    with open(cache, "wb") as file:
        file.write(external._code_to_hash_pyc(code, util.source_hash(source), False))


with open(sys.argv[1], "rb") as file:
    paths = [os.fsdecode(path) for path in file.read().split(b"\0") if path]
count = min(len(os.sched_getaffinity(0)), len(paths))
workers = []
for worker in range(count):
    process = os.fork()
    if process == 0:
        status = 1
        try:
            for path in paths[worker::count]:
                compile_one(path)
            status = 0
        except BaseException as error:
            print(path, error, sep=": ", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    workers.append(process)
statuses = [os.waitpid(worker, 0)[1] for worker in workers]
sys.exit(1 if any(statuses) else 0)
