"""What changed in the graph since the bundle was published: followed, encoded, and answered."""
