"""Plots what `flashmla bench --json` and `flashmla replay --json` wrote: python plot.py RESULT.json [...] -o OUT.png

Bench files give one bar a shape, its share of the floor; several files (machines, versions, instruction sets) stand side
by side. With --over-kv each gets a panel with the share over the length, one line for each number of heads: solid the best round, dotted the median. A replay file gives the batch, the cache and the time of each step. A file of a comparison with other libraries, with
the ceilings measured in the same run ({"ceilings": {"read_GBps", "bf16_TFLOPS", "gpu"}, "results": [{"name", "floor_us", LIBRARY:
{"us", "tflops", "gbps"}}]}), gives a roofline and the times of the short calls. Needs matplotlib (requirements.txt).
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


def plot_over_kv(all_axes, results: dict[str, dict]) -> None:
    for axes, (name, result) in zip(all_axes, results.items()):
        for heads in dict.fromkeys(row["heads"] for row in result["rows"]):
            rows = [row for row in result["rows"] if row["heads"] == heads and "fraction_of_floor" in row]
            lengths = [row["kv"] for row in rows]
            (line,) = axes.plot(lengths, [100 * row["fraction_of_floor_best"] for row in rows], "o-", markersize=3, label=f"{heads} head{'s' * (heads > 1)}")
            axes.plot(lengths, [100 * row["fraction_of_floor"] for row in rows], ":", color=line.get_color())
        axes.set_xscale("log", base=2)
        axes.set_ylim(bottom=0)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set_xlabel("tokens in the cache")
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("% of the floor, max(FLOP / rate, bytes / bandwidth)")
    all_axes[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


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


def providers_of(result: dict) -> list[str]:
    return [key for key, value in result["results"][0].items() if isinstance(value, dict) and "us" in value]


def title_of(provider: str) -> str:
    titles = {"flashmla": "FlashMLA (this library)", "sgl_flash_mla": "SGLang's FlashMLA", "flashinfer_fa3": "FlashInfer fa3"}
    return titles.get(provider.split(".")[0], titles.get(provider.split(".")[-1], provider))


def plot_roofline(axes, result: dict) -> None:
    """Each row at its arithmetic intensity; short calls lie far below the roof, since launch and reduction are in their time."""
    read, rate = result["ceilings"]["read_GBps"] * 1e-3, result["ceilings"]["bf16_TFLOPS"]
    intensities = [0.5 * 1.1**i for i in range(90)]
    axes.plot(intensities, [min(read * i, rate) for i in intensities], color="black", linewidth=1, label="measured read bandwidth and matrix rate")
    for provider, marker in zip(providers_of(result), "o^s"):
        cells = [row[provider] for row in result["results"] if provider in row]
        intensity = [1e3 * cell["tflops"] / cell["gbps"] for cell in cells]
        axes.scatter(intensity, [cell["tflops"] for cell in cells], s=22, marker=marker, alpha=0.8, label=title_of(provider))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(10, 1000)
    axes.set_ylim(1, 1.3 * rate)
    axes.set_xlabel("FLOP a byte")
    axes.set_ylabel("TFLOPS")
    axes.set_title(result["ceilings"]["gpu"], fontsize=9)
    axes.legend(fontsize=8)


def plot_short_calls(axes, result: dict, longest_floor_us: float = 60.0) -> None:
    rows = [row for row in result["results"] if row["floor_us"] < longest_floor_us]
    providers = providers_of(result)
    height = 0.8 / len(providers)
    for i, provider in enumerate(providers):
        axes.barh([n + i * height for n in range(len(rows))], [row.get(provider, {}).get("us", 0) for row in rows], height, label=title_of(provider))
    for n, row in enumerate(rows):
        axes.plot([row["floor_us"]] * 2, [n - height / 2, n + 0.8 - height / 2], color="black", linewidth=1, label="floor" if n == 0 else None)
    axes.set_yticks([n + 0.4 - height / 2 for n in range(len(rows))], [row["name"] for row in rows], fontsize=8)
    axes.set_xlabel("us a call")
    axes.invert_yaxis()
    axes.legend(fontsize=8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="outputs of bench, or one output of replay or of a comparison")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .png, .svg or .pdf")
    parser.add_argument("--over-kv", action="store_true", help="bench files: shares over the length of the cache")
    arguments = parser.parse_args()
    results = {path.stem: json.loads(path.read_text()) for path in arguments.results}
    replays = [result for result in results.values() if "served" in result]
    comparisons = [result for result in results.values() if "ceilings" in result]
    if (replays or comparisons) and len(results) > 1:
        parser.error(f"results: got {len(results)} files with a replay or a comparison among them, expected one of those or only bench files")

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if replays:
        figure, axes = pyplot.subplots(1, 3, figsize=(15, 4), layout="constrained")
        plot_replay(axes, replays[0])
    elif comparisons:
        figure, axes = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
        plot_roofline(axes[0], comparisons[0])
        plot_short_calls(axes[1], comparisons[0])
    elif arguments.over_kv:
        figure, axes = pyplot.subplots(1, len(results), figsize=(1 + 3.2 * len(results), 4), layout="constrained", sharey=True, squeeze=False)
        plot_over_kv(axes[0], results)
    else:
        rows = max(len(result["rows"]) for result in results.values())
        figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.4 * rows * len(results)), layout="constrained")
        plot_bench(axes, results)
    figure.savefig(arguments.output, dpi=150)
    return 0


if __name__ == "__main__":
    sys.exit(main())
