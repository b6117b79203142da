"""Each schedule with one and with two workers of one compute thread each, alternating, beside its plan's ideal.

What two workers can gain at most is the plan's ideal under the machine's ceiling, of which there are two: how fast each
of two copies of a training step's loop is while both run, with nothing of Dask, over one alone; and the same of two
whole runs, `sequential` on one unit, which share nothing but the machine. The loop's few arrays stay in the caches, a
run's rows and activities come from memory. `sequential` and `all-layers` are one computation, so two workers are
compared with whichever of them is faster on one.

python benchmarks/speedup.py --epochs 2 --chapters 40 --repeats 3
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from floor import seconds as seconds_of
from side_by_side import arguments, median, show, train, where
from step import ours

from ffdask import datasets, machine
from ffdask.conduct import place
from ffdask.config import load
from ffdask.layer import Optimizer
from ffdask.resolved import resolve
from ffdask.slots import Slot


def ideal_speed_up(keys: dict[str, object]) -> float:
    """Return the ideal speed-up of two workers over one, by the cost model."""
    config = load(None, keys)
    dataset = datasets.obtain(config.data.dataset)
    workers = [Slot("", f"worker{index}", 1) for index in range(2)]
    return place(resolve(config, dataset, 2), workers)[1].speed_up


def ceiling(widths: list[int], rows: int = 200) -> float:
    """Return how fast a hidden layer's training step is while another runs on the other core, over alone."""
    shape = f"{widths[0]}x{widths[-1]}x{rows}"
    with machine.one_thread():
        loops = [ours(shape, "numba", Optimizer(), "float32") for _ in range(2)]
        return seconds_of(loops[:1], 100) / seconds_of(loops, 100)


def bound(ideal: float, together: float) -> float:
    """Return the speed-up that can be had where a worker is `together` times as fast while both are busy, as they are
    for as much of the time as the ideal says.
    """
    both, one = 1 - 1 / ideal, 2 / ideal - 1
    return 1 / (both / together + one)


def at_once(flags: list[str], alone: float) -> float:
    """Return how fast each of two independent runs is while both go, over one alone, which takes `alone` seconds."""
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: train(*flags)["train_seconds"], range(2)))
    return 2 * alone / sum(both)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--chapters", type=int, default=40)
    parser.add_argument("--layers", default="1000,1000,1000")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--together", action="store_true", help="one worker with two units in place of two workers")
    parser.add_argument("--processes", action="store_true", help="workers are processes")
    given = parser.parse_args()
    names = ("sequential", "all-layers", "streaming")
    seconds: dict[tuple[str, int], list[float]] = {(name, units): [] for name in names for units in (1, 2)}
    busy: dict[str, list[float]] = {name: [] for name in names}
    last = {}
    widths = [int(width) for width in given.layers.split(",")]
    loops: list[float] = []
    runs: list[float] = []
    for _ in range(given.repeats):
        loops.append(ceiling(widths))
        for name in names:
            for units in (1, 2):
                flags = ["--schedule", name, "--epochs", str(given.epochs), "--chapters", str(given.chapters)]
                workers = 1 if given.together else units
                flags += ["--layers", given.layers, "--workers", str(workers), "--units", str(units), "--nodes"]
                flags += [{"sequential": "1", "all-layers": "2", "streaming": str(given.layers.count(",") + 1)}[name]]
                flags += ["--processes"] if given.processes else []
                last = train(*flags)
                seconds[name, units].append(last["train_seconds"])
                if units == 2:
                    busy[name].append(last["utilization"])
                elif name == "sequential":
                    runs.append(at_once(flags, last["train_seconds"]))
    rows = []
    for name in names:
        one, two = median(seconds[name, 1]), median(seconds[name, 2])
        keys = {"schedule.name": name, "training.epochs": given.epochs, "schedule.chapters": given.chapters}
        keys["network.layers"], same = widths, ("sequential", "all-layers")
        least = min(same, key=lambda each: median(seconds[each, 1])) if name in same else name
        ratios = [a / b for a, b in zip(seconds[least, 1], seconds[name, 2], strict=True)]
        ideal = ideal_speed_up(keys)
        shares = [
            median([ratio / bound(ideal, most) for ratio, most in zip(ratios, ceilings, strict=True)])
            for ceilings in (loops, runs)
        ]
        figures = [median(ratios), ideal, median(loops), shares[0], median(runs), shares[1], median(busy[name])]
        rows.append([name, one, two, *figures])
    columns = ["schedule", "1 worker, s", "2 workers, s", "speed-up", "ideal", "loops at once", "of the bound"]
    columns += ["runs at once", "of their bound", "busy of 2"]
    title = f"{given.layers}, {given.epochs} epochs, {given.chapters} chapters, medians of {given.repeats}"
    show(title, columns, rows, where(last), given.json)


if __name__ == "__main__":
    main()
