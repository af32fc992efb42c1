"""Training: from the graph to vectors, and what is measured of them."""

import os

# Threads that wait for work sleep. By default they spin, which costs a training of small batches dearly on a machine
# with other work to do. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
