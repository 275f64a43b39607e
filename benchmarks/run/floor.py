#!/usr/bin/env python3
"""What a run would take if forge itself took nothing: makes a program of the system calls of a run, and of nothing else.

    floor.py --forge FORGE --store STORE --formation ID -o PROGRAM

A run of /bin/true with limits is traced (strace), and its calls become a C program without a C library, which makes them again: the
same namespaces, mounts, cgroups, filter and processes, with nothing read, decided or checked in between. What it takes is the least that
any launcher with this isolation takes on this machine: `bench.py --floor PROGRAM` measures it beside the others. For x86-64; as root, as
the calls are those of root; and as long as the formation's checkout is there."""
import argparse, os, re, subprocess, tempfile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--forge", required=True)
parser.add_argument("--store", required=True)
parser.add_argument("--formation", required=True)
parser.add_argument("-o", "--output", required=True)
arguments = parser.parse_args()

HEADERS = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
NUMBERS = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", open(HEADERS).read())}
NUMBER = r"-?(?:0x[0-9a-f]+|\d+)"


def traced():
    """The calls of each process, in order, as (name, arguments)."""
    with tempfile.NamedTemporaryFile() as file:
        run = [arguments.forge, "run", arguments.formation, "--memory", "256M", "--pids", "64", "--", "/bin/true"]
        environment = dict(os.environ, FORGE_STORE=arguments.store)
        subprocess.run(["strace", "-f", "-X", "raw", "-v", "-s", "4096", "-o", file.name, *run], env=environment, check=True)
        lines = open(file.name, encoding="latin1").read().splitlines()
    calls, unfinished = {}, {}
    for line in lines:
        pid, text = line.split(maxsplit=1)
        if text.startswith(("+++", "---")):
            continue
        mine = calls.setdefault(pid, [])
        if text.endswith("<unfinished ...>"):
            # Its place is where it began.
            unfinished[pid] = (len(mine), text.removesuffix("<unfinished ...>").rstrip())
            mine.append(None)
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)$", text)
        at, text = (unfinished[pid][0], unfinished.pop(pid)[1] + resumed[1]) if resumed else (len(mine), text)
        name, _, rest = text.partition("(")
        mine[at:at + 1] = [(name, words(rest.rsplit(") ", 1)[0]))]
    return [[call for call in mine if call] for mine in calls.values()]


def words(text):
    """Arguments, divided at commas outside of strings and braces."""
    found, depth, start, quoted, at = [], 0, 0, False, 0
    while at < len(text):
        character = text[at]
        if quoted:
            at += character == "\\"
            quoted = character != '"'
        elif character == '"':
            quoted = True
        elif character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and depth == 0:
            found.append(text[start:at].strip())
            start = at + 1
        at += 1
    return found + ([text[start:].strip()] if text[start:].strip() else [])


launcher, first, program = traced()
everything = str(launcher)
# Names that hold until the end of a run, and must differ between two: of its cgroups, and of its lease.
UNIQUE = [re.search(r"forge-\d+-\d+-\d+-\d+", everything)[0], re.search(r"leases/([0-9a-f-]+)\.lock", everything)[1]]
blob, places = bytearray(), []


