#!/usr/bin/env python3
"""Runs a command whose disk fails: by ptrace(2), without a file system or library of its own. For x86-64.

    inject.py eio PLACE DIRECTORY -- COMMAND…     the PLACE-th call that changes something below DIRECTORY gives EIO
    inject.py enospc PLACE DIRECTORY -- COMMAND…  the same with ENOSPC
    inject.py short SEED DIRECTORY -- COMMAND…    every write below DIRECTORY writes less than it was asked to

As a module: `run(command, directory, kind, place)`. Threads of the command are followed, processes that it starts are not.
"""

import ctypes, errno, os, random, signal, sys

LIBC = ctypes.CDLL(None, use_errno=True)
TRACEME, PEEKDATA, CONT, GETREGS, SETREGS, SYSCALL, SETOPTIONS, GETEVENTMSG = 0, 2, 7, 12, 13, 24, 0x4200, 0x4201
SYSGOOD, TRACECLONE, EXITKILL = 1, 8, 0x100000
WALL = 0x40000000
NAMES = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs").split()

# By number: name, and whether the first argument is a descriptor of the file itself (else of the directory that a path begins at).
WRITES = {1: "write", 18: "pwrite64", 20: "writev"}
CHANGES = {**WRITES, 74: "fsync", 75: "fdatasync", 306: "syncfs", 77: "ftruncate", 264: "renameat", 316: "renameat2",
           258: "mkdirat", 265: "linkat", 280: "utimensat", 91: "fchmod", 263: "unlinkat", 326: "copy_file_range"}
OPENAT, O_CREAT = 257, 0o100


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in NAMES]


def ptrace(request, pid, address=0, data=0):
    LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    LIBC.ptrace.restype = ctypes.c_long
    if LIBC.ptrace(request, pid, address, data) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")


def run(command, directory, kind, place, stdout=None, stderr=None):
    """The exit code (as of subprocess), and how many calls could have failed."""
    directory, chance = os.path.realpath(directory), random.Random(place)
    child = os.fork()
    if child == 0:
        try:
            for file, number in ((stdout, 1), (stderr, 2)):
                if file is not None:
                    os.dup2(file, number)
            ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    os.waitpid(child, WALL)
    ptrace(SETOPTIONS, child, 0, SYSGOOD | TRACECLONE | EXITKILL)
    ptrace(SYSCALL, child)
    within, error, count, code = {}, {"eio": errno.EIO, "enospc": errno.ENOSPC}.get(kind), 0, None
    registers = Registers()

    def is_below(pid, descriptor):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            return False
        return path == directory or path.startswith(directory + "/")

    while True:
        try:
            pid, status = os.waitpid(-1, WALL)
        except ChildProcessError:
            return code, count
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            within.pop(pid, None)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
            continue
        stop, pass_on = os.WSTOPSIG(status), 0
        try:
            if stop == signal.SIGTRAP | 0x80:
                ptrace(GETREGS, pid, 0, ctypes.addressof(registers))
                if pid in within:
                    failing = within.pop(pid)
                    if failing:
                        registers.rax = ctypes.c_ulonglong(-failing).value
                        ptrace(SETREGS, pid, 0, ctypes.addressof(registers))
                else:
                    number, failing = registers.orig_rax, 0
                    changes = number in CHANGES or number == OPENAT and registers.rdx & O_CREAT
                    if changes and is_below(child, ctypes.c_int(registers.rdi & 0xFFFFFFFF).value):
                        count += 1
                        if error and count == place:
                            failing = error
                            registers.orig_rax = ctypes.c_ulonglong(-1).value
                            ptrace(SETREGS, pid, 0, ctypes.addressof(registers))
                        elif kind == "short" and number in (1, 18) and registers.rdx > 1:
                            registers.rdx = chance.randrange(1, registers.rdx)
                            ptrace(SETREGS, pid, 0, ctypes.addressof(registers))
                    within[pid] = failing
            elif status >> 16 == 0 and stop not in (signal.SIGTRAP, signal.SIGSTOP):
                pass_on = stop
            ptrace(SYSCALL, pid, 0, pass_on)
        except OSError as gone:
            if gone.errno != errno.ESRCH:
                raise


if __name__ == "__main__":
    kind, place, directory, _, *words = sys.argv[1:]
    code, count = run(words, directory, kind, int(place))
    print(f"exit {code}, {count} calls", file=sys.stderr)
    sys.exit(code if code >= 0 else 128 - code)
