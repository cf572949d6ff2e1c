"""What `benchmark inference` tells of its results."""

from collections.abc import Iterator

from queryinst.benchmarks.frame import Results, table

PARTS = ("normalise", "backbone", "FPN", "stages", "masks", "post-processing")
SPLIT = ("published", "fp32", "bf16")  # told part by part
WAYS = ("published", "published, kept", "fp32", "bf16")


def markdown(results: Results) -> str:
    """A table of all comparisons, one of the parts for each number of proposals, and what else was measured."""
    return "\n\n".join(tell(results))


def tell(results: Results) -> Iterator[str]:
    """The paragraphs and tables of the report."""
    peaks = results["peak"]
    yield (
        f"{results['backbone']}, 6 stages, random weights, image to COCO RLE, medians of {results['rounds']}; "
        "published: torchvision's RoIAlign, mask head on all queries and classes, paste, encode; kept: the same in a "
        "process that keeps its memory, as ours does. Measured peak of matrix products: "
        f"{peaks['fp32'] / 1e9:.0f} GFLOP/s in fp32, {peaks['bf16'] / 1e9:.0f} in bf16."
    )
    rows = []
    for one in results["comparisons"]:
        plain, *ours = (one["ways"][way]["seconds"] for way in WAYS)
        same = one["equality"]
        equal = f"{same['same']} of {same['detections']}, {same['different_pixels']} pixels"
        size = f"{one['height']}x{one['width']}"
        rows.append(
            (f"{size}, batch {one['batch']}", one["proposals"], f"{plain:.2f} s")
            + tuple(f"{seconds:.2f} s ({plain / seconds:.1f}x)" for seconds in ours)
            + (equal,)
        )
    yield table(["images", "proposals", *WAYS, "same in fp32, differing"], rows)
    for one in (one for one in results["comparisons"] if one is first_of(results, one["proposals"])):
        yield f"By part, {one['proposals']} proposals, {one['height']}x{one['width']}, batch {one['batch']}:"
        yield table(
            ["part", *(f"{way} {what}" for way in SPLIT for what in ("ms", "GFLOP", "of peak"))], _parts(one, peaks)
        )
    for proposals, distinct in results["distinct"].items():
        yield (
            f"Of {proposals} detections kept, {distinct['kept']} are different queries here. If all were: masks "
            f"{distinct['fp32'] * 1000:.0f} ms in fp32, {distinct['bf16'] * 1000:.0f} ms in bf16."
        )
    for proposals, depth in results.get("stages", {}).items():
        yield f"From the pyramid to detections, {proposals} proposals in the first stage:"
        yield table(
            ["stages", "proposals after the first", "fp32 ms", "bf16 ms"],
            [(row["stages"], row["proposals"], *(f"{1000 * row[kind]:.0f}" for kind in SPLIT[1:])) for row in depth],
        )


def first_of(results: Results, proposals: int) -> Results:
    """The first comparison with so many proposals."""
    return next(one for one in results["comparisons"] if one["proposals"] == proposals)


def _parts(one: Results, peaks: dict[str, float]) -> Iterator[list[str]]:
    for part in (*PARTS, "all"):
        row = [part]
        for way in SPLIT:
            measured = one["ways"][way]
            seconds = measured["seconds"] if part == "all" else measured["parts"][part]
            flops = sum(measured["flops"].values()) if part == "all" else measured["flops"][part]
            share = flops / seconds / peaks["bf16" if way == "bf16" else "fp32"]
            row += [f"{1000 * seconds:.0f}", f"{flops / 1e9:.0f}", f"{share:.0%}" if flops else "-"]
        yield row
