"""``python -m ffdask.predict RUN IMAGES``: a finished run's answers, as csv or json lines, with no cluster."""

from __future__ import annotations

import csv
import json
import os
import sys

from ffdask import cli, machine
from ffdask.datasets import Dataset
from ffdask.images import read_images
from ffdask.kernels import named
from ffdask.store import open_network


def parser() -> cli.Parser:
    """Return what reads the command line."""
    made = cli.parser("predict", "Predict the labels of images by a finished run, with no cluster.")
    cli.add_run(made)
    made.add_argument("images", help="a png, npy, npz or Zarr of images, uint8 or as the run learned from")
    made.add_argument("--format", choices=["csv", "jsonl"], default="csv", help="(default: csv)")
    return made


def main() -> None:
    """Read the command line and print a line an image: its index, the label, and each class's score."""
    arguments = parser().parse_args()
    network, recorded = open_network(arguments.run)
    classifier = cli.classifier(arguments, network, recorded)
    dataset = Dataset(**recorded["dataset"])
    images = read_images(arguments.images, dataset.shape, dataset.dtype)
    with machine.one_thread():
        scores = network.scores(images, classifier, named("numpy"), os.cpu_count() or 1)
    labels = scores.argmax(axis=1)
    if arguments.format == "jsonl":
        for index, (label, row) in enumerate(zip(labels, scores, strict=True)):
            print(json.dumps({"index": index, "label": int(label), "scores": [round(float(s), 6) for s in row]}))
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(["index", "label", *(f"score{label}" for label in range(network.classes))])
    for index, (label, row) in enumerate(zip(labels, scores, strict=True)):
        writer.writerow([index, int(label), *(f"{score:.6f}" for score in row)])


if __name__ == "__main__":
    cli.guarded(main)
