"""Waits until the Ray cluster at RAY_ADDRESS has nodes with GPUs: wait_for_nodes.py NODES SECONDS."""

import os
import sys
import time

import ray


def count() -> int:
    """Nodes of the cluster that are alive and have a GPU; 0 while its head doesn't answer."""
    if not ray.is_initialized():
        try:
            ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="error")
        except ConnectionError as error:
            sys.stderr.write(f"{error}\n")
            return 0
    return sum(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in ray.nodes())


def main(wanted: int, seconds: float) -> int:
    """0 once so many nodes are there; 1, and a sentence, after the seconds."""
    end = time.monotonic() + seconds
    while (found := count()) < wanted:
        if time.monotonic() > end:
            sys.stderr.write(
                f"error: {found} of {wanted} nodes with GPUs joined the Ray cluster at {os.environ['RAY_ADDRESS']} "
                f"in {seconds:g} s: look at what ray_node.sh says on the others, lower NUM_NODES or raise WAIT_S\n"
            )
            return 1
        time.sleep(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