def literal(name, word):
    """An argument in C. What the kernel writes, and what is not copied, is one buffer."""
    word = re.sub(r"/\*.*?\*/", "", word).strip()
    if word.startswith('"'):
        text = word[1:word.rindex('"')].encode("latin1").decode("unicode_escape").encode("latin1")
        # The launcher's own.
        text = re.sub(rb"^/proc/\d+/stat$", b"/proc/self/stat", text)
        for unique in UNIQUE:
            text = text.replace(unique.encode(), b"forge-PIDPIDPI")
        at = len(blob)
        blob.extend(text + bytes(9))
        if b"PIDPIDPI" in text:
            places.append(at + text.index(b"PIDPIDPI"))
        return f"(long)(blob + {at})"
    fields = dict(re.findall(rf"(\w+)=({NUMBER})", word))
    if word.startswith("{"):
        if name == "openat2":
            return f"(long)(u64[]){{{fields['flags']}, {fields.get('mode', 0)}, {fields['resolve']}}}"
        if name == "mount_setattr":
            return f"(long)(u64[]){{{fields['attr_set']}, {fields['attr_clr']}, {fields['propagation']}, {fields['userns_fd']}}}"
        if name == "landlock_create_ruleset":
            return f"(long)(u64[]){{{fields['handled_access_fs']}, 0, 0}}"
        if name == "landlock_add_rule":
            return f"(long)&(struct beneath){{{fields['allowed_access']}, {fields['parent_fd']}}}"
        if "_LINUX_CAPABILITY" in word or "version=" in word:
            return "(long)(u64[]){0x20080522, 0}"
        kept = {"ioctl": "(long)&loopback", "seccomp": "(long)&filter", "rt_sigaction": "(long)nothing", "capset": "(long)nothing"}
        return kept.get(name, "(long)buffer")
    if word in ("", "NULL"):
        return "0"
    is_number = re.fullmatch(rf"{NUMBER}(\|{NUMBER})*", word) and len(word) < 20 and not re.fullmatch(r"0x[0-9a-f]{9,}", word)
    return f"({word})" if is_number else "(long)buffer"


def statements(calls, special):
    """C for the calls of a process. `special` gives it for some by name; nothing leaves a call out."""
    for name, values in calls:
        if name in special:
            made = special[name]
            yield made(values) if callable(made) else made
        elif name in NUMBERS:
            yield f"call({', '.join([str(NUMBERS[name]), *(literal(name, value) for value in values)])});"


def maps(values):
    """The launcher writes the maps of users of process 1, whose number is known only then."""
    which = re.search(r"/proc/\d+/(uid_map|gid_map)", values[1])
    if not which:
        return f"call(257, {', '.join(literal('openat', value) for value in values)});"
    return f'path_of(child, "{which[1]}"); call(257, -100, (long)path, 0x88001);'


wait = lambda one, other: f"{{ struct {{ int fd; short events, got; }} both[2] = {{{{{one}, 1, 0}}, {{{other}, 1, 0}}}}; call(271, (long)both, 2, 0, 0, 8); }}"
ends = dict.fromkeys(["exit_group", "brk", "mmap", "munmap", "mprotect", "madvise"], "")
clone3 = next(values for name, values in launcher if name == "clone3")
flags = re.search(rf"flags=({NUMBER})", clone3[0])[1]
channel = next(re.findall(r"\d+", values[3]) for name, values in launcher if name == "socketpair")
pipe = next(re.findall(r"\d+", values[0]) for name, values in launcher if name == "pipe2")
signals = next(index for index, (name, _) in enumerate(first) if name == "signalfd4")
their_signals = first[signals + 1 :]
signal_file = next(re.search(r"fd=(\d+)", value)[1] for name, values in their_signals if name == "ppoll" for value in re.findall(r"\{fd=[^}]*\}", values[0])[1:])

parts = {
    "PROGRAM": statements(program[: next(i for i, (name, _) in enumerate(program) if name == "execve")], {
        **ends, "rt_sigprocmask": "call(14, 2, (long)nothing, 0, 8);",
        "rt_sigaction": lambda values: f"call(13, {values[0]}, (long)nothing, (long)buffer, 8);",
    }),
    "FIRST": statements(first, {
        **ends, "clone": "start_program();", "ppoll": wait(channel[0], signal_file),
        "wait4": lambda values: f"call(61, -1, (long)buffer, {values[2]}, 0);",
        "rt_sigprocmask": "call(14, 2, (long)(u64[]){~0ul}, 0, 8);", "signalfd4": "call(289, -1, (long)(u64[]){1ul << 16}, 8, 0x80800);",
    }),
    "LAUNCHER": statements(launcher, {
        **ends, **dict.fromkeys(["execve", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "poll"], ""),
        "clone3": f"{{ u64 how[11] = {{{flags}, 0, 0, 0, 17}}; child = call(435, (long)how, 88); if (child == 0) process_1(); }}",
        "ppoll": wait(channel[1], pipe[0]), "recvmsg": f"call(0, {channel[1]}, (long)buffer, 4096);",
        "wait4": "call(61, child, (long)buffer, 0x40000000, 0);", "openat": maps,
    }),
}

