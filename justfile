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
