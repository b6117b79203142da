"""``python -m ffdask.evaluate RUN``: a finished run's accuracy, from its folder, with no cluster."""

from __future__ import annotations

import os

from ffdask import cli, datasets, machine
from ffdask.errors import BadInput
from ffdask.store import open_network, recorded_digest
from ffdask.summary import own_dataset, test


def parser() -> cli.Parser:
    """Return what reads the command line."""
    made = cli.parser("evaluate", "Evaluate a finished run on a test set, with no cluster.")
    cli.add_run(made)
    made.add_argument("--dataset", help="a known name or a path (default: the run's own)")
    cli.add_json(made, "the figures")
    return made


def main() -> None:
    """Read the command line and print the test set's figures, a line each."""
    arguments = parser().parse_args()
    say = cli.say_beside if arguments.json else print
    network, recorded = open_network(arguments.run)
    classifier = cli.classifier(arguments, network, recorded)
    dataset = own_dataset(recorded, say) if arguments.dataset is None else datasets.obtain(arguments.dataset, say)
    if dataset.classes != network.classes:
        raise BadInput(
            f"--dataset: given {dataset.name} of {dataset.classes} classes; the run learned {network.classes}"
        )
    if dataset.inputs != network.pixels:
        raise BadInput(
            f"--dataset: given {dataset.name}, whose samples have {' x '.join(map(str, dataset.shape))} values; "
            f"the run learned from {network.pixels}"
        )
    digest, known = network.sha256(), recorded_digest(arguments.run)
    agrees = "as recorded" if digest == known else f"NOT as recorded ({known}): the store was changed"
    with machine.one_thread():
        figures = test(network, classifier, dataset, os.cpu_count() or 1)
    if arguments.json:
        cli.print_json({**figures, "weights_sha256": digest, "as_recorded": digest == known})
        return
    print(f"test_accuracy {figures['test_accuracy']:.4f}")
    print(f"test_errors {figures['test_errors']}")
    for name in network.classifiers():
        print(f"test_accuracy_{name} {figures[f'test_accuracy_{name}']:.4f}")
    print(f"weights_sha256 {digest} {agrees}")


if __name__ == "__main__":
    cli.guarded(main)