TEMPLATE = r"""
typedef unsigned long u64;
struct beneath { u64 access; int parent; } __attribute__((packed));
struct instruction { unsigned short code; unsigned char yes, no; unsigned value; };
#define INSTRUCTIONS 150
static struct instruction instructions[INSTRUCTIONS];
static struct { unsigned short length; struct instruction *first; } filter = {INSTRUCTIONS, instructions};
static struct { char name[16]; short flags; char rest[22]; } loopback = {"lo", 9};
static u64 nothing[16];
static char buffer[65536], path[64];
static long child;
static char blob[];

static inline long call6(long n, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
}
#define call_(n, a, b, c, d, e, f, ...) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define call(...) call_(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static void path_of(long pid, const char *file) {
  char digits[12], *end = path;
  int count = 0;
  for (const char *from = "/proc/"; *from;) *end++ = *from++;
  for (; pid; pid /= 10) digits[count++] = '0' + pid % 10;
  while (count) *end++ = digits[--count];
  for (*end++ = '/'; *file;) *end++ = *file++;
  *end = 0;
}

__attribute__((used)) void in_program(void) {
  static const char *const words[] = {"/bin/true", 0}, *const environment[] = {"PATH=/usr/bin:/bin", 0};
PROGRAM
  call(59, (long)words[0], (long)words, (long)environment);
  call(231, 126);
}

static char stack[16384] __attribute__((aligned(16)));
/* In the memory of process 1, which waits until it executes another: CLONE_VM, CLONE_VFORK. */
static void start_program(void) {
  long result;
  __asm__ volatile("syscall\n test %%eax, %%eax\n jnz 1f\n call in_program\n 1:"
                   : "=a"(result) : "a"(56L), "D"(0x4100L | 17), "S"(stack + sizeof stack) : "rdx", "r10", "r8", "r9", "rcx", "r11", "memory");
}

__attribute__((noinline)) static void process_1(void) {
FIRST
  call(231, 0);
}

static const int places[] = {PLACES};
__attribute__((used)) void launcher(void) {
  /* Where what was traced has gone, it would wait for ever. */
  call(37, 10);
  for (int i = 0; i < INSTRUCTIONS; i++) instructions[i] = (struct instruction){0x15, 0, 0, 0x1000 + i};
  instructions[0] = (struct instruction){0x20, 0, 0, 0};
  instructions[INSTRUCTIONS - 1] = (struct instruction){6, 0, 0, 0x7fff0000};
  long own = call(39);
  for (unsigned at = 0; at < sizeof places / sizeof *places; at++) {
    long rest = own;
    for (int digit = 7; digit >= 0; digit--, rest /= 10) blob[places[at] + digit] = '0' + rest % 10;
  }
LAUNCHER
  call(231, 0);
}
__asm__(".globl _start\n_start: and $-16, %rsp\n call launcher");
static char blob[] = {BLOB};
"""

text = TEMPLATE
for name, lines in parts.items():
    # The macro's arguments may not have commas outside of parentheses.
    made = "\n".join("  " + re.sub(r"\(long\)(&?\((?:u64\[\]|struct beneath)\)\{[^}]*\})", r"((long)\1)", line) for line in lines if line)
    text = text.replace(f"\n{name}\n", f"\n{made}\n")
text = text.replace("{PLACES}", "{" + ", ".join(map(str, places)) + "}").replace("{BLOB}", "{" + ", ".join(map(str, blob)) + "}")
with tempfile.NamedTemporaryFile(suffix=".c", mode="w") as source:
    source.write(text)
    source.flush()
    options = ["-O1", "-w", "-static", "-nostdlib", "-fno-stack-protector", "-fno-pie", "-no-pie"]
    subprocess.run(["gcc", *options, "-o", arguments.output, source.name], check=True)
print(f"{sum(map(len, (launcher, first, program)))} calls", flush=True)
