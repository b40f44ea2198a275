"""How tests start several processes."""

import sys

LAUNCH = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no"),
    *("--dynamo_backend", "no"),
)
"""accelerate's `--cpu` starts one process only: several on the CPU take its launcher for several
GPUs, with ACCELERATE_USE_CPU=true."""
