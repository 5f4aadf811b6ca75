#!/usr/bin/env python3
"""tests/gpu/racecheck_table.py FOLDER: which accesses compute-sanitizer's racecheck follows, as a table.

Runs each kernel of FOLDER/gpu_racecheck under racecheck, several at once. A planted fault that is not reported is an access that racecheck
does not see; a report about a kernel that is right is false. Both are findings about the tool and no failure. Exit code 1: a program did not
end as it should, or the plainest fault of all, a store and a load without bar.sync, was not seen, so that nothing was measured. --json PATH
writes the rows.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUMMARY = re.compile(r"RACECHECK SUMMARY: (\d+) hazard")
TIMEOUT_S = 60


def find_sanitizer():
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")


def check(sanitizer, program, case):
    """The row of a case: hazards that racecheck reports, or None where its run failed; and the first lines that say why."""
    name, planted, what = case
    command = [sanitizer, "--tool", "racecheck", "--print-limit", "3", str(program), name]
    row = {"name": name, "what": what, "planted": None if planted == "-" else planted, "hazards": None, "text": ""}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S, text=True, errors="replace")
    except subprocess.TimeoutExpired:
        return {**row, "text": f"stopped after {TIMEOUT_S} s"}
    summary = SUMMARY.search(done.stdout)
    right = f"ok      {name}\n" in done.stdout
    if summary and right:
        row["hazards"] = int(summary[1])
    lines = [line.strip("= \n") for line in done.stdout.splitlines()]
    wanted = "Race reported" if row["hazards"] else ""
    return {**row, "text": next((line for line in lines if wanted and wanted in line), "") if row["hazards"] is not None else " / ".join(lines[-4:])}


def verdict(row):
    if row["hazards"] is None:
        return "FAILED"
    if row["planted"]:
        return "seen" if row["hazards"] else "NOT SEEN"
    return "FALSE REPORT" if row["hazards"] else "quiet"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    program, sanitizer = options.folder / "gpu_racecheck", find_sanitizer()
    if not sanitizer:
        print("racecheck table: skipped: no compute-sanitizer on PATH")
        return 0
    plain = subprocess.run([program], stdout=subprocess.PIPE, text=True)
    if "gpu_racecheck: skipped: " in plain.stdout or plain.returncode:
        print(plain.stdout.strip())
        return plain.returncode
    listing = subprocess.run([program, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    cases = [line.split("\t") for line in listing.splitlines()]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda case: check(sanitizer, program, case), cases))
    print(f"{'kernel':<28}{'what':<42}{'missing':<26}{'hazards':>7}  racecheck")
    for row in rows:
        hazards = "" if row["hazards"] is None else row["hazards"]
        print(f"{row['name']:<28}{row['what']:<42}{row['planted'] or '-':<26}{hazards:>7}  {verdict(row)}")
    for row in rows:
        if row["text"]:
            print(f"{row['name']}: {row['text'][:300]}")
    if options.json:
        options.json.write_text(json.dumps([{**row, "verdict": verdict(row)} for row in rows], indent=1) + "\n")
    verdicts = {row["name"]: verdict(row) for row in rows}
    counts = {word: list(verdicts.values()).count(word) for word in ("seen", "NOT SEEN", "FALSE REPORT", "quiet", "FAILED")}
    print("racecheck table: " + ", ".join(f"{count} {word.lower()}" for word, count in counts.items()))
    return 1 if counts["FAILED"] or verdicts.get("store_load_planted") != "seen" else 0


if __name__ == "__main__":
    sys.exit(main())
