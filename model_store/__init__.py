"""Model bundles: published vectors, neighbour lists, transforms and encoders, as one checked folder."""
