# Tasks. `just` lists them.

_list:
    @just --list

# Format, lints, tests: what CI runs
check:
    ./check

# Packing squashfs, SIF and OCI against mksquashfs, cp, apptainer and tar, as ratios: `just bench-artifacts [RUNS] [OPTIONS]`
bench-artifacts runs="5" *options="":
    cargo build --release -p cli
    python3 benchmarks/artifacts/bench.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" --runs {{runs}} {{options}}

# Nix against forge on expressions: `just bench-lang WORKLOADS [NIX_INSTANTIATE] [NIXPKGS]`
bench-lang workloads nix="nix-instantiate" nixpkgs="":
    cargo build --release -p cli
    python3 benchmarks/lang.py --forge "${CARGO_TARGET_DIR:-target}/release/forge nix-instantiate" --nix "{{nix}}" --workloads "{{workloads}}" {{ if nixpkgs == "" { "" } else { "--nixpkgs " + nixpkgs } }}

# Files and images over 4 GiB, in every format (20 GiB of disk, some minutes)
large:
    cargo test --release -p store --test large -- --ignored

# What a run takes against bubblewrap, crun, podman and Apptainer: `just bench-run FORMATION ROOT [SIF]`, ROOT being the same as a directory
bench-run formation root sif="":
    cargo build --release -p cli
    python3 benchmarks/run/bench.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" --store "$FORGE_STORE" --formation "{{formation}}" --root "{{root}}" {{ if sif == "" { "" } else { "--sif " + sif } }}

# The least that any launcher with this isolation takes: makes a program of a run's system calls, for bench.py's --floor
run-floor formation program:
    python3 benchmarks/run/floor.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" --store "$FORGE_STORE" --formation "{{formation}}" -o "{{program}}"

# Which functions a start needs: writes .cargo/start-order, after which a release is linked (as root, with perf; build again afterwards)
start-order store formation:
    cargo build --release -p cli
    python3 benchmarks/run/start_order.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" --store "{{store}}" --formation "{{formation}}"
    touch cli/src/main.rs

# Nothing is left behind by thousands of runs, 64 at a time, with `kill -9` at seeded moments: `just leftovers FORMATION [RUNS]`
leftovers formation runs="5000":
    cargo build --release -p cli
    python3 benchmarks/run/leftovers.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" --store "$FORGE_STORE" --formation "{{formation}}" --runs {{runs}}

# The ecosystems on real packages: examples, lock files, curated runtimes; minutes, and the network
ecosystems:
    cargo test --release -p cli --test promises real_packages -- --ignored --test-threads 1

# Boots Debian 12's own kernel (6.1, cgroup v2) under QEMU and runs forge there, as root and as an ordinary user
vm:
    cargo build --release -p cli
    benchmarks/vm/run.sh "${CARGO_TARGET_DIR:-target}/release/forge"

# Taking in a tree against nix-store, ostree, git and cp, as ratios; `just bench-store --collect 1000000` for collection
bench-store *words:
    cargo build --release -p cli
    python3 benchmarks/store/bench.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" {{words}}

# Moving formations between stores: bytes, and the rate beside curl's
bench-transfer *words:
    cargo build --release -p cli
    python3 benchmarks/store/transfer.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" {{words}}

# Breaks a store's surroundings at 1,000 seeded points: `just faults kill|power|full|flip|eio|line|crowd [--seed N]`
faults what *words:
    cargo build --release -p cli
    python3 benchmarks/store/faults.py {{what}} --forge "${CARGO_TARGET_DIR:-target}/release/forge" {{words}}

# A Debian root against mmdebstrap, a Python layer against pip and uv, from files that are there: `just bench-ecosystems [OPTIONS]`
bench-ecosystems *options:
    cargo build --release -p cli
    python3 benchmarks/build/ecosystems.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" {{options}}

# A Debian root compared with mmdebstrap's of the same packages, path by path; as root
mmdebstrap *options:
    cargo build --release -p cli
    python3 benchmarks/build/mmdebstrap.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" {{options}}

# What building costs beside the work: `just bench-build [NIX_BUILD] [STEPS]`
bench-build nix="" steps="10000":
    cargo build --release -p cli
    python3 benchmarks/build/bench.py --forge "${CARGO_TARGET_DIR:-target}/release/forge" --steps {{steps}} {{ if nix == "" { "" } else { "--nix " + nix } }}

# What forge and Nix call the packages of a nixpkgs, one by one: `just nixpkgs NIXPKGS [NIX_INSTANTIATE] [EVERY]`
nixpkgs directory nix="nix-instantiate" every="50":
    cargo build --release -p expressions --example nix_instantiate
    python3 benchmarks/nixpkgs.py --forge "${CARGO_TARGET_DIR:-target}/release/examples/nix_instantiate" --nix "{{nix}}" --every {{every}} "{{directory}}"

# The language tests of the Nix sources, by forge: `just nix-suite NIX/tests/functional [--show]`
nix-suite directory *options:
    cargo build --release -p expressions --example nix_instantiate
    python3 benchmarks/nix_suite.py --forge "${CARGO_TARGET_DIR:-target}/release/examples/nix_instantiate" {{options}} "{{directory}}"

# The unsafe code of the evaluator under Miri, all of its tests; from elsewhere, since Miri does not get on with the wrapper that `.cargo/config.toml` names
miri:
    cd / && CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-{{justfile_directory()}}/target}" cargo +nightly miri test --manifest-path "{{justfile_directory()}}/Cargo.toml" -p expressions --lib heap::

# Looks for bytes that a reader cannot bear: `just fuzz lexer|parser|evaluator|… [SECONDS]` (`fuzz/README.md` lists them)
fuzz target seconds="300":
    cargo +nightly fuzz run --sanitizer none {{target}} -- -max_total_time={{seconds}} -timeout=20 -rss_limit_mb=4096
