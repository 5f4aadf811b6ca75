"""Plots what `flashmla bench --json` and `flashmla replay --json` wrote: python plot.py RESULT.json [...] -o OUT.png

Bench files give one bar a shape, its share of the floor; several files (machines, versions, instruction sets) stand side
by side. A replay file gives the batch, the cache and the time of each step. Needs matplotlib (requirements.txt).
"""

import argparse
import json
import sys
from pathlib import Path

GIB = 1024**3
TOKEN_BYTES = 1152  # of one layer, BF16 or FP16


def label_of(row: dict) -> str:
    return f"h{row['heads']} b{row['batch']} {row['kv']} q{row['q_tokens']} {row['dtype']}"


def plot_bench(axes, results: dict[str, dict]) -> None:
    """`results`: file name -> parsed output of bench."""
    labels = list(dict.fromkeys(label_of(row) for result in results.values() for row in result["rows"]))
    height = 0.8 / len(results)
    for i, (name, result) in enumerate(results.items()):
        shares = {label_of(row): 100 * row.get("fraction_of_floor", 0) for row in result["rows"]}
        places = [labels.index(label) + i * height for label in shares]
        axes.barh(places, list(shares.values()), height, label=f"{name}: {result['device']}")
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(labels))], labels)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the floor, max(FLOP / rate, bytes / bandwidth)")
    axes.invert_yaxis()
    axes.legend(fontsize=8)


def plot_replay(all_axes, result: dict) -> None:
    steps, layers, page_tokens = result["steps"], result["model"]["layers"], result["cache"]["page_tokens"]
    gib = TOKEN_BYTES * layers / GIB
    batch, cache, time = all_axes
    batch.plot(steps["batch"])
    batch.set_ylabel("requests in the batch")
    cache.plot([pages * page_tokens * gib for pages in steps["pages"]], label="paged")
    cache.plot([size * longest * gib for size, longest in zip(steps["batch"], steps["longest_tokens"])], label="padded to the longest")
    cache.set_ylabel("KV cache, GiB")
    cache.legend(fontsize=8)
    time.plot([1e3 * seconds for seconds in steps["seconds"]])
    time.set_ylabel("ms a step")
    for axes in all_axes:
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="outputs of bench, or one output of replay")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .png, .svg or .pdf")
    arguments = parser.parse_args()
    results = {path.stem: json.loads(path.read_text()) for path in arguments.results}
    replays = [result for result in results.values() if "served" in result]
    if replays and len(results) > 1:
        parser.error(f"results: got {len(results)} files with a replay among them, expected one replay or only bench files")

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if replays:
        figure, axes = pyplot.subplots(1, 3, figsize=(15, 4), layout="constrained")
        plot_replay(axes, replays[0])
    else:
        rows = max(len(result["rows"]) for result in results.values())
        figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.4 * rows * len(results)), layout="constrained")
        plot_bench(axes, results)
    figure.savefig(arguments.output, dpi=150)
    return 0


if __name__ == "__main__":
    sys.exit(main())
