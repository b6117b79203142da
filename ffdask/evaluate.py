"""``python -m ffdask.evaluate RUN``: a finished run's accuracy, from its folder, with no cluster."""

from __future__ import annotations

import os

from ffdask import cli, datasets
from ffdask.errors import BadInput, nearest
from ffdask.run import open_run, test
from ffdask.store import recorded_digest


def main() -> None:
    """Read the command line and print the test set's figures, a line each."""
    parser = cli.parser("evaluate", "Evaluate a finished run on a test set, with no cluster.")
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("--dataset", help="a known name or a path (default: the run's own)")
    parser.add_argument("--classifier", help="softmax or goodness (default: the run's own)")
    arguments = parser.parse_args()
    network, recorded = open_run(arguments.run)
    classifier = arguments.classifier or recorded["classifier"]
    if classifier not in network.classifiers():
        allowed = ", ".join(network.classifiers())
        raise BadInput(f"--classifier: given {classifier!r}; this run has {allowed}{nearest(classifier, allowed)}")
    dataset = datasets.obtain(arguments.dataset or recorded["dataset"]["name"], print)
    if dataset.height * dataset.width != network.states[0].weights.shape[0]:
        raise BadInput(
            f"--dataset: given {dataset.name}, whose images have {dataset.height} x {dataset.width} pixels; "
            f"the run learned from {network.states[0].weights.shape[0]}"
        )
    digest, known = network.sha256(), recorded_digest(arguments.run)
    agrees = "as recorded" if digest == known else f"NOT as recorded ({known}): the store was changed"
    figures = test(network, classifier, dataset, os.cpu_count() or 1)
    print(f"test_accuracy {figures['test_accuracy']:.4f}")
    print(f"test_errors {figures['test_errors']}")
    for name in network.classifiers():
        print(f"test_accuracy_{name} {figures[f'test_accuracy_{name}']:.4f}")
    print(f"weights_sha256 {digest} {agrees}")


if __name__ == "__main__":
    cli.guarded(main)
