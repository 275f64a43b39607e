# Tasks. `just` lists them.

_list:
    @just --list

# Format, lints, tests: what CI runs
check:
    ./check

# Packing squashfs and SIF against mksquashfs and cp, as ratios: `just bench-artifacts [RUNS]`
bench-artifacts runs="5":
    cargo build --release -p cli
    python3 benchmarks/artifacts/bench.py --forge target/release/forge --runs {{runs}}
