"""A Ray cluster of two nodes on loopback: prints its address; a line on standard input loses one, its end the rest."""

import os
import sys

from qstudy.sweep.launchers.ray import ON_LOOPBACK, QUIET, STORE_BYTES


def main() -> None:
    os.environ.update({ON_LOOPBACK: "0", **QUIET})
    from ray.cluster_utils import Cluster  # Ray reads the environment when it is imported

    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = cluster.add_node(**node)
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
