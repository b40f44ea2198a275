"""Prints by how many bytes memory peaked while 16 queries were attributed within a budget."""

import sys
import threading
import time
from pathlib import Path

import psutil

import retrac
from retrac.attribution.config import ComputeConfig, PlanConfig


def main(folder: Path, budget: str) -> None:
    config = retrac.TrainConfig.for_dataset(
        "digits", limit=16, channels=(64, 128, 128), epochs=1, checkpoint_every=1, sample_count=0
    )
    run = retrac.train(config, folder)
    process, highest, plan = psutil.Process(), [0], PlanConfig(2, 2)
    retrac.attribute(
        run, "train:1", ("tracin", "retrac"), plan=plan
    )  # what torch sets up once is not counted

    def watch() -> None:
        while True:
            highest[0] = max(highest[0], process.memory_info().rss)
            time.sleep(0.002)

    before = process.memory_info().rss
    threading.Thread(target=watch, daemon=True).start()
    retrac.attribute(
        run,
        "train:16",
        ("tracin", "retrac"),
        plan=plan,
        compute=ComputeConfig(memory_budget=budget),
    )
    print(highest[0] - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
