"""One loaded bundle, and what it knows of nodes: names, lists, encoders, the neural scorer."""
