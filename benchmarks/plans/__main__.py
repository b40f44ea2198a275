"""The three commands."""

import tyro

from benchmarks.plans.check import Check
from benchmarks.plans.compare import Compare
from benchmarks.plans.measure import Measure

if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"measure": Measure, "compare": Compare, "check": Check})()
