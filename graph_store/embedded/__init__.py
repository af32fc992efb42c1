"""The embedded store: Ladybug in this process, one writer, any number of readers."""
