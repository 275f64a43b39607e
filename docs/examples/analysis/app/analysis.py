"""What is in Debian? Reads the suite's package index and sums it up by section.

The table goes to standard output; where /out is bound to a directory, it is also written there as summary.csv.
"""

import lzma
import pathlib
import sys

import numpy as np
import pandas as pd

WANTED = {"Package", "Section", "Installed-Size", "Size", "Maintainer"}


def packages(path):
    """Yields one dictionary per paragraph of a Debian package index."""
    paragraph = {}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if line == "\n":
                yield paragraph
                paragraph = {}
            elif not line[0].isspace():
                field, _, value = line.partition(":")
                if field in WANTED:
                    paragraph[field] = value.strip()
    if paragraph:
        yield paragraph


def main():
    index = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/data/Packages.xz")
    table = pd.DataFrame(packages(index))
    table["installed"] = pd.to_numeric(table["Installed-Size"], errors="coerce") / 1024
    table["download"] = pd.to_numeric(table["Size"]) / 2**20
    summary = (
        table.groupby("Section")
        .agg(
            packages=("Package", "count"),
            maintainers=("Maintainer", "nunique"),
            download_mib=("download", "sum"),
            median_mib=("installed", "median"),
            largest_mib=("installed", "max"),
        )
        .sort_values("download_mib", ascending=False)
    )
    print(f"{len(table)} packages, {table['download'].sum() / 1024:.1f} GiB to download")
    print(f"numpy {np.__version__}, pandas {pd.__version__}, Python {sys.version.split()[0]}\n")
    print(summary.head(12).round(1).to_string())
    out = pathlib.Path("/out")
    if out.is_dir():
        summary.round(3).to_csv(out / "summary.csv")
        print("\nwrote /out/summary.csv")


main()
