#!/usr/bin/env python3
"""A table of folders from a file of lcov: lines, lines that ran, and their share. What is in a
module of tests, or in the body of a fuzz target, is no line of the server."""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HELD = {"ws": 95, "http": 95, "hub": 95}


def is_product(path):
    return path.parts[0] == "src" and path.name not in ("tests.rs", "fuzzing.rs")


def product_lines(path):
    """The lines before the first module of tests: it comes last."""
    text = (ROOT / path).read_text()
    tests = re.search(r"^#\[cfg\(test\)\]\n(?:#\[.*\n)*(?:pub\(crate\) )?(?:mod \w+ \{|fn )", text, re.M)
    end = tests.start() if tests else len(text)
    return text.count("\n", 0, end) + 1


def read(lcov):
    """The counts of each line of each file; a line counts by the program that ran it most."""
    files = defaultdict(dict)
    for line in Path(lcov).read_text().splitlines():
        kind, _, rest = line.partition(":")
        if kind == "SF":
            path = Path(rest)
            path = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        elif kind == "DA" and not path.is_absolute() and is_product(path):
            number, count = (int(part) for part in rest.split(",")[:2])
            files[path][number] = max(count, files[path].get(number, 0))
    for path, lines in files.items():
        end = product_lines(path)
        files[path] = {number: count for number, count in lines.items() if number < end}
    return files


def main():
    files = read(sys.argv[1])
    folders = defaultdict(lambda: [0, 0])
    for path, lines in files.items():
        folder = path.parts[1] if len(path.parts) > 2 else "(src)"
        for name in (folder, "all"):
            folders[name][0] += len(lines)
            folders[name][1] += sum(1 for count in lines.values() if count)
    below = []
    for name in sorted(folders, key=lambda name: (name == "all", name)):
        lines, ran = folders[name]
        share = 100 * ran / lines
        print(f"coverage: {name:8} {ran:6} of {lines:6} lines  {share:5.1f} %")
        if share < HELD.get(name, 0):
            below.append(name)
    if "--lines" in sys.argv:
        for path in sorted(files):
            text = (ROOT / path).read_text().splitlines()
            for number, count in sorted(files[path].items()):
                if not count:
                    print(f"{path}:{number}: {text[number - 1].strip()}")
    if below:
        sys.exit(f"below what is held: {', '.join(below)}")


main()
